/** Functions on the target of an HTTP request. All of them take time linear in the length of the target. */

/** The path without its query. */
export function pathWithoutQuery(target: string): string {
  const end = target.search(/[?#]/)
  return end === -1 ? target : target.slice(0, end)
}

/** The path without the prefix, the query and trailing slashes. */
export function pathOf(target: string, basePath: string): string {
  return withoutTrailingSlashes(pathWithoutQuery(withoutPrefix(target, basePath)))
}

/** The target without the prefix, as the routes of a service expect it, including the query. */
export function withoutPrefix(target: string, basePath: string): string {
  if (basePath === '' || !target.startsWith(basePath)) return target
  const rest = target.slice(basePath.length)
  if (rest === '' || rest.startsWith('?')) return `/${rest}`
  return rest.startsWith('/') ? rest : target
}

/**
 * A loop, because a regular expression such as /\/+$/ would restart at each slash of a run and take quadratic
 * time.
 */
function withoutTrailingSlashes(path: string): string {
  let end = path.length
  while (end > 1 && path[end - 1] === '/') end -= 1
  return path.slice(0, end)
}
