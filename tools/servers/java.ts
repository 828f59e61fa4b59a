import { execFile, spawnSync } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { basename, delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import { root } from '../repository-files.ts'
import { downloadJars } from './maven.ts'

const MIN_JAVA = 17
/**
 * The path of the compiler in a Maven repository, and the SHA-256 of the file. The compiler runs on Java 17.
 */
const COMPILER = {
  'org/eclipse/jdt/ecj/3.46.0/ecj-3.46.0.jar':
    'd0d43f8e2d7003e5efed612e2cbb5f01870043397d8f1bbe536fd9128f4fcbf7',
}
const COMPILE_LIMIT_MS = 120_000

/**
 * Returns the command that runs Java 17 or newer. If there is none, throws an Error that says how to install
 * Java.
 */
export function findJava(user: string): string {
  const home = process.env.JAVA_HOME
  const java = home ? join(home, 'bin', 'java') : 'java'
  const { stderr, error } = spawnSync(java, ['-version'], { encoding: 'utf8' })
  const version = Number(/version "(\d+)/.exec(stderr ?? '')?.[1] ?? 0)
  if (error === undefined && version >= MIN_JAVA) return java
  const found = error === undefined ? `${java} is version ${version}` : `${java} cannot be run`
  throw new Error(
    `${user} needs Java ${MIN_JAVA} or newer, but ${found}. Install it (Debian and Ubuntu: ` +
      'apt-get install openjdk-17-jre-headless; macOS: brew install openjdk), or set JAVA_HOME.',
  )
}

/**
 * Compiles Java sources into `folder` with Eclipse's compiler, a JAR file of 3 MB that is kept in `.cache/`,
 * so that a machine with a Java runtime needs no JDK. Returns a class path with `folder` and the JAR files in
 * the folder `libraries`. Warnings count as errors.
 */
export async function compileJava(
  sources: readonly string[],
  libraries: string,
  folder: string,
  say: (line: string) => void,
): Promise<string> {
  const java = findJava("Eclipse's compiler")
  const compilers = join(root, '.cache', 'ecj')
  await downloadJars(COMPILER, compilers, (line) => say(`Eclipse's compiler: ${line}`))
  const compiler = join(compilers, ...Object.keys(COMPILER).map((path) => basename(path)))
  const options = [`-${MIN_JAVA}`, '-encoding', 'UTF-8', '-failOnWarning', '-proc:none']
  const archives = (await readdir(libraries)).filter((name) => name.endsWith('.jar'))
  const classPath = archives.map((name) => join(libraries, name)).join(delimiter)
  const args = ['-jar', compiler, ...options, '-cp', classPath, '-d', folder, ...sources]
  try {
    await promisify(execFile)(java, args, { timeout: COMPILE_LIMIT_MS })
  } catch (cause) {
    const { stderr } = cause as { stderr?: string }
    throw new Error(`the Java sources cannot be compiled: ${stderr || cause}`, { cause })
  }
  return [folder, join(libraries, '*')].join(delimiter)
}
