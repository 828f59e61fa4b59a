/** Whether the tests run on processes, Apache Kafka, PostgreSQL and nginx, and not on the all-in-one. */
export const ON_STACK = process.env.TEST_STACK === 'true'

/**
 * How long a test waits for what must come. On the stack that includes the start of a process, and
 * the ten seconds until a consumer group notices that a member was killed.
 */
export const WAIT_LIMIT_MS = ON_STACK ? 60_000 : 30_000
