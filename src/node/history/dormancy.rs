//! Dormancy: members that are not waited for, because they make no progress, and those that are back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    id::{Author, StoreId},
    node::{HistoryError, Node, history::facts::Facts},
    protocol::{
        finality::{Proven, Seen, StorePolicy, Waiting},
        membership::role::Role,
    },
    store::Store,
};

/// Members that an admin waits for, from look to look.
#[derive(Debug, Default)]
pub(super) struct Patience {
    waiting: Waiting,
    // The policy of each store, and its members, as of the last look.
    seen: BTreeMap<StoreId, (StorePolicy, Vec<Seen>)>,
}

impl Patience {
    /// Remembers how far each member is in `store`.
    pub(super) fn note(&mut self, own: &Author, store: &Store, facts: &Facts) {
        let none = Proven::default();
        let others = facts.members.iter().filter(|(node, _)| *node != own);
        let seen = others.map(|(node, _member)| {
            let proven = facts.proven.get(node).unwrap_or(&none);
            let bytes_behind = match proven.is_heard() {
                true => store.bytes_after(proven.has()),
                false => 0,
            };
            Seen {
                node: *node,
                used: proven.used(),
                has: proven.has().hash(),
                bytes_behind,
            }
        });
        let noted = (facts.policy.store, seen.collect());
        self.seen.insert(store.id(), noted);
    }

    /// Marks members as dormant that make no progress, and as active that are back. `elapsed` is the time
    /// since the call before. Writes nothing unless this node is the admin whose turn it is.
    ///
    /// # Errors
    /// `Read`, `Mesh`.
    pub(super) async fn look(
        &mut self,
        node: &Node,
        elapsed: Duration,
    ) -> Result<(), HistoryError> {
        let open: BTreeSet<StoreId> = node.shared_stores().iter().map(Store::id).collect();
        self.seen.retain(|store, _| open.contains(store));
        let all = self.seen.iter();
        let seen: Vec<_> = all
            .flat_map(|(store, (_, seen))| seen.iter().map(|seen| (*store, *seen)))
            .collect();
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.waiting.look(elapsed_ms, &seen);
        if !is_first(node).await? {
            return Ok(());
        }
        let policies = self
            .seen
            .iter()
            .map(|(store, (policy, _))| (*store, *policy));
        let policies: BTreeMap<_, _> = policies.collect();
        let dormant = self.waiting.dormant(&policies);
        let least = policies.values().map(|policy| policy.dormant_bytes).min();
        // Far less than what would make it dormant again.
        let back = self.waiting.back(least.unwrap_or(0) / 16);
        for member in dormant.iter().chain(&back) {
            let is_dormant = dormant.contains(member);
            let is_member = node.members().role(member).is_some();
            if is_member && node.is_dormant(member).await? != is_dormant {
                tracing::info!(node = %member.short(), is_dormant, "a member is waited for, or not");
                node.set_dormant(member, is_dormant).await?;
            }
        }
        Ok(())
    }
}

// Whether no admin that is waited for ranks better than this node.
async fn is_first(node: &Node) -> Result<bool, HistoryError> {
    let members = node.members();
    let rank = |node: &Author| members.get(node).and_then(|member| member.rank);
    let own = node.id();
    if members.role(&own) != Some(Role::Admin) {
        return Ok(false);
    }
    for (other, _member) in members.iter() {
        let is_better =
            members.role(other) == Some(Role::Admin) && (rank(other), other) < (rank(&own), &own);
        if is_better && !node.is_dormant(other).await? {
            return Ok(false);
        }
    }
    Ok(true)
}
