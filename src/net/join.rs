//! Joining a mesh, step by step, for somebody who looks on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use iroh::address_lookup::memory::MemoryLookup;
use tokio::sync::mpsc;

use crate::{
    id::{Author, StoreId},
    limits::SYNC_WORK_TIMEOUT,
    net::{
        address::endpoint_id,
        bind,
        error::{JoinError, PeerError},
        gate::Gate,
        hello,
        mesh::Mesh,
        net::{Inner, Net},
        peer_task, session, stores,
        token::Invitation,
    },
    node::FormerRoot,
    protocol::membership::role::Role,
    store::Store,
};

/// How far a join has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinEvent {
    /// The node that invited answers.
    Contacted {
        /// Which.
        node: Author,
    },
    /// It has let this node in, durably.
    Accepted {
        /// What this node may do.
        role: Role,
        /// What became of the root store that it had.
        former: FormerRoot,
    },
    /// Entries of a store have come.
    Syncing {
        /// Which store.
        store: StoreId,
        /// How many up to now.
        entries: u64,
    },
    /// All stores are in step with the node that invited.
    Synced {
        /// Entries that came, over all stores.
        entries: u64,
    },
}

/// What a join came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The root store.
    pub store: StoreId,
    /// What this node may do.
    pub role: Role,
    /// What became of the root store that it had.
    pub former: FormerRoot,
    /// Entries that came.
    pub entries: u64,
}

impl Net {
    /// Joins the mesh that `invitation` is to, and fetches what it has. `events` hears of each step.
    ///
    /// Once `Accepted` was told, a join that is cut goes on when the node runs.
    ///
    /// # Errors
    /// `JoinError`. Nothing has changed here before `Accepted`.
    pub async fn join(
        &self,
        invitation: &Invitation,
        events: &mpsc::Sender<JoinEvent>,
    ) -> Result<Joined, JoinError> {
        self.check(invitation)?;
        let admitted = self.redeem(invitation, events).await?;
        self.rest().await;
        let node = &self.0.node;
        let former = node.adopt_root(admitted.genesis).await?;
        let role = admitted.role;
        tell(
            events,
            JoinEvent::Accepted {
                role,
                former: former.clone(),
            },
        )
        .await;
        let mesh = self.mesh().await?;
        mesh.trust_sponsor(&invitation.node, invitation.addresses.clone());
        let synced = first_sync(&mesh, &invitation.node, events).await;
        // From here on as after a start, also where the sync was cut.
        self.supervise(self.running());
        let entries = synced.map_err(|why| JoinError::NotSynced { why })?;
        tell(events, JoinEvent::Synced { entries }).await;
        Ok(Joined {
            store: invitation.store,
            role,
            former,
            entries,
        })
    }

    fn check(&self, invitation: &Invitation) -> Result<(), JoinError> {
        let node = &self.0.node;
        if invitation.node == node.id() {
            return Err(JoinError::Own);
        }
        if invitation.store == node.root().id() && node.members().role(&node.id()).is_some() {
            return Err(JoinError::Member);
        }
        let (own, members) = (node.id(), node.members());
        match members.others(own).count() {
            _of_a_join_that_was_cut if members.role(&own).is_none() => Ok(()),
            0 => Ok(()),
            others => Err(JoinError::HasMembers { others }),
        }
    }

    // With an endpoint of its own: this node has no mesh to speak for yet.
    async fn redeem(
        &self,
        invitation: &Invitation,
        events: &mpsc::Sender<JoinEvent>,
    ) -> Result<hello::Admitted, JoinError> {
        let Inner { node, config, .. } = &*self.0;
        self.rest().await;
        let id = endpoint_id(&invitation.node).ok_or(JoinError::Unreachable {
            node: invitation.node,
            why: PeerError::NotAKey,
        })?;
        let endpoint =
            bind::bind(config, &node.seed(), Gate::default(), MemoryLookup::new()).await?;
        let address = invitation.addresses.to_iroh(id);
        let redeemed = hello::redeem(&endpoint, address, invitation, async || {
            let node = invitation.node;
            tell(events, JoinEvent::Contacted { node }).await;
        })
        .await;
        endpoint.close().await;
        redeemed
    }
}

// The root store first: it says which others there are.
async fn first_sync(
    mesh: &Arc<Mesh>,
    sponsor: &Author,
    events: &mpsc::Sender<JoinEvent>,
) -> Result<u64, PeerError> {
    let connection = peer_task::connect(mesh, sponsor).await?;
    let root = mesh.node.root();
    let mut entries = sync_one(mesh, sponsor, &connection, &root, events).await?;
    if mesh.node.members().role(&mesh.node.id()).is_none() {
        return Err(PeerError::NotAMember);
    }
    mesh.node.introduce().await.map_err(PeerError::own)?;
    stores::open_listed(mesh).await.map_err(PeerError::own)?;
    // What this node has said of itself goes back, too.
    for store in mesh.node.open_stores() {
        entries += sync_one(mesh, sponsor, &connection, &store, events).await?;
    }
    Ok(entries)
}

async fn sync_one(
    mesh: &Arc<Mesh>,
    sponsor: &Author,
    connection: &iroh::endpoint::Connection,
    store: &Store,
    events: &mpsc::Sender<JoinEvent>,
) -> Result<u64, PeerError> {
    let id = store.id();
    let progress = |entries| {
        // Who looks on slowly sees fewer steps.
        drop(events.try_send(JoinEvent::Syncing { store: id, entries }));
    };
    let before = store.status().await.entries;
    let (mut come, mut since) = (0, Instant::now());
    loop {
        let summary = session::open(mesh, sponsor, connection, store, progress).await?;
        let entries = store.status().await.entries.saturating_sub(before);
        if summary.is_some() {
            return Ok(entries);
        }
        // The sponsor has opened one itself: this one comes after it, as long as it gets on.
        if entries > come {
            progress(entries);
            (come, since) = (entries, Instant::now());
        } else if since.elapsed() >= SYNC_WORK_TIMEOUT {
            return Err(PeerError::Busy);
        }
        tokio::time::sleep(SESSION_AGAIN).await;
    }
}

/// Between two looks whether a session of the other side is over.
const SESSION_AGAIN: Duration = Duration::from_millis(50);

async fn tell(events: &mpsc::Sender<JoinEvent>, event: JoinEvent) {
    // Nobody looks on any more: the join goes on all the same.
    drop(events.send(event).await);
}
