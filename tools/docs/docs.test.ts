import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, test } from 'node:test'
import { METRICS } from '../../platform/telemetry/telemetry.ts'
import { repositoryFiles, root } from '../repository-files.ts'
import { fillIn, generatedDocuments } from './docs.ts'

const read = (path: string) => readFileSync(root + path, 'utf8')
const files = repositoryFiles()
const documents = files.filter((path) => path.endsWith('.md'))
const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }

describe('the documents', () => {
  // This test starts the program twice and newman once. That takes seconds, or minutes on a busy machine.
  const options = { timeout: 600_000 }
  test(
    'have up-to-date tables, pictures and results; npm run docs updates them',
    options,
    async () => {
      const outdated = (await generatedDocuments()).filter(
        ({ text, expected }) => text !== expected,
      )
      assert.deepEqual(
        outdated.map(({ path }) => path),
        [],
      )
    },
  )

  test('name scripts that exist', () => {
    const missing = documents.flatMap((path) =>
      [...read(path).matchAll(/(?:^|`|&& )npm (?:run )?([a-z][a-z:-]*)/gm)]
        .map(([, name]) => name as string)
        .filter((name) => !(name in scripts) && !NPM_WORDS.has(name))
        .map((name) => `${path}: ${name}`),
    )
    assert.deepEqual(missing, [])
  })

  test('link to files and headings that exist', () => {
    const broken = documents.flatMap((path) =>
      linksIn(path)
        .filter((link) => !resolves(path, link))
        .map((link) => `${path}: ${link}`),
    )
    assert.deepEqual(broken, [])
  })

  test('exist where code, charts and configuration refer to them', () => {
    const sources = files.filter((path) => /\.(ts|mjs|java|ya?ml|tpl|txt)$/.test(path))
    const broken = sources.flatMap((path) =>
      [...read(path).matchAll(/\b(?:docs|deploy)\/[a-z-]+(?:\.ru)?\.md(?:#[\p{L}\p{N}_-]+)?/gu)]
        .map(([target]) => target)
        .filter((target) => !resolves('README.md', target))
        .map((target) => `${path}: ${target}`),
    )
    assert.deepEqual(broken, [])
  })

  test('have the same Kubernetes commands in the README as on the page', () => {
    const page = read('docs/kubernetes.md').split('\n')
    const commands = read('README.md').match(/^(?:minikube|kubectl|helm) .*$/gm) ?? []
    assert.ok(commands.length > 8)
    assert.deepEqual(
      commands.filter((command) => !page.includes(command)),
      [],
    )
  })

  test('in docs/ can all be reached from the README, including pictures and results', () => {
    const reached = new Set<string>()
    const follow = (path: string) => {
      if (reached.has(path)) return
      reached.add(path)
      if (!path.endsWith('.md') || !existsSync(root + path)) return
      for (const link of linksIn(path)) follow(join(dirname(path), link.split('#')[0]!))
    }
    follow('README.md')
    const lost = files.filter((path) => path.startsWith('docs/') && !reached.has(path))
    assert.deepEqual(lost, [], 'docs/README.md is the place to link them from')
  })

  test('name source files that exist', () => {
    const known = new Set(files)
    const missing = documents.flatMap((path) =>
      [...read(path).matchAll(/`((?:[a-z0-9-]+\/)+[a-z0-9.-]+\.(?:ts|json|md))`/g)]
        .map(([, name]) => name as string)
        .filter((name) => !known.has(name))
        .map((name) => `${path}: ${name}`),
    )
    assert.deepEqual(missing, [])
  })
})

describe('CONTRIBUTING.md', () => {
  test('describes every root script in one line', () => {
    const described = [
      ...read('CONTRIBUTING.md').matchAll(/^\| `npm (?:run )?([a-z][a-z:-]*)` \| .+ \|$/gm),
    ]
    assert.deepEqual(described.map(([, name]) => name).sort(), Object.keys(scripts).sort())
  })
})

describe('the table of metrics', () => {
  test('has only metrics that are reported', () => {
    const sources = files
      .filter((path) => /^(platform|messaging|chassis|services|apps)\/.*\.ts$/.test(path))
      .filter((path) => !/\.(test|conformance)\.ts$/.test(path))
      // In the table, the name of a metric is a key without quotes. In the code that reports the metric, the
      // name is in quotes.
      .map(read)
    const unreported = Object.keys(METRICS).filter(
      (name) => !sources.some((source) => source.includes(`'${name}'`)),
    )
    assert.deepEqual(unreported, [])
  })
})

describe('fillIn', () => {
  const page = 'a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n'

  test('replaces the table between its comments and leaves the rest', () => {
    const filled = fillIn('page.md', page, 'x', '| new |')
    assert.equal(filled, 'a\n<!-- x:begin -->\n| new |\n<!-- x:end -->\nb\n')
    assert.equal(fillIn('page.md', filled, 'x', '| new |'), filled)
  })

  test('rejects a page that has no place for the table', () => {
    assert.throws(() => fillIn('page.md', page, 'y', ''), /page\.md has no place for y/)
  })
})

/** npm's own commands. They need no script. */
const NPM_WORDS = new Set(['ci', 'install', 'package', 'run'])

/** The targets of all links to files in the repository, except those in fenced code. */
function linksIn(path: string): string[] {
  const prose = read(path).replace(/^```.*?^```/gms, '')
  return [...prose.matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target]) => target as string)
    .filter((target) => !/^[a-z]+:/.test(target))
}

function resolves(from: string, link: string): boolean {
  const [file = '', anchor] = link.split('#')
  const path = file === '' ? from : join(dirname(from), file)
  if (!existsSync(root + path)) return false
  return anchor === undefined || anchorsOf(path).includes(anchor)
}

/** The anchors that GitHub makes from the headings. */
function anchorsOf(path: string): string[] {
  return [...read(path).matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N}_\s-]/gu, '')
      .replaceAll(' ', '-'),
  )
}
