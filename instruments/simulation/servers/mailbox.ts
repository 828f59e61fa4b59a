import type { Letter } from '../../../apps/audit/findings.ts'
import type { Deliver } from '../../../messaging/outbox/relay-calls.ts'
import type { Life } from '../world/lives.ts'
import type { Steps } from '../world/steps.ts'
import type { Story } from '../world/story.ts'

/**
 * Receives letters like a Maildir: a letter's name is derived from its Message-ID, so a repeated delivery adds
 * nothing.
 */
export interface Mailbox {
  deliverFrom(life: Life, steps: Steps, story: Story): Deliver
  letters(): readonly Letter[]
}

export function createMailbox(): Mailbox {
  const letters = new Map<string, Letter>()
  return {
    letters: () => [...letters.values()],
    deliverFrom(life, steps, story) {
      return async ({ destination, headers, eventId }) => {
        const messageId = headers['message-id'] ?? `<${eventId}@trifold>`
        const keep = () => {
          story.record('notification', 'customer', `letter ${messageId.slice(-15)}`)
          letters.set(`${messageId} ${destination}`, { messageId, recipient: destination })
        }
        const fault = (mishap: string) => new Error(`writing to the Maildir failed (${mishap})`)
        await steps.perform(life, { kind: 'letter', label: 'maildir' }, keep, fault)
        return { kind: 'done' }
      }
    },
  }
}
