import Type, { type Static } from 'typebox'
import { smtpUrl } from '../../platform/config-formats.ts'

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
  SMTP_URL: smtpUrl({
    default: '',
    secret: true,
    description:
      'A mail server, like smtp://user:password@host:587 or smtps://host; special characters of the password are percent-encoded. Empty: letters go to MAILDIR.',
  }),
} as const

const schema = Type.Object(notificationConfig)
export type NotificationConfig = Static<typeof schema>
