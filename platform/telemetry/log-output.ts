import { fstatSync, writeSync } from 'node:fs'

/**
 * Standard output for log lines. A line that cannot be written, because the disk is full or the pipe is not
 * read, is dropped and counted, because logging must never stop a service.
 */
export const logOutput = {
  write(line: string): void {
    if (isPipe()) writeToPipe(line)
    else writeToFile(line)
  },
}

/** The number of lines dropped since this process started. */
export function droppedLogLines(): number {
  return dropped
}

/** How many bytes that the pipe's reader has not read stay in memory before lines are dropped. */
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

/**
 * Writes without blocking: Node makes the pipe non-blocking, and keeps output in memory that does not fit
 * into the pipe.
 */
function writeToPipe(line: string): void {
  if (process.stdout.writableLength > MAX_UNREAD_BYTES) dropped += 1
  else process.stdout.write(line, countIfLost)
}

function countIfLost(error: Error | null | undefined): void {
  if (error) dropped += 1
}

function writeToFile(line: string): void {
  try {
    // If the disk was full, only a part of the last line may have been written. The line break ends that
    // part.
    const bytes = Buffer.from(isTorn ? `\n${line}` : line)
    isTorn = writeSync(1, bytes) < bytes.length
    if (isTorn) dropped += 1
  } catch {
    dropped += 1
  }
}
