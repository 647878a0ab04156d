//! A node is killed while its hooks run.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::harness::{Home, PATIENCE};
use crate::support::random::Random;

#[test]
fn killed_node_runs_all_and_writes_once() {
    let home = Home::initialised();
    let note = home.path("note.sh");
    // Says that it ran, takes a while, and answers with one key of its own for each change.
    let text = "#!/bin/sh\necho $LATTICE_ENTRY$LATTICE_KEY >> ran\nsleep 0.0$((LATTICE_ATTEMPT % 4))\n\
        printf '{\"key\":\"/out%s\",\"value\":\"%s\"}\\n' \"$LATTICE_KEY\" $LATTICE_RUN_ID\n";
    fs::write(&note, text).unwrap();
    fs::set_permissions(&note, fs::Permissions::from_mode(0o755)).unwrap();
    let add = [
        "hook",
        "add",
        "note",
        "/in/",
        "--writes",
        "--rate",
        "10000",
        "--attempts",
        "1000",
        "--backoff",
        "5ms",
        "--parallel",
        "8",
        "--",
        "./note.sh",
    ];
    home.run(&add).ok();
    let mut random = Random::new(std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap()));
    let cycles = if std::env::var_os("LATTICE_SOAK").is_some() {
        300
    } else {
        12
    };
    let mut puts = 0;
    for _ in 0..cycles {
        let node = home.up();
        let lines: String = (puts..puts + 10).map(|n| format!("/in/{n}\tv\n")).collect();
        home.feed(&["put", "--stdin"], lines).ok();
        puts += 10;
        thread::sleep(Duration::from_millis(random.bits() % 150));
        node.signal(Signal::KILL);
        assert_ne!(node.end().code, 0);
    }
    let _node = home.up();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let hook = &home.run(&["hook", "list", "--json"]).json()[0];
        if hook["outstanding"] == 0 && hook["backlog_entries"] == 0 && hook["running"] == 0 {
            assert_eq!(hook["dead"], 0);
            break;
        }
        assert!(Instant::now() < deadline, "{hook}");
        thread::sleep(Duration::from_millis(50));
    }
    let ran = fs::read_to_string(home.path("ran")).unwrap();
    let mut changes: Vec<&str> = ran.lines().collect();
    changes.sort_unstable();
    changes.dedup();
    assert_eq!(changes.len(), puts, "each change ran");
    // Each answer is one entry: a key that was written twice would have a longer history.
    let mut written = BTreeMap::new();
    for line in home.run(&["log", "--json"]).json() {
        let Some(ops) = line["ops"].as_array() else {
            continue;
        };
        for op in ops {
            let key = op["key"].as_str().unwrap_or_default().to_owned();
            if key.starts_with("/out/in/") {
                *written.entry(key).or_insert(0) += 1;
            }
        }
    }
    assert_eq!(written.len(), puts, "each change was answered");
    assert!(written.values().all(|times| *times == 1), "{written:?}");
}

#[test]
fn hook_resumes_when_the_state_is_lost() {
    let home = Home::initialised();
    let note = home.path("note.sh");
    fs::write(
        &note,
        "#!/bin/sh\necho $LATTICE_KEY >> ran\necho '{\"key\":\"/out\",\"value\":\"1\"}'\n",
    )
    .unwrap();
    fs::set_permissions(&note, fs::Permissions::from_mode(0o755)).unwrap();
    let add = ["hook", "add", "note", "/in/", "--writes", "--", "./note.sh"];
    home.run(&add).ok();
    let done = |count: u64| {
        let deadline = Instant::now() + PATIENCE;
        while home.run(&["hook", "list", "--json"]).json()[0]["done"] != count {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(20));
        }
    };
    let mut node = home.up();
    home.run(&["put", "/in/1", "v"]).ok();
    done(1);
    for round in 2..4 {
        home.run(&["down"]).ok();
        drop(node);
        for store in fs::read_dir(home.data().join("stores")).unwrap() {
            fs::remove_file(store.unwrap().path().join("state.db")).unwrap();
        }
        node = home.up();
        home.run(&["put", &format!("/in/{round}"), "v"]).ok();
        done(1);
    }
    let ran = fs::read_to_string(home.path("ran")).unwrap();
    assert_eq!(ran.lines().collect::<Vec<_>>(), ["/in/1", "/in/2", "/in/3"]);
    assert_eq!(home.run(&["history", "/out", "--json"]).json().len(), 3);
}

/// The log was emptied before the hook was made, and the node is killed at each of its first runs.
#[test]
fn killed_node_brings_one_gap_and_the_whole_state() {
    let home = Home::initialised();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = lattice::NodeConfig::new(home.data());
        let node = lattice::Node::open(config).await.unwrap();
        node.create_store("s").await.unwrap();
        let store = node.store("s").unwrap();
        for n in 0..30 {
            store.put(format!("/in/{n:02}"), "v").await.unwrap();
        }
        store.drop_before(store.frontier()).await.unwrap();
        node.close().await.unwrap();
    });
    let note = home.path("note.sh");
    let text = "#!/bin/sh\necho \"$LATTICE_KIND$LATTICE_KEY $LATTICE_RUN_ID\" >> ran\nsleep 0.03\n";
    fs::write(&note, text).unwrap();
    fs::set_permissions(&note, fs::Permissions::from_mode(0o755)).unwrap();
    let add = [
        "hook",
        "add",
        "note",
        "/in/",
        "--from",
        "start",
        "--store",
        "s",
        "--attempts",
        "1000",
        "--backoff",
        "5ms",
        "--",
        "./note.sh",
    ];
    home.run(&add).ok();
    let mut random = Random::new(std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap()));
    let lines = || fs::read_to_string(home.path("ran")).unwrap_or_default();
    for _ in 0..6 {
        let node = home.up();
        let before = lines().lines().count();
        let began = Instant::now();
        while lines().lines().count() == before && began.elapsed() < Duration::from_secs(3) {
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(random.bits() % 120));
        node.signal(Signal::KILL);
        assert_ne!(node.end().code, 0);
    }
    let _node = home.up();
    home.run(&["put", "--store", "s", "/in/live", "v"]).ok();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let hook = &home.run(&["hook", "list", "--json"]).json()[0];
        if hook["outstanding"] == 0 && hook["backlog_entries"] == 0 && hook["running"] == 0 {
            assert_eq!(
                (&hook["dead"], &hook["on_gap"]),
                (&0.into(), &"state".into())
            );
            break;
        }
        assert!(Instant::now() < deadline, "{hook}");
        thread::sleep(Duration::from_millis(50));
    }
    let ran = lines();
    let ran: Vec<(&str, &str)> = ran.lines().filter_map(|it| it.split_once(' ')).collect();
    let gaps: std::collections::BTreeSet<_> = ran.iter().filter(|(key, _)| *key == "gap").collect();
    assert_eq!(gaps.len(), 1, "one gap, under one id: {ran:?}");
    // After the last attempt at it, also one whose acknowledgement was lost, all keys ran.
    let last = ran.iter().rposition(|(key, _)| *key == "gap").unwrap();
    let after = ran[last..].iter().map(|(key, _)| *key);
    let keys: std::collections::BTreeSet<_> = after.collect();
    assert_eq!(keys.len(), 1 + 30 + 1, "{keys:?}");
}
