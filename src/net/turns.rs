//! The turns of this node with its peers: one for each peer and store.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    id::{Author, StoreId},
    protocol::sync::{self, Decision},
};

/// The turn with each peer in each store.
#[derive(Debug, Default)]
pub(super) struct Turns(
    // Bounded by members and stores. Never held across an await; no other lock is taken meanwhile.
    Mutex<BTreeMap<(Author, StoreId), Arc<Turn>>>,
);

/// The turn with one peer in one store; the rule is `protocol::sync::Turn`.
///
/// Own sessions wait in it until they may open, sessions that the peer has opened until they are
/// decided. Each change wakes all of them.
#[derive(Debug, Default)]
pub(super) struct Turn(watch::Sender<sync::Turn>);

impl Turns {
    /// Returns the turn with `node` in `store`.
    pub(super) fn of(&self, node: &Author, store: &StoreId) -> Arc<Turn> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry((*node, *store)).or_default())
    }
}

impl Turn {
    /// Waits until this node may open a session, and notes that it does.
    ///
    /// Cancel safe: a session that was not returned was not noted.
    pub(super) async fn open(&self) -> Own<'_> {
        let mut changes = self.0.subscribe();
        loop {
            let opens = self.0.send_if_modified(|rule| {
                let may_open = rule.may_open();
                if may_open {
                    rule.opened();
                }
                may_open
            });
            if opens {
                return Own(self);
            }
            // The sender is `self`, so the channel is open.
            drop(changes.changed().await);
        }
    }

    /// Waits until a session that `peer` has opened is decided. `None`: it is refused, because the
    /// session that the node `own` has opened does the same work.
    ///
    /// Cancel safe, as `open` is.
    pub(super) async fn serve(&self, own: &Author, peer: &Author) -> Option<Served<'_>> {
        let came = Instant::now();
        let mut changes = self.0.subscribe();
        loop {
            let waited_ms = u64::try_from(came.elapsed().as_millis()).unwrap_or(u64::MAX);
            let mut decision = Decision::Refuse;
            self.0.send_if_modified(|rule| {
                decision = rule.on_peer_opens(own, peer, 0, waited_ms);
                decision == Decision::Serve
            });
            match decision {
                Decision::Serve => return Some(Served(self)),
                Decision::Refuse => return None,
                Decision::WaitUntil(ms) => {
                    let until = came + Duration::from_millis(ms);
                    drop(timeout_at(until, changes.changed()).await);
                }
            }
        }
    }
}

/// A session that this node has opened, noted in the turn. Dropped when it has ended.
#[must_use]
pub(super) struct Own<'a>(&'a Turn);

impl Own<'_> {
    /// Notes that the peer has sent a message in it.
    pub(super) fn answered(&self) {
        self.0.0.send_modify(sync::Turn::answered);
    }
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(sync::Turn::over);
    }
}

/// A session of the peer that this node serves, noted in the turn. Dropped when it has ended.
#[must_use]
pub(super) struct Served<'a>(&'a Turn);

impl Drop for Served<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(sync::Turn::served);
    }
}
