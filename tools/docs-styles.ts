import { FLOWS, type Flow, STYLES } from '../contracts/style.ts'
import { code, type Say, table } from './docs-tables.ts'

/** What a customer sees in each style, from the properties of the style alone. */
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
    messageOf(flow),
  ],
  'not enough': (flow) => [
    flow.response === 'outcome' ? '402, order CANCELED' : '201 PENDING at once, then CANCELED',
    messageOf(flow),
  ],
  'notification is down': (flow) => [
    flow.response === 'outcome' ? '201 after the payment' : '201 PENDING at once, then APPROVED',
    'the message comes later, once',
  ],
  'billing is down': (flow) =>
    flow.payment === 'call'
      ? [
          flow.response === 'outcome'
            ? '503, order CANCELED'
            : '201 PENDING at once, then CANCELED',
          'its payment is voided when billing is back',
          'order notifies the customer at once',
        ]
      : [
          '201 PENDING at once',
          'paid if billing is back within 15 minutes, otherwise CANCELED, and order notifies the customer',
        ],
  'broker is down': (flow) => {
    if (flow.payment === 'event') {
      return [
        '201 PENDING at once',
        'settles when the broker is back, or is CANCELED after 15 minutes',
      ]
    }
    return flow.announcement === 'event'
      ? ['201 after the payment', 'the message comes later, once']
      : ['not affected']
  },
  deposit: (flow) => {
    if (flow.deposit === 'promised') {
      return ['the response has the balance that the deposit leads to', 'ledger and message follow']
    }
    const isFirst = flow.announcement === 'call'
    return [
      'the response comes when the ledger has the deposit',
      isFirst ? MESSAGE_FIRST : MESSAGE_FOLLOWS,
    ]
  },
}

const MESSAGE_FIRST = 'the message is there before the response'
const MESSAGE_FOLLOWS = 'the message follows'

function messageOf({ response, payment, announcement }: Flow): string {
  const areCalls = payment === 'call' && announcement === 'call'
  return response === 'outcome' && areCalls ? MESSAGE_FIRST : MESSAGE_FOLLOWS
}
