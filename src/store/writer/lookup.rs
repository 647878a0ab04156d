//! The log, the state and the members, as intake asks for them.

use std::cell::RefCell;

use crate::{
    id::{Author, Seq},
    log::{Hole, LogError, Logs},
    protocol::{
        chain::Tip,
        entry::{Entry, Op, Parent},
        finality::Arrival,
        frontier::FrontierTip,
        heads::Heads,
        intake::{Lookup, Place},
        membership::Standing,
    },
    state::State,
    store::writer::{health::WriteFailure, membership::Membership, mending::Mending},
};

/// Answers intake from the writer's parts. Damage that it meets is noted.
pub(super) struct WriterLookup<'a> {
    pub(super) logs: &'a Logs,
    pub(super) state: &'a State,
    pub(super) membership: &'a Membership,
    pub(super) mending: RefCell<&'a mut Mending>,
}

impl WriterLookup<'_> {
    // Returns whether the place on a branch, an index into its author's, is in a known hole.
    fn is_in_hole(&self, author: &Author, branch: usize, seq: Seq) -> bool {
        let mending = self.mending.borrow();
        if !mending.is_hole(author, seq) {
            return false;
        }
        let number = self
            .logs
            .reader()
            .of(author)
            .get(branch)
            .map(|it| it.number);
        let has = |hole: &Hole| {
            Some(hole.number) == number
                && hole.author == *author
                && (hole.first..=hole.last).contains(&seq)
        };
        mending.holes().iter().any(has)
    }
}

impl Lookup for WriterLookup<'_> {
    type Error = WriteFailure;

    fn tips(&self, author: &Author) -> Vec<Tip> {
        self.logs.tips(author)
    }

    fn at(&self, author: &Author, branch: usize, seq: Seq) -> Result<Place, WriteFailure> {
        // Its frame may be readable. It is asked for again all the same.
        if self.is_in_hole(author, branch, seq) {
            return Ok(Place::Unreadable);
        }
        match self.logs.reader().tip_at(author, branch, seq) {
            Ok(Some(tip)) => Ok(Place::Entry(tip)),
            Ok(None) => Ok(Place::Free),
            Err(LogError::Damaged(found)) => {
                let mut mending = self.mending.borrow_mut();
                mending.note(vec![found]);
                mending.look(self.logs.reader());
                Ok(Place::Unreadable)
            }
            Err(error) => Err(WriteFailure::unreadable(error)),
        }
    }

    fn anchor(&self, author: &Author) -> Option<Seq> {
        let begin = self.logs.reader().begin(author)?;
        Some(begin.anchor.seq)
    }

    fn has(&self, author: &Author, places: &[FrontierTip]) -> Result<Vec<bool>, WriteFailure> {
        let log = self.logs.reader();
        let found = log.find(author, places);
        let (mut has, damage) = found.map_err(WriteFailure::unreadable)?;
        if !damage.is_empty() {
            let mut mending = self.mending.borrow_mut();
            mending.note(damage);
            mending.look(log);
        }
        for (has, place) in has.iter_mut().zip(places) {
            // Its frame may be readable. It is asked for again all the same.
            if *has && self.mending.borrow().is_hole(author, place.seq) {
                let branches = 0..self.logs.tips(author).len();
                *has = !branches
                    .into_iter()
                    .any(|branch| self.is_in_hole(author, branch, place.seq));
            }
        }
        Ok(has)
    }

    fn is_hole(&self, author: &Author, seq: Seq) -> Result<bool, WriteFailure> {
        Ok(self.mending.borrow().is_hole(author, seq))
    }

    fn heads(&self, entry: &Entry) -> Result<Vec<Heads>, WriteFailure> {
        let keys = entry.ops.iter().map(Op::key);
        let heads = keys.map(|key| self.state.heads(key));
        heads.collect::<Result<_, _>>().map_err(Into::into)
    }

    fn standing(&self, author: &Author) -> Standing {
        self.membership.standing(author)
    }

    fn arrival(
        &self,
        author: &Author,
        entry: FrontierTip,
        prev: Option<FrontierTip>,
    ) -> Result<Arrival, WriteFailure> {
        let log = self.logs.reader();
        // An entry that goes on at the end of a log with one branch is on no other.
        let goes_on = |tips: &[Tip]| match tips {
            [only] => prev == Some(FrontierTip::from(*only)),
            _none_or_several => false,
        };
        if !self.membership.finality().has_anchors(author) || goes_on(&self.logs.tips(author)) {
            return Ok(Arrival::Usual);
        }
        let arrival = self.membership.arrival(author, entry, prev, log);
        arrival.map_err(WriteFailure::unreadable)
    }

    fn is_present(&self, parent: &Parent) -> bool {
        self.membership.finality().is_present(parent)
    }

    fn may_be_final(&self, author: &Author, seq: Seq) -> bool {
        self.membership.finality().may_be_final(author, seq)
    }

    fn takes_branch(&self, author: &Author, seq: Seq, tips: &[Tip]) -> bool {
        let log = self.logs.reader();
        self.membership.takes_branch(author, seq, tips, log)
    }

    fn is_cut_off(&self, author: &Author) -> bool {
        self.membership.is_cut_off(author)
    }

    fn leads(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, WriteFailure> {
        let answer = self.logs.reader().leads(author, entry, tip);
        let answer = self.membership.unless_damaged(answer);
        answer.map_err(WriteFailure::unreadable)
    }

    fn keeps(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, WriteFailure> {
        let log = self.logs.reader();
        let answer = self.membership.keeps(log, author, entry, tip);
        answer.map_err(WriteFailure::unreadable)
    }
}
