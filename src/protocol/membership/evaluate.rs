//! Evaluation of all acts, from the best rank to the worst.
//!
//! Authorities (a rank and a node) are taken from a queue in order of rank, then key, as Dijkstra's
//! algorithm takes the nearest node. A grant has a worse rank than the authority it is made by, and
//! a removal counts only against worse ranks than its own. So when the first authority of a node is
//! taken, all acts that can end it or give it a better rank have been applied. The acts that cite
//! the authority's grant are applied then, those after the node's kept tips excepted.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
};

use crate::{
    id::{Author, EntryId, StoreId},
    protocol::{
        frontier::FrontierTip,
        membership::{
            Grant, Lowering, Members, Rank, Removal,
            acts::Acts,
            role::{Act, Role, Tips},
        },
    },
};

impl Members {
    /// Evaluates all acts in `root`, the root store that `creator` founded; the module has the
    /// rules.
    ///
    /// The order of `acts` does not matter, nor does an act that is given twice. `leads(author,
    /// entry, tip)` returns whether `entry` is on the branch of `author` that ends in `tip`, or is
    /// that tip. It returns `None` if `tip`, or an entry between the two, is not here; then `entry`
    /// is taken to be on it if its seq is lesser.
    ///
    /// # Errors
    /// The error of `leads`.
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
        // Only the creator's removal of itself can leave no admin; it is void then.
        evaluation.leaving.remove(&creator);
        evaluation.run(creator)
    }

    /// Returns the members of a root store without any act: its creator, as admin.
    pub fn founded(creator: Author, root: StoreId) -> Self {
        let unasked = |_: &Author, _, _| Ok::<_, Infallible>(None);
        let Ok(members) = Self::evaluate(creator, root, [], unasked);
        members
    }
}

// Acts by the keys under which `run` looks them up. Filled by `file`; `run` only reads them.
struct Evaluation<'a, L> {
    root: StoreId,
    leads: L,
    // Acts by author and cited entry. Those of the creator are under `FOUNDING`, whatever they
    // cite.
    by_authority: BTreeMap<(Author, EntryId), Vec<&'a Acts>>,
    // Entries by which an author removes itself, and the tips that each names.
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
                Act::Remove(_) | Act::Grant(_) | Act::Lower(..) => {}
            }
        }
    }

    fn run(&self, creator: Author) -> Result<Members, E> {
        let mut members = Members {
            root: self.root,
            nodes: BTreeMap::new(),
            counting: BTreeSet::new(),
            authorized: BTreeSet::new(),
            anchors: BTreeMap::new(),
        };
        let founding = Rank {
            grants: 0,
            entry: FOUNDING,
        };
        // One entry can make several nodes admin: they have one rank, and the key decides.
        let mut queue = BTreeSet::from([(founding, creator)]);
        let mut done = BTreeSet::new();
        while let Some((rank, node)) = queue.pop_first() {
            if members.get(&node).is_none_or(|known| known.rank.is_none()) {
                self.leave(&mut members, node)?;
            }
            let known = members.nodes.entry(node).or_default();
            known.rank.get_or_insert(rank);
            // The same for each authority of a node: a node that has a rank gets no more removals.
            let cut = known.acts_kept_through(&node, &self.root);
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

    // Removes `node` by the entries by which it left: of those that the removals by others keep, the
    // first on each branch.
    fn leave(&self, members: &mut Members, node: Author) -> Result<(), E> {
        let cut = members
            .get(&node)
            .map(|known| known.kept_through(&node, &self.root, &self.root));
        let cut = cut.unwrap_or_default();
        let mut first: Vec<FrontierTip> = Vec::new();
        // By seq: what comes before an entry on its branch comes before it here.
        for (at, tips) in self.leaving.get(&node).into_iter().flatten() {
            if !cut.covers(&node, *at, &self.leads)? {
                continue;
            }
            let mut is_second = false;
            for before in &first {
                is_second = is_second || (self.leads)(&node, *before, *at)? == Some(true);
            }
            if !is_second {
                first.push(*at);
                let tips = (*tips).clone().with_only(self.root, *at);
                members.remove(node, at.id, Removal { by: node, tips });
            }
        }
        Ok(())
    }
}

impl Members {
    // Applies the acts of an entry with authority `rank`. Returns the authorities that it grants.
    fn apply(&mut self, rank: Rank, acts: &Acts) -> Vec<(Rank, Author)> {
        let mut admins = Vec::new();
        if acts.needs_authority {
            self.authorized.insert(acts.entry);
        }
        for placed in &acts.anchors {
            let of_store = self.anchors.entry(placed.store).or_default();
            of_store.insert(placed.at.id, Arc::clone(placed));
        }
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
                // The node has a rank, so its authority was taken before: it ranks better, or it is
                // the author.
                Act::Remove(_) | Act::Lower(..) if known.rank.is_some() => {}
                Act::Remove(tips) => {
                    let removal = Removal {
                        by: acts.author,
                        tips: tips.clone(),
                    };
                    self.remove(*node, acts.entry, removal);
                }
                Act::Lower(role, tips) => {
                    let lowering = Lowering {
                        by: acts.author,
                        role: *role,
                        tips: tips.clone(),
                    };
                    known.lowerings.insert(acts.entry, lowering);
                    self.counting.insert((acts.entry, *node));
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

// No entry has this id. It stands for a grant to the creator, who needs none.
const FOUNDING: EntryId = EntryId([0; 32]);
