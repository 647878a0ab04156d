use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    id::{Author, EntryId, Seq, StoreId},
    protocol::membership::{
        cut::KeptThrough,
        role::{Role, Tips},
    },
};

/// The members of a mesh, and which acts made them so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    // Everybody that an act which counts is about, and the creator.
    pub(super) nodes: BTreeMap<Author, Member>,
    // The acts that count: entry, and the node it is about.
    pub(super) counting: BTreeSet<(EntryId, Author)>,
}

/// Standing of one node, as the acts that count make it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// The rank of an admin; `None` for everybody else.
    pub rank: Option<Rank>,
    /// The best grant it has; `None` for one that was removed before a grant of it came. An admin
    /// cites this entry in all that it does to nodes; the creator needs none.
    pub grant: Option<Grant>,
    /// By whom it was removed, by entry. Empty for members.
    pub removals: BTreeMap<EntryId, Removal>,
}

/// Distance from the creator. The lesser is the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    /// Grants between the creator and this admin; 0 for the creator.
    pub grants: u64,
    /// The entry of the last one; zeros for the creator.
    pub entry: EntryId,
}

/// A grant that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Role that it grants.
    pub role: Role,
    /// The rank that an admin has by it.
    pub rank: Rank,
    /// Node that granted it.
    pub by: Author,
    /// Its place in the log of `by`.
    pub seq: Seq,
}

/// A removal that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Node that removed it: another admin, or the node itself.
    pub by: Author,
    /// Through where the node's entries count. In the root store of one that left: its last act.
    pub tips: Tips,
}

/// Fate of an author's entries in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has granted it anything yet: they wait.
    Unknown,
    /// It may not write: they keep no place.
    Reader,
    /// They count.
    Counts,
    /// They count as far as this says; later ones keep no place.
    Through(KeptThrough),
}

/// Why a node may not be granted a role, or be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Only admins may.
    #[error("node {node} is {}; only an admin may do this", role.map_or("no member".to_owned(), |role| format!("a {role}")))]
    NotAdmin {
        /// Node that wanted to act.
        node: Author,
        /// Role of that node; `None` when it is not a member.
        role: Option<Role>,
    },
    /// It was removed; no grant takes that back.
    #[error("node {node} was removed by {by}, for ever; it can join with a new key")]
    Removed {
        /// Node that the act is about.
        node: Author,
        /// By whom.
        by: Author,
    },
    /// Roles only go up.
    #[error(
        "node {node} has role {has} already; to give it {role}, remove it and invite it with a new key"
    )]
    HasRole {
        /// Node that the act is about.
        node: Author,
        /// Role that the node has.
        has: Role,
        /// Role that it was to get.
        role: Role,
    },
    /// There is nobody to remove.
    #[error("node {node} is no member")]
    Stranger {
        /// Node that the act is about.
        node: Author,
    },
    /// It is nearer to the creator, or is the creator.
    #[error(
        "node {node} is {grants} grants from the creator, you are {own_grants}; \
         only the nearer removes the other, of two equally near the one with the lesser grant"
    )]
    Outranked {
        /// Node that the act is about.
        node: Author,
        /// Grants between the creator and it.
        grants: u64,
        /// Grants between the creator and the one who wanted to remove it.
        own_grants: u64,
    },
    /// Nobody could grant anything then.
    #[error("node {node} is the last admin; make another one admin first")]
    LastAdmin {
        /// Node that the act is about.
        node: Author,
    },
}

impl Members {
    /// Returns the role of `node`; `None` for strangers and for those removed.
    pub fn role(&self, node: &Author) -> Option<Role> {
        self.nodes
            .get(node)
            .filter(|member| member.removals.is_empty())
            .and_then(Member::role)
    }

    /// True when `node` was removed, or has left.
    pub fn is_removed(&self, node: &Author) -> bool {
        self.nodes
            .get(node)
            .is_some_and(|member| !member.removals.is_empty())
    }

    /// Returns what is known of `node`, also of one that was removed.
    pub fn get(&self, node: &Author) -> Option<&Member> {
        self.nodes.get(node)
    }

    /// Returns everybody that an act which counts is about, by key.
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

    /// True when what `entry` does to `node` counts. All other acts are void: their puts keep no
    /// place in the state.
    pub fn counts(&self, entry: &EntryId, node: &Author) -> bool {
        self.counting.contains(&(*entry, *node))
    }

    /// Returns all acts that count: entry, and the node it is about.
    pub fn counting(&self) -> &BTreeSet<(EntryId, Author)> {
        &self.counting
    }

    /// Returns what becomes of the entries of `author` in `store`, the root store among them.
    pub fn standing(&self, store: &StoreId, author: &Author) -> Standing {
        let granted = self
            .nodes
            .get(author)
            .and_then(|member| Some((member, member.role()?)));
        match granted {
            None => Standing::Unknown,
            Some((_, Role::Reader)) => Standing::Reader,
            Some((member, _)) if member.removals.is_empty() => Standing::Counts,
            Some((member, _)) => Standing::Through(member.kept_through(store)),
        }
    }

    /// Checks that a grant of `role` to `node` by `by` would change something.
    ///
    /// # Errors
    /// `NotAdmin`, `Removed`, `HasRole`.
    pub fn may_grant(&self, by: &Author, node: &Author, role: Role) -> Result<(), MembershipError> {
        self.admin_rank(by)?;
        self.check_not_removed(node)?;
        match self.role(node) {
            Some(has) if has >= role => Err(MembershipError::HasRole {
                node: *node,
                has,
                role,
            }),
            _less => Ok(()),
        }
    }

    /// Checks that a removal of `node` by `by` would count. Every member may remove itself.
    ///
    /// # Errors
    /// `Removed`, `Stranger`, `LastAdmin`, `NotAdmin`, `Outranked`.
    pub fn may_remove(&self, by: &Author, node: &Author) -> Result<(), MembershipError> {
        self.check_not_removed(node)?;
        let role = self.role(node);
        if role.is_none() {
            return Err(MembershipError::Stranger { node: *node });
        }
        if by == node {
            return if role < Some(Role::Admin) || self.admins().any(|(admin, _)| admin != node) {
                Ok(())
            } else {
                Err(MembershipError::LastAdmin { node: *node })
            };
        }
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

    pub(super) fn admins(&self) -> impl Iterator<Item = (&Author, &Member)> {
        self.nodes
            .iter()
            .filter(|(_, member)| member.rank.is_some() && member.removals.is_empty())
    }

    fn admin_rank(&self, node: &Author) -> Result<Rank, MembershipError> {
        self.nodes
            .get(node)
            .filter(|member| member.removals.is_empty())
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
    /// Returns what it was granted at most, also when it was removed since.
    pub fn role(&self) -> Option<Role> {
        match self.rank {
            Some(_admin) => Some(Role::Admin),
            None => self.grant.map(|grant| grant.role),
        }
    }

    pub(super) fn add(&mut self, grant: Grant) {
        let better = |known: &Grant| (known.role, Reverse(known.rank));
        if self.grant.as_ref().map(better) < Some(better(&grant)) {
            self.grant = Some(grant);
        }
    }

    pub(super) fn kept_through(&self, store: &StoreId) -> KeptThrough {
        let tips = |removal: &Removal| removal.tips.of(store).collect();
        KeptThrough(self.removals.values().map(tips).collect())
    }
}
