//! Reads on a store whose log begins later: each says how far back it reaches, and is exact within that.

use std::{thread, time::Duration};

use lattice::{Node, NodeConfig, clock::time_text};

use super::harness::Home;

/// Returns the first second from which on history is whole. `/k` is `old` until then.
async fn fill(home: &Home) -> String {
    let config = NodeConfig::new(home.data());
    let node = Node::open(config).await.unwrap();
    node.create_store("s").await.unwrap();
    let store = node.store("s").unwrap();
    for (key, value) in [("/k", "oldest"), ("/gone", "x"), ("/k", "old")] {
        store.put(key, value).await.unwrap();
    }
    store.delete("/gone").await.unwrap();
    store.drop_before(store.frontier()).await.unwrap();
    let whole = time_text(store.now_ms());
    // The next whole second is past; a command line takes no part of one.
    thread::sleep(Duration::from_millis(1100));
    store.put("/k", "new").await.unwrap();
    store.put("/later", "y").await.unwrap();
    node.close().await.unwrap();
    whole
}

#[test]
fn each_read_says_how_far_back_it_reaches() {
    let home = Home::initialised();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let whole = runtime.block_on(fill(&home));
    let before = "2020-01-01T00:00:00Z";
    let run = |arguments: &[&str]| home.run(&[arguments, &["--store", "s"]].concat());
    assert_eq!(run(&["get", "/k", "--at", &whole]).ok().trim(), "old");
    assert_eq!(run(&["list", "--at", &whole]).ok().trim(), "/k\told");
    let changed = run(&["diff", "--from", &whole]).ok();
    assert!(changed.contains("~ /k\tnew  (was old)"), "{changed}");
    assert!(changed.contains("+ /later\ty"), "{changed}");
    assert_eq!(changed.lines().count(), 2, "{changed}");
    let said = |arguments: &[&str]| run(arguments).to_string();
    for refused in [
        &["get", "/k", "--at", before][..],
        &["list", "--at", before],
        &["diff", "--from", before],
        &["log", "--after", "0"],
    ] {
        let ran = said(refused);
        for words in [
            "begins after entry 4: earlier entries were removed",
            "history is whole since",
            "exit 1",
        ] {
            assert!(ran.contains(words), "{refused:?}: {ran}");
        }
    }
    // A key that was written only since then has no earlier value.
    assert_eq!(run(&["get", "/later", "--at", before]).code, 3);
    let history = said(&["history", "/k"]);
    assert!(
        history.contains("new") && history.contains("older entries were removed here"),
        "{history}"
    );
    assert!(!history.contains("--limit"), "{history}");
    let later = said(&["history", "/later"]);
    assert!(!later.contains("removed"), "{later}");
    let log = said(&["log"]);
    assert!(log.contains("entries 1 to 4 were removed"), "{log}");
    assert!(
        log.contains("put /k=new") && log.contains("put /later=y"),
        "{log}"
    );
    let newest = said(&["log", "--limit", "2"]);
    assert!(!newest.contains("removed"), "{newest}");
    let gap = said(&["watch", "--since", before, "--json", "-c", "1"]);
    assert!(
        gap.contains("\"type\":\"gap\"") && gap.contains("reach_ms"),
        "{gap}"
    );
}
