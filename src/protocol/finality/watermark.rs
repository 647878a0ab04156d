//! Watermark: the entries that an admin may make final, because every active member has them on disk.
//!
//! Active are the admins and writers, but for those that are dormant. A removal names tips that its
//! author has, and what a member acks only grows. So no removal by an active member takes back an entry
//! at or below the watermark. Readers are not asked: they can take a base.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{Author, Seq},
    protocol::{
        finality::{
            chains::Chains,
            finality::Finality,
            proven::{Proven, leads_back},
        },
        frontier::{Frontier, FrontierTip},
        membership::{Members, role::Role},
    },
};

/// Everything that a watermark follows from, besides the logs.
#[derive(Debug, Clone, Copy)]
pub struct Grounds<'a> {
    /// The members now.
    pub members: &'a Members,
    /// Members that are not waited for.
    pub dormant: &'a BTreeSet<Author>,
    /// The entries that each member has, the own node included.
    pub proven: &'a BTreeMap<Author, Proven>,
    /// The anchors now.
    pub finality: &'a Finality,
    /// Tips of all entries that this node has applied and made durable. None of them is void.
    pub own: &'a Frontier,
    /// Authors with a fork that is not closed, and their open tips: nothing becomes final after the
    /// place where two of these branches part. A caller may leave out forks that are old.
    pub open_forks: &'a BTreeMap<Author, Vec<FrontierTip>>,
    /// Entries stamped at or after this time, in ms since 1970, are not made final yet; `None` when so
    /// much waits that the acks alone decide.
    pub before_ms: Option<u64>,
}

/// The entries that an admin may make final, and the reasons why there are no more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Watermark {
    /// Anchors for the next act: at least the last ones of every author.
    pub anchors: Frontier,
    /// The branches of which not all is at or below the watermark.
    pub held: Vec<Held>,
}

/// A branch that the watermark does not reach the end of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Author of the branch.
    pub author: Author,
    /// Its last entry at or below the watermark; 0 for none.
    pub after: Seq,
    /// Its last entry here.
    pub through: Seq,
    /// Reason why later ones are above.
    pub by: Hold,
}

/// Reason why an entry is above the watermark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// These members have not acknowledged the next entry.
    Members(BTreeSet<Author>),
    /// These admins have not acknowledged the entry that granted its role to the author.
    Grant(BTreeSet<Author>),
    /// The author was never granted a role by an act that counts.
    NotGranted,
    /// The author has forked and not closed the fork.
    Fork,
    /// The next entry is too young.
    Young,
    /// The entries since the last anchor do not verify by themselves: one that does has to come.
    NotSigned,
}

/// Active members have sent no usable ack yet, so nothing is known of them and nothing becomes final.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} active members have acknowledged nothing yet: {}", nodes.len(), list(nodes))]
pub struct AckMissing {
    /// The members.
    pub nodes: BTreeSet<Author>,
}

impl Grounds<'_> {
    /// Returns the members that are asked: admins and writers that are not dormant.
    pub fn active(&self) -> impl Iterator<Item = Author> + '_ {
        let writers = writers(self.members);
        writers.filter(|node| !self.dormant.contains(node))
    }

    /// Returns the watermark.
    ///
    /// # Errors
    /// The inner error is `AckMissing`; the outer one that of `chains` and `root`, the logs of the
    /// store and of the root store.
    pub fn watermark<C: Chains, R: Chains<Error = C::Error>>(
        &self,
        chains: &C,
        root: &R,
    ) -> Result<Result<Watermark, AckMissing>, C::Error> {
        let mut asked = BTreeMap::new();
        let mut nodes = BTreeSet::new();
        for node in self.active() {
            match self.proven.get(&node).filter(|proven| proven.is_heard()) {
                Some(proven) => {
                    asked.insert(node, proven);
                }
                None => {
                    nodes.insert(node);
                }
            }
        }
        if !nodes.is_empty() {
            return Ok(Err(AckMissing { nodes }));
        }
        let mut anchors = self.finality.last();
        let mut held = Vec::new();
        for (author, tips) in self.own.by_author() {
            let stop = self.stop(&author, root)?;
            for tip in tips {
                let (place, by) = match &stop {
                    Some(by) => (None, Some(by.clone())),
                    None => self.reach(&author, *tip, &asked, chains)?,
                };
                if let Some(place) = place {
                    raise(&mut anchors, author, place, chains)?;
                }
                let mut through = 0;
                for anchor in anchors.tips(&author).iter().rev() {
                    if leads_back(chains, &author, *anchor, &[*tip])? {
                        through = anchor.seq;
                        break;
                    }
                }
                if let Some(by) = by.filter(|_| through < tip.seq) {
                    held.push(Held {
                        author,
                        after: through,
                        through: tip.seq,
                        by,
                    });
                }
            }
        }
        Ok(Ok(Watermark { anchors, held }))
    }

    /// Returns the active admins that have not acknowledged the entry of `author` at `place` in the root
    /// store: one of them might void it, or may not know whom it granted a role.
    ///
    /// # Errors
    /// That of `root`, the logs of the root store.
    pub fn admins_without<R: Chains>(
        &self,
        author: &Author,
        place: FrontierTip,
        root: &R,
    ) -> Result<BTreeSet<Author>, R::Error> {
        let mut without = BTreeSet::new();
        for node in self.active() {
            let has = match self.proven.get(&node) {
                _any if self.members.role(&node) != Some(Role::Admin) => true,
                Some(proven) => proven.has_root(author, place, root)?,
                None => false,
            };
            if !has {
                without.insert(node);
            }
        }
        Ok(without)
    }

    // The reason why nothing more of `author` becomes final, if there is one.
    fn stop<R: Chains>(&self, author: &Author, root: &R) -> Result<Option<Hold>, R::Error> {
        let Some(member) = self.members.get(author) else {
            return Ok(Some(Hold::NotGranted));
        };
        let Some(grant) = member.grant else {
            // The creator needs none.
            return Ok(member.rank.is_none().then_some(Hold::NotGranted));
        };
        let place = FrontierTip {
            seq: grant.seq,
            id: grant.rank.entry,
        };
        let unseen = self.admins_without(&grant.by, place, root)?;
        Ok((!unseen.is_empty()).then_some(Hold::Grant(unseen)))
    }

    // The last entry of the branch that ends in `tip` which may become final, and why no later one.
    fn reach<C: Chains>(
        &self,
        author: &Author,
        tip: FrontierTip,
        asked: &BTreeMap<Author, &Proven>,
        chains: &C,
    ) -> Result<(Option<FrontierTip>, Option<Hold>), C::Error> {
        let fork = self.fork(author, tip, chains)?;
        let (mut through, mut behind) = (fork.unwrap_or(tip.seq), BTreeSet::new());
        for (node, proven) in asked {
            let has = proven.through(author, tip, chains)?;
            let has = has.map_or(0, |place| place.seq);
            if has < through {
                (through, behind) = (has, BTreeSet::new());
            }
            if has == through && has < tip.seq {
                behind.insert(*node);
            }
        }
        let by_ack = (!behind.is_empty()).then_some(Hold::Members(behind));
        let last = self.last_before(author, tip, through, chains)?;
        let by_age = (last < through).then_some(Hold::Young);
        let place = match last {
            0 => None,
            last => chains.at(author, tip, last)?.map(FrontierTip::from),
        };
        let verified = place.map_or(0, |place| place.seq);
        let by_form = (verified < last).then_some(Hold::NotSigned);
        let by_fork = fork.map(|_seq| Hold::Fork);
        Ok((place, by_age.or(by_ack).or(by_form).or(by_fork)))
    }

    // The last seq of the branch that ends in `tip` which every other open branch has, too; `None` if
    // it is not one of an open fork.
    fn fork<C: Chains>(
        &self,
        author: &Author,
        tip: FrontierTip,
        chains: &C,
    ) -> Result<Option<Seq>, C::Error> {
        let open = self.open_forks.get(author).map_or(&[][..], Vec::as_slice);
        if open.len() < 2 || !open.contains(&tip) {
            return Ok(None);
        }
        let mut least = tip.seq;
        for other in open.iter().filter(|other| **other != tip) {
            let common = chains.meet(author, tip, *other)?;
            least = least.min(common.map_or(0, |place| place.seq));
        }
        Ok(Some(least))
    }

    // The greatest seq through `through` on the branch at which an entry is not too young. Stamps grow
    // along a branch.
    fn last_before<C: Chains>(
        &self,
        author: &Author,
        tip: FrontierTip,
        through: Seq,
        chains: &C,
    ) -> Result<Seq, C::Error> {
        let Some(before_ms) = self.before_ms else {
            return Ok(through);
        };
        // All entries through `old` are old enough, and none after `end` is.
        let (mut old, mut end) = (0, through);
        while old < end {
            let middle = end.saturating_sub(end.saturating_sub(old) / 2);
            let there = chains.at(author, tip, middle)?;
            if there.is_none_or(|there| there.hlc.wall_ms < before_ms) {
                old = middle;
            } else {
                end = middle.saturating_sub(1);
            }
        }
        Ok(old)
    }
}

/// Returns the members that write.
pub(super) fn writers(members: &Members) -> impl Iterator<Item = Author> + '_ {
    let nodes = members.iter().map(|(node, _)| *node);
    nodes.filter(|node| members.role(node) >= Some(Role::Writer))
}

// Adds an anchor, and takes out those that it comes after. Does nothing if one comes after it.
fn raise<C: Chains>(
    anchors: &mut Frontier,
    author: Author,
    place: FrontierTip,
    chains: &C,
) -> Result<(), C::Error> {
    if leads_back(chains, &author, place, anchors.tips(&author))? {
        return Ok(());
    }
    let mut last = vec![place];
    for anchor in anchors.tips(&author) {
        if !leads_back(chains, &author, *anchor, &[place])? {
            last.push(*anchor);
        }
    }
    anchors.set_tips(author, last);
    Ok(())
}

fn list(nodes: &BTreeSet<Author>) -> String {
    let nodes: Vec<String> = nodes.iter().map(Author::short).collect();
    nodes.join(", ")
}
