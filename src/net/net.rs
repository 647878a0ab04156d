//! The net of one node: bound when there is somebody to meet, stopped with the node.

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

use crate::{
    id::Author,
    limits::{ENDPOINT_CLOSE_WAIT, GOSSIP_BYTES_MAX, RELAY_WAIT},
    net::{
        address::Addresses,
        alpn::{GOSSIP_ALPN, HELLO_ALPN, SYNC_ALPN},
        bind,
        config::{NetConfig, Relay},
        error::NetError,
        gate::Gate,
        hello_server::HelloServer,
        mesh::Mesh,
        own_tip,
        peer_table::{PeerStatus, Peers},
        peer_task::{self, Served},
        sleep, stores,
        token::Invitation,
    },
    node::{MeshError, Node, within},
    protocol::{frontier::FrontierTip, membership::role::Role},
    store::Store,
};

/// The net of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Net(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) node: Node,
    pub(super) config: NetConfig,
    // Where all of it runs, whoever calls.
    runtime: Handle,
    // Another one after a join.
    running: Mutex<Arc<Running>>,
}

/// From a start to a stop.
#[derive(Debug, Default)]
pub(super) struct Running {
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
        net.check_own_tip();
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
        let others = members.others(self.0.node.id());
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
    pub(super) async fn rest(&self) {
        self.stop().await;
        *self
            .0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }

    pub(super) fn running(&self) -> Arc<Running> {
        let running = self.0.running.lock();
        Arc::clone(&running.unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn supervise(&self, running: Arc<Running>) {
        let (net, stop) = (self.clone(), running.stop.clone());
        let follow = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = net.follow_members() => {}
            }
        };
        running.tasks.spawn_on(follow, &self.0.runtime);
    }

    // Own writes wait until the peers that can be reached have sent what they have of this node's
    // own log.
    fn check_own_tip(&self) {
        let node = &self.0.node;
        if node.members().others(node.id()).next().is_none() {
            return;
        }
        let stores = node.open_stores();
        let holds: Vec<_> = stores.iter().map(Store::hold_writes).collect();
        let (net, running) = (self.clone(), self.running());
        let stop = running.stop.clone();
        let check = async move {
            match net.mesh().await {
                Ok(mesh) => own_tip::compare(&mesh).await,
                Err(error) => tracing::error!(%error, "own logs were not compared with peers"),
            }
        };
        running.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = check => {}
            }
            drop(holds);
        });
    }

    // Binds when there is somebody to meet; keeps gate and tasks in step with the members.
    async fn follow_members(&self) {
        let mut members = self.0.node.watch_members();
        loop {
            let is_mesh = {
                let (own, members) = (self.0.node.id(), members.borrow_and_update());
                members.others(own).next().is_some() || members.role(&own).is_none()
            };
            // Also when the last one was removed: the gate must close.
            let is_bound = self.running().mesh.initialized();
            if is_bound || is_mesh || self.0.node.has_open_invites().await {
                match self.mesh().await {
                    Ok(mesh) => {
                        mesh.proven.look_again(&mesh.node.root()).await;
                        peer_task::meet_members(&mesh);
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

    pub(super) async fn mesh(&self) -> Result<Arc<Mesh>, NetError> {
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
            .accept(HELLO_ALPN, HelloServer::new(Arc::clone(&mesh)))
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
