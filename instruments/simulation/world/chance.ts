/**
 * A stream of pseudorandom numbers. Each place that draws numbers has its own stream, derived from the seed and the
 * place's name. Streams are independent, so leaving out one fault changes only what follows from that fault.
 */
export interface Chance {
  /** From 0 (included) to 1 (excluded). */
  next(): number
  /** A whole number from 0 to `below` - 1. */
  integer(below: number): number
  between(low: number, high: number): number
  happens(probability: number): boolean
  /** One of the items; there must be at least one. */
  pick<Item>(items: readonly Item[]): Item
  shuffled<Item>(items: readonly Item[]): Item[]
}

/** Returns the stream of a place: the same object every time. */
export type Chances = (place: string) => Chance

export function createChances(seed: number): Chances {
  const streams = new Map<string, Chance>()
  return (place) => {
    let stream = streams.get(place)
    if (stream === undefined) {
      stream = createChance(`${seed}/${place}`)
      streams.set(place, stream)
    }
    return stream
  }
}

function createChance(name: string): Chance {
  const next = numbersOf(name)
  const integer = (below: number) => Math.floor(next() * below)
  return {
    next,
    integer,
    between: (low, high) => low + (high - low) * next(),
    happens: (probability) => next() < probability,
    pick: (items) => items[integer(items.length)]!,
    shuffled(items) {
      const all = [...items]
      for (let last = all.length - 1; last > 0; last -= 1) {
        const other = integer(last + 1)
        const moved = all[last]!
        all[last] = all[other]!
        all[other] = moved
      }
      return all
    },
  }
}

/** sfc32, a small generator of good quality, seeded with four hashes of the name. */
function numbersOf(name: string): () => number {
  let [a, b, c, counter] = [1, 2, 3, 4].map((salt) => hashOf(name, salt)) as [
    number,
    number,
    number,
    number,
  ]
  const next = () => {
    const sum = (a + b + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (c << 21) | (c >>> 11)
    c = (c + sum) | 0
    return (sum >>> 0) / 2 ** 32
  }
  for (let n = 0; n < 12; n += 1) next()
  return next
}

/** FNV-1a with a final mix, so that names that differ in one character give unrelated streams. */
function hashOf(text: string, salt: number): number {
  let hash = 0x811c9dc5 ^ (salt * 0x9e3779b1)
  for (let index = 0; index < text.length; index += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) | 0
}
