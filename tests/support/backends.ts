import { Admin } from '@platformatic/kafka'
import { createTopics } from '../../apps/topics/main.ts'
import type { Batch, Bus, Subscription, TopicSpec } from '../../messaging/bus.ts'
import { createEmbeddedBus, type EmbeddedBus } from '../../messaging/embedded/bus.ts'
import { createKafkaBus } from '../../messaging/kafka/bus.ts'
import { type Runtime, systemRuntime } from '../../platform/async/runtime.ts'
import type { Database } from '../../platform/database/database.ts'
import { openPglite } from '../../platform/pglite/pglite.ts'
import { openPostgres } from '../../platform/postgres/postgres.ts'
import { createLog } from '../../platform/telemetry/telemetry.ts'
import { databaseUrl } from '../../tools/servers/postgres.ts'

/**
 * Opens the database and the broker of component tests: PostgreSQL if TEST_DATABASE_URL names a server, else
 * PGlite in memory; Apache Kafka if TEST_KAFKA_BROKERS names brokers, else the embedded bus.
 * `npm run test:stack` includes every test file that imports this one, directly or through a file of tests/.
 */
export function openTestDatabase(): Promise<TestDatabase> {
  const serverUrl = process.env.TEST_DATABASE_URL
  return serverUrl ? freshDatabase(serverUrl) : embeddedDatabase()
}

/** A database whose clock, SQL's `now()`, a test can set. Until then it is the machine's clock. */
export interface TestDatabase extends Database {
  useClock(clock: DatabaseClock): void
}

export interface DatabaseClock {
  /** Milliseconds since the epoch. */
  now(): number
  /** Whether `now` changes only when the test sets it. */
  readonly isFrozen: boolean
}

/** A broker for one test, with topics of its own. */
export interface TestBroker {
  /** Opens another client, as another process would. `close` closes it too. */
  open(): Promise<Bus>
  /** Starts an outage for all clients: until `resume`, every call rejects. */
  pause(): void
  resume(): void
  /** The number of messages that the group has committed, according to the broker. */
  committed(group: string): Promise<number>
  /** Closes all clients, deletes the topics and creates them again. */
  remakeTopics(): Promise<void>
  /** Closes all clients and deletes the topics. */
  close(): Promise<void>
}

export interface TestBrokerOptions {
  /** The database with the schema of the embedded bus. */
  readonly database: Database
  readonly topics: readonly TopicSpec[]
  /** For the embedded bus. Kafka and its client always use the real time. */
  readonly runtime?: Runtime
}

export function openTestBroker(options: TestBrokerOptions): Promise<TestBroker> {
  const brokers = process.env.TEST_KAFKA_BROKERS
  return brokers ? namespaceOnKafka(brokers, options.topics) : embeddedBroker(options)
}

async function embeddedDatabase(): Promise<TestDatabase> {
  let clock: Pick<DatabaseClock, 'now'> = systemRuntime
  const database = await openPglite({ now: () => clock.now() })
  return {
    ...database,
    useClock(next) {
      clock = next
    },
  }
}

async function freshDatabase(serverUrl: string): Promise<TestDatabase> {
  const name = `test_${crypto.randomUUID().replaceAll('-', '')}`
  const onServer = async (statement: string) => {
    const server = await openPostgres({ url: serverUrl, maxConnections: 1 })
    await server.script(statement).finally(() => server.close())
  }
  // Not template1, which cannot be copied while another session is connected to it.
  await onServer(`create database ${name} template template0`)
  const url = databaseUrl(serverUrl, name)
  await shadowNow(url, name)
  const database = followClock(await openPostgres({ url }))
  return {
    ...database,
    async close() {
      await database.close()
      await onServer(`drop database ${name} with (force)`)
    },
  }
}

/** Unqualified `now()` becomes a function that reads its time from a table. */
async function shadowNow(url: string, name: string): Promise<void> {
  const database = await openPostgres({ url, maxConnections: 1 })
  const create = database.script(`
    create schema clock;
    create table clock.setting (fixed timestamptz, ahead interval not null);
    insert into clock.setting (ahead) values ('0');
    create function clock.now() returns timestamptz stable language sql as
      'select coalesce(fixed, pg_catalog.now() + ahead) from clock.setting';
    alter database ${name} set search_path = clock, pg_catalog, public;`)
  await create.finally(() => database.close())
}

/**
 * A running clock is read twice, a moment apart, so a difference as small as this does not mean that the test
 * set the clock.
 */
const CLOCK_NOISE_MS = 5

/** If the test has set its clock, sets the server's shadowed clock before the next statement. */
function followClock(database: Database): TestDatabase {
  let clock: DatabaseClock = { ...systemRuntime, isFrozen: false }
  let shown: { readonly ms: number; readonly isFrozen: boolean } = { ms: 0, isFrozen: false }
  let isSet: Promise<unknown> = Promise.resolve()

  function set(): Promise<unknown> {
    const { isFrozen } = clock
    const ms = isFrozen ? clock.now() : clock.now() - Date.now()
    const isMoved = isFrozen ? ms !== shown.ms : Math.abs(ms - shown.ms) > CLOCK_NOISE_MS
    if (isMoved || isFrozen !== shown.isFrozen) {
      shown = { ms, isFrozen }
      const update = `update clock.setting set fixed = $1::timestamptz, ahead = $2 * interval '1 ms'`
      const values = isFrozen ? [new Date(ms), 0] : [null, ms]
      isSet = isSet.then(() => database.query(update, values))
    }
    return isSet
  }

  return {
    ...database,
    query: async <Row>(text: string, params?: readonly unknown[]) => {
      await set()
      return database.query<Row>(text, params)
    },
    async transaction(work) {
      await set()
      return database.transaction(work)
    },
    async script(text) {
      await set()
      return database.script(text)
    },
    useClock(next) {
      clock = next
    },
  }
}

let schemas = 0

async function embeddedBroker(options: TestBrokerOptions): Promise<TestBroker> {
  const { database, topics, runtime = systemRuntime } = options
  schemas += 1
  const schema = `bus_${schemas}`
  const buses: EmbeddedBus[] = []
  return {
    async open() {
      const bus = await createEmbeddedBus({ database, runtime, topics, schema })
      buses.push(bus)
      return bus
    },
    pause() {
      for (const bus of buses) bus.pause()
    },
    resume() {
      for (const bus of buses) bus.resume()
    },
    async committed(group) {
      const [row] = await database.query<{ sum: string }>(
        `select coalesce(sum(next_offset), 0)::text as sum from ${schema}.group_offset
         where group_name = $1`,
        [group],
      )
      return Number(row!.sum)
    },
    async remakeTopics() {
      for (const bus of buses.splice(0)) await bus.close()
      await database.script(`drop schema ${schema} cascade`)
    },
    async close() {
      for (const bus of buses) await bus.close()
    },
  }
}

async function namespaceOnKafka(
  brokers: string,
  topics: readonly TopicSpec[],
): Promise<TestBroker> {
  const prefix = `${crypto.randomUUID().slice(0, 8)}-`
  const own = topics.map((topic) => ({ ...topic, name: prefix + topic.name }))
  await createTopics(brokers, own)
  const admin = new Admin({ clientId: 'test', bootstrapBrokers: brokers.split(',') })
  const log = createLog(process.env.TEST_LOG_LEVEL ?? 'silent', 'test')
  const buses: Bus[] = []
  const outage = { lasts: false }
  return {
    async open() {
      const options = { brokers: brokers.split(','), clientId: 'test', runtime: systemRuntime, log }
      const bus = inNamespace(await createKafkaBus(options), prefix, outage)
      buses.push(bus)
      return bus
    },
    pause() {
      outage.lasts = true
    },
    resume() {
      outage.lasts = false
    },
    async committed(group) {
      const wanted = own.map(({ name, partitions }) => ({
        name,
        partitionIndexes: Array.from({ length: partitions }, (_, index) => index),
      }))
      const [found] = await admin.listConsumerGroupOffsets({
        groups: [{ groupId: prefix + group, topics: wanted }],
      })
      const offsets = found?.topics.flatMap(({ partitions }) => partitions) ?? []
      // A partition without a committed offset has -1.
      return offsets.reduce(
        (sum, { committedOffset }) => sum + Math.max(0, Number(committedOffset)),
        0,
      )
    },
    async remakeTopics() {
      for (const bus of buses.splice(0)) await bus.close()
      await admin.deleteTopics({ topics: own.map(({ name }) => name) })
      await createTopics(brokers, own)
    },
    async close() {
      for (const bus of buses) await bus.close()
      await admin.deleteTopics({ topics: own.map(({ name }) => name) })
      await admin.close()
    },
  }
}

/** A bus whose topics and groups have a prefix on the broker that its callers do not see. */
function inNamespace(bus: Bus, prefix: string, outage: { readonly lasts: boolean }): Bus {
  const inside = <Named extends { readonly topic: string }>(named: Named): Named => ({
    ...named,
    topic: prefix + named.topic,
  })
  const outside = <Named extends { readonly topic: string }>(named: Named): Named => ({
    ...named,
    topic: named.topic.slice(prefix.length),
  })
  const assertReachable = () => {
    if (outage.lasts) throw new Error('the broker cannot be reached')
  }

  function rename(subscription: Subscription): Subscription {
    // The bus recognizes its batches by object identity, so renamed copies must be mapped back.
    const originals = new WeakMap<Batch, Batch>()
    const originalsOf = (batches: readonly Batch[]) =>
      batches.flatMap((batch) => originals.get(batch) ?? [])
    return {
      async take() {
        assertReachable()
        const batches = await subscription.take()
        if (outage.lasts) subscription.release(batches)
        assertReachable()
        return batches.map((batch) => {
          const renamed = { ...outside(batch), messages: batch.messages.map(outside) }
          originals.set(renamed, batch)
          return renamed
        })
      },
      async commit(batches) {
        assertReachable()
        await subscription.commit(originalsOf(batches))
      },
      release: (batches) => subscription.release(originalsOf(batches)),
      async lag() {
        assertReachable()
        return (await subscription.lag()).map(outside)
      },
      close: () => subscription.close(),
    }
  }

  return {
    async send(messages) {
      assertReachable()
      await bus.send(messages.map(inside))
    },
    async subscribe(group, topics) {
      assertReachable()
      return rename(
        await bus.subscribe(
          prefix + group,
          topics.map((topic) => prefix + topic),
        ),
      )
    },
    async ping() {
      assertReachable()
      await bus.ping()
    },
    close: () => bus.close(),
  }
}
