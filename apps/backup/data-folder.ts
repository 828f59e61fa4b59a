import { createHash } from 'node:crypto'
import { createReadStream, existsSync } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join, relative, sep } from 'node:path'
import { pipeline } from 'node:stream/promises'

/** A mistake that the user can correct, in the options or the folders. Any other error is a fault. */
export class UsageError extends Error {}

/** The subfolders of a data folder that are backed up. They contain no locks and no logs. */
export const STATE = ['database', 'mail'] as const
/** Files that belong to the process that uses the folder. A backup leaves them out. */
export const PROCESS_FILES = ['trifold.lock', 'trifold.pid']

export const MANIFEST = 'manifest.json'

/** The contents of a backup. The manifest is written last, so a backup without one is incomplete. */
export interface Manifest {
  readonly format: 1
  /** The time of the backed-up state, as ISO 8601 in UTC. */
  readonly created: string
  readonly files: readonly BackupFile[]
}

export interface BackupFile {
  /** The path relative to the root of the backup, with slashes. */
  readonly path: string
  readonly bytes: number
  readonly sha256: string
}

export function assertDataFolder(folder: string): void {
  if (existsSync(join(folder, 'database', 'pgdata', 'PG_VERSION'))) return
  throw new UsageError(`${folder} is not a data folder: it contains no database`)
}

/** The size and checksum of every file below a folder except the manifest, sorted by path. */
export async function describeFiles(folder: string): Promise<BackupFile[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const paths = entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
  const files: BackupFile[] = []
  for (const path of paths) {
    const name = relative(folder, path).split(sep).join('/')
    if (name === MANIFEST) continue
    const hash = createHash('sha256')
    await pipeline(createReadStream(path), hash)
    const { size: bytes } = await stat(path)
    files.push({ path: name, bytes, sha256: hash.digest('hex') })
  }
  return files
}

/** Compares a backup with its manifest. Throws a UsageError that names the first difference. */
export async function verifyBackup(folder: string): Promise<Manifest> {
  const manifest = await readManifest(folder)
  const found = new Map((await describeFiles(folder)).map((file) => [file.path, file]))
  for (const { path, bytes, sha256 } of manifest.files) {
    const file = found.get(path)
    if (file === undefined) throw new UsageError(`the backup is damaged: ${path} is missing`)
    if (file.bytes !== bytes || file.sha256 !== sha256) {
      throw new UsageError(`the backup is damaged: ${path} has changed`)
    }
    found.delete(path)
  }
  const [extra] = found.keys()
  if (extra !== undefined) {
    throw new UsageError(`the backup is damaged: ${extra} is not in its manifest`)
  }
  return manifest
}

async function readManifest(folder: string): Promise<Manifest> {
  const text = await readFile(join(folder, MANIFEST), 'utf8').catch(() => {
    throw new UsageError(`${folder} is not a complete backup: it has no ${MANIFEST}`)
  })
  const manifest = JSON.parse(text) as Manifest
  if (manifest.format !== 1) {
    throw new UsageError(
      `${folder} was written by another version, in the unknown format ${manifest.format}`,
    )
  }
  return manifest
}
