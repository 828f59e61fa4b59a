/** The number of rows in each page that is compared across services. */
export const PAGE_ROWS = 10_000

/** The lowest UUID, from which the first page is read. */
export const LOWEST_ID = '00000000-0000-0000-0000-000000000000'

/**
 * Reads all rows in pages, sorted by a key. `read` returns rows whose key is at least the given one, and
 * `from` is the lowest key. The key should be unique, but the database under audit may be broken, so rows
 * that share a key are all read. Throws if all rows of a page have the same key.
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
    // Rows with the last key of this page are left to the next page, which starts with that key and so has
    // all of them.
    const complete = isLastPage ? rows : rows.filter((row) => keyOf(row) !== keyOf(last!))
    if (complete.length > 0) yield complete
    if (isLastPage) return
    if (complete.length === 0) throw new Error(`at least ${limit} rows have the key ${key}`)
    key = keyOf(last!)
  }
}
