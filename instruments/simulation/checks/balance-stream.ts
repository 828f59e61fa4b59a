import type { BalanceChanged } from '../../../contracts/events.ts'
import type { BusMessage } from '../../../messaging/bus.ts'
import type { Finding, Tables } from './tables.ts'

/**
 * The topic `balance`, from its first message on: each balance is the one that the ledger had at that
 * version, versions rise but for repetitions, and the last is the ledger's last.
 */
export function checkBalanceStream(stream: readonly BusMessage[], tables: Tables): Finding[] {
  const found: Finding[] = []
  const add = (id: string, sentence: string, invariant: string) =>
    found.push({ invariant, subject: `account ${id}`, sentence })
  const said = Map.groupBy(stream.map(bodyOf), ({ accountId }) => accountId)
  for (const { id } of tables.accounts) {
    const ledger = tables.entries.filter(({ accountId }) => accountId === id)
    const balances = new Map(ledger.map((one) => [one.version, one.balanceAfterMinor]))
    balances.set(0, 0n)
    const seen = new Set<number>()
    let last = 0
    for (const { version, balance } of said.get(id) ?? []) {
      const minor = BigInt(Math.round(balance * 100))
      if (balances.get(version) !== minor) {
        add(id, `was said to have ${minor} at version ${version}`, 'I5')
      }
      if (version < last && !seen.has(version)) {
        add(id, `was told version ${version} after version ${last}`, 'I6')
      }
      seen.add(version)
      last = Math.max(last, version)
    }
    if (last !== ledger.length) {
      add(id, `is at version ${ledger.length}, its stream at ${last}`, 'I5')
    }
  }
  return found
}

function bodyOf({ value }: BusMessage): BalanceChanged {
  return JSON.parse(new TextDecoder().decode(value!)) as BalanceChanged
}
