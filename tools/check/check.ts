import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { root } from '../repository-files.ts'

/**
 * The JavaScript file of each check, with its arguments. They are started by path, so that each runs on this
 * Node.js on every platform.
 */
const CHECKS: readonly (readonly string[])[] = [
  ['node_modules/typescript/bin/tsc'],
  ['node_modules/@biomejs/biome/bin/biome', 'check', '.'],
  [
    'node_modules/dependency-cruiser/bin/dependency-cruiser.mjs',
    ...['--config', '.dependency-cruiser.json'],
    ...['contracts', 'platform', 'messaging', 'chassis', 'services', 'apps'],
    ...['tools', 'tests', 'instruments'],
  ],
  ['node_modules/knip/bin/knip.js'],
  ['tools/check/tidy.ts'],
]

// The first failure ends the run, because later checks often only report the same failure again.
for (const check of CHECKS) {
  const child = spawn(process.execPath, check, { cwd: root, stdio: 'inherit' })
  const stop = () => child.kill()
  process.on('SIGTERM', stop)
  const [code] = (await once(child, 'exit')) as [number | null]
  process.off('SIGTERM', stop)
  if (code !== 0) process.exit(code ?? 1)
}
