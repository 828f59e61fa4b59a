import { constants, existsSync } from 'node:fs'
import { cp, mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { flushTree } from '../../platform/pglite/flush.ts'
import { FolderInUse, lockFolder } from '../../platform/pglite/folder-lock.ts'
import { environment } from '../../platform/process/process.ts'
import {
  assertDataFolder,
  describeFiles,
  MANIFEST,
  type Manifest,
  PROCESS_FILES,
  STATE,
  UsageError,
} from './data-folder.ts'
import { whilePaused } from './paused-process.ts'

const HELP = `
npm run backup -- --to FOLDER [--data DIR]

Copies the database and the letters of the all-in-one program, as of one moment, into a new folder. A running
program is paused while its files are copied, and its clients wait during that time.

  --to FOLDER   the folder to write the backup to; it must not exist
  --data DIR    the data folder; DATA_DIR or "data" by default
  --help        print this text

Exit code: 0 the backup is complete, 1 a fault, 2 wrong usage. Restore it with npm run restore.
`

process.exitCode = await main(process.argv.slice(2)).catch((error: Error) => {
  process.stderr.write(`backup: ${error.message}\n`)
  return error instanceof UsageError ? 2 : 1
})

async function main(args: readonly string[]): Promise<number> {
  const { data, to, help } = readOptions(args)
  if (help) {
    process.stdout.write(HELP)
    return 0
  }
  if (to === undefined) throw new UsageError('--to FOLDER is missing; see --help')
  const source = resolve(data ?? (environment().DATA_DIR || 'data'))
  const target = resolve(to)
  assertDataFolder(source)
  if (existsSync(target)) throw new UsageError(`${target} already exists`)
  const unfinished = `${target}.unfinished`
  await rm(unfinished, { recursive: true, force: true })
  await mkdir(unfinished, { recursive: true, mode: 0o700 })

  const { created, pausedMs } = await copyState(source, unfinished)
  const files = await describeFiles(unfinished)
  const manifest: Manifest = { format: 1, created: created.toISOString(), files }
  await writeFile(join(unfinished, MANIFEST), `${JSON.stringify(manifest, null, 2)}\n`)
  flushTree(unfinished)
  await rename(unfinished, target)
  flushTree(target)

  const megabytes = files.reduce((sum, { bytes }) => sum + bytes, 0) / 1_000_000
  const pause = pausedMs === undefined ? '' : `; the program was paused for ${pausedMs} ms`
  process.stdout.write(
    `${to}: ${files.length} files, ${megabytes.toFixed(1)} MB, as of ${manifest.created}${pause}\n`,
  )
  return 0
}

function readOptions(args: readonly string[]) {
  const text = { type: 'string' } as const
  try {
    const options = { data: text, to: text, help: { type: 'boolean' } } as const
    return parseArgs({ args: [...args], options }).values
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

/**
 * Copies the files while nothing writes to them. If no program is running, holding the lock on the database
 * folder keeps one from starting. A running program is paused instead. Its files are then in the same state
 * as after a crash, from which PostgreSQL recovers when it starts.
 */
async function copyState(source: string, target: string) {
  const copy = async () => {
    const created = new Date()
    for (const part of STATE) await copyPart(join(source, part), join(target, part))
    return created
  }
  try {
    const lock = lockFolder(join(source, 'database'))
    return { created: await copy().finally(() => lock.release()), pausedMs: undefined }
  } catch (error) {
    if (!(error instanceof FolderInUse) || error.pid === undefined) throw error
    const startedMs = performance.now()
    const created = await whilePaused(error.pid, copy)
    return { created, pausedMs: Math.round(performance.now() - startedMs) }
  }
}

async function copyPart(source: string, target: string): Promise<void> {
  if (!existsSync(source)) return
  await cp(source, target, {
    recursive: true,
    preserveTimestamps: true,
    mode: constants.COPYFILE_FICLONE,
    filter: (path) => !PROCESS_FILES.includes(basename(path)),
  })
}
