import { type Run, type RunResult, simulate } from './run.ts'
import type { Store } from './servers/empty-store.ts'

/**
 * Searches for the smallest set of faults with which a seed still has a violation (delta debugging): it leaves out
 * halves of the faults, then quarters, and so on down to single ones, and keeps each omission after which the
 * violation remains.
 */
export async function minimize(
  store: Store,
  run: Run,
  maxRuns = 300,
): Promise<{ readonly result: RunResult; readonly kept: readonly string[] }> {
  let without = new Set<string>()
  let result = await simulate(store, run)
  let runs = 1
  for (let parts = 2; result.violations.length > 0 && runs < maxRuns; ) {
    const faults = [...new Set(result.faults)]
    if (faults.length === 0) break
    const size = Math.ceil(faults.length / Math.min(parts, faults.length))
    let isSmaller = false
    for (let from = 0; from < faults.length && runs < maxRuns; from += size) {
      const fewer = new Set([...without, ...faults.slice(from, from + size)])
      const tried = await simulate(store, { ...run, without: fewer })
      runs += 1
      if (tried.violations.length === 0 || tried.faults.length >= result.faults.length) continue
      without = fewer
      result = tried
      isSmaller = true
      break
    }
    if (isSmaller) parts = Math.max(2, parts - 1)
    else if (size === 1) break
    else parts *= 2
  }
  return { result, kept: result.faults }
}
