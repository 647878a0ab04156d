//! Runs of a command: their input and environment, and the meaning of their exit.

use std::time::{Duration, Instant};

use lattice::{
    hooks::Hook,
    limits::HOOK_OUTPUT_BYTES_MAX,
    store::consumers::{ConsumerStart, ConsumerState},
};

use super::setup::{Bench, span, until_dead};

#[tokio::test(flavor = "multi_thread")]
async fn l5_command_gets_a_cleared_environment() {
    let bench = Bench::new().await;
    let hook = bench.hook("env | sort > env; cat > stdin; pwd > pwd; echo out; echo err >&2");
    bench.add("deploy", hook).await;
    bench.put("/other/1", "x").await;
    bench.put("/in/a b", "\"1\"\n").await;
    let status = bench.settled("deploy", 1).await;
    assert_eq!(status.state.name(), "running");

    let line: serde_json::Value = serde_json::from_str(&bench.lines("stdin")[0]).unwrap();
    assert_eq!(line["type"], "put");
    assert_eq!(line["key"], "/in/a b");
    assert_eq!(line["value"], "\"1\"\n");
    assert_eq!(line["origin"], "local");
    assert_eq!(bench.lines("stdin").len(), 1);
    assert_eq!(
        bench.lines("pwd"),
        [bench.dir.path().canonicalize().unwrap().to_str().unwrap()]
    );

    let record = &bench.logs("deploy").await[0];
    let item = bench.store().get(b"/in/a b").await.unwrap().unwrap();
    let entry = item.entry.id.to_string();
    assert_eq!(
        (&record.entry, line["entry"].as_str()),
        (&entry, Some(&*entry))
    );
    assert_eq!((record.outcome.name(), record.attempt), ("done", 1));
    assert_eq!(
        (record.stdout.as_str(), record.stderr.as_str()),
        ("out\n", "err\n")
    );

    // PWD and _ are the shell's own.
    let shells = ["PWD=", "_=", "OLDPWD=", "SHLVL="];
    let names: Vec<String> = bench
        .lines("env")
        .into_iter()
        .filter(|line| !shells.iter().any(|shell| line.starts_with(shell)))
        .collect();
    let expected = [
        format!("HOME={}", std::env::var("HOME").unwrap()),
        "LATTICE_ATTEMPT=1".to_owned(),
        "LATTICE_CHANGES=1".to_owned(),
        format!("LATTICE_DATA={}", bench.node.data_dir().display()),
        format!("LATTICE_ENTRY={entry}"),
        "LATTICE_HOOK=deploy".to_owned(),
        "LATTICE_KEY=/in/a b".to_owned(),
        "LATTICE_KIND=put".to_owned(),
        format!("LATTICE_RUN_ID={}", record.run),
        format!("LATTICE_STORE={}", bench.store().id()),
        format!("PATH={}", std::env::var("PATH").unwrap()),
    ];
    assert_eq!(names, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn l6_failed_run_is_retried_then_dead() {
    let bench = Bench::new().await;
    let hook = Hook {
        attempts: 3,
        ..bench.hook("echo $LATTICE_ATTEMPT $LATTICE_RUN_ID >> tried; exit 7")
    };
    bench.add("h", hook).await;
    bench.put("/in/a", "1").await;
    let status = bench.settled("h", 1).await;
    assert_eq!(status.consumer.unwrap().dead, 1);
    let tried = bench.lines("tried");
    let run = tried[0].split(' ').nth(1).unwrap().to_owned();
    assert_eq!(tried, [1, 2, 3].map(|attempt| format!("{attempt} {run}")));
    let logs = bench.logs("h").await;
    let outcomes: Vec<&str> = logs.iter().map(|run| run.outcome.name()).collect();
    assert_eq!(outcomes, ["failed", "failed", "dead"]);
    assert_eq!(logs[2].what, "exited with 7");
    let waits = logs.iter().map(|run| run.retry_ms);
    assert!(
        waits.take(2).all(|ms| (8..=12).contains(&ms.unwrap())),
        "{logs:?}"
    );

    // A person has mended it, and tries what died.
    bench.script("script-1.sh", "echo mended >> tried");
    let consumer = bench.store().consumer("hook.h");
    assert_eq!(consumer.dead_retry(&[]).await.unwrap(), 1);
    bench
        .until("h", |status| status.consumer.as_ref().unwrap().dead == 0)
        .await;
    bench.settled("h", 1).await;
    assert_eq!(bench.lines("tried").last().unwrap(), "mended");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_run_in_parallel_each_in_order() {
    let bench = Bench::new().await;
    let hook = Hook {
        parallel: 3,
        ..bench.hook("read line; echo \"+$LATTICE_KEY\" >> order; sleep 0.05; echo \"-$LATTICE_KEY $line\" >> order")
    };
    bench.add("h", hook).await;
    for round in 0..3 {
        for key in ["/in/a", "/in/b", "/in/c"] {
            bench.put(key, &round.to_string()).await;
        }
    }
    bench.settled("h", 9).await;
    let order = bench.lines("order");
    let (mut running, mut most) = (std::collections::BTreeSet::new(), 0);
    let mut values = std::collections::BTreeMap::<String, Vec<String>>::new();
    for line in &order {
        if let Some(key) = line.strip_prefix('+') {
            assert!(
                running.insert(key.to_owned()),
                "{key} runs twice: {order:#?}"
            );
        } else {
            let (key, json) = line[1..].split_once(' ').unwrap();
            assert!(running.remove(key));
            let json: serde_json::Value = serde_json::from_str(json).unwrap();
            let value = json["value"].as_str().unwrap().to_owned();
            values.entry(key.to_owned()).or_default().push(value);
        }
        most = most.max(running.len());
    }
    assert_eq!(most, 3, "{order:#?}");
    assert_eq!(values.len(), 3);
    assert!(
        values.values().all(|values| *values == ["0", "1", "2"]),
        "{values:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn l6_hung_run_is_killed_with_its_children() {
    let bench = Bench::new().await;
    let hook = Hook {
        timeout: span(2_000),
        attempts: 1,
        // Deaf to the friendly signal, and with a child that has a pipe of its own.
        ..bench.hook("trap '' TERM; sleep 60 & echo $! >> pids; sh -c 'trap \"\" TERM; sleep 60; sleep 60' & echo $! >> pids; wait; wait; sleep 60")
    };
    bench.add("h", hook).await;
    bench.put("/in/a", "1").await;
    bench.settled("h", 1).await;
    assert_eq!(
        bench.logs("h").await[0].what,
        "took longer than 2s and was ended"
    );
    let pids = bench.lines("pids");
    assert_eq!(pids.len(), 2);
    until_dead(&pids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l6_leftover_children_end_with_the_command() {
    let bench = Bench::new().await;
    // One keeps the pipe of stdout, the other has nothing of it.
    bench
        .add(
            "h",
            bench.hook("sleep 60 & echo $! >> pids; sleep 60 >/dev/null 2>&1 & echo $! >> pids"),
        )
        .await;
    bench.put("/in/a", "1").await;
    bench.settled("h", 1).await;
    assert_eq!(bench.logs("h").await[0].outcome.name(), "done");
    until_dead(&bench.lines("pids")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l6_flood_of_output_is_capped() {
    let bench = Bench::new().await;
    // It reads nothing either, of a value that fills its pipe.
    bench
        .add(
            "h",
            bench.hook("head -c 3000000 /dev/zero | tr '\\0' x; head -c 2000000 /dev/zero >&2"),
        )
        .await;
    bench.put("/in/a", &"v".repeat(1 << 20)).await;
    bench.settled("h", 1).await;
    let record = &bench.logs("h").await[0];
    assert_eq!(record.outcome.name(), "done");
    assert_eq!(
        (record.stdout_bytes, record.stderr_bytes),
        (3_000_000, 2_000_000)
    );
    assert_eq!(record.stdout.len(), HOOK_OUTPUT_BYTES_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn command_that_cannot_run_says_why() {
    let bench = Bench::new().await;
    let one = |run: &[&str]| Hook {
        run: run.iter().map(|&argument| argument.to_owned()).collect(),
        attempts: 1,
        ..bench.hook("true")
    };
    let without_bit = bench.path("plain");
    std::fs::write(&without_bit, "#!/bin/sh\n").unwrap();
    std::fs::write(bench.path("odd"), "#!/no/such/shell\n").unwrap();
    bench.script("odd", "");
    std::fs::write(bench.path("odd"), "#!/no/such/shell\n").unwrap();
    bench.add("bit", one(&["./plain"])).await;
    bench.add("none", one(&["./none"])).await;
    bench.add("path", one(&["no-such-command-here"])).await;
    bench.add("shell", one(&["./odd"])).await;
    let nowhere = Hook {
        dir: Some(bench.path("gone")),
        ..one(&["true"])
    };
    bench.add("dir", nowhere).await;
    bench.put("/in/a", "1").await;
    for (name, why) in [
        ("bit", "is the file executable?"),
        ("none", "none: No such file"),
        ("path", "cannot run no-such-command-here: No such file"),
        ("shell", "the interpreter in its first line does not exist"),
        ("dir", "there is no directory"),
    ] {
        bench.settled(name, 1).await;
        let record = &bench.logs(name).await[0];
        assert_eq!(record.outcome.name(), "dead");
        assert!(record.what.contains(why), "{name}: {}", record.what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l6_hung_hook_stops_no_other_hook() {
    let bench = Bench::new().await;
    let hangs = Hook {
        parallel: 1,
        ..bench.hook("sleep 60")
    };
    bench.add("hangs", hangs).await;
    bench
        .add("works", bench.hook("echo $LATTICE_KEY >> worked"))
        .await;
    let mut watch = bench.store().watch("/in/");
    for n in 0..20 {
        bench.put(&format!("/in/{n}"), "1").await;
    }
    bench.settled("works", 20).await;
    assert_eq!(bench.lines("worked").len(), 20);
    assert_eq!(
        bench
            .hooks
            .show("hangs")
            .await
            .unwrap()
            .health
            .unwrap()
            .running,
        1
    );
    let mut seen = 0;
    while seen < 20 {
        let next = tokio_stream::StreamExt::next(&mut watch)
            .await
            .unwrap()
            .unwrap();
        seen += usize::from(matches!(next, lattice::WatchEvent::Change(_)));
    }
    let began = Instant::now();
    bench.hooks.stop().await;
    bench.node.close().await.unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(25),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_hook_runs_after_resume() {
    let bench = Bench::new().await;
    bench.add("h", bench.hook("echo $LATTICE_KEY >> ran")).await;
    let paused = bench.hooks.set_paused("h", true).await.unwrap();
    assert_eq!(paused.state.name(), "paused");
    bench.put("/in/a", "1").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(bench.lines("ran").is_empty());
    let resumed = bench.hooks.set_paused("h", false).await.unwrap();
    assert_eq!(resumed.state.name(), "running");
    bench.settled("h", 1).await;
    assert_eq!(bench.lines("ran"), ["/in/a"]);
    assert!(bench.hooks.set_paused("none", true).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_during_downtime_run_once_later() {
    let bench = Bench::idle().await;
    let hook = bench.hook("echo $LATTICE_KEY >> ran");
    bench.put("/in/before", "1").await;
    let from = ConsumerStart::Now;
    let status = bench.hooks.add("h", hook, from).await.unwrap();
    assert_eq!((status.state.name(), status.health), ("off", None));
    bench.put("/in/a", "1").await;
    bench.hooks.start();
    bench.settled("h", 1).await;
    bench.hooks.stop().await;
    bench.put("/in/b", "1").await;
    let again = lattice::hooks::Hooks::of(bench.node.clone());
    again.start();
    let began = Instant::now();
    while bench.lines("ran").len() < 2 {
        assert!(began.elapsed() < super::setup::PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bench.lines("ran"), ["/in/a", "/in/b"]);
    let state = again.show("h").await.unwrap().consumer.unwrap().state;
    assert_eq!(state, ConsumerState::Running);
    again.stop().await;
}
