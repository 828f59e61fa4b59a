import fs from 'node:fs'
import { dirname, join } from 'node:path'
import type { PGlite } from '@electric-sql/pglite'
import { NodeFS } from '@electric-sql/pglite/nodefs'

/** The start parameter with which PGlite turns off the flushing of files in PostgreSQL. */
const WITHOUT_FLUSHING = '-F'

/** Changes the start parameters of PGlite so that a commit returns only when its log records are on disk. */
export function flushingParams(params: readonly string[]): string[] {
  return [
    ...params.filter((param) => param !== WITHOUT_FLUSHING),
    ...['-c', 'fsync=on', '-c', 'wal_sync_method=fsync'],
  ]
}

/** The part of Emscripten's file system that is changed here. PGlite does not export its type. */
interface EmscriptenModule {
  readonly NODEFS: { readonly stream_ops: { fsync?: (stream: { nfd: number }) => number } }
}

/**
 * PGlite's file system on disk, with the one operation that Emscripten lacks: flushing an open file or
 * folder. PostgreSQL flushes on commit, during a checkpoint, and after renaming a file.
 */
export class FlushingFiles extends NodeFS {
  override async init(pglite: PGlite, options: Parameters<NodeFS['init']>[1]) {
    const { emscriptenOpts } = await super.init(pglite, options)
    const addFlush = (module: unknown) => {
      ;(module as EmscriptenModule).NODEFS.stream_ops.fsync = ({ nfd }) => {
        fs.fdatasyncSync(nfd)
        return 0
      }
    }
    const preRun = [...(emscriptenOpts.preRun ?? []), addFlush]
    return { emscriptenOpts: { ...emscriptenOpts, preRun } }
  }
}

/**
 * Flushes a folder with all files and folders below it, and the entries of the folders above it, because the
 * program that wrote them may not have flushed them.
 */
export function flushTree(folder: string): void {
  flushBelow(folder)
  for (let at = dirname(folder); at !== dirname(at); at = dirname(at)) flushFolder(at)
}

function flushBelow(folder: string): void {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) flushBelow(path)
    else flush(path)
  }
  flushFolder(folder)
}

function flushFolder(folder: string): void {
  // On Windows, a folder cannot be opened like a file, and its entries need no flush.
  if (process.platform === 'win32') return
  try {
    flush(folder)
  } catch (error) {
    // A folder that this user may not read was not created by this program, so it needs no flush.
    if ((error as { code?: unknown }).code !== 'EACCES') throw error
  }
}

function flush(path: string): void {
  const descriptor = fs.openSync(path, 'r')
  try {
    fs.fsyncSync(descriptor)
  } finally {
    fs.closeSync(descriptor)
  }
}
