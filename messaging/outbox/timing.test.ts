import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { LEASE_MS, PEER_HEARD_MS, POLL_ALONE_MS, POLL_WITH_PEERS_MS, RENEW_MS } from './timing.ts'

describe('the times of the outbox', () => {
  test('let a lease survive two renewals that fail', () => {
    assert.ok(3 * RENEW_MS < LEASE_MS)
  })

  test('keep an instance that was heard a peer until it has renewed its lease and claimed its lanes', () => {
    assert.ok(PEER_HEARD_MS >= LEASE_MS)
  })

  test('poll more often with peers than alone', () => {
    assert.ok(POLL_WITH_PEERS_MS < POLL_ALONE_MS)
  })
})
