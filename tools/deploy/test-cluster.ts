import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Cluster, NAMESPACE, STORY } from './cluster-story.ts'
import { type ControlPlane, startControlPlane } from './control-plane.ts'
import { findControlPlane, findEtcd, findHelm, findKwok, tryCommand } from './deploy-tools.ts'

/**
 * Installs the charts on a Kubernetes control plane, as the README describes, and checks upgrade, rollback,
 * eviction, uninstall, and that faults are reported. The API server, the controllers and the scheduler are
 * real. The nodes are fake, so no container runs, and probes, network policies and ingress are not tested.
 */
const NODES = ['node-1', 'node-2']

/** Returns whether all steps passed. */
async function testCluster(stopped: AbortSignal): Promise<boolean> {
  const [helm, kwok, control, etcd] = [
    await findHelm(),
    await findKwok(),
    await findControlPlane(),
    await findEtcd(),
  ]
  for (const tool of [helm, kwok, control, etcd]) {
    if (tool.kind === 'none') throw new Error(tool.why)
  }
  assert.ok(helm.kind === 'tool' && kwok.kind === 'tool' && etcd.kind === 'tool')
  assert.ok(control.kind === 'programs')
  const folder = mkdtempSync(join(tmpdir(), 'trifold-cluster-'))
  let plane: ControlPlane | undefined
  const close = async () => {
    await plane?.close()
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    const startedMs = performance.now()
    plane = await startControlPlane({
      folder,
      programs: control.programs,
      etcd: etcd.command,
      kwok: kwok.command,
      nodes: NODES,
    })
    const { gitVersion } = await plane.api.get('/version')
    printRow('ok', startedMs, `Kubernetes ${gitVersion}`, `${NODES.length} nodes`)
    return await runStory({ ...plane, folder, helm: helmIn(folder, helm.command, plane) }, stopped)
  } finally {
    await close()
  }
}

/** Runs the steps in order. Each builds on the previous ones, so the first failure ends the run. */
async function runStory(cluster: Cluster, stopped: AbortSignal): Promise<boolean> {
  for (const [index, { name, run }] of STORY.entries()) {
    stopped.throwIfAborted()
    const startedMs = performance.now()
    try {
      printRow('ok', startedMs, name, await run(cluster))
    } catch (error) {
      printRow('FAILED', startedMs, name, (error as Error).message)
      for (const { name: left } of STORY.slice(index + 1)) console.log(`not reached     ${left}`)
      return false
    }
  }
  return true
}

function printRow(result: 'ok' | 'FAILED', startedMs: number, name: string, figures: string): void {
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1).padStart(6)
  console.log(`${result.padEnd(7)}${seconds} s  ${name} (${figures})`)
}

/**
 * A function that runs helm with separate folders, so that the user's helm configuration is neither read nor
 * changed.
 */
function helmIn(folder: string, command: string, { kubeconfig }: ControlPlane): Cluster['helm'] {
  const homes = ['CACHE', 'CONFIG', 'DATA'].map(
    (name) => `HELM_${name}_HOME=${folder}/helm-${name}`,
  )
  return async (args, namespace = NAMESPACE) => {
    const flags = ['--kubeconfig', kubeconfig, '--namespace', namespace]
    const { ok, output } = await tryCommand('env', [...homes, command, ...args, ...flags])
    if (!ok) throw new Error(`helm ${args.slice(0, 2).join(' ')}: ${output.trim()}`)
    return output
  }
}

const stopped = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => stopped.abort(new Error(`interrupted by ${name}`)))
}
try {
  if (!(await testCluster(stopped.signal))) process.exitCode = 1
} catch (error) {
  console.error(`test:cluster: ${(error as Error).message}`)
  process.exitCode = 1
}
