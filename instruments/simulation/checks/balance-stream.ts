import type { BalanceChanged } from '../../../contracts/events.ts'
import type { BusMessage } from '../../../messaging/bus.ts'
import type { Finding, Tables } from './tables.ts'

/**
 * Compares the topic `balance`, from its first message, with the ledger: each event has the balance that the ledger
 * had at its version, versions only rise except in repeats, and the last version is the last one of the ledger.
 */
export function checkBalanceStream(stream: readonly BusMessage[], tables: Tables): Finding[] {
  const found: Finding[] = []
  const add = (id: string, sentence: string, invariant: string) =>
    found.push({ invariant, subject: `account ${id}`, sentence })
  const events = Map.groupBy(stream.map(bodyOf), ({ accountId }) => accountId)
  for (const { id } of tables.accounts) {
    const ledger = tables.entries.filter(({ accountId }) => accountId === id)
    const balances = new Map(ledger.map((one) => [one.version, one.balanceAfterMinor]))
    balances.set(0, 0n)
    const seen = new Set<number>()
    let last = 0
    for (const { version, balance } of events.get(id) ?? []) {
      const minor = BigInt(Math.round(balance * 100))
      if (balances.get(version) !== minor) {
        add(id, `has a balance event with ${minor} at version ${version}`, 'I5')
      }
      if (version < last && !seen.has(version)) {
        add(id, `has a balance event with version ${version} after version ${last}`, 'I6')
      }
      seen.add(version)
      last = Math.max(last, version)
    }
    if (last !== ledger.length) {
      add(id, `is at version ${ledger.length}, but its balance events end at ${last}`, 'I5')
    }
  }
  return found
}

function bodyOf({ value }: BusMessage): BalanceChanged {
  return JSON.parse(new TextDecoder().decode(value!)) as BalanceChanged
}
