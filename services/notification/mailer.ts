import { mkdir, open, readdir, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { createTransport } from 'nodemailer'
import MailComposer from 'nodemailer/lib/mail-composer/index.js'
import type { Deliver } from '../../messaging/relay-calls.ts'

/**
 * The carrier of letters: a mail server where one is configured, else a Maildir that any mail reader
 * opens. In the Maildir a letter's name follows from its Message-ID, so a repetition finds it there;
 * a mail server that dies between accepting and answering may get a letter twice.
 */
export interface MailerOptions {
  readonly from: string
  readonly smtpUrl: string
  readonly maildir: string
  readonly timeoutMs: number
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

/** A refusal of anything else, such as of our password, is for the operator to heal. */
const BLAMED_ON_THE_LETTER = ['RCPT TO', 'DATA']

export function createMailer(options: MailerOptions): { deliver: Deliver; close(): void } {
  const { from, smtpUrl, maildir, timeoutMs } = options
  const smtp = smtpUrl === '' ? undefined : createSmtp(smtpUrl, timeoutMs)
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
        await (smtp ? smtp.sendMail(letter) : keep(maildir, letter))
        return { kind: 'done' }
      } catch (error) {
        const { command = '', responseCode = 0, message } = error as SmtpError
        const final = responseCode >= 500 && BLAMED_ON_THE_LETTER.includes(command)
        return final ? { kind: 'poison', reason: message } : { kind: 'retry', error: message }
      }
    },
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

/** Maildir: written whole in `tmp`, then moved to `new`, where readers look. */
async function keep(maildir: string, letter: Letter): Promise<void> {
  const name = letter.messageId.replace(/[^\w.-]/g, '')
  for (const folder of ['tmp', 'new', 'cur'])
    await mkdir(join(maildir, folder), { recursive: true })
  // A mail reader moves what it has seen to `cur` and adds its flags to the name.
  for (const folder of ['new', 'cur']) {
    const letters = await readdir(join(maildir, folder))
    if (letters.some((one) => one === name || one.startsWith(`${name}:`))) return
  }
  const content = await new MailComposer(letter).compile().build()
  const draft = join(maildir, 'tmp', name)
  const file = await open(draft, 'w')
  try {
    await file.writeFile(content)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(draft, join(maildir, 'new', name))
}
