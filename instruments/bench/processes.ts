import { readdirSync, readFileSync } from 'node:fs'

/**
 * What processes cost, from /proc: a server with all that descend from it, its ended children
 * included, because PostgreSQL's workers come and go.
 */
export interface ProcessStat {
  readonly pid: number
  readonly parent: number
  /** Ticks of its own, and of its children that have ended. */
  readonly ticks: number
  readonly rssPages: number
}

/** Linux counts in hundredths of a second, whatever its kernel was built with. */
const TICKS_PER_SECOND = 100
const PAGE_BYTES = 4_096

/** One line of /proc/PID/stat; the name stands in brackets and may contain anything. */
export function parseStat(text: string): ProcessStat {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const numberAt = (index: number) => Number(fields[index])
  // Of the fields that proc(5) counts from 1, the state, the third, is here the first.
  return {
    pid: Number.parseInt(text, 10),
    parent: numberAt(1),
    ticks: numberAt(11) + numberAt(12) + numberAt(13) + numberAt(14),
    rssPages: numberAt(21),
  }
}

/** A process and all that descend from it. */
export function familyOf(stats: readonly ProcessStat[], root: number): ProcessStat[] {
  const family = stats.filter(({ pid }) => pid === root)
  // It grows while it is gone through.
  for (const { pid } of family) family.push(...stats.filter(({ parent }) => parent === pid))
  return family
}

export interface Usage {
  readonly cpuMs: number
  readonly rssBytes: number
}

/** Of each family by its name; nothing of one that does not run. */
export function usageOf(roots: Readonly<Record<string, number>>): Record<string, Usage> {
  const stats = readStats()
  const usage = Object.entries(roots).map(([name, root]) => {
    const family = familyOf(stats, root)
    const sum = (figure: (stat: ProcessStat) => number) =>
      family.reduce((total, stat) => total + figure(stat), 0)
    const cpuMs = (sum(({ ticks }) => ticks) * 1_000) / TICKS_PER_SECOND
    return [name, { cpuMs, rssBytes: sum(({ rssPages }) => rssPages) * PAGE_BYTES }]
  })
  return Object.fromEntries(usage)
}

function readStats(): ProcessStat[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        return [parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8'))]
      } catch {
        // It has just ended.
        return []
      }
    })
}

export interface WakeUps {
  readonly mainThread: number
  /** That of V8's own as well, which collect garbage and compile. */
  readonly allThreads: number
}

/** How often threads of a process have gone to sleep of their own accord, and so were woken. */
export function wakeUpsOf(pid: number): WakeUps {
  const counts = readdirSync(`/proc/${pid}/task`).map((thread) => {
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8')
    const count = Number(/^voluntary_ctxt_switches:\s*(\d+)/m.exec(status)?.[1] ?? 0)
    return { isMain: Number(thread) === pid, count }
  })
  const sum = (of: typeof counts) => of.reduce((total, { count }) => total + count, 0)
  return { mainThread: sum(counts.filter(({ isMain }) => isMain)), allThreads: sum(counts) }
}
