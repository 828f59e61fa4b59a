/** How long the lease of a lane lasts by the database's clock: how long the rows of a dead instance wait. */
export const LEASE_MS = 10_000
/** Milliseconds between renewals. A lease survives two that fail. */
export const RENEW_MS = 2_500
/** How long a notification proves that there are peers. A new peer may not have claimed its lanes yet. */
export const PEER_HEARD_MS = 10_000
/** Poll interval with peers: a peer may have written rows into our lanes and died before it notified us. */
export const POLL_WITH_PEERS_MS = 1_000
/** Poll interval without peers: only a commit that succeeded while its response was lost leaves rows unnoticed. */
export const POLL_ALONE_MS = 5_000
