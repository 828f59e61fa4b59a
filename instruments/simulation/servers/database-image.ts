import type { PGlite } from '@electric-sql/pglite'

/**
 * Takes an image of an idle PGlite: its WebAssembly memory, its files (which are in memory as well) and its open
 * file descriptors. Returns a function that restores the image in a few milliseconds. The database is then
 * identical byte for byte, with warm caches, which cannot be achieved by emptying tables.
 *
 * The write-ahead log is left out because it is read only after a crash.
 *
 * The memory is saved up to its last non-zero byte. The bytes above it have never been allocated, so their contents
 * do not matter: the allocator does not promise zeros.
 */
export function takeImage(pglite: PGlite): () => void {
  const machine = pglite.Module as unknown as Machine
  const memory = machine.HEAPU8.slice(0, usedLength(machine.HEAPU8))
  const streams = machine.FS.streams.map(
    (stream, fd) => stream && { stream, fd, shared: { ...stream.shared } },
  )
  const folders = new Map<Folder, ReadonlySet<string>>()
  const files = new Map<File, Uint8Array>()
  for (const node of nodesUnder(machine.FS.root)) {
    if (isFile(node)) {
      files.set(node, node.contents.slice(0, node.usedBytes))
      node.mtime = UNTOUCHED
    } else {
      folders.set(node, new Set(Object.keys(node.contents)))
    }
  }

  return () => {
    machine.HEAPU8.set(memory)
    for (const [folder, names] of folders) restoreFolder(machine.FS, folder, names)
    for (const [file, bytes] of files) restoreFile(file, bytes)
    machine.FS.streams.length = 0
    for (const saved of streams) {
      if (saved) Object.assign(saved.stream, { fd: saved.fd, shared: { ...saved.shared } })
      machine.FS.streams.push(saved?.stream)
    }
  }
}

/** The mtime that marks a file as unchanged: every write replaces it with a later one. */
const UNTOUCHED = 0

/** The parts of Emscripten's module and in-memory file system that are used here. */
interface Machine {
  readonly HEAPU8: Uint8Array
  readonly FS: Files
}

interface Files {
  readonly root: Folder
  readonly streams: (Stream | null | undefined)[]
  unlink(path: string): void
  getPath(node: Folder | File): string
}

interface Stream {
  fd: number | null
  shared: { readonly position?: number; readonly flags?: number }
}

interface Folder {
  readonly name: string
  readonly contents: Readonly<Record<string, Folder | File>>
}

interface File {
  readonly name: string
  contents: Uint8Array
  usedBytes: number
  mtime: number
}

/** A node that is neither file nor folder is a link or a device. */
const isFile = (node: Folder | File): node is File => node.contents instanceof Uint8Array
const isFolder = (node: Folder | File): node is Folder =>
  node.contents?.constructor === Object && !isFile(node)

function* nodesUnder(folder: Folder): Generator<Folder | File> {
  yield folder
  for (const node of Object.values(folder.contents)) {
    if (isFile(node)) yield node
    else if (isFolder(node) && node.name !== 'pg_wal') yield* nodesUnder(node)
  }
}

function restoreFolder(fs: Files, folder: Folder, names: ReadonlySet<string>): void {
  const found = Object.keys(folder.contents)
  for (const name of found) {
    if (!names.has(name)) fs.unlink(fs.getPath(folder.contents[name]!))
  }
  if (found.length < names.size || ![...names].every((name) => folder.contents[name])) {
    throw new Error(`a file of the image is missing in ${fs.getPath(folder)}`)
  }
}

function restoreFile(file: File, bytes: Uint8Array): void {
  if (file.mtime === UNTOUCHED && file.usedBytes === bytes.length) return
  if (file.contents.length >= bytes.length) file.contents.set(bytes)
  else file.contents = bytes.slice()
  file.usedBytes = bytes.length
  file.mtime = UNTOUCHED
}

function usedLength(memory: Uint8Array): number {
  let length = memory.length
  while (length > 0 && memory[length - 1] === 0) length -= 1
  return length
}
