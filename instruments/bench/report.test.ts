import assert from 'node:assert/strict'
import { test } from 'node:test'
import { alternate, type Bench, type Contest, isFarShort, type Outcome } from './contest.ts'
import { costLines, pictureOf, sectionOf, tableOf, withSection } from './report.ts'

const EVENTS: Outcome = {
  name: 'events',
  ours: 'orders <settled>',
  reference: 'pgbench',
  unit: 'orders/s',
  ratio: { min: 2, median: 2.75, max: 3.5 },
  reach: 2.5,
  aim: 4,
  lessIsBetter: false,
  rounds: 3,
  figures: {
    ours: { min: 2_900, median: 3_000, max: 3_100 },
    reference: { min: 1_000, median: 1_100, max: 1_200 },
  },
  costs: { all: 0.612, order: 0.2 },
}
const SETTLE: Outcome = {
  ...EVENTS,
  name: 'settle',
  unit: 'ms',
  reach: 3,
  aim: 1.5,
  lessIsBetter: true,
  costs: {},
}

test('a table says which mark each ratio reaches, for figures where less is better, too', () => {
  const [, events, settle] = tableOf([EVENTS, SETTLE]).split('\n')
  assert.match(events!, /^events +2\.75 \(2 – 3\.5\) +≥ 2\.5 +≥ 4 +3,000 orders\/s +1,100 .* yes$/)
  assert.match(settle!, /^settle .* ≤ 3 +≤ 1\.5 .* yes$/)
  assert.match(tableOf([{ ...EVENTS, reach: 3 }]), /no$/)
  assert.match(tableOf([{ ...SETTLE, aim: 2.8 }]), /aim$/)
})

test('only a ratio that is twice as bad as its mark in every round is far short', () => {
  assert.equal(isFarShort({ ...EVENTS, reach: 6.9 }), false)
  assert.equal(isFarShort({ ...EVENTS, reach: 7.1 }), true)
  assert.equal(isFarShort({ ...SETTLE, reach: 1.1 }), false)
  assert.equal(isFarShort({ ...SETTLE, reach: 0.9 }), true)
})

test('costs are listed for the benchmarks that have any', () => {
  assert.equal(costLines([EVENTS, SETTLE]), 'events: all 0.612, order 0.2')
})

test('a picture is well-formed, and the median lies between the ends of the spread', () => {
  const picture = pictureOf(EVENTS)
  assert.match(picture, /orders &lt;settled&gt;/)
  const [from, to] = ['x1', 'x2'].map((end) =>
    Number(new RegExp(`${end}="([\\d.]+)"[^>]*class="spread"`).exec(picture)?.[1]),
  )
  const median = Number(/cx="([\d.]+)"/.exec(picture)?.[1])
  assert.ok(from! < median && median < to!, `${from} ${median} ${to}`)
})

test('a section replaces only the text between its comments', () => {
  const text = 'before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n'
  const section = sectionOf([EVENTS], { date: '2026-01-01', machine: 'two cores', seconds: 6 })
  const written = withSection(text, 'bench', section)
  assert.equal(withSection(written, 'bench', 'old'), text)
  assert.match(written, /\| events \| 2\.75 \(2 – 3\.5\) \|/)
  assert.throws(() => withSection(text, 'other', ''), /other:begin/)
})

test('runs alternate, the first pair only warms up, and each further pair is a ratio', async () => {
  const calls: string[] = []
  const given = { ours: [99, 10, 30, 20], reference: [1, 5, 10, 10] }
  const side = (name: keyof typeof given) => async () => {
    calls.push(name)
    const figure = given[name].shift()!
    return { figure, also: { p99: figure * 2 }, costs: { all: figure } }
  }
  const contest: Contest = {
    ours: side('ours'),
    reference: side('reference'),
    close: async () => void calls.push('close'),
  }
  const cpuMs = { reach: 25, aim: 15 }
  const bench: Bench = { ...EVENTS, cpuMs, open: async () => contest }
  const pace = { seconds: 1, rounds: 3, quick: false }
  const [outcome, p99, cpu] = await alternate(bench, {} as never, pace, () => undefined)
  assert.deepEqual(calls, [...Array(4).fill(['ours', 'reference']).flat(), 'close'])
  assert.deepEqual(outcome!.ratio, { min: 2, median: 2, max: 3 })
  assert.deepEqual(outcome!.figures.ours, { min: 10, median: 20, max: 30 })
  assert.deepEqual(outcome!.costs, { all: 20 })
  assert.equal(p99!.name, 'events p99')
  assert.deepEqual(p99!.figures.ours, { min: 20, median: 40, max: 60 })
  assert.deepEqual(cpu!.ratio, { min: 10, median: 20, max: 30 })
  assert.match(tableOf([cpu!]), /^events CPU +20 \(10 – 30\) +≤ 25 +≤ 15 .* yes$/m)
  // The mark was set on another machine, so the figure of this one cannot fall short of it.
  assert.equal(isFarShort({ ...cpu!, reach: 1 }), false)
})

test('with --quick, a ratio that is far short is measured up to three times, and the best round counts', async () => {
  for (const [figures, rounds, isFinding] of [
    [[9, 1, 1, 1], 3, true],
    [[9, 1, 1, 4], 3, false],
    [[9, 1, 2, 0], 2, false],
    [[9, 2, 0, 0], 1, false],
  ] as const) {
    const left = [...figures]
    const contest: Contest = {
      ours: async () => ({ figure: left.shift()! }),
      reference: async () => ({ figure: 1 }),
      close: async () => undefined,
    }
    const bench: Bench = { ...EVENTS, open: async () => contest }
    const pace = { seconds: 1, rounds: 1, quick: true }
    const [outcome] = await alternate(bench, {} as never, pace, () => undefined)
    assert.equal(outcome!.rounds, rounds, `${figures}`)
    assert.equal(isFarShort(outcome!), isFinding, `${figures}`)
  }
})
