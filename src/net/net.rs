//! The net of one node: bound when there is somebody to meet, stopped with the node.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use iroh::{
    address_lookup::memory::MemoryLookup,
    protocol::{IncomingFilterOutcome, Router},
};
use iroh_gossip::net::Gossip;
use tokio::{runtime::Handle, sync::OnceCell, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    id::{Author, StoreId},
    limits::{
        BIND_AGAIN_MAX, BIND_AGAIN_MIN, CLAIMS_AGAIN, DIAL_TIMEOUT, ENDPOINT_CLOSE_WAIT,
        GOSSIP_BYTES_MAX, KEY_BYTES_MAX, RELAY_WAIT, REPAIR_SYNC_WAIT,
    },
    net::{
        address::Addresses,
        alpn::{GOSSIP_ALPN, HELLO_ALPN, SYNC_ALPN},
        bind,
        compare::{self, Compared},
        config::{NetConfig, Relay},
        error::{CompareError, NetError, PeerError},
        gate::{Gate, STOPPED},
        hello_server::HelloServer,
        members_clock,
        mesh::Mesh,
        own_tip,
        peer_status::PeerStatus,
        peer_table::Peers,
        peer_task::{self, Served},
        pulse, root_task, sleep, stores,
        token::Invitation,
    },
    node::{MeshError, Node},
    protocol::{agreement::Divergence, frontier::FrontierTip, membership::role::Role},
    store::{StateRoot, Store},
};

/// The net of one node. Cheap to clone; all clones are one net.
///
/// [`start`](Self::start) comes first and [`stop`](Self::stop) last, after which no other method is
/// called. In between there are two kinds of methods, in any order:
///
/// - [`invite`](Self::invite), [`join`](Self::join) and [`connect`](Self::connect) change whom this
///   node meets. They bind the endpoint if that was not needed before.
/// - [`peers`](Self::peers), [`who_has`](Self::who_has), [`wait_for`](Self::wait_for) and
///   [`addresses`](Self::addresses) ask. Without an endpoint they answer that there are no peers.
#[derive(Debug, Clone)]
pub struct Net(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) node: Node,
    pub(super) config: NetConfig,
    // The runtime on which all tasks of the net run. It outlives the runtimes of callers.
    runtime: Handle,
    // Replaced when the node joins another mesh, or the endpoint has ended by itself. Never held across an await; no other
    // lock is taken meanwhile.
    pub(super) running: Mutex<Arc<Running>>,
    // Cancelled by `stop`.
    pub(super) stopped: CancellationToken,
}

/// One run of the net, from a start to a stop.
#[derive(Debug, Default)]
pub(super) struct Running {
    // Set by `bind`, when there is a member to meet or an invitation to redeem. Never cleared.
    pub(super) mesh: OnceCell<Arc<Mesh>>,
    // Set together with `mesh`. Owns the accept loop of the endpoint.
    router: OnceCell<Router>,
    // Why the last attempt to set `mesh` failed; `None` before the first one and after a success.
    // Never held across an await.
    trouble: Mutex<Option<String>>,
    // Cancelled when the run is to end; ends all tasks.
    pub(super) stop: CancellationToken,
    // All tasks of this run. Its end waits for theirs.
    tasks: TaskTracker,
}

impl Running {
    fn lock_trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Net {
    /// Starts the net of `node`. The endpoint is bound at once if the node has other members or
    /// open invitations, else as soon as it gets some. Own writes wait until the members within
    /// reach have been compared with this node's own logs: `OWN_TIP_WAIT` at most,
    /// `OWN_TIP_WAIT_MAX` if they give entries back.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(node: Node, config: NetConfig) -> Self {
        let net = Self(Arc::new(Inner {
            node,
            config,
            runtime: Handle::current(),
            running: Mutex::default(),
            stopped: CancellationToken::new(),
        }));
        net.check_own_tip();
        net.supervise(net.running());
        net
    }

    /// Makes an invitation that admits its bearer as `role` within `valid_ms` milliseconds. Durable
    /// on return. With a relay configured, waits up to `RELAY_WAIT` for it to answer.
    ///
    /// # Errors
    /// `NetError`: no endpoint, or this node may not invite.
    pub async fn invite(&self, role: Role, valid_ms: u64) -> Result<Invitation, NetError> {
        let mesh = self.mesh().await?;
        if self.0.config.relay != Relay::Off {
            let online = timeout(RELAY_WAIT, mesh.endpoint.online()).await;
            online.unwrap_or_else(|_elapsed| {
                tracing::warn!(
                    "no relay answers: the invitation works for nodes that reach this one directly"
                );
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

    /// Returns the status of each other member, by key.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let members = self.0.node.members();
        let others = members.others(self.0.node.id());
        match self.running().mesh.get() {
            Some(mesh) => others.map(|node| mesh.status(&node)).collect(),
            None => {
                let unknown = Peers::default();
                others.map(|node| unknown.status(&node, None, 0)).collect()
            }
        }
    }

    /// Returns the members that have acknowledged the entry of `author` at `tip` as on disk, by
    /// key. This node is among them if it has the entry. Reads the log if `author` has forked.
    pub fn who_has(&self, store: &Store, author: &Author, tip: FrontierTip) -> Vec<Author> {
        let running = self.running();
        let acks = running.mesh.get().map(|mesh| &mesh.acks);
        let mut nodes = acks.map_or_else(Vec::new, |acks| acks.who_has(store, author, tip));
        if has(store, author, tip) {
            nodes.push(self.0.node.id());
        }
        nodes.sort_unstable();
        nodes.dedup();
        // A node that was removed since has the entry, but is no member any more.
        let members = self.0.node.members();
        nodes.retain(|node| members.role(node).is_some());
        nodes
    }

    /// Returns the members that have signed another state of `store` than that of this node, for the
    /// same entries and the same acts, by key. One of both has a damaged state, or the member lies.
    pub fn divergences(&self, store: &StoreId) -> Vec<(Author, Divergence)> {
        let running = self.running();
        let mesh = running.mesh.get();
        mesh.map_or_else(Vec::new, |mesh| mesh.roots.divergences(store))
    }

    /// Returns signed acks of other members that have the root of this state of `store`: the last ones
    /// that they sent, as far as those are about the same entries.
    pub fn vouchers(&self, store: &Store, state: &StateRoot) -> Vec<Bytes> {
        let running = self.running();
        let mesh = running.mesh.get();
        mesh.map_or_else(Vec::new, |mesh| {
            mesh.roots.signed(&store.id(), &state.claim())
        })
    }

    /// Compares the state of `store` with that of the member `node`: the keys that begin with `prefix`,
    /// until `differences_max` that differ are found. Dials the member if it is not connected. One round
    /// trip if the states are equal.
    ///
    /// The two states are those of one moment each; entries that are under way make them differ.
    ///
    /// # Errors
    /// `CompareError`: no endpoint, `node` is not a member, or it does not answer; `prefix` is longer
    /// than a key.
    pub async fn compare(
        &self,
        store: &Store,
        node: &Author,
        prefix: Bytes,
        differences_max: usize,
    ) -> Result<Compared, CompareError> {
        if prefix.len() > KEY_BYTES_MAX {
            return Err(CompareError::PrefixTooLong {
                bytes: prefix.len(),
                bytes_max: KEY_BYTES_MAX,
            });
        }
        let mesh = self.mesh().await?;
        if !mesh.gate.admits(node) {
            return Err(NetError::from(MeshError::NotAMember { node: *node }).into());
        }
        let compared = async {
            let connection = peer_task::connect(&mesh, node).await?;
            let asked = (prefix, differences_max);
            compare::open(&mesh, node, &connection, store, asked).await
        };
        let wait = COMPARE_WAIT;
        let compared = timeout(wait, compared).await;
        let compared = compared.unwrap_or(Err(PeerError::Silent { wait }));
        compared.map_err(|why| CompareError::Peer { node: *node, why })
    }

    /// Waits until `members` members, this node among them, have acknowledged the entry of `author`
    /// at `tip` as on disk. Waits for ever if so many never do. Cancel-safe.
    pub async fn wait_for(&self, store: &Store, author: &Author, tip: FrontierTip, members: usize) {
        while self.who_has(store, author, tip).len() < members {
            // A run that ends gives its port to the next one, so it is not held.
            let news = self.running().mesh.get().map(|mesh| mesh.acks.news());
            let Some(mut news) = news else {
                tokio::time::sleep(NO_PEERS_WAIT).await;
                continue;
            };
            // It may have come before `news` began.
            while self.who_has(store, author, tip).len() < members {
                if news.changed().await.is_err() {
                    break;
                }
            }
        }
    }

    /// Syncs with all connected members, for `REPAIR_SYNC_WAIT` at most: then this node knows each
    /// fork of its own log that they know.
    pub async fn catch_up(&self) {
        if let Some(mesh) = self.running().mesh.get() {
            peer_task::sync_all(mesh, REPAIR_SYNC_WAIT).await;
        }
    }

    /// Begins a new run of acks, whose number is greater than that of any copy of this node: the
    /// acks of this node count again at members that have those of the copy.
    ///
    /// # Errors
    /// The number cannot be written to disk.
    pub fn acknowledge_again(&self) -> Result<(), MeshError> {
        let Some(mesh) = self.running().mesh.get().cloned() else {
            // It is a new number at each start.
            return Ok(());
        };
        mesh.acks.begin_again(self.0.node.incarnation()?);
        for store in self.0.node.shared_stores() {
            mesh.acknowledge(&store);
        }
        // Each connection exchanges statuses, which have the acks.
        mesh.peers.online().iter().for_each(|node| {
            mesh.peers.due(node).notify_one();
        });
        Ok(())
    }

    /// Returns why this node does not listen for peers although it should; `None` if it listens, or
    /// has nobody to meet. The net tries again every few seconds.
    pub fn trouble(&self) -> Option<String> {
        let running = self.running();
        let trouble = running.lock_trouble().clone();
        trouble.filter(|_| !running.mesh.initialized())
    }

    /// Returns the addresses of this node. `None` while it has no endpoint.
    pub fn addresses(&self) -> Option<Addresses> {
        let running = self.running();
        running.mesh.get().map(|mesh| Addresses::of(&mesh.endpoint))
    }

    /// Dials the member `node` now, at `addresses` if there are any, else at those that are known.
    ///
    /// Returns before the peer has answered; [`peers`](Self::peers) shows the outcome.
    ///
    /// # Errors
    /// `NetError`: no endpoint, or `node` is not a member.
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

    /// Stops the net: all tasks end, then connections are closed, for `ENDPOINT_CLOSE_WAIT` at
    /// most. The node stays open.
    pub async fn stop(&self) {
        self.0.stopped.cancel();
        self.end(ENDPOINT_CLOSE_WAIT).await;
    }

    /// Stops this run, and waits `close_max` at most for the endpoint.
    pub(super) async fn end(&self, close_max: Duration) {
        let running = self.running();
        running.stop.cancel();
        running.tasks.close();
        running.tasks.wait().await;
        if let Some(mesh) = running.mesh.get() {
            for node in mesh.peers.with_unwritten_addresses() {
                mesh.keep_addresses(&node);
            }
            mesh.gate.hang_up_all(STOPPED);
        }
        let Some(router) = running.router.get() else {
            return;
        };
        // Peers learn of it at once. The timeout is for dials that have not failed yet.
        match timeout(close_max, router.shutdown()).await {
            Ok(Ok(())) => {}
            Err(_elapsed) => tracing::debug!("the endpoint is still closing"),
            Ok(Err(error)) => tracing::warn!(%error, "the endpoint did not shut down cleanly"),
        }
    }

    /// Stops this run and makes a new one ready: the node is between two meshes.
    pub(super) async fn rest(&self) {
        loop {
            let ended = self.running();
            self.end(PORT_WAIT).await;
            let running = self.0.running.lock();
            let mut running = running.unwrap_or_else(PoisonError::into_inner);
            // Another run may have begun meanwhile, after a fault of the endpoint.
            if Arc::ptr_eq(&running, &ended) {
                *running = Arc::default();
                return;
            }
        }
    }

    pub(super) fn running(&self) -> Arc<Running> {
        let running = self.0.running.lock();
        Arc::clone(&running.unwrap_or_else(PoisonError::into_inner))
    }

    /// Spawns the task that keeps `running` in step with the members, until it stops.
    pub(super) fn supervise(&self, running: Arc<Running>) {
        let (net, stop) = (self.clone(), running.stop.clone());
        let follow = async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = net.follow_members() => {}
            }
        };
        running.tasks.spawn_on(follow, &self.0.runtime);
        if self.0.node.is_restored() {
            self.release_restored(&running);
        }
    }

    // Lets a node that was restored from a snapshot write once it is in step with a member. It listens
    // meanwhile, though it may know of no other member: the snapshot may be from before there were any.
    fn release_restored(&self, running: &Arc<Running>) {
        let (net, stop) = (self.clone(), running.stop.clone());
        let release = async move {
            let mesh = match net.mesh().await {
                Ok(mesh) => mesh,
                Err(_no_port) => net.bound().await,
            };
            own_tip::release_restored(&mesh).await;
            if let Err(error) = net.0.node.introduce().await {
                tracing::warn!(%error, "the name of this node was not written");
            }
        };
        let release = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = release => {}
            }
        };
        running.tasks.spawn_on(release, &self.0.runtime);
    }

    // Pauses own writes until the peers within reach have been compared with this node's own logs.
    pub(super) fn check_own_tip(&self) {
        let node = &self.0.node;
        if node.members().others(node.id()).next().is_none() {
            return;
        }
        let stores = node.shared_stores();
        let pause = move || stores.iter().map(Store::pause_writes).collect::<Vec<_>>();
        let mut holds = pause();
        let (net, running) = (self.clone(), self.running());
        let stop = running.stop.clone();
        let check = async move {
            let mesh = match net.mesh().await {
                Ok(mesh) => mesh,
                Err(error) => {
                    tracing::error!(%error, "own logs were not compared with peers yet");
                    // Nobody is within reach until the endpoint is bound.
                    holds.clear();
                    let mesh = net.bound().await;
                    holds = pause();
                    mesh
                }
            };
            own_tip::compare(&mesh).await;
            if !net.0.config.accept_clock {
                members_clock::compare(&mesh).await;
            }
            drop(holds);
        };
        let node = node.clone();
        running.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => return,
                () = check => {}
            }
            if let Err(error) = node.introduce().await {
                tracing::warn!(%error, "the name of this node was not written");
            }
        });
    }

    // Waits until the endpoint is bound, which another task sees to.
    async fn bound(&self) -> Arc<Mesh> {
        loop {
            if let Some(mesh) = self.running().mesh.get() {
                return Arc::clone(mesh);
            }
            tokio::time::sleep(NO_PEERS_WAIT).await;
        }
    }

    // Binds the endpoint when it is needed, again and again if its port is taken. Keeps gate and tasks
    // in step with the members. Never returns.
    async fn follow_members(&self) {
        let mut members = self.0.node.watch_members();
        let mut again = BIND_AGAIN_MIN;
        loop {
            let (mut is_unbound, mut waits) = (false, false);
            let is_mesh = {
                let (own, members) = (self.0.node.id(), members.borrow_and_update());
                let is_new = members.role(&own).is_none() && !members.is_removed(&own);
                members.others(own).next().is_some() && !members.is_removed(&own) || is_new
            };
            // An endpoint that is bound follows also the removal of the last member: the gate
            // closes.
            let is_bound = self.running().mesh.initialized();
            if is_bound || is_mesh || self.0.node.has_open_invites().await {
                match self.mesh().await {
                    Ok(mesh) => {
                        mesh.proven.check_again(&mesh.node.root()).await;
                        mesh.check_removal_again().await;
                        peer_task::meet_members(&mesh);
                        for store in self.0.node.shared_stores() {
                            // Entries that waited for their author's grant may count now, and other
                            // members may miss them.
                            store.reconsider().await;
                            mesh.acknowledge(&store);
                            mesh.announce(&store).await;
                        }
                        match mesh.node.confirm_departures().await {
                            Ok(is_waiting) => waits = is_waiting,
                            Err(error) => {
                                tracing::warn!(%error, "a node that has left was not removed");
                            }
                        }
                    }
                    Err(error) => {
                        is_unbound = true;
                        let ms = again.as_millis();
                        tracing::error!(%error, again_in_ms = ms, "this node has no peers yet");
                    }
                }
            }
            tokio::select! {
                changed = members.changed() => if changed.is_err() {
                    return std::future::pending().await;
                },
                () = tokio::time::sleep(again), if is_unbound => {
                    again = (again * 2).min(BIND_AGAIN_MAX);
                }
                () = tokio::time::sleep(CLAIMS_AGAIN), if waits => {}
            }
        }
    }

    /// Spawns work on the runtime of the net, so that it outlives the caller's runtime.
    #[cfg(feature = "api")]
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.runtime.spawn(work);
    }

    /// Returns the mesh of this run. Binds the endpoint if it is not bound yet.
    pub(super) async fn mesh(&self) -> Result<Arc<Mesh>, NetError> {
        let running = self.running();
        if let Some(mesh) = running.mesh.get() {
            return Ok(Arc::clone(mesh));
        }
        // A task of its own, which goes on when the caller is dropped, and for which `stop` waits: an
        // endpoint that is dropped half bound has its port for a while.
        let (net, of_run) = (self.clone(), Arc::clone(&running));
        let binding = running.tasks.track_future(async move {
            let bind = || net.bind(&of_run);
            let bound = of_run.mesh.get_or_try_init(bind).await;
            let trouble = bound.as_ref().err().map(ToString::to_string);
            *of_run.lock_trouble() = trouble;
            bound.map(Arc::clone)
        });
        let bound = self.0.runtime.spawn(binding).await;
        bound.unwrap_or_else(|error| {
            let what = error.to_string();
            Err(NetError::Bind { what })
        })
    }

    async fn bind(&self, running: &Arc<Running>) -> Result<Arc<Mesh>, NetError> {
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
                // A forged source address costs its sender a round trip, and this node no
                // handshake.
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
        // Set once: `mesh` is initialised once, with this function.
        drop(running.router.set(router));
        // No task of the run, which waits for those to end.
        let revival = self
            .clone()
            .revive(Arc::clone(running), mesh.endpoint.closed());
        self.0.runtime.spawn(revival);
        let (one, other) = (Arc::clone(&mesh), Arc::clone(&mesh));
        let (third, fourth) = (Arc::clone(&mesh), Arc::clone(&mesh));
        mesh.spawn(async move { stores::follow(one).await });
        mesh.spawn(async move { sleep::follow(other).await });
        mesh.spawn(async move { pulse::follow(third).await });
        mesh.spawn(async move { root_task::follow(fourth).await });
        Ok(mesh)
    }
}

// True when the entry of `author` at `tip` is on disk here.
fn has(store: &Store, author: &Author, tip: FrontierTip) -> bool {
    let frontier = store.frontier();
    match frontier.tips(author) {
        [only] => only.seq >= tip.seq,
        tips => {
            let leads = |end: &FrontierTip| store.leads(author, tip, *end).unwrap_or(None);
            tips.iter().any(|end| leads(end) == Some(true))
        }
    }
}

/// Time that an endpoint may take to close before the node binds its port again: a dial that is under
/// way keeps the port until it has ended.
pub(super) const PORT_WAIT: Duration = DIAL_TIMEOUT;
// Longest time of a comparison: its peer serves it for a minute, and the dial comes first.
const COMPARE_WAIT: Duration = Duration::from_secs(90);
// Time between two looks while there is no endpoint, so no ack can come.
const NO_PEERS_WAIT: Duration = Duration::from_millis(200);
