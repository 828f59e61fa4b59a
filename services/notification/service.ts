import { decodeEvent, type PaymentEvent } from '../../contracts/events.ts'
import { startConsumer } from '../../messaging/consumer.ts'
import { createOutbox } from '../../messaging/outbox.ts'
import { startRelay } from '../../messaging/relay.ts'
import {
  createServiceServer,
  inBatches,
  type Service,
  type ServiceParts,
} from '../../messaging/service.ts'
import { migrate } from '../../platform/migrate.ts'
import { type CommandContext, writeMessages } from './commands.ts'
import type { NotificationConfig } from './config.ts'
import { createMailer } from './mailer.ts'
import type { Notice } from './message.ts'
import { migrations, SCHEMA } from './migrations/001-initial.ts'
import { tellCustomers } from './reactions.ts'
import { notificationRoutes } from './routes.ts'
import {
  deleteContact,
  deleteMessages,
  findContacts,
  findMessage,
  listMessages,
  type NewMessage,
  putContact,
} from './store.ts'

const LETTER_TIMEOUT_MS = 10_000

/** The notification service, wired: this is the only place where its parts meet. */
export async function createNotificationService(
  parts: ServiceParts,
  config: NotificationConfig,
): Promise<Service> {
  const { database, runtime, telemetry } = parts
  await migrate(database, SCHEMA, migrations)
  const outbox = createOutbox(SCHEMA)
  const context = (): CommandContext => ({ outbox, newId: runtime.uuid, now: runtime.now() })

  const mailer = createMailer({
    from: config.LETTER_FROM,
    smtpUrl: config.SMTP_URL,
    maildir: config.MAILDIR,
    timeoutMs: LETTER_TIMEOUT_MS,
  })
  // Nothing of notification goes to the broker.
  const { bus: _, ...withoutBus } = parts
  const relay = startRelay({ ...withoutBus, schema: SCHEMA, outbox, letter: mailer.deliver })
  const write = inBatches<Notice, NewMessage>(
    database,
    (tx, notices) => writeMessages(tx, context(), notices),
    (_, tx) => relay.wake(tx),
  )
  const consumer = startConsumer<PaymentEvent>({
    ...parts,
    schema: SCHEMA,
    group: 'notification',
    topics: ['payment'],
    decode: decodeEvent<PaymentEvent>,
    handle: async (tx, events) => {
      for (const { body } of events)
        telemetry.count('trifold_messages_total', { event: body.event })
      return tellCustomers(tx, context(), events, relay.wake)
    },
  })

  const app = await createServiceServer(parts, {
    service: 'notification',
    title: 'Trifold notification',
    schema: SCHEMA,
  })
  notificationRoutes(app, {
    newId: runtime.uuid,
    write: (notice) => {
      telemetry.count('trifold_messages_total', { event: notice.event })
      return write(notice)
    },
    find: (id) => findMessage(database, id),
    list: (accountId, page) => listMessages(database, accountId, page),
    deleteAll: () => deleteMessages(database, runtime.now()),
    putContact: (accountId, email) => putContact(database, accountId, email, runtime.now()),
    findContact: async (id) => (await findContacts(database, [id])).get(id),
    deleteContact: (accountId) => deleteContact(database, accountId),
  })
  await app.ready()

  return {
    app,
    async close() {
      await app.close()
      await consumer.close()
      await relay.close()
      mailer.close()
    },
  }
}
