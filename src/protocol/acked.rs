//! Acked: the acks of one member for one store, joined.
//!
//! A later whole ack replaces everything, a later part the authors that it names. The result depends
//! on the acks alone, not on the order in which they come.

use std::collections::BTreeMap;

use crate::{
    id::Author,
    limits::ACK_LEADS_MAX,
    protocol::{
        ack::Ack,
        frontier::{Frontier, FrontierTip},
    },
};

/// The entries that a member has acknowledged in one store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Acked {
    // That of the acks that are joined. Acks of an earlier start are passed over.
    incarnation: u64,
    // Counter of the last whole ack; `None` before the first one of this start.
    whole: Option<u64>,
    // Counter of the last part that named an author, if it is later than `whole`.
    parts: BTreeMap<Author, u64>,
    frontier: Frontier,
}

impl Acked {
    /// Returns whether [`join`](Self::join) with `ack` may change anything.
    pub fn is_news(&self, ack: &Ack) -> bool {
        let is_later = |author: Author| self.last(&author).is_none_or(|last| last < ack.counter);
        match ack.incarnation.cmp(&self.incarnation) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal if ack.is_part => {
                let mut authors = ack.frontier.by_author();
                authors.any(|(author, _)| is_later(author))
            }
            std::cmp::Ordering::Equal => self.whole.is_none_or(|whole| whole < ack.counter),
        }
    }

    /// Joins `ack`, one of this member and store.
    pub fn join(&mut self, ack: &Ack) {
        if !self.is_news(ack) {
            return;
        }
        if ack.incarnation > self.incarnation {
            *self = Self {
                incarnation: ack.incarnation,
                ..Self::default()
            };
        }
        if ack.is_part {
            for (author, tips) in ack.frontier.by_author() {
                if self.last(&author).is_none_or(|last| last < ack.counter) {
                    self.frontier.set_tips(author, tips.to_vec());
                    self.parts.insert(author, ack.counter);
                }
            }
            return;
        }
        self.whole = Some(ack.counter);
        self.parts.retain(|_, counter| *counter > ack.counter);
        let mut frontier = ack.frontier.clone();
        for author in self.parts.keys() {
            frontier.set_tips(*author, self.frontier.tips(author).to_vec());
        }
        self.frontier = frontier;
    }

    /// Returns the number of the start that sent the acks; 0 without acks.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Returns the tips of all entries that the member has on disk. `None` before its first whole
    /// ack since it started.
    pub fn frontier(&self) -> Option<&Frontier> {
        self.whole.map(|_counter| &self.frontier)
    }

    /// Returns whether the acks show that the member has the entry of `author` at `tip`.
    ///
    /// True if `tip` is one of the tips that they name. If neither they nor `own`, the frontier of
    /// this node, show a fork of `author`, a greater seq is enough. Else `leads` decides with the log
    /// of this node: it returns whether the first place is on the branch that ends in the second
    /// one, `None` if the second one is not here. It is asked about at most `ACK_LEADS_MAX` tips,
    /// the nearest first; the others show nothing.
    pub fn covers(
        &self,
        author: &Author,
        tip: FrontierTip,
        own: &Frontier,
        mut leads: impl FnMut(FrontierTip, FrontierTip) -> Option<bool>,
    ) -> bool {
        let tips = self.frontier.tips(author);
        if tips.contains(&tip) {
            return true;
        }
        let mut later = tips.iter().filter(|it| it.seq > tip.seq);
        if tips.len() > 1 || own.tips(author).len() > 1 {
            let mut asked = later.take(ACK_LEADS_MAX);
            return asked.any(|later| leads(tip, *later) == Some(true));
        }
        later.next().is_some()
    }

    // Returns the counter of the last ack that spoke of `author`.
    fn last(&self, author: &Author) -> Option<u64> {
        self.parts.get(author).copied().max(self.whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{EntryId, StoreId};

    const AUTHOR: Author = Author([5; 32]);
    const OTHER: Author = Author([6; 32]);

    fn tip(seq: u64, id: u8) -> FrontierTip {
        FrontierTip {
            seq,
            id: EntryId([id; 32]),
        }
    }

    fn ack(start: u64, counter: u64, is_part: bool, tips: &[(Author, FrontierTip)]) -> Ack {
        Ack {
            node: Author([9; 32]),
            store: StoreId([7; 16]),
            incarnation: start,
            counter,
            is_part,
            frontier: tips.iter().copied().collect(),
            state: None,
            root_frontier: None,
        }
    }

    fn acked(tips: &[FrontierTip]) -> Acked {
        let mut acked = Acked::default();
        let tips: Vec<_> = tips.iter().map(|tip| (AUTHOR, *tip)).collect();
        acked.join(&ack(1, 1, false, &tips));
        acked
    }

    #[test]
    fn ack_covers_its_tips_and_what_precedes_a_single_one() {
        let one = acked(&[tip(4, 1)]);
        let own = one.frontier().unwrap().clone();
        let covers = |author: &Author, at| one.covers(author, at, &own, |_, _| panic!("no fork"));
        assert!(covers(&AUTHOR, tip(4, 1)));
        assert!(covers(&AUTHOR, tip(3, 9)));
        assert!(!covers(&AUTHOR, tip(4, 2)));
        assert!(!covers(&AUTHOR, tip(5, 1)));
        assert!(!covers(&Author([6; 32]), tip(1, 1)));
    }

    #[test]
    fn ack_of_a_forked_author_covers_its_branches_by_the_log() {
        // Branch 1 is entries 3 and 4, branch 2 is entries 4 and 6. They left entry 2.
        let on = |at: FrontierTip, end: FrontierTip| at.seq <= 2 || at.id == end.id;
        let leads = |at, end: FrontierTip| (end.id != tip(0, 9).id).then(|| on(at, end));
        let both = [(AUTHOR, tip(4, 1)), (AUTHOR, tip(6, 2))].into_iter();
        let both: Frontier = both.collect();
        let forked = acked(&[tip(4, 1), tip(6, 2)]);
        assert!(forked.covers(&AUTHOR, tip(4, 1), &both, leads));
        assert!(forked.covers(&AUTHOR, tip(3, 1), &both, leads));
        assert!(forked.covers(&AUTHOR, tip(5, 2), &both, leads));
        assert!(forked.covers(&AUTHOR, tip(1, 0), &both, leads));
        // The node has only the other branch, however long it is.
        let one = acked(&[tip(6, 2)]);
        assert!(!one.covers(&AUTHOR, tip(3, 1), &both, leads));
        assert!(one.covers(&AUTHOR, tip(4, 2), &both, leads));
        // A tip that is not here shows nothing, and too many tips are not all looked up.
        assert!(!acked(&[tip(7, 9)]).covers(&AUTHOR, tip(3, 1), &both, leads));
        let many: Vec<_> = (10..=255).map(|id| tip(100, id)).collect();
        let mut asked = 0;
        let asks = |_, _| {
            asked += 1;
            None
        };
        assert!(!acked(&many).covers(&AUTHOR, tip(3, 1), &both, asks));
        assert_eq!(asked, ACK_LEADS_MAX);
    }

    #[test]
    fn joined_acks_do_not_depend_on_their_order() {
        let acks = [
            ack(1, 9, false, &[(AUTHOR, tip(9, 9)), (OTHER, tip(9, 9))]),
            ack(2, 1, true, &[(AUTHOR, tip(1, 1))]),
            ack(2, 2, false, &[(AUTHOR, tip(2, 1)), (OTHER, tip(1, 2))]),
            ack(2, 3, true, &[(AUTHOR, tip(3, 1))]),
            ack(2, 4, true, &[(OTHER, tip(2, 2))]),
            ack(2, 5, true, &[(OTHER, tip(3, 2)), (AUTHOR, tip(4, 1))]),
        ];
        let expected = {
            let mut joined = Acked::default();
            acks.iter().for_each(|ack| joined.join(ack));
            joined
        };
        let frontier = [(AUTHOR, tip(4, 1)), (OTHER, tip(3, 2))].into_iter();
        assert_eq!(expected.frontier(), Some(&frontier.collect()));
        let mut order: Vec<usize> = (0..acks.len()).collect();
        // Heap's algorithm over all orders.
        let mut counts = vec![0; order.len()];
        let mut at = 0;
        while at < order.len() {
            let mut joined = Acked::default();
            order.iter().for_each(|place| joined.join(&acks[*place]));
            assert_eq!(joined, expected, "{order:?}");
            assert!(acks.iter().all(|ack| !joined.is_news(ack)), "{order:?}");
            at = 0;
            while at < order.len() && counts[at] >= at {
                counts[at] = 0;
                at += 1;
            }
            if at < order.len() {
                let with = if at % 2 == 0 { 0 } else { counts[at] };
                order.swap(at, with);
                counts[at] += 1;
            }
        }
    }

    #[test]
    fn ack_of_an_earlier_start_and_an_equal_one_are_no_news() {
        let mut joined = acked(&[tip(4, 1)]);
        assert!(!joined.is_news(&ack(1, 1, false, &[])));
        assert!(!joined.is_news(&ack(0, 9, false, &[])));
        assert!(!joined.is_news(&ack(1, 1, true, &[(AUTHOR, tip(9, 9))])));
        assert!(!joined.is_news(&ack(1, 2, true, &[])));
        // After a restart nothing is known until the member says so.
        joined.join(&ack(2, 0, true, &[(OTHER, tip(1, 1))]));
        assert_eq!(joined.frontier(), None);
        assert!(!joined.covers(&AUTHOR, tip(4, 1), &Frontier::default(), |_, _| None));
        assert!(joined.covers(&OTHER, tip(1, 1), &Frontier::default(), |_, _| None));
    }
}
