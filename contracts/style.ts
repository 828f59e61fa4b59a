import Type from 'typebox'
import { Fault } from './problems.ts'

/**
 * The interaction styles: how the three services work together on one customer's request. Only this
 * table distinguishes the styles. All other code reads a property of a style, so a new style is a new
 * row here.
 */
export const FLOWS = {
  http: { payment: 'call', announcement: 'call', response: 'outcome', deposit: 'booked' },
  hybrid: { payment: 'call', announcement: 'event', response: 'outcome', deposit: 'booked' },
  events: { payment: 'event', announcement: 'event', response: 'id', deposit: 'promised' },
} as const satisfies Readonly<Record<string, Flow>>

export interface Flow {
  /** How order asks billing to charge the customer, and to void that payment. */
  readonly payment: 'call' | 'event'
  /** How order and billing announce a result to notification, which then notifies the customer. */
  readonly announcement: 'call' | 'event'
  /** What the response to a new order contains: its id at once, or its outcome once that is known. */
  readonly response: 'id' | 'outcome'
  /**
   * What the balance in the response to a deposit means: the money is in the account (`booked`), or it
   * will be once billing has read its own DEPOSIT_REQUEST (`promised`).
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

/** The style of a deployment that does not configure one. */
export const DEFAULT_STYLE: InteractionStyle = 'events'

/** The style of an event without the header. Its sender gets no response, so the result goes to a topic. */
export const STYLE_OF_UNLABELED_EVENTS: InteractionStyle = 'events'

/**
 * The properties of a style. After a rollback, a stored row can have a style that only the later version
 * knows; such a row continues in the default style.
 */
export function flowOf(style: InteractionStyle): Flow {
  return FLOWS[style] ?? FLOWS[DEFAULT_STYLE]
}

/**
 * Whether billing publishes its results on the topic `payment`. Notification reads them there if results
 * are announced by event. Order needs them if it requested the payment by event, because then it gets no
 * response that contains them.
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
 * The style of a request: the one that its header names, or the deployment's default. Throws a Fault if
 * the name is unknown, or if it is not the default and the deployment does not allow other styles.
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
