/**
 * Lets concurrent requests to a process share a transaction. One batch runs at a time. All items that were
 * queued while it ran form the next batch, so no item waits for a timer, and the busier a process is, the more
 * items share a commit.
 */
export interface CoalesceOptions<Item, Result> {
  /** Handles the items in order, in one transaction. Returns one result for each item. */
  readonly run: (items: readonly Item[]) => Promise<readonly Result[]>
  /** The largest number of items in a batch. */
  readonly maxBatch: number
  /** How many items may wait. Further items are rejected with `overflow()`. */
  readonly maxQueue: number
  /**
   * If no batch is running, the next batch waits for this before it starts, so that it contains all items
   * that arrive together. By default, the batch starts at once.
   */
  readonly gather?: () => Promise<void>
  readonly overflow: () => Error
}

/** The request that an item belongs to. */
export interface Caller {
  /** Whether it is too late to start work for this caller. If so, the item is rejected with `overflow()`. */
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
  let isRunning = false

  async function work(): Promise<void> {
    isRunning = true
    await options.gather?.()
    while (queue.length > 0) await run(nextBatch())
    isRunning = false
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

  /** A failed batch is split until the item that fails is alone, so that no other item fails with it. */
  async function run(batch: readonly Waiting<Item, Result>[]): Promise<void> {
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
      await run(batch.slice(0, middle))
      await run(batch.slice(middle))
    }
  }

  return (item, caller) =>
    new Promise((resolve, reject) => {
      if (queue.length >= options.maxQueue) return reject(options.overflow())
      queue.push({ item, caller, resolve, reject })
      if (!isRunning) void work()
    })
}

/**
 * Returns a function that does the work. Calls made while the work is running share the result of that run.
 */
export function shared<T>(work: () => Promise<T>): () => Promise<T> {
  let running: Promise<T> | undefined
  return () => {
    running ??= work().finally(() => {
      running = undefined
    })
    return running
  }
}

/** Returns a function that does the work and caches the result for `durationMs`. Failures are not cached. */
export function cached<T>(
  work: () => Promise<T>,
  durationMs: number,
  now: () => number,
): () => Promise<T> {
  let last: { readonly result: T; readonly at: number } | undefined
  return async () => {
    // The age can be negative, because the clock can be set back.
    const age = last === undefined ? -1 : now() - last.at
    if (last !== undefined && age >= 0 && age < durationMs) return last.result
    const result = await work()
    last = { result, at: now() }
    return result
  }
}

/**
 * Returns a function that does the work, one run at a time. Calls made during a run wait for the next run and
 * share it.
 */
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
