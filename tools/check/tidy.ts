import { readFileSync } from 'node:fs'
import ts from 'typescript'
import { repositoryFiles, root } from '../repository-files.ts'
import { impureNames, mixedTypeImports } from './tidy-core.ts'
import {
  comparedStyles,
  environmentReads,
  exclusiveOrSkippedTests,
  type Finding,
  isLongForReason,
  longFunctions,
  packedProperties,
  sqlOutOfPlace,
} from './tidy-syntax.ts'
import { retiredWords } from './tidy-words.ts'

const MAX_FILE_LINES = 400
const CODE = /\.(ts|js|mjs|cjs|sql|sh|ya?ml)$/
const TEXT = /\.(md|java|tpl)$/
/** The list of retired words itself. */
const WORDS = /^tools\/check\/tidy(-words|\.test)\.ts$/
const KEBAB_CASE = /^[a-z0-9]+(-[a-z0-9]+)*(\.(test|conformance|d))?\.[a-z]+$/
const EMPTY_NAMES = /^(utils?|helpers?|lib|types|common|index)\./
// The brackets keep this pattern from matching its own source.
const LOOSE_END = /\b(TO[D]O|FIX[M]E)\b(?!\s*\(?#\d+)/

/** Returns the findings in one file. `core` is true if the file must not use Node's own globals. */
export function findings(path: string, text: string, core: boolean): Finding[] {
  const words = WORDS.test(path) ? [] : retiredWords(text)
  if (!CODE.test(path)) return words
  const all = [...badName(path), ...looseEnds(text), ...words]
  if (path.endsWith('.ts')) {
    const source = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true)
    all.push(
      ...longFile(text),
      ...longFunctions(source),
      ...exclusiveOrSkippedTests(source),
      ...environmentReads(source),
      ...comparedStyles(source),
      ...packedProperties(source),
      ...sqlOutOfPlace(source),
      ...(core ? [...impureNames(source), ...mixedTypeImports(source)] : []),
    )
  }
  return all.sort((a, b) => a.line - b.line)
}

/**
 * Returns a function that tells whether a file belongs to the core. The list is that of the import rules, so
 * that both checks agree.
 */
export function coreMatcher(dependencyCruiserConfig: string): (path: string) => boolean {
  const { forbidden } = JSON.parse(dependencyCruiserConfig) as {
    forbidden: { name: string; from: { path: string[]; pathNot: string[] } }[]
  }
  const rule = forbidden.find(({ name }) => name === 'core')
  if (rule === undefined) throw new Error('the import rules have no rule named core')
  const inside = rule.from.path.map((pattern) => new RegExp(pattern))
  const outside = rule.from.pathNot.map((pattern) => new RegExp(pattern))
  return (path) =>
    inside.some((pattern) => pattern.test(path)) && !outside.some((pattern) => pattern.test(path))
}

function badName(path: string): Finding[] {
  const name = path.slice(path.lastIndexOf('/') + 1)
  if (name.startsWith('.')) return []
  if (EMPTY_NAMES.test(name)) {
    return [{ line: 1, message: `is named ${name}: name it for its content` }]
  }
  // Helm requires this file name.
  if (KEBAB_CASE.test(name) || name === 'Chart.yaml') return []
  return [{ line: 1, message: `is named ${name}: file names are kebab-case` }]
}

function looseEnds(text: string): Finding[] {
  return text.split('\n').flatMap((line, index) => {
    const word = LOOSE_END.exec(line)?.[1]
    const message = `leaves a ${word}: do it, or name its issue as ${word}(#12)`
    return word ? [{ line: index + 1, message }] : []
  })
}

function longFile(text: string): Finding[] {
  const lines = text.trimEnd().split('\n').length
  if (lines <= MAX_FILE_LINES || isLongForReason(text)) return []
  const message = `has ${lines} lines: split it, or open it with a comment that says why it is long`
  return [{ line: 1, message }]
}

if (import.meta.main) {
  const isCore = coreMatcher(readFileSync(`${root}.dependency-cruiser.json`, 'utf8'))
  const lines = repositoryFiles()
    .filter((path) => CODE.test(path) || TEXT.test(path))
    .flatMap((path) =>
      findings(path, readFileSync(root + path, 'utf8'), isCore(path)).map(
        ({ line, message }) => `${path}:${line} ${message}`,
      ),
    )
  for (const line of lines) console.error(line)
  if (lines.length > 0) process.exitCode = 1
}
