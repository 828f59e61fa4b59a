/** The number of rows of each page that is compared across services. */
export const PAGE_ROWS = 10_000

/** The lowest UUID, from which the first page is read. */
export const LOWEST_ID = '00000000-0000-0000-0000-000000000000'

/**
 * Reads all rows in pages, in the order of a key. `read` returns the rows with this key or a higher one;
 * `from` is the lowest key. The key should be unique, but a database under audit may be broken: rows that
 * share a key are all read. Throws if a whole page has the same key.
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
    // The next page starts with all rows that have this page's last key.
    const complete = isLastPage ? rows : rows.filter((row) => keyOf(row) !== keyOf(last!))
    if (complete.length > 0) yield complete
    if (isLastPage) return
    if (complete.length === 0) throw new Error(`${limit} rows or more have the key ${key}`)
    key = keyOf(last!)
  }
}
