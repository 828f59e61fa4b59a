import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { pagesOf } from './pages.ts'

const LIMIT = 3

async function pages(keys: readonly string[]): Promise<string[][]> {
  const read = async (from: string, limit: number) =>
    keys.filter((key) => key >= from).slice(0, limit)
  const found: string[][] = []
  for await (const page of pagesOf(read, (key) => key, '', LIMIT)) {
    found.push(page)
    assert.ok(found.length <= keys.length, 'reading does not end')
  }
  return found
}

describe('pages of rows', () => {
  test('contain each row once, however the rows are divided into pages', async () => {
    for (const keys of ['', 'a', 'abc', 'abcd', 'abcdefg']) {
      assert.deepEqual((await pages([...keys])).flat(), [...keys])
    }
  })

  test('contain all rows that share a key, even if the key should be unique', async () => {
    for (const keys of ['aa', 'abb', 'aabb', 'abbc', 'abccd', 'aabbccdd']) {
      assert.deepEqual((await pages([...keys])).flat(), [...keys])
    }
  })

  test('cannot be read if all rows of a page share one key', async () => {
    await assert.rejects(pages([...'abbb']), /at least 3 rows have the key b/)
  })
})
