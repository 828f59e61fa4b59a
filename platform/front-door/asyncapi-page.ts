import { type AsyncApiMessage, asyncApiDocument } from '../../contracts/asyncapi.ts'

/**
 * A static page that shows the AsyncAPI document. It loads nothing, has no scripts, and follows the
 * reader's light or dark theme. `jsonAddress` is the address of the document itself.
 */
export function asyncApiPage(jsonAddress: string): string {
  const { info, channels, operations, components } = asyncApiDocument()
  const rows = Object.values(operations).map((operation) => {
    const names = operation.messages.map(({ $ref }) => code(lastPart($ref))).join(' ')
    return `<tr><td>${escapeHtml(operation.title)}</td><td>${names}</td><td>${escapeHtml(operation.summary)}</td></tr>`
  })
  const sections = Object.entries(channels).map(([name, channel]) => {
    const messages = Object.keys(channel.messages).map((key) =>
      messageArticle(components.messages[key]!),
    )
    return `<section id="${escapeHtml(name)}"><h2>Topic ${code(channel.address)}</h2>
<p>${escapeHtml(channel.summary)} Key: ${code('accountId')}.</p>
${messages.join('\n')}</section>`
  })
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(info.title)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>${escapeHtml(info.title)} <small>${escapeHtml(info.version)}</small></h1>
<p>${escapeHtml(info.description)}</p>
<p><a href="${escapeHtml(jsonAddress)}">The AsyncAPI 3.0 document as JSON</a></p>
<section id="operations"><h2>Operations</h2>
<div class="wide"><table><thead><tr><th>Operation</th><th>Messages</th><th>Purpose</th></tr></thead>
<tbody>${rows.join('\n')}</tbody></table></div></section>
${sections.join('\n')}
<section id="headers"><h2>Headers</h2>
<p>Readers must accept messages without them.</p>
${fieldTable(components.schemas.Headers)}</section>
</main>
</body>
</html>
`
}

function messageArticle(message: AsyncApiMessage): string {
  const example = message.examples[0]!
  return `<article id="${message.name}"><h3>${code(message.name)}</h3>
<p>${escapeHtml(message.summary)}</p>
${fieldTable(message.payload)}
<p>Example body</p>
<pre>${escapeHtml(JSON.stringify(example.payload, null, 2))}</pre>
<details><summary>Example headers</summary>
<pre>${escapeHtml(JSON.stringify(example.headers, null, 2))}</pre></details></article>`
}

/** The members of a JSON schema that the tables show. */
interface FieldSchema {
  readonly type?: string
  readonly format?: string
  readonly const?: unknown
  readonly enum?: readonly unknown[]
  readonly minimum?: number
  readonly description?: string
}

function fieldTable(schema: object): string {
  const { properties = {} } = schema as { properties?: Record<string, FieldSchema> }
  const rows = Object.entries(properties).map(
    ([name, field]) =>
      `<tr><td>${code(name)}</td><td>${fieldType(field)}</td><td>${escapeHtml(field.description ?? '')}</td></tr>`,
  )
  return `<div class="wide"><table><thead><tr><th>Field</th><th>Type</th><th></th></tr></thead>
<tbody>${rows.join('\n')}</tbody></table></div>`
}

function fieldType(field: FieldSchema): string {
  if (field.const !== undefined) return code(JSON.stringify(field.const))
  if (field.enum) return field.enum.map((value) => code(JSON.stringify(value))).join(' ')
  const format = field.format ? `, ${field.format}` : ''
  const minimum = field.minimum === undefined ? '' : `, at least ${field.minimum}`
  return escapeHtml(`${field.type ?? 'any'}${format}${minimum}`)
}

function lastPart(reference: string): string {
  return reference.slice(reference.lastIndexOf('/') + 1)
}

function code(text: string): string {
  return `<code>${escapeHtml(text)}</code>`
}

function escapeHtml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
}

const STYLE = `
:root { color-scheme: light dark; --line: light-dark(#d5d9de, #3a4048);
  --soft: light-dark(#f4f6f8, #1d2126); --link: light-dark(#0b57d0, #8ab4f8) }
body { margin: 0; background: light-dark(#fff, #14171a); color: light-dark(#1c2024, #e3e6e9);
  font: 16px/1.5 system-ui, sans-serif }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem }
h1 small { font-weight: normal; font-size: 1rem }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem }
a { color: var(--link) }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem;
  border-bottom: 1px solid var(--line) }
code, pre { font: .9em/1.45 ui-monospace, monospace }
code { background: var(--soft); padding: .1em .3em; border-radius: 4px }
pre { background: var(--soft); padding: .75rem; border-radius: 6px; overflow-x: auto }
`
