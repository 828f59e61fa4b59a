import { FLOWS, type Flow, STYLES } from '../../contracts/style.ts'
import { code, type Say, table } from './tables.ts'

/** What a customer sees in each style, derived from the properties of the style. */
export function stylesTable(say: Say): string {
  const rows = Object.entries(SITUATIONS).map(([situation, parts]) => [
    say(situation),
    ...STYLES.map((style) => parts(FLOWS[style]).map(say).join('; ')),
  ])
  return table(['', ...STYLES.map(code)], rows)
}

const SITUATIONS: Readonly<Record<string, (flow: Flow) => readonly string[]>> = {
  'enough money': (flow) => [
    flow.response === 'outcome' ? '201 after the payment' : '201 PENDING at once, then APPROVED',
    noticeOf(flow),
  ],
  'not enough money': (flow) => [
    flow.response === 'outcome' ? '402, order CANCELED' : '201 PENDING at once, then CANCELED',
    noticeOf(flow),
  ],
  'the notification service is down': (flow) => [
    flow.response === 'outcome' ? '201 after the payment' : '201 PENDING at once, then APPROVED',
    'the notice comes later, once',
  ],
  'the billing service is down': (flow) =>
    flow.payment === 'call'
      ? [
          flow.response === 'outcome'
            ? '503, order CANCELED'
            : '201 PENDING at once, then CANCELED',
          'the payment is voided once the billing service is back',
          'the order service notifies the customer at once',
        ]
      : [
          '201 PENDING at once',
          'paid if the billing service is back within 15 minutes, otherwise CANCELED, and the order service notifies the customer',
        ],
  'the broker is down': (flow) => {
    if (flow.payment === 'event') {
      return [
        '201 PENDING at once',
        'settles when the broker is back, or is CANCELED after 15 minutes',
      ]
    }
    return flow.announcement === 'event'
      ? ['201 after the payment', 'the notice comes later, once']
      : ['not affected']
  },
  deposit: (flow) => {
    if (flow.deposit === 'promised') {
      return ['the response has the resulting balance at once', 'ledger and notice follow']
    }
    const isFirst = flow.announcement === 'call'
    return [
      'the response comes once the ledger has the deposit',
      isFirst ? NOTICE_FIRST : NOTICE_FOLLOWS,
    ]
  },
}

const NOTICE_FIRST = 'the notice exists before the response'
const NOTICE_FOLLOWS = 'the notice follows'

function noticeOf({ response, payment, announcement }: Flow): string {
  const areCalls = payment === 'call' && announcement === 'call'
  return response === 'outcome' && areCalls ? NOTICE_FIRST : NOTICE_FOLLOWS
}
