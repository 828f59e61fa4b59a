import type { Finding } from './books.ts'
import type { LostMessage } from './broker.ts'

/**
 * What a lost log takes with it. Money and orders must come right by asking again; but a message that
 * notification had not read is gone, what is announced again comes later than it would have, and an
 * order does not hear of a refund that its customer had from billing directly.
 */
export function isExcused(finding: Finding, lost: readonly LostMessage[]): boolean {
  if (lost.length === 0) return false
  const { invariant, subject, sentence } = finding
  const isLostTo = (group: string, isMeant: (event: string) => boolean) =>
    lost.some(({ message, unreadBy }) => {
      const [id = '', event = ''] = (message.headers.ce_id ?? '').split('/')
      return unreadBy.includes(group) && subject.includes(id) && isMeant(event)
    })
  switch (invariant) {
    case 'I3':
      return (
        sentence.includes('APPROVED, but its payment is REFUNDED') &&
        isLostTo('order', (event) => event === 'PAYMENT_REFUNDED')
      )
    case 'I5':
      return isLostTo('notification', (event) => event !== '' && sentence.includes(event))
    case 'I6':
      return true
    default:
      return false
  }
}
