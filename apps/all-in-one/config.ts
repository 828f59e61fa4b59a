import Type, { type Static } from 'typebox'
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
    description: 'The folder that holds all state: database, event log and letters.',
  }),
  DATABASE_FLUSH: Type.Boolean({
    default: false,
    description:
      'Whether a commit waits for the disk, so that it survives a power cut; otherwise it survives only kill -9.',
  }),
  LAB: Type.Boolean({
    default: true,
    description:
      'Whether the services and the broker can be switched off and on over HTTP, from loopback.',
  }),
  ...orderConfig,
  ...billingConfig,
  ...notificationConfig,
  ...tracingConfig,
})
export type AllInOneConfig = Static<typeof allInOneConfig>
