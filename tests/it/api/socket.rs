//! The local API over a real socket: every call, every refusal, and the ordered stop.

use std::{
    fs,
    io::Read as _,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use lattice::{
    api::{
        client::{Client, ConnectError, connect},
        error::ApiError,
        local::in_process,
        socket::{self, SocketError},
        socket_access::SocketAccess,
        whole,
    },
    daemon::{Daemon, DaemonError},
    limits::{KEY_BYTES_MAX, SOCKET_PATH_BYTES_MAX, VALUE_BYTES_MAX},
    net::NetConfig,
    node::{FileConfig, Node, NodeConfig},
    wire::api::{
        self, BatchRequest, DeleteRequest, DownRequest, GetRequest, HeadsRequest, HistoryRequest,
        ListRequest, LogRequest, Op, PutRequest, PutStreamRequest, VerifyRequest, WatchReply,
        WatchRequest, watch_reply::Event, watch_request::Start,
    },
};
use prost::Message as _;
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::Streaming;

async fn open(dir: &Path) -> Node {
    let mut config = NodeConfig::new(dir);
    config.create = true;
    Node::open(config).await.unwrap()
}

/// Returns a client of a node, the node with its socket, and its directory, in order of drop.
async fn up() -> (Client, Daemon, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(open(dir.path()).await, NetConfig::default()).unwrap();
    let client = connect(daemon.socket()).await.unwrap();
    (client, daemon, dir)
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: bytes(key),
        value: bytes(value),
        ..PutRequest::default()
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn op(key: &str, value: &str) -> Op {
    Op {
        key: bytes(key),
        value: bytes(value),
        ..Op::default()
    }
}

/// Returns the error that a call must have, as the command line gets it.
fn refused<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) -> ApiError {
    ApiError::from(answer.unwrap_err())
}

async fn value(client: &mut Client, key: &str) -> Option<Bytes> {
    let request = GetRequest {
        key: bytes(key),
        ..GetRequest::default()
    };
    client
        .get(request)
        .await
        .unwrap()
        .into_inner()
        .item
        .map(|item| item.value)
}

async fn listed(client: &mut Client, prefix: &str) -> Vec<Bytes> {
    let request = ListRequest {
        prefix: bytes(prefix),
        ..ListRequest::default()
    };
    let mut pages = client.list(request).await.unwrap().into_inner();
    let mut keys = Vec::new();
    while let Some(page) = pages.message().await.unwrap() {
        keys.extend(page.items.into_iter().map(|item| item.key));
    }
    keys
}

async fn watch(client: &mut Client, prefix: &str, start: Start) -> Streaming<WatchReply> {
    let request = WatchRequest {
        prefix: bytes(prefix),
        start: Some(start),
        ..WatchRequest::default()
    };
    client.watch(request).await.unwrap().into_inner()
}

async fn event(events: &mut Streaming<WatchReply>) -> WatchReply {
    let reply = timeout(Duration::from_secs(10), events.message()).await;
    reply
        .expect("an event within 10 s")
        .unwrap()
        .expect("the watch goes on")
}

async fn change(events: &mut Streaming<WatchReply>) -> api::Change {
    loop {
        if let Some(Event::Change(change)) = event(events).await.event {
            return change;
        }
    }
}

async fn caught_up(events: &mut Streaming<WatchReply>) -> String {
    loop {
        let reply = event(events).await;
        if matches!(reply.event, Some(Event::CaughtUp(_))) {
            return reply.cursor;
        }
    }
}

async fn watchers(client: &mut Client) -> u64 {
    let status = whole::status(client).await.unwrap();
    status.stores.iter().map(|store| store.watchers).sum()
}

async fn watchers_become(client: &mut Client, expected: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let found = watchers(client).await;
        if found == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{found} watchers instead of {expected} after 10 s"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn put_get_list_delete_round_trip() {
    let (mut client, daemon, _dir) = up().await;
    let written = client.put(put("/t/a", "1")).await.unwrap().into_inner();
    assert_eq!(written.entry.len(), 32);
    assert_eq!(written.author.as_ref(), daemon.node().id().0.as_slice());
    client.put(put("/t/b", "2")).await.unwrap();
    assert_eq!(value(&mut client, "/t/a").await, Some(bytes("1")));
    assert_eq!(listed(&mut client, "/t/").await, ["/t/a", "/t/b"]);
    assert_eq!(listed(&mut client, "/t/a").await, ["/t/a"]);
    let request = DeleteRequest {
        key: bytes("/t/a"),
        ..DeleteRequest::default()
    };
    client.delete(request).await.unwrap();
    assert_eq!(value(&mut client, "/t/a").await, None);
    assert!(listed(&mut client, "/t/a").await.is_empty());
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_list_comes_in_several_messages() {
    let (mut client, daemon, _dir) = up().await;
    let long = "v".repeat(VALUE_BYTES_MAX);
    for i in 0..6 {
        client.put(put(&format!("/long/{i}"), &long)).await.unwrap();
    }
    let request = ListRequest {
        prefix: bytes("/long/"),
        ..ListRequest::default()
    };
    let mut pages = client.list(request).await.unwrap().into_inner();
    let (mut messages, mut items) = (0, 0);
    while let Some(page) = pages.message().await.unwrap() {
        messages += 1;
        items += page.items.len();
        assert!(page.items.iter().all(|item| item.value == long.as_bytes()));
    }
    assert_eq!(items, 6);
    assert!(messages >= 3, "{messages} messages");
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_history_and_log_name_the_author() {
    let (mut client, daemon, _dir) = up().await;
    let first = client.put(put("/k", "1")).await.unwrap().into_inner();
    let second = client.put(put("/k", "2")).await.unwrap().into_inner();
    let request = HeadsRequest {
        key: bytes("/k"),
        ..HeadsRequest::default()
    };
    let mut parts = client.heads(request).await.unwrap().into_inner();
    let heads = parts.message().await.unwrap().unwrap().heads;
    assert_eq!(heads.len(), 1);
    assert_eq!((heads[0].wins, heads[0].kind.as_str()), (true, "put"));
    assert_eq!(heads[0].entry.as_ref().unwrap().id, second.entry);

    let request = HistoryRequest {
        key: bytes("/k"),
        ..HistoryRequest::default()
    };
    let mut parts = client.history(request).await.unwrap().into_inner();
    let history = parts.message().await.unwrap().unwrap();
    assert!(!history.truncated);
    let values: Vec<_> = history
        .entries
        .iter()
        .map(|entry| entry.value.clone())
        .collect();
    assert_eq!(values, ["2", "1"]);
    assert_eq!(
        history.entries[0].parents,
        std::slice::from_ref(&first.entry)
    );

    let request = LogRequest {
        after: first.seq - 1,
        limit: 2,
        ..LogRequest::default()
    };
    let log = client.log(request).await.unwrap().into_inner();
    let log: Vec<_> = log.map(Result::unwrap).collect().await;
    let ids: Vec<_> = log
        .iter()
        .map(|entry| entry.entry.as_ref().unwrap().id.clone())
        .collect();
    assert_eq!(ids, [first.entry, second.entry]);
    assert_eq!(log[1].ops[0].value, "2");
    daemon.stop().await.unwrap();
}

/// Five values of 1 MiB were one answer of 5 MiB, more than a client takes by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_longer_than_clients_take() {
    let (mut client, daemon, _dir) = up().await;
    let long = vec![b'x'; VALUE_BYTES_MAX];
    for _ in 0..5 {
        let request = PutRequest {
            value: long.clone().into(),
            ..put("/k", "")
        };
        client.put(request).await.unwrap();
    }
    let mut client = client.max_decoding_message_size(4 << 20);
    let request = HistoryRequest {
        key: bytes("/k"),
        ..HistoryRequest::default()
    };
    let parts = client.history(request).await.unwrap().into_inner();
    let parts: Vec<_> = parts.map(Result::unwrap).collect().await;
    let entries: usize = parts.iter().map(|part| part.entries.len()).sum();
    assert_eq!(
        (entries, parts.iter().any(|part| part.truncated)),
        (5, false)
    );
    let log = client
        .log(LogRequest::default())
        .await
        .unwrap()
        .into_inner();
    let log: Vec<_> = log.map(Result::unwrap).collect().await;
    assert!(log.iter().all(|entry| entry.signed.is_empty()));
    let request = LogRequest {
        signed: true,
        newest: true,
        limit: 1,
        ..LogRequest::default()
    };
    let mut newest = client.log(request).await.unwrap().into_inner();
    let newest = newest.message().await.unwrap().unwrap();
    assert_eq!(
        newest.entry.unwrap().id,
        log.last().unwrap().entry.as_ref().unwrap().id
    );
    assert!(newest.signed.len() > VALUE_BYTES_MAX && newest.ops.is_empty());
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_is_one_entry_in_a_watch() {
    let (mut client, daemon, _dir) = up().await;
    let mut events = watch(&mut client, "/b/", Start::Now(true)).await;
    caught_up(&mut events).await;
    let ops = vec![op("/b/1", "1"), op("/b/2", "2")];
    let written = client
        .batch(BatchRequest {
            ops,
            ..BatchRequest::default()
        })
        .await
        .unwrap();
    for i in 0..2 {
        let change = change(&mut events).await;
        assert_eq!(
            (change.op_index, change.op_count, change.atomic),
            (i, 2, true)
        );
        assert_eq!(change.entry.unwrap().id, written.get_ref().entry);
        assert_eq!(
            (change.kind.as_str(), change.origin.as_str()),
            ("put", "local")
        );
    }
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_resumes_from_its_cursor() {
    let (mut client, daemon, _dir) = up().await;
    client.put(put("/w/1", "before")).await.unwrap();
    let mut events = watch(&mut client, "/w/", Start::Initial(true)).await;
    assert_eq!(change(&mut events).await.key, "/w/1");
    let cursor = caught_up(&mut events).await;
    drop(events);
    client.put(put("/w/2", "while away")).await.unwrap();
    let mut events = watch(&mut client, "/w/", Start::After(cursor)).await;
    assert_eq!(change(&mut events).await.key, "/w/2");
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_carry_cursors_on_request() {
    let (mut client, daemon, _dir) = up().await;
    client.put(put("/c", "1")).await.unwrap();
    for cursors in [false, true] {
        let request = WatchRequest {
            prefix: bytes("/c"),
            cursors,
            ..WatchRequest::default()
        };
        let mut events = client.watch(request).await.unwrap().into_inner();
        let reply = event(&mut events).await;
        assert!(matches!(reply.event, Some(Event::Change(_))));
        assert_eq!(!reply.cursor.is_empty(), cursors);
        assert!(!caught_up(&mut events).await.is_empty());
    }
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streamed_puts_are_answered_in_order() {
    let (mut client, daemon, _dir) = up().await;
    let (requests, stream) = tokio::sync::mpsc::channel(16);
    let mut replies = client
        .put_stream(ReceiverStream::new(stream))
        .await
        .unwrap()
        .into_inner();
    let sender = tokio::spawn(async move {
        for i in 0..1000 {
            let key = if i == 500 {
                String::new()
            } else {
                format!("/s/{}", i % 10)
            };
            let ops = vec![op(&key, &i.to_string()), op("/other", "x")];
            requests
                .send(PutStreamRequest {
                    ops,
                    ..PutStreamRequest::default()
                })
                .await
                .unwrap();
        }
    });
    let mut last = (0, 0);
    for i in 0..1000 {
        let reply = replies
            .message()
            .await
            .unwrap()
            .expect("an answer for each request");
        assert_eq!(reply.results.len(), 2);
        for (place, result) in reply.results.into_iter().enumerate() {
            if (i, place) == (500, 0) {
                let error = ApiError::from_wire(result.failed.unwrap());
                assert_eq!((error.code.as_str(), error.exit_code), ("key_empty", 2));
                assert!(
                    error.message.contains(&KEY_BYTES_MAX.to_string()),
                    "{error}"
                );
                continue;
            }
            let written = result.written.unwrap();
            let position = (written.seq, written.op_index);
            assert!(position > last, "{position:?} after {last:?}");
            last = position;
        }
    }
    assert!(replies.message().await.unwrap().is_none());
    sender.await.unwrap();
    for i in 0..10 {
        assert_eq!(
            value(&mut client, &format!("/s/{i}")).await,
            Some(bytes(&(990 + i).to_string()))
        );
    }
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streamed_put_to_an_unknown_store_is_refused() {
    let (mut client, daemon, _dir) = up().await;
    let request = PutStreamRequest {
        store: "nowhere".into(),
        ops: vec![op("/k", "v")],
    };
    let mut replies = client
        .put_stream(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let error = refused(replies.message().await);
    assert_eq!((error.code.as_str(), error.exit_code), ("unknown_store", 3));
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_carry_codes_and_numbers() {
    let (mut client, daemon, _dir) = up().await;
    let check = |error: ApiError, code: &str, exit_code: u8, part: &str| {
        assert_eq!(
            (error.code.as_str(), error.exit_code),
            (code, exit_code),
            "{error:?}"
        );
        assert!(error.message.contains(part), "{error:?}");
    };
    let answer = client.put(put("", "v")).await;
    check(refused(answer), "key_empty", 2, &KEY_BYTES_MAX.to_string());
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    let answer = client.put(put(&long, "v")).await;
    check(refused(answer), "key_too_long", 2, &long.len().to_string());
    let long = "v".repeat(VALUE_BYTES_MAX + 1);
    let answer = client.put(put("/k", &long)).await;
    check(
        refused(answer),
        "value_too_long",
        2,
        &long.len().to_string(),
    );

    let ops = vec![op("/twice", "1"), op("/twice", "2")];
    let answer = client
        .batch(BatchRequest {
            ops,
            ..BatchRequest::default()
        })
        .await;
    check(refused(answer), "key_twice", 2, "/twice");

    client.put(put("/k", "v")).await.unwrap();
    let answer = client
        .put(PutRequest {
            if_absent: true,
            ..put("/k", "w")
        })
        .await;
    check(refused(answer), "precondition_failed", 4, "");
    let answer = client
        .put(PutRequest {
            if_head: vec![1; 32].into(),
            ..put("/k", "w")
        })
        .await;
    check(refused(answer), "precondition_failed", 4, "");
    let answer = client
        .put(PutRequest {
            if_head: vec![1; 31].into(),
            ..put("/k", "w")
        })
        .await;
    check(refused(answer), "wrong_length", 2, "31");
    assert_eq!(value(&mut client, "/k").await, Some(bytes("v")));

    let request = GetRequest {
        store: "nowhere".into(),
        key: bytes("/k"),
        at_ms: None,
    };
    check(
        refused(client.get(request).await),
        "unknown_store",
        3,
        "nowhere",
    );
    let request = WatchRequest {
        start: Some(Start::After("junk".into())),
        ..Default::default()
    };
    check(
        refused(client.watch(request).await),
        "bad_cursor",
        2,
        "cursor",
    );
    let request = WatchRequest {
        kinds: vec!["poke".into()],
        ..Default::default()
    };
    check(refused(client.watch(request).await), "bad_kind", 2, "poke");
    let request = WatchRequest {
        author: vec![1; 5].into(),
        ..Default::default()
    };
    check(refused(client.watch(request).await), "wrong_length", 2, "5");
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursor_of_another_store_is_refused() {
    let (mut client, daemon, _dir) = up().await;
    let request = api::CreateStoreRequest {
        name: "other".into(),
    };
    let other = client.create_store(request).await.unwrap().into_inner();
    let stores = whole::stores(&mut client).await.unwrap();
    assert_eq!(stores.iter().filter(|store| store.root).count(), 1);
    assert!(stores.contains(&other));
    let request = WatchRequest {
        store: "other".into(),
        ..WatchRequest::default()
    };
    let mut events = client.watch(request).await.unwrap().into_inner();
    let cursor = caught_up(&mut events).await;
    let mut events = watch(&mut client, "", Start::After(cursor)).await;
    let error = refused(events.message().await);
    assert_eq!(
        (error.code.as_str(), error.exit_code),
        ("foreign_cursor", 2)
    );
    let request = api::CreateStoreRequest {
        name: "other".into(),
    };
    assert_eq!(
        refused(client.create_store(request).await).code,
        "store_exists"
    );
    daemon.stop().await.unwrap();
}

async fn created(client: &mut Client, name: &str) {
    let request = api::CreateConsumerRequest {
        consumer: name.to_owned(),
        prefixes: vec![bytes("/c/")],
        ack_wait_ms: 3_600_000,
        ..api::CreateConsumerRequest::default()
    };
    client.create_consumer(request).await.unwrap();
}

async fn consume(client: &mut Client, name: &str, prefetch: u32) -> Streaming<api::Delivery> {
    let request = api::ConsumeRequest {
        consumer: name.to_owned(),
        prefetch,
        ..api::ConsumeRequest::default()
    };
    client.consume(request).await.unwrap().into_inner()
}

async fn delivery(deliveries: &mut Streaming<api::Delivery>) -> (Bytes, u32, String) {
    let next = timeout(Duration::from_secs(10), deliveries.message()).await;
    let next = next.expect("a change within 10 s").unwrap();
    let api::Delivery {
        id,
        attempt,
        change,
    } = next.expect("the stream goes on");
    (change.unwrap().key, attempt, id)
}

fn answer(name: &str, ids: &[&str]) -> api::AnswerRequest {
    api::AnswerRequest {
        consumer: name.to_owned(),
        deliveries: ids.iter().map(ToString::to_string).collect(),
        ..api::AnswerRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_stream_returns_its_changes() {
    let (mut client, daemon, _dir) = up().await;
    created(&mut client, "c").await;
    for key in ["/c/1", "/c/2", "/c/3"] {
        client.put(put(key, "v")).await.unwrap();
    }
    let mut other = connect(daemon.socket()).await.unwrap();
    let mut broken = consume(&mut other, "c", 2).await;
    let first = delivery(&mut broken).await;
    assert_eq!((&first.0[..], first.1), (&b"/c/1"[..], 1));
    let second = delivery(&mut broken).await;
    assert_eq!((&second.0[..], second.1), (&b"/c/2"[..], 1));
    let early = timeout(Duration::from_millis(200), broken.message()).await;
    assert!(early.is_err(), "two are not answered yet: {early:?}");
    // Answered from another connection, it makes room.
    client.ack(answer("c", &[&second.2])).await.unwrap();
    assert_eq!(delivery(&mut broken).await.0, "/c/3");
    drop((broken, other));
    let mut rest = consume(&mut client, "c", 5).await;
    let mut again = [delivery(&mut rest).await, delivery(&mut rest).await];
    again.sort();
    let seen: Vec<_> = again
        .iter()
        .map(|(key, attempt, _)| (key, *attempt))
        .collect();
    assert_eq!(seen, [(&bytes("/c/1"), 2), (&bytes("/c/3"), 2)]);
    let refused = refused(client.ack(answer("c", &[&first.2])).await);
    assert_eq!(
        (refused.code.as_str(), refused.exit_code),
        ("given_again", 4)
    );
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulled_changes_stay_with_the_caller() {
    let (mut client, daemon, _dir) = up().await;
    created(&mut client, "c").await;
    for key in ["/c/1", "/c/2", "/c/3"] {
        client.put(put(key, "v")).await.unwrap();
    }
    let request = api::NextRequest {
        consumer: "c".into(),
        count: 1,
        timeout_ms: 10_000,
        ..api::NextRequest::default()
    };
    let mut ids = Vec::new();
    for _ in 0..3 {
        let mut caller = connect(daemon.socket()).await.unwrap();
        let reply = caller.next(request.clone()).await.unwrap().into_inner();
        ids.extend(reply.deliveries.into_iter().map(|delivery| delivery.id));
    }
    assert_eq!(ids.len(), 3);
    let none = api::NextRequest {
        timeout_ms: 0,
        ..request
    };
    let none = client.next(none).await.unwrap().into_inner();
    assert_eq!(none.deliveries, []);
    let unknown = format!("{}.1", "0".repeat(32));
    let all = answer("c", &[&ids[0], &unknown, &ids[1]]);
    let error = refused(client.ack(all).await);
    assert_eq!(
        (error.code.as_str(), error.exit_code),
        ("not_outstanding", 4)
    );
    assert!(error.message.contains(&unknown), "{error}");
    let nack = api::NackRequest {
        consumer: "c".into(),
        deliveries: vec![ids[2].clone()],
        delay_ms: Some(3_600_000),
        durable: true,
        ..api::NackRequest::default()
    };
    client.nack(nack).await.unwrap();
    let name = api::ConsumerRequest {
        consumer: "c".into(),
        ..api::ConsumerRequest::default()
    };
    let status = client.show_consumer(name).await.unwrap().into_inner();
    let counts = (status.acked, status.outstanding, status.in_flight);
    assert_eq!(counts, (2, 1, 0));
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumer_calls_fail_with_a_reason() {
    let (mut client, daemon, _dir) = up().await;
    created(&mut client, "c").await;
    let nobody = refused(consume(&mut client, "nobody", 1).await.message().await);
    assert_eq!(
        (nobody.code.as_str(), nobody.exit_code),
        ("unknown_consumer", 3)
    );
    let bad = refused(client.ack(answer("c", &["7"])).await);
    assert_eq!((bad.code.as_str(), bad.exit_code), ("bad_delivery", 2));
    let no_start = api::ResetConsumerRequest {
        consumer: "c".into(),
        ..api::ResetConsumerRequest::default()
    };
    assert_eq!(
        refused(client.reset_consumer(no_start).await).code,
        "no_start"
    );
    for (all, numbers) in [(false, vec![]), (true, vec![7])] {
        let which = api::DeadRequest {
            consumer: "c".into(),
            numbers,
            all,
            ..api::DeadRequest::default()
        };
        assert_eq!(
            refused(client.skip_dead(which).await).code,
            "which_dead_letters"
        );
    }
    let mut foreign = api::CreateConsumerRequest {
        consumer: "d".into(),
        ..api::CreateConsumerRequest::default()
    };
    foreign.from = Some(api::ConsumerStart {
        start: Some(api::consumer_start::Start::After("AQ".into())),
    });
    assert_eq!(
        refused(client.create_consumer(foreign).await).code,
        "bad_cursor"
    );
    // A node that stops ends waiting calls in time.
    let mut waiting = consume(&mut client, "c", 1).await;
    let (stopped, ended) = tokio::join!(daemon.stop(), waiting.message());
    stopped.unwrap();
    assert_eq!(refused(ended).code, "stopping");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_and_verify_describe_the_node() {
    let (mut client, daemon, dir) = up().await;
    client.put(put("/k", "v")).await.unwrap();
    let status = whole::status(&mut client).await.unwrap();
    assert_eq!(status.node.as_ref(), daemon.node().id().0.as_slice());
    assert_eq!(Path::new(&status.data_dir), dir.path());
    assert_eq!(Path::new(&status.socket), daemon.socket());
    assert_eq!(status.pid, std::process::id());
    assert!(status.stores[0].entries > 0);
    let request = VerifyRequest {
        all: true,
        ..VerifyRequest::default()
    };
    let stores = whole::verified(&mut client, request).await.unwrap();
    assert_eq!(stores.len(), status.stores.len());
    assert!(stores[0].damage.is_empty());
    assert!(stores[0].entries > 0 && stores[0].rows > 0);
    daemon.stop().await.unwrap();
}

/// The list was one message: with many prefixes, one that no client took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_list_of_consumers_comes_in_parts() {
    let (mut client, daemon, _dir) = up().await;
    let prefix = |number: usize| Bytes::from(format!("{number:0>KEY_BYTES_MAX$}"));
    for number in 0..20 {
        let request = api::CreateConsumerRequest {
            consumer: format!("c{number:02}"),
            prefixes: (0..64).map(prefix).collect(),
            ..api::CreateConsumerRequest::default()
        };
        client.create_consumer(request).await.unwrap();
    }
    let request = api::ListConsumersRequest::default();
    let mut parts = client.list_consumers(request).await.unwrap().into_inner();
    let (mut messages, mut names) = (0, Vec::new());
    while let Some(part) = parts.message().await.unwrap() {
        messages += 1;
        assert!(part.encoded_len() < 2 << 20, "{}", part.encoded_len());
        names.extend(part.consumers.into_iter().map(|it| it.consumer));
    }
    assert!(messages > 4, "{messages}");
    assert!(names.is_sorted() && names.len() == 20, "{names:?}");
    let all = whole::consumers(&mut client, String::new()).await.unwrap();
    assert_eq!(all.len(), 20);
    daemon.stop().await.unwrap();
}

/// A receipt is longer than a small write, so the answer to a large request was one that no client took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_streamed_puts_fit_into_a_message() {
    let (mut client, daemon, _dir) = up().await;
    let requests = |ops: Vec<Op>| {
        let request = PutStreamRequest {
            store: String::new(),
            ops,
        };
        tokio_stream::iter([request])
    };
    let op = |number: usize| Op {
        key: bytes(&format!("/{number}")),
        ..Op::default()
    };
    let too_many = requests((0..8193).map(op).collect());
    let mut replies = client.put_stream(too_many).await.unwrap().into_inner();
    assert_eq!(refused(replies.message().await).code, "too_many_ops");
    let most = requests((0..8192).map(op).collect());
    let mut replies = client.put_stream(most).await.unwrap().into_inner();
    let reply = replies.message().await.unwrap().unwrap();
    assert_eq!(reply.results.len(), 8192);
    assert!(reply.results.iter().all(|it| it.written.is_some()));
    // Each refusal names its key, which is longer as text.
    let reserved = |number: usize| Op {
        key: [b"/nodes/", &vec![0xff; 4000][..], &number.to_be_bytes()]
            .concat()
            .into(),
        ..Op::default()
    };
    let refused = requests((0..1000).map(reserved).collect());
    let mut replies = client.put_stream(refused).await.unwrap().into_inner();
    let results = replies.message().await.unwrap().unwrap().results;
    let failed: Vec<_> = results.into_iter().map(|it| it.failed.unwrap()).collect();
    assert!(failed[0].message.contains("/nodes/"));
    assert!(failed[999].message.is_empty());
    assert!(
        failed
            .iter()
            .all(|it| it.error.as_ref().unwrap().code == "reserved_key")
    );
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_in_process_needs_no_socket() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path()).await;
    let mut client = in_process(node.clone());
    client.put(put("/k", "v")).await.unwrap();
    assert_eq!(value(&mut client, "/k").await, Some(bytes("v")));
    let events = watch(&mut client, "/", Start::Now(true)).await;
    watchers_become(&mut client, 1).await;
    drop(events);
    watchers_become(&mut client, 0).await;
    assert_eq!(whole::status(&mut client).await.unwrap().socket, "");
    assert!(!socket::path(dir.path()).exists());
    node.close().await.unwrap();
    assert_eq!(refused(client.put(put("/k", "w")).await).exit_code, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l1_directory_and_socket_are_private() {
    let (_client, daemon, dir) = up().await;
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&dir.path().join("run")), 0o700);
    assert_eq!(mode(daemon.socket()) & 0o077, 0);
    daemon.stop().await.unwrap();
}

/// Without the check of the peer, whoever can reach the path could write as the node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l1_another_user_is_refused_on_an_open_path() {
    let (mut client, daemon, dir) = up().await;
    let path = daemon.socket().to_owned();
    let as_nobody = |path: std::path::PathBuf| {
        std::thread::spawn(move || {
            // This changes the user of this thread only; the rest of the process stays root.
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).ok()?;
            Some(UnixStream::connect(path).and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                stream.read(&mut [0; 64])
            }))
        })
        .join()
        .unwrap()
    };
    let Some(private) = as_nobody(path.clone()) else {
        eprintln!("skipped: only root can become another user");
        return daemon.stop().await.unwrap();
    };
    assert_eq!(
        private.unwrap_err().kind(),
        std::io::ErrorKind::PermissionDenied
    );
    for open in [dir.path(), &dir.path().join("run"), &path] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o777)).unwrap();
    }
    // Closed without a byte: a server that takes a connection speaks first.
    let greeted = as_nobody(path).unwrap();
    assert!(matches!(greeted, Ok(0)) || greeted.is_err(), "{greeted:?}");
    client.put(put("/k", "the owner goes on")).await.unwrap();
    daemon.stop().await.unwrap();
}

/// Which processes a group lets in. The user `games` is one that every Linux has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l16_members_of_the_group_may_use_the_socket_and_no_others() {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let games = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("games:")?.split(':').skip(1);
        let uid: u32 = fields.next()?.parse().ok()?;
        Some((uid, fields.next()?.parse::<u32>().ok()?))
    });
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.toml"), "socket_group = 'games'\n").unwrap();
    let access = SocketAccess::of(&FileConfig::read(dir.path()).unwrap());
    let (Some((user, group)), Ok(access), true) =
        (games, access, rustix::process::geteuid().is_root())
    else {
        eprintln!("skipped: it needs root, and a user and a group named games");
        return;
    };
    let node = open(dir.path()).await;
    let daemon = Daemon::start_with(node, NetConfig::default(), &access).unwrap();
    let path = daemon.socket().to_owned();
    // The number of bytes that the node sends first; `None`: the path is closed to the process.
    let greeted = |uid: u32, gid: u32, groups: &'static [u32]| {
        let path = path.clone();
        let thread = std::thread::spawn(move || {
            use rustix::{
                process::{Gid, Uid},
                thread as own,
            };
            // These change the ids of this thread only.
            let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
            own::set_thread_groups(&groups).unwrap();
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            own::set_thread_res_gid(gid, gid, gid).unwrap();
            own::set_thread_res_uid(uid, uid, uid).unwrap();
            let mut stream = UnixStream::connect(path).ok()?;
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            Some(stream.read(&mut [0; 64]).unwrap_or(0))
        });
        thread.join().unwrap()
    };
    let (nobody, with_games): (u32, &'static [u32]) = (65534, vec![group].leak());
    assert!(
        greeted(user, nobody, with_games) > Some(0),
        "a member by the list of groups"
    );
    assert!(
        greeted(nobody, group, &[]) > Some(0),
        "a process that runs with the group"
    );
    assert_eq!(
        greeted(nobody, nobody, &[]),
        None,
        "the path is closed to others"
    );
    // It has the group since its login, and is no member now.
    assert_eq!(greeted(nobody, nobody, with_games), Some(0));
    let secret = fs::metadata(dir.path().join("identity.key")).unwrap();
    assert_eq!(secret.mode() & 0o077, 0);
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn socket_of_a_killed_node_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = socket::path(dir.path());
    let node = open(dir.path()).await;
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // A listener that is dropped leaves its file, as a killed process does.
    drop(UnixListener::bind(&path).unwrap());
    assert!(matches!(
        connect(&path).await,
        Err(ConnectError::Refused { .. })
    ));
    let daemon = Daemon::start(node, NetConfig::default()).unwrap();
    let mut client = connect(&path).await.unwrap();
    client.put(put("/k", "v")).await.unwrap();
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l3_link_in_place_of_the_socket_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = socket::path(dir.path());
    let node = open(dir.path()).await;
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let target = dir.path().join("target");
    fs::write(&target, "kept").unwrap();
    symlink(&target, &path).unwrap();
    let error = Daemon::start(node.clone(), NetConfig::default()).unwrap_err();
    assert!(
        matches!(error, DaemonError::Socket(SocketError::NotASocket { .. })),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&target).unwrap(), "kept");
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    node.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_long_socket_path_gives_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(SOCKET_PATH_BYTES_MAX));
    let node = open(&deep).await;
    let error = ApiError::from(Daemon::start(node.clone(), NetConfig::default()).unwrap_err());
    assert_eq!(
        (error.code.as_str(), error.exit_code),
        ("socket_path_too_long", 2)
    );
    let bytes = socket::path(&deep).as_os_str().len();
    assert!(error.message.contains(&bytes.to_string()), "{error}");
    assert!(error.hint.contains("--data-dir"), "{error:?}");
    // The node is as good as before, without a socket.
    node.root().put("/k", "v").await.unwrap();
    node.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_socket_is_a_typed_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = connect(&socket::path(dir.path())).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoSocket { .. }), "{error}");
    let error = ApiError::from(error);
    assert_eq!((error.code.as_str(), error.exit_code), ("no_node", 5));
    assert!(error.hint.contains("lattice up"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_lists_the_service() {
    // Libraries of some languages still ask under the former name.
    macro_rules! services {
        ($version:ident, $channel:expr) => {{
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
            };
            let request = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let mut answers = ServerReflectionClient::new($channel)
                .server_reflection_info(tokio_stream::once(request))
                .await
                .unwrap()
                .into_inner();
            let answer = answers.message().await.unwrap().unwrap().message_response;
            let Some(MessageResponse::ListServicesResponse(services)) = answer else {
                panic!("no list: {answer:?}");
            };
            let names = services.service.into_iter().map(|service| service.name);
            names.collect::<Vec<_>>()
        }};
    }
    let (_client, daemon, _dir) = up().await;
    let path = daemon.socket().to_owned();
    let connector = tower::service_fn(move |_uri| {
        let stream = tokio::net::UnixStream::connect(path.clone());
        async { stream.await.map(hyper_util::rt::TokioIo::new) }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://lattice.local");
    let channel = endpoint.connect_with_connector(connector).await.unwrap();
    for names in [services!(v1, channel.clone()), services!(v1alpha, channel)] {
        assert!(
            names.contains(&"lattice.api.v1.Lattice".to_owned()),
            "{names:?}"
        );
    }
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn down_is_answered_before_the_node_stops() {
    let (mut client, daemon, dir) = up().await;
    let requested = daemon.shutdown_requested();
    let stopper = tokio::spawn(async move {
        requested.await;
        daemon.stop().await
    });
    client.put(put("/k", "v")).await.unwrap();
    let pid = client.down(DownRequest {}).await.unwrap().into_inner().pid;
    assert_eq!(pid, std::process::id());
    timeout(Duration::from_secs(10), stopper)
        .await
        .expect("stopped")
        .unwrap()
        .unwrap();
    assert!(!socket::path(dir.path()).exists());
    let error = refused(client.put(put("/k", "w")).await);
    assert_eq!(
        (error.code.as_str(), error.exit_code),
        ("unavailable", 5),
        "{error:?}"
    );
    // The lock is free and nothing acknowledged is lost.
    let node = open(dir.path()).await;
    assert_eq!(node.data().get(b"/k").await.unwrap().unwrap().value, "v");
    node.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_does_not_wait_for_silent_clients() {
    let (mut client, daemon, dir) = up().await;
    let mut events = watch(&mut client, "/", Start::Initial(true)).await;
    caught_up(&mut events).await;
    let silent = UnixStream::connect(daemon.socket()).unwrap();
    let (requests, stream) = tokio::sync::mpsc::channel(1);
    let mut replies = client
        .put_stream(ReceiverStream::new(stream))
        .await
        .unwrap()
        .into_inner();
    let ops = vec![op("/k", "v")];
    requests
        .send(PutStreamRequest {
            ops,
            ..PutStreamRequest::default()
        })
        .await
        .unwrap();
    assert!(
        replies.message().await.unwrap().unwrap().results[0]
            .written
            .is_some()
    );
    let stopping = tokio::spawn(daemon.stop());
    let error = timeout(Duration::from_secs(10), replies.message())
        .await
        .expect("an end");
    assert_eq!(refused(error).code, "stopping");
    let error = loop {
        match timeout(Duration::from_secs(10), events.message())
            .await
            .expect("an end")
        {
            Ok(Some(_event)) => {}
            Ok(None) => panic!("the watch ended without a word"),
            Err(status) => break ApiError::from(status),
        }
    };
    assert_eq!((error.code.as_str(), error.exit_code), ("stopping", 5));
    timeout(Duration::from_secs(10), stopping)
        .await
        .expect("stopped")
        .unwrap()
        .unwrap();
    assert!(!socket::path(dir.path()).exists());
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_of_a_disconnected_client_ends() {
    let (mut client, daemon, _dir) = up().await;
    let mut kept = watch(&mut client, "/", Start::Now(true)).await;
    let dropped = watch(&mut client, "/", Start::Now(true)).await;
    let mut other = connect(daemon.socket()).await.unwrap();
    let cut = watch(&mut other, "/", Start::Now(true)).await;
    watchers_become(&mut client, 3).await;
    drop(dropped);
    watchers_become(&mut client, 2).await;
    drop((cut, other));
    watchers_become(&mut client, 1).await;
    client.put(put("/k", "v")).await.unwrap();
    assert_eq!(change(&mut kept).await.key, "/k");
    daemon.stop().await.unwrap();
}

/// A second daemon must never take the socket away from the first, and a late one that stops
/// must not remove its successor's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_socket_is_never_removed() {
    let (mut client, daemon, _dir) = up().await;
    let error = Daemon::start(daemon.node().clone(), NetConfig::default()).unwrap_err();
    assert!(
        matches!(error, DaemonError::Socket(SocketError::InUse { .. })),
        "{error}"
    );
    client.put(put("/k", "v")).await.unwrap();
    assert!(daemon.socket().exists());
    daemon.stop().await.unwrap();
}
