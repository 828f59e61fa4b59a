import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'

/** The paths of a certificate and its private key, as PEM files. */
export interface Certificate {
  readonly cert: string
  readonly key: string
}

/** A certificate authority for one stack or test. It is worth nothing outside of it. */
export interface Authority {
  /** The path of its own certificate. */
  readonly ca: string
  /**
   * The certificate of a server or client, by default for `localhost`, 127.0.0.1 and ::1. It is created at the first
   * call with this name.
   */
  issue(name: string, hosts?: string): Certificate
}

const DAYS = '365'
const CURVE = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']

/** Creates the authority in the folder, or opens the one that is there. Needs the program `openssl`. */
export function openAuthority(folder: string): Authority {
  const at = (name: string) => join(resolve(folder), name)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const [ca, caKey] = [at('ca.pem'), at('ca.key')]
  if (!existsSync(ca)) {
    const constraints = ['-addext', 'basicConstraints=critical,CA:TRUE']
    const subject = ['-subj', '/CN=Trifold development CA', '-days', DAYS]
    openssl('req', '-x509', ...CURVE, ...subject, ...constraints, '-keyout', caKey, '-out', ca)
  }
  return {
    ca,
    issue(name, hosts = 'DNS:localhost,IP:127.0.0.1,IP:::1') {
      const [cert, key, request] = [at(`${name}.pem`), at(`${name}.key`), at(`${name}.csr`)]
      if (existsSync(cert)) return { cert, key }
      const extensions = at('extensions.conf')
      const usage = 'extendedKeyUsage=serverAuth,clientAuth'
      writeFileSync(extensions, `subjectAltName=${hosts}\n${usage}\n`)
      openssl('req', ...CURVE, '-subj', `/CN=${name}`, '-keyout', key, '-out', request)
      const signing = ['-CA', ca, '-CAkey', caKey, '-CAcreateserial', '-days', DAYS]
      openssl('x509', '-req', '-in', request, ...signing, '-extfile', extensions, '-out', cert)
      return { cert, key }
    },
  }
}

function openssl(...args: string[]): void {
  try {
    execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8' })
  } catch (cause) {
    const { code, stderr } = cause as NodeJS.ErrnoException & { stderr?: string }
    const why = code === 'ENOENT' ? 'it is not installed' : stderr?.trim()
    throw new Error(`openssl cannot create a certificate: ${why}`, { cause })
  }
}
