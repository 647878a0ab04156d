//! Entries that a hook writes carry their cause, and one cause is written once, across retries and
//! lost state.

use std::{path::Path, sync::Arc, time::Duration};

use lattice::{
    Node, NodeConfig, Store, WatchEvent, WatchOptions,
    id::{EntryId, Seq},
    protocol::{
        change::{Change, Kind},
        consumer::cause_of,
        entry::{EntryError, cause::Cause},
    },
    store::{Start, Write, WriteError, Written},
};
use tokio_stream::StreamExt as _;

fn cause(position: u32) -> Cause {
    Cause {
        consumer: "copy".to_owned(),
        trigger: EntryId([7; 32]),
        position,
        depth: 1,
    }
}

fn caused(position: u32) -> Write {
    Write::put(format!("/copy/{position}"), "x").caused_by(cause(position))
}

async fn node(dir: &Path) -> Node {
    Node::open(NodeConfig::new(dir).create(true)).await.unwrap()
}

fn refused(outcome: Result<Option<Written>, WriteError>) -> (Seq, EntryId) {
    match outcome {
        Err(WriteError::AlreadyCaused { entry, seq }) => (seq, entry),
        other => panic!("it is written a second time: {other:?}"),
    }
}

fn place(written: &Written) -> (Seq, EntryId) {
    (written.seq, written.entry)
}

async fn history(store: &Store) -> Vec<Arc<Change>> {
    let mut watch = store.watch_with(WatchOptions {
        start: Start::SinceArrived { ms: 0 },
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

#[tokio::test(flavor = "multi_thread")]
async fn one_cause_is_written_once_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut written = Vec::new();
    for restart in 0..4_u32 {
        let node = node(dir.path()).await;
        let store = node.root();
        for (position, before) in (0..).zip(&written) {
            assert_eq!(refused(store.write(caused(position)).await), *before);
            assert_eq!(store.caused(&cause(position)).await.unwrap(), Some(*before));
        }
        assert_eq!(store.caused(&cause(restart)).await.unwrap(), None);
        let new = place(&store.write(caused(restart)).await.unwrap().unwrap());
        assert_eq!(refused(store.write(caused(restart)).await), new);
        written.push(new);
        let state = format!("stores/{}/state.db", store.id());
        let state = dir.path().join(state);
        node.close().await.unwrap();
        drop((store, node));
        if restart % 2 == 1 {
            std::fs::remove_file(state).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_racing_callers_writes() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let store = node.root();
    let mut asked = tokio::task::JoinSet::new();
    for ask in 0..64_u32 {
        let store = store.clone();
        asked.spawn(async move {
            // Others write meanwhile: what a hook writes is never an op of their entries.
            store.put(format!("/other/{ask}"), "y").await.unwrap();
            store.write(caused(ask % 4)).await
        });
    }
    let mut written = Vec::new();
    while let Some(outcome) = asked.join_next().await {
        match outcome.unwrap() {
            Ok(once) => written.push(place(&once.unwrap())),
            again => drop(refused(again)),
        }
    }
    assert_eq!(written.len(), 4, "one for each cause");
    let changes = history(&store).await;
    let of_hooks: Vec<_> = changes.iter().filter(|it| it.depth > 0).collect();
    assert_eq!(of_hooks.len(), 4);
    for change in of_hooks {
        assert_eq!(
            (change.depth, change.op_count, change.atomic),
            (1, 1, false)
        );
        assert!(written.contains(&(change.entry.seq, change.entry.id)));
    }
    let by_people = changes.iter().filter(|it| it.key.starts_with(b"/other/"));
    assert_eq!(by_people.filter(|it| it.depth == 0).count(), 64);
    node.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_cause_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let store = node.root();
    let long = Cause {
        consumer: "c".repeat(256),
        ..cause(0)
    };
    let nobody = Cause {
        consumer: String::new(),
        ..cause(0)
    };
    let no_depth = Cause {
        depth: 0,
        ..cause(0)
    };
    for bad in [long, nobody, no_depth] {
        let refused = store.write(Write::put("/k", "v").caused_by(bad)).await;
        let refused = refused.unwrap_err();
        assert!(
            matches!(refused, WriteError::Entry(EntryError::Malformed { .. })),
            "{refused}"
        );
    }
    assert_eq!(store.get(b"/k").await.unwrap(), None);
    node.close().await.unwrap();
}

/// An entry whose values expire has one expiry for each key, and none of them is the put.
#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_its_own_cause() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let store = node.root();
    let mut watch = store.watch_with(WatchOptions {
        prefixes: vec!["/ttl/".into()],
        start: Start::Now,
        ..WatchOptions::default()
    });
    let mut write = Write::put("/ttl/1", "a");
    write.ops.extend(Write::put("/ttl/2", "b").ops);
    let soon_ms = node.clock().now_ms() + 50;
    store.write(write.expires_ms(soon_ms)).await.unwrap();
    let mut changes = Vec::new();
    while changes.len() < 4 {
        let event = tokio::time::timeout(Duration::from_secs(20), watch.next());
        if let WatchEvent::Change(change) = event.await.unwrap().unwrap().unwrap() {
            changes.push(change);
        }
    }
    let expired = changes.iter().filter(|it| it.kind == Kind::Expire);
    assert_eq!(expired.count(), 2);
    for change in &changes {
        let write = Write::put(format!("/answer/{}", changes.len()), "x");
        let cause = cause_of("answer", change);
        assert_eq!(cause.depth, 1);
        store
            .write(write.clone().caused_by(cause.clone()))
            .await
            .unwrap();
        refused(store.write(write.caused_by(cause)).await);
    }
    node.close().await.unwrap();
}

/// A hook that answers hooks goes deeper each time: what stops a loop.
#[tokio::test(flavor = "multi_thread")]
async fn change_carries_the_depth_of_hooks() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let store = node.root();
    store.put("/loop", "0").await.unwrap();
    for depth in 1..=5_u32 {
        let changes = history(&store).await;
        let newest = changes.last().unwrap();
        assert_eq!(newest.depth, depth - 1);
        let write = Write::put("/loop", depth.to_string());
        let cause = cause_of("loop", newest);
        store.write(write.caused_by(cause)).await.unwrap();
    }
    node.close().await.unwrap();
}
