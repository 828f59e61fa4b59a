import { fstatSync, writeSync } from 'node:fs'

/**
 * Standard output for log lines. A line that cannot be written (the disk is full, nobody reads the
 * pipe) is dropped and counted: a log must never stop the service that writes it.
 */
export const logOutput = {
  write(line: string): void {
    if (isPipe()) writeToPipe(line)
    else writeToFile(line)
  },
}

/** Lines dropped since this process started. */
export function droppedLogLines(): number {
  return dropped
}

/** What a reader that pauses may leave in memory. */
const MAX_UNREAD_BYTES = 1_048_576

let dropped = 0
let pipe: boolean | undefined
let isTorn = false

function isPipe(): boolean {
  if (pipe === undefined) {
    const stats = fstatSync(1)
    pipe = stats.isFIFO() || stats.isSocket()
  }
  return pipe
}

/** Without waiting: Node makes the pipe non-blocking and keeps what its reader has no room for. */
function writeToPipe(line: string): void {
  if (process.stdout.writableLength > MAX_UNREAD_BYTES) dropped += 1
  else process.stdout.write(line, countIfLost)
}

function countIfLost(error: Error | null | undefined): void {
  if (error) dropped += 1
}

function writeToFile(line: string): void {
  try {
    // A disk that was full may have taken half of the last line.
    const bytes = Buffer.from(isTorn ? `\n${line}` : line)
    isTorn = writeSync(1, bytes) < bytes.length
    if (isTorn) dropped += 1
  } catch {
    dropped += 1
  }
}
