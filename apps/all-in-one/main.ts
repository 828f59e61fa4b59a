import { relative } from 'node:path'
import { readConfig } from '../../platform/config.ts'
import { runProcess } from '../../platform/process.ts'
import { type AllInOneConfig, allInOneConfig } from './config.ts'
import { type Program, startAllInOne } from './program.ts'

await runProcess('trifold', async (environment) => {
  const begun = performance.now()
  const config = readConfig(allInOneConfig, environment)
  const program = await startAllInOne(config)
  const seconds = ((performance.now() - begun) / 1000).toFixed(1)
  process.stdout.write(welcome(program, config, seconds))
  return program
})

function welcome({ url, dataDir }: Program, config: AllInOneConfig, seconds: string): string {
  const { INTERACTION_STYLE: style, DATABASE_FLUSH: isFlushed } = config
  const survives = isFlushed
    ? 'what is acknowledged survives a power cut'
    : 'what is acknowledged survives kill -9, but not a power cut (DATABASE_FLUSH=true)'
  const folder = relative('.', dataDir) || '.'
  return `
Trifold is ready after ${seconds} s, at ${url}

  order, billing, notification   in this process, one schema each
  broker                         the embedded bus: topics billing, payment, balance
  database, log, letters         in ${folder}
  durability                     ${survives}
  style                          ${style} (x-interaction-style: http | hybrid | events names another)

Try:

  ACCOUNT=$(curl -s -X POST ${url}/billing/account/create | tr -d '"')
  curl -s -X POST "${url}/billing/account/$ACCOUNT?amount=199" -H 'x-interaction-style: http'
  curl -s -X POST "${url}/orders?profileId=$ACCOUNT" -H 'content-type: application/json' -d '{"productQuantity": 3}'

Then: curl -s ${url}/notification/account/$ACCOUNT
What the API says of itself: ${url}/orders/docs  ${url}/billing/docs  ${url}/notification/docs  ${url}/asyncapi

`
}
