/**
 * Every error that a caller can get: its code, its HTTP status, whether the same request may succeed
 * later, and its title. The documents that list the errors are generated from this table or tested
 * against it.
 */
export const PROBLEMS = {
  VALIDATION_FAILED: {
    status: 400,
    retryable: false,
    title: 'The request does not match its schema',
  },
  MALFORMED_JSON: { status: 400, retryable: false, title: 'The body is not valid JSON' },
  UNKNOWN_STYLE: { status: 400, retryable: false, title: 'Unknown interaction style' },
  UNAUTHENTICATED: { status: 401, retryable: false, title: 'This request needs a valid token' },
  NOT_ENOUGH_MONEY: {
    status: 402,
    retryable: false,
    title: 'The account does not have enough money',
  },
  STYLE_OVERRIDE_FORBIDDEN: {
    status: 403,
    retryable: false,
    title: 'This deployment allows only one interaction style',
  },
  FORBIDDEN: {
    status: 403,
    retryable: false,
    title: 'The token does not have the scope that this request needs',
  },
  NOT_YOURS: {
    status: 403,
    retryable: false,
    title: 'The requested resource belongs to someone else',
  },
  LOOPBACK_ONLY: {
    status: 403,
    retryable: false,
    title: 'This request is allowed only from a loopback address',
  },
  CROSS_SITE_REQUEST: {
    status: 403,
    retryable: false,
    title: 'A page on another site may not make changes here',
  },
  ROUTE_NOT_FOUND: { status: 404, retryable: false, title: 'No such route' },
  ORDER_NOT_FOUND: { status: 404, retryable: false, title: 'No such order' },
  ACCOUNT_NOT_FOUND: { status: 404, retryable: false, title: 'No such account' },
  PAYMENT_NOT_FOUND: { status: 404, retryable: false, title: 'This order has no payment' },
  MESSAGE_NOT_FOUND: { status: 404, retryable: false, title: 'No such message' },
  CONTACT_NOT_FOUND: { status: 404, retryable: false, title: 'This account has no contact' },
  DEAD_LETTER_NOT_FOUND: { status: 404, retryable: false, title: 'No such dead letter' },
  METHOD_NOT_ALLOWED: {
    status: 405,
    retryable: false,
    title: 'This path does not support this method',
  },
  REQUEST_TIMEOUT: { status: 408, retryable: true, title: 'The request took too long to arrive' },
  IDEMPOTENCY_KEY_IN_PROGRESS: {
    status: 409,
    retryable: true,
    title: 'The first request with this Idempotency-Key is still running',
  },
  ORDER_CANCELED: {
    status: 409,
    retryable: false,
    title: 'The order was canceled while this request was waiting',
  },
  PAYMENT_VOIDED: { status: 409, retryable: false, title: 'The payment of this order was voided' },
  PAYMENT_MISMATCH: {
    status: 409,
    retryable: false,
    title: 'This order already has a payment with another account or amount',
  },
  DEPOSIT_MISMATCH: {
    status: 409,
    retryable: false,
    title: 'This deposit was already requested with another account or amount',
  },
  REPLAY_FAILED: {
    status: 409,
    retryable: false,
    title: 'The replay failed, and the message remains a dead letter',
  },
  BODY_TOO_LARGE: { status: 413, retryable: false, title: 'The body is too large' },
  URI_TOO_LONG: { status: 414, retryable: false, title: 'The URL is too long' },
  UNSUPPORTED_MEDIA_TYPE: { status: 415, retryable: false, title: 'The body must be JSON' },
  MISDIRECTED_REQUEST: {
    status: 421,
    retryable: false,
    title: 'This server does not serve that host',
  },
  IDEMPOTENCY_KEY_REUSED: {
    status: 422,
    retryable: false,
    title: 'This Idempotency-Key was already used for a different request',
  },
  BALANCE_TOO_LARGE: { status: 422, retryable: false, title: 'The balance would be too large' },
  TOO_MANY_REQUESTS: { status: 429, retryable: true, title: 'Too many requests' },
  HEADERS_TOO_LARGE: { status: 431, retryable: false, title: 'The headers are too large' },
  INTERNAL: { status: 500, retryable: true, title: 'Something went wrong on our side' },
  BILLING_UNREACHABLE: {
    status: 503,
    retryable: false,
    title: 'The billing service could not be reached, so the order was canceled',
  },
  DATABASE_UNAVAILABLE: { status: 503, retryable: true, title: 'The database is unavailable' },
  SERVICE_UNAVAILABLE: { status: 503, retryable: true, title: 'The service is unavailable' },
  OUTCOME_UNKNOWN: {
    status: 503,
    retryable: true,
    title: 'The outcome is not known yet; check the order later',
  },
} as const satisfies Record<string, { status: number; retryable: boolean; title: string }>

export type ProblemCode = keyof typeof PROBLEMS

/**
 * The codes of problems that a retry cannot change. Only these may be stored as the final response to a
 * request.
 */
export type FinalProblemCode = {
  [Code in ProblemCode]: (typeof PROBLEMS)[Code]['retryable'] extends false ? Code : never
}[ProblemCode]

/** The optional members of a problem document, besides its code and those that RFC 9457 defines. */
export interface ProblemDetails {
  readonly detail?: string
  /** The path of the invalid field, such as `body/productQuantity` or `query/profileId`. */
  readonly field?: string
  readonly orderId?: string
  readonly reason?: string
}

/**
 * An error that the caller is meant to see. Its code determines the status, the title and whether a retry may
 * help.
 */
export class Fault extends Error {
  readonly code: ProblemCode
  readonly details: ProblemDetails

  constructor(code: ProblemCode, details: ProblemDetails = {}, cause?: unknown) {
    super(details.detail ?? PROBLEMS[code].title, { cause })
    this.name = 'Fault'
    this.code = code
    this.details = details
  }
}

/** The body of an `application/problem+json` response. */
export function problemBody(code: ProblemCode, details: ProblemDetails = {}) {
  const { status, title, retryable } = PROBLEMS[code]
  return { type: `urn:trifold:problem:${code}`, title, status, code, retryable, ...details }
}
