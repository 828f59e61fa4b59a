/**
 * Keeps secrets out of log lines, standard error, problem documents, dead letters, and the last error of an
 * outbox row. Drivers and parsers quote their input in error messages. A secret is therefore masked wherever
 * its value occurs, and not only in fields with certain names.
 */
const MASK = '***'
/** Shorter secrets are not masked, because they could occur in ordinary words. */
const MIN_SECRET_LENGTH = 4
/** The credentials in a URL are searched for within this many characters after the `://`. */
const MAX_CREDENTIALS_LENGTH = 512
const SECRET_NAME = /PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|HEADERS$/

/**
 * Sorted by length, longest first, because masking a part of a secret first would leave the rest of the
 * secret unmasked.
 */
let secrets: readonly string[] = []

/**
 * Registers the secrets in an environment: the values of variables whose names mark them as secret, and
 * passwords in URLs.
 */
export function registerSecrets(environment: Readonly<Record<string, string | undefined>>): void {
  for (const [name, value = ''] of Object.entries(environment)) {
    // A name of a file is no secret, and errors about the file need it.
    if (name.endsWith('_FILE')) continue
    if (SECRET_NAME.test(name)) registerSecret(value)
    else if (value.includes('://')) registerPasswords(value)
  }
}

/** Registers a secret, and the parts of it that an error message may quote by themselves. */
export function registerSecret(value: string): void {
  add(value)
  // If the secret is a list of headers, the parts are the value of each header, and each token without its
  // scheme.
  for (const part of value.split(/[,=\s]+/)) if (part.length >= 8) add(part)
  registerPasswords(value)
}

/** Registers the password of a URL, even if its characters make the URL invalid. */
function registerPasswords(value: string): void {
  const start = value.indexOf('://')
  const end = value.lastIndexOf('@')
  const colon = value.indexOf(':', start + 3)
  if (start >= 0 && colon >= 0 && colon < end) {
    add(value.slice(start + 3, end))
    add(value.slice(colon + 1, end))
    // Parsers split a password at these characters, and may quote a part of the password as a host or a port.
    for (const part of value.slice(colon + 1, end).split(/[/@#?%:]/)) add(part)
  }
  for (const [, password] of value.matchAll(/[?&]password=([^&#]*)/gi)) add(password ?? '')
}

function add(secret: string): void {
  const forms = [secret, encodeURIComponent(secret), encodeURI(secret), decoded(secret)]
  for (const form of forms) {
    for (const variant of [form, JSON.stringify(form).slice(1, -1), btoa(toByteString(form))]) {
      if (variant.length < MIN_SECRET_LENGTH || secrets.includes(variant)) continue
      secrets = [...secrets, variant].sort((a, b) => b.length - a.length)
    }
  }
}

/** Returns the text with all registered secrets and the credentials of all URLs masked. */
export function redact(text: string): string {
  let redacted = text
  for (const secret of secrets) redacted = redacted.replaceAll(secret, MASK)
  return withoutCredentials(redacted)
}

/** Masks credentials in one pass, because a regular expression would take quadratic time on hostile text. */
function withoutCredentials(text: string): string {
  const pieces: string[] = []
  let done = 0
  for (let at = text.indexOf('://'); at >= 0; at = text.indexOf('://', at + 3)) {
    const start = at + 3
    const candidate = text.slice(start, start + MAX_CREDENTIALS_LENGTH)
    const authority = candidate.slice(0, candidate.search(/[\s"'/?#\\]|$/))
    const end = authority.lastIndexOf('@')
    if (end < 0) continue
    pieces.push(text.slice(done, start), MASK)
    done = start + end
  }
  return pieces.length === 0 ? text : pieces.join('') + text.slice(done)
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** The UTF-8 bytes of the text, one character per byte, as `btoa` requires. */
function toByteString(text: string): string {
  return Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join('')
}
