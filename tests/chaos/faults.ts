import { setTimeout as sleep } from 'node:timers/promises'
import type { FragileStack } from './fragile-stack.ts'
import { type Fault, nameOf, type Planned, type Target } from './schedule.ts'
import type { SmallDisk } from './small-disk.ts'

/** A fault as it took place. */
export interface Struck {
  readonly target: Target
  readonly name: string
  /** What is to be known beside its name. */
  readonly detail: string
  /** Epoch milliseconds. */
  readonly beganMs: number
  /** When it was put right; a server that was killed answers again by then. */
  readonly endedMs: number
}

export interface FaultsOptions {
  readonly stack: Pick<FragileStack, 'processes' | 'ways' | 'disk'>
  readonly schedule: readonly Planned[]
  /** Ends the run early: what is wrong is put right, and nothing else begins. */
  readonly signal: AbortSignal
  readonly say: (line: string) => void
}

/** Lets the faults of a schedule happen from now on; resolves when the last one is put right. */
export async function letHappen(options: FaultsOptions): Promise<Struck[]> {
  const { schedule, signal } = options
  const begunMs = performance.now()
  const struck: Struck[] = []
  // A start may take longer than was planned for it, and what comes next waits for it.
  const chains = new Map<Target, Promise<unknown>>()
  for (const planned of schedule) {
    await pause(planned.afterMs - (performance.now() - begunMs), signal)
    if (signal.aborted) break
    const { target } = planned.fault
    const before = chains.get(target) ?? Promise.resolve()
    chains.set(
      target,
      before.then(async () => struck.push(await strike(planned, options))),
    )
  }
  await Promise.all(chains.values())
  return struck.toSorted((a, b) => a.beganMs - b.beganMs)
}

async function strike({ fault, forMs }: Planned, options: FaultsOptions): Promise<Struck> {
  const { stack, signal, say } = options
  const name = nameOf(fault)
  const detail = detailOf(fault)
  const beganMs = Date.now()
  say(`${name}: ${fault.target}${detail && `, ${detail}`}, for ${(forMs / 1_000).toFixed(1)} s`)
  const heal = await hurt(fault, stack)
  await pause(forMs, signal)
  await heal()
  return { target: fault.target, name, detail, beganMs, endedMs: Date.now() }
}

/** Resolves with what puts it right. */
async function hurt(fault: Fault, stack: FaultsOptions['stack']): Promise<() => unknown> {
  switch (fault.kind) {
    case 'toxic': {
      const proxy = stack.ways.get(fault.target)!
      proxy.poison(fault.toxic, fault.share)
      return proxy.heal
    }
    case 'kill': {
      const server = stack.processes.get(fault.target)!
      await server.kill()
      return server.start
    }
    case 'freeze': {
      const server = stack.processes.get(fault.target)!
      await server.freeze()
      return server.thaw
    }
    case 'full': {
      const disk = stack.disk as SmallDisk
      disk.fill()
      // What is given back elsewhere is taken at once.
      const filling = setInterval(disk.fill, REFILL_MS)
      return () => {
        clearInterval(filling)
        disk.free()
      }
    }
  }
}

const REFILL_MS = 250

function detailOf(fault: Fault): string {
  if (fault.kind !== 'toxic') return ''
  const { toxic, share } = fault
  const half = share < 1 ? ['half of the connections'] : []
  if (toxic.kind === 'latency') return [`${toxic.delayMs} ms`, ...half].join(', ')
  if (toxic.kind === 'slow') return [`${toxic.bytesPerSecond} bytes a second`, ...half].join(', ')
  return half.join('')
}

/** Less long where the signal ends it. */
async function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  if (durationMs > 0) await sleep(durationMs, undefined, { signal }).catch(() => undefined)
}
