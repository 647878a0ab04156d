//! Roots: the claims of this node and of other members about the state of each store.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    id::{Author, StoreId},
    limits::GOSSIP_BYTES_MAX,
    protocol::agreement::{Agreement, Divergence, StateClaim},
};

/// The claims of members about the state of each store.
#[derive(Debug, Default)]
pub(super) struct Roots(
    // Only claims of members about open stores are taken in, which bounds it. Never held across an
    // await; no other lock is taken meanwhile.
    Mutex<BTreeMap<StoreId, Claims>>,
);

#[derive(Debug, Default)]
struct Claims {
    agreement: Agreement,
    // The last claim of some members, and the ack that each signed with it.
    signed: BTreeMap<Author, (StateClaim, Bytes)>,
    // When an alarm about a member was logged last: a member that agrees now and then does not fill the
    // log.
    logged: BTreeMap<Author, Instant>,
}

/// A claim about the state of a store, and the signed ack that has it.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) store: StoreId,
    pub(super) node: Author,
    pub(super) claim: StateClaim,
    pub(super) ack: Bytes,
}

impl Roots {
    /// Takes the claim of another member.
    pub(super) fn hear(&self, claimed: Claimed) {
        let Claimed {
            store,
            node,
            claim,
            ack,
        } = claimed;
        self.with(store, |claims| {
            claims.keep(node, claim, ack);
            if claims.agreement.hear(node, claim) {
                claims.warn(&store, node);
            }
        });
    }

    /// Returns the signed acks of other members that have `claim`.
    pub(super) fn signed(&self, store: &StoreId, claim: &StateClaim) -> Vec<Bytes> {
        let stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let signed = stores
            .get(store)
            .into_iter()
            .flat_map(|it| it.signed.values());
        let signed = signed.filter(|(of, _)| of == claim);
        signed.map(|(_, ack)| ack.clone()).collect()
    }

    /// Takes what this node claims about `store`. Returns whether it is another claim than before.
    pub(super) fn claim(&self, store: StoreId, claim: StateClaim) -> bool {
        self.with(store, |claims| {
            let is_new = claims.agreement.own() != Some(&claim);
            for node in claims.agreement.claim(claim) {
                claims.warn(&store, node);
            }
            is_new
        })
    }

    /// Returns the members whose state of `store` differs from that of this node with the same
    /// entries, by key.
    pub(super) fn divergences(&self, store: &StoreId) -> Vec<(Author, Divergence)> {
        let stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let claims = stores.get(store);
        claims.map_or_else(Vec::new, |it| it.agreement.divergences().collect())
    }

    /// Returns the stores of which `node` has another state than this node, with the same entries.
    pub(super) fn diverged(&self, node: &Author) -> Vec<StoreId> {
        let stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let diverged = stores.iter().filter(|(_, claims)| {
            let mut divergences = claims.agreement.divergences();
            divergences.any(|(other, _)| other == *node)
        });
        diverged.map(|(store, _)| *store).collect()
    }

    /// Forgets all stores but `open`, and nodes that are no members any more.
    pub(super) fn retain(&self, open: &BTreeSet<StoreId>, is_member: impl Fn(&Author) -> bool) {
        let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stores.retain(|store, _| open.contains(store));
        for claims in stores.values_mut() {
            claims.agreement.retain(&is_member);
            claims.signed.retain(|node, _| is_member(node));
            claims.logged.retain(|node, _| is_member(node));
        }
    }

    fn with<T>(&self, store: StoreId, act: impl FnOnce(&mut Claims) -> T) -> T {
        let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(stores.entry(store).or_default())
    }
}

impl Claims {
    // Keeps a signed ack. When there are too many, one goes that has not the claim of this node.
    fn keep(&mut self, node: Author, claim: StateClaim, ack: Bytes) {
        self.signed.remove(&node);
        if ack.len() > SIGNED_BYTES_MAX {
            return;
        }
        if self.signed.len() >= SIGNED_ACKS_MAX {
            let mut signed = self.signed.iter();
            let other = signed.find(|(_, (of, _))| Some(of) != self.agreement.own());
            let Some(other) = other.map(|(node, _)| *node) else {
                return;
            };
            self.signed.remove(&other);
        }
        self.signed.insert(node, (claim, ack));
    }

    fn warn(&mut self, store: &StoreId, node: Author) {
        let is_recent = |at: &Instant| at.elapsed() < LOG_EVERY;
        if self.logged.get(&node).is_some_and(is_recent) {
            return;
        }
        self.logged.insert(node, Instant::now());
        tracing::error!(
            %store,
            %node,
            "a member signs another state than that of this node for the same entries; `lattice \
             verify` on both shows which of them is damaged"
        );
    }
}

// Signed acks that are kept for each store, so that a proof can have them. Of more members only the
// claims are kept.
const SIGNED_ACKS_MAX: usize = 32;
// Bytes of a signed ack that is kept: as many as gossip carries.
const SIGNED_BYTES_MAX: usize = GOSSIP_BYTES_MAX;
// Shortest time between two lines in the log about one member and store.
const LOG_EVERY: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{frontier::FrontierHash, membership::ActsHash, merkle::TreeRoot};

    #[test]
    fn n8_signed_acks_that_are_kept_are_bounded() {
        let (roots, store) = (Roots::default(), StoreId([1; 16]));
        let claim = |root| StateClaim {
            frontier: FrontierHash([1; 32]),
            acts: ActsHash([1; 32]),
            root: TreeRoot([root; 32]),
        };
        let hear = |node: u8, root, bytes: usize| {
            roots.hear(Claimed {
                store,
                node: Author([node; 32]),
                claim: claim(root),
                ack: Bytes::from(vec![node; bytes]),
            });
        };
        roots.claim(store, claim(7));
        for node in 0..100 {
            hear(node, 9, 100);
        }
        assert_eq!(roots.signed(&store, &claim(9)).len(), SIGNED_ACKS_MAX);
        assert_eq!(roots.divergences(&store).len(), 100, "all claims are kept");
        // Those that vouch for this node's state take the places of others.
        for node in 100..200 {
            hear(node, 7, 100);
        }
        assert_eq!(roots.signed(&store, &claim(7)).len(), SIGNED_ACKS_MAX);
        assert_eq!(roots.signed(&store, &claim(9)).len(), 0);
        hear(100, 7, SIGNED_BYTES_MAX + 1);
        assert_eq!(roots.signed(&store, &claim(7)).len(), SIGNED_ACKS_MAX - 1);
        roots.retain(&BTreeSet::from([store]), |node| node.0[0] == 101);
        assert_eq!(roots.signed(&store, &claim(7)).len(), 1);
        roots.retain(&BTreeSet::new(), |_| true);
        assert_eq!(roots.divergences(&store), []);
    }
}
