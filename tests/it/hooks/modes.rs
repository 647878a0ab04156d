//! Which changes make a run: latest, batch, debounce, kinds, rate.

use std::time::{Duration, Instant};

use lattice::hooks::{Hook, HookKind, Mode};

use super::setup::{Bench, span};

// Appends key and value of each line of stdin, and an end mark for the run.
const NOTE: &str = "sed 's/.*\"key\":\"\\([^\"]*\\)\".*\"value\":\"\\([^\"]*\\)\".*/\\1=\\2/' >> ran; echo . >> ran";

#[tokio::test(flavor = "multi_thread")]
async fn latest_runs_the_newest_change() {
    let bench = Bench::idle().await;
    let hook = Hook {
        mode: Mode::Latest,
        ..bench.hook(NOTE)
    };
    bench.add("h", hook).await;
    for n in 0..50 {
        bench.put("/in/a", &n.to_string()).await;
        bench.put("/in/b", &n.to_string()).await;
    }
    bench.hooks.start();
    let status = bench.settled("h", 100).await;
    let mut ran = bench.lines("ran");
    ran.retain(|line| line != ".");
    ran.sort();
    assert_eq!(ran, ["/in/a=49", "/in/b=49"]);
    let health = status.health.unwrap();
    assert_eq!((health.done, health.skipped), (2, 98));
}

#[tokio::test(flavor = "multi_thread")]
async fn debounced_key_runs_once_quiet() {
    let bench = Bench::new().await;
    let hook = Hook {
        mode: Mode::Latest,
        // Longer than any put takes on a busy machine.
        debounce: Some(span(2_000)),
        ..bench.hook(NOTE)
    };
    bench.add("h", hook).await;
    let mut last = Instant::now();
    for n in 0..10 {
        last = Instant::now();
        bench.put("/in/a", &n.to_string()).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.settled("h", 10).await;
    assert!(
        last.elapsed() >= Duration::from_secs(2),
        "{:?}",
        last.elapsed()
    );
    assert_eq!(bench.lines("ran"), ["/in/a=9", "."]);
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_key_runs_at_the_deadline() {
    let bench = Bench::new().await;
    let hook = Hook {
        mode: Mode::Latest,
        // Only the deadline lets it run, however slow the machine is.
        debounce: Some(span(3_600_000)),
        debounce_max: Some(span(400)),
        ..bench.hook(NOTE)
    };
    bench.add("h", hook).await;
    let began = Instant::now();
    let runs = || {
        bench
            .lines("ran")
            .iter()
            .filter(|line| *line == ".")
            .count()
    };
    let mut puts = 0;
    while runs() < 2 {
        assert!(began.elapsed() < super::setup::PATIENCE, "{} runs", runs());
        puts += 1;
        bench.put("/in/a", &puts.to_string()).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        began.elapsed() >= Duration::from_millis(800),
        "{:?}",
        began.elapsed()
    );
    bench.settled("h", puts).await;
    assert_eq!(
        bench.lines("ran").iter().rev().nth(1).unwrap(),
        &format!("/in/a={puts}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_succeeds_or_fails_whole() {
    let bench = Bench::new().await;
    let hook = Hook {
        mode: Mode::Batch,
        batch: Some(4),
        // Only a batch that is full runs here, however slow the machine is.
        debounce: Some(span(3_600_000)),
        parallel: 1,
        attempts: 2,
        // The first attempt fails.
        ..bench.hook("cat >> seen; echo $LATTICE_CHANGES $LATTICE_ATTEMPT ${LATTICE_KEY-none} >> ran; test $LATTICE_ATTEMPT = 2")
    };
    bench.add("h", hook).await;
    for settled in [4, 8] {
        for n in settled - 4..settled {
            bench.put(&format!("/in/{n}"), "x").await;
        }
        bench.settled("h", settled).await;
    }
    let twice = ["4 1 none", "4 2 none"];
    assert_eq!(bench.lines("ran"), [twice, twice].concat());
    assert_eq!(bench.lines("seen").len(), 16);
    assert_eq!(bench.logs("h").await[0].changes, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_batch_runs_when_its_time_is_up() {
    let bench = Bench::idle().await;
    let hook = Hook {
        mode: Mode::Batch,
        debounce: Some(span(2_000)),
        ..bench.hook("echo $LATTICE_CHANGES >> ran")
    };
    bench.add("h", hook).await;
    bench.put("/in/a", "1").await;
    bench.put("/in/b", "1").await;
    bench.hooks.start();
    bench.settled("h", 2).await;
    assert_eq!(bench.lines("ran"), ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_selected_kinds_run() {
    let bench = Bench::new().await;
    let hook = Hook {
        kinds: vec![HookKind::Delete],
        ..bench.hook("echo $LATTICE_KIND $LATTICE_KEY >> ran")
    };
    bench.add("h", hook).await;
    bench.put("/in/a", "1").await;
    bench.store().delete("/in/a").await.unwrap();
    bench.put("/in/a", "2").await;
    bench.settled("h", 3).await;
    assert_eq!(bench.lines("ran"), ["delete /in/a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn l7_hook_rate_is_bounded_and_shown() {
    let bench = Bench::idle().await;
    let hook = Hook {
        rate: 10,
        parallel: 8,
        ..bench.hook("echo >> ran")
    };
    bench.add("h", hook).await;
    for n in 0..14 {
        bench.put(&format!("/in/{n}"), "x").await;
    }
    let began = Instant::now();
    bench.hooks.start();
    let slowed = bench.until("h", |status| {
        status.health.as_ref().unwrap().slowed.is_some()
    });
    let why = slowed.await.health.unwrap().slowed.unwrap();
    assert_eq!(
        why,
        "the hook would run more than 10 times per second: runs wait"
    );
    bench.settled("h", 14).await;
    assert!(
        began.elapsed() >= Duration::from_millis(390),
        "{:?}",
        began.elapsed()
    );
}
