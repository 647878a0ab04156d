//! One data directory on two machines: what both report, and how a person repairs it.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::harness::{Home, PATIENCE};
use crate::support::files::copy_all;

fn has_heard(home: &Home, value: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !home.run(&["heads", "/k"]).raw.contains(value) {
        assert!(Instant::now() < deadline, "nobody told it {value}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn copied_directory_fork_is_shown_and_repaired() {
    let a = Home::new();
    let _a_node = a.up();
    let (b, copied) = (Home::new(), Home::new());
    let token = a.run(&["invite"]).raw;
    b.run(&["join", token.trim(), "--name", "b"]).ok();
    copy_all(&b.data(), &copied.data());
    // With nobody to ask, each writes in the same place of one log.
    b.run(&["put", "/k", "original"]).ok();
    copied.run(&["put", "/k", "copy"]).ok();
    let copied_node = copied.up();
    has_heard(&a, "copy");
    copied_node.signal(Signal::TERM);
    copied_node.end();
    let _b_node = b.up();
    has_heard(&a, "original");

    insta::assert_snapshot!(b.run(&["put", "/k", "more"]), @"
    error: this node's own log has forked at entry 1: two places have written with its key
    hint: stop the other node that uses this data directory or a copy of it, then run `lattice repair`; `lattice init --new-identity` makes a copy a node of its own
    exit 1
    ");
    let status = a.run(&["status"]).ok();
    assert!(status.contains("the fork is open"), "{status}");
    assert!(a.run(&["peers"]).ok().contains("FORKED"));
    // The node itself has met the proof, too.
    let own = b.run(&["peers"]).ok();
    assert!(own.lines().nth(1).unwrap().contains("this node"), "{own}");
    assert!(own.contains("! b: FORKED"), "{own}");
    insta::assert_snapshot!(b.run(&["repair"]), @"
    store [uuid] (root): nothing to repair
    store [uuid] (data): closed the fork of this node's log with entry 2 ([short])
    exit 0
    ");
    b.run(&["put", "/k", "settled"]).ok();
    let status = b.run(&["status", "--json"]).json();
    let forks = &status[0]["stores"][0]["forks"];
    assert_eq!(forks[0]["closed"], true, "{forks}");
    assert_eq!(forks[0]["entries"].as_array().unwrap().len(), 2);
    has_heard(&a, "settled");
    assert!(!a.run(&["peers"]).ok().contains("FORKED"));
}
