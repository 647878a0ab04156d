//! What the tasks of a bound endpoint share, from a start to a stop.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use iroh::{Endpoint, address_lookup::memory::MemoryLookup};
use iroh_gossip::net::Gossip;
use prost::Message as _;
use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    id::Author,
    net::{
        acks::Acks,
        address::{Addresses, endpoint_id},
        gate::Gate,
        peer_table::{PeerStatus, Peers},
        proven::Proven,
        topic::{Topics, broadcast},
        turns::Turns,
    },
    node::{MeshError, Node},
    protocol::ack::Ack,
    store::Store,
    wire::net,
};

/// What the tasks of a bound endpoint share.
#[derive(Debug)]
pub(super) struct Mesh {
    pub(super) node: Node,
    pub(super) endpoint: Endpoint,
    // Addresses for those who dial by id only, as gossip does.
    pub(super) known: MemoryLookup,
    pub(super) gossip: Gossip,
    pub(super) gate: Gate,
    pub(super) peers: Peers,
    pub(super) acks: Acks,
    pub(super) turns: Turns,
    pub(super) topics: Topics,
    // Tasks of peers that are kept.
    pub(super) kept: Mutex<BTreeSet<Author>>,
    // Let in before it is known as a member: the node that let us in.
    sponsors: Mutex<BTreeSet<Author>>,
    // Let in before the root store names it: it has shown its grant.
    pub(super) proven: Proven,
    // What topics are derived from: members know it, others do not.
    pub(super) secret: [u8; 32],
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    // Where they run.
    runtime: Handle,
}

impl Mesh {
    /// Begins with what was kept of peers when this node ran last. `ends`: what stops the tasks,
    /// and who waits for them.
    ///
    /// # Errors
    /// `Open`: the node's own files cannot be written.
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
            turns: Turns::default(),
            topics: Topics::default(),
            kept: Mutex::default(),
            sponsors: Mutex::default(),
            proven: Proven::default(),
            secret: node.mesh_secret(),
            stop,
            tasks,
            runtime: Handle::current(),
        });
        mesh.load_addresses();
        mesh.open_gate();
        Ok(mesh)
    }

    pub(super) fn status(&self, node: &Author) -> PeerStatus {
        let stores = self.node.open_stores();
        let behind: Option<Vec<u64>> = stores
            .iter()
            .map(|store| self.acks.behind(store, node))
            .collect();
        let ahead = stores.iter().map(|store| self.acks.ahead(store, node));
        PeerStatus {
            behind: behind.map(|behind| behind.iter().sum()),
            ahead: ahead.sum(),
            ..self.peers.status(node, self.gate.shut_out_ms(node))
        }
    }

    /// Runs a task until it ends, or the net stops.
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

    /// Lets in who is a member now, and closes the connections of all others.
    pub(super) fn open_gate(&self) {
        let own = self.node.id();
        let members = self.node.members();
        let mut admitted: BTreeSet<Author> = members.others(own).collect();
        // Just let in, we know nobody but our sponsor.
        if members.role(&own).is_none() {
            let sponsors = self.sponsors.lock();
            admitted.extend(sponsors.unwrap_or_else(PoisonError::into_inner).iter());
        }
        // What the root store says of a node goes before what the node has shown.
        let proven = self.proven.nodes().into_iter();
        admitted.extend(proven.filter(|node| members.get(node).is_none()));
        self.gate.admit(admitted);
    }

    /// Makes all connections anew, at once: those that are there may be dead, and nobody has to wait
    /// any more because of what failed before.
    pub(super) async fn meet_again(&self) {
        self.endpoint.network_change().await;
        self.gate.hang_up_all();
        for node in self.gate.members() {
            self.want_sync(&node);
        }
    }

    /// Lets in who let us in, until the members are known.
    pub(super) fn trust_sponsor(&self, node: &Author, addresses: Addresses) {
        {
            let mut sponsors = self.sponsors.lock().unwrap_or_else(PoisonError::into_inner);
            sponsors.insert(*node);
        }
        self.peers.found(node, addresses);
        self.keep_addresses(node);
        self.open_gate();
    }

    /// Wakes the task of `node`: it syncs, or dials.
    pub(super) fn want_sync(&self, node: &Author) {
        if self.gate.admits(node) {
            self.peers.wake(node).notify_one();
            self.peers.wanted(node).notify_one();
        }
    }

    /// Wakes the task of some connected peer.
    pub(super) fn want_sync_any(&self) {
        let online = self.peers.online();
        let count = u64::try_from(online.len()).unwrap_or(1).max(1);
        let index = usize::try_from(self.random() % count).unwrap_or(0);
        if let Some(node) = online.get(index) {
            self.want_sync(node);
        }
    }

    /// Lets the others know, soon, that this node has more of `store` on disk.
    pub(super) fn acknowledge(&self, store: &Store) {
        if let Some(topic) = self.topics.get(&store.id()) {
            topic.ack.notify_one();
        }
    }

    /// Says to neighbours that a sync has brought something.
    pub(super) async fn announce(&self, store: &Store) {
        if let Some(topic) = self.topics.get(&store.id()) {
            broadcast(&topic.sender, self.announcement(store)).await;
        }
    }

    /// Returns the message that says that this node has something new.
    pub(super) fn announcement(&self, store: &Store) -> net::gossip::Kind {
        net::gossip::Kind::Announce(net::Announce {
            node: Bytes::copy_from_slice(&self.node.id().0),
            nonce: self.random(),
            frontier_hash: Bytes::copy_from_slice(&store.frontier().hash().0),
            addresses: Some(Addresses::of(&self.endpoint).to_wire()),
        })
    }

    /// Returns this node's acks of all stores, signed, for a peer that has just come.
    pub(super) fn own_acks(&self) -> Vec<Bytes> {
        let (own, stores) = (self.node.id(), self.node.open_stores());
        let acks = stores.iter().map(|store| self.acks.own(own, store));
        acks.map(|ack| self.node.sign_ack(&ack)).collect()
    }

    /// Takes an ack from elsewhere; false when it is none.
    pub(super) fn take_ack(&self, bytes: Bytes) -> bool {
        match Ack::open(bytes) {
            // Only members are kept, so their number bounds the memory.
            Ok(ack) => {
                if self.gate.admits(&ack.node) && self.node.open_store(&ack.store).is_some() {
                    self.acks.take(ack);
                }
                true
            }
            Err(error) => {
                tracing::debug!(%error, "an ack was refused");
                false
            }
        }
    }

    /// Notes what no honest peer does; after some of it the peer is shut out for a while.
    pub(super) fn strike(&self, node: &Author, what: &str) {
        let (strikes, shut_out_ms) = self.peers.strike(node, what);
        tracing::warn!(%node, what, strikes, "a peer misbehaves");
        if let Some(wait_ms) = shut_out_ms {
            tracing::warn!(%node, wait_ms, "a peer is shut out");
            self.gate.shut_out(node, wait_ms);
        }
    }

    // What was kept of peers when this node ran last.
    pub(super) fn load_addresses(&self) {
        // A join that was cut before the root store came: whom we know has let us in.
        let own = self.node.id();
        let is_new = self.node.members().role(&own).is_none();
        for (node, body) in self.node.peer_notes() {
            let Ok(message) = net::Addresses::decode(body.as_slice()) else {
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
                self.tell_iroh(&node);
            }
        }
    }

    /// Keeps where `node` is for the next start, and tells iroh.
    pub(super) fn keep_addresses(&self, node: &Author) {
        let body = self.peers.addresses(node).to_wire().encode_to_vec();
        if let Err(error) = self.node.keep_peer_note(node, body) {
            tracing::warn!(%node, %error, "a peer's address was not kept");
        }
        self.tell_iroh(node);
    }

    fn tell_iroh(&self, node: &Author) {
        if let Some(id) = endpoint_id(node) {
            let address = self.peers.addresses(node).to_iroh(id);
            drop(self.known.set_endpoint_info(address));
        }
    }

    pub(super) fn random(&self) -> u64 {
        getrandom::u64().unwrap_or_else(|_no_source| self.node.clock().now_ms())
    }
}
