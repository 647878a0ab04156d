//! The tables that the tasks of a bound endpoint share, from a start to a stop.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use iroh::{Endpoint, address_lookup::memory::MemoryLookup};
use iroh_gossip::net::Gossip;
use prost::Message as _;
use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    id::{Author, StoreId},
    limits::{ACKS_RELAYED_BYTES_MAX, ACKS_RELAYED_MAX, OWN_TIP_WAIT_MAX},
    net::{
        acks::{Acks, Apart},
        address::{Addresses, endpoint_id},
        announced::Announced,
        compare_turns::CompareTurns,
        gate::{self, Gate},
        own_tails::OwnTails,
        peer_status::PeerStatus,
        peer_table::{Peers, Wish},
        proven::Proven,
        roots::{Claimed, Roots},
        topic::{Topics, broadcast},
        turns::Turns,
    },
    node::{MeshError, Node},
    protocol::{
        ack::{Ack, ClaimedAck},
        announce::Announce,
    },
    store::Store,
    wire::net,
};

/// The tables that the tasks of a bound endpoint share.
///
/// [`new`](Self::new) makes it when the endpoint is bound; after that all methods are called in any
/// order, from any task. Three kinds:
///
/// - Membership: [`open_gate`](Self::open_gate), [`trust_sponsor`](Self::trust_sponsor),
///   [`strike`](Self::strike) decide which nodes are let in.
/// - Wishes: [`want_sync`](Self::want_sync), [`acknowledge`](Self::acknowledge),
///   [`announce`](Self::announce), [`meet_again`](Self::meet_again) wake the task that does the
///   work.
/// - Notes: addresses and acks that came from peers, or go to them.
///
/// The mesh starts no task of its own and names none; each field with a lock states its contract
/// where its type is defined. No lock of one field is taken while another one is held.
#[derive(Debug)]
pub(super) struct Mesh {
    pub(super) node: Node,
    pub(super) endpoint: Endpoint,
    // Addresses for dials by id only, which gossip makes. A copy of `peers`, updated with it.
    pub(super) known: MemoryLookup,
    pub(super) gossip: Gossip,
    pub(super) gate: Gate,
    pub(super) peers: Peers,
    pub(super) acks: Acks,
    pub(super) roots: Roots,
    pub(super) compares: CompareTurns,
    pub(super) announced: Announced,
    pub(super) turns: Turns,
    pub(super) topics: Topics,
    pub(super) own_tails: OwnTails,
    // Peers that have a task, see `peer_task::meet_members`; removed when the task ends. Never held
    // across an await; no other lock is taken meanwhile.
    pub(super) kept: Mutex<BTreeSet<Author>>,
    // Nodes that this node trusts until the root store names its members: the one that let it in.
    // Set by `trust_sponsor` and `load_addresses`. Never held across an await; no other lock is
    // taken meanwhile.
    sponsors: Mutex<BTreeSet<Author>>,
    // Nodes that have proven their membership before the root store names them.
    pub(super) proven: Proven,
    // The acts by which a peer has proven that this node was removed. Never held across an await; no
    // other lock is taken meanwhile.
    removal: Mutex<Option<Vec<Bytes>>>,
    // Gossip topics are derived from it. Only members know it.
    pub(super) secret: [u8; 32],
    // Cancelled by `Net::stop`.
    pub(super) stop: CancellationToken,
    // All tasks of this run. `Net::stop` waits for them.
    pub(super) tasks: TaskTracker,
    // The runtime on which they run.
    runtime: Handle,
}

impl Mesh {
    /// Returns a mesh with the addresses that were kept when this node ran last, and opens the
    /// gate. `stop` ends its tasks, `tasks` tracks them.
    ///
    /// # Errors
    /// `Open`: a file of this node cannot be written.
    pub(super) fn new(
        node: &Node,
        endpoint: &Endpoint,
        known: MemoryLookup,
        gossip: &Gossip,
        gate: Gate,
        (stop, tasks): (CancellationToken, TaskTracker),
    ) -> Result<Arc<Self>, MeshError> {
        let mesh = Arc::new(Self {
            node: node.clone(),
            endpoint: endpoint.clone(),
            known,
            gossip: gossip.clone(),
            gate,
            peers: Peers::default(),
            acks: Acks::new(node.incarnation()?),
            roots: Roots::default(),
            compares: CompareTurns::default(),
            announced: Announced::default(),
            turns: Turns::default(),
            topics: Topics::default(),
            own_tails: OwnTails::default(),
            kept: Mutex::default(),
            sponsors: Mutex::default(),
            proven: Proven::default(),
            removal: Mutex::default(),
            secret: node.mesh_secret(),
            stop,
            tasks,
            runtime: Handle::current(),
        });
        mesh.load_addresses();
        mesh.open_gate();
        Ok(mesh)
    }

    /// Returns the status of `node`, with its lag over all open stores, and the stores in
    /// which it has another state.
    pub(super) fn status(&self, node: &Author) -> PeerStatus {
        let stores = self.node.shared_stores();
        let behind = stores.iter().map(|store| self.acks.behind(store, node));
        let ahead = stores.iter().map(|store| self.acks.ahead(store, node));
        PeerStatus {
            behind: sum(behind),
            ahead: sum(ahead),
            diverged: self.roots.diverged(node),
            ..self.peers.status(
                node,
                self.gate.shut_out_ms(node),
                self.node.clock().now_ms(),
            )
        }
    }

    /// Checks what a peer has shown as the removal of this node. If it is one, own writes are refused
    /// from now on, until it is one no longer. Returns the node that has removed this one.
    pub(super) async fn believe_removal(&self, removal: Vec<Bytes>) -> Option<Author> {
        let (root, own) = (self.node.root(), self.node.id());
        let by = match root.removed_by_acts(&own, &removal).await {
            Ok(by) => by?,
            Err(error) => {
                tracing::debug!(%error, "the proof of a removal of this node was refused");
                return None;
            }
        };
        if self.node.removed_by().is_none() {
            tracing::error!(%by, "this node was removed from the mesh: its writes are refused");
        }
        self.node.turn_away(Some(by));
        let mut shown = self.removal.lock().unwrap_or_else(PoisonError::into_inner);
        *shown = Some(removal);
        Some(by)
    }

    /// Checks again what a peer has shown as the removal of this node: the members have changed, and
    /// the remover may have been removed before.
    pub(super) async fn check_removal_again(&self) {
        let shown = {
            let shown = self.removal.lock().unwrap_or_else(PoisonError::into_inner);
            shown.clone()
        };
        let Some(removal) = shown else { return };
        let (root, own) = (self.node.root(), self.node.id());
        if !matches!(root.removed_by_acts(&own, &removal).await, Ok(Some(_))) {
            tracing::info!("this node was not removed: its writes are taken again");
            self.node.turn_away(None);
            let mut shown = self.removal.lock().unwrap_or_else(PoisonError::into_inner);
            *shown = None;
        }
    }

    /// Spawns a task, which is dropped when the net stops.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let task = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        };
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// Lets in all current members, and closes the connections of all other nodes.
    pub(super) fn open_gate(&self) {
        let own = self.node.id();
        let members = self.node.members();
        let mut admitted: BTreeSet<Author> = members.others(own).collect();
        // This node was just let in and knows no member but its sponsor.
        if members.role(&own).is_none() {
            let sponsors = self.sponsors.lock();
            admitted.extend(sponsors.unwrap_or_else(PoisonError::into_inner).iter());
        }
        // A proof does not count for a node that the root store names: it may have been removed.
        let proven = self.proven.nodes().into_iter();
        admitted.extend(proven.filter(|node| members.get(node).is_none()));
        self.gate.admit(admitted);
    }

    /// Closes all connections and dials all members at once. Old connections may be dead, and waits
    /// after earlier failures mean nothing any more.
    pub(super) async fn meet_again(&self) {
        self.endpoint.network_change().await;
        self.gate.hang_up_all(gate::AGAIN);
        for node in self.gate.members() {
            self.want_sync(&node);
        }
    }

    /// Lets in the node that admitted this one, until the root store names the members.
    pub(super) fn trust_sponsor(&self, node: &Author, addresses: Addresses) {
        {
            let mut sponsors = self.sponsors.lock().unwrap_or_else(PoisonError::into_inner);
            sponsors.insert(*node);
        }
        self.peers.found(node, addresses);
        self.keep_addresses(node);
        self.open_gate();
    }

    /// Wakes the task of `node`: it syncs, or dials if it is not connected. Does nothing for a node
    /// that is not let in.
    pub(super) fn want_sync(&self, node: &Author) {
        if self.gate.admits(node) {
            self.peers.wake(node).notify_one();
            self.peers.wanted(node).notify_one();
        }
    }

    /// Like [`want_sync`](Self::want_sync), for a wish that another node has caused: only as often
    /// as the allowance of `node` permits. A wish above it is put off, and many are put off as one.
    pub(super) fn want_sync_in_time(self: &Arc<Self>, node: &Author) {
        if !self.gate.admits(node) {
            return;
        }
        match self.peers.wish(node) {
            Wish::Now => self.want_sync(node),
            Wish::PutOff => {}
            Wish::Later => {
                let (mesh, node) = (Arc::clone(self), *node);
                self.spawn(async move {
                    tokio::time::sleep(WISH_PUT_OFF).await;
                    mesh.peers.wish_is_due(&node);
                    mesh.want_sync(&node);
                });
            }
        }
    }

    /// Lets own writes of `store` wait until a session has brought the end of this node's own log, or for
    /// `OWN_TIP_WAIT_MAX` if no peer is left that could.
    pub(super) fn hold_own_writes(self: &Arc<Self>, store: &Store) {
        if !self.own_tails.hold(store) {
            return;
        }
        let (mesh, id) = (Arc::clone(self), store.id());
        self.spawn(async move {
            tokio::time::sleep(OWN_TIP_WAIT_MAX).await;
            mesh.own_tails.release(&id);
        });
    }

    /// Wakes the task of one connected peer, chosen at random.
    pub(super) fn want_sync_any(&self) {
        let online = self.peers.online();
        let count = u64::try_from(online.len()).unwrap_or(1).max(1);
        let index = usize::try_from(self.random() % count).unwrap_or(0);
        if let Some(node) = online.get(index) {
            self.want_sync(node);
        }
    }

    /// Asks the gossip task of `store` to send an ack, within `ANNOUNCE_EVERY`. Does nothing while
    /// the store is not carried.
    pub(super) fn acknowledge(&self, store: &Store) {
        if let Some(topic) = self.topics.get(&store.id()) {
            topic.ack.notify_one();
        }
    }

    /// Announces to gossip neighbours that a sync has brought entries of `store`.
    pub(super) async fn announce(&self, store: &Store) {
        if let Some(topic) = self.topics.get(&store.id()) {
            broadcast(&topic.sender, self.announcement(store)).await;
        }
    }

    /// Returns the message that announces this node's frontier of `store` and its addresses.
    pub(super) fn announcement(&self, store: &Store) -> net::gossip::Kind {
        let (incarnation, counter) = self.acks.next_place();
        let net::Addresses { direct, relay } = Addresses::of(&self.endpoint).to_wire();
        let announce = Announce {
            node: self.node.id(),
            store: store.id(),
            incarnation,
            counter,
            frontier: store.frontier().hash(),
            direct,
            relay,
        };
        net::gossip::Kind::Announce(self.node.sign_announce(&announce))
    }

    /// Returns this node's signed acks of the open stores, `bytes_max` bytes at most. If there are
    /// more, each call begins with another store.
    pub(super) fn own_acks(&self, bytes_max: usize) -> Vec<Bytes> {
        let (own, mut stores) = (self.node.id(), self.node.shared_stores());
        let root = self.node.root();
        let mut acks = Vec::new();
        let mut room = bytes_max;
        let mut first = 0;
        for store in &stores {
            let ack = self.node.sign_ack(&self.acks.own(own, store, &root));
            let Some(left) = room.checked_sub(ack.len() + ACK_FRAME_BYTES) else {
                let count = u64::try_from(stores.len()).unwrap_or(u64::MAX).max(1);
                first = usize::try_from(self.random() % count).unwrap_or(0);
                break;
            };
            room = left;
            acks.push(ack);
        }
        if first == 0 {
            return acks;
        }
        // Not all fit: those after a random one, which differs each time.
        stores.rotate_left(first);
        let mut room = bytes_max;
        let acks = stores
            .iter()
            .map(|store| self.node.sign_ack(&self.acks.own(own, store, &root)));
        acks.take_while(|ack| {
            let left = room.checked_sub(ack.len() + ACK_FRAME_BYTES);
            room = left.unwrap_or(0);
            left.is_some()
        })
        .collect()
    }

    /// Returns the latest acks of other members that `node` may not have, `bytes_max` bytes at most. Those that
    /// it can use count as sent, until there is a new connection to it: it has the members that this node
    /// has, and the store.
    pub(super) fn relayed_acks(&self, node: &Author, bytes_max: usize) -> Vec<Bytes> {
        let mut acks = self.node.signed_acks();
        let open = self.node.shared_stores().into_iter();
        let open: BTreeSet<StoreId> = open.map(|store| store.id()).collect();
        acks.retain(|ack| open.contains(&ack.store));
        // Not all may fit: each call begins with another one.
        let count = u64::try_from(acks.len()).unwrap_or(u64::MAX).max(1);
        acks.rotate_left(usize::try_from(self.random() % count).unwrap_or(0));
        let has_members = matches!(self.acks.apart(&self.node.root(), node), Apart::InStep);
        let stores = self.node.shared_stores().into_iter();
        let used = stores.filter(|store| has_members && self.acks.ahead(store, node).is_some());
        let used: BTreeSet<StoreId> = used.map(|store| store.id()).collect();
        let mut room = bytes_max.min(ACKS_RELAYED_BYTES_MAX);
        self.peers.with_relayed(node, |relayed| {
            let mut sent = Vec::new();
            for ack in acks.into_iter().filter(|ack| ack.node != *node) {
                let key = (ack.store, ack.node);
                if relayed.get(&key).is_some_and(|place| *place >= ack.place) {
                    continue;
                }
                let Some(left) = room.checked_sub(ack.bytes.len() + ACK_FRAME_BYTES) else {
                    continue;
                };
                if sent.len() >= ACKS_RELAYED_MAX {
                    break;
                }
                room = left;
                if used.contains(&ack.store) {
                    relayed.insert(key, ack.place);
                }
                sent.push(ack.bytes);
            }
            sent
        })
    }

    /// Keeps an ack if it is of a member, of an open store and says anything new; only then its
    /// signature is checked. False when that is wrong. Of each author that this node knows it keeps
    /// `ACK_BRANCHES_MAX` tips, of others none: so the memory is bounded.
    pub(super) fn take_ack(&self, claimed: ClaimedAck) -> bool {
        let claim = claimed.claim();
        // The gate learns of a new member a moment later.
        let is_member = || self.node.members().role(&claim.node).is_some();
        let is_let_in = self.gate.admits(&claim.node) || is_member();
        if !is_let_in || !self.acks.is_news(claim) {
            return true;
        }
        let Some(store) = self.node.shared_store(&claim.store) else {
            return true;
        };
        let bytes = claimed.encode();
        match claimed.verify() {
            Ok(ack) => {
                let claimed = self.claimed(&ack, bytes.clone());
                let (ack, is_cut) = self.known_part(ack, &store);
                self.node.keep_ack(&ack, bytes, is_cut);
                if self.acks.take(&ack)
                    && let Some(claimed) = claimed
                {
                    self.roots.hear(claimed);
                }
                true
            }
            Err(error) => {
                tracing::debug!(%error, "an ack was refused");
                false
            }
        }
    }

    /// Keeps an ack that its node has sent itself over a connection. It counts even if acks of a
    /// later start are known: those are of a copy of the node, unless that one is connected, too.
    /// False when its signature is wrong.
    pub(super) fn take_direct_ack(&self, claimed: ClaimedAck) -> bool {
        let claim = claimed.claim();
        let later = self.acks.later_start(claim);
        if later.is_none_or(|later| self.peers.has_instance(&claim.node, later)) {
            return self.take_ack(claimed);
        }
        let store = self.node.shared_store(&claim.store);
        let Some(store) = store.filter(|_| self.gate.admits(&claim.node)) else {
            return true;
        };
        let bytes = claimed.encode();
        match claimed.verify() {
            Ok(ack) => {
                let claimed = self.claimed(&ack, bytes.clone());
                let (ack, is_cut) = self.known_part(ack, &store);
                self.node.keep_ack(&ack, bytes, is_cut);
                self.acks.restart(&ack);
                if let Some(claimed) = claimed {
                    self.roots.hear(claimed);
                }
                true
            }
            Err(_error) => false,
        }
    }

    // Returns what a signed ack of another member claims about the state; `None` if that is nothing.
    fn claimed(&self, ack: &Ack, signed: Bytes) -> Option<Claimed> {
        let claim = ack.state_claim()?;
        // An ack with this node's own key comes from a copy of it, and says nothing about other members.
        (ack.node != self.node.id()).then_some(Claimed {
            store: ack.store,
            node: ack.node,
            claim,
            ack: signed,
        })
    }

    // Returns `ack` without the authors that nobody has admitted and of whom nothing is here, and whether
    // there are such.
    fn known_part(&self, ack: Ack, store: &Store) -> (Ack, bool) {
        let (members, own) = (self.node.members(), store.frontier());
        ack.known_part(|author| members.get(author).is_some() || own.seq(author) > 0)
    }

    /// Counts a message that no honest peer sends. Every `STRIKES_MAX` of them the peer is shut out
    /// for a while.
    pub(super) fn strike(&self, node: &Author, what: &str) {
        let (strikes, shut_out_ms) = self.peers.strike(node, what);
        tracing::warn!(%node, what, strikes, "a peer misbehaves");
        if let Some(wait_ms) = shut_out_ms {
            tracing::warn!(%node, wait_ms, "a peer is shut out");
            self.gate.shut_out(node, wait_ms);
        }
    }

    // Loads the addresses that were kept when this node ran last.
    fn load_addresses(&self) {
        // A join that was cut before the root store came: the only known peer is the sponsor.
        let own = self.node.id();
        let is_new = self.node.members().role(&own).is_none();
        for (node, body) in self.node.peer_notes() {
            let Ok(message) = net::Addresses::decode(body) else {
                continue;
            };
            let addresses = Addresses::from_wire(&message);
            if is_new {
                let sponsors = self.sponsors.lock();
                sponsors
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(node);
            }
            if self.peers.found(&node, addresses) {
                self.update_lookup(&node);
            }
        }
    }

    /// Writes the addresses of `node` to disk for the next start, and passes them to iroh.
    pub(super) fn keep_addresses(&self, node: &Author) {
        let body = self.peers.addresses(node).to_wire().encode_to_vec();
        if let Err(error) = self.node.keep_peer_note(node, body) {
            tracing::warn!(%node, %error, "the addresses of a peer were not written to disk");
        }
        self.update_lookup(node);
    }

    fn update_lookup(&self, node: &Author) {
        if let Some(id) = endpoint_id(node) {
            let address = self.peers.addresses(node).to_iroh(id);
            drop(self.known.set_endpoint_info(address));
        }
    }

    /// Returns random bits, for jitter and nonces only.
    pub(super) fn random(&self) -> u64 {
        getrandom::u64().unwrap_or_else(|_no_source| self.node.clock().now_ms())
    }
}

// Returns the sum of counts that others reported, which may be lies: it stops at the largest number.
// `None` if one is missing.
fn sum(mut counts: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    counts.try_fold(0_u64, |sum, count| Some(sum.saturating_add(count?)))
}

// Bytes that the frame of an ack takes in a status.
const ACK_FRAME_BYTES: usize = 8;
// Time by which wishes to sync are put off that come faster than the allowance permits.
const WISH_PUT_OFF: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_of_counts_that_are_lies_stops_at_the_largest_number() {
        let counts = |counts: &[Option<u64>]| sum(counts.iter().copied());
        assert_eq!(counts(&[Some(2), Some(3)]), Some(5));
        assert_eq!(counts(&[Some(u64::MAX), Some(3)]), Some(u64::MAX));
        assert_eq!(counts(&[Some(2), None, Some(u64::MAX)]), None);
    }
}
