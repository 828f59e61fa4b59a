/**
 * Keeps secrets out of output: log lines, standard error, problem documents, dead letters, the last
 * error of an outbox row. Errors of drivers and parsers quote what they were given, so masking is by
 * value, wherever a value turns up, and not by the name of a field.
 */
const MASK = '***'
/** A shorter text would turn up in ordinary words. */
const MIN_SECRET_LENGTH = 4
/** Credentials in a URL are looked for within so many characters of its `://`. */
const MAX_CREDENTIALS_LENGTH = 512
const SECRET_NAME = /PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|HEADERS$/

/** The longest first: masking a part of a secret must not leave the rest of it behind. */
let secrets: readonly string[] = []

/** Registers the secrets of an environment, by the names of its variables and the URLs among their values. */
export function registerSecrets(environment: Readonly<Record<string, string | undefined>>): void {
  for (const [name, value = ''] of Object.entries(environment)) {
    if (SECRET_NAME.test(name)) registerSecret(value)
    else if (value.includes('://')) registerPasswords(value)
  }
}

/** Registers a secret, with the parts of it that an error may quote alone. */
export function registerSecret(value: string): void {
  add(value)
  // A list of headers: the value of each, and a token without its scheme.
  for (const part of value.split(/[,=\s]+/)) if (part.length >= 8) add(part)
  registerPasswords(value)
}

/** The password of a URL, which may contain any character and so break the URL. */
function registerPasswords(value: string): void {
  const start = value.indexOf('://')
  const end = value.lastIndexOf('@')
  const colon = value.indexOf(':', start + 3)
  if (start >= 0 && colon >= 0 && colon < end) {
    add(value.slice(start + 3, end))
    add(value.slice(colon + 1, end))
    // Parsers cut a password at these, and quote what is left as a host or a port.
    for (const part of value.slice(colon + 1, end).split(/[/@#?%:]/)) add(part)
  }
  for (const [, password] of value.matchAll(/[?&]password=([^&#]*)/gi)) add(password ?? '')
}

function add(secret: string): void {
  const forms = [secret, encodeURIComponent(secret), encodeURI(secret), decoded(secret)]
  for (const form of forms) {
    for (const written of [form, JSON.stringify(form).slice(1, -1), btoa(unescapeBytes(form))]) {
      if (written.length < MIN_SECRET_LENGTH || secrets.includes(written)) continue
      secrets = [...secrets, written].sort((a, b) => b.length - a.length)
    }
  }
}

/** The text without registered secrets, and without the credentials of any URL. */
export function redact(text: string): string {
  let redacted = text
  for (const secret of secrets) redacted = redacted.replaceAll(secret, MASK)
  return withoutCredentials(redacted)
}

/** In one pass: a regular expression would take quadratic time on hostile text. */
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

/** UTF-8 as one character for each byte, which is what `btoa` takes. */
function unescapeBytes(text: string): string {
  return Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join('')
}
