//! The protocols that an endpoint of the mesh speaks, by the name that QUIC negotiates (ALPN).

/// The one protocol that a stranger may speak; see `hello`.
pub(super) const HELLO_ALPN: &[u8] = b"lattice/hello/1";
/// Statuses and sync sessions, between members.
pub(super) const SYNC_ALPN: &[u8] = b"lattice/sync/1";
/// Gossip, between members. A name of its own: other programs that use iroh-gossip do not join.
pub(super) const GOSSIP_ALPN: &[u8] = b"lattice/gossip/1";
