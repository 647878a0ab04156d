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
        frontier::Frontier,
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
            // How far one is behind that has never acknowledged anything is not known, so only time makes it
            // dormant.
            let bytes_max = if proven.is_heard() { u64::MAX } else { 1 };
            let bytes_behind = behind(store, &facts.own, proven).min(bytes_max);
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

    /// Forgets what was noted of `store`: it is not known how far members are now.
    pub(super) fn forget(&mut self, store: &StoreId) {
        self.seen.remove(store);
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
        let policies = self
            .seen
            .iter()
            .map(|(store, (policy, _))| (*store, *policy));
        let policies: BTreeMap<_, _> = policies.collect();
        let dormant = self.waiting.dormant(&policies);
        if !is_first(node, &dormant).await? {
            return Ok(());
        }
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

// Bytes of logs that count here and that the member lacks, as far as that is known: 0 if it has all.
fn behind(store: &Store, own: &Frontier, proven: &Proven) -> u64 {
    // A member that has later entries of an author than this node lacks nothing of that author.
    let has_all = |author: &Author| {
        let tips = own.tips(author);
        proven.is_ahead_of(author) || tips.iter().all(|tip| proven.tips(author).contains(tip))
    };
    let authors = own.by_author().map(|(author, _tips)| author);
    let lacking: Vec<Author> = authors.filter(|author| !has_all(author)).collect();
    if lacking.is_empty() {
        return 0;
    }
    let mut has = own.clone();
    for author in lacking {
        has.set_tips(author, proven.tips(&author).to_vec());
    }
    // Entries that stand in the logs and do not count are in no ack. Bytes are counted in large pieces.
    store
        .bytes_after(&has)
        .saturating_sub(store.bytes_after(own))
        .max(1)
}

// Whether no admin that is waited for ranks better than this node. `dormant`: who is not, by the rule.
async fn is_first(node: &Node, dormant: &BTreeSet<Author>) -> Result<bool, HistoryError> {
    let members = node.members();
    let rank = |node: &Author| members.get(node).and_then(|member| member.rank);
    let own = node.id();
    if members.role(&own) != Some(Role::Admin) {
        return Ok(false);
    }
    for (other, _member) in members.iter() {
        let is_better =
            members.role(other) == Some(Role::Admin) && (rank(other), other) < (rank(&own), &own);
        if is_better && !dormant.contains(other) && !node.is_dormant(other).await? {
            return Ok(false);
        }
    }
    Ok(true)
}
