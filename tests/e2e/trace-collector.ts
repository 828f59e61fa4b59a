import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A received span, with the properties that the tests use. Ids are hexadecimal text. */
export interface Span {
  readonly service: string
  readonly name: string
  readonly kind: 'internal' | 'server' | 'client' | 'producer' | 'consumer'
  readonly traceId: string
  readonly id: string
  readonly parentId: string
  readonly links: readonly { readonly traceId: string; readonly spanId: string }[]
  readonly attributes: Readonly<Record<string, unknown>>
  readonly failed: boolean
  /** Nanoseconds since the epoch. */
  readonly start: bigint
  readonly end: bigint
}

interface OtlpValue {
  readonly stringValue?: string
  readonly intValue?: number | string
  readonly boolValue?: boolean
  readonly arrayValue?: unknown
}
type OtlpAttributes = readonly { readonly key: string; readonly value: OtlpValue }[]

interface OtlpTraces {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: OtlpAttributes }
    readonly scopeSpans: readonly {
      readonly spans: readonly {
        readonly traceId: string
        readonly spanId: string
        readonly parentSpanId?: string
        readonly name: string
        readonly kind: number
        readonly startTimeUnixNano: string
        readonly endTimeUnixNano: string
        readonly attributes: OtlpAttributes
        readonly links?: readonly { readonly traceId: string; readonly spanId: string }[]
        readonly status?: { readonly code?: number }
      }[]
    }[]
  }[]
}

const KINDS = ['internal', 'internal', 'server', 'client', 'producer', 'consumer'] as const
const STATUS_ERROR = 2

/** An OTLP receiver: accepts traces as JSON over HTTP and stores their spans. */
export async function startTraceCollector() {
  const spans: Span[] = []
  let requests = 0
  const server = createServer((request, response) => {
    const chunks: Uint8Array[] = []
    request.on('data', (chunk: Uint8Array) => chunks.push(chunk))
    request.on('end', () => {
      requests += 1
      const text = Buffer.concat(chunks).toString()
      if (request.url === '/v1/traces') spans.push(...spansOf(JSON.parse(text) as OtlpTraces))
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    /** The settings that make a program send its traces here, with a short delay. */
    environment: {
      OTEL_EXPORTER_OTLP_ENDPOINT: url,
      OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
      OTEL_BSP_SCHEDULE_DELAY: '100',
    },
    spans,
    requests: () => requests,
    inTrace: (traceId: string) => spans.filter((span) => span.traceId === traceId),
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

function spansOf({ resourceSpans }: OtlpTraces): Span[] {
  return resourceSpans.flatMap(({ resource, scopeSpans }) => {
    const service = String(valuesOf(resource.attributes)['service.name'])
    return scopeSpans.flatMap(({ spans }) =>
      spans.map((span) => ({
        service,
        name: span.name,
        kind: KINDS[span.kind]!,
        traceId: span.traceId,
        id: span.spanId,
        parentId: span.parentSpanId ?? '',
        links: span.links ?? [],
        attributes: valuesOf(span.attributes),
        failed: span.status?.code === STATUS_ERROR,
        start: BigInt(span.startTimeUnixNano),
        end: BigInt(span.endTimeUnixNano),
      })),
    )
  })
}

function valuesOf(attributes: OtlpAttributes): Record<string, unknown> {
  const plain = ({ stringValue, intValue, boolValue, arrayValue }: OtlpValue) =>
    stringValue ?? (intValue === undefined ? (boolValue ?? arrayValue) : Number(intValue))
  return Object.fromEntries(attributes.map(({ key, value }) => [key, plain(value)]))
}
