//! Hooks that write: the printed lines are written once, with their cause, all or none.

use std::time::Duration;

use lattice::hooks::Hook;

use super::setup::{Bench, span};

fn writes(hook: Hook) -> Hook {
    Hook {
        writes: true,
        ..hook
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn printed_lines_are_one_entry_with_its_cause() {
    let bench = Bench::new().await;
    bench.put("/out/old", "x").await;
    let hook = bench.hook(
        r#"echo '{"key":"/out/a","value":"1"}'; echo '{"key":"/out/old","delete":true}'; echo '{"key_base64":"/w==","value_base64":"AA==","ttl_ms":60000}'"#,
    );
    bench.add("h", writes(hook)).await;
    bench.put("/in/a", "1").await;
    bench.settled("h", 1).await;
    let record = &bench.logs("h").await[0];
    assert_eq!((record.outcome.name(), record.ops), ("done", Some(3)));
    let store = bench.store();
    let a = store.get(b"/out/a").await.unwrap().unwrap();
    let binary = store.get(&[0xff]).await.unwrap().unwrap();
    assert_eq!((&a.value[..], &binary.value[..]), (&b"1"[..], &[0][..]));
    assert!(binary.expires_ms.is_some());
    assert_eq!(store.get(b"/out/old").await.unwrap(), None);
    assert_eq!(
        (a.entry.id, Some(a.entry.id.to_string())),
        (binary.entry.id, record.wrote.clone())
    );

    let entries = store
        .entries(store.author(), a.entry.seq - 1, 1)
        .await
        .unwrap();
    let cause = entries[0].entry.header.cause.clone().unwrap();
    let trigger = store.get(b"/in/a").await.unwrap().unwrap().entry.id;
    assert_eq!(
        (cause.consumer.as_str(), cause.trigger, cause.depth),
        ("h", trigger, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_that_deletes_nothing_writes_nothing() {
    let bench = Bench::new().await;
    let never = r#"echo '{"key":"/out/never","delete":true}'"#;
    bench.add("none", writes(bench.hook(never))).await;
    let both = format!(r#"{never}; echo '{{"key":"/out/a","value":"1"}}'"#);
    bench.add("both", writes(bench.hook(&both))).await;
    bench.put("/in/a", "1").await;
    for (name, ops) in [("none", None), ("both", Some(1))] {
        bench.settled(name, 1).await;
        let record = &bench.logs(name).await[0];
        assert_eq!((record.outcome.name(), record.ops), ("done", ops), "{name}");
        assert_eq!(record.wrote.is_some(), ops.is_some(), "{name}");
    }
    let heads = bench.store().heads(b"/out/never").await.unwrap();
    assert!(heads.is_empty(), "{heads:?}");
    let what = &bench.logs("none").await[0].what;
    assert_eq!(what, "the keys that the answer deletes have no value");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_line_writes_nothing() {
    let bench = Bench::new().await;
    let hook = Hook {
        attempts: 1,
        ..writes(bench.hook(r#"echo '{"key":"/out/a","value":"1"}'; echo deployed"#))
    };
    bench.add("h", hook).await;
    bench.put("/in/a", "1").await;
    bench.settled("h", 1).await;
    let record = &bench.logs("h").await[0];
    assert_eq!(record.outcome.name(), "dead");
    assert!(
        record
            .what
            .starts_with("line 2 of the output is not a put or a delete"),
        "{}",
        record.what
    );
    assert_eq!(bench.store().get(b"/out/a").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_write_names_its_reason() {
    let bench = Bench::new().await;
    let one = |script: &str| Hook {
        attempts: 1,
        ..writes(bench.hook(script))
    };
    bench
        .add("own", one(r#"echo '{"key":"/nodes/x/info","value":"1"}'"#))
        .await;
    bench
        .add(
            "twice",
            one(r#"echo '{"key":"/o","value":"1"}'; echo '{"key":"/o","value":"2"}'"#),
        )
        .await;
    bench.add("flood", one("head -c 20000000 /dev/zero")).await;
    bench
        .add(
            "failed",
            one(r#"echo '{"key":"/out/failed","value":"1"}'; exit 3"#),
        )
        .await;
    bench.put("/in/a", "1").await;
    for (name, why) in [
        ("own", "only the node itself writes keys"),
        ("twice", "the answer was not written"),
        ("flood", "the command printed 20000000 bytes"),
        ("failed", "exited with 3"),
    ] {
        bench.settled(name, 1).await;
        let record = &bench.logs(name).await[0];
        assert!(
            record.outcome.name() == "dead" && record.what.contains(why),
            "{name}: {record:?}"
        );
    }
    assert_eq!(bench.store().get(b"/out/failed").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn answered_change_is_not_run_again() {
    let bench = Bench::new().await;
    let hook = writes(bench.hook(r#"echo x >> ran; echo '{"key":"/out/a","value":"1"}'"#));
    bench.add("h", hook.clone()).await;
    bench.put("/in/a", "1").await;
    bench.settled("h", 1).await;
    // The same state as after a crash between the write and the acknowledgement.
    let consumer = bench.store().consumer("hook.h");
    consumer
        .reset(lattice::store::consumers::ConsumerStart::Beginning)
        .await
        .unwrap();
    bench.settled("h", 2).await;
    assert_eq!(bench.lines("ran").len(), 1);
    let what = &bench.logs("h").await[1].what;
    assert_eq!(what, "an earlier attempt has written the answer");
    let history = bench.store().history(b"/out/a", 10).await.unwrap();
    assert_eq!(history.entries.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn l7_loop_is_stopped_and_named() {
    let bench = Bench::new().await;
    // It answers each change of its keys with another one.
    let hook = Hook {
        attempts: 1,
        backoff: vec![span(10)],
        ..writes(bench.hook(r#"echo '{"key":"/in/loop","value":"'$LATTICE_RUN_ID'"}'"#))
    };
    bench.add("h", hook).await;
    bench.put("/in/loop", "begin").await;
    let began = std::time::Instant::now();
    let status = bench
        .until("h", |status| status.consumer.as_ref().unwrap().dead == 1)
        .await;
    assert_eq!(status.consumer.unwrap().outstanding, 0);
    let history = bench.store().history(b"/in/loop", 100).await.unwrap();
    assert_eq!(history.entries.len(), 17);
    let last = bench.logs("h").await.pop().unwrap();
    assert!(
        last.what
            .starts_with("hook not run for /in/loop: the change is the last of 16"),
        "{}",
        last.what
    );
    // The runs of one second come at once, the deep rest at the bounded rate.
    assert!(
        began.elapsed() >= Duration::from_millis(250),
        "{:?}",
        began.elapsed()
    );
    assert!(last.what.contains("/in/loop"));
}
