import { CLOCK_MUTANTS } from './clock-mutants.ts'
import { MESSAGE_MUTANTS } from './message-mutants.ts'
import { MONEY_MUTANTS } from './money-mutants.ts'
import type { Mutant } from './mutant.ts'
import { ORDER_MUTANTS } from './order-mutants.ts'

export const MUTANTS: readonly Mutant[] = [
  ...MONEY_MUTANTS,
  ...ORDER_MUTANTS,
  ...MESSAGE_MUTANTS,
  ...CLOCK_MUTANTS,
]
