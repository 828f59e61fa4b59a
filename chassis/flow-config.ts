import Type from 'typebox'
import { DEFAULT_STYLE, styleSchema } from '../contracts/style.ts'
import { durationMs } from '../platform/process/config.ts'

/** Configuration that the order and billing services share. */
export const styleConfig = {
  INTERACTION_STYLE: styleSchema({
    default: DEFAULT_STYLE,
    description: 'the style of requests that do not name one',
  }),
  ALLOW_STYLE_OVERRIDE: Type.Boolean({
    default: true,
    description: 'whether a request may name another style with x-interaction-style',
  }),
  CALL_TIMEOUT_MS: durationMs({
    default: 5_000,
    minimum: 50,
    maximum: 120_000,
    description: 'how long a call to another service may take',
  }),
  IDEMPOTENCY_KEY_TTL_MS: durationMs({
    default: 86_400_000,
    minimum: 60_000,
    // This may exceed the longest timer, because it is only compared with times in the database.
    maximum: 31_536_000_000,
    description: 'how long an Idempotency-Key and its response are kept',
  }),
} as const
