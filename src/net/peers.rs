//! What is known of each peer: where it may be, whether it is there, how it behaves.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use iroh::endpoint::Connection;
use tokio::sync::Notify;

use crate::{id::Author, limits::PEER_CONNECTIONS_MAX, net::endpoint::Addresses};

/// All peers of a node. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Peers(Arc<Mutex<BTreeMap<Author, Peer>>>);

#[derive(Debug, Default)]
struct Peer {
    addresses: Addresses,
    // Newest last. Two when both sides dialled at once.
    connections: Vec<Connection>,
    seen_ms: u64,
    skew_ms: i64,
    error: Option<String>,
    strikes: u32,
    // Wakes the peer's task while it is not connected: a connection, an address.
    wake: Arc<Notify>,
    // Wakes it while it is: there is something to sync.
    wanted: Arc<Notify>,
}

/// How a peer is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Which.
    pub node: Author,
    /// True while there is a connection.
    pub online: bool,
    /// When it was last heard of, ms since 1970; 0: never.
    pub seen_ms: u64,
    /// Where it may be found.
    pub addresses: Addresses,
    /// Round-trip time of the connection's path.
    pub rtt: Option<Duration>,
    /// True when the path goes through a relay.
    pub relayed: bool,
    /// What its clock is ahead of the one here, in ms.
    pub skew_ms: i64,
    /// Entries here that it has not said it has on disk; `None`: it has said nothing yet.
    pub behind: Option<u64>,
    /// What went wrong last; `None` after it went well.
    pub error: Option<String>,
    /// Messages that no honest peer sends.
    pub strikes: u32,
}

impl Peers {
    /// Returns the newest connection to `node` that is open.
    pub(super) fn connection(&self, node: &Author) -> Option<Connection> {
        self.with(node, |peer| peer.live().last().cloned())
    }

    /// True while there is a connection to `node`.
    pub(super) fn is_connected(&self, node: &Author) -> bool {
        self.connection(node).is_some()
    }

    /// Takes a new connection; false when there are too many.
    pub(super) fn connected(&self, node: &Author, connection: Connection, now_ms: u64) -> bool {
        self.with(node, |peer| {
            if peer.live().len() >= PEER_CONNECTIONS_MAX {
                return false;
            }
            peer.connections.push(connection);
            peer.seen_ms = now_ms;
            peer.error = None;
            peer.wake.notify_one();
            true
        })
    }

    /// Returns what wakes the task of `node`.
    pub(super) fn wake(&self, node: &Author) -> Arc<Notify> {
        self.with(node, |peer| Arc::clone(&peer.wake))
    }

    /// Returns what asks for a sync with `node`.
    pub(super) fn wanted(&self, node: &Author) -> Arc<Notify> {
        self.with(node, |peer| Arc::clone(&peer.wanted))
    }

    /// Returns where `node` may be found.
    pub(super) fn addresses(&self, node: &Author) -> Addresses {
        self.with(node, |peer| peer.addresses.clone())
    }

    /// Says where `node` is, on its own word. True when that is news.
    pub(super) fn found(&self, node: &Author, addresses: Addresses) -> bool {
        self.with(node, |peer| {
            let news = !addresses.is_empty() && peer.addresses != addresses;
            if news {
                peer.addresses = addresses;
            }
            news
        })
    }

    /// Says where `node` may be, on somebody's word: only what is not connected is looked for.
    pub(super) fn hint(&self, node: &Author, addresses: &Addresses) {
        self.with(node, |peer| {
            if peer.live().is_empty() && !addresses.is_empty() && peer.addresses != *addresses {
                peer.addresses = addresses.clone();
                peer.wake.notify_one();
            }
        });
    }

    /// Notes that `node` was heard of, and its clock.
    pub(super) fn seen(&self, node: &Author, now_ms: u64, skew_ms: Option<i64>) {
        self.with(node, |peer| {
            peer.seen_ms = now_ms;
            peer.skew_ms = skew_ms.unwrap_or(peer.skew_ms);
        });
    }

    /// Notes what went wrong.
    pub(super) fn failed(&self, node: &Author, error: String) {
        self.with(node, |peer| peer.error = Some(error));
    }

    /// Notes what no honest peer does; returns how often now.
    pub(super) fn strike(&self, node: &Author, what: &str) -> u32 {
        self.with(node, |peer| {
            peer.strikes = peer.strikes.saturating_add(1);
            peer.error = Some(what.to_owned());
            peer.strikes
        })
    }

    /// Returns the nodes that have a connection.
    pub(super) fn online(&self) -> Vec<Author> {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        peers
            .iter_mut()
            .filter_map(|(node, peer)| (!peer.live().is_empty()).then_some(*node))
            .collect()
    }

    /// Returns how `node` is.
    pub(super) fn status(&self, node: &Author) -> PeerStatus {
        self.with(node, |peer| {
            let connection = peer.live().last().cloned();
            let paths = connection.as_ref().map(|connection| {
                let paths = connection.paths();
                let selected = paths.iter().find(|path| path.is_selected());
                selected.map(|path| (path.rtt(), path.is_relay()))
            });
            let path = paths.flatten();
            PeerStatus {
                node: *node,
                online: connection.is_some(),
                seen_ms: peer.seen_ms,
                addresses: peer.addresses.clone(),
                rtt: path.map(|(rtt, _)| rtt),
                relayed: path.is_some_and(|(_, relayed)| relayed),
                skew_ms: peer.skew_ms,
                behind: None,
                error: peer.error.clone(),
                strikes: peer.strikes,
            }
        })
    }

    fn with<T>(&self, node: &Author, act: impl FnOnce(&mut Peer) -> T) -> T {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(peers.entry(*node).or_default())
    }
}

impl Peer {
    fn live(&mut self) -> &[Connection] {
        self.connections
            .retain(|connection| connection.close_reason().is_none());
        &self.connections
    }
}
