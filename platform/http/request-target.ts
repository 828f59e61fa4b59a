/** Reads the target of an HTTP request. Everything here takes time linear in its input. */

/** The path without its query. */
export function pathWithoutQuery(target: string): string {
  const end = target.search(/[?#]/)
  return end === -1 ? target : target.slice(0, end)
}

/** The requested path without the prefix, the query and trailing slashes. */
export function pathOf(target: string, basePath: string): string {
  return withoutTrailingSlashes(pathWithoutQuery(withoutPrefix(target, basePath)))
}

/** The target as a service's routes know it: the query stays. */
export function withoutPrefix(target: string, basePath: string): string {
  if (basePath === '' || !target.startsWith(basePath)) return target
  const rest = target.slice(basePath.length)
  if (rest === '' || rest.startsWith('?')) return `/${rest}`
  return rest.startsWith('/') ? rest : target
}

/** A regular expression such as /\/+$/ is quadratic: it starts over at each slash of a run. */
function withoutTrailingSlashes(path: string): string {
  let end = path.length
  while (end > 1 && path[end - 1] === '/') end -= 1
  return path.slice(0, end)
}
