//! Outlook: which entries of a store are final, which may become final, and who is in the way.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    id::Author,
    node::{
        HistoryError, HistoryPolicy, Node,
        history::{branches::several, facts::Facts, points::Point},
    },
    protocol::{
        finality::{AckMissing, NotYet, Watermark},
        frontier::Frontier,
    },
    store::{FoldedBase, ReadError, Store, consumers::HeldHistory},
};

/// The history of a store, as this node sees it.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// The last final entry of each author, as far as they are here.
    pub anchors: Frontier,
    /// Number of the newest anchors act that counts; `None` before the first one.
    pub act: Option<u64>,
    /// Time of that act, in ms since 1970, by its author's clock.
    pub through_ms: Option<u64>,
    /// Entries that could become final now, and who holds the rest; or whose acks are missing.
    pub watermark: Result<Watermark, AckMissing>,
    /// Bytes of the logs here.
    pub log_bytes: u64,
    /// About how many of them are not final.
    pub open_bytes: u64,
    /// About how many of these could become final now.
    pub ready_bytes: u64,
    /// Members that are not waited for.
    pub dormant: BTreeSet<Author>,
    /// The newest base; `None` before the first one.
    pub base: Option<FoldedBase>,
    /// Why final entries cannot be removed yet; empty if they can be, or if there are none.
    pub not_yet: Vec<NotYet>,
    /// Consumers of this node that have not got all final entries.
    pub consumers: Vec<HeldHistory>,
    /// Bytes of the logs that a removal of all final entries would remove.
    pub removable_bytes: u64,
    /// An author with several final branches: as long as there is one, nothing can be removed.
    pub branches: Option<Author>,
}

impl Node {
    /// Returns which entries of `store` are final, which may become so, and who is in the way. `now`: no
    /// entry is too young.
    ///
    /// # Errors
    /// `Root`, `Private`, `Read`.
    pub async fn outlook(
        &self,
        store: &Store,
        policy: &HistoryPolicy,
        now: bool,
    ) -> Result<Outlook, HistoryError> {
        let facts = Arc::new(self.facts(store, policy, now).await?);
        let points = facts.points(store).await?;
        let places = points.iter().map(|point| point.act.act.anchors().clone());
        let mut consumers = store.held_history(places.collect()).await?;
        let (node, store) = (self.clone(), store.clone());
        let looking = tokio::task::spawn_blocking(move || {
            consumers.retain(|held| held.done < points.len());
            node.look(&store, &facts, points.last(), consumers)
        });
        looking.await.map_err(|_panic| HistoryError::Panicked)?
    }

    fn look(
        &self,
        store: &Store,
        facts: &Facts,
        newest_point: Option<&Point>,
        consumers: Vec<HeldHistory>,
    ) -> Result<Outlook, HistoryError> {
        let (root, log_bytes) = (self.root(), store.log_bytes());
        let anchors = facts.finality.last();
        let watermark = facts.grounds().watermark(store.log(), root.log());
        let watermark = watermark.map_err(ReadError::from)?;
        let open_bytes = store.bytes_after(&anchors);
        let ready_bytes = watermark.as_ref().map_or(0, |watermark| {
            open_bytes.saturating_sub(store.bytes_after(&watermark.anchors))
        });
        let newest = facts.acts.first();
        let base = store.folded();
        let not_yet = match newest_point {
            Some(point) => self.reasons_to_keep(store, facts, &point.act)?,
            None => Vec::new(),
        };
        Ok(Outlook {
            branches: several(&anchors),
            anchors,
            act: newest.map(|placed| placed.act.number()),
            through_ms: newest.map(|placed| placed.act.through_ms()),
            watermark,
            log_bytes,
            open_bytes,
            ready_bytes,
            consumers,
            removable_bytes: newest_point.map_or(0, |point| {
                log_bytes.saturating_sub(store.bytes_after(point.act.act.anchors()))
            }),
            dormant: facts.dormant.clone(),
            base,
            not_yet,
        })
    }
}
