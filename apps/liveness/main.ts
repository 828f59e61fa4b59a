/**
 * The health check of a container: exits with 0 when the program that listens on PORT is alive,
 * whichever of the services it is. The program itself runs as another process of the container.
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
  // A service answers one of them; the program with all services answers each.
  const answers = await Promise.all(
    PATHS.map((path) => isAlive(`http://127.0.0.1:${port}${path}`).catch(() => false)),
  )
  process.exitCode = answers.includes(true) ? 0 : 1
}
