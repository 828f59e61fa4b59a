/** What the acceptance tests use of newman 6, which brings no types of its own. */
declare module 'newman' {
  interface RunOptions {
    readonly collection: object
    /** Overrides variables of the collection. */
    readonly envVar?: readonly { readonly key: string; readonly value: string }[]
    /** Runs this folder only. */
    readonly folder?: string
    /** For each request, in milliseconds. */
    readonly timeoutRequest?: number
    /** For the whole run, in milliseconds. */
    readonly timeout?: number
  }

  interface Count {
    readonly total: number
    readonly failed: number
  }

  interface Failure {
    readonly error: { readonly name: string; readonly message: string; readonly test?: string }
    /** The request that it happened at; none where the run as a whole failed. */
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

  /** A failed assertion is no error: it is one of the summary's failures. */
  function run(
    options: RunOptions,
    callback: (error: Error | null, summary: Summary) => void,
  ): unknown

  const newman: { run: typeof run }
  export default newman
  export type { Failure, RunOptions, Summary }
}
