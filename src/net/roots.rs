//! Roots: the claims of this node and of other members about the state of each store.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

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
    // The last claim of each member, and the ack that it signed with it, if that is short.
    signed: BTreeMap<Author, (StateClaim, Bytes)>,
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
        let is_alarm = self.with(store, |claims| {
            if ack.len() <= SIGNED_BYTES_MAX {
                claims.signed.insert(node, (claim, ack));
            } else {
                claims.signed.remove(&node);
            }
            claims.agreement.hear(node, claim)
        });
        if is_alarm {
            warn(&store, &node);
        }
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
        let (is_new, alarms) = self.with(store, |Claims { agreement, .. }| {
            let is_new = agreement.own() != Some(&claim);
            (is_new, agreement.claim(claim))
        });
        for node in &alarms {
            warn(&store, node);
        }
        is_new
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

    /// Forgets nodes that are no members any more.
    pub(super) fn retain(&self, is_kept: impl Fn(&Author) -> bool) {
        let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Claims { agreement, signed } in stores.values_mut() {
            agreement.retain(&is_kept);
            signed.retain(|node, _| is_kept(node));
        }
    }

    fn with<T>(&self, store: StoreId, act: impl FnOnce(&mut Claims) -> T) -> T {
        let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(stores.entry(store).or_default())
    }
}

fn warn(store: &StoreId, node: &Author) {
    tracing::error!(
        %store,
        %node,
        "a member signs another state than that of this node for the same entries; `lattice verify` \
         on both shows which of them is damaged"
    );
}

// Bytes of a signed ack that is kept, so that a proof can have it: as many as gossip carries. Of a longer
// one only the claim is kept.
const SIGNED_BYTES_MAX: usize = GOSSIP_BYTES_MAX;
