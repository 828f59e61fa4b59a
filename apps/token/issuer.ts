import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { exportJWK, generateKeyPair, importJWK, type JWK, SignJWT } from 'jose'
import { DEVELOPMENT_ISSUER } from '../../platform/auth/config.ts'

/** The development issuer: its key pair is in two files, of which the program reads the public one. */
export interface DevelopmentIssuer {
  /** The file for AUTH_JWKS_FILE. */
  readonly publicFile: string
  sign(token: TokenRequest): Promise<string>
}

export interface TokenRequest {
  readonly subject: string
  readonly scope: string
  readonly audience: string
  readonly lifetimeSeconds: number
}

const ALGORITHM = 'ES256'

/** Opens the issuer in this folder, and creates its key if there is none. */
export async function openDevelopmentIssuer(folder: string): Promise<DevelopmentIssuer> {
  await mkdir(folder, { recursive: true })
  const publicFile = join(folder, 'jwks.json')
  const jwk = await keyIn(join(folder, 'private-key.json'))
  const { d: _, ...published } = jwk
  await writeFile(publicFile, `${JSON.stringify({ keys: [published] })}\n`)
  const key = await importJWK(jwk, ALGORITHM)
  return {
    publicFile,
    sign: ({ subject, scope, audience, lifetimeSeconds }) =>
      new SignJWT({ scope })
        .setProtectedHeader({ alg: ALGORITHM, kid: jwk.kid as string })
        .setIssuer(DEVELOPMENT_ISSUER)
        .setSubject(subject)
        .setAudience(audience)
        .setIssuedAt()
        .setExpirationTime(`${lifetimeSeconds} s`)
        .sign(key),
  }
}

async function keyIn(file: string): Promise<JWK> {
  const { privateKey } = await generateKeyPair(ALGORITHM, { extractable: true })
  const jwk = {
    ...(await exportJWK(privateKey)),
    kid: crypto.randomUUID(),
    alg: ALGORITHM,
    use: 'sig',
  }
  try {
    // Fails if the file exists, so that two runs at once agree on one key.
    await writeFile(file, `${JSON.stringify(jwk)}\n`, { flag: 'wx', mode: 0o600 })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  return JSON.parse(await readFile(file, 'utf8'))
}
