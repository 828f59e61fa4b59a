import {
  createServiceServer,
  inBatches,
  type Reader,
  type Service,
  type ServiceParts,
} from '../../chassis/service.ts'
import { decodeEvent, type PaymentEvent } from '../../contracts/events.ts'
import { traceOf } from '../../contracts/trace-context.ts'
import { startConsumer } from '../../messaging/consumer/consumer.ts'
import { removeLettersOf } from '../../messaging/dead-letters/dead-letters.ts'
import { tracedLetters } from '../../messaging/message-spans.ts'
import { createOutbox } from '../../messaging/outbox/outbox.ts'
import { createRelay } from '../../messaging/outbox/relay.ts'
import { periodically } from '../../platform/async/periodically.ts'
import type { Log } from '../../platform/async/runtime.ts'
import { type Queryable, transact } from '../../platform/database/database.ts'
import { migrate } from '../../platform/database/migrate.ts'
import { noTracing } from '../../platform/telemetry/tracing.ts'
import { applyCommands, type CommandContext, type Written } from './commands.ts'
import type { NotificationConfig } from './config.ts'
import { createMailer } from './mailer.ts'
import type { Notice } from './message.ts'
import { SCHEMA } from './migrations/001-initial.ts'
import { COMPATIBLE_FROM, MIGRATIONS } from './migrations/all-migrations.ts'
import { notifyCustomers } from './reactions.ts'
import { notificationRoutes } from './routes.ts'
import {
  deleteContact,
  deleteMessages,
  deleteOldShares,
  expireTexts,
  findContacts,
  findMessage,
  forgetAccount,
  listMessages,
  putContact,
} from './store.ts'

const LETTER_TIMEOUT_MS = 10_000
const CLEANUP_MS = 3_600_000

const SERVER = { service: 'notification', title: 'Trifold notification' } as const

/** Creates the notification service. This is the only place that connects its parts. */
export async function createNotificationService(
  parts: ServiceParts,
  config: NotificationConfig,
  mailer = mailerOf(config, parts.log),
): Promise<Service> {
  const { database, runtime, telemetry, tracer = noTracing } = parts
  await migrate(database, SCHEMA, MIGRATIONS, COMPATIBLE_FROM)
  const outbox = createOutbox(SCHEMA)
  const { LETTERS_PER_HOUR: lettersPerHour } = config
  const context: CommandContext = { outbox, newId: runtime.uuid, lettersPerHour }

  telemetry.count('trifold_letters_suppressed_total', {}, 0)
  telemetry.gauge('trifold_mail_down', () => Number(mailer.isDown()))
  const letter = tracedLetters(tracer, mailer.deliver)
  const relay = createRelay({ ...parts, schema: SCHEMA, outbox })
  relay.start({ letter })

  /** After a commit: letters are sent; new messages and suppressed letters are counted. */
  function announce(written: readonly Written[], committed: Queryable): void {
    relay.wake(committed)
    for (const { message, isNew, isSuppressed } of written) {
      if (isSuppressed) telemetry.count('trifold_letters_suppressed_total')
      if (isNew) telemetry.count('trifold_messages_total', { event: message.event })
    }
  }

  const apply = inBatches<Notice, Written>(parts, {
    schema: SCHEMA,
    traceOf,
    run: (tx, notices) => applyCommands(tx, context, notices),
    afterCommit: announce,
  })
  const reader: Reader<PaymentEvent> = {
    ...parts,
    schema: SCHEMA,
    group: 'notification',
    topics: ['payment'],
    canWait: true,
    decode: decodeEvent<PaymentEvent>,
    handle: (tx, events) => notifyCustomers(tx, context, events, announce),
  }
  const consumer = startConsumer(reader)

  const currentAddress = async (tx: Queryable, accountId: string) =>
    (await findContacts(tx, [accountId])).get(accountId)
  const app = await createServiceServer({ ...reader, outbox, relay, currentAddress }, SERVER)
  notificationRoutes(app, {
    newId: runtime.uuid,
    write: async (notice, caller) => (await apply(notice, caller)).message,
    find: (id) => findMessage(database, id),
    list: (accountId, page) => listMessages(database, accountId, page),
    deleteAll: () => deleteMessages(database),
    putContact: (accountId, email) => putContact(database, accountId, email),
    findContact: async (id) => (await findContacts(database, [id])).get(id),
    deleteContact: (accountId) => deleteContact(database, accountId),
    forgetAccount: (accountId) =>
      transact(database, async (tx) => {
        await forgetAccount(tx, accountId)
        await outbox.forget(tx, 'letter', accountId)
        await removeLettersOf(tx, SCHEMA, accountId)
      }),
  })
  let expiredTo = 0n
  const cleanup = periodically(CLEANUP_MS, runtime, parts.log, async () => {
    expiredTo = await expireTexts(database, expiredTo)
    await deleteOldShares(database)
  })
  await app.ready()

  return {
    app,
    async close() {
      await app.close()
      await cleanup.close()
      await consumer.close()
      await relay.close()
      mailer.close()
    },
  }
}

const mailerOf = (config: NotificationConfig, log: Log) =>
  createMailer({
    log,
    from: config.LETTER_FROM,
    smtpUrl: config.SMTP_URL,
    maildir: config.MAILDIR,
    timeoutMs: LETTER_TIMEOUT_MS,
  })
