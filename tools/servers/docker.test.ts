import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { createTopics } from '../../apps/topics/main.ts'
import { until } from '../../platform/async/until.ts'
import { root } from '../repository-files.ts'
import {
  containerName,
  type Docker,
  findDocker,
  findImage,
  hasImage,
  pullProgress,
  runArguments,
  withoutImage,
} from './docker.ts'
import { KAFKA_IMAGE, startKafka } from './kafka.ts'
import { freePorts } from './ports.ts'
import { IMAGE_MAJOR, makeDatabases, startPostgres } from './postgres.ts'

const folder = mkdtempSync(join(tmpdir(), 'trifold-docker-'))
// PostgreSQL may run as another user, and that user must be able to enter the folder.
chmodSync(folder, 0o755)
after(() => rmSync(folder, { recursive: true }))

/** A fake Docker client that runs a line of shell for each subcommand. */
function client(name: string, answers: Readonly<Record<string, string>>): string {
  const file = join(folder, name)
  const cases = Object.entries(answers).map(([subcommand, line]) => `${subcommand}) ${line} ;;`)
  const lines = ['#!/bin/sh', 'case "$1" in', ...cases, '*) exit 1 ;;', 'esac', '']
  writeFileSync(file, lines.join('\n'), { mode: 0o755 })
  return file
}

const HERE = 'echo unix:///var/run/docker.sock'

describe('a Docker daemon', () => {
  for (const [what, answers, expected] of [
    ['is used on this machine', { context: HERE, info: 'echo "linux [name=seccomp]"' }, undefined],
    ['is not used on another host', { context: 'echo tcp://10.0.0.1:2375' }, /not on this machine/],
    ['is not used if it does not respond', { context: HERE, info: 'exit 1' }, /does not respond/],
    [
      'is not used if it remaps user ids',
      { context: HERE, info: 'echo "linux [name=seccomp,profile=default name=rootless]"' },
      /remap user ids/,
    ],
    [
      'is not used without Linux',
      { context: HERE, info: 'echo "windows []"' },
      /no Linux containers/,
    ],
  ] as const) {
    test(what, async () => {
      const command = client(`daemon ${what}`, answers)
      const docker = await findDocker(command)
      if (expected === undefined) assert.deepEqual(docker, { kind: 'daemon', command })
      else assert.match(docker.kind === 'none' ? docker.why : '', expected)
    })
  }

  test('is not found without a client', async () => {
    const docker = await findDocker(join(folder, 'missing'))
    assert.deepEqual(docker, { kind: 'none', why: 'Docker is not installed' })
  })
})

describe('an image', () => {
  const name = 'example:1'
  async function findWith(answers: Readonly<Record<string, string>>) {
    const command = client(`images ${Object.keys(answers).join(' ')}`, answers)
    const lines: string[] = []
    const say = (line: string) => void lines.push(line)
    const image = await findImage({ kind: 'daemon', command }, name, say)
    return { image, lines, command }
  }

  test('is not pulled if the daemon already has it', async () => {
    const { image, lines, command } = await findWith({ image: 'exit 0', pull: 'exit 9' })
    assert.deepEqual(image, { kind: 'image', command, name })
    assert.deepEqual(lines, [])
  })

  test('is pulled, with progress', async () => {
    const steps = ['a: Pulling fs layer', 'b: Already exists', 'a: Pull complete']
    const pull = steps.map((step) => `echo "${step}"`).join('; ')
    const { image, lines } = await findWith({ pull })
    assert.equal(image.kind, 'image')
    assert.deepEqual(lines, [`pulling the image ${name}`, 'pulled 2 of 2 layers'])
  })

  test("is reported with the daemon's last line if it cannot be pulled", async () => {
    const { image } = await findWith({ pull: 'echo "no such host" >&2; exit 1' })
    assert.deepEqual(image, {
      kind: 'none',
      why: `Docker cannot pull ${name}: no such host`,
    })
  })

  test('stops being pulled when the signal is aborted', async () => {
    const abort = new AbortController()
    const command = client('slow', { pull: 'echo "a: Pull complete"; exec sleep 600' })
    const say = (line: string) => {
      if (line.startsWith('pulled')) abort.abort(new Error('gave up'))
    }
    const finding = findImage({ kind: 'daemon', command }, name, say, abort.signal)
    await assert.rejects(finding, /gave up/)
  })

  test('is not found without a daemon', async () => {
    const none: Docker = { kind: 'none', why: 'Docker is not installed' }
    const say = () => assert.fail('nothing should be printed')
    assert.deepEqual(await findImage(none, name, say), none)
  })

  test('reports how many of its layers have been pulled', () => {
    const lines = [
      '17: Pulling from library/postgres',
      'a: Pulling fs layer',
      'b: Pulling fs layer',
    ]
    assert.equal(pullProgress(lines), 'pulled 0 of 2 layers')
    assert.equal(pullProgress([...lines, 'b: Pull complete']), 'pulled 1 of 2 layers')
  })

  test('gives one error that explains both problems if the image and the programs are missing', () => {
    const find = () => {
      throw new Error('Install Java.')
    }
    const none: Docker = { kind: 'none', why: 'Docker is not installed' }
    assert.throws(() => withoutImage(none, find), /Install Java\..*Docker is not installed/)
    assert.equal(
      withoutImage(none, () => 'java'),
      'java',
    )
  })
})

describe('a container', () => {
  const options = { name: 'one', folder: '/srv/data', user: { uid: 1000, gid: 100 }, port: 5440 }
  const program = { command: 'postgres', args: ['-D', '/srv/data/cluster'] }

  test('runs as the current user, is removed when it ends, and keeps its standard input open', () => {
    const args = runArguments('postgres:17', program, options)
    const text = args.join(' ')
    assert.match(text, /^run --interactive --rm /)
    assert.match(text, / --user 1000:100 /)
    assert.match(text, / --mount type=bind,source=\/srv\/data,target=\/srv\/data /)
    assert.match(text, / --publish 127\.0\.0\.1:5440:5440 /)
    assert.deepEqual(args.slice(-3), ['postgres', '-D', '/srv/data/cluster'])
  })

  test('always has the same name for the same folder', () => {
    assert.equal(containerName('kafka', '/a'), containerName('kafka', '/a'))
    assert.notEqual(containerName('kafka', '/a'), containerName('kafka', '/b'))
    assert.notEqual(containerName('kafka', '/a'), containerName('postgres', '/a'))
  })
})

const docker = await findDocker()
const images = [KAFKA_IMAGE, `postgres:${IMAGE_MAJOR}`]
const missing = []
for (const name of images) if (!(await hasImage(docker, name))) missing.push(name)
const skip = missing.length > 0 && `skipped, because Docker has no ${missing.join(' and no ')}`
const named = (name: string) => (skip ? `${name} (${skip})` : name)
const PORTS = 23_000
const LIMIT_MS = 60_000

/** All containers, in any state, that a server in this folder may have left behind. */
function containersOf(what: string, serverFolder: string): string {
  const filter = `name=${containerName(what, serverFolder)}`
  const args = ['ps', '--all', '--format', '{{.Names}} {{.Status}}', '--filter', filter]
  return execFileSync('docker', args, { encoding: 'utf8' }).trim()
}

test(named('PostgreSQL in a container keeps its data when it is killed'), { skip }, async () => {
  const own = join(folder, 'postgres-killed')
  const port = await freePorts(PORTS, 1)
  const logFile = join(folder, 'postgres-killed.log')
  const options = { folder: own, port, maxConnections: 20, logFile, docker }
  const postgres = await startPostgres(options)
  try {
    assert.match(containersOf('postgres', own), /Up/)
    assert.deepEqual(await makeDatabases(postgres.url, ['kept']), ['kept'])
    await postgres.server.freeze()
    await assert.rejects(makeDatabases(postgres.url, ['late']))
    await postgres.server.thaw()
    assert.deepEqual(await makeDatabases(postgres.url, ['kept', 'late']), ['late'])
    await postgres.server.kill()
    assert.equal(containersOf('postgres', own), '')
    await postgres.server.start()
    assert.deepEqual(await makeDatabases(postgres.url, ['kept', 'late']), [])
    await postgres.server.freeze()
  } finally {
    await postgres.close()
  }
  assert.equal(containersOf('postgres', own), '')
})

test(named('Kafka in a container keeps its topics when it is killed'), { skip }, async () => {
  const own = join(folder, 'kafka-killed')
  const port = await freePorts(PORTS + 200, 2)
  const kafka = await startKafka({ folder: own, port, docker })
  const topics = [{ name: 'kept', partitions: 3, compacted: false }]
  try {
    assert.match(containersOf('kafka', own), /Up/)
    const made = await createTopics(kafka.brokers, topics)
    await kafka.server.kill()
    assert.equal(containersOf('kafka', own), '')
    await kafka.server.start()
    assert.notDeepEqual(await createTopics(kafka.brokers, topics), made)
  } finally {
    await kafka.close()
  }
  assert.equal(containersOf('kafka', own), '')
})

/** Starts PostgreSQL in a container, and freezes it on request. */
const STARTER = `
import { findDocker } from './tools/servers/docker.ts'
import { startPostgres } from './tools/servers/postgres.ts'
const [folder, port, freeze] = process.argv.slice(1)
const options = { folder, port: Number(port), maxConnections: 20, logFile: folder + '.log' }
const { server } = await startPostgres({ ...options, docker: await findDocker() })
if (freeze === 'frozen') await server.freeze()
console.log('ready')
setInterval(() => undefined, 1_000)
`

for (const state of ['running', 'frozen'] as const) {
  const name = `a ${state} container ends when who started it is killed`
  test(named(name), { skip }, async () => {
    const own = join(folder, `postgres-${state}`)
    const port = await freePorts(PORTS + 400, 1)
    const args = ['--input-type=module', '-e', STARTER, own, String(port), state]
    const starter = spawn(process.execPath, args, {
      cwd: root,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      await once(starter.stdout, 'data')
      assert.match(containersOf('postgres', own), /Up/)
    } finally {
      starter.kill('SIGKILL')
    }
    await until(async () => containersOf('postgres', own) === '', { limitMs: LIMIT_MS })
  })
}
