import fs from 'node:fs'
import { join, relative } from 'node:path'
import { mock } from 'node:test'

/**
 * Records the flushes of this process below a folder, to determine which files a power cut would leave there.
 * The rule is strict: a file keeps the bytes that it had at its last flush, a folder keeps the names that it
 * had at its last flush, and all other data is lost. A real disk often keeps more.
 *
 * The folder must be empty at the start. Works by replacing functions of `node:fs`, through which both
 * Emscripten and the code under test write.
 */
export function watchFlushes(root: string) {
  /** The bytes of flushed files and the names in flushed folders, by inode. */
  const files = new Map<number, Buffer>()
  const folders = new Map<number, Map<string, { inode: number; isFolder: boolean }>>()
  /** The ranges written since the last flush, by inode of the file. */
  const written = new Map<number, { from: number; to: number }[]>()
  let flushes = 0

  function flushed(descriptor: number): void {
    flushes += 1
    const path = fs.readlinkSync(`/proc/self/fd/${descriptor}`)
    if (relative(root, path).startsWith('..')) return
    const stats = fs.fstatSync(descriptor)
    const { ino, size } = stats
    if (stats.isDirectory()) {
      const entries = fs.readdirSync(path, { withFileTypes: true }).map((entry) => {
        const { ino: inode } = fs.lstatSync(join(path, entry.name))
        return [entry.name, { inode, isFolder: entry.isDirectory() }] as const
      })
      folders.set(ino, new Map(entries))
      return
    }
    const known = files.get(ino)
    const bytes = Buffer.alloc(size)
    known?.copy(bytes)
    const source = fs.openSync(path, 'r')
    const changed = known ? (written.get(ino) ?? []) : [{ from: 0, to: size }]
    for (const { from, to } of changed) fs.readSync(source, bytes, from, to - from, from)
    fs.closeSync(source)
    files.set(ino, bytes)
    written.delete(ino)
  }

  const { fdatasyncSync, fsyncSync, writeSync } = fs
  const watched = [
    mock.method(fs, 'fdatasyncSync', (descriptor: number) => {
      fdatasyncSync(descriptor)
      flushed(descriptor)
    }),
    mock.method(fs, 'fsyncSync', (descriptor: number) => {
      fsyncSync(descriptor)
      flushed(descriptor)
    }),
    mock.method(fs, 'writeSync', ((
      descriptor: number,
      bytes: NodeJS.ArrayBufferView,
      offset: number,
      length: number,
      position: number,
    ) => {
      const { ino } = fs.fstatSync(descriptor)
      const ranges = written.get(ino) ?? []
      written.set(ino, [...ranges, { from: position, to: position + length }])
      return writeSync(descriptor, bytes, offset, length, position)
    }) as typeof fs.writeSync),
  ]

  /** Writes the files that a power cut at this moment would leave into another folder. */
  function restore(inode: number, target: string): void {
    fs.mkdirSync(target, { recursive: true, mode: 0o700 })
    for (const [name, entry] of folders.get(inode) ?? []) {
      const path = join(target, name)
      if (entry.isFolder) restore(entry.inode, path)
      else fs.writeFileSync(path, files.get(entry.inode) ?? '', { mode: 0o600 })
    }
  }

  return {
    flushes: () => flushes,
    cutPower: (target: string) => restore(fs.statSync(root).ino, target),
    end() {
      for (const one of watched) one.mock.restore()
    },
  }
}
