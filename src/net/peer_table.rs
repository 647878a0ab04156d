//! What is known of each peer: where it may be, whether it is there, how it behaves.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use iroh::endpoint::Connection;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{
    id::Author,
    limits::{ADDRESSES_KEEP_EVERY, ADDRESSES_MAX, PEER_CONNECTIONS_MAX, PEER_SYNCS_MAX},
    net::{address::Addresses, error::PeerError},
    protocol::peer::Strikes,
};

/// All peers of a node. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Peers(Arc<Mutex<BTreeMap<Author, Peer>>>);

#[derive(Debug)]
struct Peer {
    // On its own word.
    addresses: Addresses,
    // On somebody's word: tried besides, and never instead.
    hinted: Addresses,
    // What of `addresses` was said to be news last, and when.
    news: Option<(Addresses, Instant)>,
    // Newest last. Two when both sides dialled at once.
    connections: Vec<Connection>,
    seen_ms: u64,
    skew_ms: i64,
    error: Option<PeerError>,
    // Since the start.
    compared: Compared,
    strikes: Strikes,
    // What it did last that no honest peer does.
    misbehaved: Option<String>,
    // Room for syncs that it opens.
    syncs: Arc<Semaphore>,
    // Wakes the peer's task while it is not connected: a connection, an address.
    wake: Arc<Notify>,
    // Wakes it while it is: there is something to sync.
    wanted: Arc<Notify>,
    // Told of each connection.
    came: Arc<Notify>,
}

/// What came of the first sync with a peer since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Compared {
    /// It is not over.
    #[default]
    NotYet,
    /// It did not come to a good end.
    Failed,
    /// It did not come to a good end because a store of this node could not be read or written.
    Unreadable,
    /// What the peer has of all stores is here.
    Done,
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
    /// Entries that it has on disk and this node lacks; `None`: it has said nothing yet.
    pub ahead: Option<u64>,
    /// What went wrong last; `None` after it went well.
    pub error: Option<PeerError>,
    /// Messages that no honest peer sends.
    pub strikes: u32,
    /// What the last of them was.
    pub misbehaved: Option<String>,
    /// For how long it is still shut out because of them; `None`: it is not.
    pub shut_out: Option<Duration>,
}

impl Peers {
    /// Returns the newest connection to `node` that is open.
    pub(super) fn connection(&self, node: &Author) -> Option<Connection> {
        // Also asked of nodes that somebody made up: nothing is kept of those.
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        peers.get_mut(node)?.live().last().cloned()
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
            peer.came.notify_waiters();
            true
        })
    }

    /// Waits for the next connection to `node`.
    pub(super) async fn comes(&self, node: &Author) {
        let came = self.with(node, |peer| Arc::clone(&peer.came));
        let came = came.notified();
        if !self.is_connected(node) {
            came.await;
        }
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

    /// Returns all places where `node` may be, also on the word of others: whoever answers there
    /// must have its key.
    pub(super) fn places(&self, node: &Author) -> Addresses {
        self.with(node, |peer| {
            let mut places = peer.addresses.clone();
            let room = ADDRESSES_MAX.saturating_sub(places.direct.len());
            places.direct.extend(peer.hinted.direct.iter().take(room));
            places.relay = places.relay.or_else(|| peer.hinted.relay.clone());
            places
        })
    }

    /// Says where `node` is, on its own word. True when that is news to be written down: not more
    /// often than disks like.
    pub(super) fn found(&self, node: &Author, addresses: Addresses) -> bool {
        self.with(node, |peer| {
            if addresses.is_empty() {
                return false;
            }
            peer.addresses = addresses;
            let is_news = match &peer.news {
                Some((known, at)) => {
                    *known != peer.addresses && at.elapsed() >= ADDRESSES_KEEP_EVERY
                }
                None => true,
            };
            if is_news {
                peer.news = Some((peer.addresses.clone(), Instant::now()));
            }
            is_news
        })
    }

    /// Says where `node` may be, on somebody's word: only what is not connected is looked for.
    pub(super) fn hint(&self, node: &Author, addresses: &Addresses) {
        self.with(node, |peer| {
            let is_known = [&peer.addresses, &peer.hinted].contains(&addresses);
            if peer.live().is_empty() && !addresses.is_empty() && !is_known {
                peer.hinted = addresses.clone();
                peer.wake.notify_one();
            }
        });
    }

    /// Begins to serve a sync that `node` opened, until the answer is dropped; `None`: it has too
    /// many.
    pub(super) fn begin_sync(&self, node: &Author) -> Option<OwnedSemaphorePermit> {
        let syncs = self.with(node, |peer| Arc::clone(&peer.syncs));
        syncs.try_acquire_owned().ok()
    }

    /// Notes that `node` was heard of, and its clock.
    pub(super) fn seen(&self, node: &Author, now_ms: u64, skew_ms: Option<i64>) {
        self.with(node, |peer| {
            peer.seen_ms = now_ms;
            peer.skew_ms = skew_ms.unwrap_or(peer.skew_ms);
        });
    }

    /// Notes that a sync with `node` went well.
    pub(super) fn synced(&self, node: &Author) {
        self.with(node, |peer| {
            peer.error = None;
            peer.compared = Compared::Done;
        });
    }

    /// Notes what went wrong.
    pub(super) fn failed(&self, node: &Author, error: PeerError) {
        self.with(node, |peer| {
            if peer.compared == Compared::NotYet {
                peer.compared = match error {
                    PeerError::Own { .. } => Compared::Unreadable,
                    _ => Compared::Failed,
                };
            }
            peer.error = Some(error);
        });
    }

    /// Returns what came of the first sync with `node`.
    pub(super) fn compared(&self, node: &Author) -> Compared {
        self.with(node, |peer| peer.compared)
    }

    /// Notes what no honest peer does. Returns how often that was, and the milliseconds for which
    /// the peer is shut out because of it.
    pub(super) fn strike(&self, node: &Author, what: &str) -> (u32, Option<u64>) {
        self.with(node, |peer| {
            let shut_out_ms = peer.strikes.strike();
            peer.misbehaved = Some(what.to_owned());
            (peer.strikes.count(), shut_out_ms)
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

    /// Returns the status of `node`, which is shut out for `shut_out_ms` more.
    pub(super) fn status(&self, node: &Author, shut_out_ms: Option<u64>) -> PeerStatus {
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
                ahead: None,
                error: peer.error.clone(),
                strikes: peer.strikes.count(),
                misbehaved: peer.misbehaved.clone(),
                shut_out: shut_out_ms.map(Duration::from_millis),
            }
        })
    }

    fn with<T>(&self, node: &Author, act: impl FnOnce(&mut Peer) -> T) -> T {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(peers.entry(*node).or_default())
    }
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            addresses: Addresses::default(),
            hinted: Addresses::default(),
            news: None,
            connections: Vec::new(),
            seen_ms: 0,
            skew_ms: 0,
            error: None,
            compared: Compared::NotYet,
            strikes: Strikes::default(),
            misbehaved: None,
            syncs: Arc::new(Semaphore::new(PEER_SYNCS_MAX)),
            wake: Arc::default(),
            wanted: Arc::default(),
            came: Arc::default(),
        }
    }
}

impl Peer {
    fn live(&mut self) -> &[Connection] {
        self.connections
            .retain(|connection| connection.close_reason().is_none());
        &self.connections
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Author = Author([1; 32]);

    fn at(text: &str) -> Addresses {
        Addresses {
            direct: [text.parse().unwrap()].into(),
            relay: None,
        }
    }

    #[test]
    fn n13_what_others_say_of_an_address_never_replaces_what_the_peer_said() {
        let peers = Peers::default();
        assert!(peers.found(&NODE, at("192.0.2.1:1")));
        for port in 0..100 {
            peers.hint(&NODE, &at(&format!("198.51.100.1:{port}")));
        }
        assert_eq!(peers.addresses(&NODE), at("192.0.2.1:1"));
        let places = peers.places(&NODE);
        let last = at("198.51.100.1:99");
        assert_eq!(places.direct.len(), 2, "the last hint, and its own word");
        assert!(places.direct.is_superset(&last.direct));
    }

    #[test]
    fn n8_a_peer_that_moves_all_the_time_is_not_written_down_each_time() {
        let peers = Peers::default();
        let written = (1..100).filter(|port| peers.found(&NODE, at(&format!("192.0.2.1:{port}"))));
        assert_eq!(written.count(), 1);
        assert_eq!(peers.addresses(&NODE), at("192.0.2.1:99"));
    }

    #[test]
    fn n8_nothing_is_kept_of_nodes_that_somebody_made_up() {
        let peers = Peers::default();
        for byte in 0..=255 {
            assert!(!peers.is_connected(&Author([byte; 32])));
        }
        assert!(peers.0.lock().unwrap().is_empty());
    }

    #[test]
    fn n8_syncs_that_a_peer_opens_are_counted_and_given_back() {
        let peers = Peers::default();
        let slots: Vec<_> = (0..PEER_SYNCS_MAX)
            .map(|_| peers.begin_sync(&NODE))
            .collect();
        assert!(slots.iter().all(Option::is_some));
        assert!(peers.begin_sync(&NODE).is_none());
        assert!(peers.begin_sync(&Author([2; 32])).is_some());
        drop(slots);
        assert!(peers.begin_sync(&NODE).is_some());
    }
}
