//! The state of a member that the user has chosen in place of that of this node.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use iroh::endpoint::Connection;

use crate::{
    id::Author,
    net::{
        base_refusal::BaseRefusal,
        error::{NetError, PeerError, TakeStateError},
        mesh::Mesh,
        net::Net,
        peer_task, session,
    },
    node::MeshError,
    protocol::{
        peer::busy_wait_ms,
        sync::{BaseNeed, BaseWish, Summary},
    },
    store::Store,
};

impl Net {
    /// Takes the state of `store` from the member `node` in place of that here: its base, whatever admins
    /// say of it, and the entries after it. For two nodes that have the same entries and another state, and
    /// for a node that lacks entries of which no act that counts has a base. `node` must have removed
    /// history, or made it final. Durable on return; a dropped call may still have done it.
    ///
    /// # Errors
    /// `TakeStateError`; the state is as before, unless it was the connection that broke at the end.
    pub async fn take_state(&self, store: &Store, node: &Author) -> Result<(), TakeStateError> {
        let mesh = self.mesh().await?;
        if !mesh.gate.admits(node) {
            return Err(NetError::from(MeshError::NotAMember { node: *node }).into());
        }
        take_state(&mesh, node, store).await
    }
}

// Takes the base of `node` in place of the state of `store` here, and then the entries after it.
async fn take_state(mesh: &Arc<Mesh>, node: &Author, store: &Store) -> Result<(), TakeStateError> {
    let failed = |why| TakeStateError::Peer { node: *node, why };
    let connection = peer_task::connect(mesh, node).await.map_err(failed)?;
    let choice = store.choose_state_of(*node);
    let synced = sync_once(mesh, node, &connection, store).await;
    let is_chosen = store.base_wish(node) == BaseWish::Only;
    drop(choice);
    let refused = match synced {
        Ok(summary) if summary.base == BaseNeed::Installed => None,
        Err(PeerError::Base { why }) if is_chosen => Some(why),
        Ok(_) | Err(PeerError::Base { .. }) => Some(BaseRefusal::OtherChosen),
        Err(why) => return Err(failed(why)),
    };
    if let Some(why) = refused {
        return Err(TakeStateError::Base { node: *node, why });
    }
    let synced = sync_once(mesh, node, &connection, store).await;
    synced.map(drop).map_err(failed)
}

// Syncs one store, after a session that the peer has opened.
async fn sync_once(
    mesh: &Arc<Mesh>,
    node: &Author,
    connection: &Connection,
    store: &Store,
) -> Result<Summary, PeerError> {
    let began = Instant::now();
    loop {
        let session = session::open(mesh, node, connection, store, |_entries| {});
        if let Some(summary) = Box::pin(session).await? {
            return Ok(summary);
        }
        let waited_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match busy_wait_ms(waited_ms) {
            Some(wait_ms) => tokio::time::sleep(Duration::from_millis(wait_ms)).await,
            None => return Err(PeerError::Busy),
        }
    }
}
