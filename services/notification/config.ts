import Type, { type Static } from 'typebox'
import { smtpUrl } from '../../platform/process/config-formats.ts'

/**
 * The settings of the notification service itself. The program that runs the service adds the addresses and
 * limits of the process.
 */
export const notificationConfig = {
  LETTER_FROM: Type.String({
    default: 'Trifold <no-reply@trifold.example>',
    maxLength: 200,
    description: 'the sender address of letters',
  }),
  LETTERS_PER_HOUR: Type.Integer({
    default: 10,
    minimum: 0,
    maximum: 1_000_000,
    description:
      'How many letters an address gets in an hour at most; further notices can only be read over HTTP. 0 sets no limit.',
  }),
  MAILDIR: Type.String({
    default: '',
    description: 'the folder that letters are written to; if empty, `mail` in the data folder',
  }),
  SMTP_URL: smtpUrl({
    default: '',
    secret: true,
    description:
      'The mail server, such as smtp://user:password@host:587 or smtps://host; percent-encode special characters in the password. If empty, letters are written to MAILDIR.',
  }),
} as const

const schema = Type.Object(notificationConfig)
export type NotificationConfig = Static<typeof schema>
