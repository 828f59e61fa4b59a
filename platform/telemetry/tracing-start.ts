import Type, { type Static } from 'typebox'
import type { Log } from '../async/runtime.ts'
import { httpUrl } from '../process/config-formats.ts'
import { noTracing, type OpenTracer } from './tracing.ts'

/**
 * The OpenTelemetry variables that switch tracing on or off. The SDK reads them as well, together with its
 * other variables (headers, protocol, sampler, limits, batches).
 */
export const tracingConfig = {
  OTEL_EXPORTER_OTLP_ENDPOINT: httpUrl({
    default: '',
    description:
      'The OTLP endpoint for traces, such as http://127.0.0.1:4318. Tracing is off if this and the next two variables are empty.',
  }),
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: httpUrl({
    default: '',
    description: 'The full OTLP URL for traces only, such as http://127.0.0.1:4318/v1/traces.',
  }),
  OTEL_TRACES_EXPORTER: Type.String({
    default: '',
    description: 'The exporter of traces: otlp, zipkin or console; none switches tracing off.',
  }),
  OTEL_SDK_DISABLED: Type.Boolean({
    default: false,
    description: 'Whether tracing is off regardless of the other variables.',
  }),
} as const

const schema = Type.Object(tracingConfig)
export type TracingConfig = Static<typeof schema>

/** Opens the tracer of a service. OpenTelemetry is large, so it is loaded only if tracing is on. */
export async function openTracer(
  options: { readonly service: string; readonly messagingSystem: string; readonly log: Log },
  config: TracingConfig,
): Promise<OpenTracer> {
  if (!isTracingOn(config)) return { ...noTracing, close: async () => undefined }
  const { createOpenTelemetryTracer } = await import('./opentelemetry.ts')
  return createOpenTelemetryTracer(options)
}

export function isTracingOn(config: TracingConfig): boolean {
  if (config.OTEL_SDK_DISABLED || config.OTEL_TRACES_EXPORTER === 'none') return false
  return [
    config.OTEL_EXPORTER_OTLP_ENDPOINT,
    config.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    config.OTEL_TRACES_EXPORTER,
  ].some((value) => value !== '')
}
