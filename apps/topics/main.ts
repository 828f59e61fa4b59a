import { parseArgs } from 'node:util'
import {
  Admin,
  ConfigResourceTypes,
  IncrementalAlterConfigOperationTypes,
} from '@platformatic/kafka'
import Type from 'typebox'
import type { TopicSpec } from '../../messaging/bus.ts'
import { isKafkaError } from '../../messaging/kafka/faults.ts'
import {
  type KafkaSecurity,
  kafkaSecurity,
  kafkaSecurityConfig,
} from '../../messaging/kafka/security.ts'
import { TOPICS } from '../../messaging/topics.ts'
import { readConfig } from '../../platform/process/config.ts'
import { environment } from '../../platform/process/process.ts'
import { createAcls } from './acls.ts'

export interface TopicSettings {
  /** How to connect to the brokers. By default in plain text, without a login. */
  readonly security?: KafkaSecurity
  /** The number of partitions of each topic, in place of the number in `TOPICS`. */
  readonly partitions?: number
  /** The number of copies of each partition. If absent, the broker's default applies. */
  readonly replication?: number
  /**
   * How long messages are kept, in milliseconds. If absent, the broker's default applies. Ignored for
   * compacted topics.
   */
  readonly retentionMs?: number
}

/**
 * Creates topics, and returns a sentence about each. An existing topic keeps its messages and gets the given
 * settings. Partitions are added if it has fewer than requested, and never removed.
 */
export async function createTopics(
  brokers: string,
  topics: readonly TopicSpec[],
  settings: TopicSettings = {},
): Promise<string[]> {
  const client = { clientId: 'topics', bootstrapBrokers: brokers.split(','), ...settings.security }
  const admin = new Admin({ ...client, retries: 20, retryDelay: 100 })
  try {
    const sentences: string[] = []
    for (const topic of topics) sentences.push(await createTopic(admin, topic, settings))
    await untilVisible(admin, topics)
    return sentences
  } finally {
    await admin.close()
  }
}

async function createTopic(
  admin: Admin,
  { name, ...spec }: TopicSpec,
  settings: TopicSettings,
): Promise<string> {
  const partitions = settings.partitions ?? spec.partitions
  const configs = configsOf(spec.compacted, settings)
  const settingsText = configs.map((config) => `, ${config.name}=${config.value}`).join('')
  try {
    await admin.createTopics({
      topics: [name],
      partitions,
      replicas: settings.replication ?? -1,
      configs,
    })
    return `${name}: created with ${partitions} partitions${settingsText}`
  } catch (error) {
    // The topic was created by an earlier run, or by a run at the same time.
    if (!isKafkaError(error, 'TOPIC_ALREADY_EXISTS')) throw error
  }
  await configure(admin, name, configs)
  const { topics } = await admin.metadata({ topics: [name], forceUpdate: true })
  const before = topics.get(name)?.partitionsCount ?? 0
  if (settings.partitions === undefined || settings.partitions <= before) {
    return `${name}: exists with ${before} partitions${settingsText}`
  }
  // With null, the broker assigns the new partitions to brokers itself; an empty list would assign none of
  // them.
  const growth = { name, count: partitions, assignments: null as never }
  await admin.createPartitions({ topics: [growth] })
  return `${name}: grew from ${before} to ${partitions} partitions${settingsText}`
}

function configsOf(compacted: boolean, { retentionMs }: TopicSettings) {
  // By default, the broker rejects records whose timestamp is an hour ahead of its clock. Only retention uses
  // these timestamps, and retention must not depend on the clock of a producer.
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

/**
 * Resolves once the brokers know the topics, which can take a moment after their creation. The client retries
 * until then.
 */
async function untilVisible(admin: Admin, topics: readonly TopicSpec[]): Promise<void> {
  await admin.metadata({ topics: topics.map(({ name }) => name), forceUpdate: true })
}

function fromCommandLine() {
  const { values } = parseArgs({
    options: {
      brokers: { type: 'string', default: environment().KAFKA_BROKERS },
      partitions: { type: 'string' },
      replication: { type: 'string' },
      'retention-ms': { type: 'string' },
      acls: { type: 'boolean', default: false },
    },
  })
  const numberOf = (name: 'partitions' | 'replication' | 'retention-ms') => {
    const text = values[name]
    if (text === undefined) return undefined
    if (!/^[1-9]\d*$/.test(text)) throw new Error(`--${name} must be a whole number, not ${text}`)
    return Number(text)
  }
  if (!values.brokers) throw new Error('no broker given: use --brokers HOST:PORT or KAFKA_BROKERS')
  const security = readConfig(Type.Object(kafkaSecurityConfig), environment())
  return {
    brokers: values.brokers,
    acls: values.acls,
    settings: {
      security: kafkaSecurity(security, values.brokers),
      partitions: numberOf('partitions'),
      replication: numberOf('replication'),
      retentionMs: numberOf('retention-ms'),
    },
  }
}

/**
 * The messages of an error and of the errors inside it, because the client wraps errors, sometimes more than
 * once.
 */
function reasons({ message, errors = [] }: Error & { errors?: Error[] }): string[] {
  return [message, ...errors.flatMap(reasons)]
}

if (import.meta.main) {
  try {
    const { brokers, settings, acls } = fromCommandLine()
    for (const sentence of await createTopics(brokers, TOPICS, settings)) console.log(sentence)
    if (acls) {
      for (const sentence of await createAcls(brokers, settings.security)) console.log(sentence)
    }
  } catch (error) {
    console.error(`topics: ${[...new Set(reasons(error as Error))].join(' ')}`)
    process.exitCode = 1
  }
}
