//! The task of one peer: dial it until it answers, then keep in step while it is connected.
//!
//! When to dial, wait and sync is decided by `protocol::peer`.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use iroh::{
    EndpointAddr,
    endpoint::{Connection, RecvStream, SendStream, Side},
    protocol::{AcceptError, ProtocolHandler},
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    id::Author,
    limits::{COPIES_LOOK_MS, COPIES_SYNC_EVERY_MS, DIAL_TIMEOUT, HELLO_TIMEOUT, PEER_SYNCS_MAX},
    net::{
        address::{endpoint_id, node_of},
        alpn::{GOSSIP_ALPN, SYNC_ALPN},
        compare_line, compare_server,
        error::PeerError,
        gate::BUSY,
        hello,
        mesh::Mesh,
        session,
        status::{self, exchange},
    },
    protocol::{
        peer::{DialStep, Dialer, SyncEvent, SyncStep, busy_wait_ms, sync_step},
        sync::BaseNeed,
    },
};

/// Opens the gate, and spawns a task for each node that is let in and has none.
pub(super) fn meet_members(mesh: &Arc<Mesh>) {
    mesh.open_gate();
    for node in mesh.gate.members() {
        let mut kept = mesh.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.insert(node) {
            continue;
        }
        let with = Arc::clone(mesh);
        mesh.spawn(async move {
            keep(Arc::clone(&with), node).await;
            let mut kept = with.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.remove(&node);
        });
    }
}

// Keeps `node` connected and in step until it is not let in any more.
async fn keep(mesh: Arc<Mesh>, node: Author) {
    let wake = mesh.peers.wake(&node);
    let mut dialer = Dialer::default();
    loop {
        let is_admitted = mesh.gate.admits(&node);
        let shut_out_ms = mesh.gate.shut_out_ms(&node);
        match dialer.next(is_admitted, shut_out_ms, mesh.peers.connection(&node)) {
            DialStep::End => return,
            DialStep::Wait(ms) => sleep(ms).await,
            DialStep::Stay(connection) => stay(&mesh, &node, &connection).await,
            DialStep::Dial => {
                let Err(error) = dial(&mesh, &node).await else {
                    continue;
                };
                mesh.peers.failed(&node, error);
                let wait_ms = dialer.on_dial_failed(mesh.random());
                tokio::select! {
                    () = sleep(wait_ms) => {}
                    // The peer has connected itself, an address came, or a sync is wanted.
                    () = wake.notified() => dialer.on_woken(),
                }
            }
        }
    }
}

/// Returns an open connection to `node`; dials if there is none.
///
/// # Errors
/// `PeerError`: the peer was not reached, or refuses.
pub(super) async fn connect(mesh: &Arc<Mesh>, node: &Author) -> Result<Connection, PeerError> {
    if mesh.peers.connection(node).is_none() {
        dial(mesh, node).await?;
    }
    let connection = mesh.peers.connection(node);
    connection.ok_or(PeerError::HungUp)
}

// Dials `node`. If it does not know this node as a member, proves it and dials again.
async fn dial(mesh: &Arc<Mesh>, node: &Author) -> Result<(), PeerError> {
    match reach(mesh, node).await {
        // This node's sponsor may have gone offline before any other member learned of the grant.
        Err(PeerError::NotAMember) => {
            hello::prove(mesh, address(mesh, node)?).await?;
            reach(mesh, node).await
        }
        reached => reached,
    }
}

fn address(mesh: &Mesh, node: &Author) -> Result<EndpointAddr, PeerError> {
    let id = endpoint_id(node).ok_or(PeerError::NotAKey)?;
    Ok(mesh.peers.places(node).to_iroh(id))
}

async fn reach(mesh: &Arc<Mesh>, node: &Author) -> Result<(), PeerError> {
    let address = address(mesh, node)?;
    let dialled = tokio::select! {
        dialled = timeout(DIAL_TIMEOUT, mesh.endpoint.connect(address, SYNC_ALPN)) => dialled,
        // The address may be old. A connection that the peer makes meanwhile is enough.
        () = mesh.peers.comes(node) => return Ok(()),
    };
    let connection = dialled.map_err(|_elapsed| PeerError::Silent { wait: DIAL_TIMEOUT })??;
    // A refused dial succeeds at first; only the exchange shows the refusal.
    let instance = exchange(mesh, node, &connection).await?;
    let served = Arc::clone(mesh);
    if !mesh
        .peers
        .connected(node, connection.clone(), mesh.node.clock().now_ms())
    {
        return Err(PeerError::TooManyConnections);
    }
    runs(mesh, node, &connection, instance);
    mesh.spawn(async move { serve(&served, connection).await });
    // Syncs do not wait for it.
    let (with, to) = (Arc::clone(mesh), *node);
    mesh.spawn(async move { gossip(&with, &to).await });
    Ok(())
}

// Hands gossip a connection: its own dialling gives up for good after one failure.
async fn gossip(mesh: &Arc<Mesh>, node: &Author) {
    let Some(id) = endpoint_id(node) else { return };
    let address = mesh.peers.places(node).to_iroh(id);
    let dialled = timeout(DIAL_TIMEOUT, mesh.endpoint.connect(address, GOSSIP_ALPN)).await;
    match dialled {
        Ok(Ok(connection)) => {
            mesh.topics.join(id).await;
            if let Err(error) = mesh.gossip.handle_connection(connection).await {
                tracing::warn!(%node, %error, "gossip did not take the connection to a peer");
            }
        }
        Ok(Err(error)) => tracing::debug!(%node, %error, "gossip did not connect to a peer"),
        Err(_elapsed) => tracing::debug!(%node, "gossip did not connect to a peer in time"),
    }
}

// Syncs when something asks for it, and now and then, until the connection is closed.
async fn stay(mesh: &Arc<Mesh>, node: &Author, connection: &Connection) {
    let (wanted, due) = (mesh.peers.wanted(node), mesh.peers.due(node));
    let dialled = connection.side() == Side::Client;
    let mut event = SyncEvent::Connected { dialled };
    let mut acknowledged = Instant::now();
    loop {
        event = match sync_step(event, mesh.random()) {
            SyncStep::Sync => match in_step(mesh, node, connection).await {
                Ok(has_changed) => {
                    // The acks of both sides follow at once, also if gossip reaches nobody yet.
                    if has_changed && acknowledged.elapsed() >= ACKNOWLEDGE_EVERY {
                        acknowledged = Instant::now();
                        exchange_and_note(mesh, node, connection).await;
                    }
                    SyncEvent::Synced
                }
                Err(_ended) if connection.close_reason().is_some() => return,
                Err(error) => {
                    mesh.peers.failed(node, error);
                    SyncEvent::Failed
                }
            },
            SyncStep::Rest(ms) => {
                sleep(ms).await;
                SyncEvent::Rested
            }
            SyncStep::Listen(ms) => tokio::select! {
                _reason = connection.closed() => return,
                () = sleep(ms) => SyncEvent::Due,
                () = wanted.notified() => SyncEvent::Wanted,
                () = due.notified() => SyncEvent::Due,
            },
            SyncStep::Exchange => {
                exchange_and_note(mesh, node, connection).await;
                SyncEvent::Exchanged
            }
        };
    }
}

async fn exchange_and_note(mesh: &Arc<Mesh>, node: &Author, connection: &Connection) {
    match exchange(mesh, node, connection).await {
        Ok(instance) => runs(mesh, node, connection, instance),
        Err(error) => mesh.peers.failed(node, error),
    }
}

fn runs(mesh: &Mesh, node: &Author, connection: &Connection, instance: Option<u64>) {
    if let Some(instance) = instance {
        mesh.peers.runs(node, connection.stable_id(), instance);
    }
}

// Syncs over each connection to `node` when several instances of it run: a copy of its data directory
// has its key, and gossip reaches one of them only. A connection to an instance that has died answers
// no status, so it holds no turn to sync.
async fn inform_copies(mesh: &Arc<Mesh>, node: &Author, connection: &Connection) {
    let mut news = mesh.peers.copies(node);
    loop {
        let look = sleep(COPIES_LOOK_MS);
        tokio::select! {
            changed = news.changed() => if changed.is_err() { return },
            () = look, if mesh.peers.runs_twice(node) => {}
        }
        if let Ok(instance) = exchange(mesh, node, connection).await {
            drop(in_step(mesh, node, connection).await);
            tracing::debug!(%node, instance, "a node that runs several times was informed");
        }
        sleep(COPIES_SYNC_EVERY_MS).await;
    }
}

/// Syncs all stores with each connected peer, for `wait` at most.
pub(super) async fn sync_all(mesh: &Arc<Mesh>, wait: Duration) {
    let mut syncs = JoinSet::new();
    for (node, connection) in connections(mesh) {
        let mesh = Arc::clone(mesh);
        syncs.spawn(async move { drop(in_step(&mesh, &node, &connection).await) });
    }
    // Those that have not ended are cut: the peers' own tasks go on.
    let all = async { while syncs.join_next().await.is_some() {} };
    drop(timeout(wait, all).await);
}

/// Syncs all stores with all connected peers, until one of them has all stores and everything is the same
/// there, for `wait` at most. Returns whether one has.
pub(super) async fn in_step_with_one(mesh: &Arc<Mesh>, wait: Duration) -> bool {
    let mut syncs = JoinSet::new();
    for (node, connection) in connections(mesh) {
        let mesh = Arc::clone(mesh);
        syncs.spawn(async move { sync_stores(&mesh, &node, &connection, false).await.is_ok() });
    }
    let one = async {
        while let Some(ended) = syncs.join_next().await {
            if ended.unwrap_or(false) {
                return true;
            }
        }
        false
    };
    timeout(wait, one).await.unwrap_or(false)
}

fn connections(mesh: &Mesh) -> Vec<(Author, Connection)> {
    let online = mesh.peers.online().into_iter();
    let connected = online.filter_map(|node| Some((node, mesh.peers.connection(&node)?)));
    connected.collect()
}

// Syncs all stores that the peer has.
async fn in_step(
    mesh: &Arc<Mesh>,
    node: &Author,
    connection: &Connection,
) -> Result<bool, PeerError> {
    sync_stores(mesh, node, connection, true).await
}

// Syncs all stores, the root store first: it names the members that may write in the others. Returns
// whether entries were exchanged. A store that the peer does not have is an error unless `may_lack`.
async fn sync_stores(
    mesh: &Arc<Mesh>,
    node: &Author,
    connection: &Connection,
    may_lack: bool,
) -> Result<bool, PeerError> {
    let (began, mut has_changed) = (Instant::now(), false);
    let mut refused = None;
    for store in mesh.node.shared_stores() {
        loop {
            let session = session::open(mesh, node, connection, &store, |_entries| {});
            match Box::pin(session).await {
                Ok(Some(summary)) => {
                    has_changed |= summary.sent + summary.received > 0;
                    if summary.base != BaseNeed::Installed {
                        break;
                    }
                    // The next session brings the entries after the base.
                    has_changed = true;
                }
                // The peer opens a listed store soon. The other stores need not wait for it.
                Err(PeerError::NoStore) if may_lack => break,
                // The other stores need not wait for a base that is not taken.
                Err(error @ PeerError::Base { .. }) => {
                    refused.get_or_insert(error);
                    break;
                }
                Err(error) => return Err(error),
                // The peer's own session does the same work. This side is in step when it has
                // ended.
                Ok(None) => match busy_wait_ms(ms(began.elapsed())) {
                    Some(wait_ms) => sleep(wait_ms).await,
                    None => return Err(PeerError::Busy),
                },
            }
        }
    }
    mesh.peers.seen(node, mesh.node.clock().now_ms(), None);
    if let Some(error) = refused {
        return Err(error);
    }
    mesh.peers.synced(node);
    Ok(has_changed)
}

/// Serves the sync protocol. The gate lets only members reach it.
#[derive(Debug, Clone)]
pub(super) struct Served(pub(super) Arc<Mesh>);

impl ProtocolHandler for Served {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let mesh = &self.0;
        let node = node_of(&connection.remote_id());
        let now_ms = mesh.node.clock().now_ms();
        if !mesh.peers.connected(&node, connection.clone(), now_ms) {
            let (code, reason) = BUSY;
            connection.close(code.into(), reason);
            return Ok(());
        }
        serve(mesh, connection).await;
        Ok(())
    }
}

// Answers the streams that the peer opens, each in a task, until the connection is closed.
async fn serve(mesh: &Arc<Mesh>, connection: Connection) {
    let node = node_of(&connection.remote_id());
    tokio::select! {
        () = answer_all(mesh, &node, &connection) => {}
        () = inform_copies(mesh, &node, &connection) => {}
    }
    mesh.peers.wake(&node).notify_one();
}

async fn answer_all(mesh: &Arc<Mesh>, node: &Author, connection: &Connection) {
    let (node, id) = (*node, connection.stable_id());
    while let Ok((send, receive)) = connection.accept_bi().await {
        let (mesh, connection) = (Arc::clone(mesh), connection.weak_handle());
        mesh.clone().spawn(async move {
            if let Err(error) = answer(&mesh, &node, id, send, receive).await {
                tracing::debug!(%node, %error, "a stream of a peer failed");
                let connection = connection.upgrade();
                // A stream that ends because its connection was closed is not an error of the peer.
                if connection.is_some_and(|connection| connection.close_reason().is_none()) {
                    mesh.peers.failed(&node, error);
                }
            }
        });
    }
}

// Answers one stream of the connection `id`. Its first byte is its kind.
async fn answer(
    mesh: &Arc<Mesh>,
    node: &Author,
    id: usize,
    mut send: SendStream,
    mut receive: RecvStream,
) -> Result<(), PeerError> {
    let (wait, mut kind) = (HELLO_TIMEOUT, [0]);
    timeout(wait, receive.read_exact(&mut kind))
        .await
        .map_err(|_elapsed| PeerError::Silent { wait })??;
    match kind {
        [status::STREAM] => {
            if let Some(instance) = status::answer(mesh, node, send, receive).await? {
                mesh.peers.runs(node, id, instance);
            }
            Ok(())
        }
        [session::STREAM] => match mesh.peers.begin_sync(node) {
            Some(_slot) => session::accept(mesh, node, send, receive).await,
            None => {
                let (code, _reason) = BUSY;
                drop(send.reset(code.into()));
                Err(PeerError::TooManySyncs {
                    syncs_max: PEER_SYNCS_MAX,
                })
            }
        },
        [compare_line::STREAM] => compare_server::accept(mesh, node, send, receive).await,
        [_other] => {
            let what = "an unknown kind of stream";
            mesh.strike(node, what);
            Err(PeerError::Malformed { what })
        }
    }
}

async fn sleep(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

// Least time between two exchanges of statuses that syncs cause.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_millis(500);

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
