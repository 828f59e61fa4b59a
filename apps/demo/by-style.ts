import { type InteractionStyle, STYLES } from '../../contracts/style.ts'

/** One value for each style. */
export type ByStyle<Value> = Readonly<Record<InteractionStyle, Value>>

/**
 * Does the work in one style after another, so that no style is measured while work in another style is
 * running.
 */
export async function inEachStyle<Value>(
  work: (style: InteractionStyle) => Promise<Value>,
): Promise<ByStyle<Value>> {
  const values: [InteractionStyle, Value][] = []
  for (const style of STYLES) values.push([style, await work(style)])
  return Object.fromEntries(values) as ByStyle<Value>
}

export function mapStyles<From, To>(
  values: ByStyle<From>,
  change: (value: From) => To,
): ByStyle<To> {
  const changed = STYLES.map((style) => [style, change(values[style])] as const)
  return Object.fromEntries(changed) as ByStyle<To>
}
