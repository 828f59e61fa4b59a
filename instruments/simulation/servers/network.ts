import { type HttpCall, type HttpResponse, HttpUnreachable } from '../../../platform/http/client.ts'
import type { HttpServer } from '../../../platform/http/server.ts'
import type { Faults } from '../faults/faults.ts'
import type { Trouble } from '../faults/mishaps.ts'
import type { Chances } from '../world/chance.ts'
import { type Life, laterIn, never, type ServiceName } from '../world/lives.ts'
import type { Scheduler } from '../world/scheduler.ts'
import type { Story } from '../world/story.ts'

/** A call of a service or a customer. Unlike services, customers also use PUT. */
export interface Call extends Omit<HttpCall, 'method' | 'target'> {
  readonly method: HttpCall['method'] | 'PUT'
}

/** Like `HttpClient`, but also for the calls of customers. */
export type Client = (call: Call, timeoutMs: number) => Promise<HttpResponse>

/** Carries requests between customers and services; each goes to one of the service's living instances. */
export interface Network {
  clientOf(life: Life): Client
  mount(life: Life, app: HttpServer): void
}

export interface NetworkOptions {
  readonly scheduler: Scheduler
  readonly faults: Faults
  readonly chances: Chances
  readonly story: Story
}

interface Mounted {
  readonly life: Life
  readonly app: HttpServer
}

const SERVICES: Readonly<Record<string, ServiceName>> = {
  orders: 'order',
  billing: 'billing',
  notification: 'notification',
}

/** The longest extra delay of a slow request or response: longer than most callers wait. */
const SLOW_MS = 4_000

function serviceOf(url: string): ServiceName {
  const first = new URL(url).pathname.split('/')[1] ?? ''
  const service = SERVICES[first]
  if (service === undefined) throw new Error(`no service has the path of ${url}`)
  return service
}

export function createNetwork({ scheduler, faults, chances, story }: NetworkOptions): Network {
  const mounted = new Map<ServiceName, Mounted[]>()

  /** Hands a request to an instance; passes on its response, or undefined if the connection breaks. */
  function serve(
    service: ServiceName,
    call: Call,
    respond: (response?: HttpResponse) => void,
  ): void {
    const alive = (mounted.get(service) ?? []).filter(({ life }) => life.alive)
    const chosen = alive[chances(`instance of ${service}`).integer(alive.length)]
    if (chosen === undefined) return respond(undefined)
    const { life, app } = chosen
    // A frozen process accepts the request after its thaw.
    if (life.frozen) laterIn(life, scheduler, 0, () => accept(life, app, call, respond))
    else accept(life, app, call, respond)
  }

  function accept(
    life: Life,
    app: HttpServer,
    call: Call,
    respond: (response?: HttpResponse) => void,
  ) {
    const leave = scheduler.enter()
    let open = true
    const close = (given?: HttpResponse) => {
      if (!open) return
      open = false
      leave()
      forget()
      respond(given)
    }
    const forget = life.onEnd(() => close())
    const { pathname, search } = new URL(call.url)
    void app
      .inject({
        method: call.method,
        url: pathname + search,
        headers: { ...call.headers, 'x-request-id': `r${++requests}` },
        ...(call.body !== undefined && { payload: call.body }),
      })
      .then(({ statusCode: status, body }) => close({ status, body }))
  }
  let requests = 0

  function clientOf(from: Life): Client {
    const luck = chances(`network of ${from.name}`)
    return (call, timeoutMs) => {
      if (!from.alive) return never()
      const service = serviceOf(call.url)
      const route = `${from.name} to ${service}`
      const has = (trouble: Trouble) => faults.happens(trouble, route)
      const what = `${call.method} ${call.url.replace(/^http:\/\/\w+/, '')}`
      return new Promise((resolve, reject) => {
        let over = false
        const settle = (finish: () => void) => {
          if (over || !from.alive) return
          over = true
          cancel()
          finish()
        }
        const fail = (why: string) =>
          settle(() => {
            story.record(service, from.service, `${why}: ${what}`)
            reject(new HttpUnreachable(`${what}: ${why}`, undefined))
          })
        const cancel = laterIn(from, scheduler, timeoutMs, () => fail('no response in time'))

        const travelMs = (slow: Trouble) =>
          0.2 + luck.next() * 2 + (has(slow) ? luck.next() * SLOW_MS : 0)
        const returned = (response?: HttpResponse) => {
          const lost = response !== undefined && has('answer lost')
          if (lost) story.record(service, service, `the response is lost: ${what}`)
          if (lost) return
          laterIn(from, scheduler, travelMs('answer slow'), () => {
            if (response === undefined) return fail('the connection broke')
            settle(() => {
              story.record(
                service,
                from.service,
                `${response.status} ${response.body.slice(0, 60)}`,
              )
              resolve(response)
            })
          })
        }
        story.record(
          from.service,
          service,
          `${what}${call.body ? ` ${call.body.slice(0, 60)}` : ''}`,
        )
        if (has('call lost')) return story.record(from.service, service, `lost: ${what}`)
        // Once the request is in flight, it arrives even if the caller dies.
        scheduler.after(travelMs('call slow'), () => serve(service, call, returned))
        if (!has('call twice')) return
        scheduler.after(travelMs('call slow') + luck.next() * 200, () => {
          story.record(from.service, service, `duplicate: ${what}`)
          serve(service, call, returned)
        })
      })
    }
  }

  return {
    clientOf,
    mount(life, app) {
      const all = mounted.get(life.service as ServiceName) ?? []
      mounted.set(life.service as ServiceName, [
        ...all.filter((one) => one.life.alive),
        { life, app },
      ])
    },
  }
}
