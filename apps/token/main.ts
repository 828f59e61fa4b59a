import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { CUSTOMER_SCOPES, SCOPES } from '../../contracts/access.ts'
import { DEVELOPMENT_ISSUER } from '../../platform/auth/config.ts'
import { environment } from '../../platform/process/process.ts'
import { openDevelopmentIssuer } from './issuer.ts'

const HELP = `
npm run token -- [--profile ID] [--scope "SCOPES"] [--minutes N] [--data DIR]

Prints a token of the development issuer, whose key it creates in the data folder at its first run. The program
accepts the token if it is started with the settings that are printed with it. Never use this issuer in production.

  --profile ID       the customer's profile and account, a UUID; a new one by default
  --scope "SCOPES"   scopes, separated by spaces; by default those of a customer
  --minutes N        how long the token is valid; 60 by default
  --data DIR         the data folder; DATA_DIR or "data" by default
  --help             print this text

Scopes:
${Object.entries(SCOPES)
  .map(([scope, meaning]) => `  ${scope.padEnd(18)} ${meaning}`)
  .join('\n')}
  ${'service:NAME'.padEnd(18)} be the service order, billing or notification

Exit code: 0 the token is printed, 1 a fault, 2 wrong usage, or AUTH_ISSUER names another issuer.
`

const MAX_MINUTES = 525_600

class UsageError extends Error {}

process.exitCode = await main(process.argv.slice(2)).catch((error: Error) => {
  process.stderr.write(`token: ${error.message}\n`)
  return error instanceof UsageError ? 2 : 1
})

async function main(args: readonly string[]): Promise<number> {
  const { profile, scope, minutes, data, help } = readOptions(args)
  if (help) {
    process.stdout.write(HELP)
    return 0
  }
  const { AUTH_ISSUER, AUTH_AUDIENCE, DATA_DIR } = environment()
  if (AUTH_ISSUER && AUTH_ISSUER !== DEVELOPMENT_ISSUER) {
    throw new UsageError(`AUTH_ISSUER is ${AUTH_ISSUER}; its tokens come from that issuer`)
  }
  const lifetime = Number(minutes ?? 60)
  if (!(lifetime > 0 && lifetime <= MAX_MINUTES)) {
    throw new UsageError(`--minutes must be a number from 1 to ${MAX_MINUTES}`)
  }
  const folder = join(resolve(data ?? (DATA_DIR || 'data')), 'development-issuer')
  const issuer = await openDevelopmentIssuer(folder)
  const token = await issuer.sign({
    subject: profile ?? crypto.randomUUID(),
    scope: scope ?? CUSTOMER_SCOPES.join(' '),
    audience: AUTH_AUDIENCE || 'trifold',
    lifetimeSeconds: Math.ceil(lifetime * 60),
  })
  // Only the token goes to standard output, so that TOKEN=$(npm run -s token) works.
  process.stderr.write(`Start the program with: AUTH=jwt AUTH_JWKS_FILE=${issuer.publicFile}\n`)
  process.stdout.write(`${token}\n`)
  return 0
}

function readOptions(args: readonly string[]) {
  const text = { type: 'string' } as const
  try {
    return parseArgs({
      args: [...args],
      options: {
        profile: text,
        scope: text,
        minutes: text,
        data: text,
        help: { type: 'boolean', short: 'h' },
      },
    }).values
  } catch (error) {
    throw new UsageError(`${(error as Error).message}; see --help`)
  }
}
