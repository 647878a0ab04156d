//! A base of a peer in place of entries that were removed there.

use lattice::{id::Seq, protocol::sync::BaseNeed, store::TakeBaseError};

use crate::support::{
    pruned::{Chains, ENTRIES, listed},
    sync::{sync, sync_all, sync_sides},
};

const B: Seq = 9;
const C: Seq = 12;

// A store that has all entries and has removed some.
async fn pruned() -> Chains {
    let chains = Chains::new().await;
    chains.drop_before(B, C).await;
    chains
}

fn trust(taker: &Chains, giver: &Chains) {
    let base = giver.store.offered_base().unwrap();
    taker.store.trust_base(base.hash());
}

#[tokio::test]
async fn new_store_gets_the_base_and_the_entries_after_it() {
    let (pruned, mut new) = (pruned().await, Chains::with(0).await);
    trust(&new, &pruned);
    let [one, other] = sync(&new.store, &pruned.store).await;
    assert_eq!((one.base, one.received), (BaseNeed::Installed, 0));
    assert_eq!((other.base, other.sent), (BaseNeed::None, 0));
    let [one, _other] = sync(&new.store, &pruned.store).await;
    let rest = 2 * ENTRIES - B - C;
    assert_eq!((one.base, one.received), (BaseNeed::None, rest));
    assert_eq!(sync_all(&new.store, &pruned.store).await, 0);
    for _opened_again in 0..2 {
        assert_eq!(listed(&new.store).await, listed(&pruned.store).await);
        let hash = new.store.state_hash().await.unwrap();
        assert_eq!(hash, pruned.store.state_hash().await.unwrap());
        assert_eq!(new.store.verify().await.unwrap().damage, []);
        assert_eq!(new.store.begins(), pruned.store.begins());
        new.store.put("/own", "o").await.unwrap();
        new.store.delete("/own").await.unwrap();
        sync_all(&new.store, &pruned.store).await;
        new.reopen().await;
    }
    // And gives it on.
    let third = Chains::with(5).await;
    trust(&third, &new);
    assert_eq!(sync_all(&new.store, &third.store).await, 1);
    assert_eq!(listed(&third.store).await, listed(&pruned.store).await);
}

#[tokio::test]
async fn base_that_no_act_names_is_not_taken() {
    let (pruned, new) = (pruned().await, Chains::with(3).await);
    let own = new.store.put("/own", "o").await.unwrap();
    let [one, other] = sync_sides(&new.store, &pruned.store).await;
    let refused = one.refused.unwrap();
    assert!(
        matches!(refused, TakeBaseError::NotNamed { .. }),
        "{refused}"
    );
    let summary = one.summary.unwrap();
    assert_eq!((summary.base, summary.received), (BaseNeed::Refused, 0));
    assert_eq!(other.summary.unwrap().received, 1, "the other way goes on");
    assert!(pruned.store.is_tip(&new.store.author(), &own.entry));
    assert_eq!(new.store.frontier().len(), 3);
}
