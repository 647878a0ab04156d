//! Stability: every writer has all that an act makes final, so what each wrote before is known.
//!
//! Writers go on meanwhile, so no ack has all that the others wrote by then. So of each writer the first
//! ack is kept by which it has all of the act. Its entries after that ack were written by somebody who knew
//! everything that the act makes final.

use std::collections::{BTreeMap, btree_map};

use crate::{
    id::{Author, EntryId, StoreId},
    protocol::{
        anchors_act::ActCollection,
        finality::{
            chains::Chains,
            proven::leads_back,
            watermark::{Grounds, writers},
        },
        frontier::Frontier,
        membership::{Standing, role::Role},
        placed_act::PlacedAct,
    },
};

/// The writers that have all that an act makes final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stability {
    before: EntryId,
    store: StoreId,
    anchors: Frontier,
    // By writer: the tips of all entries that it had when it was first known to have all of the act.
    had: BTreeMap<Author, Frontier>,
}

impl Stability {
    /// Begins with an act of which nobody is known to have anything.
    pub fn new(act: &PlacedAct) -> Self {
        Self {
            before: act.at.id,
            store: act.store,
            anchors: act.act.anchors().clone(),
            had: BTreeMap::new(),
        }
    }

    /// Returns the entry of the act.
    pub fn act(&self) -> EntryId {
        self.before
    }

    /// Notes the writers that have all of the act now.
    ///
    /// # Errors
    /// That of `chains`.
    pub fn hear<C: Chains>(&mut self, grounds: &Grounds<'_>, chains: &C) -> Result<(), C::Error> {
        for node in writers(grounds.members) {
            let btree_map::Entry::Vacant(new) = self.had.entry(node) else {
                continue;
            };
            // Otherwise entries that were written before the ack may come after the collection.
            let heard = grounds.proven.get(&node).filter(|proven| proven.is_heard());
            if let Some(proven) = heard.filter(|proven| !proven.is_ahead())
                && proven.has_all(&self.anchors, chains)?
            {
                new.insert(proven.has().clone());
            }
        }
        Ok(())
    }

    /// Returns the collection that an act with `anchors` can order; `None` as long as a writer, a dormant
    /// one too, does not have all of the act, or what one had written by then, or had of members that do
    /// not write any more, is not at or below `anchors`; and as long as entries may count of a member that
    /// does not write any more which are not at or below them.
    ///
    /// # Errors
    /// That of `chains`.
    pub fn order<C: Chains>(
        &self,
        grounds: &Grounds<'_>,
        anchors: &Frontier,
        chains: &C,
    ) -> Result<Option<ActCollection>, C::Error> {
        let mut own = BTreeMap::new();
        for node in writers(grounds.members) {
            let Some(had) = self.had.get(&node) else {
                return Ok(None);
            };
            own.extend(had.tips(&node).last().map(|last| (node, *last)));
            for (author, tips) in had.by_author() {
                let is_asked = author != node && writers(grounds.members).any(|it| it == author);
                // The last entries of one who has forked may never be final.
                let may_stay = author != node && grounds.open_forks.contains_key(&author);
                if is_asked || may_stay {
                    continue;
                }
                for tip in tips {
                    if !leads_back(chains, &author, *tip, anchors.tips(&author))? {
                        return Ok(None);
                    }
                }
            }
        }
        let before = self.before;
        let is_ordered = self.former_are_final(grounds, anchors, chains)?;
        Ok(is_ordered.then_some(ActCollection { before, own }))
    }

    // Whether no entry counts of members that were writers and are not any more but those at and below
    // `anchors`: nobody asks them what they knew.
    fn former_are_final<C: Chains>(
        &self,
        grounds: &Grounds<'_>,
        anchors: &Frontier,
        chains: &C,
    ) -> Result<bool, C::Error> {
        for (node, member) in grounds.members.iter() {
            let was_writer = member.role() >= Some(Role::Writer);
            if !was_writer || grounds.members.role(node) >= Some(Role::Writer) {
                continue;
            }
            // The last entries of one who has forked may never be final.
            let may_stay = grounds.open_forks.contains_key(node);
            let is_final = |tip| Ok(may_stay || leads_back(chains, node, tip, anchors.tips(node))?);
            let is_bounded = match grounds.members.standing(&self.store, node) {
                Standing::Through(kept) => kept.is_bounded(is_final)?,
                Standing::Unknown | Standing::Reader => true,
                // Of one whose key is spent, an admin that removes it may keep some.
                Standing::Counts | Standing::Spent => false,
            };
            if !is_bounded {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the collection that an act with `anchors` can order by the last acks alone: of the newest act
    /// in `acts` that is stable. `acts`: the counting acts about the store, the newest first.
    ///
    /// # Errors
    /// That of `chains`.
    pub fn now<'a, C: Chains>(
        acts: impl IntoIterator<Item = &'a PlacedAct>,
        grounds: &Grounds<'_>,
        anchors: &Frontier,
        chains: &C,
    ) -> Result<Option<ActCollection>, C::Error> {
        for act in acts {
            let mut stability = Self::new(act);
            stability.hear(grounds, chains)?;
            if let Some(ordered) = stability.order(grounds, anchors, chains)? {
                return Ok(Some(ordered));
            }
        }
        Ok(None)
    }
}
