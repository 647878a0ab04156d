//! The thin client, against a node with its socket.

use std::{collections::BTreeMap, future::poll_fn, path::Path, task::Poll, time::Duration};

use bytes::Bytes;
use lattice::{
    WatchEvent, Write,
    calls::{Condition, ConsumerOptions, ConsumerStart, List, Start, WatchOptions},
    client::{ApiError, Client, ConnectError, ErrorKind, Store, Watch},
    daemon::Daemon,
    limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX},
    net::NetConfig,
    node::{Node, NodeConfig},
    protocol::{
        change::{Change, Kind},
        entry::Op,
        heads::hash_of,
    },
};
use tokio::{task::JoinSet, time::timeout};
use tokio_stream::StreamExt as _;

use super::proxy::{Cuts, Proxy};

const PATIENCE: Duration = Duration::from_secs(60);

async fn start(dir: &Path) -> Daemon {
    let node = Node::open(NodeConfig::new(dir).create(true)).await.unwrap();
    Daemon::start(node, NetConfig::default()).unwrap()
}

/// Returns what a call that must fail says: its kind and its code.
fn refused<T: std::fmt::Debug>(answer: Result<T, ApiError>) -> (ErrorKind, String) {
    let error = answer.unwrap_err();
    (error.kind(), error.code)
}

fn key_put(key: &str, value: &str) -> Op {
    Op::Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        expires_ms: None,
    }
}

async fn event(watch: &mut Watch) -> WatchEvent {
    let event = timeout(PATIENCE, watch.next()).await;
    event
        .expect("an event in time")
        .expect("the watch goes on")
        .unwrap()
}

/// Returns the next changes, until one of the key `last` has come.
async fn changes_until(watch: &mut Watch, last: &str) -> Vec<Change> {
    let mut changes = Vec::new();
    loop {
        match event(watch).await {
            WatchEvent::Change(change) => {
                changes.push(Change::clone(&change));
                if change.key == last.as_bytes() {
                    return changes;
                }
            }
            WatchEvent::CaughtUp | WatchEvent::Progress => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn caught_up(watch: &mut Watch) {
    while event(watch).await != WatchEvent::CaughtUp {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_return_what_those_of_a_store_do() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path()).await;
    let here = daemon.node().data();
    let client = Client::connect(daemon.socket()).await.unwrap();
    let there = client.data();

    let written = there.put("/a", "1").await.unwrap();
    let item = there.get("/a").await.unwrap().unwrap();
    assert_eq!((&*item.value, item.entry.id), (&b"1"[..], written.entry));
    assert_eq!(Some(item), here.get(b"/a").await.unwrap());
    let ops = vec![key_put("/b", "2"), key_put("/c", "3")];
    let batch = there.batch(ops).await.unwrap().unwrap();
    assert_eq!((batch.op_index, batch.op_count), (0, 2));
    let expiring = Write::put("/d", "4").expires_ms(daemon.node().clock().now_ms() + 3_600_000);
    there.write(expiring).await.unwrap().unwrap();
    let all = there.list(List::default()).await.unwrap();
    assert_eq!(all, here.list(List::default()).await.unwrap());
    assert_eq!(all.len(), 4);
    let two = List {
        limit: Some(2),
        keys_only: true,
        ..List::default()
    };
    assert_eq!(
        there.list(two.clone()).await.unwrap(),
        here.list(two).await.unwrap()
    );
    assert!(there.delete("/c").await.unwrap().is_some());
    assert_eq!(there.delete("/c").await.unwrap(), None);
    assert_eq!(there.get("/c").await.unwrap(), None);
    let before = there.get_at("/c", batch.hlc.wall_ms).await.unwrap();
    assert_eq!(before.unwrap().value, "3");
    daemon.stop().await.unwrap();
}

/// Each condition, as a call of its own and on the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_hold_alone_and_on_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path()).await;
    let store = Client::connect(daemon.socket()).await.unwrap().data();
    for round in ["alone", "stream"] {
        // Another write in flight, whose condition is only known to the stream, opens it.
        let key = |name: &str| format!("/{round}/{name}");
        let write = |write: Write| {
            let store = store.clone();
            async move {
                if round == "alone" {
                    return store.write(write).await;
                }
                let (_other, written) = tokio::join!(store.put("/other", "x"), store.write(write));
                written
            }
        };
        let put = |value: &'static str| Write::put(key("k"), value);
        let first = write(put("1").condition(Condition::Absent)).await.unwrap();
        let first = first.unwrap().entry;
        let again = write(put("2").condition(Condition::Absent)).await;
        let failed = (ErrorKind::Precondition, "precondition_failed".to_owned());
        assert_eq!(refused(again), failed, "{round}");
        let second = write(put("2").condition(Condition::Head(first)))
            .await
            .unwrap();
        let second = second.unwrap().entry;
        let late = write(put("3").condition(Condition::Head(first))).await;
        assert_eq!(refused(late), failed, "{round}");
        let heads = Condition::Heads(hash_of([second]));
        let third = write(put("3").condition(heads))
            .await
            .unwrap()
            .unwrap()
            .entry;
        assert_eq!(
            refused(write(put("4").condition(heads)).await),
            failed,
            "{round}"
        );
        let delete = Write::delete(key("k")).condition(Condition::Head(second));
        assert_eq!(refused(write(delete).await), failed, "{round}");
        let delete = Write::delete(key("k")).condition(Condition::Head(third));
        assert!(write(delete).await.unwrap().is_some(), "{round}");
    }
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_a_kind_and_stop_no_other_call() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path()).await;
    let client = Client::connect(daemon.socket()).await.unwrap();
    let store = client.data();
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    let large = vec![0; 5 * VALUE_BYTES_MAX];
    let usage = |code: &str| (ErrorKind::Usage, code.to_owned());
    let (a, b, c, d) = tokio::join!(
        store.put("/1", "x"),
        store.put(long, "x"),
        store.put("/2", large),
        store.put("/3", "x"),
    );
    assert_eq!(refused(b), usage("key_too_long"));
    assert_eq!(refused(c), usage("value_too_long"));
    assert!(a.is_ok() && d.is_ok());
    assert_eq!(refused(store.get("").await), usage("key_empty"));
    let (e, f) = tokio::join!(store.get("/1"), store.get("/3"));
    assert_eq!(e.unwrap().unwrap().value, f.unwrap().unwrap().value);
    let none = client.store("none");
    let (e, f) = tokio::join!(none.get("/1"), none.get("/3"));
    assert_eq!(refused(e).0, ErrorKind::NotFound);
    assert_eq!(refused(f).0, ErrorKind::NotFound);
    assert_eq!(refused(none.put("/k", "v").await).0, ErrorKind::NotFound);
    let (e, f) = tokio::join!(none.put("/k", "v"), none.put("/l", "v"));
    assert_eq!(refused(e).0, ErrorKind::NotFound);
    assert_eq!(refused(f).0, ErrorKind::NotFound);
    let mut watch = none.watch("/");
    assert_eq!(refused(watch.next().await.unwrap()).0, ErrorKind::NotFound);
    assert!(watch.next().await.is_none());
    let consumer = store.consumer("none");
    assert_eq!(refused(consumer.next().await).0, ErrorKind::NotFound);
    let two = Write {
        ops: vec![key_put("/a", "1"), key_put("/b", "2")],
        ..Write::put("/a", "1").condition(Condition::Absent)
    };
    assert_eq!(refused(store.write(two).await), usage("condition_in_batch"));
    let path = daemon.socket().to_owned();
    daemon.stop().await.unwrap();
    assert_eq!(
        refused(store.put("/k", "v").await).0,
        ErrorKind::Unavailable
    );
    let error = Client::connect(path).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoSocket { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_those_of_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path()).await;
    let store = daemon.node().data();
    let client = Client::connect(daemon.socket()).await.unwrap();
    let mut here = store.watch("/");
    let mut there = client.data().watch("/");
    caught_up(&mut there).await;
    while here.next().await.unwrap().unwrap() != WatchEvent::CaughtUp {}
    store.put("/a", "1").await.unwrap();
    store.put("/a", "2").await.unwrap();
    let ops = vec![key_put("/b", "3"), key_put("/c", "4")];
    store.batch(ops).await.unwrap();
    store.delete("/a").await.unwrap();
    store.put("/last", "").await.unwrap();
    let got = changes_until(&mut there, "/last").await;
    let mut expected = Vec::new();
    while expected.len() < got.len() {
        if let WatchEvent::Change(change) = here.next().await.unwrap().unwrap() {
            // A client does not get these.
            let (prev, depth) = (None, 0);
            expected.push(Change {
                prev,
                depth,
                ..Change::clone(&change)
            });
        }
    }
    assert_eq!(got, expected);
    assert_eq!(there.cursor(), Some(here.cursor()));
    daemon.stop().await.unwrap();
}

/// Puts numbers until all are acknowledged; a put whose node went is tried again.
async fn count(store: Store, prefix: &'static str, through: u32) -> u32 {
    let mut repeated = 0;
    for number in 0..through {
        while let Err(error) = store.put(format!("{prefix}{number:06}"), "v").await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            repeated += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    repeated
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_goes_on_over_restarts_of_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = start(dir.path()).await;
    let client = Client::connect(daemon.socket()).await.unwrap();
    let store = client.data();
    let mut watch = store.watch("/n/");
    caught_up(&mut watch).await;
    let reader = tokio::spawn(async move { changes_until(&mut watch, "/n/end").await });
    let writer = tokio::spawn(count(store.clone(), "/n/", 400));
    for _restart in 0..3 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        daemon.stop().await.unwrap();
        daemon = start(dir.path()).await;
    }
    writer.await.unwrap();
    store.put("/n/end", "").await.unwrap();
    let changes = timeout(PATIENCE, reader).await.unwrap().unwrap();
    // All entries of the store, each once, in order.
    let seqs: Vec<u64> = changes.iter().map(|change| change.entry.seq).collect();
    let expected: Vec<u64> = (seqs[0]..=*seqs.last().unwrap()).collect();
    assert_eq!(seqs, expected);
    let keys: BTreeMap<_, _> = changes.iter().map(|change| (&change.key, ())).collect();
    assert_eq!(keys.len(), 401);
    daemon.stop().await.unwrap();
}

/// A batch that was delivered in part came again from its beginning: cursors do not move inside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_that_breaks_anywhere_loses_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path()).await;
    let store = daemon.node().data();
    let direct = Client::connect(daemon.socket()).await.unwrap().data();
    let mut watch = direct.watch("/");
    caught_up(&mut watch).await;
    let from = watch.cursor().unwrap();
    // A batch is longer than the 16 KiB of a frame, so that connections break inside it.
    let value = "v".repeat(300);
    for round in 0..6 {
        let keys = (0..40).map(|op| key_put(&format!("/batch/{round}/{op}"), &value));
        store.batch(keys.collect()).await.unwrap();
        store.put(format!("/one/{round}"), "value").await.unwrap();
        store.delete(format!("/batch/{round}/3")).await.unwrap();
    }
    store.put("/last", "").await.unwrap();
    let expected = changes_until(&mut watch, "/last").await;
    let cuts = Cuts {
        first: 20_000,
        more: 1_357,
    };
    let proxy = Proxy::start(dir.path().join("proxy"), daemon.socket(), Some(cuts));
    let cut = Client::connect(proxy.path()).await.unwrap().data();
    let mut watch = cut.watch_with(WatchOptions {
        start: Start::After(from),
        ..WatchOptions::default()
    });
    let got = changes_until(&mut watch, "/last").await;
    let name = |change: &Change| (change.key.clone(), change.kind, change.entry.id);
    assert_eq!(
        got.iter().map(name).collect::<Vec<_>>(),
        expected.iter().map(name).collect::<Vec<_>>()
    );
    assert!(proxy.connections() > 5, "{}", proxy.connections());
    drop((proxy, watch));
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_that_was_cut_is_reported_as_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path()).await;
    let store = daemon.node().data();
    for key in 0..50 {
        store
            .put(format!("/{key:02}"), vec![b'v'; 4096])
            .await
            .unwrap();
    }
    let cuts = Cuts {
        first: 60_000,
        more: 1 << 20,
    };
    let proxy = Proxy::start(dir.path().join("proxy"), daemon.socket(), Some(cuts));
    let mut watch = Client::connect(proxy.path())
        .await
        .unwrap()
        .data()
        .watch("/");
    let mut before = 0;
    while let WatchEvent::Change(_) = event(&mut watch).await {
        before += 1;
    }
    // That was the gap. The whole state follows.
    assert!((1..50).contains(&before), "{before}");
    for key in 0..50 {
        let WatchEvent::Change(change) = event(&mut watch).await else {
            panic!("no change {key}");
        };
        assert_eq!(change.key, format!("/{key:02}"));
    }
    assert_eq!(event(&mut watch).await, WatchEvent::CaughtUp);
    drop((proxy, watch));
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_flight_together_share_two_streams() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path()).await;
    let proxy = Proxy::start(dir.path().join("proxy"), daemon.socket(), None);
    let client = Client::connect(proxy.path()).await.unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..256 {
        // Each has a handle of its own.
        let store = client.data();
        tasks.spawn(async move {
            for number in 0..8 {
                let key = format!("/{task}/{number}");
                let written = store.put(key.clone(), "v").await.unwrap();
                let item = store.get(key).await.unwrap().unwrap();
                assert_eq!(item.entry.id, written.entry);
            }
        });
    }
    let before = proxy.calls();
    timeout(PATIENCE, tasks.join_all())
        .await
        .expect("no task waits for ever");
    // A put or get is a call of its own if no other is in flight: at the beginning and at the end.
    let calls = proxy.calls() - before;
    assert!(calls <= 128, "{calls} calls for 2048 puts and 2048 gets");
    assert_eq!(
        daemon
            .node()
            .data()
            .list(List::default())
            .await
            .unwrap()
            .len(),
        2048
    );
    drop((proxy, client));
    daemon.stop().await.unwrap();
}

/// A dropped call leaves the stream as it is for the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_writes_stop_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path()).await;
    let store = Client::connect(daemon.socket()).await.unwrap().data();
    let mut tasks = JoinSet::new();
    for task in 0..64 {
        let store = store.clone();
        tasks.spawn(async move {
            for number in 0..20 {
                let key = format!("/{task}/{number}");
                let mut put = Box::pin(store.put(key.clone(), "v"));
                if number % 2 == 0 {
                    let written = put.await.unwrap();
                    // The answer is that to this call.
                    let item = store.get(key).await.unwrap().unwrap();
                    assert_eq!(item.entry.id, written.entry);
                } else {
                    // Dropped while it waits for the stream.
                    let polled = poll_fn(|context| Poll::Ready(put.as_mut().poll(context)));
                    drop((polled.await, put));
                }
            }
        });
    }
    timeout(PATIENCE, tasks.join_all())
        .await
        .expect("no task waits for ever");
    let keys = daemon
        .node()
        .data()
        .list(List::default())
        .await
        .unwrap()
        .len();
    assert!((640..=1280).contains(&keys), "{keys}");
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumer_goes_on_over_a_restart_of_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path()).await;
    let client = Client::connect(daemon.socket()).await.unwrap();
    let store = client.data();
    let consumer = store.consumer("jobs");
    let options = ConsumerOptions {
        from: ConsumerStart::Beginning,
        prefixes: vec!["/jobs/".into()],
        backoff: vec![Duration::from_millis(20)],
        ..ConsumerOptions::default()
    };
    consumer.create(&options).await.unwrap();
    // The same once more changes nothing; other options are refused.
    consumer.create(&options).await.unwrap();
    let other = ConsumerOptions {
        max_in_flight: 1,
        ..options
    };
    assert_eq!(refused(consumer.create(&other).await).1, "consumer_exists");
    let nothing = consumer.next_within(Duration::ZERO).await.unwrap();
    assert!(nothing.is_none());
    for job in 0..4 {
        store.put(format!("/jobs/{job}"), "do").await.unwrap();
    }
    let first = consumer.next().await.unwrap();
    assert_eq!(
        (&*first.change().key, first.attempt()),
        (&b"/jobs/0"[..], 1)
    );
    assert_eq!(first.change().kind, Kind::Put);
    first.extend().await.unwrap();
    first.ack_durably().await.unwrap();
    assert_eq!(refused(first.ack().await).0, ErrorKind::Precondition);

    let mut deliveries = consumer.deliveries(1);
    let second = deliveries.next().await.unwrap().unwrap();
    assert_eq!(second.change().key, "/jobs/1");
    second.nack(Some(Duration::ZERO)).await.unwrap();
    let again = timeout(PATIENCE, deliveries.next()).await.unwrap();
    let again = again.unwrap().unwrap();
    assert_eq!(
        (&*again.change().key, again.attempt()),
        (&b"/jobs/1"[..], 2)
    );
    again.ack_durably().await.unwrap();
    // One more is with this taker when the node goes.
    let third = deliveries.next().await.unwrap().unwrap();
    daemon.stop().await.unwrap();
    let daemon = start(dir.path()).await;
    let mut done = Vec::new();
    while done.len() < 2 {
        let delivery = timeout(PATIENCE, deliveries.next()).await.unwrap();
        let delivery = delivery.unwrap().unwrap();
        delivery.ack().await.unwrap();
        done.push((delivery.change().key.clone(), delivery.attempt()));
    }
    done.sort();
    assert_eq!(done[0].0, third.change().key);
    assert_eq!(done, [("/jobs/2".into(), done[0].1), ("/jobs/3".into(), 1)]);
    assert!(done[0].1 > 1, "{done:?}");
    consumer.delete().await.unwrap();
    let ended = timeout(PATIENCE, deliveries.next()).await.unwrap();
    assert_eq!(refused(ended.unwrap()).0, ErrorKind::NotFound);
    daemon.stop().await.unwrap();
}

/// A node that is killed with writes in flight: each call returns, none that was acknowledged is lost, and
/// the same client goes on with the next node.
#[cfg(feature = "cli")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_a_killed_node_fail_and_acknowledged_writes_are_kept() {
    use rustix::process::Signal;

    use crate::cli::Home;

    let home = Home::new();
    let node = home.up();
    let socket = lattice::client::place::socket(&home.data());
    let client = Client::connect(&socket).await.unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..256_u32 {
        let store = client.data();
        tasks.spawn(async move {
            let mut acknowledged = Vec::new();
            loop {
                let key = format!("/{task}/{}", acknowledged.len());
                match store.put(key.clone(), "v").await {
                    Ok(_written) => acknowledged.push(key),
                    Err(error) => return (acknowledged, error),
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    node.signal(Signal::KILL);
    let ended = timeout(PATIENCE, tasks.join_all())
        .await
        .expect("each call returns");
    drop(node);
    let mut hints = 0;
    for (_acknowledged, error) in &ended {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        hints += usize::from(error.hint.contains("may have been done"));
    }
    assert!(hints > 200, "{hints}");
    let _node = home.up();
    let store = client.data();
    let mut missing = 0;
    for key in ended.iter().flat_map(|(acknowledged, _error)| acknowledged) {
        missing += usize::from(store.get(key.clone()).await.unwrap().is_none());
    }
    assert_eq!(missing, 0);
    assert!(
        ended
            .iter()
            .any(|(acknowledged, _error)| !acknowledged.is_empty())
    );
    store.put("/again", "v").await.unwrap();
}
