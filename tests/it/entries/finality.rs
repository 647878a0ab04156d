//! Anchors acts: what is final counts for ever, and what left it below an anchor never does, in any order
//! of arrival.

use std::collections::BTreeSet;

use lattice::{
    Node, NodeConfig, Store,
    id::{Author, StoreId},
    limits::FORKS_MAX,
    protocol::{
        anchors_act::AnchorsAct,
        entry::{Op, Parent, VerifiedEntry},
        frontier::{Frontier, FrontierTip},
        intake::Refusal,
        membership::role::{Act, Role, Tips, role_key},
        placed_act::anchors_key,
    },
    store::{Ingested, RefusedEntry, WriteError},
};

use crate::support::{
    model::{AUTHOR_A, AUTHOR_B, AUTHOR_C},
    sync::sync,
    writer::{Writer, heads_of},
};

const NOW_MS: u64 = 1_700_000_000_000;

fn put(key: impl Into<bytes::Bytes>, value: impl Into<bytes::Bytes>) -> Op {
    Op::Put {
        key: key.into(),
        value: value.into(),
        expires_ms: None,
    }
}

/// A node, an admin and two writers elsewhere, and a store `s`.
struct Mesh {
    dir: tempfile::TempDir,
    node: Node,
    store: Store,
    id: StoreId,
    admin: Writer,
    b: Author,
}

impl Mesh {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::open(NodeConfig::new(dir.path()).create(true)).await;
        let node = node.unwrap();
        let id = node.create_store("s").await.unwrap().id;
        let store = node.open_store(&id).unwrap();
        let admin = Writer::new(AUTHOR_A, node.root().id());
        let b = Writer::new(AUTHOR_B, id).author();
        let c = Writer::new(AUTHOR_C, id).author();
        for (author, role) in [
            (admin.author(), Role::Admin),
            (b, Role::Writer),
            (c, Role::Writer),
        ] {
            let (secret, _expires_ms) = node.invite(role, 60_000).await.unwrap();
            node.redeem(&secret, author).await.unwrap();
        }
        Self {
            dir,
            node,
            store,
            id,
            admin,
            b,
        }
    }

    async fn give(&self, entry: &VerifiedEntry) -> Ingested {
        let taken = self.store.ingest(vec![entry.signed.encode().into()]).await;
        taken.unwrap().remove(0)
    }

    async fn take_in(&self, entry: &VerifiedEntry) {
        let taken = self.give(entry).await;
        assert!(matches!(taken, Ingested::Applied(_)), "{taken:?}");
    }

    // Publishes ops of the admin, as the net does it: then the store looks again.
    async fn act(&mut self, op: Op) {
        let root = self.node.root();
        let role = role_key(&self.admin.author());
        let grant = heads_of(&root, &[str::from_utf8(&role).unwrap()]).await;
        let entry = self.admin.write(root.now_ms() + 1, vec![op], grant, false);
        let taken = root.ingest(vec![entry.signed.encode().into()]).await;
        assert!(matches!(taken.unwrap()[..], [Ingested::Applied(_)]));
        self.store.reconsider().await;
    }

    async fn anchor(&mut self, tips: &[(Author, FrontierTip)]) {
        let tips: Frontier = tips.iter().copied().collect();
        let act = AnchorsAct::new(1, None, 0, tips, None).unwrap();
        self.act(put(anchors_key(&self.id), act.encode())).await;
    }

    async fn remove_b(&mut self, tip: FrontierTip) {
        let act = Act::Remove(Tips::new([(self.id, tip)]).unwrap()).encode();
        self.act(put(role_key(&self.b), act)).await;
    }

    async fn value(&self, key: &str) -> Option<String> {
        let item = self.store.get(key.as_bytes()).await.unwrap()?;
        Some(String::from_utf8(item.value.to_vec()).unwrap())
    }

    async fn reopen(self) -> Self {
        let Self {
            dir,
            node,
            store,
            id,
            admin,
            b,
        } = self;
        node.close().await.unwrap();
        drop((node, store));
        let node = Node::open(NodeConfig::new(dir.path())).await.unwrap();
        let store = node.open_store(&id).unwrap();
        Self {
            dir,
            node,
            store,
            id,
            admin,
            b,
        }
    }
}

fn at(entry: &VerifiedEntry) -> FrontierTip {
    FrontierTip::of(entry)
}

// Entries of B, each of which overwrites `/k` and puts a key of its own.
fn log(writer: &mut Writer, names: &[&'static str]) -> Vec<VerifiedEntry> {
    let mut before: Option<Parent> = None;
    let mut log = Vec::new();
    for (name, now_ms) in names.iter().zip(NOW_MS..) {
        let ops = vec![put("/k", *name), put(format!("/{name}"), *name)];
        let entry = writer.write(now_ms, ops, before.into_iter().collect(), false);
        before = Some(entry.as_parent());
        log.push(entry);
    }
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn final_entries_outlive_a_late_removal() {
    for removal_first in [false, true] {
        let mut mesh = Mesh::new().await;
        let b = log(&mut Writer::new(AUTHOR_B, mesh.id), &["b1", "b2", "b3"]);
        for entry in &b {
            mesh.take_in(entry).await;
        }
        if removal_first {
            mesh.remove_b(at(&b[0])).await;
            assert_eq!(mesh.value("/k").await.as_deref(), Some("b1"));
        }
        mesh.anchor(&[(mesh.b, at(&b[1]))]).await;
        if !removal_first {
            assert_eq!(mesh.value("/k").await.as_deref(), Some("b3"));
            mesh.remove_b(at(&b[0])).await;
        }
        for _reopened in 0..2 {
            assert_eq!(mesh.value("/k").await.as_deref(), Some("b2"));
            assert_eq!(mesh.value("/b3").await, None);
            assert_eq!(mesh.store.frontier().tips(&mesh.b), [at(&b[1])]);
            mesh = mesh.reopen().await;
        }
    }
}

/// B has forked its log after its first entry, and an act makes one of the two branches final.
#[tokio::test(flavor = "multi_thread")]
async fn void_branch_never_counts_until_an_act_names_it() {
    for branch_first in [false, true] {
        let mut mesh = Mesh::new().await;
        let mut writer = Writer::new(AUTHOR_B, mesh.id);
        let first = log(&mut writer, &["b1"]);
        let mut fork = writer.clone();
        let b = log(&mut writer, &["b2", "b3"]);
        let v = log(&mut fork, &["v2", "v3"]);
        for entry in first.iter().chain(&b) {
            mesh.take_in(entry).await;
        }
        if branch_first {
            for entry in &v {
                mesh.take_in(entry).await;
            }
            assert_eq!(mesh.value("/v3").await.as_deref(), Some("v3"));
        }
        mesh.anchor(&[(mesh.b, at(&b[0]))]).await;
        for entry in &v {
            match mesh.give(entry).await {
                Ingested::Duplicate(_) => assert!(branch_first),
                Ingested::Refused(RefusedEntry::Rules(Refusal::Void { seq, .. })) => {
                    assert_eq!((branch_first, seq), (false, entry.header.seq));
                }
                // What comes before it is not here, and may be on any branch.
                Ingested::Pending { .. } => assert!(!branch_first && entry.header.seq == 3),
                other => panic!("{other:?}"),
            }
        }
        for _reopened in 0..2 {
            assert_eq!(
                mesh.value("/v2").await,
                None,
                "branch first: {branch_first}"
            );
            assert_eq!(mesh.value("/v3").await, None);
            assert_eq!(mesh.value("/k").await.as_deref(), Some("b3"));
            assert_eq!(mesh.store.frontier().tips(&mesh.b), [at(&b[1])]);
            mesh = mesh.reopen().await;
        }
        mesh.anchor(&[(mesh.b, at(&b[0])), (mesh.b, at(&v[0]))])
            .await;
        for entry in &v {
            let taken = mesh.give(entry).await;
            let is_here = matches!(
                taken,
                Ingested::Applied(_) | Ingested::Stored(_) | Ingested::Duplicate(_)
            );
            assert!(is_here, "{taken:?}");
        }
        for key in ["/b2", "/b3", "/v2", "/v3"] {
            assert!(mesh.value(key).await.is_some(), "{key}");
        }
        assert_eq!(
            mesh.store.frontier().tips(&mesh.b).len(),
            2,
            "branch first: {branch_first}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn anchor_has_no_effect_before_its_entry_has_come() {
    let mut mesh = Mesh::new().await;
    let mut writer = Writer::new(AUTHOR_B, mesh.id);
    let first = log(&mut writer, &["b1"]);
    let v = log(&mut writer.clone(), &["v2"]);
    let b = log(&mut writer, &["b2"]);
    mesh.take_in(&first[0]).await;
    mesh.anchor(&[(mesh.b, at(&b[0]))]).await;
    mesh.take_in(&v[0]).await;
    assert_eq!(mesh.value("/v2").await.as_deref(), Some("v2"));
    mesh.take_in(&b[0]).await;
    assert_eq!(mesh.value("/v2").await, None);
    assert_eq!(mesh.value("/b2").await.as_deref(), Some("b2"));
}

/// Nobody may have what is final any more, so nobody waits for it, whatever a reference claims.
#[tokio::test(flavor = "multi_thread")]
async fn reference_below_an_anchor_is_not_waited_for() {
    let mut mesh = Mesh::new().await;
    let b = log(&mut Writer::new(AUTHOR_B, mesh.id), &["b1", "b2"]);
    for entry in &b {
        mesh.take_in(entry).await;
    }
    let nowhere = |seq| Parent {
        seq,
        id: lattice::id::EntryId([7; 32]),
        ..b[0].as_parent()
    };
    let c = Writer::new(AUTHOR_C, mesh.id);
    let cites = |c: &mut Writer, seq| {
        let parents = BTreeSet::from([nowhere(seq)]);
        c.write(NOW_MS + 9, vec![put("/c", "c")], parents, false)
    };
    let waits = cites(&mut c.clone(), 2);
    let taken = mesh.give(&waits).await;
    assert!(matches!(taken, Ingested::Pending { .. }), "{taken:?}");
    mesh.anchor(&[(mesh.b, at(&b[1]))]).await;
    let taken = mesh.give(&cites(&mut c.clone(), 3)).await;
    assert!(matches!(taken, Ingested::Pending { .. }), "{taken:?}");
    mesh.take_in(&waits).await;
}

/// Only an admin makes entries final, and the root store is not concerned.
#[tokio::test(flavor = "multi_thread")]
async fn act_without_authority_has_no_effect() {
    let mut mesh = Mesh::new().await;
    let mut writer = Writer::new(AUTHOR_B, mesh.id);
    let first = log(&mut writer, &["b1"]);
    let v = log(&mut writer.clone(), &["v2"]);
    let b = log(&mut writer, &["b2"]);
    for entry in first.iter().chain(&b) {
        mesh.take_in(entry).await;
    }
    let tips = [(mesh.b, at(&b[0]))].into_iter().collect();
    let act = AnchorsAct::new(1, None, 0, tips, None).unwrap().encode();
    let root = mesh.node.root();
    let mut outlaw = Writer::new(AUTHOR_B, root.id());
    let role = role_key(&mesh.b);
    let grant = heads_of(&root, &[str::from_utf8(&role).unwrap()]).await;
    let op = put(anchors_key(&mesh.id), act);
    let entry = outlaw.write(root.now_ms() + 1, vec![op], grant, false);
    let taken = root
        .ingest(vec![entry.signed.encode().into()])
        .await
        .unwrap();
    assert!(matches!(taken[..], [Ingested::Applied(_)]), "{taken:?}");
    mesh.store.reconsider().await;
    mesh.take_in(&v[0]).await;
    // The admin names a place in the root store itself.
    let root_tips = root.frontier();
    let root_id = root.id();
    let act = AnchorsAct::new(1, None, 0, root_tips, None).unwrap();
    mesh.act(put(anchors_key(&root_id), act.encode())).await;
    assert_eq!(mesh.value("/v2").await.as_deref(), Some("v2"));
}

/// A node is restored from an old copy of its directory and writes before it meets anybody. Meanwhile
/// what it had written after the copy has become final.
#[tokio::test(flavor = "multi_thread")]
async fn own_void_entries_are_written_again_by_repair() {
    let mut mesh = Mesh::new().await;
    mesh.store.put("/old", "1").await.unwrap();
    let mut mesh = {
        let copy = tempfile::tempdir().unwrap();
        let (id, admin, b) = (mesh.id, mesh.admin.clone(), mesh.b);
        mesh.node.close().await.unwrap();
        copy_dir(mesh.dir.path(), copy.path());
        mesh = mesh.reopen().await;
        let me = mesh.store.author();
        mesh.store.put("/new", "2").await.unwrap();
        let tip = mesh.store.frontier().tips(&me)[0];
        mesh.anchor(&[(me, tip)]).await;

        let node = Node::open(NodeConfig::new(copy.path())).await.unwrap();
        let store = node.open_store(&id).unwrap();
        store.put("/void", "first").await.unwrap();
        store.put("/void", "last").await.unwrap();
        store.put("/old", "changed").await.unwrap();
        sync(&node.root(), &mesh.node.root()).await;
        store.reconsider().await;
        sync(&store, &mesh.store).await;
        store.reconsider().await;
        mesh.node.close().await.unwrap();
        Mesh {
            dir: copy,
            node,
            store,
            id,
            admin,
            b,
        }
    };
    assert_eq!(mesh.value("/void").await, None);
    assert_eq!(mesh.value("/new").await.as_deref(), Some("2"));
    for _reopened in 0..2 {
        let refused = mesh.store.put("/x", "x").await;
        assert!(
            matches!(refused, Err(WriteError::OwnLogVoid { seq: 2 })),
            "{refused:?}"
        );
        mesh = mesh.reopen().await;
    }
    let repaired = mesh.store.repair().await.unwrap();
    let again = repaired.taken_back.unwrap();
    assert_eq!((again.entries, again.keys), (3, 2));
    for (key, value) in [("/void", "last"), ("/old", "changed"), ("/new", "2")] {
        assert_eq!(mesh.value(key).await.as_deref(), Some(value), "{key}");
    }
    mesh.store.put("/x", "x").await.unwrap();
    let mesh = mesh.reopen().await;
    mesh.store.put("/x", "y").await.unwrap();
    assert_eq!(mesh.store.frontier().tips(&mesh.store.author()).len(), 1);
}

/// As above, and the node has met somebody who has the acts, but not its entries.
#[tokio::test(flavor = "multi_thread")]
async fn own_log_behind_a_final_entry_takes_no_writes() {
    let mut mesh = Mesh::new().await;
    mesh.store.put("/old", "1").await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    mesh.node.close().await.unwrap();
    copy_dir(mesh.dir.path(), copy.path());
    mesh = mesh.reopen().await;
    mesh.store.put("/new", "2").await.unwrap();
    let me = mesh.store.author();
    let tip = mesh.store.frontier().tips(&me)[0];
    mesh.anchor(&[(me, tip)]).await;

    let node = Node::open(NodeConfig::new(copy.path())).await.unwrap();
    let store = node.open_store(&mesh.id).unwrap();
    sync(&node.root(), &mesh.node.root()).await;
    store.reconsider().await;
    let refused = store.put("/x", "x").await;
    assert!(
        matches!(refused, Err(WriteError::OwnLogBehind { seq: 2 })),
        "{refused:?}"
    );
    sync(&store, &mesh.store).await;
    store.put("/x", "x").await.unwrap();
    node.close().await.unwrap();
    mesh.node.close().await.unwrap();
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_dir(&entry.path(), &target);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

// Branches of B with one entry each, beside each other after what `on` has written.
fn forks(on: &Writer, count: usize) -> Vec<VerifiedEntry> {
    let fork = |number| {
        let ops = vec![put(format!("/fork/{number}"), "x")];
        on.clone().write(NOW_MS + 50, ops, BTreeSet::new(), false)
    };
    (0..count).map(fork).collect()
}

// A node that joins late has all acts before it gets an entry of the store. It refused the entries that a
// removal does not keep, and an anchor among them never came: the other nodes counted them.
#[tokio::test(flavor = "multi_thread")]
async fn final_entries_of_a_removed_or_lowered_author_come_after_the_acts() {
    for lowered in [false, true] {
        let mut mesh = Mesh::new().await;
        let mut writer = Writer::new(AUTHOR_B, mesh.id);
        let mut b = log(&mut writer, &["b1"]);
        let v = log(&mut writer.clone(), &["v2"]);
        b.extend(log(&mut writer, &["b2", "b3"]));
        let kept = Tips::new([(mesh.id, at(&b[0]))]).unwrap();
        let act = match lowered {
            false => Act::Remove(kept),
            true => Act::Lower(Role::Reader, kept),
        };
        mesh.act(put(role_key(&mesh.b), act.encode())).await;
        mesh.anchor(&[(mesh.b, at(&b[1]))]).await;
        mesh.take_in(&b[0]).await;
        for stored in [&v[0], &b[1]] {
            assert_eq!(mesh.value("/k").await.as_deref(), Some("b1"));
            assert_eq!(mesh.store.frontier().tips(&mesh.b), [at(&b[0])]);
            assert_eq!(mesh.give(stored).await, Ingested::Stored(stored.id));
            if stored.id == v[0].id {
                mesh = mesh.reopen().await;
            }
        }
        let refused = mesh.give(&b[2]).await;
        let is_removed = |it: &Ingested| {
            let Ingested::Refused(RefusedEntry::Rules(refusal)) = it else {
                return false;
            };
            matches!(refusal, Refusal::Removed { .. } | Refusal::Reader { .. })
        };
        assert!(is_removed(&refused), "{refused:?}");
        for _reopened in 0..2 {
            assert_eq!(mesh.value("/k").await.as_deref(), Some("b2"), "{lowered}");
            assert_eq!(mesh.value("/v2").await, None);
            assert_eq!(mesh.store.frontier().tips(&mesh.b), [at(&b[1])]);
            mesh = mesh.reopen().await;
        }
    }
}

// A node that has an anchor refuses the forks below it. One that had the forks before counted them for
// ever: the key was spent there, and only there.
#[tokio::test(flavor = "multi_thread")]
async fn b3_forks_below_an_anchor_spend_no_key_in_any_order() {
    // B's first entry comes first.
    let orders: [&[&str]; 6] = [
        &["next", "forks", "anchor"],
        &["next", "anchor", "forks"],
        &["anchor", "next", "forks"],
        &["anchor", "forks", "next"],
        &["forks", "anchor", "next"],
        &["forks", "next", "anchor", "next"],
    ];
    for order in orders {
        let mut mesh = Mesh::new().await;
        let mut writer = Writer::new(AUTHOR_B, mesh.id);
        let mut b = log(&mut writer, &["b1"]);
        let forks = forks(&writer, FORKS_MAX + 3);
        b.extend(log(&mut writer, &["b2", "b3"]));
        mesh.take_in(&b[0]).await;
        for step in order {
            match *step {
                "next" => drop(mesh.give(&b[1]).await),
                "anchor" => mesh.anchor(&[(mesh.b, at(&b[1]))]).await,
                _forks => {
                    for fork in &forks {
                        let _outcome = mesh.give(fork).await;
                    }
                }
            }
        }
        assert!(mesh.store.spent().unwrap().is_empty(), "{order:?}");
        mesh.take_in(&b[2]).await;
        // Forks above the anchor count again from the first.
        let beside = log(&mut writer.clone(), &["beside"]);
        let on = log(&mut writer, &["b4"]);
        mesh.take_in(&on[0]).await;
        mesh.take_in(&beside[0]).await;
        for _reopened in 0..2 {
            assert_eq!(mesh.value("/b3").await.as_deref(), Some("b3"), "{order:?}");
            assert_eq!(mesh.value("/beside").await.as_deref(), Some("beside"));
            for number in 0..forks.len() {
                let void = mesh.value(&format!("/fork/{number}")).await;
                assert_eq!(void, None, "{order:?}");
            }
            assert_eq!(mesh.store.frontier().tips(&mesh.b).len(), 2, "{order:?}");
            mesh = mesh.reopen().await;
        }
    }
}

// What is final counts for ever, and a later anchor ends that the key is spent.
#[tokio::test(flavor = "multi_thread")]
async fn b3_forks_above_an_anchor_spend_the_key_until_a_later_anchor() {
    let mut mesh = Mesh::new().await;
    let mut writer = Writer::new(AUTHOR_B, mesh.id);
    let first = log(&mut writer, &["b1", "b2"]);
    for entry in &first {
        mesh.take_in(entry).await;
    }
    mesh.anchor(&[(mesh.b, at(&first[1]))]).await;
    let forks = forks(&writer, FORKS_MAX + 2);
    let b = log(&mut writer, &["b3", "b4"]);
    for (count, fork) in forks.iter().enumerate() {
        assert!(mesh.store.spent().unwrap().is_empty(), "{count} forks");
        mesh.take_in(fork).await;
    }
    let spent = |it: &Ingested| {
        let Ingested::Refused(RefusedEntry::Rules(refusal)) = it else {
            return false;
        };
        matches!(refusal, Refusal::Spent { .. })
    };
    for _reopened in 0..2 {
        assert_eq!(mesh.value("/k").await.as_deref(), Some("b2"));
        assert_eq!(mesh.value("/fork/0").await, None);
        assert_eq!(mesh.store.frontier().tips(&mesh.b), [at(&first[1])]);
        let keys = mesh.store.spent_keys().unwrap();
        assert!(keys.authors.contains(&mesh.b));
        assert_eq!(keys.proof.tips(&mesh.b).len(), FORKS_MAX + 2);
        let refused = mesh.give(&b[0]).await;
        assert!(spent(&refused), "{refused:?}");
        mesh = mesh.reopen().await;
    }
    mesh.anchor(&[(mesh.b, at(&b[0]))]).await;
    // It is asked for again.
    assert!(mesh.store.spent_keys().unwrap().authors.is_empty());
    assert_eq!(mesh.give(&b[0]).await, Ingested::Stored(b[0].id));
    mesh.take_in(&b[1]).await;
    for _reopened in 0..2 {
        assert_eq!(mesh.value("/k").await.as_deref(), Some("b4"));
        assert_eq!(mesh.store.frontier().tips(&mesh.b), [at(&b[1])]);
        assert!(mesh.store.spent().unwrap().is_empty());
        mesh = mesh.reopen().await;
    }
}
