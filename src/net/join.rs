//! Joining a mesh, with an event for each step.

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
        error::{JoinError, PeerError, Tried},
        gate::Gate,
        hello,
        mesh::Mesh,
        net::{Inner, Net},
        peer_task, session, stores,
        token::Invitation,
    },
    node::{FormerRoot, OwnData},
    protocol::{membership::role::Role, sync::BaseNeed},
    state::Progress,
    store::Store,
};

/// A step of a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinEvent {
    /// The node that made the invitation was reached.
    Contacted {
        /// That node.
        node: Author,
    },
    /// It has let this node in, durably.
    Accepted {
        /// Role of this node.
        role: Role,
        /// Fate of the root store that this node had.
        former: FormerRoot,
    },
    /// Entries of a store have come.
    Syncing {
        /// That store.
        store: StoreId,
        /// Entries of it so far.
        entries: u64,
        /// How much of a base of it has come, in place of entries that the other node has removed.
        base: Progress,
    },
    /// All stores are in step with the node that invited.
    Synced {
        /// Entries that came, of all stores.
        entries: u64,
    },
}

/// The outcome of a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The root store of the mesh.
    pub store: StoreId,
    /// Role of this node.
    pub role: Role,
    /// Fate of the root store that this node had.
    pub former: FormerRoot,
    /// Entries that came, of all stores.
    pub entries: u64,
}

impl Net {
    /// Joins the mesh of `invitation`, and fetches its stores. `data` is the fate of the stores that
    /// this node has; a reader cannot share any, and keeps them private then. Sends each step to
    /// `events`; a receiver that was dropped does not stop the join.
    ///
    /// After `Accepted`, a join that is cut goes on by itself while the node runs.
    ///
    /// # Errors
    /// `JoinError`. Nothing has changed here before `Accepted`.
    pub async fn join(
        &self,
        invitation: &Invitation,
        data: OwnData,
        events: &mpsc::Sender<JoinEvent>,
    ) -> Result<Joined, JoinError> {
        self.check(invitation)?;
        let admitted = self.redeem(invitation, events).await?;
        self.rest().await;
        let node = &self.0.node;
        let role = admitted.role;
        let data = match (role, data) {
            // A reader lists no stores.
            (Role::Reader, OwnData::Shared) => OwnData::Private,
            _may => data,
        };
        let former = node.adopt_root(admitted.genesis, data).await?;
        send(
            events,
            JoinEvent::Accepted {
                role,
                former: former.clone(),
            },
        )
        .await;
        let mesh = bind::once_free(|| self.mesh()).await?;
        mesh.trust_sponsor(&invitation.node, invitation.addresses.clone());
        let synced = first_sync(&mesh, &invitation.node, events).await;
        // From here on the net runs as after a start, even if the sync was cut.
        self.supervise(self.running());
        let entries = synced.map_err(|why| JoinError::NotSynced { why })?;
        send(events, JoinEvent::Synced { entries }).await;
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
        if invitation.store == node.root().id() && node.removed_by().is_some() {
            return Err(JoinError::Removed);
        }
        if invitation.store == node.root().id() && node.members().role(&node.id()).is_some() {
            return Err(JoinError::Member);
        }
        let (own, members) = (node.id(), node.members());
        match members.others(own).count() {
            // A join that was cut: the root store is that of the mesh already.
            _ if members.role(&own).is_none() => Ok(()),
            0 => Ok(()),
            others => Err(JoinError::HasMembers { others }),
        }
    }

    // Shows the invitation, over an endpoint of its own: this node has no mesh yet.
    async fn redeem(
        &self,
        invitation: &Invitation,
        events: &mpsc::Sender<JoinEvent>,
    ) -> Result<hello::Admitted, JoinError> {
        let Inner { node, config, .. } = &*self.0;
        self.rest().await;
        let id = endpoint_id(&invitation.node).ok_or(JoinError::Unreachable {
            node: invitation.node,
            tried: Tried(invitation.addresses.clone()),
            why: PeerError::NotAKey,
        })?;
        let seed = node.seed();
        let bind = || bind::bind(config, &seed, Gate::default(), MemoryLookup::new());
        let endpoint = bind::once_free(bind).await?;
        let address = invitation.addresses.to_iroh(id);
        let info = node.own_info().await?;
        let redeemed = hello::redeem(&endpoint, address, invitation, &info, async || {
            let node = invitation.node;
            send(events, JoinEvent::Contacted { node }).await;
        })
        .await;
        endpoint.close().await;
        redeemed
    }
}

// Syncs all stores with the sponsor. The root store comes first: it lists the others.
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
    // A member whose disk was lost: its own logs come back with the entries of the others.
    let was_member = root.frontier().seq(&mesh.node.id()) > 0;
    mesh.node.introduce().await.map_err(PeerError::own)?;
    stores::open_listed(mesh).await.map_err(PeerError::own)?;
    if was_member {
        let others = mesh.node.shared_stores().into_iter();
        for store in others.filter(|store| store.id() != root.id()) {
            mesh.hold_own_writes(&store);
        }
    }
    let mut refused = None;
    // The root store again: the keys that this node wrote about itself go to the sponsor.
    for store in mesh.node.shared_stores() {
        match sync_one(mesh, sponsor, &connection, &store, events).await {
            Ok(come) => entries += come,
            // This node brought it. The sponsor opens it once it has the keys that list it, and the
            // net goes on from there.
            Err(PeerError::NoStore) if store.id() != root.id() => {}
            // The other stores need not wait for a base that is not taken.
            Err(error @ PeerError::Base { .. }) => {
                refused.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    refused.map_or(Ok(entries), Err)
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
        let base = store.base_progress().unwrap_or_default();
        // A receiver that is slow sees fewer steps.
        drop(events.try_send(JoinEvent::Syncing {
            store: id,
            entries,
            base,
        }));
    };
    let before = store.status().await.entries;
    let (mut come, mut base_come, mut since) = (0, None, Instant::now());
    loop {
        let session = session::open(mesh, sponsor, connection, store, progress);
        let summary = Box::pin(session).await?;
        let entries = store.status().await.entries.saturating_sub(before);
        match summary.map(|summary| summary.base) {
            // The next session brings the entries after the base.
            Some(BaseNeed::Installed) => continue,
            Some(_in_step) => {
                progress(entries);
                return Ok(entries);
            }
            None => {}
        }
        // The sponsor's own session goes on first. This side tries again as long as something comes.
        let base = store.base_progress();
        if entries > come || base != base_come {
            progress(entries);
            (come, base_come, since) = (entries, base, Instant::now());
        } else if since.elapsed() >= SYNC_WORK_TIMEOUT {
            return Err(PeerError::Busy);
        }
        tokio::time::sleep(SESSION_AGAIN).await;
    }
}

// Time between two attempts while a session of the sponsor goes on.
const SESSION_AGAIN: Duration = Duration::from_millis(50);

async fn send(events: &mpsc::Sender<JoinEvent>, event: JoinEvent) {
    // The join goes on when the receiver was dropped.
    drop(events.send(event).await);
}
