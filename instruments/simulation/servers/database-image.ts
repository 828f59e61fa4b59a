import type { PGlite } from '@electric-sql/pglite'

/**
 * A picture of a PGlite at rest: the memory of its WebAssembly, its files, which are in memory too, and
 * which of them are open. Put back, it is the same database to the byte, with its caches warm,
 * which no way of emptying tables brings about, and in a few milliseconds.
 *
 * The write-ahead log is left out: it is read after a crash only.
 *
 * The memory is taken up to its last byte that is not zero. What lies above was never handed out by
 * its allocator, which does not promise zeros.
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
    for (const [folder, names] of folders) putBackFolder(machine.FS, folder, names)
    for (const [file, bytes] of files) putBackFile(file, bytes)
    machine.FS.streams.length = 0
    for (const saved of streams) {
      if (saved) Object.assign(saved.stream, { fd: saved.fd, shared: { ...saved.shared } })
      machine.FS.streams.push(saved?.stream)
    }
  }
}

/** No write leaves this time on a file. */
const UNTOUCHED = 0

/** What Emscripten has of a program and its files in memory, as far as it is of use here. */
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

/** Links and devices are neither. */
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

function putBackFolder(fs: Files, folder: Folder, names: ReadonlySet<string>): void {
  const found = Object.keys(folder.contents)
  for (const name of found) {
    if (!names.has(name)) fs.unlink(fs.getPath(folder.contents[name]!))
  }
  if (found.length < names.size || ![...names].every((name) => folder.contents[name])) {
    throw new Error(`a file of the image is gone from ${fs.getPath(folder)}`)
  }
}

function putBackFile(file: File, bytes: Uint8Array): void {
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
