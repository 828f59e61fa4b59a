import Type from 'typebox'
import { Fault } from './problems.ts'

/**
 * The interaction styles: how the three services work together on a customer's request. Only this table tells
 * the styles apart. All other code reads a property of the style, so adding a style means adding a row here.
 */
export const FLOWS = {
  http: { payment: 'call', announcement: 'call', response: 'outcome', deposit: 'booked' },
  hybrid: { payment: 'call', announcement: 'event', response: 'outcome', deposit: 'booked' },
  events: { payment: 'event', announcement: 'event', response: 'id', deposit: 'promised' },
} as const satisfies Readonly<Record<string, Flow>>

export interface Flow {
  /** How the order service asks the billing service to charge the customer, and to void that payment. */
  readonly payment: 'call' | 'event'
  /**
   * How the order and billing services announce a result to the notification service, which then notifies the
   * customer.
   */
  readonly announcement: 'call' | 'event'
  /**
   * What the response to a new order contains: the order's id at once, or the outcome as soon as it is known.
   */
  readonly response: 'id' | 'outcome'
  /**
   * Whether the balance in the response to a deposit contains only money that is in the account (`booked`),
   * or also money that will be there once the billing service has handled its own DEPOSIT_REQUEST
   * (`promised`).
   */
  readonly deposit: 'booked' | 'promised'
}

export type InteractionStyle = keyof typeof FLOWS

export const STYLES = Object.keys(FLOWS) as readonly InteractionStyle[]

export function styleSchema(options: {
  readonly $id?: string
  readonly description: string
  readonly default?: InteractionStyle
}) {
  return Type.Unsafe<InteractionStyle>(
    Type.Union(
      STYLES.map((style) => Type.Literal(style)),
      options,
    ),
  )
}

/** The default style of a deployment that does not configure one. */
export const DEFAULT_STYLE: InteractionStyle = 'events'

/**
 * The style of an event that has no style header. The sender of an event gets no response, so the result has
 * to be published on a topic.
 */
export const STYLE_OF_UNLABELED_EVENTS: InteractionStyle = 'events'

/**
 * The properties of a style. After a rollback, a stored row can have a style that only the later version
 * knows; such a row continues in the default style.
 */
export function flowOf(style: InteractionStyle): Flow {
  return FLOWS[style] ?? FLOWS[DEFAULT_STYLE]
}

/**
 * Whether the billing service publishes its results on the topic `payment`. The notification service reads
 * them there if results are announced by event. The order service reads them there if it requested the
 * payment by event, because it then has no response to read them from.
 */
export function publishesResults({ payment, announcement }: Flow): boolean {
  return payment === 'event' || announcement === 'event'
}

/** The header that names the style, both on HTTP requests and on messages. */
export const STYLE_HEADER = 'x-interaction-style'

export function isStyle(text: unknown): text is InteractionStyle {
  return STYLES.includes(text as InteractionStyle)
}

/**
 * The style that a request's header names, or the deployment's default if there is no header. Throws a Fault
 * if the style is unknown, or if the deployment allows only its default style and the header names another.
 */
export function requestedStyle(
  header: string | undefined,
  deployment: { readonly defaultStyle: InteractionStyle; readonly allowOverride: boolean },
): InteractionStyle {
  if (header === undefined) return deployment.defaultStyle
  if (!isStyle(header)) {
    const detail = `${STYLE_HEADER} must be one of ${STYLES.join(', ')}`
    throw new Fault('UNKNOWN_STYLE', { field: `headers/${STYLE_HEADER}`, detail })
  }
  if (header !== deployment.defaultStyle && !deployment.allowOverride) {
    throw new Fault('STYLE_OVERRIDE_FORBIDDEN', { field: `headers/${STYLE_HEADER}` })
  }
  return header
}
