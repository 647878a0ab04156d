//! Proven: the entries that one member is known to have on disk in one store, by its acks and the log
//! of this node.
//!
//! A tip that is not here proves nothing: it may be on any branch. So a member's earlier tips stay
//! until the later ones come. An ack is used together with an ack for the root store that the member
//! signed no earlier, and only when everything that this one names is here: else the member may have
//! granted a role to somebody who is not asked.

use std::collections::BTreeSet;

use crate::{
    id::Author,
    protocol::{
        ack::Ack,
        finality::chains::Chains,
        frontier::{Frontier, FrontierTip},
    },
};

/// The entries that a member has on disk, as far as this node can follow its acks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proven {
    // Incarnation and counter of the last ack that was used; `None` before the first one.
    used: Option<(u64, u64)>,
    // Tips that are here.
    data: Frontier,
    // All tips of the ack for the root store that was used with it. All are here.
    root: Frontier,
    // True if that ack names an own entry of the member that is not here.
    is_ahead: bool,
    // Authors of whom it names entries that are not here.
    ahead: BTreeSet<Author>,
}

/// The use that was made of an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It was used, as far as its tips are here.
    Used,
    /// A later one was used before: an ack that is sent again lowers nothing.
    Old,
    /// The two acks are no pair: a part, of two members or of two starts, or the one for the root
    /// store is the earlier one.
    NoPair,
    /// The ack for the root store names an entry that is not here.
    RootAhead {
        /// Author of the entry.
        author: Author,
        /// Its place.
        tip: FrontierTip,
    },
}

impl Proven {
    /// Returns what this node itself has: the tips of all entries that it has applied and made
    /// durable, in the store and in the root store.
    pub fn own(data: Frontier, root: Frontier) -> Self {
        let used = Some((u64::MAX, u64::MAX));
        Self {
            used,
            data,
            root,
            is_ahead: false,
            ahead: BTreeSet::new(),
        }
    }

    /// Uses the latest acks of the member: `data` for the store, `root` for the root store; one ack
    /// may be both. To be called again with the same acks when entries have come.
    ///
    /// A lower ack of a later start counts: the member lost its disk, or was restored.
    ///
    /// # Errors
    /// Those of `chains` and `root_chains`, the logs of the two stores.
    pub fn hear<C: Chains, R: Chains<Error = C::Error>>(
        &mut self,
        data: &Ack,
        root: &Ack,
        chains: &C,
        root_chains: &R,
    ) -> Result<Heard, C::Error> {
        if !data.pairs_with(root) {
            return Ok(Heard::NoPair);
        }
        let place = (data.incarnation, data.counter);
        if self.used.is_some_and(|used| used > place) {
            return Ok(Heard::Old);
        }
        for (author, tip) in root.frontier.iter() {
            if !is_here(root_chains, &author, tip)? {
                return Ok(Heard::RootAhead { author, tip });
            }
        }
        let is_same_start = self
            .used
            .is_some_and(|(start, _)| start == data.incarnation);
        let (mut proven, mut is_ahead) = (Frontier::default(), false);
        let mut ahead = BTreeSet::new();
        for (author, tips) in data.frontier.by_author() {
            let mut are_all_here = true;
            for tip in tips {
                if is_here(chains, &author, *tip)? {
                    proven.insert(author, *tip);
                } else {
                    are_all_here = false;
                }
            }
            is_ahead |= !are_all_here && author == data.node;
            if !are_all_here {
                ahead.insert(author);
            }
            if is_same_start && !are_all_here {
                for tip in self.data.tips(&author) {
                    proven.insert(author, *tip);
                }
            }
        }
        *self = Self {
            used: Some(place),
            data: proven,
            root: root.frontier.clone(),
            is_ahead,
            ahead,
        };
        Ok(Heard::Used)
    }

    /// Returns the entries that the member has, as far as they are here.
    pub fn has(&self) -> &Frontier {
        &self.data
    }

    /// Returns the start of the member and the number in it of the last ack that was used; `None` before the
    /// first one.
    pub fn used(&self) -> Option<(u64, u64)> {
        self.used
    }

    /// Returns whether the last ack that was used names entries of `author` that are not here.
    pub fn is_ahead_of(&self, author: &Author) -> bool {
        self.ahead.contains(author)
    }

    /// Returns whether an ack was ever used.
    pub fn is_heard(&self) -> bool {
        self.used.is_some()
    }

    /// Returns whether the last ack names an own entry of the member that is not here.
    pub fn is_ahead(&self) -> bool {
        self.is_ahead
    }

    /// Returns the last entry on the branch that ends in `tip` which the member has; `None` if it has
    /// none of it.
    ///
    /// # Errors
    /// That of `chains`.
    pub fn through<C: Chains>(
        &self,
        author: &Author,
        tip: FrontierTip,
        chains: &C,
    ) -> Result<Option<FrontierTip>, C::Error> {
        let mut through: Option<FrontierTip> = None;
        for has in self.data.tips(author) {
            let common = if *has == tip {
                Some(tip)
            } else {
                chains.meet(author, *has, tip)?
            };
            through = through.max(common);
        }
        Ok(through)
    }

    /// Returns whether the member has all entries of `anchors`.
    ///
    /// # Errors
    /// That of `chains`.
    pub fn has_all<C: Chains>(&self, anchors: &Frontier, chains: &C) -> Result<bool, C::Error> {
        for (author, anchor) in anchors.iter() {
            if !leads_back(chains, &author, anchor, self.data.tips(&author))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns whether the member has the entry of `author` at `place` in the root store.
    ///
    /// # Errors
    /// That of `root_chains`.
    pub fn has_root<R: Chains>(
        &self,
        author: &Author,
        place: FrontierTip,
        root_chains: &R,
    ) -> Result<bool, R::Error> {
        leads_back(root_chains, author, place, self.root.tips(author))
    }

    /// Returns the tips of `author` that the member has; more than one only after a fork, or while a
    /// later tip is not here.
    pub fn tips(&self, author: &Author) -> &[FrontierTip] {
        self.data.tips(author)
    }
}

fn is_here<C: Chains>(chains: &C, author: &Author, tip: FrontierTip) -> Result<bool, C::Error> {
    Ok(chains.leads(author, tip, tip)? == Some(true))
}

/// Returns whether one of `tips` leads back to `place`, or is it, without doubt.
pub(super) fn leads_back<C: Chains>(
    chains: &C,
    author: &Author,
    place: FrontierTip,
    tips: &[FrontierTip],
) -> Result<bool, C::Error> {
    for tip in tips {
        let may_lead = place.seq < tip.seq;
        if place == *tip || (may_lead && chains.leads(author, place, *tip)? == Some(true)) {
            return Ok(true);
        }
    }
    Ok(false)
}
