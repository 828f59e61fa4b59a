import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Compile } from 'typebox/compile'
import ts from 'typescript'
import { parseDeadline } from '../contracts/deadline.ts'
import { EVENT_ID } from '../contracts/events.ts'
import { Contact, IdParams, OutboxPage, Page } from '../contracts/http.ts'
import { parseAmount } from '../contracts/money.ts'
import { requestedStyle } from '../contracts/style.ts'
import { traceContextOf } from '../contracts/trace-context.ts'
import { lowerUuids } from '../contracts/uuid.ts'
import { requestId } from '../platform/http/hooks.ts'
import { pathOf, pathWithoutQuery, withoutPrefix } from '../platform/http/request-target.ts'
import { isLoopback } from '../platform/http/server.ts'
import { parseJsonBody } from '../platform/http/validation.ts'
import { encodeValue } from '../platform/postgres/values.ts'
import { fromText } from '../platform/process/schema-text.ts'
import { redact } from '../platform/telemetry/redact.ts'
import { waitOf } from '../services/order/routes.ts'
import { nodesOf } from '../tools/check/tidy-syntax.ts'
import { repositoryFiles, root } from '../tools/repository-files.ts'

const SIZE = 16_384
const LIMIT_MS = 1
const ATTEMPTS = 50

/** A parser of text from outside, the inputs that drive it deep into its grammar, and its regular expressions. */
interface Parser {
  readonly read: (text: string) => unknown
  /** Beginnings of inputs; a long run of characters is appended to each. */
  readonly openings?: readonly string[]
  /** `file /pattern/flags`, or `file pattern` of a schema. */
  readonly patterns?: readonly string[]
}

const BASE_PATH = '/otusapp/gur-ok'
const Traced = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
const email = Compile(Contact)
const uuid = Compile(IdParams)
const page = Compile(Page)
const outboxPage = Compile(OutboxPage)

const PARSERS: Readonly<Record<string, Parser>> = {
  'the path of a request': {
    read: (text) => pathOf(text, BASE_PATH),
    openings: ['/orders', BASE_PATH],
  },
  'the path without its query': {
    read: pathWithoutQuery,
    openings: ['/orders', '/orders?'],
    patterns: ['platform/http/request-target.ts /[?#]/'],
  },
  'the target without the prefix': {
    read: (text) => withoutPrefix(text, BASE_PATH),
    openings: [BASE_PATH],
  },
  'Prefer: wait': {
    read: waitOf,
    openings: ['wait', 'wait=', ', wait ', ' wait\t='],
    patterns: ['services/order/routes.ts /(?:^|[,;\\s])wait\\s*=\\s*(\\d{1,4})/i'],
  },
  traceparent: {
    read: (traceparent) => traceContextOf({ traceparent }),
    openings: ['00-', Traced, Traced.slice(0, 20)],
    patterns: [
      'contracts/trace-context.ts /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/',
    ],
  },
  tracestate: {
    read: (tracestate) => traceContextOf({ traceparent: Traced, tracestate }),
    openings: ['a=1,'],
    patterns: ['contracts/trace-context.ts /^[\\x20-\\x7e]{1,512}$/'],
  },
  'x-request-id': {
    read: requestId,
    patterns: ['platform/http/hooks.ts /^[\\w.-]{1,128}$/'],
  },
  'the address of a caller': {
    read: (remoteAddress) => isLoopback({ socket: { remoteAddress }, headers: {} }),
    openings: ['127.', '127.0.0.', '::ffff:127.'],
    patterns: ['platform/http/server.ts /^(::1|(::ffff:)?127\\.\\d+\\.\\d+\\.\\d+)$/'],
  },
  'an email address': {
    read: (text) => email.Check({ email: text }),
    openings: ['a@', 'a@b.', 'a@b.c-', '"a', '"\\', 'a.b', 'a@[IPv6:', 'a@[1.'],
  },
  'a UUID': {
    read: (id) => uuid.Check({ id }),
    openings: ['0190a0a0-', '0190a0a0-0000-7000-8000-00000000000a'],
  },
  'a UUID in a body': {
    read: lowerUuids,
    openings: ['0190a0a0-', '0190a0a0-0000-7000-8000-00000000000a'],
    patterns: ['contracts/uuid.ts /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i'],
  },
  'a cursor': {
    read: (cursor) => page.Check({ limit: 1, cursor }),
    openings: ['1'],
    patterns: ['contracts/http.ts ^[0-9]{1,18}$'],
  },
  'an amount': {
    read: parseAmount,
    openings: ['1', '1.', '-'],
    patterns: ['contracts/money.ts /^(\\d{1,16})(?:\\.(\\d+))?$/'],
  },
  'a number in a query': {
    read: (text) => fromText({ type: 'integer' }, text),
    openings: ['-', '1.', '-1'],
    patterns: ['platform/process/schema-text.ts /^-?(?=(?:\\.?\\d){1,15}$)\\d+(?:\\.\\d+)?$/'],
  },
  'x-interaction-style': {
    read: (text) => {
      try {
        return requestedStyle(text, { defaultStyle: 'events', allowOverride: true })
      } catch (error) {
        return error
      }
    },
    openings: ['events', 'http'],
  },
  'the id of an event': {
    read: (text) => EVENT_ID.test(text),
    patterns: ['contracts/events.ts /^[\\x21-\\x7e]{1,200}$/'],
  },
  'the deadline of a payment': {
    read: parseDeadline,
    openings: ['2026-01-15T09:30:00', '2026-01-15T09:30:00.1'],
    patterns: [
      'contracts/deadline.ts /^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d{1,9})?(Z|[+-]\\d\\d:\\d\\d)$/',
    ],
  },
  'a key of the outbox': {
    read: (key) => outboxPage.Check({ limit: 1, key }),
    patterns: ['contracts/http.ts ^[^\\u0000]+$'],
  },
  'a JSON body': {
    read: (text) => {
      try {
        return parseJsonBody(new TextEncoder().encode(text))
      } catch (error) {
        return error
      }
    },
    openings: ['{"a":', '["', '"\\', '{"email":"'],
  },
  'a log line': {
    read: redact,
    openings: ['://', 'http://u:', '://a@'],
    patterns: ['platform/telemetry/redact.ts /[\\s"\'/?#\\\\]|$/'],
  },
  'text that is sent to the database': {
    read: (text) => encodeValue([text]),
    patterns: ['platform/postgres/values.ts /["\\\\]/'],
  },
}

/**
 * Regular expressions that are never matched against untrusted input, or files with only such expressions. Each entry
 * says where the input comes from instead.
 */
const INSIDE: Readonly<Record<string, string>> = {
  'messaging/kafka/security.ts /^\\[|\\]$/g': 'the environment',
  'platform/process/config-formats.ts /^[\\w.~-]+$/': 'the environment',
  'platform/process/config-formats.ts /^[a-z][a-z0-9-]{0,63}$/i': 'the environment',
  'platform/process/config-formats.ts /^\\d{1,3}$/': 'the environment',
  'platform/process/config-formats.ts /\\s/': 'the environment',
  'platform/telemetry/redact.ts /PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|HEADERS$/':
    'the environment',
  'platform/telemetry/redact.ts /[,=\\s]+/': 'the environment',
  'platform/telemetry/redact.ts /[/@#?%:]/': 'the environment',
  'platform/telemetry/redact.ts /[?&]password=([^&#]*)/gi': 'the environment',
  'services/order/config.ts ^(?!0+(\\.0{1,2})?$)[0-9]{1,6}(\\.[0-9]{1,2})?$': 'the environment',
  'contracts/asyncapi.ts EVENT_ID.source': 'a document: the pattern itself is in the table',
  'contracts/http.ts `^${UP_TO_16_DIGITS}(${BELOW_ONE}|${ONE_AND_MORE}|${THE_LARGEST})$`':
    'a document: the service reads amounts with the parser in the table',
  'chassis/service-process.ts /[^\\w.-]/g': 'the name and the address of this host',
  'platform/http/doc-operations.ts ^[0-9]+$': 'a document',
  'platform/database/database.ts /^(22|23|54)/': 'an SQLSTATE',
  'platform/postgres/postgres.ts': 'an SQLSTATE',
  'platform/database/migrate.ts /^[a-z_][a-z0-9_]*$/': 'a migration',
  'platform/database/migrate.ts /\\$(migration|statements)\\$/': 'a migration',
  'platform/postgres/values.ts /"((?:[^"\\\\]|\\\\.)*)"|[^,{}"]+/gsu':
    'an array that the database wrote',
  'platform/postgres/values.ts /\\\\(.)/gsu': 'an array that the database wrote',
  'platform/postgres/values.ts /[+-]\\d\\d$/': 'a time that the database wrote',
  'platform/pglite/cluster.ts /\\0.*$/s': 'a tar that PGlite wrote',
  'services/notification/mailer.ts /[^\\w.-]/g': 'a Message-ID of ours',
  'apps/audit/announcements.ts /^(.+)\\/(DEPOSIT_ACCEPTED)$/s': 'an event id in our tables',
  'apps/audit/announcements.ts `^(${ID})/(ORDER_PAID|PAYMENT_FAIL|PAYMENT_REFUNDED)$`':
    'an event id in our tables',
  'apps/audit/announcements.ts `^<(${ID})@trifold>$`': 'a letter of ours',
  'apps/audit/maildir.ts /\\r?\\n\\r?\\n/': 'a letter of ours',
  'apps/audit/maildir.ts /\\r?\\n[ \\t]+/g': 'a letter of ours',
  'apps/audit/maildir.ts `^${name}:(.*)$`': 'a letter of ours',
}

/**
 * Tools for operators: they read only their command line, the operating system and the operator's own
 * program.
 */
const READS_NOTHING_HOSTILE = /^apps\/(demo|backup|restore|reconcile|token|topics)\//

const UNITS = [...'/ \t0a1.,;:-=@"\\[{(%?#&+'].concat(
  'é',
  '\n',
  '0.',
  'a.',
  'a-',
  ', ',
  'wait=',
  '%2f',
  '[{',
)
const ENDINGS = ['', 'a', '!', '\n', '}', '"']

for (const [name, { read, openings = [] }] of Object.entries(PARSERS)) {
  test(`${name}: parses any 16 KB in less than ${LIMIT_MS} ms`, () => {
    for (const opening of ['', ...openings]) {
      for (const unit of UNITS) {
        const run = opening + unit.repeat(SIZE / unit.length)
        for (const ending of ENDINGS) {
          const text = run.slice(0, SIZE - ending.length) + ending
          const ms = bestTime(() => read(text))
          const what = JSON.stringify(`${opening}${unit}`)
          assert.ok(ms < LIMIT_MS, `${what} ... ${JSON.stringify(ending)} took ${ms} ms`)
        }
      }
    }
  })
}

/** The best of several attempts, so that a busy machine or a cold regular expression does not distort the time. */
function bestTime(run: () => unknown): number {
  let best = Number.POSITIVE_INFINITY
  for (let attempt = 0; attempt < ATTEMPTS && best >= LIMIT_MS; attempt += 1) {
    const startedMs = performance.now()
    run()
    best = Math.min(best, performance.now() - startedMs)
  }
  return best
}

test('every regular expression is in the table or on the list of expressions that see no outside text', () => {
  const known = new Set(Object.values(PARSERS).flatMap(({ patterns = [] }) => patterns))
  const found = repositoryFiles().filter(isProduct).flatMap(patternsOf)
  const isInside = (pattern: string) => pattern in INSIDE || pattern.split(' ')[0]! in INSIDE
  const unlisted = found.filter((pattern) => !known.has(pattern) && !isInside(pattern))
  assert.deepEqual(unlisted, [], 'give these a row in PARSERS, or a reason in INSIDE')
  const gone = [...known, ...Object.keys(INSIDE)].filter(
    (listed) => !found.some((pattern) => pattern === listed || pattern.startsWith(`${listed} `)),
  )
  assert.deepEqual(gone, [], 'these are no longer in the code')
})

function isProduct(path: string): boolean {
  const isCode = /^(contracts|platform|messaging|chassis|services|apps)\/.*\.ts$/.test(path)
  return isCode && !/\.(test|conformance)\.ts$/.test(path) && !READS_NOTHING_HOSTILE.test(path)
}

/** Finds literals, `new RegExp(...)` and the patterns of schemas. */
function patternsOf(path: string): string[] {
  const source = ts.createSourceFile(
    path,
    readFileSync(root + path, 'utf8'),
    ts.ScriptTarget.Latest,
    true,
  )
  return [...nodesOf(source)].flatMap((node) => {
    if (ts.isRegularExpressionLiteral(node)) return [`${path} ${node.text}`]
    if (ts.isNewExpression(node) && node.expression.getText() === 'RegExp') {
      return [`${path} ${node.arguments?.[0]?.getText()}`]
    }
    if (ts.isPropertyAssignment(node) && node.name.getText() === 'pattern') {
      const { initializer } = node
      const text = ts.isStringLiteralLike(initializer) ? initializer.text : initializer.getText()
      return [`${path} ${text}`]
    }
    return []
  })
}
