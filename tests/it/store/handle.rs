//! A store as a program uses it: put, get, watch, reopen.

use std::time::Duration;

use bytes::Bytes;
use lattice::{
    Node, NodeConfig, Store,
    protocol::{change::Kind, entry::Op},
    store::{
        Condition, EventAs, JsonError, List, Listed, Start, Watch, WatchError, WatchEvent,
        WatchOptions, Write, WriteError,
    },
};
use tokio_stream::StreamExt as _;

async fn node(dir: &std::path::Path) -> Node {
    Node::open(NodeConfig::new(dir).create(true)).await.unwrap()
}

async fn next(watch: &mut Watch) -> WatchEvent {
    tokio::time::timeout(Duration::from_secs(20), watch.next())
        .await
        .expect("an event within 20 s")
        .expect("the watch goes on")
        .unwrap()
}

async fn next_put(watch: &mut Watch) -> (String, String) {
    match next(watch).await {
        WatchEvent::Change(change) if change.kind == Kind::Put => (
            String::from_utf8(change.key.to_vec()).unwrap(),
            String::from_utf8(change.value.clone().unwrap().to_vec()).unwrap(),
        ),
        other => panic!("expected a put, got {other:?}"),
    }
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn put_is_read_watched_and_durable() {
    let dir = tempfile::tempdir().unwrap();
    let node1 = node(dir.path()).await;
    let store = node1.root();
    let mut watch = store.watch("/hello");
    assert_eq!(next(&mut watch).await, WatchEvent::CaughtUp);
    let written = store.put("/hello", "world").await.unwrap();
    assert_eq!(next_put(&mut watch).await, pair("/hello", "world"));
    let item = store.get(b"/hello").await.unwrap().unwrap();
    assert_eq!(
        (item.value, item.entry.id),
        (Bytes::from("world"), written.entry)
    );
    let cursor = watch.cursor();
    store.put("/hello", "again").await.unwrap();
    node1.close().await.unwrap();
    drop((store, watch, node1));

    let node2 = node(dir.path()).await;
    let store = node2.root();
    assert_eq!(
        store.get(b"/hello").await.unwrap().unwrap().value,
        Bytes::from("again")
    );
    let mut watch = store.watch_with(WatchOptions {
        prefixes: vec!["/hello".into()],
        start: Start::After(cursor),
        ..WatchOptions::default()
    });
    assert_eq!(next_put(&mut watch).await, pair("/hello", "again"));
    assert_eq!(next(&mut watch).await, WatchEvent::CaughtUp);
    assert_eq!(store.verify().await.unwrap().damage, []);
    node2.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn first_open_introduces_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let mut watch = node.root().watch("/nodes/");
    let id = node.id();
    let (key, value) = next_put(&mut watch).await;
    assert_eq!(key, format!("/nodes/{id}/info"));
    assert!(value.contains(r#""name":"#), "{value}");
    assert_eq!(
        next_put(&mut watch).await,
        pair(&format!("/nodes/{id}/status"), "active")
    );
    let refused = node.root().put("/nodes/x", "y").await;
    assert!(
        matches!(refused, Err(WriteError::Reserved { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_puts_are_all_kept() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let store = node.root();
    let mut watch = store.watch_with(WatchOptions {
        prefixes: vec!["/k/".into()],
        start: Start::Now,
        ..WatchOptions::default()
    });
    let tasks: Vec<_> = (0..64)
        .map(|caller| {
            let store: Store = store.clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    store
                        .put(format!("/k/{caller}/{n}"), format!("{n}"))
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 3200 {
        if let WatchEvent::Change(change) = next(&mut watch).await {
            assert!(seen.insert(change.key.clone()), "{:?} twice", change.key);
        }
    }
    let entries = store.status().await.entries;
    assert!(
        entries < 3200,
        "puts that wait together share entries: {entries}"
    );
    assert_eq!(store.verify().await.unwrap().damage, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_checked_by_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let store = node.root();
    let absent = || Write::put("/lock", "me").condition(Condition::Absent);
    let racers: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.write(absent()).await.is_ok() })
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        won += u32::from(racer.await.unwrap());
    }
    assert_eq!(won, 1);
    let head = store.get(b"/lock").await.unwrap().unwrap().entry.id;
    let swap = || Write::put("/lock", "you").condition(Condition::Head(head));
    store.write(swap()).await.unwrap();
    let refused = store.write(swap()).await;
    assert!(
        matches!(refused, Err(WriteError::PreconditionFailed { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_is_one_entry_and_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let store = node.root();
    let put = |key: &str| Op::Put {
        key: Bytes::from(key.to_owned()),
        value: "v".into(),
        expires_ms: None,
    };
    let written = store.batch(vec![put("/a"), put("/b")]).await;
    let written = written.unwrap().unwrap();
    for key in [b"/a", b"/b"] {
        assert_eq!(
            store.get(key).await.unwrap().unwrap().entry.id,
            written.entry
        );
    }
    let twice = store.batch(vec![put("/c"), put("/c")]).await;
    assert!(twice.is_err());
    assert_eq!(store.get(b"/c").await.unwrap(), None);
}

/// A tombstone for a key that never was stays on every node for ever.
#[tokio::test(flavor = "multi_thread")]
async fn deletes_without_a_value_write_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let store = node.root();
    let put = |key: &'static str| Write::put(key, "v").ops.remove(0);
    let delete = |key: &'static str| Op::Delete { key: key.into() };
    let written = store.put("/gone", "v").await.unwrap();
    let tombstone = store.delete("/gone").await.unwrap().unwrap();
    let brief = Write::put("/brief", "v").expires_ms(1);
    store.write(brief).await.unwrap();

    let before = store.frontier();
    for key in ["/never", "/gone", "/brief"] {
        assert_eq!(store.delete(key).await.unwrap(), None);
    }
    let absent = vec![delete("/never"), delete("/gone"), delete("/brief")];
    assert_eq!(store.batch(absent.clone()).await.unwrap(), None);
    let one_by_one = absent.iter().map(|op| Write::delete(op.key().clone()));
    for outcome in store.write_many(one_by_one.collect()).await {
        assert_eq!(outcome.unwrap(), None);
    }
    // A condition is checked all the same.
    let if_head = |id| Write::delete("/gone").condition(Condition::Head(id));
    assert_eq!(store.write(if_head(tombstone.entry)).await.unwrap(), None);
    let refused = store.write(if_head(written.entry)).await;
    assert!(
        matches!(refused, Err(WriteError::PreconditionFailed { .. })),
        "{refused:?}"
    );
    let twice = store.batch(vec![delete("/never"), delete("/never")]).await;
    assert!(matches!(twice, Err(WriteError::Entry(_))), "{twice:?}");
    assert_eq!(store.frontier(), before, "nothing was written");

    // What else is in a batch is written, and only that.
    let mixed = vec![delete("/never"), put("/a"), delete("/gone"), put("/b")];
    let mixed = store.batch(mixed).await.unwrap().unwrap();
    assert_eq!((mixed.op_index, mixed.op_count), (0, 2));
    assert!(store.heads(b"/never").await.unwrap().is_empty());
    for key in [&b"/a"[..], b"/b"] {
        assert_eq!(store.get(key).await.unwrap().unwrap().entry.id, mixed.entry);
    }

    // In one group, a delete meets what was put before it, and the next delete does not.
    let writes = vec![
        Write::put("/a", "again"),
        Write::delete("/a"),
        Write::delete("/a"),
        Write::put("/new", "v"),
        Write::delete("/new"),
    ];
    let outcomes = store.write_many(writes).await;
    let written = outcomes.into_iter().map(|it| it.unwrap().is_some());
    assert_eq!(written.collect::<Vec<_>>(), [true, true, false, true, true]);
    node.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_of_another_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let other = node.create_store("other").await.unwrap();
    let other = node.store(&other.name).unwrap();
    other.put("/x", "y").await.unwrap();
    let mut watch = other.watch("");
    while next(&mut watch).await != WatchEvent::CaughtUp {}
    let mut cursor = watch.cursor();
    let after = |cursor| WatchOptions {
        start: Start::After(cursor),
        ..WatchOptions::default()
    };
    let refused = node
        .root()
        .watch_with(after(cursor.clone()))
        .next()
        .await
        .unwrap();
    assert!(
        matches!(refused, Err(WatchError::ForeignCursor { .. })),
        "{refused:?}"
    );
    cursor.store = node.root().id();
    // Own entries that nobody has: there is no other member.
    let first = node.root().watch_with(after(cursor)).next().await.unwrap();
    assert!(matches!(first, Ok(WatchEvent::Gap { .. })), "{first:?}");
}

// Returns a list with a delimiter as its rules say: without pages and without a state.
fn listed(keys: &[Bytes], prefix: &[u8], after: &[u8]) -> Vec<Bytes> {
    let common = |key: &[u8]| -> Option<Bytes> {
        let at = key[prefix.len()..].iter().position(|byte| *byte == b'/')?;
        Some(Bytes::copy_from_slice(&key[..=prefix.len() + at]))
    };
    let is_over = after.starts_with(prefix) && common(after).is_some_and(|it| it == after);
    let mut listed: Vec<Bytes> = keys
        .iter()
        .filter(|key| key.starts_with(prefix) && &key[..] > after)
        .filter(|key| !(is_over && key.starts_with(after)))
        .map(|key| common(key).unwrap_or_else(|| key.clone()))
        .collect();
    listed.dedup();
    listed
}

/// All keys of up to four letters, some deleted, under every prefix and after every place.
#[tokio::test(flavor = "multi_thread")]
async fn list_with_a_delimiter_is_as_its_model() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let letters = node.create_store("letters").await.unwrap();
    let store = node.store(&letters.name).unwrap();
    let mut words: Vec<Vec<u8>> = vec![Vec::new()];
    for length in 0..4 {
        let longer = words
            .clone()
            .into_iter()
            .filter(|word| word.len() == length);
        words.extend(
            longer.flat_map(|word| {
                [b"a", b"/"].map(|letter| [word.clone(), letter.to_vec()].concat())
            }),
        );
    }
    words.sort();
    let mut keys = Vec::new();
    for (number, word) in words.iter().enumerate().skip(1) {
        store.put(word.clone(), "v").await.unwrap();
        match number % 3 {
            0 => drop(store.delete(word.clone()).await.unwrap()),
            _kept => keys.push(Bytes::from(word.clone())),
        }
    }
    for prefix in [&b""[..], b"a", b"/", b"a/", b"//"] {
        for after in &words {
            let mut pages = Vec::new();
            let mut last = Bytes::from(after.clone());
            loop {
                let mut scan = store
                    .scan(List {
                        prefix: Bytes::copy_from_slice(prefix),
                        limit: Some(2),
                        keys_only: true,
                    })
                    .delimiter("/".into());
                if !last.is_empty() {
                    scan = scan.after(last.clone());
                }
                let page = scan.next_listed().await.unwrap();
                let page = page.into_iter().map(|listed| match listed {
                    Listed::Item(item) => item.key,
                    Listed::Prefix(prefix) => prefix,
                });
                let page: Vec<Bytes> = page.collect();
                assert!(page.len() <= 2);
                let Some(end) = page.last() else { break };
                last = end.clone();
                pages.extend(page);
            }
            let case = (prefix.escape_ascii(), after.escape_ascii());
            assert_eq!(
                pages,
                listed(&keys, prefix, after),
                "{}, {}",
                case.0,
                case.1
            );
        }
    }
    node.close().await.unwrap();
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Sensor {
    celsius: f64,
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_json_of_a_type() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let store = node.data();
    let attic = Sensor { celsius: 21.5 };
    store.put_json("/s/attic", &attic).await.unwrap();
    assert_eq!(store.get_json(b"/s/attic").await.unwrap(), Some(attic));
    assert_eq!(store.get_json::<Sensor>(b"/s/none").await.unwrap(), None);
    let numbers = std::collections::BTreeMap::from([((1, 2), 3)]);
    let refused = store.put_json("/s/numbers", &numbers).await;
    assert!(matches!(refused, Err(JsonError::Encode(_))));
    assert!(store.get(b"/s/numbers").await.unwrap().is_none());

    store.put("/s/other", "warm").await.unwrap();
    let read = store.get_json::<Sensor>(b"/s/other").await;
    let JsonError::Invalid { key, .. } = read.unwrap_err() else {
        panic!("not invalid")
    };
    assert_eq!(key, "/s/other");
    let mut watch = store.watch("/s/").typed::<Sensor>();
    let mut next = async || {
        let event = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
        event.unwrap().unwrap().unwrap()
    };
    let mut state = [next().await, next().await];
    state.sort_by_key(|event| matches!(event, EventAs::Invalid(..)));
    assert!(
        matches!(&state[0], EventAs::Value(Sensor { celsius: 21.5 }, change) if change.key == "/s/attic")
    );
    assert!(matches!(&state[1], EventAs::Invalid(_, change) if change.key == "/s/other"));
    assert!(matches!(next().await, EventAs::Other(WatchEvent::CaughtUp)));
    store.delete("/s/attic").await.unwrap();
    assert!(matches!(next().await, EventAs::Gone(change) if change.key == "/s/attic"));
    // Without values there is nothing to read.
    let keys = WatchOptions {
        keys_only: true,
        ..WatchOptions::default()
    };
    let mut watch = store.watch_with(keys).typed::<Sensor>();
    let event = watch.next().await.unwrap().unwrap();
    assert!(matches!(event, EventAs::Other(WatchEvent::Change(_))));
    node.close().await.unwrap();
}
