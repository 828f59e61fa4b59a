import ts from 'typescript'
import { isStyle } from '../../contracts/style.ts'

/** A violation of the house style: its line, counted from 1, and a message that says how to fix it. */
export interface Finding {
  readonly line: number
  readonly message: string
}

const MAX_OWN_LINES = 70
const MAX_WHOLE_LINES = 120
const TEST_FILE = /\.(test|conformance)\.ts$/
const TEST_CALL = /^(test|it|describe|suite)$/

/** Every node of a tree, parents before children. */
export function* nodesOf(node: ts.Node): Generator<ts.Node> {
  yield node
  const children: ts.Node[] = []
  ts.forEachChild(node, (child) => {
    children.push(child)
  })
  for (const child of children) yield* nodesOf(child)
}

export function lineOf(node: ts.Node): number {
  const source = node.getSourceFile()
  return source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1
}

/**
 * Finds functions that do not fit on a screen. A named function inside another, as in a factory, is read separately, so
 * it is counted separately. All inner functions share state, however, so there is also a limit for the whole, unless a
 * comment at the head of the file says why it is long. Functions that declare tests are exempt, because their length is
 * not complexity.
 */
export function longFunctions(source: ts.SourceFile): Finding[] {
  const functions = [...nodesOf(source)].filter(hasBody)
  const declarers = new Set(functions.filter((node) => declaresTests(node)).map(functionName))
  return functions.flatMap((node) => {
    if (declaresTests(node, declarers)) return []
    const message = lengthMessage(node)
    return message ? [{ line: lineOf(node), message }] : []
  })
}

function lengthMessage(node: ts.Node): string | undefined {
  const name = functionName(node) ?? 'a function'
  const own = ownLines(node)
  if (own > MAX_OWN_LINES)
    return `${name} has ${own} lines: at most ${MAX_OWN_LINES} fit on a screen`
  const whole = linesOf(node)
  if (whole <= MAX_WHOLE_LINES || isLongForReason(node.getSourceFile().text)) return undefined
  return `${name} has ${whole} lines with its inner functions: split it, or open the file with a comment that says why it is long`
}

/** Whether the file opens with a comment that says why it is long. */
export function isLongForReason(text: string): boolean {
  return (ts.getLeadingCommentRanges(text, 0) ?? []).some(({ pos, end }) =>
    /\blong\b/i.test(text.slice(pos, end)),
  )
}

function hasBody(node: ts.Node): boolean {
  return ts.isFunctionLike(node) && 'body' in node && node.body !== undefined
}

function ownLines(node: ts.Node): number {
  let lines = linesOf(node)
  const visit = (child: ts.Node): void => {
    if (hasBody(child) && functionName(child) !== undefined) lines -= linesOf(child) - 1
    else ts.forEachChild(child, visit)
  }
  ts.forEachChild(node, visit)
  return lines
}

function linesOf(node: ts.Node): number {
  const source = node.getSourceFile()
  return source.getLineAndCharacterOfPosition(node.getEnd()).line + 2 - lineOf(node)
}

/** Whether the function declares tests, directly or through another function in the file. */
function declaresTests(node: ts.Node, declarers = new Set<string | undefined>()): boolean {
  if (!isTestPath(node.getSourceFile().fileName)) return false
  const declares = (call: ts.Node) =>
    ts.isCallExpression(call) && (isTestCall(call) || declarers.has(call.expression.getText()))
  return declares(node.parent) || [...nodesOf(node)].some(declares)
}

/** Whether the call declares a test: `test(...)`, `describe.only(...)`, `t.test(...)` and so on. */
function isTestCall(call: ts.CallExpression): boolean {
  return call.expression
    .getText()
    .split('.')
    .some((part) => TEST_CALL.test(part))
}

function functionName(node: ts.Node): string | undefined {
  const { name } = node as { name?: ts.Node }
  if (name !== undefined) return name.getText()
  const { parent } = node
  if (ts.isVariableDeclaration(parent) || ts.isPropertyAssignment(parent)) {
    return parent.name.getText()
  }
  return undefined
}

/** Finds tests marked to run alone, or skipped without a reason. */
export function exclusiveOrSkippedTests(source: ts.SourceFile): Finding[] {
  if (!isTestPath(source.fileName)) return []
  return [...nodesOf(source)].flatMap((node) => {
    const message = ts.isCallExpression(node) && exclusionOf(node)
    return message ? [{ line: lineOf(node), message }] : []
  })
}

function exclusionOf(call: ts.CallExpression): string | undefined {
  const { expression } = call
  const member = ts.isPropertyAccessExpression(expression) ? expression.name.text : ''
  const receiver = ts.isPropertyAccessExpression(expression) ? expression.expression.getText() : ''
  const ofTest = TEST_CALL.test(receiver) || /^(t|context)$/.test(receiver)
  if (ofTest && member === 'only') return 'runs alone: remove .only'
  if (TEST_CALL.test(receiver) && (member === 'skip' || member === 'todo')) {
    return `is left out: give the reason as { ${member}: 'why' }`
  }
  if (ofTest && (member === 'skip' || member === 'todo') && call.arguments.length === 0) {
    return `is left out: give the reason as ${receiver}.${member}('why')`
  }
  if (!isTestCall(call)) return undefined
  for (const option of call.arguments.filter(ts.isObjectLiteralExpression)) {
    for (const { name, initializer } of option.properties.filter(ts.isPropertyAssignment)) {
      const literallyTrue = initializer.kind === ts.SyntaxKind.TrueKeyword
      if (!literallyTrue) continue
      if (name.getText() === 'only') return 'runs alone: remove only'
      if (/^(skip|todo)$/.test(name.getText())) {
        return `is left out: give the reason as { ${name.getText()}: 'why' }`
      }
    }
  }
  return undefined
}

/**
 * The files that may read the environment: `process.ts`, which serves the configuration schemas, and the
 * container's health check, which runs every few seconds and must not load the platform.
 */
const READS_ENVIRONMENT = new Set(['platform/process/process.ts', 'apps/liveness/main.ts'])

/** Finds reads of the environment that bypass the configuration schema. */
export function environmentReads(source: ts.SourceFile): Finding[] {
  if (READS_ENVIRONMENT.has(source.fileName) || isTool(source.fileName)) return []
  return [...nodesOf(source)].flatMap((node) =>
    readsEnvironment(node)
      ? [
          {
            line: lineOf(node),
            message: 'reads process.env: only platform/process/process.ts does',
          },
        ]
      : [],
  )
}

/**
 * Finds comparisons with the name of a style, except in tests. They would be wrong for a style that is added
 * later.
 */
export function comparedStyles(source: ts.SourceFile): Finding[] {
  if (TEST_FILE.test(source.fileName)) return []
  return [...nodesOf(source)].flatMap((node) => {
    if (!ts.isBinaryExpression(node) || !/^[!=]==?$/.test(node.operatorToken.getText())) return []
    const [name] = [node.left, node.right].filter(ts.isStringLiteral)
    const comparesStyle = [node.left, node.right].some((side) => /style$/i.test(side.getText()))
    if (!comparesStyle || name === undefined || !isStyle(name.text)) return []
    const message = `compares a style with '${name.text}': use a property of contracts/style.ts`
    return [{ line: lineOf(node), message }]
  })
}

/** Finds properties that are packed into an inner object, `...{ a, b }`, to save lines. */
export function packedProperties(source: ts.SourceFile): Finding[] {
  const isLiteral = (node: ts.Expression): boolean =>
    ts.isParenthesizedExpression(node) || ts.isAsExpression(node)
      ? isLiteral(node.expression)
      : ts.isObjectLiteralExpression(node)
  return [...nodesOf(source)].flatMap((node) => {
    if (!ts.isSpreadAssignment(node) || !isLiteral(node.expression)) return []
    return [{ line: lineOf(node), message: 'spreads an object literal: list its properties' }]
  })
}

function readsEnvironment(node: ts.Node): boolean {
  if (ts.isPropertyAccessExpression(node)) {
    return node.name.text === 'env' && /(^|\.)process$/.test(node.expression.getText())
  }
  if (ts.isElementAccessExpression(node)) {
    return /^\w*process\[.env.\]$/.test(node.getText())
  }
  if (ts.isImportSpecifier(node)) {
    const from = node.parent.parent.parent.moduleSpecifier.getText().slice(1, -1)
    return /^(node:)?process$/.test(from) && (node.propertyName ?? node.name).text === 'env'
  }
  // Matches `const { env } = process`.
  return (
    ts.isVariableDeclaration(node) &&
    node.initializer?.getText() === 'process' &&
    /\benv\b/.test(node.name.getText())
  )
}

// Matches more than the first word of a statement, because an English sentence may also begin with "select"
// or "with".
const STATEMENT = new RegExp(
  [
    String.raw`select\b[^]*\bfrom\s`,
    String.raw`select\s+([\d'$]|\w+\()`,
    String.raw`insert\s+into\s`,
    String.raw`update\s+(only\s+)?[\w.$"{}]+(\s+(as\s+)?\w+)?\s+set\s`,
    String.raw`delete\s+from\s`,
    String.raw`with\s+(recursive\s+)?\w+\s*(\([^)]*\)\s*)?as\s+((not\s+)?materialized\s+)?\(`,
    String.raw`(create|alter|drop|truncate)\s+(unlogged\s+|unique\s+)?(table|index|schema)\s`,
  ]
    .map((beginning) => String.raw`^\s*(${beginning})`)
    .join('|'),
)

/**
 * Finds SQL outside the files that may contain it, so that all statements on a table can be found in one
 * place.
 */
export function sqlOutOfPlace(source: ts.SourceFile): Finding[] {
  const path = source.fileName
  const isAllowed = /(^|\/)store\.ts$|^(platform|messaging|chassis)\/|\/migrations\//.test(path)
  if (isAllowed || isTool(path)) return []
  return [...nodesOf(source)].flatMap((node) => {
    const text = ts.isTemplateExpression(node) ? node.getText().slice(1) : literalText(node)
    const keyword = /^\s*(\S+)/.exec(text)?.[1] ?? ''
    // An SQL keyword is all lower or all upper case. An English sentence begins with a single capital letter.
    const asKeyword = keyword === keyword.toLowerCase() || keyword === keyword.toUpperCase()
    if (!asKeyword || !STATEMENT.test(text.toLowerCase())) return []
    const message = `has SQL (${keyword} ...): it belongs in store.ts, migrations, platform, messaging or chassis`
    return [{ line: lineOf(node), message }]
  })
}

function literalText(node: ts.Node): string {
  return ts.isStringLiteralLike(node) ? node.text : ''
}

function isTestPath(path: string): boolean {
  return TEST_FILE.test(path) || /^(tests|instruments)\//.test(path)
}

/** Tests and tools start and inspect everything, so they are exempt. */
function isTool(path: string): boolean {
  return isTestPath(path) || path.startsWith('tools/')
}
