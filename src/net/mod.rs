//! The net: members of one mesh find each other, and what one writes the others get.
//!
//! ```text
//! gate        who gets a connection, on any protocol
//! hello       an invitation is shown and redeemed
//! peer        one task for each member: dial, sync, again
//! session     a sync of one store over one stream; the rules are in `protocol::sync`
//! gossip      what was just written, to everybody, as a hint
//! ```
//! A node without members or open invitations has no endpoint: it neither listens nor announces.

mod acks;
mod config;
mod endpoint;
mod error;
mod gate;
mod gossip;
mod hello;
mod invitation;
mod join;
mod own_tip;
mod peer;
mod peers;
mod session;
mod stores;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use iroh::{
    Endpoint, EndpointId,
    address_lookup::memory::MemoryLookup,
    protocol::{IncomingFilterOutcome, Router},
};
use iroh_gossip::{api::GossipSender, net::Gossip};
use prost::Message as _;
use tokio::{
    sync::{Notify, OnceCell},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use config::{NetConfig, Relay};
pub use endpoint::Addresses;
pub use error::PeerError;
pub use invitation::{Invitation, InvitationError};
pub use join::{JoinError, JoinEvent, Joined};
pub use peers::PeerStatus;

use crate::{
    id::{Author, StoreId},
    limits::{ENDPOINT_CLOSE_WAIT, GOSSIP_BYTES_MAX},
    net::{
        acks::Acks, endpoint::endpoint_id, gate::Gate, hello::Hello, peer::Served, peers::Peers,
    },
    node::{MeshError, Node},
    protocol::{frontier::FrontierTip, role::Role},
    store::Store,
    wire::net,
};

/// Why there is no net.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The endpoint could not be bound.
    #[error("cannot listen for peers: {what}")]
    Bind {
        /// Why.
        what: String,
    },
    /// Not a relay's URL.
    #[error("{relay:?} is no URL of a relay")]
    BadRelay {
        /// What was given.
        relay: String,
    },
    /// The mesh says no.
    #[error(transparent)]
    Mesh(#[from] MeshError),
}

/// The net of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Net(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: Node,
    config: NetConfig,
    // Another one after a join.
    running: Mutex<Arc<Running>>,
}

/// From a start to a stop.
#[derive(Debug, Default)]
struct Running {
    // Bound when there is somebody to meet.
    mesh: OnceCell<Arc<Mesh>>,
    router: OnceCell<Router>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What the tasks of a bound endpoint share.
#[derive(Debug)]
struct Mesh {
    node: Node,
    endpoint: Endpoint,
    // Addresses for those who dial by id only, as gossip does.
    known: MemoryLookup,
    gossip: Gossip,
    gate: Gate,
    peers: Peers,
    acks: Acks,
    // Who has a session in which store. Bounded by members and stores.
    turns: Mutex<BTreeMap<(Author, StoreId), Arc<Turn>>>,
    topics: Mutex<BTreeMap<StoreId, Topic>>,
    // Tasks of peers that are kept.
    kept: Mutex<BTreeSet<Author>>,
    // Let in before it is known as a member: the node that let us in.
    sponsors: Mutex<BTreeSet<Author>>,
    // What topics are derived from: members know it, others do not.
    secret: [u8; 32],
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Whose turn it is in a store with one peer.
#[derive(Debug, Default)]
struct Turn {
    // Held while a session goes on.
    session: tokio::sync::Mutex<()>,
    // True while one goes on that this side has opened and the peer has answered.
    own: AtomicBool,
}

/// How to reach everybody who carries a store.
#[derive(Debug, Clone)]
struct Topic {
    sender: GossipSender,
    // Notified when this node has more on disk.
    ack: Arc<Notify>,
}

impl Net {
    /// Starts the net of `node`: at once when it has members or open invitations, else when it
    /// gets some. Own writes wait, for seconds at most, until the members that can be reached have
    /// said what they have of this node's own log.
    pub fn start(node: Node, config: NetConfig) -> Self {
        let net = Self(Arc::new(Inner {
            node,
            config,
            running: Mutex::default(),
        }));
        own_tip::check(&net);
        net.supervise(net.running());
        net
    }

    /// Makes an invitation that admits its bearer as `role`. Durable on return.
    ///
    /// # Errors
    /// `NetError`: no endpoint, or this node may not invite.
    pub async fn invite(&self, role: Role, valid_ms: u64) -> Result<Invitation, NetError> {
        let mesh = self.mesh().await?;
        let (secret, expires_ms) = self.0.node.invite(role, valid_ms).await?;
        Ok(Invitation {
            node: self.0.node.id(),
            addresses: Addresses::of(&mesh.endpoint),
            store: self.0.node.root().id(),
            secret,
            expires_ms,
        })
    }

    /// Returns how each other member is, by key.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let members = self.0.node.members();
        let own = self.0.node.id();
        let others = members
            .iter()
            .map(|(node, _)| *node)
            .filter(|node| *node != own && members.role(node).is_some());
        match self.running().mesh.get() {
            Some(mesh) => others.map(|node| mesh.status(&node)).collect(),
            None => {
                let unknown = Peers::default();
                others.map(|node| unknown.status(&node, None)).collect()
            }
        }
    }

    /// Returns the members that have the entry of `author` at `tip` on disk, as far as they have
    /// said so here. This node is among them when it has it.
    pub fn who_has(&self, store: &Store, author: &Author, tip: FrontierTip) -> Vec<Author> {
        let running = self.running();
        let acks = running.mesh.get().map(|mesh| &mesh.acks);
        let mut nodes = acks.map_or_else(Vec::new, |acks| acks.who_has(&store.id(), author, tip));
        if store.frontier().seq(author) >= tip.seq {
            nodes.push(self.0.node.id());
        }
        nodes.sort_unstable();
        nodes.dedup();
        // Who was removed since has it, and does not count.
        let members = self.0.node.members();
        nodes.retain(|node| members.role(node).is_some());
        nodes
    }

    /// Waits until `members` members, this node among them, have the entry on disk.
    ///
    /// Waits for ever if so many never come; cancel-safe.
    pub async fn wait_for(&self, store: &Store, author: &Author, tip: FrontierTip, members: usize) {
        let running = self.running();
        let mut news = running.mesh.get().map(|mesh| mesh.acks.news());
        while self.who_has(store, author, tip).len() < members {
            match &mut news {
                // The mesh holds the other end.
                Some(news) => drop(news.changed().await),
                None => tokio::time::sleep(NO_PEERS_WAIT).await,
            }
        }
    }

    /// Returns where this node listens; `None`: it does not.
    pub fn addresses(&self) -> Option<Addresses> {
        let running = self.running();
        running.mesh.get().map(|mesh| Addresses::of(&mesh.endpoint))
    }

    /// Dials `node` now, at `addresses` if there are some.
    ///
    /// # Errors
    /// `NetError`.
    pub async fn connect(&self, node: &Author, addresses: Addresses) -> Result<(), NetError> {
        let mesh = self.mesh().await?;
        if !mesh.gate.admits(node) {
            return Err(MeshError::NotAMember { node: *node }.into());
        }
        mesh.peers.found(node, addresses);
        mesh.keep_addresses(node);
        mesh.want_sync(node);
        Ok(())
    }

    /// Stops: connections are closed, tasks end. The node stays open.
    pub async fn stop(&self) {
        let running = self.running();
        running.stop.cancel();
        running.tasks.close();
        running.tasks.wait().await;
        let Some(router) = running.router.get() else {
            return;
        };
        // Peers are told at once; a dial to a node that is not there would be waited for.
        match timeout(ENDPOINT_CLOSE_WAIT, router.shutdown()).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the endpoint did not shut down cleanly"),
        }
    }

    // Between two meshes.
    async fn rest(&self) {
        self.stop().await;
        *self
            .0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }

    fn running(&self) -> Arc<Running> {
        let running = self.0.running.lock();
        Arc::clone(&running.unwrap_or_else(PoisonError::into_inner))
    }

    fn supervise(&self, running: Arc<Running>) {
        let (net, stop) = (self.clone(), running.stop.clone());
        running.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = net.follow_members() => {}
            }
        });
    }

    // Binds when there is somebody to meet; keeps gate and tasks in step with the members.
    async fn follow_members(&self) {
        let mut members = self.0.node.watch_members();
        loop {
            let others = {
                let members = members.borrow_and_update();
                let current = members
                    .iter()
                    .filter(|(node, _)| members.role(node).is_some());
                current.count() > 1 || members.role(&self.0.node.id()).is_none()
            };
            // Also when the last one was removed: the gate must close.
            let bound = self.running().mesh.initialized();
            if bound || others || self.0.node.has_open_invites().await {
                match self.mesh().await {
                    Ok(mesh) => {
                        mesh.meet_members();
                        for store in self.0.node.open_stores() {
                            let before = store.frontier();
                            store.reconsider().await;
                            if store.frontier() != before {
                                mesh.acknowledge(&store);
                                mesh.announce(&store).await;
                            }
                        }
                    }
                    Err(error) => tracing::error!(%error, "no peers"),
                }
            }
            if members.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn mesh(&self) -> Result<Arc<Mesh>, NetError> {
        let running = self.running();
        let mesh = running.mesh.get_or_try_init(|| self.bind(&running)).await?;
        Ok(Arc::clone(mesh))
    }

    async fn bind(&self, running: &Running) -> Result<Arc<Mesh>, NetError> {
        let Inner { node, config, .. } = &*self.0;
        let (gate, known) = (Gate::default(), MemoryLookup::new());
        let seed = node.seed();
        let endpoint = endpoint::bind(config, &seed, gate.clone(), known.clone()).await?;
        let gossip = Gossip::builder()
            .max_message_size(GOSSIP_BYTES_MAX)
            .alpn(GOSSIP_ALPN)
            .spawn(endpoint.clone());
        let mesh = Arc::new(Mesh {
            node: node.clone(),
            endpoint: endpoint.clone(),
            known,
            gossip: gossip.clone(),
            gate,
            peers: Peers::default(),
            acks: Acks::new(node.clock().now_ms()),
            turns: Mutex::default(),
            topics: Mutex::default(),
            kept: Mutex::default(),
            sponsors: Mutex::default(),
            secret: node.mesh_secret(),
            stop: running.stop.clone(),
            tasks: running.tasks.clone(),
        });
        mesh.load_addresses();
        mesh.open_gate();
        let router = Router::builder(endpoint)
            .incoming_filter(Arc::new(|incoming| {
                // A forged source address costs the sender a round trip, and us no handshake.
                if incoming.remote_addr_validated() {
                    IncomingFilterOutcome::Accept
                } else {
                    IncomingFilterOutcome::Retry
                }
            }))
            .accept(HELLO_ALPN, Hello::new(Arc::clone(&mesh)))
            .accept(SYNC_ALPN, Served(Arc::clone(&mesh)))
            .accept(GOSSIP_ALPN, gossip)
            .spawn();
        // Bound once: `mesh` is.
        drop(running.router.set(router));
        let following = Arc::clone(&mesh);
        mesh.spawn(async move { stores::follow(following).await });
        Ok(mesh)
    }
}

impl Mesh {
    fn status(&self, node: &Author) -> PeerStatus {
        let stores = self.node.open_stores();
        let behind: Option<Vec<u64>> = stores
            .iter()
            .map(|store| self.acks.behind(store, node))
            .collect();
        PeerStatus {
            behind: behind.map(|behind| behind.iter().sum()),
            ..self.peers.status(node, self.gate.shut_out_for(node))
        }
    }

    /// Runs a task until it ends, or the net stops.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Lets in who is a member now, and closes the connections of all others.
    fn open_gate(&self) {
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
        self.gate.admit(admitted);
    }

    /// Opens the gate, and a task for each new member.
    fn meet_members(self: &Arc<Self>) {
        self.open_gate();
        for node in self.gate.members() {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if !kept.insert(node) {
                continue;
            }
            let mesh = Arc::clone(self);
            self.spawn(async move {
                peer::keep(Arc::clone(&mesh), node).await;
                let mut kept = mesh.kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.remove(&node);
            });
        }
    }

    /// Lets in who let us in, until the members are known.
    fn trust_sponsor(&self, node: &Author, addresses: Addresses) {
        {
            let mut sponsors = self.sponsors.lock().unwrap_or_else(PoisonError::into_inner);
            sponsors.insert(*node);
        }
        self.peers.found(node, addresses);
        self.keep_addresses(node);
        self.open_gate();
    }

    fn connected(&self) -> Vec<Author> {
        self.peers.online()
    }

    /// Wakes the task of `node`: it syncs, or dials.
    fn want_sync(&self, node: &Author) {
        if self.gate.admits(node) {
            self.peers.wake(node).notify_one();
            self.peers.wanted(node).notify_one();
        }
    }

    /// Wakes the task of some connected peer.
    fn want_sync_any(&self) {
        let online = self.peers.online();
        let count = u64::try_from(online.len()).unwrap_or(1).max(1);
        let index = usize::try_from(self.random() % count).unwrap_or(0);
        if let Some(node) = online.get(index) {
            self.want_sync(node);
        }
    }

    fn add_topic(&self, store: StoreId, sender: GossipSender) -> Arc<Notify> {
        let ack = Arc::new(Notify::new());
        let topic = Topic {
            sender,
            ack: Arc::clone(&ack),
        };
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.insert(store, topic);
        ack
    }

    fn remove_topic(&self, store: &StoreId) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.remove(store);
    }

    fn turn(&self, node: &Author, store: &StoreId) -> Arc<Turn> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry((*node, *store)).or_default())
    }

    /// Lets the others know, soon, that this node has more of `store` on disk.
    fn acknowledge(&self, store: &Store) {
        if let Some(topic) = self.topic(&store.id()) {
            topic.ack.notify_one();
        }
    }

    fn topic(&self, store: &StoreId) -> Option<Topic> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.get(store).cloned()
    }

    /// Asks a peer into every topic. The connection is handed over next.
    async fn join_topics(&self, id: EndpointId) {
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
    async fn announce(&self, store: &Store) {
        if let Some(topic) = self.topic(&store.id()) {
            gossip::announce(self, store, &topic.sender).await;
        }
    }

    // What was kept of peers when this node ran last.
    fn load_addresses(&self) {
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
    fn keep_addresses(&self, node: &Author) {
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

    fn random(&self) -> u64 {
        getrandom::u64().unwrap_or_else(|_no_source| self.node.clock().now_ms())
    }

    // At least 0, below 1.
    fn random_unit(&self) -> f64 {
        let bits = u32::try_from(self.random() >> 32).unwrap_or(0);
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}

// Without an endpoint nobody can say anything; there may be one later.
const NO_PEERS_WAIT: Duration = Duration::from_millis(200);
const HELLO_ALPN: &[u8] = b"lattice/hello/1";
const SYNC_ALPN: &[u8] = b"lattice/sync/1";
const GOSSIP_ALPN: &[u8] = b"lattice/gossip/1";
