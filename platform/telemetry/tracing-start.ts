import Type, { type Static } from 'typebox'
import type { Log } from '../async/runtime.ts'
import { httpUrl } from '../process/config-formats.ts'
import { noTracing, type OpenTracer } from './tracing.ts'

/**
 * Which of OpenTelemetry's own variables switch tracing on. The SDK reads these and all its others
 * (headers, protocol, sampler, limits, batches) itself.
 */
export const tracingConfig = {
  OTEL_EXPORTER_OTLP_ENDPOINT: httpUrl({
    default: '',
    description:
      'Where traces go, by OTLP, like http://127.0.0.1:4318. Empty: nothing is traced, unless one of the next two says so.',
  }),
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: httpUrl({
    default: '',
    description: 'The same with its path, for traces alone, like http://127.0.0.1:4318/v1/traces.',
  }),
  OTEL_TRACES_EXPORTER: Type.String({
    default: '',
    description: 'How traces go: otlp, zipkin, console; none switches tracing off.',
  }),
  OTEL_SDK_DISABLED: Type.Boolean({
    default: false,
    description: 'Whether tracing is off, whatever else says that it is on.',
  }),
} as const

const schema = Type.Object(tracingConfig)
export type TracingConfig = Static<typeof schema>

/** The tracer of a service. OpenTelemetry is loaded only where tracing is on: it is large. */
export async function openTracer(
  about: { readonly service: string; readonly messagingSystem: string; readonly log: Log },
  config: TracingConfig,
): Promise<OpenTracer> {
  if (!isTracingOn(config)) return { ...noTracing, close: async () => undefined }
  const { createOpenTelemetryTracer } = await import('./opentelemetry.ts')
  return createOpenTelemetryTracer(about)
}

export function isTracingOn(config: TracingConfig): boolean {
  if (config.OTEL_SDK_DISABLED || config.OTEL_TRACES_EXPORTER === 'none') return false
  return [
    config.OTEL_EXPORTER_OTLP_ENDPOINT,
    config.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    config.OTEL_TRACES_EXPORTER,
  ].some((value) => value !== '')
}
