//! The latest announcement of each member in each store.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::{
    id::{Author, StoreId},
    protocol::announce::Announce,
};

/// The place of the latest announcement of each member in each store. An earlier one that somebody
/// sends again is passed over.
#[derive(Debug, Default)]
pub(super) struct Announced(
    // Callers let only members and open stores in, which bounds it. Never held across an await; no
    // other lock is taken meanwhile.
    Mutex<BTreeMap<(StoreId, Author), (u64, u64)>>,
);

impl Announced {
    /// Returns whether `announce` is later than the latest one.
    pub(super) fn is_news(&self, announce: &Announce) -> bool {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = latest.get(&(announce.store, announce.node));
        known.is_none_or(|known| *known < announce.place())
    }

    /// Notes `announce`, whose signature was checked. False when it is not later than the latest
    /// one.
    pub(super) fn take(&self, announce: &Announce) -> bool {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (announce.store, announce.node);
        let known = latest.get(&place);
        let is_news = known.is_none_or(|known| *known < announce.place());
        if is_news {
            latest.insert(place, announce.place());
        }
        is_news
    }
}
