//! The status of a peer, for people.

use std::time::Duration;

use crate::{
    id::{Author, StoreId},
    net::{address::Addresses, error::PeerError},
};

/// The status of a peer, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Key of the peer.
    pub node: Author,
    /// True while there is a connection on which it was heard within `PEER_SILENT_MAX`.
    pub online: bool,
    /// When it was last heard of, ms since 1970. 0 if it was not since the start.
    pub seen_ms: u64,
    /// Its addresses, as it reported them last.
    pub addresses: Addresses,
    /// Round-trip time of the path that its connection uses. `None` without a connection.
    pub rtt: Option<Duration>,
    /// True when the path goes through a relay.
    pub relayed: bool,
    /// Milliseconds that its clock is ahead of the one here; negative when it is behind.
    pub skew_ms: i64,
    /// Entries of all stores here that it has not acknowledged as on disk. `None` before its first
    /// acks.
    pub behind: Option<u64>,
    /// Entries that it has acknowledged as on disk and that are not here. `None` before its first
    /// acks.
    pub ahead: Option<u64>,
    /// The last error. `None` after a connection or a sync went well, and if the peer cannot be
    /// reached because it has stopped.
    pub error: Option<PeerError>,
    /// Stores of which it has signed another state than that of this node, for the same entries; see
    /// [`Net::divergences`](crate::net::Net::divergences).
    pub diverged: Vec<StoreId>,
    /// Messages since the start that no honest peer sends.
    pub strikes: u32,
    /// The text of the last of them.
    pub misbehaved: Option<String>,
    /// Time for which it is still shut out because of them. `None` when it is not.
    pub shut_out: Option<Duration>,
}
