import Type, { type Static } from 'typebox'
import { smtpUrl } from '../../platform/process/config-formats.ts'

/** Notification's own settings; the process adds the platform's addresses and limits. */
export const notificationConfig = {
  LETTER_FROM: Type.String({
    default: 'Trifold <no-reply@trifold.example>',
    maxLength: 200,
    description: 'the sender of letters',
  }),
  LETTERS_PER_HOUR: Type.Integer({
    default: 10,
    minimum: 0,
    maximum: 1_000_000,
    description:
      'The most letters that an address gets in an hour; further notices can only be read over HTTP. 0 sets no limit.',
  }),
  MAILDIR: Type.String({
    default: '',
    description: 'the folder that letters go to; empty: `mail` in the data folder',
  }),
  SMTP_URL: smtpUrl({
    default: '',
    secret: true,
    description:
      'A mail server, like smtp://user:password@host:587 or smtps://host; special characters of the password are percent-encoded. Empty: letters go to MAILDIR.',
  }),
} as const

const schema = Type.Object(notificationConfig)
export type NotificationConfig = Static<typeof schema>
