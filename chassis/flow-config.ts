import Type from 'typebox'
import { DEFAULT_STYLE, styleSchema } from '../contracts/style.ts'
import { durationMs } from '../platform/process/config.ts'

/** Configuration that the services of the flow share. */
export const styleConfig = {
  INTERACTION_STYLE: styleSchema({
    default: DEFAULT_STYLE,
    description: 'the style of requests that name none',
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
    // Compared with times in the database, never waited for.
    maximum: 31_536_000_000,
    description: 'how long an Idempotency-Key and its answer are kept',
  }),
} as const
