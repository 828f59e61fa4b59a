import { readFileSync } from 'node:fs'
import { registerHooks } from 'node:module'
import { pathToFileURL } from 'node:url'
import { root } from '../../tools/repository-files.ts'

/** One replacement in a source file. */
export interface Edit {
  /** The path from the repository's root. */
  readonly file: string
  /** Must occur exactly once in the file. */
  readonly find: string
  readonly replace: string
}

/** Throws if `find` does not occur exactly once: the code has changed, so the mutant needs an update. */
export function edited(source: string, { file, find, replace }: Edit): string {
  const places = source.split(find).length - 1
  if (places !== 1) throw new Error(`${file} has this text ${places} times, not once: ${find}`)
  return source.replace(find, () => replace)
}

/** The full text of each changed file after the edits, by its path. */
export function editedFiles(edits: readonly Edit[]): Map<string, string> {
  const texts = new Map<string, string>()
  for (const edit of edits) {
    const source = texts.get(edit.file) ?? readFileSync(root + edit.file, 'utf8')
    texts.set(edit.file, edited(source, edit))
  }
  return texts
}

/**
 * Makes this thread load the edited text of each changed file, if it is called before those files are
 * imported. Returns an assertion that each of these files was loaded, because no check can find a bug in code
 * that never runs.
 */
export function plant(edits: readonly Edit[]): () => void {
  const texts = new Map(
    [...editedFiles(edits)].map(([file, text]) => [pathToFileURL(root + file).href, text]),
  )
  const missing = new Set(texts.keys())
  registerHooks({
    load(url, context, nextLoad) {
      const loaded = nextLoad(url, context)
      const source = texts.get(url)
      if (source === undefined) return loaded
      missing.delete(url)
      return { ...loaded, source }
    },
  })
  return () => {
    if (missing.size > 0) throw new Error(`never loaded: ${[...missing].join(', ')}`)
  }
}
