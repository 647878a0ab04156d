//! The real daemon, killed with signal 9 under load, again and again.
//!
//! Promise 1 across the death of the process (threats S7, S14, L12). After each start every
//! acknowledged write is there, nothing is there that was never written, and the state follows from
//! the log.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use lattice::{
    api::{
        client::{Client, connect},
        whole,
    },
    wire::api::{
        DeleteRequest, GetRequest, ListRequest, Op, PutRequest, PutStreamRequest, VerifyRequest,
    },
};
use tokio::task::JoinSet;

use crate::support::random::Random;

const WRITERS: u64 = 8;
const KEYS: u64 = 50;

/// The values a key may have: the last acknowledged one, or any tried after it. Values are numbers
/// that only grow; a delete has one too.
#[derive(Debug, Default, Clone)]
struct Key {
    next: u64,
    // (number, is a delete), oldest first; empty: never written.
    allowed: Vec<(u64, bool)>,
    acknowledged: u64,
}

struct Daemon(Child);

impl Daemon {
    async fn start(data: &Path) -> (Self, Client) {
        let child = Command::new(env!("CARGO_BIN_EXE_lattice"))
            .args(["up", "--data-dir"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let daemon = Self(child);
        let began = Instant::now();
        loop {
            if let Ok(mut client) = connect(&data.join("run/sock")).await {
                let ping = GetRequest {
                    store: String::new(),
                    key: "/ping".into(),
                    at_ms: None,
                };
                if client.get(ping).await.is_ok() {
                    return (daemon, client);
                }
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "the daemon does not start"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

// Writes until the connection breaks. Returns the keys as far as they got.
async fn write(
    mut client: Client,
    writer: u64,
    mut keys: BTreeMap<u64, Key>,
    mut random: Random,
) -> (u64, BTreeMap<u64, Key>) {
    loop {
        let number = random.bits() % KEYS;
        let name = format!("/kill/{writer}/{number}");
        let key = keys.entry(number).or_default();
        key.next += 1;
        let next = key.next;
        let delete = random.once_in(10);
        key.allowed.push((next, delete));
        let value = format!("{next}:{}", "x".repeat(random.below(2000)));
        let done = if delete {
            let request = DeleteRequest {
                key: name.into(),
                ..DeleteRequest::default()
            };
            client.delete(request).await.is_ok()
        } else if writer == 0 {
            // One op of a stream, the rest of which nobody waits for.
            let op = Op {
                key: name.into(),
                value: value.into(),
                ..Op::default()
            };
            let request = PutStreamRequest {
                store: String::new(),
                ops: vec![op],
            };
            match client.put_stream(tokio_stream::once(request)).await {
                Ok(replies) => match replies.into_inner().message().await {
                    Ok(Some(reply)) => reply.results.iter().all(|result| result.failed.is_none()),
                    _broken => false,
                },
                Err(_broken) => false,
            }
        } else {
            let request = PutRequest {
                key: name.into(),
                value: value.into(),
                ..PutRequest::default()
            };
            client.put(request).await.is_ok()
        };
        if !done {
            return (writer, keys);
        }
        let key = keys.get_mut(&number).unwrap();
        key.acknowledged += 1;
        key.allowed.retain(|(number, _)| *number >= next);
    }
}

// Compares every key with what it may be; from then on it may be that only.
async fn check(client: &mut Client, all: &mut BTreeMap<u64, BTreeMap<u64, Key>>, cycle: u64) {
    let mut found = BTreeMap::new();
    let request = ListRequest {
        prefix: "/kill/".into(),
        ..ListRequest::default()
    };
    let mut pages = client.list(request).await.unwrap().into_inner();
    while let Some(page) = pages.message().await.unwrap() {
        for item in page.items {
            let value = String::from_utf8(item.value.to_vec()).unwrap();
            let number: u64 = value.split(':').next().unwrap().parse().unwrap();
            found.insert(String::from_utf8(item.key.to_vec()).unwrap(), number);
        }
    }
    for (writer, keys) in all {
        for (number, key) in keys {
            let name = format!("/kill/{writer}/{number}");
            let read = found.remove(&name);
            let (never, allowed) = (key.acknowledged == 0, key.allowed.clone());
            let stands = |(value, delete): &(u64, bool)| (!delete).then_some(*value) == read;
            key.allowed.retain(stands);
            key.acknowledged = key.acknowledged.max(u64::from(read.is_some()));
            assert!(
                !key.allowed.is_empty() || (never && read.is_none()),
                "cycle {cycle}: {name} reads {read:?}, allowed are {allowed:?}, never: {never}"
            );
        }
    }
    assert_eq!(found, BTreeMap::new(), "cycle {cycle}: nobody wrote these");
}

#[tokio::test(flavor = "multi_thread")]
async fn s7_l12_killed_daemon_keeps_acknowledged_writes() {
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().expect("SEED is a number"));
    let cycles = if std::env::var_os("LATTICE_SOAK").is_some() {
        2000
    } else {
        100
    };
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut all: BTreeMap<u64, BTreeMap<u64, Key>> = (0..WRITERS)
        .map(|writer| (writer, BTreeMap::new()))
        .collect();
    for cycle in 0..cycles {
        let (daemon, mut client) = Daemon::start(&data).await;
        check(&mut client, &mut all, cycle).await;
        if cycle % 10 == 0 {
            let request = VerifyRequest {
                all: true,
                ..VerifyRequest::default()
            };
            for store in whole::verified(&mut client, request).await.unwrap() {
                assert_eq!(store.damage, [], "seed {seed}, cycle {cycle}");
            }
        }
        // The possible values are settled now: a value that was tried and is missing can never
        // come back.
        let mut writers = JoinSet::new();
        for (writer, keys) in &all {
            let random = Random::new(random.bits());
            writers.spawn(write(client.clone(), *writer, keys.clone(), random));
        }
        tokio::time::sleep(Duration::from_millis(20 + random.bits() % 180)).await;
        daemon.kill();
        while let Some(ended) = writers.join_next().await {
            let (writer, keys) = ended.unwrap();
            all.insert(writer, keys);
        }
    }
    let (_daemon, mut client) = Daemon::start(&data).await;
    check(&mut client, &mut all, cycles).await;
    let acknowledged: u64 = all
        .values()
        .flat_map(BTreeMap::values)
        .map(|key| key.acknowledged)
        .sum();
    assert!(
        acknowledged > cycles * 10,
        "seed {seed}: only {acknowledged} writes"
    );
}

/// The system's own failures, put in by strace where it is to be had (threats S10, S11).
#[tokio::test(flavor = "multi_thread")]
async fn s11_failed_fdatasync_refuses_writes_until_restart() {
    let traced = Command::new("strace")
        .args(["-f", "-e", "trace=none", "true"])
        .output();
    if !traced.is_ok_and(|ran| ran.status.success()) {
        eprintln!("skipped: strace is not here, or may not trace");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (daemon, mut client) = Daemon::start(&data).await;
    let put = |key: &str| PutRequest {
        key: key.to_owned().into(),
        value: "v".into(),
        ..PutRequest::default()
    };
    client.put(put("/before")).await.unwrap();
    let mut strace = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-e",
            "trace=fdatasync",
            "-e",
            "inject=fdatasync:error=EIO",
            "-p",
        ])
        .arg(daemon.0.id().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let mut number = 0;
    let refused = loop {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "the failure never came"
        );
        number += 1;
        if let Err(status) = client.put(put(&format!("/during/{number}"))).await {
            break lattice::api::error::ApiError::from(status);
        }
    };
    strace.kill().unwrap();
    strace.wait().unwrap();
    assert_eq!(refused.code, "poisoned", "{refused:?}");
    // Poisoned stays, also when the disk is well again; reads go on.
    let again = client.put(put("/after")).await.unwrap_err();
    assert_eq!(lattice::api::error::ApiError::from(again).code, "poisoned");
    let get = |key: &str| GetRequest {
        store: String::new(),
        key: key.to_owned().into(),
        at_ms: None,
    };
    assert!(
        client
            .get(get("/before"))
            .await
            .unwrap()
            .into_inner()
            .item
            .is_some()
    );
    daemon.kill();

    let (_daemon, mut client) = Daemon::start(&data).await;
    for key in (1..number)
        .map(|n| format!("/during/{n}"))
        .chain(["/before".to_owned()])
    {
        let item = client.get(get(&key)).await.unwrap().into_inner().item;
        assert!(item.is_some(), "{key} was acknowledged");
    }
    client.put(put("/after")).await.unwrap();
}
