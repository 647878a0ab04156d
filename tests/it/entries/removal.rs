//! Removals of members, also in stores that learn of them late.

use std::collections::BTreeSet;

use lattice::{
    Node, NodeConfig, Store,
    id::{Author, StoreId},
    protocol::{
        change::Kind,
        cursor::Cursor,
        entry::{Op, Parent, VerifiedEntry},
        frontier::FrontierTip,
        membership::role::{Act, Role, Tips, role_key},
    },
    store::{Ingested, Start, Watch, WatchEvent, WatchOptions},
};

use tokio_stream::StreamExt as _;

use crate::{
    entries::acts,
    support::{
        disk::MemDisk,
        model::{self, AUTHOR_A, AUTHOR_B, AUTHOR_C},
        writer::Writer,
    },
};

const NOW_MS: u64 = 1_700_000_000_000;

fn put(key: impl Into<bytes::Bytes>, value: impl Into<bytes::Bytes>) -> Op {
    Op::Put {
        key: key.into(),
        value: value.into(),
        expires_ms: None,
    }
}

async fn let_in(node: &Node, author: Author, role: Role) {
    let (secret, _expires_ms) = node.invite(role, 60_000).await.unwrap();
    node.redeem(&secret, author).await.unwrap();
}

async fn take_in(store: &Store, entry: &VerifiedEntry) {
    let taken = store.ingest(vec![entry.signed.encode().into()]).await;
    let taken = taken.unwrap();
    assert!(matches!(taken[..], [Ingested::Applied(_)]), "{taken:?}");
}

// Only the root store gets it: without a net, the other stores apply it at the next start.
async fn removal(root: &Store, admin: [u8; 32], of: Author, tip: (StoreId, FrontierTip)) {
    let mut admin = Writer::new(admin, root.id());
    let author = admin.author();
    let grant = root.heads(&role_key(&author)).await.unwrap();
    let grant = Parent {
        hlc: grant[0].entry.hlc,
        author: grant[0].entry.author,
        id: grant[0].entry.id,
        seq: grant[0].entry.seq,
    };
    let act = Act::Remove(Tips::new([tip]).unwrap()).encode();
    let ops = vec![put(role_key(&of), act)];
    let now_ms = root.now_ms() + 1;
    take_in(
        root,
        &admin.write(now_ms, ops, BTreeSet::from([grant]), false),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_store_applies_a_removal_on_open() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(NodeConfig::new(dir.path()).create(true)).await;
    let node = node.unwrap();
    let id = node.create_store("s").await.unwrap().id;
    let store = node.open_store(&id).unwrap();
    let mut removed = Writer::new(AUTHOR_B, id);
    let admin = Writer::new(AUTHOR_A, node.root().id()).author();
    let_in(&node, admin, Role::Admin).await;
    let_in(&node, removed.author(), Role::Writer).await;
    let first = removed.write(NOW_MS, vec![put("/k", "counts")], BTreeSet::new(), false);
    let heads = BTreeSet::from([first.as_parent()]);
    let second = removed.write(NOW_MS + 1, vec![put("/k", "late")], heads, false);
    take_in(&store, &first).await;
    take_in(&store, &second).await;
    let tip = FrontierTip {
        seq: 1,
        id: first.id,
    };
    removal(&node.root(), AUTHOR_A, removed.author(), (id, tip)).await;
    assert!(node.members().is_removed(&removed.author()));
    node.close().await.unwrap();
    drop((store, node));

    let node = Node::open(NodeConfig::new(dir.path())).await.unwrap();
    let store = node.open_store(&id).unwrap();
    let item = store.get(b"/k").await.unwrap().unwrap();
    assert_eq!(item.value.as_ref(), b"counts");
    assert_eq!(store.frontier().tips(&removed.author()), [tip]);
    node.close().await.unwrap();
}

/// A root store with a writer whose second entry, one of three keys, is going to count no more;
/// with that, the removal, and a cursor for each change that a watch delivered.
async fn about_to_be_removed(bus_batches: usize) -> (Store, Watch, VerifiedEntry, Vec<Cursor>) {
    let mut config = acts::config(&MemDisk::default());
    config.bus_batches = bus_batches;
    let store = Store::open(config).await.unwrap();
    let mut watch = store.watch("/");
    assert_eq!(watch.next().await.unwrap().unwrap(), WatchEvent::CaughtUp);
    let mut creator = Writer::new(AUTHOR_A, acts::ROOT);
    let mut writer = Writer::new(AUTHOR_B, acts::ROOT);
    let ops = vec![acts::grant(AUTHOR_B, Role::Writer)];
    let granted = creator.write(NOW_MS, ops, BTreeSet::new(), false);
    take_in(&store, &granted).await;
    let ops = vec![put("/k", "counts"), put("/other", "counts")];
    let first = writer.write(NOW_MS, ops, BTreeSet::new(), false);
    take_in(&store, &first).await;
    let cites = BTreeSet::from([first.as_parent()]);
    let ops = vec![
        put("/k", "late"),
        put("/only", "late"),
        put("/third", "late"),
    ];
    take_in(&store, &writer.write(NOW_MS + 1, ops, cites, false)).await;
    let mut cursors = Vec::new();
    for _change in 0..6 {
        assert!(matches!(
            watch.next().await.unwrap().unwrap(),
            WatchEvent::Change(_)
        ));
        cursors.push(watch.cursor());
    }
    let tip = FrontierTip {
        seq: 1,
        id: first.id,
    };
    let tips = Tips::new([(acts::ROOT, tip)]).unwrap();
    let ops = vec![acts::act(AUTHOR_B, &Act::Remove(tips))];
    let removed = creator.write(
        NOW_MS + 2,
        ops,
        BTreeSet::from([granted.as_parent()]),
        false,
    );
    (store, watch, removed, cursors)
}

/// Returns the events of a watch until it has caught up: gaps, and key, kind and current value of
/// each change.
async fn told(watch: &mut Watch) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Change(change) => told.push(format!(
                "{} {} {}",
                change.kind.name(),
                String::from_utf8_lossy(&change.key),
                change.heads.as_slice().len()
            )),
            WatchEvent::CaughtUp => return told,
            WatchEvent::Gap { .. } => told.push("gap".to_owned()),
            _other => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn voided_changes_are_retracted_on_any_replica() {
    let (store, _watch, removed, cursors) = about_to_be_removed(64).await;
    take_in(&store, &removed).await;
    let removal = format!("put /nodes/{}/role 1", model::author_of(AUTHOR_B));
    let retracted = ["retract /k 1", "retract /only 0", "retract /third 0"];
    // After the grant, each key of the first entry, each key of the second.
    let rest = [
        vec!["put /k 1", "put /other 1"],
        vec!["put /other 1"],
        vec![],
        retracted.to_vec(),
        retracted.to_vec(),
        retracted.to_vec(),
    ];
    for (cursor, rest) in cursors.iter().zip(rest) {
        let mut watch = store.watch_with(WatchOptions {
            start: Start::After(cursor.clone()),
            ..WatchOptions::default()
        });
        let mut expected: Vec<_> = rest.into_iter().map(str::to_owned).collect();
        expected.push(removal.clone());
        assert_eq!(told(&mut watch).await, expected, "after {cursor:?}");
        // It goes on from there without saying it again, and in the middle it says it whole.
        let again = Start::After(watch.cursor());
        assert_eq!(acts::changes(&store, again).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_watch_gets_the_retractions() {
    let (store, mut watch, removed, _cursors) = about_to_be_removed(1).await;
    let lags = watch.lags();
    take_in(&store, &removed).await;
    let mut kinds = Vec::new();
    while kinds.last() != Some(&Kind::Put) {
        if let WatchEvent::Change(change) = watch.next().await.unwrap().unwrap() {
            kinds.push(change.kind);
        }
    }
    assert_eq!(
        watch.lags(),
        lags + 1,
        "the retractions were not in the channel"
    );
    assert_eq!(
        kinds,
        [Kind::Retract, Kind::Retract, Kind::Retract, Kind::Put]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_over_unknown_voided_entries_is_a_gap() {
    let (store, watch, removed, _cursors) = about_to_be_removed(64).await;
    let elsewhere = Store::open(acts::config(&MemDisk::default()))
        .await
        .unwrap();
    for author in store.frontier().iter().map(|(author, _tip)| author) {
        let log = store.entries(author, 0, usize::MAX).await.unwrap();
        // All but the entries that the removal will void.
        take_in(&elsewhere, &log[0].entry).await;
    }
    take_in(&elsewhere, &removed).await;
    let mut watch = elsewhere.watch_with(WatchOptions {
        start: Start::After(watch.cursor()),
        ..WatchOptions::default()
    });
    let told = told(&mut watch).await;
    assert_eq!(told[0], "gap");
    assert_eq!(told.len(), 4, "{told:?}");
}

// C's second entry lies behind the cut of its removal. B's entry cites it with a wrong stamp. A node
// that had it before, and one that never gets it, apply B's entry and agree about the key.
#[tokio::test(flavor = "multi_thread")]
async fn false_reference_behind_a_cut_splits_nobody() {
    let none = BTreeSet::new;
    let mut creator = Writer::new(AUTHOR_A, acts::ROOT);
    let (mut writer, mut removed) = (
        Writer::new(AUTHOR_B, acts::ROOT),
        Writer::new(AUTHOR_C, acts::ROOT),
    );
    let ops = vec![
        acts::grant(AUTHOR_B, Role::Writer),
        acts::grant(AUTHOR_C, Role::Writer),
    ];
    let granted = creator.write(NOW_MS, ops, none(), false);
    let kept = removed.write(NOW_MS, vec![put("/k", "kept")], none(), false);
    let cut = removed.write(NOW_MS, vec![put("/k", "cut")], none(), false);
    let mut lie = cut.as_parent();
    lie.hlc.counter += 7;
    let citing = writer.write(
        NOW_MS + 1,
        vec![put("/k", "cites")],
        BTreeSet::from([kept.as_parent(), lie]),
        false,
    );
    let tips = Tips::new([(acts::ROOT, FrontierTip::of(&kept))]).unwrap();
    let removal = vec![acts::act(AUTHOR_C, &Act::Remove(tips))];
    let removal = creator.write(NOW_MS, removal, none(), false);
    let had_it = [&granted, &kept, &cut, &citing, &removal];
    let never = [&granted, &removal, &kept, &cut, &citing];
    let mut found = Vec::new();
    for order in [had_it, never] {
        let store = Store::open(acts::config(&MemDisk::default())).await;
        let store = store.unwrap();
        for entry in order {
            drop(acts::take_in(&store, std::slice::from_ref(entry)).await);
        }
        found.push(acts::ids(&store, "/k").await);
    }
    assert_eq!(found, [vec![citing.id], vec![citing.id]]);
}
