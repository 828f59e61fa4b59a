import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type CpuProfile, flameGraph, framesOf } from './flame-graph.ts'

const frame = (functionName: string, url = '') => ({ functionName, url })

const profile: CpuProfile = {
  nodes: [
    { id: 1, callFrame: frame('(root)'), children: [2, 3, 5] },
    { id: 2, callFrame: frame('(idle)') },
    { id: 3, callFrame: frame('run', 'file:///a/messaging/outbox/relay.ts'), children: [4] },
    { id: 4, callFrame: frame('query', 'file:///a/node_modules/pg/lib/client.js') },
    { id: 5, callFrame: frame('run', 'file:///a/messaging/outbox/relay.ts'), children: [6] },
    { id: 6, callFrame: frame('<b>', 'file:///a/node_modules/@x/y/z.js') },
  ],
  samples: [3, 2, 4, 6, 4],
  timeDeltas: [100, 900, 300, 200, 400],
}

test('frames with the same name and caller are merged, and idle time is left out', () => {
  const root = framesOf(profile)
  assert.equal(root.totalUs, 1_000)
  assert.deepEqual(
    root.children.map(({ name, totalUs }) => [name, totalUs]),
    [['run (outbox/relay.ts)', 1_000]],
  )
  assert.deepEqual(
    root.children[0]!.children.map(({ name, totalUs }) => [name, totalUs]),
    [
      ['query (pg)', 700],
      ['<b> (@x/y)', 200],
    ],
  )
})

test('only the given period counts', () => {
  assert.equal(framesOf(profile, 0.0011).totalUs, 900)
  assert.equal(framesOf(profile, 0.0011, 0.0016).totalUs, 500)
})

test('a graph has a bar for each frame with its share of the total, and escapes names', () => {
  const picture = flameGraph(framesOf(profile), 'relay & co')
  assert.match(picture, /<title id="title">relay &amp; co<\/title>/)
  assert.match(picture, /<title>query \(pg\): 70.0 %<\/title>/)
  assert.match(picture, /&lt;b&gt; \(@x\/y\): 20.0 %/)
  assert.equal(picture.match(/<g>/g)?.length, 4)
})
