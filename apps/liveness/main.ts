/**
 * The health check of a container: exits with 0 if the program that listens on PORT is alive, whichever
 * service it is.
 */
const PATHS = ['orders', 'billing', 'notification'].map(
  (path) => `/${path}/actuator/health/liveness`,
)
const LIMIT_MS = 3_000

async function isAlive(url: string): Promise<boolean> {
  const response = await fetch(url, { signal: AbortSignal.timeout(LIMIT_MS) })
  await response.arrayBuffer()
  return response.ok
}

if (import.meta.main) {
  const port = process.env.PORT || '8000'
  // A service serves one of these paths; the all-in-one program serves all of them.
  const answers = await Promise.all(
    PATHS.map((path) => isAlive(`http://127.0.0.1:${port}${path}`).catch(() => false)),
  )
  process.exitCode = answers.includes(true) ? 0 : 1
}
