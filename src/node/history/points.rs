//! Points: places through which final entries can be removed. Each is that of one act, for all authors.

use std::sync::Arc;

use crate::{
    id::Author,
    log::{LogError, LogReader},
    node::{
        HistoryError,
        history::{branches::several, facts::Facts},
    },
    protocol::{
        anchors_act::{ActBase, AnchorsAct},
        finality::DropPoint,
        frontier::{Frontier, FrontierTip},
        placed_act::PlacedAct,
    },
    store::{FoldedBase, ReadError, Store},
};

/// A place through which final entries can be removed.
#[derive(Debug, Clone)]
pub(super) struct Point {
    /// The act whose anchors it is. It names a base.
    pub(super) act: Arc<PlacedAct>,
    pub(super) rule: DropPoint,
}

impl Facts {
    /// Returns the points after the places where the logs of `store` begin, the oldest first. Each has all
    /// entries of those before it: of acts that two admins made at one time, one is left out.
    ///
    /// # Errors
    /// `Read`, `Panicked`.
    pub(super) async fn points(
        self: &Arc<Self>,
        store: &Store,
    ) -> Result<Vec<Point>, HistoryError> {
        let (facts, store) = (Arc::clone(self), store.clone());
        let looking = tokio::task::spawn_blocking(move || facts.find_points(&store));
        let points = looking.await.map_err(|_panic| HistoryError::Panicked)?;
        Ok(points.map_err(ReadError::from)?)
    }

    fn find_points(&self, store: &Store) -> Result<Vec<Point>, LogError> {
        let last = self.finality.last();
        // More entries than these are not final; nothing removes them.
        let open_bytes = store.bytes_after(&last);
        let (mut points, mut before) = (Vec::new(), last);
        let begins = store.begins();
        for act in &self.acts {
            let anchors = act.act.anchors();
            let is_point = act.act.base().is_some()
                && several(anchors).is_none()
                && covers(&before, anchors)
                && covers(anchors, &begins)
                && !covers(&begins, anchors);
            if is_point {
                // By the clock of its admin, nothing that it made final came after it. Where that clock is
                // behind, the entries themselves came later.
                let mut arrived_ms = act.act.through_ms();
                for (author, anchor) in anchors.iter() {
                    arrived_ms = arrived_ms.max(arrival(store.log(), &author, anchor)?);
                }
                let rule = DropPoint {
                    arrived_ms,
                    bytes_left: store.bytes_after(anchors).saturating_sub(open_bytes),
                };
                let act = Arc::clone(act);
                points.push(Point { act, rule });
                before = anchors.clone();
            }
        }
        points.reverse();
        Ok(points)
    }

    /// Returns the base that admins name for the anchors of `folded`; `None` if no act that counts has them.
    pub(super) fn named(&self, folded: &FoldedBase) -> Option<ActBase> {
        let named = || {
            let acts = self.acts.iter().map(|placed| &placed.act);
            let acts = acts.filter(|act| *act.anchors() == folded.anchors);
            acts.filter_map(AnchorsAct::base)
        };
        let mut same = named().filter(|base| *base == folded.base);
        same.next().or_else(|| named().next())
    }
}

/// Returns when the entry of `author` at `place` arrived here, in ms since 1970; 0 if it is not here or
/// cannot be read.
///
/// # Errors
/// `Io`, `NoDescriptor`.
pub(super) fn arrival(
    log: &LogReader,
    author: &Author,
    place: FrontierTip,
) -> Result<u64, LogError> {
    let arrived = log.arrived_ms(author, place);
    match arrived {
        Err(LogError::Damaged(_)) => Ok(0),
        arrived => Ok(arrived?.unwrap_or(0)),
    }
}

/// Returns whether `anchors` are at or after `other`, for every author. Both have one branch of each author.
pub(super) fn covers(anchors: &Frontier, other: &Frontier) -> bool {
    let mut places = other.iter();
    places.all(|(author, tip)| anchors.seq(&author) >= tip.seq)
}
