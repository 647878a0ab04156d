//! The peer table: addresses, connections, errors and strikes of each peer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use iroh::endpoint::Connection;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, watch},
    time::Instant,
};

use crate::{
    id::{Author, StoreId},
    limits::{ADDRESSES_KEEP_EVERY, ADDRESSES_MAX, PEER_CONNECTIONS_MAX, PEER_SILENT_MAX},
    net::{
        address::Addresses,
        base_refusal::BaseRefusal,
        error::PeerError,
        live::Live,
        peer::{Compared, Peer},
        peer_status::PeerStatus,
    },
    protocol::{ack::AckPlace, peer::Lag},
};

/// All peers of a node. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Peers(
    // A peer is added when something is noted about it, which happens only to nodes that are or
    // were let in, and stays until the net stops. Never held across an await; no other lock is
    // taken meanwhile.
    Arc<Mutex<BTreeMap<Author, Peer>>>,
);

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
            if peer.live().len() >= PEER_CONNECTIONS_MAX && !peer.close_left_over() {
                return false;
            }
            peer.connections.push(Live::new(connection));
            peer.seen_ms = now_ms;
            peer.has_stopped = false;
            // Comparisons over a dead connection have changed nothing.
            peer.lag = Lag::default();
            peer.relayed.clear();
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
        if self.runs_twice(node) {
            self.inform(node);
        }
    }

    /// Wakes all connections of `node`: each instance of it that is connected may be missing
    /// entries that another one signed.
    pub(super) fn inform(&self, node: &Author) {
        let peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get(node) {
            let news = &peer.copies;
            news.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// True while the connections of `node` lead to several instances of it.
    pub(super) fn runs_twice(&self, node: &Author) -> bool {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(peer) = peers.get_mut(node) else {
            return false;
        };
        let mut instances = peer.live().iter().filter_map(|live| live.instance);
        let first = instances.next();
        instances.any(|instance| Some(instance) != first)
    }

    /// True while a connection of `node` leads to its start number `instance`.
    pub(super) fn has_instance(&self, node: &Author, instance: u64) -> bool {
        self.with(node, |peer| {
            let mut lives = peer.live().iter();
            lives.any(|live| live.instance == Some(instance))
        })
    }

    /// Looks at all connections: which peers were heard of since the last look.
    pub(super) fn listen(&self, now_ms: u64) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for peer in peers.values_mut() {
            peer.listen(now_ms);
        }
    }

    /// Notes whether `node`, or this node, still lacks entries that the other had at the last look.
    /// True when both are to compare now; their task is woken.
    pub(super) fn look_at_lag(&self, node: &Author, lags: bool) {
        self.with(node, |peer| {
            if peer.lag.look(lags, peer.now_ms()) {
                peer.due.notify_one();
            }
        });
    }

    /// Returns the wake of `node` for its task while the acks of both sides differ for too long.
    pub(super) fn due(&self, node: &Author) -> Arc<Notify> {
        self.with(node, |peer| Arc::clone(&peer.due))
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

    /// Returns a permit to serve a comparison that `node` has opened. `None` while it has one. Dropping
    /// the permit ends the comparison.
    pub(super) fn begin_compare(&self, node: &Author) -> Option<OwnedSemaphorePermit> {
        let compares = self.with(node, |peer| Arc::clone(&peer.compares));
        compares.try_acquire_owned().ok()
    }

    /// Calls `choose` with the places of the acks of other members that were sent to `node`.
    pub(super) fn with_relayed<T>(
        &self,
        node: &Author,
        choose: impl FnOnce(&mut BTreeMap<(StoreId, Author), AckPlace>) -> T,
    ) -> T {
        self.with(node, |peer| choose(&mut peer.relayed))
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

    /// Returns whether `node` is asked for a base: not while it is last and another connected peer is not.
    pub(super) fn asks_for_base(&self, node: &Author) -> bool {
        if !self.with(node, |peer| peer.giver.is_last(peer.now_ms())) {
            return true;
        }
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        peers
            .values_mut()
            .all(|peer| peer.live().is_empty() || peer.giver.is_last(peer.now_ms()))
    }

    /// Notes that `node` has failed to give a base.
    pub(super) fn base_failed(&self, node: &Author) {
        self.with(node, |peer| peer.giver.failed(peer.now_ms()));
    }

    /// Notes that a base of `node` is installed.
    pub(super) fn base_given(&self, node: &Author) {
        self.with(node, |peer| {
            peer.giver.gave();
            peer.refusal = None;
        });
    }

    /// Notes why a base of `node` was not taken. True unless that was the last reason, too.
    pub(super) fn is_new_refusal(&self, node: &Author, why: &BaseRefusal) -> bool {
        self.with(node, |peer| {
            let before = peer.refusal.replace(why.clone());
            before.as_ref() != Some(why)
        })
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

    /// Returns the status of `node` at `now_ms` without its lag. `shut_out_ms`: milliseconds for
    /// which it is still shut out.
    pub(super) fn status(
        &self,
        node: &Author,
        shut_out_ms: Option<u64>,
        now_ms: u64,
    ) -> PeerStatus {
        self.with(node, |peer| {
            peer.listen(now_ms);
            let is_heard = |live: &Live| live.silence() < PEER_SILENT_MAX;
            let is_heard = peer.live().iter().any(is_heard);
            let connection = peer.live().last().map(|live| live.connection.clone());
            let paths = connection.as_ref().map(|connection| {
                let paths = connection.paths();
                let selected = paths.iter().find(|path| path.is_selected());
                selected.map(|path| (path.rtt(), path.is_relay()))
            });
            let path = paths.flatten();
            PeerStatus {
                node: *node,
                online: is_heard,
                seen_ms: peer.seen_ms,
                addresses: peer.addresses.clone(),
                rtt: path.map(|(rtt, _)| rtt),
                relayed: path.is_some_and(|(_, relayed)| relayed),
                skew_ms: peer.skew_ms.unwrap_or(0),
                behind: None,
                ahead: None,
                error: peer.error.clone().filter(|error| !peer.is_away(error)),
                diverged: Vec::new(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{PEER_SYNCS_MAX, WISHES_RESERVE};

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
