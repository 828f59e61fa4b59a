import { inspect, type ParseArgsConfig, parseArgs } from 'node:util'

/** The command line is not valid. `runCommand` prints the message and the help text, and exits with code 2. */
export class UsageError extends Error {}

export const TEXT = { type: 'string' } as const
export const FLAG = { type: 'boolean' } as const

type Known = NonNullable<ParseArgsConfig['options']>

/** Parses command-line arguments; throws a `UsageError` for any argument that is not one of the options. */
export function readArguments<Options extends Known>(args: readonly string[], options: Options) {
  try {
    return parseArgs({ args: [...args], options }).values
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

/**
 * Runs a command with the arguments of this process. The result of `run` is the exit code; an error exits with 2.
 * If `read` returns undefined, only the help text is printed.
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
