import { readFileSync } from 'node:fs'
import { repositoryFiles, root } from '../repository-files.ts'

/** All pages that have a Russian version. `README` stands for `README.md` and `README.ru.md`. */
const RUSSIAN_PAGE = '.ru.md'
export const PAGES: readonly string[] = repositoryFiles()
  .filter((path) => path.endsWith(RUSSIAN_PAGE))
  .map((path) => path.slice(0, -RUSSIAN_PAGE.length))

export const LANGUAGES = ['en', 'ru'] as const
export type Language = (typeof LANGUAGES)[number]

export const pathOf = (page: string, language: Language): string =>
  page + (language === 'ru' ? RUSSIAN_PAGE : '.md')

export const readPage = (page: string, language: Language = 'en'): string =>
  readFileSync(root + pathOf(page, language), 'utf8')

/**
 * The `sh` blocks that call the program. Blocks that need more than the running program, such as a cluster,
 * are marked `bash` instead.
 */
export function curlBlocksIn(markdown: string): string[] {
  const blocks = [...markdown.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, lines]) => lines as string)
  return blocks.filter((block) => block.includes('curl '))
}
