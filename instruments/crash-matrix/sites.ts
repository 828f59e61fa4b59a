import { readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import ts from 'typescript'
import type { Bus, Subscription } from '../../messaging/bus.ts'
import type { Database, Queryable } from '../../platform/database/database.ts'
import { root } from '../../tools/repository-files.ts'
import { SERVICES, type ServiceName } from '../simulation/world/lives.ts'

/**
 * A place where the code of a service acts on the world outside its memory. Sites are read from the code
 * itself: every call of a member of the interfaces (seams) through which a service reaches database, broker,
 * other services and letters, in every file that the service's wiring imports. A new site is therefore found
 * automatically, and the matrix fails until a scenario crosses it.
 */
export interface Site {
  /** The position as in a stack trace: `services/order/store.ts:53:12`. */
  readonly place: string
  /** `services/order/store.ts insertOrders query` */
  readonly name: string
  readonly file: string
  readonly member: SeamMember
}

/** The kind of operation at a site. */
export type SeamMember =
  | Exclude<keyof Queryable, 'last'>
  | Exclude<keyof Database, 'last' | 'build' | 'listen' | 'close'>
  | Exclude<keyof Bus, 'close'>
  | Exclude<keyof Subscription, 'release' | 'close'>
  | 'call'
  | 'letter'

type Members<Seam> = Readonly<Record<keyof Seam, SeamMember | 'no boundary'>>

/**
 * Every member of every interface. When a member is added to an interface, this table does not compile until
 * it lists that member. A member is `no boundary` if its caller awaits no result, or if it belongs to an
 * orderly shutdown.
 */
const SEAMS: {
  readonly Queryable: Members<Queryable>
  readonly Database: Members<Omit<Database, keyof Queryable>>
  readonly Bus: Members<Bus>
  readonly Subscription: Members<Subscription>
} = {
  Queryable: { query: 'query', last: 'no boundary' },
  Database: {
    transaction: 'transaction',
    script: 'script',
    notify: 'notify',
    // Only migrations build indexes, and they have run before any scenario starts.
    build: 'no boundary',
    listen: 'no boundary',
    close: 'no boundary',
  },
  Bus: { send: 'send', subscribe: 'subscribe', ping: 'ping', close: 'no boundary' },
  Subscription: {
    take: 'take',
    commit: 'commit',
    lag: 'lag',
    release: 'no boundary',
    close: 'no boundary',
  },
}

/** Seams that are a single function, by the name of its type. */
const FUNCTION_SEAMS: Readonly<Record<string, SeamMember>> = {
  HttpClient: 'call',
  Deliver: 'letter',
}

/** The sites of each service, by `place`. */
export type Sites = ReadonlyMap<ServiceName, ReadonlyMap<string, Site>>

/** Reads the sites from the code; `changed` replaces the texts of files, by their paths. */
export function readSites(changed: ReadonlyMap<string, string> = new Map()): Sites {
  const wirings = SERVICES.map((service) => `services/${service}/service.ts`)
  const program = programOf(wirings, changed)
  const sitesOf = new Map<string, readonly Site[]>()
  const ofFile = (file: string) => {
    const known = sitesOf.get(file) ?? sitesIn(program, file)
    sitesOf.set(file, known)
    return known
  }
  return new Map(
    SERVICES.map((service, index) => {
      const sites = importedBy(wirings[index]!).flatMap(ofFile)
      return [service, new Map(sites.map((site) => [site.place, site]))]
    }),
  )
}

const OPTIONS: ts.CompilerOptions = {
  target: ts.ScriptTarget.ESNext,
  module: ts.ModuleKind.NodeNext,
  strict: true,
  allowImportingTsExtensions: true,
  noEmit: true,
  types: [],
  lib: ['lib.esnext.d.ts'],
}

/**
 * A TypeScript program without packages: packages would take most of the time, and all seams are declared in
 * our own files.
 */
function programOf(files: readonly string[], changed: ReadonlyMap<string, string>): ts.Program {
  const host = ts.createCompilerHost(OPTIONS)
  const { readFile } = host
  host.readFile = (path) => changed.get(relative(root, path)) ?? readFile(path)
  host.resolveModuleNameLiterals = (literals, from) =>
    literals.map(({ text }) => {
      if (!text.startsWith('.')) return { resolvedModule: undefined }
      const resolvedFileName = join(dirname(from), text)
      return { resolvedModule: { resolvedFileName, extension: ts.Extension.Ts } }
    })
  const rootNames = files.map((file) => join(root, file))
  return ts.createProgram({ rootNames, options: OPTIONS, host })
}

/** The file itself and all files that it imports, directly or not, except for type imports. */
function importedBy(file: string, known = new Set<string>()): string[] {
  known.add(file)
  const text = readFileSync(join(root, file), 'utf8')
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest)
  for (const statement of source.statements) {
    const isLink = ts.isImportDeclaration(statement) || ts.isExportDeclaration(statement)
    if (!isLink || statement.moduleSpecifier === undefined || isOfTypes(statement)) continue
    const { text: specifier } = statement.moduleSpecifier as ts.StringLiteral
    if (!specifier.startsWith('.')) continue
    const imported = join(dirname(file), specifier)
    if (!known.has(imported)) importedBy(imported, known)
  }
  return [...known]
}

const isOfTypes = (link: ts.ImportDeclaration | ts.ExportDeclaration) =>
  ts.isImportDeclaration(link)
    ? link.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword
    : link.isTypeOnly

function sitesIn(program: ts.Program, file: string): Site[] {
  const source = program.getSourceFile(join(root, file))
  if (source === undefined) throw new Error(`${file} is not in the program`)
  const checker = program.getTypeChecker()
  const sites: Site[] = []
  const names = new Map<string, number>()
  const visit = (node: ts.Node): void => {
    const member = ts.isCallExpression(node) ? memberCalled(checker, node) : undefined
    if (member !== undefined) sites.push(siteOf(source, node as ts.CallExpression, member))
    ts.forEachChild(node, visit)
  }
  visit(source)

  function siteOf(at: ts.SourceFile, call: ts.CallExpression, of: SeamMember): Site {
    const callee = ts.isPropertyAccessExpression(call.expression)
      ? call.expression.name
      : call.expression
    const { line, character } = at.getLineAndCharacterOfPosition(callee.getStart(at))
    const base = `${file} ${functionsAround(call)} ${of}`
    const count = (names.get(base) ?? 0) + 1
    names.set(base, count)
    const name = count === 1 ? base : `${base} ${count}`
    return { place: `${file}:${line + 1}:${character + 1}`, name, file, member: of }
  }
  return sites
}

/** The seam member that this expression calls, if any. */
function memberCalled(checker: ts.TypeChecker, call: ts.CallExpression): SeamMember | undefined {
  if (!mayBeOfSeam(checker, call)) return undefined
  const declaration = checker.getResolvedSignature(call)?.declaration
  const parent = declaration?.parent
  if (declaration === undefined || parent === undefined) return undefined
  if (ts.isTypeAliasDeclaration(parent) && isOurs(parent)) return FUNCTION_SEAMS[parent.name.text]
  if (!ts.isInterfaceDeclaration(parent) || !isOurs(parent)) return undefined
  const members = (SEAMS as Record<string, Record<string, SeamMember | 'no boundary'>>)[
    parent.name.text
  ]
  const { name } = declaration as ts.MethodSignature
  const member = members?.[name.getText()]
  return member === 'no boundary' ? undefined : member
}

const CALLED = new Set(Object.values(SEAMS).flatMap((members) => Object.keys(members)))

/** A cheap filter before the signature is resolved, which is slow. */
function mayBeOfSeam(checker: ts.TypeChecker, { expression }: ts.CallExpression): boolean {
  if (ts.isPropertyAccessExpression(expression) && CALLED.has(expression.name.text)) return true
  const { aliasSymbol } = checker.getTypeAtLocation(expression)
  return aliasSymbol !== undefined && Object.hasOwn(FUNCTION_SEAMS, aliasSymbol.name)
}

const isOurs = (node: ts.Node) =>
  /^(platform|messaging)\//.test(relative(root, node.getSourceFile().fileName))

/** The names of the functions around a call, outermost first: `createOutbox enqueue`. */
function functionsAround(call: ts.Node): string {
  const names: string[] = []
  for (let node = call.parent; node !== undefined; node = node.parent) {
    if (ts.isFunctionDeclaration(node) && node.name) names.unshift(node.name.text)
    else if (ts.isMethodDeclaration(node)) names.unshift(node.name.getText())
    else if (ts.isArrowFunction(node) || ts.isFunctionExpression(node)) {
      const { parent } = node
      if (ts.isVariableDeclaration(parent) || ts.isPropertyAssignment(parent)) {
        names.unshift(parent.name.getText())
      }
    }
  }
  return names.join(' ')
}
