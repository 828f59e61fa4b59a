import type { Client } from './client.ts'

/** The lab of an all-in-one program, which switches its services off and on. */
export interface LabSwitch {
  /** Does the work while the service is off, and then switches it on again, even if the work fails. */
  whileOff<Result>(service: LabService, work: () => Promise<Result>): Promise<Result>
}

/** Proves that the call does not come from a page in a browser. */
const LAB = { 'x-trifold-lab': 'true' }

type LabService = 'billing' | 'notification'

/** The lab, or a sentence that says why there is none. Throws if a service is off already. */
export async function openLab(client: Client): Promise<LabSwitch | string> {
  const { status, body } = await client.call('GET', '/lab/services', { headers: LAB })
  if (status === 403) return 'This program lets its services be switched only from its own machine'
  if (status !== 200)
    return 'This program has no switches for its services (LAB=false, or not the all-in-one program)'
  for (const [name, running] of Object.entries(body as Record<string, boolean>)) {
    if (running) continue
    const start = `curl -X POST -H 'x-trifold-lab: true' ${client.baseUrl}/lab/services/${name}/start`
    throw new Error(`${name} is switched off; switch it on first: ${start}`)
  }

  async function setService(service: LabService, action: 'stop' | 'start'): Promise<void> {
    const path = `/lab/services/${service}/${action}`
    const answer = await client.call('POST', path, { headers: LAB, uninterrupted: true })
    if (answer.status !== 200) throw new Error(`POST ${path} failed: ${answer.status}`)
  }

  return {
    async whileOff(service, work) {
      try {
        await setService(service, 'stop')
        return await work()
      } finally {
        await setService(service, 'start')
      }
    },
  }
}
