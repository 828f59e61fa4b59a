import { readdirSync, readFileSync } from 'node:fs'

/**
 * CPU and memory of processes, from /proc. A server counts with all its descendants, including children that have
 * ended, because PostgreSQL's workers come and go.
 */
export interface ProcessStat {
  readonly pid: number
  readonly parent: number
  /** CPU ticks of the process and of its children that have ended. */
  readonly ticks: number
  readonly rssPages: number
}

/** Linux reports CPU time in hundredths of a second, regardless of the kernel's configuration. */
const TICKS_PER_SECOND = 100
const PAGE_BYTES = 4_096

/** Parses a line of /proc/PID/stat. The process name is in parentheses and can contain any character. */
export function parseStat(text: string): ProcessStat {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const numberAt = (index: number) => Number(fields[index])
  // Field 3 of proc(5), the state, has index 0 here.
  return {
    pid: Number.parseInt(text, 10),
    parent: numberAt(1),
    ticks: numberAt(11) + numberAt(12) + numberAt(13) + numberAt(14),
    rssPages: numberAt(21),
  }
}

/** A process and all its descendants. */
export function familyOf(stats: readonly ProcessStat[], root: number): ProcessStat[] {
  const family = stats.filter(({ pid }) => pid === root)
  // The array grows during the iteration, so that descendants of descendants are found, too.
  for (const { pid } of family) family.push(...stats.filter(({ parent }) => parent === pid))
  return family
}

export interface Usage {
  readonly cpuMs: number
  readonly rssBytes: number
}

/** The usage of each process with its descendants, by name; zero for a process that does not run. */
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
        // The process has just ended.
        return []
      }
    })
}

export interface WakeUps {
  readonly mainThread: number
  /** Includes V8's own threads, which collect garbage and compile. */
  readonly allThreads: number
}

/** Counts voluntary context switches, because a thread that goes to sleep has to be woken up. */
export function wakeUpsOf(pid: number): WakeUps {
  const counts = readdirSync(`/proc/${pid}/task`).map((thread) => {
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8')
    const count = Number(/^voluntary_ctxt_switches:\s*(\d+)/m.exec(status)?.[1] ?? 0)
    return { isMain: Number(thread) === pid, count }
  })
  const sum = (of: typeof counts) => of.reduce((total, { count }) => total + count, 0)
  return { mainThread: sum(counts.filter(({ isMain }) => isMain)), allThreads: sum(counts) }
}
