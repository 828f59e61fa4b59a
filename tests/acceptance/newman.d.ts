/** The part of newman 6 that the acceptance tests use; it has no types of its own. */
declare module 'newman' {
  interface RunOptions {
    readonly collection: object
    /** Overrides variables of the collection. */
    readonly envVar?: readonly { readonly key: string; readonly value: string }[]
    /** Runs only this folder. */
    readonly folder?: string
    /** Limit for each request, in milliseconds. */
    readonly timeoutRequest?: number
    /** Limit for the whole run, in milliseconds. */
    readonly timeout?: number
  }

  interface Count {
    readonly total: number
    readonly failed: number
  }

  interface Failure {
    readonly error: { readonly name: string; readonly message: string; readonly test?: string }
    /** The request that failed; absent if the run as a whole failed. */
    readonly source?: {
      readonly name: string
      parent(): { readonly name: string } | undefined
    }
  }

  interface Summary {
    readonly error?: Error
    readonly run: {
      readonly stats: { readonly requests: Count; readonly assertions: Count }
      readonly failures: readonly Failure[]
    }
  }

  /** A failed assertion is not an error: it is one of the summary's failures. */
  function run(
    options: RunOptions,
    callback: (error: Error | null, summary: Summary) => void,
  ): unknown

  const newman: { run: typeof run }
  export default newman
  export type { Failure, RunOptions, Summary }
}
