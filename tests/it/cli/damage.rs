//! Damaged files: what the commands say of them, and how a person gets on.

use std::{fs, path::PathBuf};

use super::harness::Home;

// The log of the only author in the root store.
fn own_log(home: &Home) -> PathBuf {
    let store = fs::read_dir(home.data().join("stores")).unwrap();
    let logs = store.last().unwrap().unwrap().path().join("logs");
    fs::read_dir(logs).unwrap().last().unwrap().unwrap().path()
}

#[test]
fn own_log_that_was_cut_is_refused_until_it_is_repaired() {
    let home = Home::initialised();
    insta::assert_snapshot!(home.run(&["repair"]), @r#"
    store [uuid] (root): nothing to repair
    exit 0
    "#);
    let log = own_log(&home);
    home.run(&["put", "/t/a", "1"]).ok();
    let older = fs::read(&log).unwrap();
    home.run(&["put", "/t/a", "2"]).ok();
    home.run(&["put", "/t/b", "2"]).ok();
    // A backup of one file, not of the directory.
    fs::write(&log, older).unwrap();
    insta::assert_snapshot!(home.run(&["put", "/t/c", "3"]), @r#"
    error: the end of this node's own log is gone: entries 3 to 4 were durable, and are not in its file
    hint: put the newest copy of the file back, or give the entries up: `lattice repair`
    exit 6
    "#);
    assert_eq!(home.run(&["get", "/t/b"]).ok(), "2");
    let status = home.run(&["status"]).ok();
    assert!(
        status.contains("! writes are refused: the end of this node's own log is gone"),
        "{status}"
    );
    let report = home.run(&["verify"]);
    assert_eq!(report.code, 6, "{report}");
    insta::assert_snapshot!(home.run(&["repair"]), @r#"
    error: repair asks before it gives entries up, and stdin is no terminal
    hint: add --yes
    exit 2
    "#);
    insta::assert_snapshot!(home.run(&["repair", "--yes"]), @r#"
    store [uuid] (root): gave up 2 entries, 3 to 4 of [id].log
    exit 0
    "#);
    assert_eq!(home.run(&["get", "/t/a"]).ok(), "1");
    assert_eq!(home.run(&["get", "/t/b"]).code, 3);
    home.run(&["put", "/t/c", "3"]).ok();
    home.run(&["verify"]).ok();
    insta::assert_snapshot!(home.run(&["repair", "--json"]), @r#"
    {"type":"repaired","store":"[uuid]","name":"root","root":true,"lost":[]}
    exit 0
    "#);
}

#[test]
fn repair_while_the_node_runs_tells_watchers_to_forget() {
    let home = Home::initialised();
    home.run(&["put", "/t/a", "1"]).ok();
    fs::remove_file(own_log(&home)).unwrap();
    let _node = home.up();
    let mut watch = home.start(&["watch", "/t/", "--json"]);
    watch.line_with(r#""key":"/t/a""#);
    watch.line_with("caught_up");
    insta::assert_snapshot!(home.run(&["repair", "--yes"]), @r#"
    store [uuid] (root): gave up 2 entries, 1 to 2 of [id].log
    exit 0
    "#);
    watch.line_with(r#""type":"gap""#);
    watch.line_with("caught_up");
    home.run(&["put", "/t/b", "1"]).ok();
    watch.line_with(r#""key":"/t/b""#);
    assert_eq!(home.run(&["list", "/t/"]).ok().lines().count(), 1);
}
