import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** The repository's root, with a trailing slash. */
export const root = fileURLToPath(new URL('../', import.meta.url))

/** The sorted paths, relative to the root, of all files that are tracked by Git, or new and not ignored. */
export function repositoryFiles(): string[] {
  const list = execFileSync(
    'git',
    ['ls-files', '-z', '--cached', '--others', '--exclude-standard'],
    { cwd: root, encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 },
  )
  // A file that was deleted but not yet committed is still listed.
  return [...new Set(list.split('\0'))].filter((path) => path && existsSync(root + path)).sort()
}
