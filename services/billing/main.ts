import Type from 'typebox'
import { processConfig, runService } from '../../chassis/service-process.ts'
import { serviceTokenConfig } from '../../platform/auth/config.ts'
import { httpConfig } from '../../platform/process/config.ts'
import { httpUrl } from '../../platform/process/config-formats.ts'
import { billingConfig } from './config.ts'
import { createBillingService } from './service.ts'

await runService({
  name: 'billing',
  path: 'billing',
  schema: Type.Object({
    ...processConfig,
    ...serviceTokenConfig,
    PORT: Type.Integer({ ...httpConfig.PORT, default: 8002 }),
    ...billingConfig,
    NOTIFICATION_URL: httpUrl({
      default: 'http://127.0.0.1:8003',
      description: 'The URL of the notification service.',
    }),
    ORDER_URL: httpUrl({
      default: 'http://127.0.0.1:8001',
      description: 'The URL of the order service.',
    }),
  }),
  create: createBillingService,
})
