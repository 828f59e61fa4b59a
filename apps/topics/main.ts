import { parseArgs } from 'node:util'
import {
  Admin,
  ConfigResourceTypes,
  IncrementalAlterConfigOperationTypes,
} from '@platformatic/kafka'
import type { TopicSpec } from '../../messaging/bus.ts'
import { isKafkaError } from '../../messaging/kafka/faults.ts'
import { TOPICS } from '../../messaging/topics.ts'
import { environment } from '../../platform/process/process.ts'

export interface TopicSettings {
  /** Instead of each topic's own number. */
  readonly partitions?: number
  /** Copies of each partition; without it the broker's default. */
  readonly replication?: number
  /** How long messages stay; without it the broker's default. Compacted topics have none. */
  readonly retentionMs?: number
}

/**
 * Makes topics, and returns a sentence about each. A topic that is there keeps its messages: it gets
 * the settings that were asked for, and more partitions if so many were asked for; never fewer.
 */
export async function makeTopics(
  brokers: string,
  topics: readonly TopicSpec[],
  settings: TopicSettings = {},
): Promise<string[]> {
  const bootstrapBrokers = brokers.split(',')
  const admin = new Admin({ clientId: 'topics', bootstrapBrokers, retries: 20, retryDelay: 100 })
  try {
    const sentences: string[] = []
    for (const topic of topics) sentences.push(await makeTopic(admin, topic, settings))
    await visible(admin, topics)
    return sentences
  } finally {
    await admin.close()
  }
}

async function makeTopic(
  admin: Admin,
  { name, ...spec }: TopicSpec,
  settings: TopicSettings,
): Promise<string> {
  const partitions = settings.partitions ?? spec.partitions
  const configs = configsOf(spec.compacted, settings)
  const what = configs.map((config) => `, ${config.name}=${config.value}`).join('')
  try {
    await admin.createTopics({
      topics: [name],
      partitions,
      replicas: settings.replication ?? -1,
      configs,
    })
    return `${name}: made with ${partitions} partitions${what}`
  } catch (error) {
    // By an earlier run, or by another one at this moment.
    if (!isKafkaError(error, 'TOPIC_ALREADY_EXISTS')) throw error
  }
  await configure(admin, name, configs)
  const { topics } = await admin.metadata({ topics: [name], forceUpdate: true })
  const before = topics.get(name)?.partitionsCount ?? 0
  if (settings.partitions === undefined || settings.partitions <= before) {
    return `${name}: is there with ${before} partitions${what}`
  }
  // Without assignments the broker places them itself; an empty list would be one for no partition.
  const growth = { name, count: partitions, assignments: null as never }
  await admin.createPartitions({ topics: [growth] })
  return `${name}: had ${before} partitions and has ${partitions} now${what}`
}

function configsOf(compacted: boolean, { retentionMs }: TopicSettings) {
  // By default the broker rejects records that are an hour ahead of its clock. Nothing reads their timestamps but
  // retention, and that must not depend on the clock of a producer.
  const configs = [{ name: 'message.timestamp.type', value: 'LogAppendTime' }]
  if (compacted) configs.push({ name: 'cleanup.policy', value: 'compact' })
  else if (retentionMs !== undefined) {
    configs.push({ name: 'retention.ms', value: String(retentionMs) })
  }
  return configs
}

async function configure(admin: Admin, name: string, configs: { name: string; value: string }[]) {
  const configOperation = IncrementalAlterConfigOperationTypes.SET
  const resource = {
    resourceType: ConfigResourceTypes.TOPIC,
    resourceName: name,
    configs: configs.map((config) => ({ ...config, configOperation })),
  }
  await admin.incrementalAlterConfigs({ resources: [resource] })
}

/** Brokers learn of a new topic a moment after it is made; the client asks until they know. */
async function visible(admin: Admin, topics: readonly TopicSpec[]): Promise<void> {
  await admin.metadata({ topics: topics.map(({ name }) => name), forceUpdate: true })
}

function fromCommandLine() {
  const { values } = parseArgs({
    options: {
      brokers: { type: 'string', default: environment().KAFKA_BROKERS },
      partitions: { type: 'string' },
      replication: { type: 'string' },
      'retention-ms': { type: 'string' },
    },
  })
  const numberOf = (name: 'partitions' | 'replication' | 'retention-ms') => {
    const text = values[name]
    if (text === undefined) return undefined
    if (!/^[1-9]\d*$/.test(text)) throw new Error(`--${name} must be a whole number, not ${text}`)
    return Number(text)
  }
  if (!values.brokers) throw new Error('say which Kafka: --brokers HOST:PORT, or KAFKA_BROKERS')
  return {
    brokers: values.brokers,
    settings: {
      partitions: numberOf('partitions'),
      replication: numberOf('replication'),
      retentionMs: numberOf('retention-ms'),
    },
  }
}

/** The client wraps what went wrong, sometimes more than once. */
function reasons({ message, errors = [] }: Error & { errors?: Error[] }): string[] {
  return [message, ...errors.flatMap(reasons)]
}

if (import.meta.main) {
  try {
    const { brokers, settings } = fromCommandLine()
    for (const sentence of await makeTopics(brokers, TOPICS, settings)) console.log(sentence)
  } catch (error) {
    console.error(`topics: ${[...new Set(reasons(error as Error))].join(' ')}`)
    process.exitCode = 1
  }
}
