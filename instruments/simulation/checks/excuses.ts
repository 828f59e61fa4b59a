import { basename, dirname } from 'node:path/posix'
import type { LostMessage } from '../servers/broker.ts'
import { HEARD } from './heard-outcomes.ts'
import type { Finding } from './tables.ts'

/**
 * Whether a finding is the inevitable result of messages that were lost unread, with the log or a recreated
 * topic. Resends must repair money and orders even then. But an announcement that the notification service
 * had not read is gone, repeated announcements come out of order, and the order service is not notified of a
 * refund made directly at billing. If every lost message had been read, nothing is excused.
 */
export function isExcused(finding: Finding, lost: readonly LostMessage[]): boolean {
  if (lost.every(({ unreadBy }) => unreadBy.length === 0)) return false
  const { invariant, subject, sentence } = finding
  const isLostTo = (group: string, matches: (event: string) => boolean) =>
    lost.some(({ message, unreadBy }) => {
      const { ce_id: eventId = '' } = message.headers
      const [id, event] = [dirname(eventId), basename(eventId)]
      return unreadBy.includes(group) && subject.includes(id) && matches(event)
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
