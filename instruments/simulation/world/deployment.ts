import type { Service, ServiceParts } from '../../../chassis/service.ts'
import type { InteractionStyle } from '../../../contracts/style.ts'
import type { Deliver } from '../../../messaging/outbox/relay-calls.ts'
import { createBillingService } from '../../../services/billing/service.ts'
import { createNotificationService } from '../../../services/notification/service.ts'
import { createOrderService } from '../../../services/order/service.ts'
import type { Chance } from './chance.ts'
import type { ServiceName } from './lives.ts'

/** The configuration of the services in a run, with shorter times than in production. */
export interface Settings {
  readonly style: InteractionStyle
  readonly orderDeadlineMs: number
  readonly callTimeoutMs: number
  readonly resendAfterMs: number
}

/** How the services of a run are configured, and how many processes they have. */
export interface Deployment {
  readonly settings: Settings
  /** Processes per service. */
  readonly instances: number
  /** The value of `soleProcess` in the services' parts: true only if no other process can open their database. */
  readonly isSoleProcess: boolean
}

const DEFAULTS: Settings = {
  style: 'events',
  orderDeadlineMs: 20_000,
  callTimeoutMs: 500,
  resendAfterMs: 500,
}

/** Draws the settings and whether each service has one process or two. */
export function drawDeployment(
  style: InteractionStyle | 'mixed',
  chance: Chance,
  chanceOfProcesses: Chance,
): Deployment {
  const settings = drawSettings(style, chance)
  const isSoleProcess = chance.happens(0.5)
  const instances = chanceOfProcesses.pick([1, 1, 2])
  return { settings, instances, isSoleProcess: isSoleProcess && instances === 1 }
}

function drawSettings(style: InteractionStyle | 'mixed', chance: Chance): Settings {
  return {
    style: style === 'mixed' ? 'events' : style,
    orderDeadlineMs: chance.pick([2_000, 6_000, 20_000, 60_000, 60_000]),
    callTimeoutMs: chance.pick([300, 500, 1_000]),
    resendAfterMs: chance.pick([300, 500, 2_000]),
  }
}

/** Every call goes to the gateway, which selects the service by the path. */
const GATEWAY = 'http://gateway'

/** Creates a real service from the given parts. */
export function createService(
  name: ServiceName,
  parts: ServiceParts,
  settings: Settings = DEFAULTS,
  letter: Deliver = async () => ({ kind: 'done' }),
): Promise<Service> {
  const shared = {
    INTERACTION_STYLE: settings.style,
    ALLOW_STYLE_OVERRIDE: true,
    CALL_TIMEOUT_MS: settings.callTimeoutMs,
    IDEMPOTENCY_KEY_TTL_MS: 86_400_000,
    BILLING_URL: GATEWAY,
    NOTIFICATION_URL: GATEWAY,
    ORDER_URL: GATEWAY,
  }
  switch (name) {
    case 'order':
      return createOrderService(parts, {
        ...shared,
        UNIT_PRICE: '65',
        RESEND: true,
        VOID_ATTEMPTS: 10,
        RESEND_AFTER_MS: settings.resendAfterMs,
        ORDER_DEADLINE_MS: settings.orderDeadlineMs,
      })
    case 'billing':
      return createBillingService(parts, {
        ...shared,
        CUSTOMER_DEPOSITS: false,
        DEPOSIT_RESEND_AFTER_MS: settings.resendAfterMs,
      })
    case 'notification': {
      const config = {
        LETTER_FROM: 'Trifold <no-reply@trifold.example>',
        LETTERS_PER_HOUR: 1_000,
        MAILDIR: '',
        SMTP_URL: '',
      }
      return createNotificationService(parts, config, {
        deliver: letter,
        isDown: () => false,
        close: () => {},
      })
    }
  }
}
