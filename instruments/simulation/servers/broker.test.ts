import { busConformance } from '../../../messaging/bus.conformance.ts'
import { createLife } from '../world/lives.ts'
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
