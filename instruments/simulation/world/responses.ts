import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { Account, Contact, Id, Order, Voided } from '../../../contracts/http.ts'
import { Problem } from '../../../platform/http/problems.ts'
import type { Attempt, Intent } from './customers.ts'

const id = Compile(Id)
const order = Compile(Order)
const problem = Compile(Problem)

/** The body that the contract requires in a successful response. */
const GRANTED = {
  open: id,
  deposit: Compile(Type.Number()),
  order: id,
  delete: id,
  pay: id,
  void: Compile(Voided),
  contact: Compile(Contact),
  'read balance': Compile(Account),
  'read order': order,
  'list orders': Compile(Type.Array(Order)),
  pry: order,
  'reuse a key': Compile(Type.Never()),
} satisfies Record<Intent['kind'], unknown>

/** Whether the body of a response matches the contract exactly: the result of the request, or a problem. */
export function isReadable({ kind }: Intent, { status, body }: NonNullable<Attempt['response']>) {
  return (status < 300 ? GRANTED[kind] : problem).Check(body)
}
