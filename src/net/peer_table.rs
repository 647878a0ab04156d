//! The peer table: addresses, connections, errors and strikes of each peer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use iroh::endpoint::Connection;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};

use crate::{
    id::Author,
    limits::{
        ADDRESSES_KEEP_EVERY, ADDRESSES_MAX, GOSSIP_WASTE_PER_S, GOSSIP_WASTE_RESERVE,
        PEER_CONNECTIONS_MAX, PEER_SYNCS_MAX, STATEMENTS_PER_S, STATEMENTS_RESERVE, STATUSES_PER_S,
        STATUSES_RESERVE, WISHES_PER_S, WISHES_RESERVE,
    },
    net::{address::Addresses, error::PeerError},
    protocol::peer::{Allowance, Rate, Strikes},
};

/// All peers of a node. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Peers(
    // A peer is added when something is noted about it, which happens only to nodes that are or
    // were let in, and stays until the net stops. Never held across an await; no other lock is
    // taken meanwhile.
    Arc<Mutex<BTreeMap<Author, Peer>>>,
);

#[derive(Debug)]
struct Peer {
    // As the peer itself reported them last, or the user gave them.
    addresses: Addresses,
    // As another node reported them last. Dialled in addition to `addresses`, never instead.
    hinted: Addresses,
    // The addresses that were last written to disk, and when. `None` before the first time.
    news: Option<(Addresses, Instant)>,
    // Newest last; closed ones are dropped by `live`. Two when both sides dialled at once, at most
    // PEER_CONNECTIONS_MAX.
    connections: Vec<Live>,
    // Changes when entries came that another instance of the node may be missing. Each connection
    // waits for it; dropped with the table.
    copies: Arc<watch::Sender<u64>>,
    // Wall clock of this node when the last message came, ms since 1970. 0 before the first one.
    seen_ms: u64,
    // Milliseconds that its clock is ahead, by its last status; `None` before the first one.
    skew_ms: Option<i64>,
    // Cleared by a connection and by a sync that went well.
    error: Option<PeerError>,
    // Outcome of the first sync since the start.
    compared: Compared,
    strikes: Strikes,
    // The text of its last strike.
    misbehaved: Option<String>,
    // Zero of the clock of `strikes` and of the allowances.
    began: Instant,
    // Statuses of it that are answered.
    statuses: Allowance,
    // Syncs that messages in gossip make this node wish for.
    wishes: Allowance,
    // True while a wish is put off. Set by `wish`, cleared by `wish_is_due`.
    is_put_off: bool,
    // Gossip messages that it delivered and that were of no use.
    waste: Allowance,
    // Acks and announcements in gossip that it has signed.
    statements: Allowance,
    // Locked while a status of it is answered.
    status_turn: Arc<tokio::sync::Mutex<()>>,
    // PEER_SYNCS_MAX permits, one for each sync that it has opened. Never closed.
    syncs: Arc<Semaphore>,
    // Notified by a connection, an address or a wish to sync. The peer's task waits for it while it
    // has no connection.
    wake: Arc<Notify>,
    // Notified when there is something to sync. The peer's task waits for it while it has a
    // connection.
    wanted: Arc<Notify>,
    // Notified of each new connection. Dials that are under way wait for it.
    came: Arc<Notify>,
}

/// A connection, and the start of the peer that it leads to.
#[derive(Debug)]
struct Live {
    connection: Connection,
    // Number of that start, by the peer's acks; `None` before its first status.
    instance: Option<u64>,
}

/// Outcome of the first sync with a peer since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Compared {
    /// It has not ended.
    #[default]
    NotYet,
    /// The peer was not reached, or the sync with it failed.
    Failed,
    /// It failed because a store of this node could not be read or written.
    Unreadable,
    /// All entries that the peer has of all stores are here.
    Done,
}

/// The time at which a wish of gossip to sync with a peer is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// At once.
    Now,
    /// After a while; the caller sees to it.
    Later,
    /// With an earlier wish that was put off.
    PutOff,
}

/// The status of a peer, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Key of the peer.
    pub node: Author,
    /// True while there is a connection.
    pub online: bool,
    /// When its last message came, ms since 1970. 0 if none came since the start.
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
    /// The last error. `None` after a connection or a sync went well.
    pub error: Option<PeerError>,
    /// Messages since the start that no honest peer sends.
    pub strikes: u32,
    /// The text of the last of them.
    pub misbehaved: Option<String>,
    /// Time for which it is still shut out because of them. `None` when it is not.
    pub shut_out: Option<Duration>,
}

impl Peers {
    /// Returns the newest connection to `node` that is open.
    pub(super) fn connection(&self, node: &Author) -> Option<Connection> {
        // Also asked about ids that a stranger made up: nothing is kept for those.
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = peers.get_mut(node)?.live().last()?;
        Some(newest.connection.clone())
    }

    /// True while there is a connection to `node`.
    pub(super) fn is_connected(&self, node: &Author) -> bool {
        self.connection(node).is_some()
    }

    /// Adds a new connection. False when the peer has `PEER_CONNECTIONS_MAX` already.
    pub(super) fn connected(&self, node: &Author, connection: Connection, now_ms: u64) -> bool {
        self.with(node, |peer| {
            if peer.live().len() >= PEER_CONNECTIONS_MAX {
                return false;
            }
            peer.connections.push(Live {
                connection,
                instance: None,
            });
            peer.seen_ms = now_ms;
            peer.error = None;
            peer.wake.notify_one();
            peer.came.notify_waiters();
            true
        })
    }

    /// Notes that the connection `id` of `node` leads to its start number `instance`.
    pub(super) fn runs(&self, node: &Author, id: usize, instance: u64) {
        self.with(node, |peer| {
            let mut lives = peer.connections.iter_mut();
            if let Some(live) = lives.find(|live| live.connection.stable_id() == id) {
                live.instance = Some(instance);
            }
        });
        self.wake_copies(node);
    }

    /// Wakes all connections of `node` if they lead to several instances of it: a copy of its data
    /// directory runs, too. What one of them writes here must reach the others at once, and gossip
    /// reaches one of them only.
    pub(super) fn wake_copies(&self, node: &Author) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(peer) = peers.get_mut(node) else {
            return;
        };
        let mut instances = peer.live().iter().filter_map(|live| live.instance);
        let first = instances.next();
        if instances.any(|instance| Some(instance) != first) {
            let news = &peer.copies;
            news.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Returns a receiver that changes when several instances of `node` may be out of step.
    pub(super) fn copies(&self, node: &Author) -> watch::Receiver<u64> {
        self.with(node, |peer| peer.copies.subscribe())
    }

    /// Waits until there is a connection to `node`. Cancel-safe.
    pub(super) async fn comes(&self, node: &Author) {
        let came = self.with(node, |peer| Arc::clone(&peer.came));
        let came = came.notified();
        if !self.is_connected(node) {
            came.await;
        }
    }

    /// Returns the wake of `node` for its task while it has no connection.
    pub(super) fn wake(&self, node: &Author) -> Arc<Notify> {
        self.with(node, |peer| Arc::clone(&peer.wake))
    }

    /// Returns the wake of `node` for its task while it has a connection.
    pub(super) fn wanted(&self, node: &Author) -> Arc<Notify> {
        self.with(node, |peer| Arc::clone(&peer.wanted))
    }

    /// Returns the addresses of `node` by its own report.
    pub(super) fn addresses(&self, node: &Author) -> Addresses {
        self.with(node, |peer| peer.addresses.clone())
    }

    /// Returns all addresses of `node`, also those that others reported. The node that answers
    /// there must have its key.
    pub(super) fn places(&self, node: &Author) -> Addresses {
        self.with(node, |peer| {
            let mut places = peer.addresses.clone();
            let room = ADDRESSES_MAX.saturating_sub(places.direct.len());
            places.direct.extend(peer.hinted.direct.iter().take(room));
            places.relay = places.relay.or_else(|| peer.hinted.relay.clone());
            places
        })
    }

    /// Notes the addresses of `node` by its own report. True when they must be written to disk:
    /// they are new, and the last time is `ADDRESSES_KEEP_EVERY` ago.
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

    /// Returns the nodes of which newer addresses are noted than were last to be written to disk.
    pub(super) fn with_unwritten_addresses(&self) -> Vec<Author> {
        let peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unwritten = |peer: &Peer| {
            let written = peer.news.as_ref().map(|(written, _at)| written);
            written.is_some_and(|written| *written != peer.addresses)
        };
        let unwritten = peers.iter().filter(|(_, peer)| is_unwritten(peer));
        unwritten.map(|(node, _)| *node).collect()
    }

    /// Notes addresses of `node` that another node reported, and wakes its task. Does nothing for a
    /// node that is connected.
    pub(super) fn hint(&self, node: &Author, addresses: &Addresses) {
        self.with(node, |peer| {
            let is_known = [&peer.addresses, &peer.hinted].contains(&addresses);
            if peer.live().is_empty() && !addresses.is_empty() && !is_known {
                peer.hinted = addresses.clone();
                peer.wake.notify_one();
            }
        });
    }

    /// Waits until no other status of `node` is answered. The next one waits until the returned
    /// guard is dropped. Cancel-safe.
    pub(super) async fn status_turn(&self, node: &Author) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = self.with(node, |peer| Arc::clone(&peer.status_turn));
        turn.lock_owned().await
    }

    /// Returns the milliseconds to wait before a status of `node` is answered, which its allowance
    /// then covers.
    pub(super) fn status_wait_ms(&self, node: &Author) -> u64 {
        self.with(node, |peer| {
            let now_ms = peer.now_ms();
            let wait_ms = peer.statuses.wait_ms(1, now_ms);
            peer.statuses.spend(1, now_ms.saturating_add(wait_ms));
            wait_ms
        })
    }

    /// Decides when a wish of gossip to sync with `node` is met.
    pub(super) fn wish(&self, node: &Author) -> Wish {
        self.with(node, |peer| {
            if peer.wishes.take(1, peer.now_ms()) {
                return Wish::Now;
            }
            match std::mem::replace(&mut peer.is_put_off, true) {
                true => Wish::PutOff,
                false => Wish::Later,
            }
        })
    }

    /// Notes that the wish that was put off is met.
    pub(super) fn wish_is_due(&self, node: &Author) {
        self.with(node, |peer| peer.is_put_off = false);
    }

    /// True while gossip that `node` delivers may be of no use here.
    pub(super) fn may_waste(&self, node: &Author) -> bool {
        self.with(node, |peer| peer.waste.wait_ms(1, peer.now_ms()) == 0)
    }

    /// Counts a statement in gossip that `node` has signed. False when there are too many.
    pub(super) fn may_state(&self, node: &Author) -> bool {
        self.with(node, |peer| peer.statements.take(1, peer.now_ms()))
    }

    /// Notes that `node` has delivered gossip that was of no use.
    pub(super) fn wasted(&self, node: &Author, units: u32) {
        self.with(node, |peer| peer.waste.spend(units, peer.now_ms()));
    }

    /// Returns a permit to serve a sync that `node` has opened. `None` when it has too many.
    /// Dropping the permit ends the sync.
    pub(super) fn begin_sync(&self, node: &Author) -> Option<OwnedSemaphorePermit> {
        let syncs = self.with(node, |peer| Arc::clone(&peer.syncs));
        syncs.try_acquire_owned().ok()
    }

    /// Notes that a message of `node` came, and how far ahead its clock is if the message has it.
    pub(super) fn seen(&self, node: &Author, now_ms: u64, skew_ms: Option<i64>) {
        self.with(node, |peer| {
            peer.seen_ms = now_ms;
            peer.skew_ms = skew_ms.or(peer.skew_ms);
        });
    }

    /// Returns by how many milliseconds the clocks of those of `nodes` are ahead that are connected,
    /// and true if the clock of another one that is connected is not known yet.
    pub(super) fn clocks(&self, nodes: &[Author]) -> (Vec<i64>, bool) {
        let mut unknown = false;
        let clocks = nodes.iter().filter_map(|node| {
            let (connected, skew_ms) =
                self.with(node, |peer| (!peer.live().is_empty(), peer.skew_ms));
            unknown |= connected && skew_ms.is_none();
            skew_ms.filter(|_| connected)
        });
        (clocks.collect(), unknown)
    }

    /// Forgets all clocks: this node's own has jumped.
    pub(super) fn forget_clocks(&self) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for peer in peers.values_mut() {
            peer.skew_ms = None;
        }
    }

    /// Notes that a sync with `node` went well.
    pub(super) fn synced(&self, node: &Author) {
        self.with(node, |peer| {
            peer.error = None;
            peer.compared = Compared::Done;
        });
    }

    /// Notes an error with `node`.
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

    /// Returns the outcome of the first sync with `node` since the start.
    pub(super) fn compared(&self, node: &Author) -> Compared {
        self.with(node, |peer| peer.compared)
    }

    /// Counts a message that no honest peer sends. Returns the count, and the milliseconds for
    /// which the peer is shut out because of it.
    pub(super) fn strike(&self, node: &Author, what: &str) -> (u32, Option<u64>) {
        self.with(node, |peer| {
            let shut_out_ms = peer.strikes.strike(peer.now_ms());
            peer.misbehaved = Some(what.to_owned());
            (peer.strikes.total(), shut_out_ms)
        })
    }

    /// Returns the nodes that have a connection, by key.
    pub(super) fn online(&self) -> Vec<Author> {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        peers
            .iter_mut()
            .filter_map(|(node, peer)| (!peer.live().is_empty()).then_some(*node))
            .collect()
    }

    /// Returns the status of `node` without its lag. `shut_out_ms`: milliseconds for which it is
    /// still shut out.
    pub(super) fn status(&self, node: &Author, shut_out_ms: Option<u64>) -> PeerStatus {
        self.with(node, |peer| {
            let connection = peer.live().last().map(|live| live.connection.clone());
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
                skew_ms: peer.skew_ms.unwrap_or(0),
                behind: None,
                ahead: None,
                error: peer.error.clone(),
                strikes: peer.strikes.total(),
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
            copies: Arc::default(),
            seen_ms: 0,
            skew_ms: None,
            error: None,
            compared: Compared::NotYet,
            strikes: Strikes::default(),
            misbehaved: None,
            began: Instant::now(),
            statuses: Allowance::new(Rate {
                per_s: STATUSES_PER_S,
                reserve: STATUSES_RESERVE,
            }),
            wishes: Allowance::new(Rate {
                per_s: WISHES_PER_S,
                reserve: WISHES_RESERVE,
            }),
            is_put_off: false,
            waste: Allowance::new(Rate {
                per_s: GOSSIP_WASTE_PER_S,
                reserve: GOSSIP_WASTE_RESERVE,
            }),
            statements: Allowance::new(Rate {
                per_s: STATEMENTS_PER_S,
                reserve: STATEMENTS_RESERVE,
            }),
            status_turn: Arc::default(),
            syncs: Arc::new(Semaphore::new(PEER_SYNCS_MAX)),
            wake: Arc::default(),
            wanted: Arc::default(),
            came: Arc::default(),
        }
    }
}

impl Peer {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn live(&mut self) -> &[Live] {
        self.connections
            .retain(|live| live.connection.close_reason().is_none());
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
    fn n13_hint_never_replaces_own_address() {
        let peers = Peers::default();
        assert!(peers.found(&NODE, at("192.0.2.1:1")));
        for port in 0..100 {
            peers.hint(&NODE, &at(&format!("198.51.100.1:{port}")));
        }
        assert_eq!(peers.addresses(&NODE), at("192.0.2.1:1"));
        let places = peers.places(&NODE);
        let hinted = at("198.51.100.1:99");
        assert_eq!(places.direct.len(), 2, "the last hint and its own address");
        assert!(places.direct.is_superset(&hinted.direct));
    }

    #[test]
    fn n2_wishes_to_sync_are_paced_and_none_is_lost() {
        let peers = Peers::default();
        let wishes: Vec<_> = (0..1000).map(|_| peers.wish(&NODE)).collect();
        let count = |wish| wishes.iter().filter(|it| **it == wish).count();
        let reserve = usize::try_from(WISHES_RESERVE).unwrap();
        assert!((reserve..reserve + 100).contains(&count(Wish::Now)));
        assert_eq!(count(Wish::Later), 1, "all others are met with this one");
        peers.wish_is_due(&NODE);
        assert_ne!(peers.wish(&NODE), Wish::PutOff);
    }

    #[test]
    fn n8_moving_peer_is_not_written_each_time() {
        let peers = Peers::default();
        let written = (1..100).filter(|port| peers.found(&NODE, at(&format!("192.0.2.1:{port}"))));
        assert_eq!(written.count(), 1);
        assert_eq!(peers.addresses(&NODE), at("192.0.2.1:99"));
        // A node that stops now writes the newest ones: the peer is nowhere else any more.
        assert_eq!(peers.with_unwritten_addresses(), [NODE]);
    }

    #[test]
    fn n8_nothing_is_kept_of_made_up_nodes() {
        let peers = Peers::default();
        for byte in 0..=255 {
            assert!(!peers.is_connected(&Author([byte; 32])));
        }
        assert!(peers.0.lock().unwrap().is_empty());
    }

    #[test]
    fn n8_syncs_of_a_peer_are_bounded() {
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
