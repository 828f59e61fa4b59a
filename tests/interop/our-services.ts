import { existsSync } from 'node:fs'
import { freePorts } from '../../tools/ports.ts'
import { type Stack, startStack } from '../../tools/stack.ts'
import type { StackOptions } from '../../tools/stack-options.ts'
import { type Client, createClient } from '../e2e/client.ts'
import { temporaryFolder } from '../e2e/program.ts'

export type OurServices = Client & Pick<Stack, 'brokers'> & { close(): Promise<void> }

const START_LIMIT_MS = 180_000

/** Those of our services that are asked for, each a process, on a Kafka and a PostgreSQL of their own. */
export async function startOurServices(
  replicas: StackOptions['replicas'],
  environment: Readonly<Record<string, string>> = {},
): Promise<OurServices> {
  const { folder, remove } = await temporaryFolder()
  const port = await freePorts(8_200 + Math.floor(Math.random() * 700), 1)
  const said: string[] = []
  const stack = await startStack({
    ...{ replicas, environment, folder, port },
    signal: AbortSignal.timeout(START_LIMIT_MS),
    say: (line) => said.push(line),
  }).catch(async (cause) => {
    if (existsSync(folder)) await remove()
    throw new Error(`our services do not start:\n${said.join('\n')}`, { cause })
  })
  return {
    ...createClient(stack.url),
    brokers: stack.brokers,
    async close() {
      await stack.close()
      await remove()
    },
  }
}
