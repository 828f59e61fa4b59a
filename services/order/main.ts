import Type from 'typebox'
import { processConfig, runService } from '../../chassis/service-process.ts'
import { serviceTokenConfig } from '../../platform/auth/config.ts'
import { httpConfig } from '../../platform/process/config.ts'
import { httpUrl } from '../../platform/process/config-formats.ts'
import { orderConfig } from './config.ts'
import { createOrderService } from './service.ts'

await runService({
  name: 'order',
  path: 'orders',
  schema: Type.Object({
    ...processConfig,
    ...serviceTokenConfig,
    PORT: Type.Integer({ ...httpConfig.PORT, default: 8001 }),
    ...orderConfig,
    BILLING_URL: httpUrl({
      default: 'http://127.0.0.1:8002',
      description: 'The URL of the billing service.',
    }),
    NOTIFICATION_URL: httpUrl({
      default: 'http://127.0.0.1:8003',
      description: 'The URL of the notification service.',
    }),
  }),
  create: createOrderService,
})
