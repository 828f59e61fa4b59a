import { readFileSync } from 'node:fs'
import { registerHooks } from 'node:module'
import { pathToFileURL } from 'node:url'
import { root } from '../../tools/repository-files.ts'

/** One change of a source file. */
export interface Edit {
  /** From the root. */
  readonly file: string
  /** Occurs once in the file. */
  readonly find: string
  readonly replace: string
}

/** Throws where the text is not there once: then the code has changed, and so must the mutant. */
export function edited(source: string, { file, find, replace }: Edit): string {
  const places = source.split(find).length - 1
  if (places !== 1) throw new Error(`${file} has ${places} places, not one, that read: ${find}`)
  return source.replace(find, () => replace)
}

/** The files that these edits change, with the text that they then have. */
export function editedFiles(edits: readonly Edit[]): Map<string, string> {
  const texts = new Map<string, string>()
  for (const edit of edits) {
    const source = texts.get(edit.file) ?? readFileSync(root + edit.file, 'utf8')
    texts.set(edit.file, edited(source, edit))
  }
  return texts
}

/**
 * From now on this thread loads the files as the edits change them. Returns what asserts that it has
 * loaded each of them, since a change that is never run would be found by nothing.
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
