import Type from 'typebox'
import { processConfig, runService } from '../../chassis/service-process.ts'
import { httpConfig } from '../../platform/process/config.ts'
import { notificationConfig } from './config.ts'
import { createNotificationService } from './service.ts'

await runService({
  name: 'notification',
  path: 'notification',
  schema: Type.Object({
    ...processConfig,
    PORT: Type.Integer({ ...httpConfig.PORT, default: 8003 }),
    ...notificationConfig,
  }),
  create: (parts, config) =>
    createNotificationService(parts, { ...config, MAILDIR: config.MAILDIR || 'data/mail' }),
})
