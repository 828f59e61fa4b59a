import type { Extension } from '@electric-sql/pglite'

/** The JavaScript functions that PGlite's WebAssembly imports, by module. */
type Imports = Record<string, Record<string, (...args: unknown[]) => unknown>>
type Instantiate = (imports: Imports, done: unknown) => unknown

const CLOCKS = ['clock_time_get', 'emscripten_date_now']

/**
 * Makes PGlite use the given clock instead of the machine's, from its start. `now` returns epoch
 * milliseconds, and all SQL functions that return the time follow it. PostgreSQL's own timers are turned off,
 * because they would use the machine's clock. PGlite needs them only to flush statistics while it is idle.
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

/** Replaces Date.now during the call, because that is where Emscripten gets the time of day from. */
function atTime<T>(epochMs: number, read: () => T): T {
  const { now } = Date
  Date.now = () => epochMs
  try {
    return read()
  } finally {
    Date.now = now
  }
}
