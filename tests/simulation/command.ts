import { type ParseArgsConfig, parseArgs } from 'node:util'

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

/** Runs the command with the arguments of this process; its result is the exit code, 2 where it fails. */
export async function runCommand(
  name: string,
  help: string,
  run: (args: readonly string[]) => Promise<number>,
): Promise<void> {
  try {
    process.exitCode = await run(process.argv.slice(2))
  } catch (error) {
    const isUsage = error instanceof UsageError
    process.stderr.write(`${name}: ${isUsage ? error.message : (error as Error).stack}\n`)
    if (isUsage) process.stderr.write(help)
    process.exitCode = 2
  }
}
