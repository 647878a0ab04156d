//! What a watch guarantees, over histories recorded from real daemons: three of a mesh write, are
//! killed, stopped and started again, while readers wander between them with a cursor in hand.
//!
//! Each reader's record, over all the nodes it was at, is then held against the logs: causal, per
//! author in sequence, unique, complete, atomic, bookmarked; and whatever was acknowledged is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lattice::{
    api::client::{Client, connect},
    id::{Author, StoreId},
    protocol::{cursor::Cursor, frontier::Frontier},
    wire::api::{
        self, BatchRequest, DeleteRequest, ListStoresRequest, LogEntry, LogRequest, PutRequest,
        StatusRequest, WatchRequest, watch_reply::Event, watch_request::Start,
    },
};
use rustix::process::Signal;
use tokio::{task::JoinSet, time::timeout};

use super::harness::{Home, PATIENCE};
use crate::random::Random;

const PREFIX: &str = "/h/";
const NODES: usize = 3;
const READERS: usize = 4;

type Id = Vec<u8>;

/// What a reader was told, in order, over all nodes it was at.
#[derive(Debug, Default)]
struct Record {
    told: Vec<api::Change>,
    // After how many of them it was at this position.
    marks: Vec<(usize, Cursor)>,
    // Told of a batch that is not whole: no position yet.
    open: Vec<api::Change>,
    cursor: String,
    moves: usize,
    broken_off: usize,
}

#[derive(Debug, Default)]
struct Counts {
    told: usize,
    kills: usize,
    moves: usize,
    batches: usize,
    broken_off: usize,
}

#[test]
fn whoever_wanders_between_nodes_that_die_is_told_everything_once_and_in_order() {
    let histories = if std::env::var_os("LATTICE_SOAK").is_some() {
        200
    } else {
        10
    };
    let first: u64 = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut all = Counts::default();
    for seed in first..first + histories {
        eprintln!("SEED={seed}");
        runtime.block_on(history(&mut Random::new(seed), &mut all));
    }
    eprintln!("{all:?}");
    assert!(all.told > 2_000, "{all:?}");
    assert!(all.kills >= 10 && all.batches > 50, "{all:?}");
    assert!(all.moves > 50 && all.broken_off > 5, "{all:?}");
}

async fn history(random: &mut Random, counts: &mut Counts) {
    let homes: Vec<_> = (0..NODES).map(|_| Home::new()).collect();
    // Each node keeps its port: where all three are killed, nobody could say where the others are.
    let ports: Vec<_> = (0..NODES).map(|_| free_port()).collect();
    let start = |node: usize| {
        let mut running = homes[node].start(&["up", "--bind", &ports[node]]);
        running.line_with("stop ");
        running
    };
    let mut nodes = vec![start(0)];
    for (node, (host, home)) in (1..).zip(homes.iter().zip(&homes[1..])) {
        let invite = ["invite", "--role", "admin"];
        let token = host.run(&invite).raw.trim().to_owned();
        home.run(&["join", &token]).ok();
        nodes.push(start(node));
    }
    let sockets: Arc<[PathBuf]> = homes
        .iter()
        .map(|home| home.data().join("run/sock"))
        .collect();
    let store = root(&sockets[0]).await;
    let over = Arc::new(AtomicBool::new(false));
    let (mut writers, mut readers) = (JoinSet::new(), JoinSet::new());
    for node in 0..NODES {
        writers.spawn(write(
            node,
            Arc::clone(&sockets),
            Arc::clone(&over),
            random.split(),
        ));
    }
    for _reader in 0..READERS {
        readers.spawn(read(
            store,
            Arc::clone(&sockets),
            Arc::clone(&over),
            random.split(),
        ));
    }
    // What happens meanwhile.
    for _time in 0..6 {
        tokio::time::sleep(Duration::from_millis(100 + random.below(150) as u64)).await;
        let victim = random.below(NODES);
        let mut node = nodes.swap_remove(victim);
        if random.once_in(2) {
            node.signal(Signal::KILL);
            drop(node);
            node = start(victim);
            counts.kills += 1;
        } else {
            node.signal(Signal::STOP);
            tokio::time::sleep(Duration::from_millis(random.below(200) as u64)).await;
            node.signal(Signal::CONT);
        }
        nodes.push(node);
        nodes.swap(victim, NODES - 1);
    }
    over.store(true, Ordering::Release);
    let acknowledged = writers.join_all().await.concat();
    let records = readers.join_all().await;
    let truth = agreed(&sockets).await;
    for id in &acknowledged {
        assert!(truth.contains_key(id), "acknowledged and lost: {id:02x?}");
    }
    for mut record in records {
        // What is left, at whatever node.
        let at = random.below(NODES);
        let rest = follow(&mut record, store, &sockets[at], usize::MAX, Duration::ZERO);
        timeout(PATIENCE, rest).await.expect("the rest is told");
        assert!(record.open.is_empty(), "a batch is not whole");
        check(&record, &truth);
        counts.told += record.told.len();
        counts.moves += record.moves;
        counts.broken_off += record.broken_off;
    }
    let batches = truth.values().filter(|entry| entry.atomic);
    counts.batches += batches.count();
    drop(nodes);
}

fn free_port() -> String {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().to_string()
}

async fn client(socket: &Path) -> Client {
    let began = Instant::now();
    loop {
        match connect(socket).await {
            Ok(client) => return client,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn root(socket: &Path) -> StoreId {
    let stores = client(socket).await.list_stores(ListStoresRequest {}).await;
    let stores = stores.unwrap().into_inner().stores;
    let root = stores.iter().find(|store| store.root).unwrap();
    StoreId(root.id.as_ref().try_into().unwrap())
}

/// Writes at one node until it is over. Returns the entries that were acknowledged.
async fn write(
    node: usize,
    sockets: Arc<[PathBuf]>,
    over: Arc<AtomicBool>,
    mut random: Random,
) -> Vec<Id> {
    let mut acknowledged = Vec::new();
    let mut client = client(&sockets[node]).await;
    while !over.load(Ordering::Acquire) {
        let key = |random: &mut Random| format!("{PREFIX}{}", random.below(12));
        let value = format!("{node} {}", random.bits());
        let written = match random.below(6) {
            0 => {
                let first = random.below(10);
                let op = |key: usize| api::Op {
                    key: format!("{PREFIX}{key}").into(),
                    value: value.clone().into(),
                    ..api::Op::default()
                };
                let ops = (first..first + 3).map(op).collect();
                let store = String::new();
                client.batch(BatchRequest { store, ops }).await
            }
            1 => {
                let key = key(&mut random).into();
                let request = DeleteRequest {
                    key,
                    ..DeleteRequest::default()
                };
                client.delete(request).await
            }
            _put => {
                let (key, value) = (key(&mut random).into(), value.into());
                let request = PutRequest {
                    key,
                    value,
                    ..PutRequest::default()
                };
                client.put(request).await
            }
        };
        match written {
            Ok(written) => acknowledged.push(written.into_inner().entry.to_vec()),
            // It was killed, and comes back.
            Err(_gone) => client = self::client(&sockets[node]).await,
        }
        tokio::time::sleep(Duration::from_millis(random.below(12) as u64)).await;
    }
    acknowledged
}

/// Reads here for a while, then there, until it is over.
async fn read(
    store: StoreId,
    sockets: Arc<[PathBuf]>,
    over: Arc<AtomicBool>,
    mut random: Random,
) -> Record {
    let mut record = Record::default();
    while !over.load(Ordering::Acquire) {
        let at = &sockets[random.below(NODES)];
        let changes = 1 + random.below(60);
        let patience = Duration::from_millis(50 + random.below(300) as u64);
        follow(&mut record, store, at, changes, patience).await;
        record.moves += 1;
    }
    record
}

/// Goes on after the reader's cursor: for some changes, for some time, or, without a patience, until
/// it has caught up.
async fn follow(
    record: &mut Record,
    store: StoreId,
    at: &Path,
    changes: usize,
    patience: Duration,
) {
    // What it was told of a batch that was not whole is told again.
    record.open.clear();
    if record.cursor.is_empty() {
        let beginning = Cursor {
            store,
            frontier: Frontier::default(),
            partial: None,
            expired_through_ms: 0,
        };
        record.cursor = beginning.to_string();
    }
    let mut client = client(at).await;
    let request = WatchRequest {
        prefix: PREFIX.into(),
        start: Some(Start::After(record.cursor.clone())),
        cursors: true,
        wait: true,
        ..WatchRequest::default()
    };
    let Ok(events) = client.watch(request).await else {
        record.broken_off += 1;
        return;
    };
    let mut events = events.into_inner();
    let mut told = 0;
    while told < changes {
        let reply = if patience.is_zero() {
            events.message().await
        } else {
            match timeout(patience, events.message()).await {
                Ok(reply) => reply,
                Err(_elapsed) => return,
            }
        };
        // A node that dies is an error here, and never silence.
        let Ok(Some(reply)) = reply else {
            record.broken_off += 1;
            return;
        };
        match reply.event.unwrap() {
            Event::Change(change) => {
                told += 1;
                let whole = !change.atomic || change.op_index + 1 == change.op_count;
                record.open.push(change);
                if whole {
                    record.told.append(&mut record.open);
                }
            }
            Event::CaughtUp(_) if patience.is_zero() => return,
            Event::CaughtUp(_) | Event::Progress(_) => {}
            other => panic!("nothing is gone: {other:?}"),
        }
        if record.open.is_empty() && !reply.cursor.is_empty() {
            let cursor: Cursor = reply.cursor.parse().unwrap();
            record.cursor = reply.cursor;
            record.marks.push((record.told.len(), cursor));
        }
    }
}

/// Waits until all nodes have the same entries, and returns those under the prefix.
async fn agreed(sockets: &[PathBuf]) -> BTreeMap<Id, LogEntry> {
    let began = Instant::now();
    loop {
        let mut tips = BTreeSet::new();
        for socket in sockets {
            let status = client(socket).await.status(StatusRequest {}).await.unwrap();
            let status = status.into_inner().stores.into_iter();
            let root = status.filter(|store| store.info.as_ref().is_some_and(|info| info.root));
            tips.insert(format!(
                "{:?}",
                root.map(|store| store.applied).collect::<Vec<_>>()
            ));
        }
        if tips.len() == 1 {
            break;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "the nodes do not agree: {tips:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut logs = Vec::new();
    for socket in sockets {
        logs.push(log(socket).await);
    }
    assert!(
        logs.windows(2).all(|two| two[0].keys().eq(two[1].keys())),
        "the logs differ"
    );
    logs.swap_remove(0)
}

async fn log(socket: &Path) -> BTreeMap<Id, LogEntry> {
    let mut client = client(socket).await;
    let status = client.status(StatusRequest {}).await.unwrap().into_inner();
    let authors: BTreeSet<_> = status
        .stores
        .iter()
        .flat_map(|store| store.applied.iter().map(|tip| tip.author.clone()))
        .collect();
    let mut entries = BTreeMap::new();
    for author in authors {
        let request = LogRequest {
            author,
            ..LogRequest::default()
        };
        let mut log = client.log(request).await.unwrap().into_inner();
        while let Some(entry) = log.message().await.unwrap() {
            if entry
                .ops
                .iter()
                .any(|op| op.key.starts_with(PREFIX.as_bytes()))
            {
                let id = entry.entry.as_ref().unwrap().id.to_vec();
                entries.insert(id, entry);
            }
        }
    }
    entries
}

/// Holds what a reader was told against what there is.
fn check(record: &Record, truth: &BTreeMap<Id, LogEntry>) {
    let at = |change: &api::Change| change.entry.clone().unwrap();
    let mut seen: BTreeMap<(Id, u32), usize> = BTreeMap::new();
    let mut newest: BTreeMap<Id, (u64, u32)> = BTreeMap::new();
    for (place, change) in record.told.iter().enumerate() {
        let entry = at(change);
        let id = entry.id.to_vec();
        let logged = truth.get(&id).expect("nothing is told that is in no log");
        let op = &logged.ops[change.op_index as usize];
        assert_eq!(
            (&op.key, &op.kind),
            (&change.key, &change.kind),
            "as it was written"
        );
        assert_eq!(op.kind == "put", change.value.is_some());
        // Unique.
        let again = seen.insert((id.clone(), change.op_index), place);
        assert_eq!(again, None, "told twice, also at {place}: {change:?}");
        // Per author in sequence.
        let this = (entry.seq, change.op_index);
        let before = newest.insert(entry.author.to_vec(), this);
        assert!(before < Some(this), "after {before:?} came {this:?}");
        // Causal.
        for parent in &logged.parents {
            if let Some(parent) = truth.get(parent.id.as_ref()) {
                let id = parent.entry.as_ref().unwrap().id.to_vec();
                let ops = 0..u32::try_from(parent.ops.len()).unwrap();
                for op in ops {
                    assert!(
                        seen.contains_key(&(id.clone(), op)),
                        "before its cause: {change:?}"
                    );
                }
            }
        }
        // Atomic: what is before the last op of a batch is the op before it.
        if change.atomic && change.op_index > 0 {
            let before = seen.get(&(id, change.op_index - 1));
            assert_eq!(before, Some(&(place - 1)), "a batch was split: {change:?}");
        }
    }
    // Complete.
    for (id, entry) in truth {
        for op in 0..u32::try_from(entry.ops.len()).unwrap() {
            assert!(
                seen.contains_key(&(id.clone(), op)),
                "never told: {entry:?}"
            );
        }
    }
    // Bookmarked: behind a position lies everything it covers, and before it nothing that it covers.
    for (told, cursor) in record
        .marks
        .iter()
        .filter(|(_, cursor)| cursor.partial.is_none())
    {
        for ((id, _op), place) in &seen {
            let entry = truth[id].entry.as_ref().unwrap();
            let author = Author(entry.author.as_ref().try_into().unwrap());
            let covered = cursor.frontier.seq(&author) >= entry.seq;
            assert_eq!(
                covered,
                place < told,
                "the position after {told} changes: {entry:?}"
            );
        }
    }
}
