//! Spent keys: an author with too many forks counts nowhere, on any node, whichever of them each node
//! has.

use std::collections::BTreeSet;

use lattice::{
    Store,
    disk::Disk as _,
    id::Author,
    limits::FORKS_MAX,
    protocol::{
        entry::VerifiedEntry,
        frontier::{Frontier, FrontierTip},
        intake::Refusal,
        membership::{
            Standing,
            role::{Act, Role, Tips},
        },
        sync::Summary,
    },
    store::{Ingested, RefusedEntry, Start, WatchEvent, WatchOptions},
};
use tokio_stream::StreamExt as _;

use crate::{
    entries::acts::{NOW_MS, ROOT, act, config, grant, take_in},
    support::{
        disk::MemDisk,
        model::{AUTHOR_A, AUTHOR_B, author_of, put},
        random::{Random, for_each_seed},
        sync::sync,
        writer::Writer,
    },
};

fn none() -> BTreeSet<lattice::protocol::entry::Parent> {
    BTreeSet::new()
}

/// The creator's grants, an entry of B, and `forks` forks after it: one more branches than that.
struct Story {
    creator: Writer,
    granted: VerifiedEntry,
    first: VerifiedEntry,
    branches: Vec<VerifiedEntry>,
    // Each goes on at one of `branches`.
    writers: Vec<Writer>,
}

impl Story {
    fn new(role: Role, forks: usize) -> Self {
        let mut creator = Writer::new(AUTHOR_A, ROOT);
        let mut writer = Writer::new(AUTHOR_B, ROOT);
        let granted = creator.write(NOW_MS, vec![grant(AUTHOR_B, role)], none(), false);
        let first = writer.write(NOW_MS, vec![put("/trunk", "b")], none(), false);
        let mut writers = vec![writer; forks + 1];
        let branch = |(number, writer): (usize, &mut Writer)| {
            let ops = vec![put(&format!("/branch/{number}"), "b")];
            writer.write(NOW_MS + 1, ops, none(), false)
        };
        Self {
            branches: writers.iter_mut().enumerate().map(branch).collect(),
            writers,
            creator,
            granted,
            first,
        }
    }

    /// Removes B as a node does that has `tips` of it.
    fn removal(&mut self, tips: &Frontier) -> VerifiedEntry {
        let tips = tips.tips(&b()).iter().map(|tip| (ROOT, *tip));
        let removal = Act::Remove(Tips::naming([ROOT], tips).unwrap());
        let ops = vec![act(AUTHOR_B, &removal)];
        self.creator.write(NOW_MS + 9, ops, none(), false)
    }
}

fn b() -> Author {
    author_of(AUTHOR_B)
}

async fn open() -> (MemDisk, Store) {
    let disk = MemDisk::default();
    let store = Store::open(config(&disk)).await.unwrap();
    (disk, store)
}

async fn branches(store: &Store) -> usize {
    let mut count = 0;
    for number in 0..200 {
        let key = format!("/branch/{number}");
        count += usize::from(store.get(key.as_bytes()).await.unwrap().is_some());
    }
    count
}

async fn hashes(stores: &[&Store]) -> BTreeSet<[u8; 32]> {
    let mut hashes = BTreeSet::new();
    for store in stores {
        hashes.insert(store.state_hash().await.unwrap());
    }
    hashes
}

/// Three stores, of which the middle one talks to both others; rounds until nothing moves.
async fn spread(stores: [&Store; 3]) {
    for round in 0.. {
        assert!(round < 10, "syncs do not end");
        let one = sync(stores[0], stores[1]).await;
        let other = sync(stores[1], stores[2]).await;
        let none_came = |counts: [Summary; 2]| counts.iter().all(|side| side.received == 0);
        if none_came(one) && none_came(other) {
            return;
        }
    }
}

async fn shuffled(random: &mut Random, forks: usize) {
    let mut story = Story::new(Role::Writer, forks);
    let (disks, stores): (Vec<_>, Vec<_>) = [open().await, open().await, open().await]
        .into_iter()
        .unzip();
    let [one, relay, other] = [&stores[0], &stores[1], &stores[2]];
    // Each end has most of the branches, and not the same ones.
    let mut order = story.branches.clone();
    random.shuffle(&mut order);
    let split = order.len() * 3 / 4;
    for (store, part) in [
        (one, &order[..split]),
        (other, &order[order.len() - split..]),
    ] {
        let begin = [story.granted.clone(), story.first.clone()];
        let mut part = part.to_vec();
        random.shuffle(&mut part);
        for entry in begin.iter().chain(&part) {
            let _outcome = take_in(store, std::slice::from_ref(entry)).await;
        }
    }
    spread([one, relay, other]).await;
    assert_eq!(hashes(&[one, relay, other]).await.len(), 1, "{forks} forks");
    let is_spent = forks > FORKS_MAX;
    let counting = if is_spent { 0 } else { forks + 1 };
    for store in [one, relay, other] {
        assert_eq!(branches(store).await, counting, "{forks} forks");
        let trunk = store.get(b"/trunk").await.unwrap();
        assert_eq!(trunk.is_some(), !is_spent);
        assert_eq!(!store.spent().unwrap().tips(&b()).is_empty(), is_spent);
        let members = store.members();
        let members = members.borrow();
        assert_eq!(members.role(&b()).is_none(), is_spent);
        assert_eq!(members.standing(&ROOT, &b()) == Standing::Spent, is_spent);
    }
    // Nothing more is taken in, beside the branches or on top of one.
    if is_spent {
        let logs = relay.spent().unwrap();
        let tips = logs.tips(&b());
        assert_eq!(tips.len(), FORKS_MAX + 2, "{logs:?}");
        let beside = Story::new(Role::Writer, forks + 1).branches.pop().unwrap();
        let known = |entry: &VerifiedEntry| tips.contains(&FrontierTip::of(entry));
        let on = story.branches.iter().position(known).unwrap();
        let on_top = story.writers[on].write(NOW_MS + 2, vec![put("/on", "b")], none(), false);
        let refused = RefusedEntry::Rules(Refusal::Spent { author: b() });
        for entry in [beside, on_top] {
            let taken = take_in(relay, &[entry]).await;
            assert_eq!(taken, [Ingested::Refused(refused.clone())]);
        }
    }
    // The same after a start, and from the logs alone.
    for (disk, store) in disks.iter().zip(&stores) {
        let hash = store.state_hash().await.unwrap();
        store.close().await.unwrap();
        let store = Store::open(config(disk)).await.unwrap();
        assert_eq!(store.state_hash().await.unwrap(), hash);
        store.close().await.unwrap();
        disk.remove(&config(disk).dir.join("state.db")).unwrap();
        let store = Store::open(config(disk)).await.unwrap();
        assert_eq!(store.state_hash().await.unwrap(), hash);
        store.close().await.unwrap();
    }
    // A removal brings back what its tips name, also where it was not taken in.
    let stores: Vec<Store> = {
        let mut again = Vec::new();
        for disk in &disks {
            again.push(Store::open(config(disk)).await.unwrap());
        }
        again
    };
    let [one, relay, other] = [&stores[0], &stores[1], &stores[2]];
    let mut tips = one.frontier();
    one.spent()
        .unwrap()
        .iter()
        .for_each(|(author, tip)| tips.insert(author, tip));
    let named = tips.tips(&b()).len();
    let removal = story.removal(&tips);
    assert!(matches!(
        take_in(one, std::slice::from_ref(&removal)).await[..],
        [Ingested::Applied(_)]
    ));
    assert_eq!(branches(one).await, named, "all that was here counts");
    spread([one, relay, other]).await;
    assert_eq!(hashes(&[one, relay, other]).await.len(), 1, "removed");
    for store in [one, relay, other] {
        assert_eq!(branches(store).await, named);
        assert!(store.members().borrow().is_removed(&b()));
        assert!(store.spent().unwrap().is_empty());
    }
}

// Nodes stop to take in branches at some number. If the rest counted, which one that is would depend
// on who came first.
#[test]
fn b3_too_many_forks_count_nowhere_in_any_order() {
    for_each_seed(1..=2, |random| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            for forks in [FORKS_MAX, FORKS_MAX + 1, FORKS_MAX + 20] {
                shuffled(random, forks).await;
            }
        });
    });
}

// The key of an admin cannot be spent in the root store: it may have let in everybody.
#[tokio::test(flavor = "multi_thread")]
async fn b3_an_admin_goes_on_in_the_root_store() {
    let (_disk, store) = open().await;
    let story = Story::new(Role::Admin, FORKS_MAX + 5);
    take_in(&store, &[story.granted, story.first]).await;
    take_in(&store, &story.branches).await;
    assert_eq!(branches(&store).await, FORKS_MAX + 6);
    assert_eq!(store.members().borrow().role(&b()), Some(Role::Admin));
}

// A node that has the forks takes in no more, so it never gets the entry by which their author left;
// a node that has that entry gets the forks, and comes to the same.
#[tokio::test(flavor = "multi_thread")]
async fn b3_a_spent_key_that_left_stays_out() {
    let ((_disk, one), (_other_disk, other)) = (open().await, open().await);
    let mut story = Story::new(Role::Writer, FORKS_MAX + 1);
    let mut leaver = Writer::new(AUTHOR_B, ROOT);
    let _first = leaver.write(NOW_MS, vec![put("/trunk", "b")], none(), false);
    let tip = FrontierTip::of(&story.first);
    let leave = Act::Remove(Tips::new([(ROOT, tip)]).unwrap());
    let left = leaver.write(NOW_MS + 2, vec![act(AUTHOR_B, &leave)], none(), false);
    for store in [&one, &other] {
        take_in(store, &[story.granted.clone(), story.first.clone()]).await;
    }
    take_in(&one, std::slice::from_ref(&left)).await;
    assert!(one.members().borrow().is_removed(&b()));
    assert!(one.get(b"/trunk").await.unwrap().is_some(), "it left");
    take_in(&other, &story.branches).await;
    let refused = take_in(&other, std::slice::from_ref(&left)).await;
    assert!(matches!(refused[..], [Ingested::Refused(_)]), "{refused:?}");
    sync(&one, &other).await;
    assert_eq!(hashes(&[&one, &other]).await.len(), 1);
    // A grant does not bring it back.
    let ops = vec![grant(AUTHOR_B, Role::Writer)];
    let again = story.creator.write(NOW_MS + 3, ops, none(), false);
    for store in [&one, &other] {
        take_in(store, std::slice::from_ref(&again)).await;
        let members = std::sync::Arc::clone(&store.members().borrow());
        assert_eq!((members.role(&b()), members.is_spent(&b())), (None, true));
        assert!(store.get(b"/trunk").await.unwrap().is_none(), "it is spent");
    }
    // A removal that names the leave, too: all of it is here again.
    let mut tips = other.spent().unwrap();
    tips.insert(b(), FrontierTip::of(&left));
    let removal = story.removal(&tips);
    take_in(&one, std::slice::from_ref(&removal)).await;
    sync(&other, &one).await;
    sync(&other, &one).await;
    assert_eq!(hashes(&[&one, &other]).await.len(), 1);
    for store in [&one, &other] {
        assert!(store.members().borrow().is_removed(&b()));
        assert!(store.get(b"/trunk").await.unwrap().is_some());
        assert_eq!(branches(store).await, FORKS_MAX + 2);
    }
}

// A watch that has seen branches which this replica did not take in is brought in step all the same.
#[tokio::test(flavor = "multi_thread")]
async fn b3_cursor_past_a_spent_key_resumes() {
    let ((_disk, one), (_other_disk, other)) = (open().await, open().await);
    let story = Story::new(Role::Writer, FORKS_MAX + 20);
    for store in [&one, &other] {
        take_in(store, &[story.granted.clone(), story.first.clone()]).await;
    }
    take_in(&one, &story.branches[..40]).await;
    let mut watch = one.watch("/");
    while watch.next().await.unwrap().unwrap() != WatchEvent::CaughtUp {}
    let cursor = watch.cursor();
    take_in(&other, &story.branches[15..]).await;
    assert_eq!(branches(&other).await, 0, "it is spent there");
    sync(&one, &other).await;
    for store in [&one, &other] {
        let mut watch = store.watch_with(WatchOptions {
            prefixes: vec!["/".into()],
            start: Start::After(cursor.clone()),
            ..WatchOptions::default()
        });
        let mut known: BTreeSet<String> =
            (0..40).map(|number| format!("/branch/{number}")).collect();
        loop {
            match watch.next().await.unwrap().unwrap() {
                WatchEvent::CaughtUp => break,
                WatchEvent::Gap { .. } => known.clear(),
                WatchEvent::Change(change) => {
                    let key = String::from_utf8(change.key.to_vec()).unwrap();
                    let is_of_creator = key.starts_with("/nodes/");
                    assert!(change.value.is_none() || is_of_creator, "{change:?}");
                    known.remove(&key);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(known, BTreeSet::new(), "all of it is taken back");
    }
}

// The frontiers are equal: nothing of the author counts on one node, and the other has nothing of it. The
// hello had only the frontier, so the session ended before the forks were shown, and the key went on
// counting in all other stores of the second node.
#[tokio::test(flavor = "multi_thread")]
async fn b3_node_without_any_entry_of_a_spent_key_gets_the_forks() {
    let ((_disk, one), (_other_disk, other)) = (open().await, open().await);
    let story = Story::new(Role::Writer, 0);
    let first = |number: usize| {
        let ops = vec![put(&format!("/branch/{number}"), "b")];
        Writer::new(AUTHOR_B, ROOT).write(NOW_MS, ops, none(), false)
    };
    let firsts: Vec<VerifiedEntry> = (0..FORKS_MAX + 2).map(first).collect();
    for store in [&one, &other] {
        take_in(store, std::slice::from_ref(&story.granted)).await;
    }
    take_in(&one, &firsts).await;
    assert!(one.members().borrow().is_spent(&b()));
    assert_eq!(one.frontier(), other.frontier());
    sync(&other, &one).await;
    assert!(other.members().borrow().is_spent(&b()));
    // Afterwards both know that they agree.
    for counts in sync(&one, &other).await {
        assert!(counts.same);
    }
    // Each has a part of the forks that the other lacks.
    let (_third_disk, third) = open().await;
    take_in(&third, std::slice::from_ref(&story.granted)).await;
    let others: Vec<_> = (100..102 + FORKS_MAX).map(first).collect();
    take_in(&third, &others).await;
    for counts in sync(&third, &one).await {
        assert!(counts.same);
    }
}

// The logs behind the forks may have any size. Only what shows the forks is passed on.
#[tokio::test(flavor = "multi_thread")]
async fn b3_new_node_gets_of_a_spent_key_no_more_than_shows_it() {
    let ((one_disk, one), (other_disk, other)) = (open().await, open().await);
    let mut story = Story::new(Role::Writer, FORKS_MAX + 1);
    let value = "x".repeat(64 << 10);
    take_in(&one, &[story.granted.clone(), story.first.clone()]).await;
    let last = story.branches.pop().unwrap();
    let mut after = Vec::new();
    for (branch, writer) in story.branches.iter().zip(&mut story.writers) {
        take_in(&one, std::slice::from_ref(branch)).await;
        for number in 0..4 {
            let ops = vec![put(&format!("/after/{number}"), &value)];
            let entry = writer.write(NOW_MS + 2, ops, none(), false);
            let taken = take_in(&one, std::slice::from_ref(&entry)).await;
            assert_eq!(taken, [Ingested::Applied(entry.id)]);
            after.push(entry);
        }
    }
    take_in(&one, std::slice::from_ref(&last)).await;
    assert!(one.members().borrow().is_spent(&b()));
    assert_eq!(one.spent_keys().unwrap().proof.len(), FORKS_MAX + 2);

    let before = other_disk.bytes();
    let [_sent, came] = sync(&one, &other).await;
    let (has, cost) = (one_disk.bytes(), other_disk.bytes() - before);
    println!("a spent key with {has} bytes on disk cost the next node {cost}");
    assert_eq!(
        came.received,
        2 + FORKS_MAX as u64 + 2,
        "grant, trunk, forks"
    );
    assert!(other.members().borrow().is_spent(&b()));
    assert!(has > 16 << 20 && cost < 12 << 20, "{has} {cost}");
    assert_eq!(hashes(&[&one, &other]).await.len(), 1);
    for counts in sync(&one, &other).await {
        assert!(counts.same);
    }

    // A removal names the tips that are at one node. Then they come to the other.
    let removal = story.removal(&one.spent().unwrap());
    take_in(&one, std::slice::from_ref(&removal)).await;
    sync(&one, &other).await;
    sync(&one, &other).await;
    assert_eq!(hashes(&[&one, &other]).await.len(), 1);
    assert_eq!(branches(&other).await, FORKS_MAX + 2);
    assert!(other.get(b"/after/3").await.unwrap().is_some());
}

// The first entry of a branch may verify only by one that comes after it.
#[tokio::test(flavor = "multi_thread")]
async fn b3_forks_are_shown_with_what_vouches_for_them() {
    let ((_disk, one), (_other_disk, other)) = (open().await, open().await);
    let mut story = Story::new(Role::Writer, FORKS_MAX + 1);
    take_in(&one, &[story.granted.clone(), story.first.clone()]).await;
    for number in 0..story.branches.len() {
        let mut signed = story.branches[number].signed.clone();
        signed.signature[3] ^= 1;
        let odd = signed.parse().unwrap().vouched();
        // It has another id, so the writer goes on after it.
        let header = |entry: &VerifiedEntry, prev| lattice::protocol::entry::Header {
            seq: entry.header.seq + 1,
            prev: Some(prev),
            hlc: entry.header.hlc.next(NOW_MS + 2).unwrap(),
            ..entry.header.clone()
        };
        let key = crate::support::model::key_of(AUTHOR_B);
        let sign = lattice::protocol::entry::sign;
        let voucher = sign(&key, header(&odd, odd.id), vec![put("/on", "b")]).unwrap();
        let beyond = sign(&key, header(&voucher, voucher.id), vec![put("/far", "b")]).unwrap();
        take_in(&one, &[odd.clone(), voucher, beyond]).await;
        story.branches[number] = odd;
    }
    assert!(one.members().borrow().is_spent(&b()));
    let keys = one.spent_keys().unwrap();
    let tips = keys.proof.tips(&b());
    assert!(tips.len() == FORKS_MAX + 2 && tips.iter().all(|tip| tip.seq == 3));
    sync(&one, &other).await;
    assert!(other.members().borrow().is_spent(&b()));
    assert_eq!(hashes(&[&one, &other]).await.len(), 1);
}
