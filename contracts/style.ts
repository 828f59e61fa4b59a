import Type, { type Static } from 'typebox'

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
