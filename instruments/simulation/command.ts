import { inspect, type ParseArgsConfig, parseArgs } from 'node:util'

/** A command was called in a way that it does not know. */
export class UsageError extends Error {}

export const TEXT = { type: 'string' } as const
export const FLAG = { type: 'boolean' } as const

type Known = NonNullable<ParseArgsConfig['options']>

/** Throws a `UsageError` for what is not among the options. */
export function readArguments<Options extends Known>(args: readonly string[], options: Options) {
  try {
    return parseArgs({ args: [...args], options }).values
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

/**
 * Runs the command with the arguments of this process; its result is the exit code, 2 where it fails. Options
 * that are undefined ask for the help alone.
 */
export async function runCommand<Options>(
  name: string,
  help: string,
  read: (args: readonly string[]) => Options | undefined,
  run: (options: Options) => Promise<number>,
): Promise<void> {
  try {
    const options = read(process.argv.slice(2))
    if (options === undefined) process.stdout.write(help)
    else process.exitCode = await run(options)
  } catch (error) {
    const isUsage = error instanceof UsageError
    process.stderr.write(`${name}: ${isUsage ? error.message : inspect(error)}\n`)
    if (isUsage) process.stderr.write(help)
    process.exitCode = 2
  }
}
