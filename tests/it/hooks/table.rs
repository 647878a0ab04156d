//! `hooks.toml` is edited while a node runs.

use std::{fs, time::Duration};

use lattice::{
    hooks::{Hook, HooksError},
    store::consumers::ConsumerStart,
};

use super::setup::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn edited_hook_goes_on_where_it_was() {
    let bench = Bench::new().await;
    let file = bench.node.data_dir().join("hooks.toml");
    bench.script("note.sh", "echo $1 $LATTICE_KEY >> ran; sleep 0.05");
    let dir = bench.dir.path().display();
    let text = |on: &str, word: &str| {
        format!(
            "[h]\non = \"{on}\"\nrun = [\"./note.sh\", \"{word}\"]\ndir = \"{dir}\"\nparallel = 2\n"
        )
    };
    fs::write(&file, text("/in/", "one")).unwrap();
    bench
        .until("h", |status| status.state.name() == "running")
        .await;
    for n in 0..10 {
        bench.put(&format!("/in/{n}"), "x").await;
    }
    // While it runs.
    fs::write(&file, text("/in/", "two")).unwrap();
    bench
        .until("h", |status| status.hook.as_ref().unwrap().run[1] == "two")
        .await;
    for n in 10..20 {
        bench.put(&format!("/in/{n}"), "x").await;
    }
    bench.settled("h", 20).await;
    let ran = bench.lines("ran");
    let mut keys: Vec<&str> = ran.iter().map(|line| &line[4..]).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!((ran.len(), keys.len()), (20, 20), "{ran:?}");
    assert!(ran.last().unwrap().starts_with("two"), "{ran:?}");

    // Other keys: from where it is.
    bench.put("/else/before", "x").await;
    bench
        .until("h", |status| {
            status.consumer.as_ref().unwrap().backlog_entries == 0
        })
        .await;
    fs::write(&file, text("/", "three")).unwrap();
    bench
        .until("h", |status| {
            status.hook.as_ref().unwrap().run[1] == "three"
        })
        .await;
    bench.put("/else/after", "x").await;
    bench.settled("h", 21).await;
    assert_eq!(bench.lines("ran")[20..], ["three /else/after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mistake_in_the_file_changes_nothing() {
    let bench = Bench::new().await;
    bench.add("h", bench.hook("echo $LATTICE_KEY >> ran")).await;
    let file = bench.node.data_dir().join("hooks.toml");
    let right = fs::read_to_string(&file).unwrap();
    fs::write(&file, right.replace("on = ", "om = ")).unwrap();
    let list = bench.hooks.list().await.unwrap();
    let broken = list.broken.unwrap();
    assert!(
        broken.contains("hooks.toml:2:1: unknown field `om`"),
        "{broken}"
    );
    assert_eq!(list.hooks[0].state.name(), "running");
    bench.put("/in/a", "1").await;
    bench.settled("h", 1).await;
    assert_eq!(bench.lines("ran"), ["/in/a"]);
    let refused = bench
        .hooks
        .add("i", bench.hook("true"), ConsumerStart::Now)
        .await;
    assert!(matches!(refused, Err(HooksError::File(_))), "{refused:?}");
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        right.replace("on = ", "om = ")
    );

    fs::write(&file, &right).unwrap();
    assert_eq!(bench.hooks.list().await.unwrap().broken, None);
    bench.put("/in/b", "1").await;
    bench.settled("h", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hook_removed_by_hand_can_return() {
    let bench = Bench::new().await;
    bench.add("h", bench.hook("echo $LATTICE_KEY >> ran")).await;
    bench.put("/in/a", "1").await;
    bench.settled("h", 1).await;
    let file = bench.node.data_dir().join("hooks.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, "").unwrap();
    let gone = bench.until("h", |status| status.hook.is_none()).await;
    assert_eq!(gone.state.name(), "off");
    bench.put("/in/b", "1").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bench.lines("ran"), ["/in/a"]);
    fs::write(&file, text).unwrap();
    bench.until("h", |status| status.hook.is_some()).await;
    bench.settled("h", 2).await;
    assert_eq!(bench.lines("ran"), ["/in/a", "/in/b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_hook_leaves_nothing() {
    let bench = Bench::new().await;
    let hook = bench.hook("echo $LATTICE_KEY >> ran; sleep 30");
    bench.add("h", hook.clone()).await;
    bench.add("h", hook.clone()).await;
    let other = Hook {
        attempts: 9,
        ..hook.clone()
    };
    let refused = bench.hooks.add("h", other, ConsumerStart::Now).await;
    assert!(matches!(refused, Err(HooksError::Exists { .. })));
    bench.put("/in/a", "1").await;
    bench
        .until("h", |status| status.health.as_ref().unwrap().running == 1)
        .await;
    bench.hooks.remove("h").await.unwrap();
    assert!(bench.hooks.list().await.unwrap().hooks.is_empty());
    assert!(bench.store().consumers().await.unwrap().is_empty());
    for unknown in ["h", "none"] {
        let removed = bench.hooks.remove(unknown).await;
        assert!(matches!(removed, Err(HooksError::Unknown { .. })));
    }
    for bad in ["", "../x", ".x", "a b", "a/b", &"x".repeat(49)] {
        let refused = bench.hooks.add(bad, hook.clone(), ConsumerStart::Now).await;
        assert!(matches!(refused, Err(HooksError::Hook(_))), "{bad}");
        assert!(bench.hooks.logs(bad, 1).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hook_waits_for_its_store() {
    let bench = Bench::new().await;
    let file = bench.node.data_dir().join("hooks.toml");
    let dir = bench.dir.path().display();
    bench.script("note.sh", "echo $LATTICE_KEY >> ran");
    let text = format!("[h]\nstore = \"side\"\nrun = [\"./note.sh\"]\ndir = \"{dir}\"\n");
    fs::write(&file, text).unwrap();
    let status = bench
        .until("h", |status| status.state.name() == "trouble")
        .await;
    assert!(status.reason.contains("side"), "{}", status.reason);
    bench.node.create_store("side").await.unwrap();
    bench
        .until("h", |status| status.state.name() == "running")
        .await;
    let store = bench.node.store("side").unwrap();
    store.put("/k", "1").await.unwrap();
    bench.settled("h", 1).await;
    assert_eq!(bench.lines("ran"), ["/k"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hook_without_its_consumer_starts_again() {
    let bench = Bench::new().await;
    bench.add("h", bench.hook("echo $LATTICE_KEY >> ran")).await;
    bench.store().consumer("hook.h").delete().await.unwrap();
    bench
        .until("h", |status| {
            status.state.name() == "running" && status.consumer.is_some()
        })
        .await;
    bench.put("/in/a", "1").await;
    bench.settled("h", 1).await;
    assert_eq!(bench.lines("ran"), ["/in/a"]);
}

// A hook that could not be written down, on a full disk, left its consumer behind: a hook that does
// nothing, is listed as one that was removed, and keeps its place for ever.
#[tokio::test(flavor = "multi_thread")]
async fn hook_that_cannot_be_saved_leaves_nothing() {
    let bench = Bench::new().await;
    bench.add("there", bench.hook("true")).await;
    let in_the_way = bench.node.data_dir().join("hooks.toml.new");
    fs::create_dir(&in_the_way).unwrap();
    let add = |name| {
        bench
            .hooks
            .add(name, bench.hook("true"), ConsumerStart::Now)
    };
    assert!(matches!(add("h").await, Err(HooksError::File(_))));
    let names = || async {
        let list = bench.hooks.list().await.unwrap().hooks.into_iter();
        list.map(|hook| hook.name).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["there"]);
    // One that is only not in the file any more keeps its place.
    fs::write(bench.node.data_dir().join("hooks.toml"), "").unwrap();
    assert!(matches!(add("there").await, Err(HooksError::File(_))));
    assert_eq!(names().await, ["there"]);
    fs::remove_dir(&in_the_way).unwrap();
    add("h").await.unwrap();
    assert_eq!(names().await, ["h", "there"]);
}
