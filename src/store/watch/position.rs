//! Where a watch stands, and how each change it delivers moves it.

use std::sync::Arc;

use crate::{
    bus::Published,
    id::StoreId,
    protocol::{
        change::{Change, Kind},
        cursor::{Cursor, Partial},
        frontier::{Frontier, FrontierTip},
    },
};

/// Everything in `frontier`, some ops of one entry more, and the expiries through a time.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Position {
    pub(in crate::store) frontier: Arc<Frontier>,
    pub(in crate::store) partial: Option<Partial>,
    pub(in crate::store) expired_through_ms: u64,
    /// True while the changes passed last are not covered: in the middle of what is never split.
    pub(in crate::store) inside: bool,
}

impl Position {
    pub(in crate::store) fn of(published: &Published) -> Self {
        Self {
            frontier: Arc::clone(&published.frontier),
            partial: None,
            expired_through_ms: published.expired_through_ms,
            inside: false,
        }
    }

    pub(in crate::store) fn after(cursor: &Cursor) -> Self {
        Self {
            frontier: Arc::new(cursor.frontier.clone()),
            partial: cursor.partial,
            expired_through_ms: cursor.expired_through_ms,
            inside: false,
        }
    }

    /// Returns it as others may read it.
    pub(in crate::store) fn cursor(&self, store: StoreId) -> Cursor {
        Cursor {
            store,
            frontier: Frontier::clone(&self.frontier),
            partial: self.partial,
            expired_through_ms: self.expired_through_ms,
        }
    }

    /// Moves to where all of `published` was told. Its time does not go back on a node whose clock
    /// is behind that of the one before.
    pub(super) fn reach(&mut self, published: &Published) {
        let told_ms = self.expired_through_ms;
        *self = Self::of(published);
        self.expired_through_ms = self.expired_through_ms.max(told_ms);
    }

    /// Moves to what was published, and never back: that lags behind the batches that tell it.
    pub(super) fn catch_up(&mut self, published: &Published) {
        let lacks = published.frontier.missing_from(&self.frontier);
        if lacks.is_empty() {
            self.expired_through_ms = self.expired_through_ms.max(published.expired_through_ms);
        } else {
            self.reach(published);
        }
    }

    /// Moves past the last change of `passed`: `next` is what follows it in the piece, after which
    /// `then` holds.
    pub(super) fn pass(
        &mut self,
        passed: &[Arc<Change>],
        next: Option<&Arc<Change>>,
        then: &Published,
    ) {
        let Some(next) = next else {
            return self.reach(then);
        };
        if self.is_lapse(next) {
            // It stays together with the values that it is of.
            self.inside = true;
            return;
        }
        let mut passed = passed.iter().rev();
        let Some(change) = passed.find(|change| !self.is_lapse(change)) else {
            return;
        };
        if change.kind == Kind::Expire {
            // Expiries of one millisecond stay together.
            let (Some(ms), next_ms) = (change.expires_ms, next.expires_ms) else {
                return;
            };
            self.inside = next.kind == Kind::Expire && next_ms.is_some_and(|next_ms| next_ms <= ms);
            if !self.inside {
                self.expired_through_ms = self.expired_through_ms.max(ms);
            }
            return;
        }
        if change.kind == Kind::Retract {
            // What it says of an entry does not say how far this is; all of them are one.
            self.inside = next.kind == Kind::Retract;
            return;
        }
        let tip = FrontierTip {
            seq: change.entry.seq,
            id: change.entry.id,
        };
        let goes_on = !matches!(next.kind, Kind::Expire | Kind::Retract);
        if goes_on && next.entry.id == change.entry.id {
            // Inside an entry; an atomic one is passed whole or not at all.
            self.inside = change.atomic;
            if !change.atomic {
                let ops = change.op_index.saturating_add(1);
                self.partial = Some(Partial {
                    author: change.entry.author,
                    tip,
                    ops,
                });
            }
            return;
        }
        let author = change.entry.author;
        let frontier = Arc::make_mut(&mut self.frontier);
        if then.frontier.tips(&author).len() > 1 {
            frontier.advance(author, change.prev, tip);
        } else {
            // Entries before it that do not match were passed over, `prev` may be one of them.
            frontier.replace(author, tip);
        }
        self.partial = None;
        self.inside = false;
    }
}
