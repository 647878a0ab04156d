//! Hooks whose next changes were removed from the log: one run for the gap, alone, then runs for all live
//! keys, then for the changes after that state.

use lattice::{
    Store,
    hooks::{Hook, HookState, HooksError, Mode},
    protocol::consumer::OnGap,
    store::consumers::{ConsumerError, ConsumerOptions, ConsumerStart},
};

use super::{
    posts::{hook as posting, serve},
    setup::{Bench, span},
};

// Appends the changes of a run as they come, and a line for the run.
const NOTE: &str = "cat >> ran; echo \"run $LATTICE_KIND $LATTICE_CHANGES\" >> ran; \
    echo $LATTICE_RUN_ID >> ids";

/// A store in which `/in/a` is live, `/in/b` deleted, and whose log was emptied.
async fn pruned(bench: &Bench) -> Store {
    bench.node.create_store("s").await.unwrap();
    let store = bench.node.store("s").unwrap();
    put(&store, "/in/b", "1").await;
    // Of one entry, so that only the key tells the two apart.
    let both = ["/in/a", "/in/c"].map(|key| crate::support::model::put(key, "1"));
    store.batch(both.to_vec()).await.unwrap();
    store.delete("/in/b").await.unwrap();
    store.drop_before(store.frontier()).await.unwrap();
    store
}

async fn put(store: &Store, key: &str, value: &str) {
    store.put(key.to_owned(), value.to_owned()).await.unwrap();
}

fn on_s(hook: Hook) -> Hook {
    Hook {
        store: "s".to_owned(),
        ..hook
    }
}

/// What each run got: the types and keys of its lines.
fn runs(bench: &Bench) -> Vec<Vec<String>> {
    let (mut runs, mut changes) = (Vec::new(), Vec::new());
    for line in bench.lines("ran") {
        if line.starts_with("run ") {
            runs.push(std::mem::take(&mut changes));
            continue;
        }
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        if line["type"] == "gap" {
            assert!(text("reason").contains("entries were removed"), "{line}");
            assert!(line["reach_ms"].as_u64().is_some() && line["arrived_ms"].as_u64().is_some());
            assert_eq!(line.as_object().unwrap().len(), 6, "{line}");
            changes.push("gap".to_owned());
        } else {
            changes.push(format!("{} {}", text("origin"), text("key")));
        }
    }
    runs
}

async fn add(bench: &Bench, hook: Hook) {
    let added = bench.hooks.add("h", hook, ConsumerStart::Beginning).await;
    added.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn gap_is_a_run_of_its_own_in_every_mode() {
    let hour = Some(span(3_600_000));
    let modes = [
        (Mode::Each, None, None),
        // Neither the gap nor the state waits for a key to be quiet.
        (Mode::Latest, hour, None),
        // Nor does the gap wait for more changes; 2 is all that comes then.
        (Mode::Batch, hour, Some(2)),
    ];
    for (mode, debounce, batch) in modes {
        let bench = Bench::new().await;
        let store = pruned(&bench).await;
        let hook = Hook {
            mode,
            debounce,
            batch,
            // A gap comes whatever kinds were chosen.
            kinds: vec![lattice::hooks::HookKind::Put],
            ..bench.hook(NOTE)
        };
        add(&bench, on_s(hook)).await;
        bench.settled("h", 3).await;
        let mut runs = runs(&bench);
        assert_eq!(runs[0], ["gap"], "{mode}: {runs:?}");
        let mut state: Vec<_> = runs.drain(1..).flatten().collect();
        state.sort();
        assert_eq!(state, ["initial /in/a", "initial /in/c"], "{mode}");
        let first = bench.lines("ran");
        let first = first.iter().find(|line| line.starts_with("run ")).unwrap();
        let kind = if mode == Mode::Batch { "" } else { "gap" };
        assert_eq!(first, &format!("run {kind} 1"));
        if mode == Mode::Each {
            put(&store, "/in/live", "1").await;
            bench.settled("h", 4).await;
            assert_eq!(bench.lines("ran").last().unwrap(), "run put 1");
        }
        let status = bench.hooks.show("h").await.unwrap();
        let consumer = status.consumer.unwrap();
        assert_eq!((consumer.on_gap, consumer.gaps), (OnGap::State, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gap_that_fails_holds_the_state_back_and_is_tried_again() {
    let bench = Bench::new().await;
    pruned(&bench).await;
    let fails_twice = format!("{NOTE}; test $LATTICE_KIND != gap || test $LATTICE_ATTEMPT -gt 2");
    add(&bench, on_s(bench.hook(&fails_twice))).await;
    bench.settled("h", 3).await;
    let runs = runs(&bench);
    let gaps = runs.iter().take_while(|run| **run == ["gap"]).count();
    assert_eq!((gaps, runs.len()), (3, 5), "{runs:?}");
    let ids = bench.lines("ids");
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
    // A gap that is met again is another one, and so is the state after it.
    let store = bench.node.store("s").unwrap();
    let consumer = store.consumer("hook.h");
    consumer.reset(ConsumerStart::Beginning).await.unwrap();
    bench.settled("h", 6).await;
    let again = bench.lines("ids");
    assert_eq!(again.len(), 10);
    assert!(again[5..].iter().all(|id| !ids.contains(id)), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hook_that_stops_at_a_gap_says_so_and_goes_on_when_its_file_says_state() {
    let bench = Bench::new().await;
    let store = pruned(&bench).await;
    let stops = Hook {
        on_gap: Some(OnGap::Stop),
        ..on_s(bench.hook(NOTE))
    };
    let refused = bench
        .hooks
        .add("h", stops.clone(), ConsumerStart::Beginning)
        .await;
    assert!(
        matches!(refused, Err(HooksError::Consumer(ConsumerError::Start(_)))),
        "{refused:?}"
    );
    // It is behind when its history goes.
    bench
        .hooks
        .add("h", stops, ConsumerStart::Now)
        .await
        .unwrap();
    bench
        .until("h", |status| status.state == HookState::Running)
        .await;
    let consumer = store.consumer("hook.h");
    bench.hooks.stop().await;
    consumer.pause().await.unwrap();
    consumer
        .set(lattice::store::consumers::ConsumerChanges {
            max_in_flight: Some(1),
            ..Default::default()
        })
        .await
        .unwrap();
    for n in 0..200 {
        put(&store, &format!("/in/{n}"), "1").await;
    }
    store.drop_before(store.frontier()).await.unwrap();
    consumer.resume().await.unwrap();
    // The first one is outstanding, and still a head.
    let delivery = consumer.next().await.unwrap();
    delivery.ack().unwrap();
    bench.hooks.start();
    let status = bench
        .until("h", |status| status.state == HookState::Stopped)
        .await;
    assert!(
        status.reason.contains("entries were removed"),
        "{}",
        status.reason
    );
    let file = bench.dir.path().join("data/hooks.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("on_gap = \"stop\""), "{text}");
    std::fs::write(&file, text.replace("\"stop\"", "\"state\"")).unwrap();
    bench
        .until("h", |status| {
            status.consumer.as_ref().is_some_and(|it| it.gaps == 1)
        })
        .await;
    bench.settled("h", 204).await;
    // What was in memory before the history went is not missed.
    let runs = runs(&bench);
    let gap = runs.iter().position(|run| *run == ["gap"]).unwrap();
    let mut before = runs[..gap].iter().flatten();
    assert!(
        before.all(|change| change.starts_with("local /in/")),
        "{runs:?}"
    );
    let wrong = text.replace("\"stop\"", "\"skip\"");
    std::fs::write(&file, wrong).unwrap();
    let mistake = bench.hooks.reload().await.unwrap();
    assert!(mistake.contains("expected stop or state"), "{mistake}");
}

/// The consumer of a hook that was made by an earlier build.
#[tokio::test(flavor = "multi_thread")]
async fn hook_without_the_option_keeps_the_step_of_its_consumer() {
    let bench = Bench::new().await;
    let store = pruned(&bench).await;
    let consumer = store.consumer("hook.h");
    consumer.create(ConsumerOptions::default()).await.unwrap();
    let added = bench
        .hooks
        .add("h", on_s(bench.hook(NOTE)), ConsumerStart::Now);
    let status = added.await.unwrap();
    assert_eq!(status.consumer.unwrap().on_gap, OnGap::Stop);
    bench
        .until("h", |status| status.state == HookState::Running)
        .await;
    let status = bench.hooks.show("h").await.unwrap();
    assert_eq!(status.consumer.unwrap().on_gap, OnGap::Stop);
}

#[tokio::test(flavor = "multi_thread")]
async fn gap_is_posted_as_json() {
    let bench = Bench::new().await;
    pruned(&bench).await;
    let (url, requests) = serve(&["200 OK"]);
    add(&bench, on_s(posting(url))).await;
    bench.settled("h", 3).await;
    let requests = requests.lock().unwrap();
    let lines: Vec<serde_json::Value> = requests
        .iter()
        .map(|request| serde_json::from_slice(&request.body).unwrap())
        .collect();
    let types: Vec<_> = lines
        .iter()
        .map(|line| line["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["gap", "put", "put"]);
    assert_eq!(requests[0].headers["content-type"], "application/json");
}

/// A value of the state has the same cause after every gap, so its answer is written once; each gap has
/// a cause of its own.
#[tokio::test(flavor = "multi_thread")]
async fn hook_that_writes_answers_a_live_key_once_and_every_gap() {
    let bench = Bench::new().await;
    let store = pruned(&bench).await;
    let hook = Hook {
        writes: true,
        ..on_s(bench.hook(
            r#"echo "$LATTICE_KIND$LATTICE_KEY" >> ran; printf '{"key":"/out/%s%s","value":"%s"}\n' "$LATTICE_KIND" "$LATTICE_KEY" "$LATTICE_RUN_ID""#,
        ))
    };
    add(&bench, hook).await;
    bench.settled("h", 3).await;
    let consumer = store.consumer("hook.h");
    let gap = store.get(b"/out/gap").await.unwrap().unwrap();
    let live = store.get(b"/out/put/in/a").await.unwrap().unwrap();
    for round in 2..4 {
        consumer.reset(ConsumerStart::Beginning).await.unwrap();
        bench.settled("h", 3 * round).await;
    }
    let again = store.get(b"/out/gap").await.unwrap().unwrap();
    assert_ne!(again.entry.id, gap.entry.id);
    let live_again = store.get(b"/out/put/in/a").await.unwrap().unwrap();
    assert_eq!(live_again.entry.id, live.entry.id);
    let mut ran = bench.lines("ran");
    ran.sort();
    assert_eq!(ran, ["gap", "gap", "gap", "put/in/a", "put/in/c"]);
}
