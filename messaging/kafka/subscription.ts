import type { Subscription } from '../bus.ts'
import { createMember, type Member, type MemberOptions } from './member.ts'

/**
 * A subscription that outlives its memberships: when a membership has failed, the next `take` joins the group
 * again.
 */
export interface KafkaSubscription extends Subscription {
  /** Joins the group. Rejects if that is not possible. */
  open(): Promise<void>
}

export function createKafkaSubscription(options: MemberOptions): KafkaSubscription {
  let member: Member | undefined
  let closed = false

  /** Returns the current membership, or joins again if it has failed. */
  async function ensureMember(): Promise<Member> {
    if (member !== undefined) {
      const failure = member.failure()
      if (failure === undefined) return member
      options.log.warn({ err: failure, group: options.group }, 'rejoining the consumer group')
      await member.close()
    }
    const joining = createMember(options)
    member = joining
    try {
      await joining.join()
      return joining
    } catch (error) {
      await joining.close()
      if (member === joining) member = undefined
      throw error
    }
  }

  return {
    async open() {
      await ensureMember()
    },

    async take() {
      try {
        while (!closed) {
          const current = await ensureMember()
          const batches = current.take()
          if (batches.length > 0) return batches
          await current.poll()
        }
      } catch (error) {
        if (!closed) throw error
      }
      return []
    },

    async commit(batches) {
      await member?.commit(batches)
    },

    release(batches) {
      member?.release(batches)
    },

    async lag() {
      return (await member?.lag()) ?? []
    },

    async close() {
      closed = true
      await member?.close()
    },
  }
}
