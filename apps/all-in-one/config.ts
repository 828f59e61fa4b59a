import Type, { type Static } from 'typebox'
import { authConfig } from '../../platform/auth/config.ts'
import { httpConfig, logLevel } from '../../platform/process/config.ts'
import { tracingConfig } from '../../platform/telemetry/tracing-start.ts'
import { billingConfig } from '../../services/billing/config.ts'
import { notificationConfig } from '../../services/notification/config.ts'
import { orderConfig } from '../../services/order/config.ts'

/** All settings that the all-in-one program reads from the environment. */
export const allInOneConfig = Type.Object({
  ...httpConfig,
  PORT: Type.Integer({ ...httpConfig.PORT, default: 8000 }),
  LOG_LEVEL: logLevel('warn'),
  DATA_DIR: Type.String({
    default: 'data',
    minLength: 1,
    description: 'The folder with all state: the database, the event log and the letters.',
  }),
  DATABASE_FLUSH: Type.Boolean({
    default: false,
    description:
      'Whether each commit waits until it is on disk. If true, commits survive a power cut; if false, they survive kill -9, but not a power cut.',
  }),
  LAB: Type.Boolean({
    default: true,
    description:
      'Whether the services and the broker can be switched off and on over HTTP, from a loopback address and while AUTH is off.',
  }),
  ...orderConfig,
  ...billingConfig,
  ...notificationConfig,
  ...tracingConfig,
  ...authConfig,
})
export type AllInOneConfig = Static<typeof allInOneConfig>
