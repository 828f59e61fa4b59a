import type { Client } from './client.ts'

/** The lab of an all-in-one program: its services can be switched off and on. */
export interface LabSwitch {
  /** Does the work while the service is off; it is on again afterwards, whatever happened. */
  whileOff<Result>(service: LabService, work: () => Promise<Result>): Promise<Result>
}

/** Without it the program takes the call for one of a page in a browser. */
const LAB = { 'x-trifold-lab': 'true' }

type LabService = 'billing' | 'notification'

/** The lab, or the sentence that says why there is none. Throws where something is off already. */
export async function openLab(client: Client): Promise<LabSwitch | string> {
  const { status, body } = await client.call('GET', '/lab/services', { headers: LAB })
  if (status === 403) return 'This program lets nobody switch its services but from its own machine'
  if (status !== 200)
    return 'This program has no switches for its services (LAB=false, or not all in one)'
  for (const [name, running] of Object.entries(body as Record<string, boolean>)) {
    if (running) continue
    const start = `curl -X POST -H 'x-trifold-lab: true' ${client.baseUrl}/lab/services/${name}/start`
    throw new Error(`${name} is switched off; switch it on first: ${start}`)
  }

  async function turn(service: LabService, action: 'stop' | 'start'): Promise<void> {
    const path = `/lab/services/${service}/${action}`
    const answer = await client.call('POST', path, { headers: LAB, uninterrupted: true })
    if (answer.status !== 200) throw new Error(`POST ${path} was answered ${answer.status}`)
  }

  return {
    async whileOff(service, work) {
      try {
        await turn(service, 'stop')
        return await work()
      } finally {
        await turn(service, 'start')
      }
    },
  }
}
