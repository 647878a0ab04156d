//! Collection of tombstones: which rows of a state an anchors act ends.
//!
//! A tombstone may go once every entry that was written without knowing it is at or below the anchors
//! of an act. An admin shows this by two acts: all writers have acknowledged the anchors of the
//! *earlier* one, and what each had written by then is at or below those of the *later* one
//! ([`Grounds::collection`](super::Grounds::collection)).
//!
//! The rule is about a row as of the later act: the heads that follow from exactly the entries at or
//! below its anchors, whatever else a node has. So all nodes agree, whenever they compute it. From the
//! row as it is now the same heads go, also on nodes that never compute a base: their next write would
//! cite a tombstone that others do not have any more.

use std::collections::BTreeMap;

use crate::{
    id::{Author, Seq},
    limits::DRIFT_MS_MAX,
    protocol::{
        anchors_act::AnchorsAct,
        frontier::Frontier,
        heads::{Content, Head},
    },
};

/// A collection: the tombstones that one counting act takes, as its `collect` line orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    // Of each author with one branch: the greatest seq at or below the anchors of the earlier act.
    through: BTreeMap<Author, Seq>,
    // Values that expired at or before this time are like tombstones, in ms since 1970.
    expired_ms: u64,
}

impl Collection {
    /// Returns the collection that `later` orders. `earlier` is the act that its `collect` line names
    /// and that counts; without it nothing is collected.
    pub fn new(earlier: &AnchorsAct, later: &AnchorsAct) -> Self {
        // Places say which tombstones the earlier act covers, which is not so where there are branches.
        let one = |anchors: &Frontier, author: &Author| match anchors.tips(author) {
            [only] => Some(only.seq),
            _none_or_branches => None,
        };
        let authors = earlier.anchors().by_author();
        let through = authors.filter_map(|(author, _)| {
            one(later.anchors(), &author)?;
            Some((author, one(earlier.anchors(), &author)?))
        });
        Self {
            through: through.collect(),
            // The admin's stamp may be ahead of true time by as much.
            expired_ms: later.through_ms().saturating_sub(DRIFT_MS_MAX),
        }
    }

    /// Returns whether a row goes, which has these heads as of the later act: all of them are
    /// tombstones, or expired, and at or below the anchors of the earlier act. A row with a value
    /// beside a tombstone stays: without the tombstone the value would be back.
    pub fn takes<'a>(&self, row: impl IntoIterator<Item = &'a Head>) -> bool {
        let mut row = row.into_iter().peekable();
        row.peek().is_some() && row.all(|head| self.is_over(head))
    }

    fn is_over(&self, head: &Head) -> bool {
        let through = self.through.get(&head.author).copied().unwrap_or(0);
        let is_dead = match head.content {
            Content::Tombstone => true,
            Content::Value { expires_ms, .. } => {
                expires_ms.is_some_and(|expires_ms| expires_ms <= self.expired_ms)
            }
        };
        is_dead && head.seq <= through
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        id::EntryId,
        protocol::{frontier::FrontierTip, heads::Value, hlc::Hlc},
    };

    const NODE_1: Author = Author([1; 32]);
    const NODE_2: Author = Author([2; 32]);
    const HOUR_MS: u64 = DRIFT_MS_MAX;

    fn act(through_ms: u64, lines: &[(Author, Seq)]) -> AnchorsAct {
        let lines = lines.iter().map(|(author, seq)| {
            let id = EntryId([u8::try_from(*seq).unwrap(); 32]);
            (*author, FrontierTip { seq: *seq, id })
        });
        AnchorsAct::new(1, None, through_ms, lines.collect(), None).unwrap()
    }

    fn head(author: Author, seq: Seq, content: Content) -> Head {
        Head {
            hlc: Hlc::ZERO,
            author,
            id: EntryId([9; 32]),
            seq,
            content,
            taken_back: false,
        }
    }

    fn value(expires_ms: Option<u64>) -> Content {
        Content::Value {
            value: Value::Inline(Bytes::new()),
            expires_ms,
        }
    }

    #[test]
    fn only_rows_of_old_tombstones_go() {
        let earlier = act(0, &[(NODE_1, 5), (NODE_2, 2)]);
        let later = act(9 * HOUR_MS, &[(NODE_1, 9), (NODE_2, 2)]);
        let collection = Collection::new(&earlier, &later);
        let dead = |author, seq| head(author, seq, Content::Tombstone);
        for (row, goes) in [
            (vec![], false),
            (vec![dead(NODE_1, 5)], true),
            (vec![dead(NODE_1, 6)], false),
            (vec![dead(NODE_1, 5), dead(NODE_2, 2)], true),
            (vec![dead(NODE_1, 5), dead(NODE_2, 3)], false),
            (vec![dead(NODE_1, 6), dead(NODE_1, 1)], false),
            (vec![dead(NODE_1, 5), head(NODE_2, 1, value(None))], false),
            (vec![head(NODE_1, 1, value(None))], false),
            // Nobody is known to know the deletes of other authors.
            (vec![dead(Author([3; 32]), 1)], false),
            (vec![head(NODE_1, 1, value(Some(8 * HOUR_MS)))], true),
            (vec![head(NODE_1, 1, value(Some(8 * HOUR_MS + 1)))], false),
            (vec![head(NODE_1, 6, value(Some(0)))], false),
            (vec![dead(NODE_2, 1), head(NODE_1, 1, value(Some(0)))], true),
        ] {
            assert_eq!(collection.takes(&row), goes, "{row:?}");
        }
    }

    #[test]
    fn tombstones_of_an_author_with_branches_stay() {
        let tombstone = head(NODE_1, 1, Content::Tombstone);
        let takes = |earlier: &[(Author, Seq)], later: &[(Author, Seq)]| {
            Collection::new(&act(0, earlier), &act(0, later)).takes([&tombstone])
        };
        assert!(takes(&[(NODE_1, 5)], &[(NODE_1, 6)]));
        // By place an entry of the second branch would be taken for one of the first.
        assert!(!takes(&[(NODE_1, 5)], &[(NODE_1, 6), (NODE_1, 2)]));
        assert!(!takes(&[(NODE_1, 5), (NODE_1, 6)], &[(NODE_1, 7)]));
        assert!(!takes(&[(NODE_1, 5)], &[(NODE_2, 6)]));
        assert!(!takes(&[], &[(NODE_1, 6)]));
    }

    #[test]
    fn time_of_the_first_hour_takes_nothing_early() {
        let lines = [(NODE_1, 5)];
        let collection = Collection::new(&act(0, &lines), &act(HOUR_MS - 1, &lines));
        assert!(!collection.takes([&head(NODE_1, 1, value(Some(1)))]));
    }
}
