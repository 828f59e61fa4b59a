import Type, { type Static } from 'typebox'
import Format from 'typebox/format'

Format.Set('smtp-url', (text) => text === '' || isSmtpUrl(text))

/** What notification needs to know; the process adds addresses and limits of the platform. */
export const notificationConfig = {
  LETTER_FROM: Type.String({
    default: 'Trifold <no-reply@trifold.example>',
    maxLength: 200,
    description: 'the sender of letters',
  }),
  MAILDIR: Type.String({
    default: '',
    description: 'the folder that letters go to; empty: `mail` in the data folder',
  }),
  SMTP_URL: Type.String({
    default: '',
    format: 'smtp-url',
    secret: true,
    description:
      'A mail server, like smtp://user:password@host:587 or smtps://host; special characters of the password are percent-encoded. Empty: letters go to MAILDIR.',
  }),
} as const

const schema = Type.Object(notificationConfig)
export type NotificationConfig = Static<typeof schema>

/** Anything after the host means that the password contains a character that is not encoded. */
function isSmtpUrl(text: string): boolean {
  try {
    const url = new URL(text)
    decodeURIComponent(url.username + url.password)
    const isMail = url.protocol === 'smtp:' || url.protocol === 'smtps:'
    return isMail && url.hostname !== '' && /^\/?$/.test(url.pathname) && url.hash === ''
  } catch {
    return false
  }
}
