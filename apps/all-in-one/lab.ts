/** The parts that can be switched off and on while the program runs, to see how the others cope. */
export type SwitchName = 'order' | 'billing' | 'notification' | 'broker'

export interface Switch {
  running(): boolean
  /** Starts and stops run one after the other; starting or stopping twice changes nothing. */
  start(): Promise<void>
  stop(): Promise<void>
}

export type Lab = Readonly<Record<SwitchName, Switch>>

/** Makes a switch of a part whose `start` resolves with the function that stops it. */
export function switchable(part: { start: () => Promise<() => Promise<void>> }): Switch {
  let stop: (() => Promise<void>) | undefined
  let last: Promise<void> = Promise.resolve()
  const inTurn = (work: () => Promise<void>) => {
    last = last.then(work, work)
    return last
  }
  return {
    running: () => stop !== undefined,
    start: () =>
      inTurn(async () => {
        stop ??= await part.start()
      }),
    stop: () =>
      inTurn(async () => {
        const running = stop
        stop = undefined
        await running?.()
      }),
  }
}

export const isSwitchName = (name: unknown): name is SwitchName =>
  ['order', 'billing', 'notification', 'broker'].includes(name as SwitchName)
