import { access, mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { createTransport } from 'nodemailer'
import MailComposer from 'nodemailer/lib/mail-composer/index.js'
import type { Delivery, OutboxRow } from '../../messaging/outbox/outbox.ts'
import { createOutage } from '../../platform/async/outage.ts'
import type { Log } from '../../platform/async/runtime.ts'

/**
 * Delivers letters to a mail server if one is configured, otherwise to a Maildir, which any mail reader can
 * open. A letter's file name in the Maildir is derived from its Message-ID, so a repeated delivery finds the
 * file. A mail server that dies after accepting a letter and before confirming it can get that letter twice.
 */
export interface MailerOptions {
  readonly from: string
  readonly smtpUrl: string
  readonly maildir: string
  readonly timeoutMs: number
  readonly log: Log
}

export interface Mailer {
  deliver(row: OutboxRow): Promise<Delivery>
  /** Whether the mail server or the Maildir is failing as a whole, rather than for one letter. */
  isDown(): boolean
  close(): void
}

interface Letter {
  readonly from: string
  readonly to: string
  readonly subject: string
  readonly text: string
  readonly messageId: string
  readonly date: Date
}

type SmtpError = Error & { readonly command?: string; readonly responseCode?: number }

/**
 * If the server rejects one of these SMTP commands, one letter is at fault. Any other failure, such as a
 * rejected login, is an outage.
 */
const ABOUT_THE_LETTER = ['RCPT TO', 'DATA']

export function createMailer(options: MailerOptions): Mailer {
  const { from, smtpUrl, maildir, timeoutMs, log } = options
  const smtp = smtpUrl === '' ? undefined : createSmtp(smtpUrl, timeoutMs)
  const outage = createOutage(log, smtp ? 'the mail server' : 'the Maildir')

  function failed(row: OutboxRow, error: SmtpError): Delivery {
    const { command = '', responseCode = 0, message } = error
    if (responseCode < 400 || !ABOUT_THE_LETTER.includes(command)) {
      outage.failed(error)
      return { kind: 'retry', error: message }
    }
    outage.ended()
    if (responseCode >= 500) return { kind: 'poison', reason: message }
    if (row.attempts === 0) {
      log.warn(
        { row: row.eventId, responseCode },
        'the mail server temporarily rejected a letter, which will be retried',
      )
    }
    return { kind: 'retry', error: message }
  }

  return {
    async deliver(row) {
      const letter: Letter = {
        from,
        to: row.destination,
        subject: row.headers.subject ?? '',
        text: `${row.body}\n`,
        messageId: row.headers['message-id'] ?? `<${row.eventId}@trifold>`,
        date: new Date(row.headers.date ?? 0),
      }
      try {
        await (smtp ? smtp.sendMail(letter) : store(maildir, letter))
        outage.ended()
        return { kind: 'done' }
      } catch (error) {
        return failed(row, error as SmtpError)
      }
    },
    isDown: () => outage.isOngoing(),
    close: () => smtp?.close(),
  }
}

function createSmtp(url: string, timeoutMs: number) {
  return createTransport({
    url,
    pool: true,
    maxConnections: 4,
    connectionTimeout: timeoutMs,
    greetingTimeout: timeoutMs,
    socketTimeout: timeoutMs,
  })
}

/**
 * Writes a letter to the Maildir: first as a complete file in `tmp`, which is then moved to `new`. Only the
 * owner of the file can read it. Resolves when the file and its name are on disk, because the letter's outbox
 * row is deleted after that.
 */
async function store(maildir: string, letter: Letter): Promise<void> {
  const name = letter.messageId.replace(/[^\w.-]/g, '')
  for (const folder of ['tmp', 'new', 'cur']) {
    const created = await mkdir(join(maildir, folder), { recursive: true, mode: 0o700 })
    if (created) await flushNames(resolve(maildir), dirname(resolve(created)))
  }
  // The process may have died in an earlier attempt before it flushed the name.
  if (await isStored(maildir, name)) return flushNames(join(maildir, 'new'))
  const content = await new MailComposer(letter).compile().build()
  const draft = join(maildir, 'tmp', `${name}.${crypto.randomUUID()}`)
  try {
    const file = await open(draft, 'wx', 0o600)
    try {
      await file.writeFile(content)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(draft, join(maildir, 'new', name))
    await flushNames(join(maildir, 'new'))
  } catch (error) {
    await rm(draft, { force: true }).catch(() => undefined)
    throw error
  }
}

/** Flushes the file names in a folder and in its parents up to `top`, so that they survive a power cut. */
async function flushNames(folder: string, top = folder): Promise<void> {
  // On Windows, a folder cannot be opened, and its names need no flush.
  if (process.platform === 'win32') return
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
  if (folder !== top) await flushNames(dirname(folder), top)
}

/**
 * Whether the letter is in the Maildir. The file is looked up by its name, because listing the folder would
 * take longer with every letter in it. A mail reader moves letters that it has seen to `cur` and appends
 * flags to their names.
 */
async function isStored(maildir: string, name: string): Promise<boolean> {
  const paths = [
    join(maildir, 'new', name),
    join(maildir, 'cur', name),
    ...FLAGS.map((flags) => join(maildir, 'cur', `${name}:2,${flags}`)),
  ]
  const found = await Promise.all(
    paths.map((path) =>
      access(path).then(
        () => true,
        () => false,
      ),
    ),
  )
  return found.includes(true)
}

/**
 * Every combination of the Maildir flags draft, flagged, passed, replied, seen and trashed, sorted within a
 * name as the format requires.
 */
const FLAGS = [...'DFPRST'].reduce(
  (combinations, flag) => combinations.flatMap((flags) => [flags, flags + flag]),
  [''],
)
