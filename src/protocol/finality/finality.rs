//! Finality: the anchors of one store, joined, and what follows for an entry.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{Author, Seq},
    protocol::{
        anchors_act::AnchorsAct,
        entry::Parent,
        finality::chains::Chains,
        frontier::{Frontier, FrontierTip},
        membership::Standing,
    },
};

/// The anchors of one store, by author.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Finality {
    // Authors that a counting act or the base names.
    authors: BTreeMap<Author, Anchored>,
}

// The anchors of one author.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Anchored {
    // Those that are here with everything that they lead back to, and that no other one here comes
    // after, from the greatest down. Empty while there is none.
    last: Vec<FrontierTip>,
    // Those that are not here with everything that they lead back to, and are above the base.
    awaited: BTreeSet<FrontierTip>,
    // Those that are not here, at or below the base.
    beneath: BTreeSet<FrontierTip>,
}

/// The decision of the anchors about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// An anchor, or an entry that one leads back to: it counts for ever.
    Final,
    /// On a branch that left the final ones below a last anchor: it never counts, unless a later act
    /// names it.
    Void,
    /// Nothing: membership decides.
    Open,
}

/// The way in which an entry that comes from elsewhere is taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// As for every other entry: it is here, or goes on after one that is, or waits for that.
    Usual,
    /// It is void and no act may still name it: it is not taken in, nor is what comes after it.
    Void,
    /// At or below every anchor of its author: it was here, or is void. Nothing is to be done.
    Settled,
}

impl Fate {
    /// Returns whether the entry waits for its parents (R4): nobody asks for those of a final one.
    pub fn asks_parents(self) -> bool {
        self != Self::Final
    }
}

impl Finality {
    /// Joins what counting acts about a store name (R2); their order does not matter, nor does an act
    /// that is given twice. `base` has the anchors of this node's base, which are joined too: what was
    /// removed from a log stays final.
    ///
    /// # Errors
    /// That of `chains`.
    pub fn join<'a, C: Chains>(
        acts: impl IntoIterator<Item = &'a AnchorsAct>,
        base: &'a Frontier,
        chains: &C,
    ) -> Result<Self, C::Error> {
        let mut named: BTreeMap<Author, BTreeSet<FrontierTip>> = BTreeMap::new();
        let acts = acts.into_iter().map(AnchorsAct::anchors);
        for (author, place) in acts.chain([base]).flat_map(Frontier::iter) {
            named.entry(author).or_default().insert(place);
        }
        let mut authors = BTreeMap::new();
        for (author, places) in named {
            let mut anchored = Anchored::default();
            // From the greatest down: of two on one branch the later one comes first.
            for place in places.into_iter().rev() {
                let is_base = base.tips(&author).contains(&place);
                if !is_base && !chains.is_joined(&author, place)? {
                    if place.seq > base.seq(&author) || chains.has(&author, place)? {
                        anchored.awaited.insert(place);
                    } else {
                        anchored.beneath.insert(place);
                    }
                } else if !leads_to_any(chains, &author, place, &anchored.last)? {
                    anchored.last.push(place);
                }
            }
            authors.insert(author, anchored);
        }
        Ok(Self { authors })
    }

    /// Returns the last anchors of all authors, as far as they are here. Each act repeats them.
    pub fn last(&self) -> Frontier {
        let authors = self.authors.iter();
        let last = |(author, anchored): (&Author, &Anchored)| {
            let author = *author;
            let last = anchored.last.clone().into_iter();
            last.map(move |place| (author, place))
        };
        authors.flat_map(last).collect()
    }

    /// Returns the anchors that are not here yet, or not all that they lead back to: they have no effect.
    pub fn awaited(&self) -> impl Iterator<Item = (Author, FrontierTip)> + '_ {
        let authors = self.authors.iter();
        authors
            .flat_map(|(author, anchored)| anchored.awaited.iter().map(|place| (*author, *place)))
    }

    /// Returns the anchors that are not here, at or below the base of this node. They are taken to be part
    /// of it. One that is not, because it was named after the base was computed and is on a void branch,
    /// makes this base useless: another node's is to be taken.
    pub fn beneath(&self) -> impl Iterator<Item = (Author, FrontierTip)> + '_ {
        let authors = self.authors.iter();
        authors
            .flat_map(|(author, anchored)| anchored.beneath.iter().map(|place| (*author, *place)))
    }

    /// Returns whether `author` has an anchor that is here: some of its entries are final, or void.
    pub fn has_anchors(&self, author: &Author) -> bool {
        self.greatest(author) > 0
    }

    /// Returns whether the entry of `author` at `place` is an anchor that has no effect yet.
    pub fn is_awaited(&self, author: &Author, place: FrontierTip) -> bool {
        let anchored = self.authors.get(author);
        anchored.is_some_and(|it| it.awaited.contains(&place))
    }

    /// Returns whether the anchors of `author` have the same effect as those of `other`.
    pub fn is_same_for(&self, author: &Author, other: &Self) -> bool {
        let last = |finality: &Self| finality.authors.get(author).map(|it| it.last.clone());
        last(self).unwrap_or_default() == last(other).unwrap_or_default()
    }

    /// Returns the seq of the greatest anchor of `author`; 0 without one that is here.
    pub fn greatest(&self, author: &Author) -> Seq {
        let last = self.authors.get(author).and_then(|it| it.last.first());
        last.map_or(0, |place| place.seq)
    }

    /// Returns what the anchors decide about `entry` (R3). `prev` is the entry before it, `None` for a
    /// first entry; or the entry itself, if that is here.
    ///
    /// While `chains` has no answer, the author is taken not to have forked.
    ///
    /// # Errors
    /// That of `chains`.
    pub fn fate<C: Chains>(
        &self,
        author: &Author,
        entry: FrontierTip,
        prev: Option<FrontierTip>,
        chains: &C,
    ) -> Result<Fate, C::Error> {
        let last = match self.authors.get(author) {
            Some(anchored) if !anchored.last.is_empty() => &anchored.last,
            _none_here => return Ok(Fate::Open),
        };
        if last.contains(&entry) {
            return Ok(Fate::Final);
        }
        // No anchor comes after a last one. So an entry after one is not final, which is asked first:
        // where a log begins, places alone say what an anchor leads back to.
        for anchor in last {
            let follows = match prev {
                Some(prev) => leads_to_any(chains, author, *anchor, &[prev])?,
                None => false,
            };
            if follows {
                return Ok(Fate::Open);
            }
        }
        if leads_to_any(chains, author, entry, last)? {
            return Ok(Fate::Final);
        }
        Ok(Fate::Void)
    }

    /// Returns whether `entry` counts, if it is here: a final one does and a void one does not,
    /// whatever the `standing` of its author; `prev` is as for [`fate`](Self::fate).
    ///
    /// # Errors
    /// That of `chains`.
    pub fn counts<C: Chains>(
        &self,
        standing: &Standing,
        author: &Author,
        entry: FrontierTip,
        prev: Option<FrontierTip>,
        chains: &C,
    ) -> Result<bool, C::Error> {
        match self.fate(author, entry, prev, chains)? {
            Fate::Final => return Ok(true),
            Fate::Void => return Ok(false),
            Fate::Open => {}
        }
        match standing {
            Standing::Counts => Ok(true),
            Standing::Unknown | Standing::Reader | Standing::Spent => Ok(false),
            Standing::Through(kept) => kept.covers(author, entry, |author, entry, tip| {
                self.keeps(author, entry, tip, chains)
            }),
        }
    }

    /// Returns whether a removal of `author` that names `tip` keeps `entry`, which is not final:
    /// [`Chains::keeps`], clamped to the anchors.
    ///
    /// # Errors
    /// That of `chains`.
    pub fn keeps<C: Chains>(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
        chains: &C,
    ) -> Result<Option<bool>, C::Error> {
        let kept = chains.keeps(author, entry, tip)?;
        // A node that removed entries never gets this tip. It is in no log that begins above it.
        if tip.seq <= self.greatest(author) {
            return Ok(kept.or(Some(false)));
        }
        // Nor may a void tip be on every node: one that had it before the act has it.
        let is_void = self.fate(author, tip, Some(tip), chains)? == Fate::Void;
        Ok(kept.filter(|_| !is_void))
    }

    /// Returns how many forks an author has above its anchors, whose branches end in `tips`: those of its
    /// entries that are not void.
    ///
    /// # Errors
    /// That of `chains`.
    pub fn forks<C: Chains>(
        &self,
        author: &Author,
        tips: &[FrontierTip],
        chains: &C,
    ) -> Result<usize, C::Error> {
        let mut branches = tips.len();
        if self.has_anchors(author) {
            for tip in tips {
                let is_void = self.fate(author, *tip, Some(*tip), chains)? == Fate::Void;
                branches = branches.saturating_sub(usize::from(is_void));
            }
        }
        // Each last anchor is on a branch of its own.
        let anchors = self.authors.get(author).map_or(0, |it| it.last.len());
        Ok(branches.saturating_sub(anchors.max(1)))
    }

    /// Returns whether an anchor of `author` has no effect yet.
    pub fn awaits(&self, author: &Author) -> bool {
        let anchored = self.authors.get(author);
        anchored.is_some_and(|it| !it.awaited.is_empty())
    }

    /// Returns whether an anchor at or after `seq` is named and not here. Entries of `author` through
    /// there are stored whatever its standing: they may turn out to be final.
    pub fn may_be_final(&self, author: &Author, seq: Seq) -> bool {
        let awaited = self.authors.get(author).and_then(|it| it.awaited.last());
        awaited.is_some_and(|place| seq <= place.seq)
    }

    /// Returns whether `parent` is taken to be present, whatever it claims (R4).
    pub fn is_present(&self, parent: &Parent) -> bool {
        parent.seq <= self.greatest(&parent.author)
    }

    /// Returns what becomes of an entry that comes from elsewhere, before anything else is asked of
    /// it. `prev` is the entry before it, which it names; `None` for a first one.
    ///
    /// # Errors
    /// That of `chains`.
    pub fn arrival<C: Chains>(
        &self,
        author: &Author,
        entry: FrontierTip,
        prev: Option<FrontierTip>,
        chains: &C,
    ) -> Result<Arrival, C::Error> {
        let Some(anchored) = self.authors.get(author) else {
            return Ok(Arrival::Usual);
        };
        let (Some(greatest), Some(least)) = (anchored.last.first(), anchored.last.last()) else {
            return Ok(Arrival::Usual);
        };
        let is_here = |place: FrontierTip| -> Result<bool, C::Error> {
            Ok(anchored.last.contains(&place) || chains.has(author, place)?)
        };
        let follows = match prev {
            Some(prev) => is_here(prev)?,
            None => false,
        };
        if is_here(entry)? {
            return Ok(Arrival::Usual);
        }
        if follows {
            let is_void = self.fate(author, entry, prev, chains)? == Fate::Void
                && !self.may_be_final(author, entry.seq);
            return Ok(if is_void {
                Arrival::Void
            } else {
                Arrival::Usual
            });
        }
        // It may be final, or come after an anchor, once that is here.
        if !anchored.awaited.is_empty() {
            return Ok(Arrival::Usual);
        }
        // Between two last anchors an entry may come after the lower one.
        if entry.seq <= least.seq {
            return Ok(Arrival::Settled);
        }
        // The entry before it has the place of the only last anchor, and is another one.
        let is_next = Some(entry.seq) == greatest.seq.checked_add(1);
        Ok(if is_next && greatest == least {
            Arrival::Void
        } else {
            Arrival::Usual
        })
    }
}

// Whether `entry` is one of `tips`, or one of them leads back to it.
fn leads_to_any<C: Chains>(
    chains: &C,
    author: &Author,
    entry: FrontierTip,
    tips: &[FrontierTip],
) -> Result<bool, C::Error> {
    for tip in tips {
        let may_lead = entry.seq < tip.seq;
        if entry == *tip || (may_lead && chains.leads(author, entry, *tip)? != Some(false)) {
            return Ok(true);
        }
    }
    Ok(false)
}
