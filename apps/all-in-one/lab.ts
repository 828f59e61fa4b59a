/** What can be switched off and on while the program runs, to see what the others make of it. */
export type SwitchName = 'order' | 'billing' | 'notification' | 'broker'

export interface Switch {
  running(): boolean
  /** Both finish what they begin before another begins; doing it twice changes nothing. */
  start(): Promise<void>
  stop(): Promise<void>
}

export type Lab = Readonly<Record<SwitchName, Switch>>

/** A thing that starts, giving what stops it. */
export function switchable(thing: { start: () => Promise<() => Promise<void>> }): Switch {
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
        stop ??= await thing.start()
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
