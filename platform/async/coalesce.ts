/**
 * Lets concurrent requests of a process share a transaction: whatever queued while the last batch
 * ran is the next batch, so nothing waits longer than it must and a busy process commits less often.
 */
export interface CoalesceOptions<Item, Result> {
  /** Settles the items, in their order, in one transaction; one result each. */
  readonly run: (items: readonly Item[]) => Promise<readonly Result[]>
  /** The most items of a batch. */
  readonly maxBatch: number
  /** The most items that may wait; more are refused with `overflow()`. */
  readonly maxQueue: number
  /** How many batches may run at a time. */
  readonly lanes: number
  /** What the first batch waits for, so that what comes together goes together; at once unless told. */
  readonly gather?: () => Promise<void>
  readonly overflow: () => Error
}

/** The request behind an item. */
export interface Caller {
  /** Whether it is too late to begin: the item is then rejected with `overflow()` instead of run. */
  isExpired(): boolean
}

interface Waiting<Item, Result> {
  readonly item: Item
  readonly caller: Caller | undefined
  readonly resolve: (result: Result) => void
  readonly reject: (error: unknown) => void
}

export function coalesce<Item, Result>(
  options: CoalesceOptions<Item, Result>,
): (item: Item, caller?: Caller) => Promise<Result> {
  const queue: Waiting<Item, Result>[] = []
  let running = 0

  async function lane(): Promise<void> {
    running += 1
    await options.gather?.()
    while (queue.length > 0) await settle(nextBatch())
    running -= 1
  }

  function nextBatch(): Waiting<Item, Result>[] {
    const batch: Waiting<Item, Result>[] = []
    while (queue.length > 0 && batch.length < options.maxBatch) {
      for (const waiting of queue.splice(0, options.maxBatch - batch.length)) {
        if (waiting.caller?.isExpired()) waiting.reject(options.overflow())
        else batch.push(waiting)
      }
    }
    return batch
  }

  /** A batch that fails is split until what fails stands alone, so that it fails alone. */
  async function settle(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    if (batch.length === 0) return
    try {
      const results = await options.run(batch.map(({ item }) => item))
      for (const [index, { resolve }] of batch.entries()) resolve(results[index]!)
    } catch (error) {
      if (batch.length === 1 || isUnavailable(error)) {
        for (const { reject } of batch) reject(error)
        return
      }
      const middle = batch.length >> 1
      await settle(batch.slice(0, middle))
      await settle(batch.slice(middle))
    }
  }

  return (item, caller) =>
    new Promise((resolve, reject) => {
      if (queue.length >= options.maxQueue) return reject(options.overflow())
      queue.push({ item, caller, resolve, reject })
      if (running < options.lanes) void lane()
    })
}

/** Whoever calls while the work runs shares its result. */
export function shared<T>(work: () => Promise<T>): () => Promise<T> {
  let running: Promise<T> | undefined
  return () => {
    running ??= work().finally(() => {
      running = undefined
    })
    return running
  }
}

/** A result is returned again for so many milliseconds; a failure is not. */
export function cached<T>(
  work: () => Promise<T>,
  durationMs: number,
  now: () => number,
): () => Promise<T> {
  let last: { readonly result: T; readonly at: number } | undefined
  return async () => {
    // The age is negative after the clock was set back.
    const age = last === undefined ? -1 : now() - last.at
    if (last !== undefined && age >= 0 && age < durationMs) return last.result
    const result = await work()
    last = { result, at: now() }
    return result
  }
}

/** One run at a time: whoever calls while the work runs waits for the next run, which all of them share. */
export function inTurn<T>(work: () => Promise<T>): () => Promise<T> {
  let running: Promise<unknown> = Promise.resolve()
  let next: Promise<T> | undefined
  return () => {
    next ??= running.then(() => {
      next = undefined
      const run = work()
      running = run.catch(() => undefined)
      return run
    })
    return next
  }
}

function isUnavailable(error: unknown): boolean {
  return (error as { kind?: unknown }).kind === 'unavailable'
}
