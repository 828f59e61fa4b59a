/** How many rows are held at a time of what spans services. */
export const PAGE_ROWS = 10_000

/** The lowest UUID, from which the first page is read. */
export const LOWEST_ID = '00000000-0000-0000-0000-000000000000'

/**
 * Reads everything in pages in the order of a unique key, each beginning with the last row of the
 * page before, which is then left out. `from` is the lowest key.
 */
export async function* pagesOf<Row>(
  read: (from: string, limit: number) => Promise<Row[]>,
  keyOf: (row: Row) => string,
  from = LOWEST_ID,
): AsyncGenerator<Row[]> {
  for (let repeated = 0; ; repeated = 1) {
    const rows = (await read(from, PAGE_ROWS + repeated)).slice(repeated)
    const last = rows.at(-1)
    if (last === undefined) return
    yield rows
    from = keyOf(last)
  }
}
