//! What the tasks of a bound endpoint share, from a start to a stop.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use iroh::{Endpoint, EndpointId, address_lookup::memory::MemoryLookup};
use iroh_gossip::{api::GossipSender, net::Gossip};
use prost::Message as _;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    id::{Author, StoreId},
    net::{
        Addresses, PeerStatus, acks::Acks, bind::endpoint_id, gate::Gate, gossip,
        peer_table::Peers, peer_task, proven::Proven,
    },
    node::{MeshError, Node},
    protocol::sync,
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
    // Who has a session in which store. Bounded by members and stores.
    turns: Mutex<BTreeMap<(Author, StoreId), Arc<Turn>>>,
    topics: Mutex<BTreeMap<StoreId, Topic>>,
    // Tasks of peers that are kept.
    kept: Mutex<BTreeSet<Author>>,
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

/// The turn of one peer in one store, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Turn {
    // Held while a session goes on: an own one waits for it, a served one takes it when it is free.
    pub(super) session: tokio::sync::Mutex<()>,
    // The rule. Changed by the own session that holds the lock, watched by served ones.
    pub(super) rule: watch::Sender<sync::Turn>,
}

/// How to reach everybody who carries a store.
#[derive(Debug, Clone)]
struct Topic {
    sender: GossipSender,
    // Notified when this node has more on disk.
    ack: Arc<Notify>,
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
            turns: Mutex::default(),
            topics: Mutex::default(),
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
        let mut admitted: BTreeSet<Author> = members
            .iter()
            .map(|(node, _)| *node)
            .filter(|node| *node != own && members.role(node).is_some())
            .collect();
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

    /// Opens the gate, and a task for each new member.
    pub(super) fn meet_members(self: &Arc<Self>) {
        self.open_gate();
        for node in self.gate.members() {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if !kept.insert(node) {
                continue;
            }
            let mesh = Arc::clone(self);
            self.spawn(async move {
                peer_task::keep(Arc::clone(&mesh), node).await;
                let mut kept = mesh.kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.remove(&node);
            });
        }
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

    pub(super) fn connected(&self) -> Vec<Author> {
        self.peers.online()
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

    pub(super) fn add_topic(&self, store: StoreId, sender: GossipSender) -> Arc<Notify> {
        let ack = Arc::new(Notify::new());
        let topic = Topic {
            sender,
            ack: Arc::clone(&ack),
        };
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.insert(store, topic);
        ack
    }

    pub(super) fn remove_topic(&self, store: &StoreId) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.remove(store);
    }

    pub(super) fn turn(&self, node: &Author, store: &StoreId) -> Arc<Turn> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry((*node, *store)).or_default())
    }

    /// Lets the others know, soon, that this node has more of `store` on disk.
    pub(super) fn acknowledge(&self, store: &Store) {
        if let Some(topic) = self.topic(&store.id()) {
            topic.ack.notify_one();
        }
    }

    fn topic(&self, store: &StoreId) -> Option<Topic> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.get(store).cloned()
    }

    /// Asks a peer into every topic. The connection is handed over next.
    pub(super) async fn join_topics(&self, id: EndpointId) {
        let topics: Vec<_> = {
            let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            topics.values().cloned().collect()
        };
        for topic in topics {
            if let Err(error) = topic.sender.join_peers(vec![id]).await {
                tracing::debug!(%error, "a peer was not asked into a topic");
            }
        }
    }

    /// Says to neighbours that a sync has brought something.
    pub(super) async fn announce(&self, store: &Store) {
        if let Some(topic) = self.topic(&store.id()) {
            gossip::announce(self, store, &topic.sender).await;
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
