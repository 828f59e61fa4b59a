import { plant } from './mutants/plant.ts'

/**
 * A new style is one row of the table: with a fourth row and no other change, the suite of outcomes holds
 * in all four styles.
 */
const assertLoaded = plant([
  {
    file: 'contracts/style.ts',
    find: '  events: {',
    replace: `  mixture: { payment: 'event', announcement: 'call', response: 'id', deposit: 'booked' },
  events: {`,
  },
])
await import('./e2e/outcomes.test.ts')
assertLoaded()
