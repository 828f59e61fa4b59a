import Type, { type Static } from 'typebox'
import { Fault } from './problems.ts'

/** How the services of one order talk: the routing decision that a request or a deployment makes. */
export const InteractionStyle = Type.Union(
  [Type.Literal('http'), Type.Literal('hybrid'), Type.Literal('events')],
  { $id: 'InteractionStyle', description: 'http, hybrid or events' },
)
export type InteractionStyle = Static<typeof InteractionStyle>

export const STYLES: readonly InteractionStyle[] = ['http', 'hybrid', 'events']

/** The header that names the style, on HTTP requests and on messages alike. */
export const STYLE_HEADER = 'x-interaction-style'

export function isStyle(text: unknown): text is InteractionStyle {
  return STYLES.includes(text as InteractionStyle)
}

/**
 * The style of a request: the one that its header names, else the deployment's own. Refuses names
 * that do not exist, and any other style than its own where the deployment runs one only.
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
