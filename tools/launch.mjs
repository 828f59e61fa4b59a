// Runs a TypeScript entry point on Node.js 24 or newer, whatever Node.js npm itself runs on:
//   node tools/launch.mjs apps/all-in-one/main.ts [arguments]
// Plain JavaScript, because this file also has to run on Node.js 18, which cannot run TypeScript.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import Module from 'node:module'
import { delimiter, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const REQUIRED_MAJOR = 24
const POLL_MS = 500
const root = fileURLToPath(new URL('../', import.meta.url))
const suffix = process.platform === 'win32' ? '.exe' : ''

const [entry, ...args] = process.argv.slice(2)
if (!entry) fail('usage: node tools/launch.mjs ENTRY [arguments]')
if (!existsSync(join(root, 'node_modules'))) {
  fail('The dependencies are not installed: run `npm ci` first.')
}
endWithNpm()
if (majorOf(process.version) >= REQUIRED_MAJOR) runHere()
else runOn(findNode())

/** Runs the entry point in this process, so signals and exit codes need no forwarding. */
function runHere() {
  // Compilation is a third of the start-up time, so compiled code is cached. If the cache cannot be written,
  // Node.js compiles at each start.
  Module.enableCompileCache?.(join(root, 'node_modules', '.cache', 'compiled'))
  putFirstOnPath(dirname(process.execPath))
  process.argv = [process.argv[0], resolve(root, entry), ...args]
  Module.runMain()
}

/**
 * Runs this file again on another Node.js, forwards signals to it, and exits in the same way as that process.
 */
function runOn(node) {
  const child = spawn(node, process.argv.slice(1), { stdio: 'inherit' })
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP']
  for (const signal of signals) process.on(signal, () => child.kill(signal))
  child.on('error', (error) => fail(`${node} did not start: ${error.message}`))
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code)
    // A shell or npm reports that a signal killed the program only if the same signal kills this process.
    for (const each of signals) process.removeAllListeners(each)
    process.kill(process.pid, signal)
  })
}

/** Makes child processes that run `node` by name use this Node.js. */
function putFirstOnPath(folder) {
  process.env.PATH = [folder, process.env.PATH].filter(Boolean).join(delimiter)
}

/**
 * Finds a Node.js that is new enough: the binary that `npm ci` installs as an optional dependency, or one on
 * PATH. The binary is found by its path, because npm 10 and older do not link it into node_modules/.bin.
 */
function findNode() {
  const os = process.platform === 'win32' ? 'win' : process.platform
  const packaged = `node_modules/node-${os}-${process.arch}/bin/node${suffix}`
  const onPath = (process.env.PATH ?? '').split(delimiter).filter(Boolean)
  const candidates = [
    join(root, packaged),
    ...onPath.map((folder) => join(folder, `node${suffix}`)),
  ]
  const found = candidates.find((path) => existsSync(path) && versionOf(path) >= REQUIRED_MAJOR)
  if (found) return found
  fail(
    `Trifold needs Node.js ${REQUIRED_MAJOR} or newer, but this is ${process.version}: ` +
      'install it from https://nodejs.org/en/download.',
  )
}

function versionOf(node) {
  // A binary built for another C library exists but does not start.
  const { stdout } = spawnSync(node, ['--version'], { encoding: 'utf8' })
  return majorOf(stdout ?? '')
}

function majorOf(version) {
  return Number(/^v(\d+)\./.exec(version)?.[1] ?? 0)
}

/**
 * Sends this process SIGTERM when the npm that runs it as a script dies. npm cannot forward SIGKILL, and a
 * shell between npm and this process does not forward SIGTERM. Without this function, the program would keep
 * running and occupy its port.
 */
function endWithNpm() {
  if (!process.env.npm_lifecycle_event) return
  const started = ancestors()
  const timer = setInterval(() => {
    if (ancestors() === started) return
    clearInterval(timer)
    process.kill(process.pid, 'SIGTERM')
  }, POLL_MS)
  timer.unref()
}

/**
 * The process ids from the parent up to the outermost npm. There may be several, because a script that npm
 * runs may run npm again.
 */
function ancestors() {
  const chain = []
  let length = 1
  try {
    for (let pid = process.ppid; pid > 0; ) {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8')
      chain.push(pid)
      if (/^Name:\s*npm\b/.test(status)) length = chain.length
      pid = Number(/^PPid:\s*(\d+)/m.exec(status)?.[1])
    }
  } catch {
    // There is no /proc on this system, or an ancestor has just exited. The list ends here.
    if (chain.length === 0) chain.push(process.ppid)
  }
  return chain.slice(0, length).join()
}

function fail(sentence) {
  process.stderr.write(`${sentence}\n`)
  process.exit(1)
}
