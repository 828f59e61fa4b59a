/**
 * The parts of the program that can be switched off and on while it runs, to show how the other parts cope.
 */
export type SwitchName = 'order' | 'billing' | 'notification' | 'broker'

export interface Switch {
  running(): boolean
  /**
   * Calls of `start` and `stop` run one after the other. A second `start` or `stop` in a row changes nothing.
   */
  start(): Promise<void>
  stop(): Promise<void>
}

export type Lab = Readonly<Record<SwitchName, Switch>>

/** Makes a switch for a part. `start` starts the part and resolves with the function that stops it. */
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
