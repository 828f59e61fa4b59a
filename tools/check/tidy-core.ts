import ts from 'typescript'
import { type Finding, lineOf, nodesOf } from './tidy-syntax.ts'

const NODE_GLOBALS = new Set([
  'Buffer',
  'process',
  'setTimeout',
  'setInterval',
  'setImmediate',
  'performance',
  'crypto',
  'fetch',
  'require',
  'globalThis',
  '__dirname',
  '__filename',
])
const IMPURE_MEMBERS = new Set(['Date.now', 'Math.random', 'AbortSignal.timeout'])

/**
 * Finds uses of the global clock, random numbers and host in the core, which must receive them as arguments.
 * The only exception is `systemRuntime`, where those arguments come from.
 */
export function impureNames(source: ts.SourceFile): Finding[] {
  const declared = declaredNames(source)
  const found: Finding[] = []
  const visit = (node: ts.Node): void => {
    if (isSystemRuntime(node)) return
    const name = impureName(node, declared)
    if (name) {
      found.push({
        line: lineOf(node),
        message: `uses ${name}: pass clock, random numbers and host into the core (Runtime)`,
      })
    }
    ts.forEachChild(node, visit)
  }
  visit(source)
  return found
}

function isSystemRuntime(node: ts.Node): boolean {
  return (
    ts.isVariableDeclaration(node) &&
    node.name.getText() === 'systemRuntime' &&
    node.getSourceFile().fileName === 'platform/async/runtime.ts'
  )
}

function impureName(node: ts.Node, declared: ReadonlySet<string>): string | undefined {
  if (ts.isPropertyAccessExpression(node)) {
    return IMPURE_MEMBERS.has(node.getText()) ? node.getText() : undefined
  }
  if (ts.isNewExpression(node) && node.expression.getText() === 'Date') {
    return node.arguments?.length ? undefined : 'new Date()'
  }
  if (!ts.isIdentifier(node) || !NODE_GLOBALS.has(node.text) || declared.has(node.text)) {
    return undefined
  }
  return isMemberName(node) || ts.isTypeNode(node.parent) ? undefined : node.text
}

/**
 * Whether the name is the name of a member, as in `x.process` and `{ process: 1 }`, rather than the global.
 */
function isMemberName(node: ts.Identifier): boolean {
  const { parent } = node
  if (ts.isPropertyAccessExpression(parent)) return parent.name === node
  if (ts.isQualifiedName(parent)) return true
  if (ts.isShorthandPropertyAssignment(parent)) return false
  return 'name' in parent && parent.name === node
}

/** All names that the file declares anywhere. They shadow globals. */
function declaredNames(source: ts.SourceFile): Set<string> {
  const names = new Set<string>()
  for (const node of nodesOf(source)) {
    const declares =
      ts.isVariableDeclaration(node) ||
      ts.isParameter(node) ||
      ts.isBindingElement(node) ||
      ts.isFunctionDeclaration(node) ||
      ts.isImportSpecifier(node)
    if (declares && node.name && ts.isIdentifier(node.name)) names.add(node.name.text)
  }
  return names
}

/**
 * Finds `import value, { type T }` and `import { type T }`. dependency-cruiser ignores both because it takes
 * them for type-only imports, although they load the module at run time.
 */
export function mixedTypeImports(source: ts.SourceFile): Finding[] {
  return source.statements.filter(ts.isImportDeclaration).flatMap((statement) => {
    const clause = statement.importClause
    const named = clause?.namedBindings
    if (!clause || clause.phaseModifier || !named || !ts.isNamedImports(named)) return []
    const hidden = named.elements.length > 0 && named.elements.every(({ isTypeOnly }) => isTypeOnly)
    const from = statement.moduleSpecifier.getText().slice(1, -1)
    if (!hidden || /^typebox(\/|$)/.test(from)) return []
    const message = `imports types from ${from} with values: use a separate \`import type\``
    return [{ line: lineOf(statement), message }]
  })
}
