//! The evaluation of all acts, from the best rank to the worst.
//!
//! Authority is followed as Dijkstra's algorithm follows roads: a grant has a worse rank than what it
//! rests on, and a removal counts only against worse ranks than its own. So when a node's turn
//! comes, everything that can end it, or make it better, has been seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use crate::{
    id::{Author, EntryId, StoreId},
    protocol::{
        frontier::FrontierTip,
        membership::{
            Grant, Members, Rank, Removal,
            role::{Act, Acts, Role, Tips},
        },
    },
};

impl Members {
    /// Evaluates all acts in the root store that `creator` founded.
    ///
    /// `leads(author, entry, tip)` says whether `entry` is on the branch of `author` that ends in
    /// `tip`; `None` where `tip` has not come, when every lesser seq counts.
    ///
    /// The creator's own removal does not count if no admin would be left. So there always is one.
    ///
    /// # Errors
    /// Those of `leads`.
    pub fn evaluate<'a, E>(
        creator: Author,
        root: StoreId,
        acts: impl IntoIterator<Item = &'a Acts>,
        leads: impl Fn(&Author, FrontierTip, FrontierTip) -> Result<Option<bool>, E>,
    ) -> Result<Self, E> {
        let mut evaluation = Evaluation {
            root,
            leads,
            by_authority: BTreeMap::new(),
            leaving: BTreeMap::new(),
        };
        for acts in acts {
            evaluation.file(creator, acts);
        }
        let members = evaluation.run(creator)?;
        if members.admins().next().is_some() {
            return Ok(members);
        }
        // Only the creator's own removal can have led here: it is void then.
        evaluation.leaving.remove(&creator);
        evaluation.run(creator)
    }

    /// Returns the members of a root store in which only its creator has acted, and granted nothing.
    pub fn founded(creator: Author, root: StoreId) -> Self {
        let unasked = |_: &Author, _, _| Ok::<_, Infallible>(None);
        let Ok(members) = Self::evaluate(creator, root, [], unasked);
        members
    }
}

// The acts by author and authority. Written by `file` only, before `run`.
struct Evaluation<'a, L> {
    root: StoreId,
    leads: L,
    // By author and cited entry; all of the creator's under FOUNDING.
    by_authority: BTreeMap<(Author, EntryId), Vec<&'a Acts>>,
    // Those in which the author removes itself, and the tips it names.
    leaving: BTreeMap<Author, BTreeMap<FrontierTip, &'a Tips>>,
}

impl<'a, L, E> Evaluation<'a, L>
where
    L: Fn(&Author, FrontierTip, FrontierTip) -> Result<Option<bool>, E>,
{
    fn file(&mut self, creator: Author, acts: &'a Acts) {
        let author = acts.author;
        let cites = if author == creator {
            &[FOUNDING]
        } else {
            acts.cites.as_slice()
        };
        for grant in cites {
            let by_it = self.by_authority.entry((author, *grant)).or_default();
            by_it.push(acts);
        }
        for (node, act) in &acts.acts {
            match act {
                Act::Remove(tips) if *node == author => {
                    let leaving = self.leaving.entry(author).or_default();
                    leaving.insert(acts.tip(), tips);
                }
                Act::Remove(_) | Act::Grant(_) => {}
            }
        }
    }

    fn run(&self, creator: Author) -> Result<Members, E> {
        let mut members = Members {
            nodes: BTreeMap::new(),
            counting: BTreeSet::new(),
        };
        let founding = Rank {
            grants: 0,
            entry: FOUNDING,
        };
        // One entry can make several nodes admin: then the key decides.
        let mut queue = BTreeSet::from([(founding, creator)]);
        let mut done = BTreeSet::new();
        while let Some((rank, node)) = queue.pop_first() {
            if members.get(&node).is_none_or(|known| known.rank.is_none()) {
                self.leave(&mut members, node)?;
            }
            let known = members.nodes.entry(node).or_default();
            known.rank.get_or_insert(rank);
            // The same each time: nothing is added to the removals of one that has a rank.
            let cut = known.kept_through(&self.root);
            let by_it = self.by_authority.get(&(node, rank.entry));
            for acts in by_it.into_iter().flatten() {
                if cut.covers(&node, acts.tip(), &self.leads)? && done.insert(acts.entry) {
                    queue.extend(members.apply(rank, acts));
                }
            }
        }
        for node in self.leaving.keys() {
            let known = members.get(node);
            if known.is_some_and(|known| known.rank.is_none() && known.grant.is_some()) {
                self.leave(&mut members, *node)?;
            }
        }
        Ok(members)
    }

    // Ends `node` where it left first, unless others had ended it before that.
    fn leave(&self, members: &mut Members, node: Author) -> Result<(), E> {
        let cut = members
            .get(&node)
            .map(|known| known.kept_through(&self.root));
        let cut = cut.unwrap_or_default();
        for (at, tips) in self.leaving.get(&node).into_iter().flatten() {
            if cut.covers(&node, *at, &self.leads)? {
                let tips = (*tips).clone().with_only(self.root, *at);
                members.remove(node, at.id, Removal { by: node, tips });
                break;
            }
        }
        Ok(())
    }
}

impl Members {
    // Does what an entry of authority `rank` says. Returns the new authorities.
    fn apply(&mut self, rank: Rank, acts: &Acts) -> Vec<(Rank, Author)> {
        let mut admins = Vec::new();
        for (node, act) in &acts.acts {
            let known = self.nodes.entry(*node).or_default();
            match act {
                Act::Grant(role) => {
                    let grant = Grant {
                        role: *role,
                        rank: Rank {
                            grants: rank.grants.saturating_add(1),
                            entry: acts.entry,
                        },
                        by: acts.author,
                        seq: acts.seq,
                    };
                    known.add(grant);
                    if *role == Role::Admin {
                        admins.push((grant.rank, *node));
                    }
                    self.counting.insert((acts.entry, *node));
                }
                // Its turn has come before: it is the better ranked, or the author itself.
                Act::Remove(_) if known.rank.is_some() => {}
                Act::Remove(tips) => {
                    let removal = Removal {
                        by: acts.author,
                        tips: tips.clone(),
                    };
                    self.remove(*node, acts.entry, removal);
                }
            }
        }
        admins
    }

    fn remove(&mut self, node: Author, entry: EntryId, removal: Removal) {
        let known = self.nodes.entry(node).or_default();
        known.removals.insert(entry, removal);
        self.counting.insert((entry, node));
    }
}

// No entry has this id. It stands for the grant that the creator never needed.
const FOUNDING: EntryId = EntryId([0; 32]);
