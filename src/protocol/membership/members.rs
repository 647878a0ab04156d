//! Members: the result of an evaluation of all acts, and the questions that it answers.
//!
//! A node has the highest role that a counting grant gives it, and at most the lowest that a counting
//! lowering leaves it. If a counting removal is about it, it has none. Its entries count in a store if
//! it is a writer or an admin. If it was one and was removed, or lowered to reader, only entries that
//! its removals and lowerings keep count. The folder states which acts count.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    id::{Author, EntryId, Seq, StoreId},
    limits::FORKS_MAX,
    protocol::{
        frontier::FrontierTip,
        membership::{
            kept_through::KeptThrough,
            role::{Role, Tips},
        },
        placed_act::PlacedAct,
    },
};

/// The members of a mesh, and the nodes that were removed, as the counting acts make them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    pub(super) root: StoreId,
    // The creator, and all nodes that a counting act is about. A node that is only removed is here,
    // too.
    pub(super) nodes: BTreeMap<Author, Member>,
    // Counting acts: the entry, and the node that it acts on.
    pub(super) counting: BTreeSet<(EntryId, Author)>,
    // Entries with authority of which other ops need it.
    pub(super) authorized: BTreeSet<EntryId>,
    // Counting anchors acts by the store that they are about, then by entry.
    pub(super) anchors: BTreeMap<StoreId, BTreeMap<EntryId, Arc<PlacedAct>>>,
}

/// State of one node, as the counting acts make it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// Best rank among the grants of admin to the node; `None` if it was never an admin. Kept when
    /// the node is removed.
    pub rank: Option<Rank>,
    /// Grant with the highest role, then the best rank; `None` for the creator unless it was
    /// granted a role, and for a node that was removed but never granted a role. An admin cites
    /// this entry in its acts; the creator need not.
    pub grant: Option<Grant>,
    /// Counting removals of the node, by entry; empty for a member.
    pub removals: BTreeMap<EntryId, Removal>,
    /// Counting lowerings of its role, by entry.
    pub lowerings: BTreeMap<EntryId, Lowering>,
    /// True when its key is spent in the root store, and nobody has removed it.
    pub spent: bool,
}

/// Distance of an authority from the creator, compared by both fields; the lesser is the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    /// Number of grants between the creator and this admin; 0 for the creator.
    pub grants: u64,
    /// Entry of the last of these grants; all zeros for the creator.
    pub entry: EntryId,
}

/// A grant that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Role that is granted.
    pub role: Role,
    /// Rank of the authority that it gives, if the role is admin; `rank.entry` is the granting
    /// entry.
    pub rank: Rank,
    /// Author of the grant.
    pub by: Author,
    /// Seq of the granting entry in the log of `by`.
    pub seq: Seq,
}

/// A removal that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Author of the removal: an admin, or the node itself.
    pub by: Author,
    /// Tips through which the node's entries count, inclusive. For a removal of itself, its only tip
    /// in the root store is the entry by which it left.
    pub tips: Tips,
}

/// A lowering that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lowering {
    /// Author of the lowering: an admin, never the node itself.
    pub by: Author,
    /// Highest role that the node can have since; never admin.
    pub role: Role,
    /// Tips through which the node's acts count, and its entries if `role` is reader, inclusive.
    pub tips: Tips,
}

/// A removal, or a lowering to reader, that an admin is to add; see [`Members::departures`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// Node that was removed, has left, or was lowered.
    pub node: Author,
    /// True when it was lowered only, and is still a member.
    pub lowered: bool,
    /// Stores that the act must name.
    pub stores: BTreeSet<StoreId>,
    /// Tips that the act must name: those that acts of other nodes name in these stores and in the root
    /// store, and the entries by which the node left.
    pub tips: BTreeSet<(StoreId, FrontierTip)>,
    /// Entries in the root store by which the node left; empty when it was removed or lowered only.
    pub left: BTreeSet<FrontierTip>,
    /// Tips in these stores that the node itself named when it left. They may not exist, so the act
    /// names none of them. A store whose tips are waited for is left for a later act.
    pub claims: BTreeSet<(StoreId, FrontierTip)>,
    /// True when another node has removed or lowered it already: then an act is of use for `stores` only.
    pub is_confirmed: bool,
}

/// Whether an author's entries count in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// No counting grant is about the author: its entries wait.
    Unknown,
    /// The author is a reader, or was one: its entries are refused.
    Reader,
    /// All entries count.
    Counts,
    /// The author was removed or lowered to reader: entries that this keeps count, others are refused.
    Through(KeptThrough),
    /// The author's key is spent: none of its entries counts, and no more are taken in.
    Spent,
}

/// Why an act would not count, or would change nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// The node that would act is not an admin.
    #[error("node {} is {}; only an admin may do this", node.short(), role.map_or("not a member".to_owned(), |role| format!("a {role}")))]
    NotAdmin {
        /// Node that would act.
        node: Author,
        /// Role of that node; `None` if it is not a member.
        role: Option<Role>,
    },
    /// The node was removed or has left, which no grant takes back.
    #[error("node {} was removed by {} for ever; it can join again with a new key", node.short(), by.short())]
    Removed {
        /// Node that was removed.
        node: Author,
        /// Author of one of its removals.
        by: Author,
    },
    /// The change would give the node no other role: a grant never lowers one, and a lowering never
    /// raises one.
    #[error("node {} has the role {has} already", node.short())]
    HasRole {
        /// Node that would be granted a role.
        node: Author,
        /// Role that it has.
        has: Role,
        /// Role that it would get.
        role: Role,
    },
    /// The node's role was lowered, which no grant takes back.
    #[error(
        "the role of node {} was lowered to {to} by {} for ever; for more rights it needs a new key",
        node.short(),
        by.short()
    )]
    Lowered {
        /// Node whose role was lowered.
        node: Author,
        /// Highest role that it can have.
        to: Role,
        /// Author of the lowering.
        by: Author,
    },
    /// A node would lower its own role.
    #[error("a node cannot lower its own role; another admin can, or it can leave")]
    LowersItself,
    /// The node's key is spent: it signed too many forks.
    #[error(
        "node {} has forked its log in the root store more than {FORKS_MAX} times, so it is no longer \
         a member; it can join again with a new key",
        node.short()
    )]
    Spent {
        /// Node whose key is spent.
        node: Author,
    },
    /// The node that would be removed is not a member.
    #[error("node {} is not a member", node.short())]
    Stranger {
        /// Node that would be removed.
        node: Author,
    },
    /// The admin that would be removed ranks better than the one that would remove it.
    #[error(
        "node {} is {grants} grants away from the creator, this node {own_grants}; only the nearer \
         admin can remove the other, or at equal distance the one with the lesser grant id",
        node.short()
    )]
    Outranked {
        /// Admin that would be removed.
        node: Author,
        /// Number of grants between the creator and that admin.
        grants: u64,
        /// Number of grants between the creator and the admin that would remove it.
        own_grants: u64,
    },
    /// The node is the only admin and would leave: nobody could grant a role any more.
    #[error("node {} is the last admin; make another node admin first", node.short())]
    LastAdmin {
        /// Node that would leave.
        node: Author,
    },
}

impl Members {
    /// Returns the role of `node`; `None` if it was never granted one, was removed, has left, or its
    /// key is spent in the root store.
    pub fn role(&self, node: &Author) -> Option<Role> {
        self.nodes
            .get(node)
            .filter(|member| member.removals.is_empty() && !member.spent)
            .and_then(Member::role_now)
    }

    /// Returns whether the key of `node` is spent in the root store, and nobody has removed it.
    pub fn is_spent(&self, node: &Author) -> bool {
        self.nodes.get(node).is_some_and(|member| member.spent)
    }

    /// Returns whether `node` was removed or has left.
    pub fn is_removed(&self, node: &Author) -> bool {
        self.nodes
            .get(node)
            .is_some_and(|member| !member.removals.is_empty())
    }

    /// Returns whether entries of `node` that no removal or lowering keeps never count: it was removed,
    /// has left, or was lowered to reader.
    pub fn is_cut_off(&self, node: &Author) -> bool {
        let member = self.nodes.get(node);
        member.is_some_and(|member| !member.removals.is_empty() || member.is_lowered_to_reader())
    }

    /// Returns the state of `node`, also if it was removed; `None` if no counting act is about it.
    pub fn get(&self, node: &Author) -> Option<&Member> {
        self.nodes.get(node)
    }

    /// Returns the creator and all nodes that a counting act is about, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Author, &Member)> {
        self.nodes.iter()
    }

    /// Returns the current members but `own`, by key.
    pub fn others(&self, own: Author) -> impl Iterator<Item = Author> {
        self.nodes
            .keys()
            .copied()
            .filter(move |node| *node != own && self.role(node).is_some())
    }

    /// Returns whether the act of `entry` on `node` counts.
    ///
    /// All other acts are void: their puts keep no place in the state.
    pub fn counts(&self, entry: &EntryId, node: &Author) -> bool {
        self.counting.contains(&(*entry, *node))
    }

    /// Returns all counting acts: the entry, and the node that it acts on.
    pub fn counting(&self) -> &BTreeSet<(EntryId, Author)> {
        &self.counting
    }

    /// Returns the entries with authority of which ops need it that are no acts.
    pub fn authorized(&self) -> &BTreeSet<EntryId> {
        &self.authorized
    }

    /// Returns the counting anchors acts about `store`.
    pub fn anchors_acts(&self, store: &StoreId) -> impl Iterator<Item = &Arc<PlacedAct>> {
        self.anchors
            .get(store)
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    /// Returns whether the entries of `author`, which has at most `FORKS_MAX` forks in `store`, count
    /// there. It may be the root store.
    pub fn standing(&self, store: &StoreId, author: &Author) -> Standing {
        self.standing_with(store, author, false)
    }

    /// Returns whether the entries of `author` count in `store`, which may be the root store.
    /// `is_spent`: whether the author has more than `FORKS_MAX` forks there.
    pub fn standing_with(&self, store: &StoreId, author: &Author, is_spent: bool) -> Standing {
        let granted = self
            .nodes
            .get(author)
            .and_then(|member| Some((member, member.role()?)));
        let Some((member, role)) = granted else {
            return Standing::Unknown;
        };
        if role == Role::Reader {
            return Standing::Reader;
        }
        let is_exempt = member.rank.is_some() && *store == self.root;
        let kept = member.kept_through(author, store, &self.root);
        let is_kept = !kept.removals.is_empty() || !kept.leaves.is_empty();
        if member.spent || (is_spent && !is_exempt && !is_kept) {
            return Standing::Spent;
        }
        if member.removals.is_empty() && !member.is_lowered_to_reader() {
            return Standing::Counts;
        }
        Standing::Through(kept)
    }

    /// Checks that a grant of `role` to `node` by `by` would count and change something.
    ///
    /// # Errors
    /// `NotAdmin` if `by` is not an admin; `Removed` if `node` was removed or has left; `Spent` if its
    /// key is; `HasRole` if `node` has `role` or a higher one; `Lowered` if it can never have it.
    pub fn may_grant(&self, by: &Author, node: &Author, role: Role) -> Result<(), MembershipError> {
        self.admin_rank(by)?;
        self.check_not_removed(node)?;
        if self.is_spent(node) {
            return Err(MembershipError::Spent { node: *node });
        }
        if let Some(lowering) = self.nodes.get(node).and_then(Member::lowest)
            && lowering.role < role
        {
            return Err(MembershipError::Lowered {
                node: *node,
                to: lowering.role,
                by: lowering.by,
            });
        }
        match self.role(node) {
            Some(has) if has >= role => Err(MembershipError::HasRole {
                node: *node,
                has,
                role,
            }),
            _less => Ok(()),
        }
    }

    /// Returns the acts that `by` is to add, as an admin that outranks the node: a removal of each node
    /// that has left and was removed by nobody else, and one of each removed node for `stores` of which
    /// no removal speaks; a lowering of each node that was lowered to reader, for such stores. With each
    /// node come the stores that the act must name, and tips; those that are here are to be joined.
    ///
    /// Without it somebody with the old key of the node could go on adding entries.
    pub fn departures(&self, by: &Author, stores: &BTreeSet<StoreId>) -> Vec<Departure> {
        let Ok(own) = self.admin_rank(by) else {
            return Vec::new();
        };
        let mut departures = Vec::new();
        for (node, member) in &self.nodes {
            let outranks = member.rank.is_none_or(|rank| (own, by) < (rank, node));
            let lowered = member.removals.is_empty();
            if (lowered && !member.is_lowered_to_reader()) || !outranks {
                continue;
            }
            let (leaves, removals): (Vec<_>, Vec<_>) = member
                .removals
                .values()
                .partition(|removal| removal.by == *node);
            let by_others = removals.iter().map(|removal| &removal.tips);
            let by_others = by_others.chain(member.lowerings_to_reader().map(|at| &at.tips));
            let is_spoken_of = |store: &StoreId| {
                let mut tips = by_others.clone();
                *store == self.root || tips.any(|tips| tips.speaks_of(store))
            };
            let mut unspoken: BTreeSet<StoreId> = stores.clone();
            unspoken.retain(|store| !is_spoken_of(store));
            if !unspoken.is_empty() || (removals.is_empty() && !lowered) {
                let named = unspoken.iter().chain([&self.root]).flat_map(|store| {
                    let removals = removals.iter().map(|removal| &removal.tips);
                    let lowerings = member.lowerings_to_reader().map(|at| &at.tips);
                    let tips = removals.chain(lowerings.filter(move |_| lowered));
                    let tips = tips.flat_map(move |tips| tips.of(store));
                    tips.map(move |tip| (*store, tip))
                });
                let by_itself = leaves.iter().map(|leave| &leave.tips);
                let left = by_itself.clone().flat_map(|tips| tips.of(&self.root));
                let claims = unspoken.iter().flat_map(|store| {
                    let tips = by_itself.clone().flat_map(move |tips| tips.of(store));
                    tips.map(move |tip| (*store, tip))
                });
                let (left, claims): (BTreeSet<_>, _) = (left.collect(), claims.collect());
                let left_at = left.iter().map(|tip| (self.root, *tip));
                departures.push(Departure {
                    node: *node,
                    lowered,
                    tips: named.chain(left_at).collect(),
                    left,
                    claims,
                    is_confirmed: lowered || !removals.is_empty(),
                    stores: unspoken,
                });
            }
        }
        departures
    }

    /// Checks that a removal of `node` by `by` would count.
    ///
    /// Every member may remove itself, except the last admin.
    ///
    /// # Errors
    /// `Removed` if `node` was removed or has left; `Stranger` if it is not a member, nor a node whose
    /// key is spent; `LastAdmin` if it is the only admin and would leave; `NotAdmin` if `by` is another
    /// node and not an admin; `Outranked` if `node` is an admin that ranks better than `by`.
    pub fn may_remove(&self, by: &Author, node: &Author) -> Result<(), MembershipError> {
        self.check_not_removed(node)?;
        let role = self.role(node);
        if role.is_none() && !self.is_spent(node) {
            return Err(MembershipError::Stranger { node: *node });
        }
        if by == node {
            return if role < Some(Role::Admin) || self.admins().any(|(admin, _)| admin != node) {
                Ok(())
            } else {
                Err(MembershipError::LastAdmin { node: *node })
            };
        }
        self.check_outranks(by, node)
    }

    /// Checks that a lowering of the role of `node` to `role` by `by` would count and change something.
    ///
    /// # Errors
    /// `LowersItself` if `by` is `node`; `Removed` if it was removed or has left; `Stranger` if it is
    /// not a member; `HasRole` if it has `role` or a lower one; `NotAdmin` if `by` is not an admin; `Outranked` if
    /// `node` is an admin, or was one, that ranks better than `by`.
    pub fn may_lower(&self, by: &Author, node: &Author, role: Role) -> Result<(), MembershipError> {
        if by == node {
            return Err(MembershipError::LowersItself);
        }
        self.check_not_removed(node)?;
        match self.role(node) {
            None => Err(MembershipError::Stranger { node: *node }),
            Some(has) if has <= role => Err(MembershipError::HasRole {
                node: *node,
                has,
                role,
            }),
            Some(_higher) => self.check_outranks(by, node),
        }
    }

    pub(super) fn admins(&self) -> impl Iterator<Item = (&Author, &Member)> {
        let is_admin = |member: &Member| member.role_now() == Some(Role::Admin);
        let members = self.nodes.iter();
        members.filter(move |(_, member)| member.removals.is_empty() && is_admin(member))
    }

    fn check_outranks(&self, by: &Author, node: &Author) -> Result<(), MembershipError> {
        let own = self.admin_rank(by)?;
        match self.nodes.get(node).and_then(|member| member.rank) {
            Some(rank) if (rank, node) < (own, by) => Err(MembershipError::Outranked {
                node: *node,
                grants: rank.grants,
                own_grants: own.grants,
            }),
            _worse => Ok(()),
        }
    }

    fn admin_rank(&self, node: &Author) -> Result<Rank, MembershipError> {
        self.nodes
            .get(node)
            .filter(|_| self.role(node) == Some(Role::Admin))
            .and_then(|member| member.rank)
            .ok_or(MembershipError::NotAdmin {
                node: *node,
                role: self.role(node),
            })
    }

    fn check_not_removed(&self, node: &Author) -> Result<(), MembershipError> {
        let removal = self
            .nodes
            .get(node)
            .and_then(|member| member.removals.values().next());
        removal.map_or(Ok(()), |removal| {
            Err(MembershipError::Removed {
                node: *node,
                by: removal.by,
            })
        })
    }
}

impl Member {
    /// Returns the highest role that the node was granted, also if it was removed or lowered since;
    /// `None` if it was never granted one.
    pub fn role(&self) -> Option<Role> {
        match self.rank {
            Some(_admin) => Some(Role::Admin),
            None => self.grant.map(|grant| grant.role),
        }
    }

    // The role of a node that was not removed.
    fn role_now(&self) -> Option<Role> {
        let most = self.lowest().map_or(Role::Admin, |lowering| lowering.role);
        Some(self.role()?.min(most))
    }

    fn lowest(&self) -> Option<&Lowering> {
        self.lowerings.values().min_by_key(|lowering| lowering.role)
    }

    fn lowerings_to_reader(&self) -> impl Iterator<Item = &Lowering> + Clone {
        let lowerings = self.lowerings.values();
        lowerings.filter(|lowering| lowering.role == Role::Reader)
    }

    /// Returns whether its entries count no more but for those that lowerings keep.
    pub(super) fn is_lowered_to_reader(&self) -> bool {
        self.lowerings_to_reader().next().is_some()
    }

    pub(super) fn add(&mut self, grant: Grant) {
        let better = |known: &Grant| (known.role, Reverse(known.rank));
        if self.grant.as_ref().map(better) < Some(better(&grant)) {
            self.grant = Some(grant);
        }
    }

    /// Returns which acts of `node` count, by their places in `root`: a lowering to writer takes the
    /// right to act, and leaves the entries.
    pub(super) fn acts_kept_through(&self, node: &Author, root: &StoreId) -> KeptThrough {
        let mut kept = self.kept_through(node, root, root);
        let lowerings = self.lowerings.values();
        let to_writer = lowerings.filter(|lowering| lowering.role != Role::Reader);
        let tips = to_writer.map(|lowering| lowering.tips.of(root).collect());
        kept.removals.extend(tips);
        kept
    }

    /// Returns which entries of `node` count in `store`.
    pub(super) fn kept_through(
        &self,
        node: &Author,
        store: &StoreId,
        root: &StoreId,
    ) -> KeptThrough {
        let mut kept = KeptThrough::default();
        for removal in self.removals.values() {
            let tips = removal.tips.of(store).collect();
            if removal.by == *node {
                // Otherwise a node that has this leave would refuse the forks by which other nodes know
                // that the key is spent, or would take in forks without end: the tips are a claim of
                // the node, and all before one that is not here is taken to be kept.
                if self.rank.is_some() {
                    kept.leaves.push(tips);
                }
            } else if store == root || removal.tips.speaks_of(store) {
                kept.removals.push(tips);
            }
        }
        for lowering in self.lowerings_to_reader() {
            if store == root || lowering.tips.speaks_of(store) {
                kept.removals.push(lowering.tips.of(store).collect());
            }
        }
        kept
    }
}
