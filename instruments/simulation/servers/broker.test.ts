import assert from 'node:assert/strict'
import { test } from 'node:test'
import { busConformance, numbered, receive } from '../../../messaging/bus.conformance.ts'
import { createLife, type Life, never } from '../world/lives.ts'
import type { Steps } from '../world/steps.ts'
import { createBroker } from './broker.ts'
import { createSimulatedBus } from './simulated-bus.ts'

/** Without faults, the simulated bus must pass the same suite as the real ones. */
busConformance('simulated bus', async (topics) => {
  const broker = createBroker(topics, () => 0)
  let life = createLife('process', 'order')

  function open() {
    const own = life
    return createSimulatedBus({
      life: own,
      broker,
      steps: { perform: async (_life, _step, work) => work() },
      luck: {
        messagesOf: (share) => share.lag(),
        writtenOf: () => undefined,
        onJoined: (member) => own.onEnd(() => member.leave()),
      },
    })
  }

  const bus = open()
  return {
    bus,
    async reopen() {
      life.end()
      life = createLife('process', 'order')
      return open()
    },
    close: () => bus.close(),
  }
})

test('a process that dies before it hears that it joined a group leaves the group', async () => {
  const broker = createBroker([{ name: 'flow', partitions: 2, compacted: false }], () => 0)
  const openFor = (life: Life, perform: Steps['perform']) =>
    createSimulatedBus({
      life,
      broker,
      steps: { perform },
      luck: {
        messagesOf: (share) => share.lag(),
        writtenOf: () => undefined,
        onJoined: (member) => life.onEnd(() => member.leave()),
      },
    })
  const [first, second] = [createLife('first', 'order'), createLife('second', 'order')]
  const unanswered = openFor(first, async (_life, _step, work) => {
    await work()
    return never()
  })
  void unanswered.subscribe('readers', ['flow'])
  const bus = openFor(second, async (_life, _step, work) => work())
  const subscription = await bus.subscribe('readers', ['flow'])
  first.end()
  const messages = numbered('flow', 20, 10)
  await bus.send(messages)
  assert.equal((await receive(subscription, 20)).length, 20)
})
