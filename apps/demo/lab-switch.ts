import type { Client } from './client.ts'

/** The part of an all-in-one program that switches its services off and on. */
export interface LabSwitch {
  /** Switches the service off, does the work, and switches the service on again, even if the work fails. */
  whileOff<Result>(service: LabService, work: () => Promise<Result>): Promise<Result>
}

/** The header that shows that a request does not come from a page on another site. */
const LAB = { 'x-trifold-lab': 'true' }

type LabService = 'billing' | 'notification'

/**
 * Returns the lab, or a sentence that says why the program has none. Throws if a service is already switched
 * off.
 */
export async function openLab(client: Client): Promise<LabSwitch | string> {
  const { status, body } = await client.call('GET', '/lab/services', { headers: LAB })
  if (status === 403)
    return 'The services of this program can be switched off only from its own machine'
  if (status !== 200)
    return 'The services of this program cannot be switched off (LAB=false, or not the all-in-one program)'
  for (const [name, running] of Object.entries(body as Record<string, boolean>)) {
    if (running) continue
    const start = `curl -X POST -H 'x-trifold-lab: true' ${client.baseUrl}/lab/services/${name}/start`
    throw new Error(`${name} is switched off; switch it on first: ${start}`)
  }

  async function setService(service: LabService, action: 'stop' | 'start'): Promise<void> {
    const path = `/lab/services/${service}/${action}`
    const response = await client.call('POST', path, { headers: LAB, uninterrupted: true })
    if (response.status !== 200) throw new Error(`POST ${path} failed: ${response.status}`)
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
