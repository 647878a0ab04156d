//! The net: members of one mesh find each other, and what one writes the others get.
//!
//! ```text
//! gate        who gets a connection, on any protocol
//! hello       an invitation is shown and redeemed; a membership that is news is proven
//! peer        one task for each member: dial, sync, again
//! mesh        what their tasks share
//! session     a sync of one store over one stream; the rules are in `protocol::sync`
//! gossip      what was just written, to everybody, as a hint
//! sleep       a machine that wakes up dials everybody
//! ```
//! A node without members or open invitations has no endpoint: it neither listens nor announces.

mod acks;
mod bind;
mod config;
mod error;
mod gate;
mod gossip;
mod hello;
mod join;
mod mesh;
mod own_tip;
mod peer_table;
mod peer_task;
mod proven;
mod session;
mod sleep;
mod stores;
mod token;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use iroh::{
    address_lookup::memory::MemoryLookup,
    protocol::{IncomingFilterOutcome, Router},
};
use iroh_gossip::net::Gossip;
use tokio::{runtime::Handle, sync::OnceCell, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use bind::Addresses;
pub use config::{NetConfig, Relay};
pub use error::PeerError;
pub use join::{JoinError, JoinEvent, Joined};
pub use peer_table::PeerStatus;
pub use token::{Invitation, InvitationError};

use crate::{
    id::Author,
    limits::{ENDPOINT_CLOSE_WAIT, GOSSIP_BYTES_MAX, RELAY_WAIT},
    net::{
        gate::Gate,
        hello::Hello,
        mesh::{Mesh, Turn},
        peer_table::Peers,
        peer_task::Served,
    },
    node::{MeshError, Node, within},
    protocol::{frontier::FrontierTip, membership::role::Role},
    store::Store,
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
    // Where all of it runs, whoever calls.
    runtime: Handle,
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

impl Net {
    /// Starts the net of `node`: at once when it has members or open invitations, else when it
    /// gets some. Own writes wait, for seconds at most, until the members that can be reached have
    /// said what they have of this node's own log.
    pub fn start(node: Node, config: NetConfig) -> Self {
        let net = Self(Arc::new(Inner {
            node,
            config,
            runtime: Handle::current(),
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
        if self.0.config.relay != Relay::Off {
            let online = timeout(RELAY_WAIT, mesh.endpoint.online()).await;
            online.unwrap_or_else(|_elapsed| {
                tracing::warn!("no relay answers: the invitation is good for nodes nearby");
            });
        }
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
        let follow = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = net.follow_members() => {}
            }
        };
        running.tasks.spawn_on(follow, &self.0.runtime);
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
                        mesh.proven.look_again(&mesh.node.root()).await;
                        mesh.meet_members();
                        for store in self.0.node.open_stores() {
                            // What had waited for a member is here now, and others lack it.
                            store.reconsider().await;
                            mesh.acknowledge(&store);
                            mesh.announce(&store).await;
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

    /// Runs work of the net where all of it runs, whoever asks for it.
    #[cfg(feature = "api")]
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.runtime.spawn(work);
    }

    async fn mesh(&self) -> Result<Arc<Mesh>, NetError> {
        let running = self.running();
        let bind = || within(&self.0.runtime, self.bind(&running));
        let mesh = running.mesh.get_or_try_init(bind).await?;
        Ok(Arc::clone(mesh))
    }

    async fn bind(&self, running: &Running) -> Result<Arc<Mesh>, NetError> {
        let Inner { node, config, .. } = &*self.0;
        let (gate, known) = (Gate::default(), MemoryLookup::new());
        let seed = node.seed();
        let endpoint = bind::bind(config, &seed, gate.clone(), known.clone()).await?;
        let gossip = Gossip::builder()
            .max_message_size(GOSSIP_BYTES_MAX)
            .alpn(GOSSIP_ALPN)
            .spawn(endpoint.clone());
        let ends = (running.stop.clone(), running.tasks.clone());
        let mesh = Mesh::new(node, &endpoint, known, &gossip, gate, ends)?;
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
        let (one, other) = (Arc::clone(&mesh), Arc::clone(&mesh));
        mesh.spawn(async move { stores::follow(one).await });
        mesh.spawn(async move { sleep::follow(other).await });
        Ok(mesh)
    }
}

// Without an endpoint nobody can say anything; there may be one later.
const NO_PEERS_WAIT: Duration = Duration::from_millis(200);
const HELLO_ALPN: &[u8] = b"lattice/hello/1";
const SYNC_ALPN: &[u8] = b"lattice/sync/1";
const GOSSIP_ALPN: &[u8] = b"lattice/gossip/1";
