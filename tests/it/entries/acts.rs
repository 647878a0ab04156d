//! Acts, the entries about nodes. An act that its author may not write has no effect on the state,
//! on watches or on the past, in whatever order entries come.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use lattice::{
    Store,
    clock::Clock,
    disk::Disk as _,
    id::{EntryId, StoreId},
    protocol::{
        change::{Change, Kind},
        entry::{Op, Parent, VerifiedEntry},
        frontier::FrontierTip,
        membership::role::{Act, Role, Tips, role_key},
    },
    store::{Authority, Ingested, List, Start, StoreConfig, Watch, WatchEvent, WatchOptions},
};
use tokio_stream::StreamExt as _;

use crate::support::{
    disk::MemDisk,
    model::{AUTHOR_A, AUTHOR_B, AUTHOR_C, author_of, delete, put},
    random::{Random, for_each_seed},
    store,
    writer::Writer,
};

pub const ROOT: StoreId = StoreId([7; 16]);
pub const NOW_MS: u64 = 1_700_000_000_000;
pub const NODE: [u8; 32] = [0x1c; 32];
const AUTHOR_D: [u8; 32] = [0xd; 32];
/// The first of them is the creator.
const AUTHORS: [[u8; 32]; 4] = [AUTHOR_A, AUTHOR_B, AUTHOR_C, AUTHOR_D];

pub fn config(disk: &MemDisk) -> StoreConfig {
    StoreConfig {
        bus_batches: 64,
        root: true,
        authority: Authority::Root {
            creator: author_of(AUTHOR_A),
        },
        ..store::config(ROOT, NODE, &Clock::manual(NOW_MS), disk.clone())
    }
}

fn role_of(secret: [u8; 32]) -> String {
    String::from_utf8(role_key(&author_of(secret)).to_vec()).unwrap()
}

pub fn act(of: [u8; 32], act: &Act) -> Op {
    Op::Put {
        key: role_key(&author_of(of)),
        value: act.encode(),
        expires_ms: None,
    }
}

pub fn grant(of: [u8; 32], role: Role) -> Op {
    act(of, &Act::Grant(role))
}

pub async fn take_in(store: &Store, entries: &[VerifiedEntry]) -> Vec<Ingested> {
    let entries = entries.iter().map(|entry| entry.signed.encode().into());
    store.ingest(entries.collect()).await.unwrap()
}

/// The heads of `key`, the winner first.
pub async fn ids(store: &Store, key: &str) -> Vec<EntryId> {
    let heads = store.heads(key.as_bytes()).await.unwrap();
    heads.iter().map(|head| head.entry.id).collect()
}

/// Returns the events of a watch until it has caught up.
pub async fn changes(store: &Store, start: Start) -> Vec<Arc<Change>> {
    let mut watch = store.watch_with(WatchOptions {
        start,
        ..WatchOptions::default()
    });
    let mut changes = Vec::new();
    loop {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Change(change) => changes.push(change),
            WatchEvent::CaughtUp => return changes,
            _other => {}
        }
    }
}

async fn assert_sound(store: &Store) {
    let report = store.verify().await.unwrap();
    assert_eq!(report.damage, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_acts_on_nodes_are_void() {
    let disk = MemDisk::default();
    let mut store = Store::open(config(&disk)).await.unwrap();
    let mut live = listen(&store, &mut BTreeMap::new()).await;
    let mut creator = Writer::new(AUTHOR_A, ROOT);
    let mut writer = Writer::new(AUTHOR_B, ROOT);
    let ops = vec![grant(AUTHOR_B, Role::Writer)];
    let granted = creator.write(NOW_MS, ops, BTreeSet::new(), false);
    // Each cites the grant, and so would supersede it; the last entry also has an ordinary key.
    let said = [
        vec![grant(AUTHOR_B, Role::Admin)],
        vec![delete(&role_of(AUTHOR_B))],
        vec![put(&role_of(AUTHOR_B), "no role at all")],
        vec![
            put("/ordinary", "counts"),
            grant(AUTHOR_B, Role::Reader),
            act(AUTHOR_A, &Act::Remove(Tips::default())),
        ],
    ];
    let mut entries = vec![granted.clone()];
    for ops in said {
        let cites = BTreeSet::from([granted.as_parent()]);
        entries.push(writer.write(NOW_MS + 1, ops, cites, true));
    }
    take_in(&store, &entries[..1]).await;
    let taken = take_in(&store, &entries[1..]).await;
    let applied = |taken: &Ingested| matches!(taken, Ingested::Applied(_));
    assert!(taken.iter().all(applied), "{taken:?}");
    let ordinary = entries[4].id;
    for id in [granted.id, ordinary] {
        match live.next().await.unwrap().unwrap() {
            WatchEvent::Change(change) => assert_eq!(change.entry.id, id),
            other => panic!("{other:?}"),
        }
    }
    for round in ["live", "opened", "built again"] {
        assert_eq!(
            ids(&store, &role_of(AUTHOR_B)).await,
            [granted.id],
            "{round}"
        );
        assert_eq!(ids(&store, &role_of(AUTHOR_A)).await, [], "{round}");
        let replayed = changes(&store, Start::SinceAuthored { ms: 1 }).await;
        let told: Vec<_> = replayed.iter().map(|change| change.entry.id).collect();
        assert_eq!(told, [granted.id, ordinary], "{round}");
        let past = store.list_at(List::default(), NOW_MS + 10).await.unwrap();
        let past: Vec<_> = past.iter().map(|item| item.entry.id).collect();
        assert_eq!(past, [granted.id, ordinary], "{round}");
        // A start reads the acts that may count some day, which none of these may.
        let void_acts = if round == "opened" { 0 } else { 3 };
        assert_eq!(store.status().await.void_acts, void_acts, "{round}");
        assert_sound(&store).await;
        store.close().await.unwrap();
        if round == "opened" {
            disk.remove(Path::new("/store/state.db")).unwrap();
        }
        store = Store::open(config(&disk)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn voided_act_is_retracted_and_can_return() {
    let store = Store::open(config(&MemDisk::default())).await.unwrap();
    let [mut creator, mut near, mut far] =
        [AUTHOR_A, AUTHOR_B, AUTHOR_C].map(|author| Writer::new(author, ROOT));
    let mut live = store.watch(role_of(AUTHOR_D));
    assert_eq!(live.next().await.unwrap().unwrap(), WatchEvent::CaughtUp);
    let ops = vec![grant(AUTHOR_B, Role::Admin)];
    let by_near = creator.write(NOW_MS, ops, BTreeSet::new(), false);
    let cites = BTreeSet::from([by_near.as_parent()]);
    let ops = vec![grant(AUTHOR_C, Role::Admin)];
    let by_far = near.write(NOW_MS, ops, cites.clone(), false);
    let mut cites_far = BTreeSet::from([by_far.as_parent()]);
    let ops = vec![grant(AUTHOR_D, Role::Writer)];
    let let_in = far.write(NOW_MS, ops, cites_far.clone(), false);
    cites_far.insert(let_in.as_parent());
    let ops = vec![act(AUTHOR_D, &Act::Remove(Tips::default()))];
    let removed = far.write(NOW_MS, ops, cites_far, false);
    take_in(&store, &[by_near, by_far, let_in.clone(), removed.clone()]).await;
    let key = role_of(AUTHOR_D);
    assert_eq!(ids(&store, &key).await, [removed.id]);
    // Admins are not removed by those farther from the creator than they are.
    let ops = vec![grant(AUTHOR_D, Role::Admin)];
    let made_admin = near.write(NOW_MS + 1, ops, cites, false);
    take_in(&store, std::slice::from_ref(&made_admin)).await;
    // It cites nothing at that key: what counts of the other is a head as well.
    assert_eq!(ids(&store, &key).await, [made_admin.id, let_in.id]);
    assert_sound(&store).await;
    // All that the nearer admin did counts no more: so does the removal, whose author was admin by
    // it, not either; and nothing is left.
    let ops = vec![act(AUTHOR_B, &Act::Remove(Tips::default()))];
    let ended = creator.write(NOW_MS + 2, ops, BTreeSet::new(), false);
    take_in(&store, &[ended]).await;
    assert_eq!(ids(&store, &key).await, []);
    assert_sound(&store).await;
    let mut told = Vec::new();
    while told.last() != Some(&(Kind::Retract, vec![])) {
        if let WatchEvent::Change(change) = live.next().await.unwrap().unwrap() {
            let heads = change.heads.as_slice().iter().rev();
            told.push((change.kind, heads.map(|head| head.id).collect()));
        }
    }
    assert_eq!(
        told,
        [
            (Kind::Put, vec![let_in.id]),
            (Kind::Put, vec![removed.id]),
            (Kind::Put, vec![made_admin.id, removed.id]),
            (Kind::Retract, vec![made_admin.id, let_in.id]),
            (Kind::Retract, vec![]),
        ]
    );
}

// A removed writer stamps what it writes afterwards before the removal. The cut is a place in its log
// and no time, so it does not count, whether it comes before the removal or after it.
#[tokio::test(flavor = "multi_thread")]
async fn m5_entries_stamped_back_before_a_removal_do_not_count() {
    let none = BTreeSet::new;
    let [mut creator, mut writer] = [AUTHOR_A, AUTHOR_B].map(|author| Writer::new(author, ROOT));
    let granted = creator.write(NOW_MS, vec![grant(AUTHOR_B, Role::Writer)], none(), false);
    let counts = writer.write(NOW_MS + 1, vec![put("/k", "counts")], none(), false);
    let tips = Tips::naming([], [(ROOT, FrontierTip::of(&counts))]).unwrap();
    let ops = vec![act(AUTHOR_B, &Act::Remove(tips))];
    let removal = creator.write(NOW_MS + 1000, ops, none(), false);
    let back = writer.write(NOW_MS + 2, vec![put("/k", "back")], none(), false);
    assert!(back.header.hlc < removal.header.hlc);
    for is_first in [true, false] {
        let store = Store::open(config(&MemDisk::default())).await.unwrap();
        take_in(&store, &[granted.clone(), counts.clone()]).await;
        if is_first {
            let taken = take_in(&store, std::slice::from_ref(&back)).await;
            assert_eq!(taken, [Ingested::Applied(back.id)]);
            assert_eq!(ids(&store, "/k").await, [back.id]);
        }
        take_in(&store, std::slice::from_ref(&removal)).await;
        let taken = take_in(&store, std::slice::from_ref(&back)).await;
        let is_void = matches!(taken[..], [Ingested::Refused(_) | Ingested::Duplicate(_)]);
        assert!(is_void, "{taken:?}");
        assert_eq!(ids(&store, "/k").await, [counts.id], "first: {is_first}");
        assert_sound(&store).await;
        store.close().await.unwrap();
    }
}

/// Random acts, each resting on some of those before it.
fn history(random: &mut Random) -> Vec<VerifiedEntry> {
    let mut writers = AUTHORS.map(|author| Writer::new(author, ROOT));
    let mut entries: Vec<VerifiedEntry> = Vec::new();
    // Entries that made an author admin, if they count.
    let mut grants: Vec<(usize, Parent)> = Vec::new();
    for at in 0..12 + random.below(12) as u64 {
        let by = match grants.len() {
            0 => 0,
            _few if random.once_in(4) => random.below(AUTHORS.len()),
            some if random.once_in(3) => grants[random.below(some)].0,
            _many => 0,
        };
        let mut cites = BTreeSet::new();
        for _cited in 0..random.below(3) {
            if let Some(entry) = entries.get(random.below(entries.len().max(1))) {
                cites.insert(entry.as_parent());
            }
        }
        let own = grants.iter().filter(|(node, _)| *node == by);
        let own: Vec<Parent> = own.map(|(_, grant)| *grant).collect();
        if !own.is_empty() && !random.once_in(8) {
            cites.insert(own[random.below(own.len())]);
        }
        let (of, also) = (random.below(AUTHORS.len()), random.below(AUTHORS.len()));
        let mut ops = vec![match random.below(12) {
            0 | 1 => {
                let theirs = entries
                    .iter()
                    .filter(|entry| entry.author() == author_of(AUTHORS[of]));
                let theirs: Vec<_> = theirs.collect();
                let tip = theirs
                    .get(random.below(theirs.len() + 1))
                    .map(|entry| FrontierTip {
                        seq: entry.header.seq,
                        id: entry.id,
                    });
                let tips = tip.into_iter().map(|tip| (ROOT, tip));
                act(AUTHORS[of], &Act::Remove(Tips::new(tips).unwrap()))
            }
            2 => delete(&role_of(AUTHORS[of])),
            3 => put(&role_of(AUTHORS[of]), "nonsense"),
            4 => grant(AUTHORS[of], Role::Reader),
            5 | 6 => grant(AUTHORS[of], Role::Writer),
            _most => grant(AUTHORS[of], Role::Admin),
        }];
        if also != of && random.once_in(3) {
            ops.push(grant(AUTHORS[also], Role::Admin));
        }
        if random.once_in(3) {
            ops.push(put("/ordinary", &at.to_string()));
        }
        let admins = ops
            .iter()
            .filter(|op| matches!(op, Op::Put { value, .. } if value == "admin"));
        let admins: Vec<Bytes> = admins.map(Op::key).cloned().collect();
        // A fork now and then.
        let mut writer = writers[by].clone();
        let entry = writer.write(NOW_MS + at, ops, cites, random.once_in(2));
        if !random.once_in(12) {
            writers[by] = writer;
        }
        for (node, author) in AUTHORS.iter().enumerate() {
            if admins.contains(&role_key(&author_of(*author))) {
                grants.push((node, entry.as_parent()));
            }
        }
        entries.push(entry);
    }
    entries
}

#[test]
fn any_order_of_acts_gives_the_same_state() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut void, mut retracts, mut forks, mut removed) = (0, 0, 0, 0);
    for_each_seed(0..=60, |random| {
        let mut entries = history(random);
        runtime.block_on(async {
            let mut ends = BTreeSet::new();
            for _order in 0..3 {
                let disk = MemDisk::default();
                let mut store = Store::open(config(&disk)).await.unwrap();
                let mut told = BTreeMap::new();
                let mut live = listen(&store, &mut told).await;
                random.shuffle(&mut entries);
                // Entries of an author that was not a member yet come again with a later sync.
                for _sync in 0..entries.len() {
                    let before = (store.frontier(), store.members().borrow().clone());
                    let mut rest = entries.as_slice();
                    while !rest.is_empty() {
                        let (some, later) = rest.split_at(1 + random.below(rest.len()));
                        take_in(&store, some).await;
                        rest = later;
                        assert_sound(&store).await;
                        if random.once_in(30) {
                            store.close().await.unwrap();
                            if random.once_in(3) {
                                disk.remove(Path::new("/store/state.db")).unwrap();
                            }
                            store = Store::open(config(&disk)).await.unwrap();
                            told.clear();
                            live = listen(&store, &mut told).await;
                            assert_sound(&store).await;
                        }
                    }
                    store.settle().await;
                    assert_sound(&store).await;
                    if before == (store.frontier(), store.members().borrow().clone()) {
                        break;
                    }
                }
                let status = store.status().await;
                void += status.void_acts;
                forks += status.forks.len();
                let members = store.members().borrow().clone();
                removed += AUTHORS
                    .iter()
                    .filter(|at| members.is_removed(&author_of(**at)))
                    .count();
                let frontier = store.frontier();
                let mut state = BTreeMap::new();
                for key in AUTHORS
                    .map(role_of)
                    .into_iter()
                    .chain(["/ordinary".to_owned()])
                {
                    let heads = ids(&store, &key).await;
                    let of_node = AUTHORS.iter().find(|at| role_of(**at) == key);
                    if let Some(node) = of_node {
                        let node = author_of(*node);
                        assert!(heads.iter().all(|head| members.counts(head, &node)));
                    }
                    if !heads.is_empty() {
                        state.insert(Bytes::from(key), heads);
                    }
                }
                for change in changes(&store, Start::SinceAuthored { ms: 1 }).await {
                    let node = AUTHORS.map(author_of).into_iter();
                    let node = node.clone().find(|at| role_key(at) == change.key);
                    assert!(node.is_none_or(|node| members.counts(&change.entry.id, &node)));
                }
                // The watch delivers the rest before its end.
                store.close().await.unwrap();
                while let Some(Ok(event)) = live.next().await {
                    if let WatchEvent::Change(change) = event {
                        retracts += usize::from(change.kind == Kind::Retract);
                        hear(&mut told, &change);
                    }
                }
                told.retain(|_key, heads| !heads.is_empty());
                assert_eq!(told, state, "what the watch was told");
                ends.insert(format!("{frontier:?} {members:?} {state:?}"));
            }
            assert_eq!(ends.len(), 1, "orders lead to different ends: {ends:#?}");
        });
    });
    println!("{void} void acts, {retracts} retractions, {forks} forks, {removed} removed");
    if std::env::var("SEED").is_err() {
        assert!(void > 100 && retracts > 20 && forks > 20 && removed > 50);
    }
}

/// Begins a watch and reads the current state.
async fn listen(store: &Store, told: &mut BTreeMap<Bytes, Vec<EntryId>>) -> Watch {
    let mut live = store.watch("/");
    loop {
        match live.next().await.unwrap().unwrap() {
            WatchEvent::Change(change) => hear(told, &change),
            WatchEvent::CaughtUp => return live,
            _other => {}
        }
    }
}

fn hear(told: &mut BTreeMap<Bytes, Vec<EntryId>>, change: &Change) {
    let heads = change.heads.as_slice().iter().rev();
    told.insert(change.key.clone(), heads.map(|head| head.id).collect());
}
