/**
 * NODE_OPTIONS for a process with a clock that is `offsetMs` ahead: `Date.now()` and `new Date()` return the wrong
 * time. Timers and `performance.now()` are right, as on a machine with a clock that is set wrong.
 */
export function wrongClock(offsetMs: number): string {
  const source = `
    const { now } = Date
    Date.now = () => now() + ${offsetMs}
    globalThis.Date = new Proxy(Date, {
      construct: (target, args, newTarget) =>
        Reflect.construct(target, args.length > 0 ? args : [target.now()], newTarget),
      apply: (target) => new target(target.now()).toString(),
    })`
  return `--import=data:text/javascript,${encodeURIComponent(source)}`
}
