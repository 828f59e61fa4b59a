import Type, { type TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import { Account, Contact, Id, Order, Voided } from '../../contracts/http.ts'
import type { Attempt, Wish } from './customers.ts'

/** What a customer reads from an answer that grants the wish: strictly what the contract says. */
const granted = (schema: TSchema) => Compile(schema)
const id = granted(Id)
const order = granted(Order)

const READERS: Readonly<Record<Wish['kind'], ReturnType<typeof granted>>> = {
  open: id,
  deposit: granted(Type.Number()),
  order: id,
  delete: id,
  pay: id,
  void: granted(Voided),
  contact: granted(Contact),
  'look at balance': granted(Account),
  'look at order': order,
  'look at orders': granted(Type.Array(Order)),
  pry: order,
  'reuse a key': granted(Type.Never()),
}
const problem = granted(Type.Object({ type: Type.String(), code: Type.String() }))

/** Whether a strict program could read the answer: what was asked for, or a problem with a code. */
export function isReadable({ kind }: Wish, { status, body }: NonNullable<Attempt['answer']>) {
  return (status < 300 ? READERS[kind] : problem).Check(body)
}
