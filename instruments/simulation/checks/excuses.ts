import { basename, dirname } from 'node:path/posix'
import type { LostMessage } from '../servers/broker.ts'
import { HEARD } from './heard-outcomes.ts'
import type { Finding } from './tables.ts'

/**
 * What is lost with messages that were not read, in a lost log or a recreated topic. Money and orders must
 * come right by asking again; but a message that notification had not read is gone, what is announced again
 * comes later than it would have, and an order does not hear of a refund that its customer had from billing
 * directly. Nothing is excused where everything was read.
 */
export function isExcused(finding: Finding, lost: readonly LostMessage[]): boolean {
  if (lost.every(({ unreadBy }) => unreadBy.length === 0)) return false
  const { invariant, subject, sentence } = finding
  const isLostTo = (group: string, isMeant: (event: string) => boolean) =>
    lost.some(({ message, unreadBy }) => {
      const { ce_id: eventId = '' } = message.headers
      const [id, event] = [dirname(eventId), basename(eventId)]
      return unreadBy.includes(group) && subject.includes(id) && isMeant(event)
    })
  switch (invariant) {
    case 'I3':
      return (
        sentence.includes('APPROVED, but its payment is REFUNDED') &&
        isLostTo('order', (event) => event === 'PAYMENT_REFUNDED')
      )
    case 'I5':
      return isLostTo(
        'notification',
        (event) => event !== '' && (sentence.includes(event) || sentence.includes(HEARD)),
      )
    case 'I6':
      return true
    default:
      return false
  }
}
