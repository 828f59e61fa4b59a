/** Whether the tests run on separate processes with Apache Kafka, PostgreSQL and nginx instead of on the all-in-one. */
export const ON_STACK = process.env.TEST_STACK === 'true'

/**
 * How long a test waits for an expected result. On the stack this includes the start of a process, and the ten
 * seconds until a consumer group notices that a member was killed.
 */
export const WAIT_LIMIT_MS = ON_STACK ? 60_000 : 30_000
