/** How many rows are held at a time of what spans services. */
export const PAGE_ROWS = 10_000

/** The lowest UUID, from which the first page is read. */
export const LOWEST_ID = '00000000-0000-0000-0000-000000000000'

/**
 * Reads everything in pages in the order of a key. `read` returns rows from a key on, that key included;
 * `from` is the lowest key. The key should be unique, but the books under audit may be broken: rows that
 * share a key are read, and reading ends. Throws where a whole page has one key.
 */
export async function* pagesOf<Row>(
  read: (from: string, limit: number) => Promise<Row[]>,
  keyOf: (row: Row) => string,
  from = LOWEST_ID,
  limit = PAGE_ROWS,
): AsyncGenerator<Row[]> {
  for (let key = from; ; ) {
    const rows = await read(key, limit)
    const last = rows.at(-1)
    const isLastPage = rows.length < limit
    // The next page begins with all rows that have this page's last key.
    const complete = isLastPage ? rows : rows.filter((row) => keyOf(row) !== keyOf(last!))
    if (complete.length > 0) yield complete
    if (isLastPage) return
    if (complete.length === 0) throw new Error(`${limit} rows or more have the key ${key}`)
    key = keyOf(last!)
  }
}
