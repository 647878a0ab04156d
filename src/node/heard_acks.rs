//! Heard acks: the latest whole ack of each member for each store, and what they prove.
//!
//! They are kept in memory: after a start nothing becomes final before each member that is waited for
//! has sent an ack.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::{
    id::{Author, StoreId},
    log::{LogError, LogReader},
    protocol::{
        ack::Ack,
        finality::{Heard, Proven},
        membership::Members,
    },
};

/// The latest acks of the other members. The net lets only members and open stores in, which bounds it.
#[derive(Debug, Default)]
pub(in crate::node) struct HeardAcks {
    // Never held across an await; no file is read under it, and no other lock taken.
    latest: Mutex<BTreeMap<(StoreId, Author), Ack>>,
    // Held while logs are read. Never held across an await; no other lock is taken meanwhile.
    proven: Mutex<BTreeMap<(StoreId, Author), Proven>>,
}

impl HeardAcks {
    /// Keeps a whole ack that is later than the one of its node and store before. The caller has checked
    /// that it is signed by a member.
    #[cfg(feature = "net")]
    pub(in crate::node) fn hear(&self, ack: &Ack) {
        if ack.is_part {
            return;
        }
        let place = |ack: &Ack| (ack.incarnation, ack.counter);
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = latest.get(&(ack.store, ack.node));
        if known.is_none_or(|known| place(known) < place(ack)) {
            latest.insert((ack.store, ack.node), ack.clone());
        }
    }

    /// Returns what the acks prove that each member has in `store`, and forgets nodes that are no members.
    /// Reads the logs of forked authors.
    ///
    /// # Errors
    /// The disk fails.
    pub(in crate::node) fn proven(
        &self,
        (store, log): (StoreId, &LogReader),
        (root, root_log): (StoreId, &LogReader),
        members: &Members,
    ) -> Result<BTreeMap<Author, Proven>, LogError> {
        let is_member = |node: &Author| members.role(node).is_some();
        let pairs: Vec<(Ack, Ack)> = {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            latest.retain(|(_, node), _| is_member(node));
            let of_store = latest.range(range(store));
            let pair = |((_, node), ack): (&(StoreId, Author), &Ack)| {
                Some((ack.clone(), latest.get(&(root, *node))?.clone()))
            };
            of_store.filter_map(pair).collect()
        };
        let mut all = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, node), _| is_member(node));
        for (ack, of_root) in &pairs {
            let proven = all.entry((store, ack.node)).or_default();
            let heard = proven.hear(ack, of_root, log, root_log)?;
            if heard != Heard::Used {
                tracing::debug!(%store, node = %ack.node.short(), ?heard, "an ack is not used");
            }
        }
        let of_store = all.range(range(store));
        Ok(of_store
            .map(|((_, node), proven)| (*node, proven.clone()))
            .collect())
    }
}

fn range(store: StoreId) -> std::ops::RangeInclusive<(StoreId, Author)> {
    (store, Author([0; 32]))..=(store, Author([0xff; 32]))
}
