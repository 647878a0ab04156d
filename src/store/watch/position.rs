//! The position of a watch, and how each change that it delivers moves it.

use std::sync::Arc;

use crate::{
    bus::Published,
    id::{Author, StoreId},
    limits::DRIFT_MS_MAX,
    protocol::{
        change::{Change, EntryRef, Kind},
        cursor::{Cursor, Partial},
        frontier::{Frontier, FrontierTip},
    },
};

/// A set of delivered changes: every entry of `frontier`, the first ops of one more entry, and the
/// expiries through a time.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Position {
    pub(in crate::store) frontier: Arc<Frontier>,
    /// An entry after the frontier of which the first ops were delivered. `pass` never sets it to
    /// an atomic entry.
    pub(in crate::store) partial: Option<Partial>,
    /// Inclusive, ms since 1970. It does not go back on a replica whose clock is behind, unless it is
    /// further ahead than any clock may be: see `forget_wrong_time`.
    pub(in crate::store) expired_through_ms: u64,
    /// True while the position does not cover the last delivered changes: these belong to a group
    /// that is never split, and the rest of that group is delivered next. The groups are an atomic
    /// entry, the expiries of one millisecond, retractions, and a put with its late expiry.
    pub(in crate::store) inside: bool,
}

/// Returns an author of whose entries `after` covers fewer than `before`.
///
/// Authors who have forked are left out: only the log can compare their branches.
pub(in crate::store) fn moved_back(before: &Frontier, after: &Frontier) -> Option<Author> {
    let is_back = |(author, tip): &(Author, FrontierTip)| {
        let is_forked = before.tips(author).len() > 1 || after.tips(author).len() > 1;
        !is_forked && after.seq(author) < tip.seq
    };
    before.iter().find(is_back).map(|(author, _tip)| author)
}

impl Position {
    /// Returns the position after everything that was published.
    pub(in crate::store) fn of(published: &Published) -> Self {
        Self {
            frontier: Arc::clone(&published.frontier),
            partial: None,
            expired_through_ms: published.expired_through_ms,
            inside: false,
        }
    }

    /// Returns the position that `cursor` names, but for a wrong time in it. `now_ms`: the clock.
    pub(in crate::store) fn after(cursor: &Cursor, now_ms: u64) -> Self {
        let mut position = Self {
            frontier: Arc::new(cursor.frontier.clone()),
            partial: cursor.partial,
            expired_through_ms: cursor.expired_through_ms,
            inside: false,
        };
        position.forget_wrong_time(now_ms);
        position
    }

    /// Returns the position as a cursor, which any replica can read.
    pub(in crate::store) fn cursor(&self, store: StoreId) -> Cursor {
        Cursor {
            store,
            frontier: Frontier::clone(&self.frontier),
            partial: self.partial,
            expired_through_ms: self.expired_through_ms,
        }
    }

    /// Forgets a time that is more than `DRIFT_MS_MAX` ahead of the clock, `now_ms`: it comes from a
    /// clock that was wrong. Otherwise every value that is put would expire at once, until the clock
    /// comes to that time. Some expiries may be delivered a second time.
    pub(super) fn forget_wrong_time(&mut self, now_ms: u64) {
        if self.expired_through_ms > now_ms.saturating_add(DRIFT_MS_MAX) {
            self.expired_through_ms = now_ms;
        }
    }

    /// Moves to the frontier of `published`, and its time forward.
    pub(super) fn reach(&mut self, published: &Published) {
        let before_ms = self.expired_through_ms;
        *self = Self::of(published);
        self.expired_through_ms = self.expired_through_ms.max(before_ms);
    }

    /// Moves forward to `published`. Never moves back: the bus moves `published` only after it has
    /// sent the batches, so this position may be ahead.
    pub(super) fn catch_up(&mut self, published: &Published) {
        let beyond = published.frontier.missing_from(&self.frontier);
        if beyond.is_empty() {
            self.expired_through_ms = self.expired_through_ms.max(published.expired_through_ms);
        } else {
            self.reach(published);
        }
    }

    /// True when `change`, of a piece that ends at `then`, was delivered before. Always false for an
    /// author who has forked: only the log can compare branches.
    pub(super) fn covers(&self, change: &Change, then: &Published) -> bool {
        if !matches!(change.kind, Kind::Put | Kind::Delete) {
            return false;
        }
        let EntryRef {
            author, seq, id, ..
        } = &change.entry;
        if self.frontier.tips(author).len() > 1 || then.frontier.tips(author).len() > 1 {
            return false;
        }
        let was_in_part = |partial: Partial| partial.tip.id == *id && change.op_index < partial.ops;
        self.partial.is_some_and(was_in_part) || *seq <= self.frontier.seq(author)
    }

    /// Moves past the last change of `passed`. `next` is the change after it in the piece, and
    /// `then` the position after the piece.
    #[inline]
    pub(super) fn pass(
        &mut self,
        passed: &[Arc<Change>],
        next: Option<&Arc<Change>>,
        then: &Published,
    ) {
        let Some(next) = next else {
            return self.reach(then);
        };
        if self.is_late_expiry(next) {
            // A late expiry stays in one group with its put.
            self.inside = true;
            return;
        }
        let mut passed = passed.iter().rev();
        let Some(change) = passed.find(|change| !self.is_late_expiry(change)) else {
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
            // The entry of a retract is not the last one delivered, so a retract does not move the
            // position. All retractions stay together.
            self.inside = next.kind == Kind::Retract;
            return;
        }
        let tip = FrontierTip {
            seq: change.entry.seq,
            id: change.entry.id,
        };
        let goes_on = !matches!(next.kind, Kind::Expire | Kind::Retract);
        if goes_on && next.entry.id == change.entry.id {
            // `next` is of the same entry. The position moves past an atomic entry only as a whole.
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
            // Entries before it that do not match were skipped, and `prev` may be one of them.
            frontier.replace(author, tip);
        }
        self.partial = None;
        self.inside = false;
    }
}
