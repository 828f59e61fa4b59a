/** Who may call a route. Every route declares it, and it is enforced if callers are authenticated (AUTH=jwt). */

/** What the scopes of a token allow, for customers and for operators. */
export const SCOPES = {
  'orders:read': 'read own orders',
  'orders:write': 'place and cancel own orders',
  'accounts:read': 'read the own account, its entries and payments',
  'accounts:write': 'open the own account and, if CUSTOMER_DEPOSITS is true, deposit',
  'payments:write': 'pay from the own account and cancel own payments',
  'notices:read': 'read own notices and the own contact',
  'notices:write': 'change the own contact and remove own notices',
  'deposits:write': 'deposit to any account, for payment providers and operators',
  'operator:read': 'read metrics, dead letters, outboxes, waiting orders and all notices',
  'operator:write': 'replay and remove dead letters, and remove all notices',
} as const
export type Scope = keyof typeof SCOPES

/** The scopes of a token for a customer. */
export const CUSTOMER_SCOPES = [
  'orders:read',
  'orders:write',
  'accounts:read',
  'accounts:write',
  'payments:write',
  'notices:read',
  'notices:write',
] as const satisfies readonly Scope[]

export type ServiceName = 'order' | 'billing' | 'notification'

const SERVICE_SCOPE = 'service:'
/** The scope that marks a token as that of a service. The issuer must grant it to that service only. */
export const serviceScope = (name: ServiceName) => `${SERVICE_SCOPE}${name}`

/** The service that these scopes name. */
export function serviceOf(scopes: ReadonlySet<string>): ServiceName | undefined {
  return (['order', 'billing', 'notification'] as const).find((name) =>
    scopes.has(serviceScope(name)),
  )
}

/** An authenticated caller. */
export interface Principal {
  readonly issuer: string
  readonly subject: string
  /** The profile and account of a customer. */
  readonly profileId: string
  readonly scopes: ReadonlySet<string>
  /** Set if the caller is one of our services. */
  readonly service: ServiceName | undefined
}

/** The part of a request that names the profile or account that it is about, such as `params/id`. */
export type OwnPart = `${'params' | 'query' | 'body'}/${string}`

export type Grant =
  | { readonly role: 'customer'; readonly scope: Scope; readonly own: OwnPart | undefined }
  | { readonly role: 'service'; readonly names: readonly ServiceName[] }
  | { readonly role: 'operator'; readonly scope: Scope }

/** A caller needs one of the grants. */
export type Access = 'public' | readonly Grant[]

/**
 * Customers with the scope. `own` must be the customer's own profile. Without it, the route's handler checks what
 * belongs to the customer.
 */
export const customer = (scope: Scope, own?: OwnPart): Grant => ({ role: 'customer', scope, own })
export const service = (...names: readonly ServiceName[]): Grant => ({ role: 'service', names })
/** Operators and other clients whose scope is not limited to a profile. */
export const operator = (scope: Scope): Grant => ({ role: 'operator', scope })

/** The first grant that the principal satisfies. A grant without a limit to own data comes first. */
export function grantFor(
  access: readonly Grant[],
  { scopes, service: name }: Principal,
): Grant | undefined {
  const granted = access.filter((grant) =>
    grant.role === 'service'
      ? name !== undefined && grant.names.includes(name)
      : scopes.has(grant.scope),
  )
  return granted.find(({ role }) => role !== 'customer') ?? granted[0]
}

/** The scopes of which a caller needs one. */
export function scopesOf(access: readonly Grant[]): string[] {
  return access.flatMap((grant) =>
    grant.role === 'service' ? grant.names.map(serviceScope) : [grant.scope],
  )
}
