import type { Extension } from '@electric-sql/pglite'

/** What PGlite's WebAssembly calls of JavaScript: modules of functions. */
type Imports = Record<string, Record<string, (...args: unknown[]) => unknown>>
type Instantiate = (imports: Imports, done: unknown) => unknown

const CLOCKS = ['clock_time_get', 'emscripten_date_now']

/**
 * Gives a PGlite another clock than the machine's, from its start: `now` returns epoch milliseconds,
 * and everything in SQL that asks for the time follows it. PostgreSQL's own timers, which would run
 * on the machine's clock, are off; PGlite uses them only to flush statistics while it is idle.
 */
export function pgliteClock(now: () => number): Extension {
  return {
    name: 'clock',
    setup: async (_pglite, options) => ({
      emscriptenOpts: {
        ...options,
        instantiateWasm(imports: Imports, done: unknown) {
          const replaced = Object.entries(imports).map(([name, functions]) => [
            name,
            onClock(functions, now),
          ])
          return (options.instantiateWasm as Instantiate)(Object.fromEntries(replaced), done)
        },
      },
    }),
  }
}

function onClock(functions: Imports[string], now: () => number): Imports[string] {
  const replaced = { ...functions }
  if (replaced._setitimer_js) replaced._setitimer_js = () => 0
  for (const name of CLOCKS) {
    const original = replaced[name]
    if (original) replaced[name] = (...args) => atTime(now(), () => original(...args))
  }
  return replaced
}

/** Emscripten reads Date.now and nothing else of JavaScript's clocks to tell the time of day. */
function atTime<T>(epochMs: number, read: () => T): T {
  const { now } = Date
  Date.now = () => epochMs
  try {
    return read()
  } finally {
    Date.now = now
  }
}
