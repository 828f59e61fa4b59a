import { join, relative } from 'node:path'
import { STYLES } from '../../contracts/style.ts'
import { readConfig } from '../../platform/process/config.ts'
import { runProcess } from '../../platform/process/process.ts'
import { type AllInOneConfig, allInOneConfig } from './config.ts'
import { type Program, startAllInOne } from './program.ts'

await runProcess('trifold', async (environment) => {
  const config = readConfig(allInOneConfig, environment)
  const program = await startAllInOne(config)
  process.stdout.write(welcome(program, config))
  return program
})

function welcome({ url, dataDir }: Program, config: AllInOneConfig): string {
  // Measured from the start of the process, because loading the code takes much of the time.
  const seconds = (performance.now() / 1000).toFixed(1)
  const { INTERACTION_STYLE: style, DATABASE_FLUSH: isFlushed } = config
  const durability = isFlushed
    ? 'acknowledged changes survive a power cut'
    : 'acknowledged changes survive kill -9, but not a power cut (DATABASE_FLUSH=true)'
  const folder = relative('.', dataDir) || '.'
  return `
Trifold is ready after ${seconds} s, at ${url}

  order, billing, notification   in this process, one schema each
  broker                         the embedded bus: topics billing, payment, balance
  database, log                  in ${folder}
  letters                        ${whereLettersGo(config, folder)}
  durability                     ${durability}
  style                          ${style}; the header x-interaction-style selects ${STYLES.join(', ')}

Try:

  ACCOUNT=$(curl -s -X POST ${url}/billing/account/create | tr -d '"')
  curl -s -w '\\n' -X POST "${url}/billing/account/$ACCOUNT?amount=199" -H 'x-interaction-style: http'
  curl -s -w '\\n' -X POST "${url}/orders?profileId=$ACCOUNT" -H 'content-type: application/json' -d '{"productQuantity": 3}'

Then: curl -s -w '\\n' ${url}/notification/account/$ACCOUNT
API documentation: ${url}/orders/docs  ${url}/billing/docs  ${url}/notification/docs  ${url}/asyncapi

`
}

function whereLettersGo({ SMTP_URL, MAILDIR }: AllInOneConfig, folder: string): string {
  // Only the host is printed, because the URL may contain a password.
  if (SMTP_URL) return `to the mail server ${URL.parse(SMTP_URL)?.host ?? 'of SMTP_URL'}`
  return `in ${MAILDIR || join(folder, 'mail')}`
}
