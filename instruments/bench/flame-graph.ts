import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { escaped, svg } from '../../tools/docs/pictures/svg.ts'

/** Draws a CPU profile of Node (`node --cpu-prof`) as a flame graph: width is time, and callers are above. */
export interface CpuProfile {
  readonly nodes: readonly ProfileNode[]
  readonly samples: readonly number[]
  /** Microseconds between a sample and the one before it. */
  readonly timeDeltas: readonly number[]
}

interface ProfileNode {
  readonly id: number
  readonly callFrame: { readonly functionName: string; readonly url: string }
  readonly children?: readonly number[]
}

export interface Frame {
  readonly name: string
  /** Microseconds in the function and in all functions that it called. */
  readonly totalUs: number
  readonly children: readonly Frame[]
}

const USAGE =
  'Usage: node instruments/bench/flame-graph.ts PROFILE.cpuprofile PICTURE.svg --title TITLE [--from S] [--until S]\n'
/** Frames with less than this share of the total time are left out. */
const MIN_SHARE = 0.002
const WIDTH = 1200
const ROW_HEIGHT = 17
const MAX_ROWS = 34
const CHARACTER_WIDTH = 6.7

/**
 * The calls of a profile as one tree, without idle time. Frames with the same name and the same caller are merged;
 * work without a caller, such as garbage collection, is a child of the root.
 */
export function framesOf(profile: CpuProfile, fromSeconds = 0, untilSeconds = Infinity): Frame {
  const self = selfTimes(profile, fromSeconds * 1e6, untilSeconds * 1e6)
  const nodes = new Map(profile.nodes.map((node) => [node.id, node]))
  const merge = (name: string, together: readonly ProfileNode[]): Frame => {
    const below = together.flatMap(({ children = [] }) => children.map((id) => nodes.get(id)!))
    const children = [...Map.groupBy(below, nameOf)]
      .filter(([child]) => child !== '(idle)')
      .map(([child, same]) => merge(child, same))
      .filter(({ totalUs }) => totalUs > 0)
      .sort((a, b) => b.totalUs - a.totalUs)
    const own = together.reduce((sum, { id }) => sum + (self.get(id) ?? 0), 0)
    return { name, children, totalUs: children.reduce((sum, child) => sum + child.totalUs, own) }
  }
  const [root] = profile.nodes
  return merge('all', root ? [root] : [])
}

function selfTimes(
  { samples, timeDeltas }: CpuProfile,
  fromUs: number,
  untilUs: number,
): Map<number, number> {
  const self = new Map<number, number>()
  let atUs = 0
  for (const [index, id] of samples.entries()) {
    const tookUs = timeDeltas[index]!
    atUs += tookUs
    if (atUs >= fromUs && atUs < untilUs) self.set(id, (self.get(id) ?? 0) + tookUs)
  }
  return self
}

/** The name of the function, with the package or file that it belongs to. */
function nameOf({ callFrame: { functionName, url } }: ProfileNode): string {
  const name = functionName || 'anonymous function'
  const packaged = /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)?.[1]
  const file = packaged ?? /(?:^|\/)((?:[^/]+\/)?[^/]+)$/.exec(url)?.[1]
  return file ? `${name} (${file})` : name
}

export function flameGraph(root: Frame, title: string): string {
  const body: string[] = []
  const perUs = WIDTH / root.totalUs
  let rows = 0
  const draw = (frame: Frame, x: number, row: number): void => {
    const width = frame.totalUs * perUs
    if (frame.totalUs < root.totalUs * MIN_SHARE || row === MAX_ROWS) return
    rows = Math.max(rows, row + 1)
    body.push(bar(frame, { x, y: row * ROW_HEIGHT, width, part: frame.totalUs / root.totalUs }))
    let left = x
    for (const child of frame.children) {
      draw(child, left, row + 1)
      left += child.totalUs * perUs
    }
  }
  draw(root, 0, 0)
  const seconds = (root.totalUs / 1e6).toFixed(1)
  const description = `A flame graph of ${seconds} seconds of CPU: callers above, width is time.`
  return svg({ width: WIDTH, height: rows * ROW_HEIGHT, title, description, body })
}

interface Place {
  readonly x: number
  readonly y: number
  readonly width: number
  readonly part: number
}

function bar({ name }: Frame, { x, y, width, part }: Place): string {
  const place = `x="${x.toFixed(1)}" y="${y}" width="${Math.max(width - 0.5, 0.5).toFixed(1)}"`
  const room = Math.floor((width - 6) / CHARACTER_WIDTH)
  const text = name.length <= room ? name : `${name.slice(0, Math.max(0, room - 1))}…`
  const label =
    room < 4
      ? ''
      : `<text class="code small" style="fill:#222" x="${(x + 3).toFixed(1)}" y="${y + 12}">${escaped(text)}</text>`
  const hint = `<title>${escaped(name)}: ${(part * 100).toFixed(1)} %</title>`
  return `<g>${hint}<rect ${place} height="${ROW_HEIGHT - 1}" fill="${colorOf(name)}"/>${label}</g>`
}

/** Orange for our code, blue for Node and V8, beige for packages. */
function colorOf(name: string): string {
  if (/\((platform|messaging|services|contracts|\w+)\/[\w-]+\.ts\)$/.test(name)) return '#f4a259'
  if (/\(node:|^\(|^[a-z]\w+$/.test(name)) return '#a8c5da'
  return '#d9d2b0'
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      title: { type: 'string' },
      from: { type: 'string', default: '0' },
      until: { type: 'string', default: 'Infinity' },
    },
  })
  const [profile, picture] = positionals
  if (!profile || !picture || !values.title) {
    process.stderr.write(USAGE)
    process.exitCode = 2
  } else {
    const read = JSON.parse(readFileSync(profile, 'utf8')) as CpuProfile
    const root = framesOf(read, Number(values.from), Number(values.until))
    writeFileSync(picture, flameGraph(root, values.title))
  }
}
