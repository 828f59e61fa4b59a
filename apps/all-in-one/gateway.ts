import type { IncomingMessage, ServerResponse } from 'node:http'
import {
  type FrontDoor,
  type MountedServices,
  openFrontDoor,
} from '../../platform/front-door/front-door.ts'
import {
  allows,
  READ_ONLY,
  sendAsyncApi,
  sendJson,
  sendProblem,
} from '../../platform/front-door/plain-responses.ts'
import { pathOf } from '../../platform/http/request-target.ts'
import { isLoopback } from '../../platform/http/server.ts'
import { allowedHostsOf, prefixOf } from '../../platform/process/config.ts'
import type { AllInOneConfig } from './config.ts'
import { isSwitchName, type Lab, type SwitchName } from './lab.ts'

/**
 * The gateway of the all-in-one program. It passes each request unchanged to the service that the first
 * segment of the path selects, as nginx does in the other deployments. For a service that is switched off,
 * the response is 503, except on the paths for operators.
 */
export interface Gateway extends FrontDoor {
  openLab(lab: Lab): void
}

/**
 * A map instead of an object, because a path such as /constructor would find a member of the object's
 * prototype.
 */
const SERVICES: ReadonlyMap<string, SwitchName> = new Map([
  ['orders', 'order'],
  ['billing', 'billing'],
  ['notification', 'notification'],
])

/** The paths below a service's own that are still served while the service is switched off. */
const OPERATOR_PATHS: ReadonlySet<string> = new Set(['actuator', 'dead-letters', 'outbox'])

/** The name under which the stand-in for a switched-off service is mounted. */
export const stoppedName = (service: SwitchName) => `${service}, switched off`

export async function openGateway(config: AllInOneConfig): Promise<Gateway> {
  const basePath = prefixOf(config.BASE_PATH)
  let lab: Lab | undefined

  function handle(
    services: MountedServices,
    request: IncomingMessage,
    response: ServerResponse,
  ): void {
    const path = pathOf(request.url ?? '/', basePath)
    const [, first = '', second = '', third = '', fourth = ''] = path.split('/')
    const service = SERVICES.get(first)
    if (service) {
      const stopped = stoppedName(service)
      const isForOperators = OPERATOR_PATHS.has(second) && services.has(stopped)
      const isOff = !services.has(service)
      return services.pass(isOff && isForOperators ? stopped : service, request, response)
    }
    if (sendAsyncApi(request, response, path, basePath)) return
    if (path === '/') {
      if (allows(request, response, READ_ONLY)) sendJson(request, response, 200, INDEX)
      return
    }
    if (first === 'lab' && second === 'services' && config.LAB && config.AUTH === 'off' && lab) {
      void handleLab(lab, request, response, third, fourth)
      return
    }
    sendProblem(request, response, 'ROUTE_NOT_FOUND')
  }

  const door = await openFrontDoor({
    host: config.HOST,
    port: config.PORT,
    requestTimeoutMs: config.REQUEST_TIMEOUT_MS,
    maxConnections: config.MAX_CONNECTIONS,
    allowedHosts: allowedHostsOf(config),
    handle,
  })
  return {
    ...door,
    openLab(switches) {
      lab = switches
    },
  }
}

const INDEX = {
  name: 'Trifold',
  services: [...SERVICES.keys()].map((path) => ({
    health: `/${path}/health`,
    ready: `/${path}/actuator/health`,
    docs: `/${path}/docs`,
    openapi: `/${path}/openapi.json`,
    metrics: `/${path}/actuator/prometheus`,
  })),
  events: { docs: '/asyncapi', asyncapi: '/asyncapi.json' },
}

/**
 * A page on another site cannot send this header without a CORS preflight, which this program never approves.
 */
const LAB_HEADER = 'x-trifold-lab'

async function handleLab(
  lab: Lab,
  request: IncomingMessage,
  response: ServerResponse,
  name: string,
  action: string,
): Promise<void> {
  if (!isLoopback(request)) return sendProblem(request, response, 'LOOPBACK_ONLY')
  if (request.headers[LAB_HEADER] !== 'true') {
    const detail = `this request requires the header ${LAB_HEADER}: true`
    return sendProblem(request, response, 'CROSS_SITE_REQUEST', { detail })
  }
  const states = () =>
    Object.fromEntries(Object.entries(lab).map(([one, { running }]) => [one, running()]))
  if (name === '') {
    if (allows(request, response, READ_ONLY)) sendJson(request, response, 200, states())
    return
  }
  if (!isSwitchName(name) || (action !== 'start' && action !== 'stop')) {
    return sendProblem(request, response, 'ROUTE_NOT_FOUND')
  }
  if (!allows(request, response, ['POST'])) return
  try {
    await lab[name][action]()
    sendJson(request, response, 200, states())
  } catch (error) {
    sendProblem(request, response, 'INTERNAL', { detail: (error as Error).message })
  }
}
