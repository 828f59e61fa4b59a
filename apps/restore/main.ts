import { existsSync, readdirSync } from 'node:fs'
import { cp, rename, rm, rmdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { flushTree } from '../../platform/pglite/flush.ts'
import { lockFolder } from '../../platform/pglite/folder-lock.ts'
import { environment } from '../../platform/process/process.ts'
import { MANIFEST, STATE, UsageError, verifyBackup } from '../backup/data-folder.ts'

const HELP = `
npm run restore -- --from FOLDER [--data DIR] [--replace]

Copies a backup of the all-in-one program into its data folder, after verifying the checksum of every file.
The program must not be running. Nothing is deleted: --replace moves an existing data folder aside.

  --from FOLDER   a backup that npm run backup made
  --data DIR      the data folder; DATA_DIR or "data" by default
  --replace       rename an existing data folder to DIR.before-TIME
  --help          print this text

Exit code: 0 the backup is restored, 1 a fault, 2 wrong usage or a damaged backup.
`

process.exitCode = await main(process.argv.slice(2)).catch((error: Error) => {
  process.stderr.write(`restore: ${error.message}\n`)
  return error instanceof UsageError ? 2 : 1
})

async function main(args: readonly string[]): Promise<number> {
  const { data, from, replace = false, help } = readOptions(args)
  if (help) {
    process.stdout.write(HELP)
    return 0
  }
  if (from === undefined) throw new UsageError('--from FOLDER is missing; see --help')
  const source = resolve(from)
  const target = resolve(data ?? (environment().DATA_DIR || 'data'))
  const { created, files } = await verifyBackup(source)
  const isTaken = existsSync(target) && readdirSync(target).length > 0
  if (isTaken && !replace) {
    throw new UsageError(`${target} is not empty; use --replace to rename it and keep its data`)
  }

  const unfinished = `${target}.restoring`
  await rm(unfinished, { recursive: true, force: true })
  await cp(source, unfinished, {
    recursive: true,
    preserveTimestamps: true,
    filter: (path) => path !== join(source, MANIFEST),
  })
  flushTree(unfinished)
  const aside = isTaken ? await moveAside(target) : undefined
  if (existsSync(target)) await rmdir(target)
  await rename(unfinished, target)
  flushTree(target)

  const moved = aside === undefined ? '' : `; the previous data is in ${aside}`
  process.stdout.write(`${target}: ${files.length} files as of ${created}${moved}\n`)
  return 0
}

function readOptions(args: readonly string[]) {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean' } as const
  try {
    const options = { data: text, from: text, replace: flag, help: flag } as const
    return parseArgs({ args: [...args], options }).values
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

/** Renames the data folder and returns its new name. Fails if a program is using the folder. */
async function moveAside(folder: string): Promise<string> {
  const database = join(folder, STATE[0])
  const lock = existsSync(database) ? lockFolder(database) : undefined
  const aside = `${folder}.before-${new Date().toISOString().replace(/[:.]/g, '-')}`
  try {
    await rename(folder, aside)
  } finally {
    lock?.release()
  }
  return aside
}
