//! init, up, down, signals, and commands without a node.

use std::fs;

use lattice::limits::DESCRIPTORS_MAX;
use rustix::process::Signal;

use super::harness::Home;

#[test]
fn init_twice_changes_nothing() {
    let home = Home::new();
    let key = home.data().join("identity.key");
    insta::assert_snapshot!(home.run(&["init"]), @r#"
    created  [home]/data
    node     [id]
    next     lattice up
    exit 0
    "#);
    let before = fs::read(&key).unwrap();
    insta::assert_snapshot!(home.run(&["init"]), @r#"
    exists   [home]/data (nothing was changed)
    node     [id]
    next     lattice up
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["init", "--json"]), @r#"
    {"type":"init","node":"[id]","data_dir":"[home]/data","created":false}
    exit 0
    "#);
    assert_eq!(fs::read(&key).unwrap(), before);
}

#[test]
fn up_prints_its_place_and_down_stops_it() {
    let home = Home::new();
    let node = home.up();
    insta::assert_snapshot!(home.run(&["down"]), @r#"
    stopped  process [pid]
    exit 0
    "#);
    insta::assert_snapshot!(node.end(), @r#"
    node    [id]
    data    [home]/data (created)
    socket  [home]/data/run/sock
    next    in another terminal: lattice put /hello world
    stop    Ctrl-C, or `lattice down`; see changes with `lattice watch /`
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["down"]), @r#"
    error: no node is running on [home]/data
    exit 5
    "#);
    assert!(!home.data().join("run/sock").exists());
}

/// A process begins with a low limit on many systems, and may raise it.
#[cfg(target_os = "linux")]
#[test]
fn up_raises_its_limit_of_descriptors() {
    let shell = ["/bin/sh", "-c", "ulimit -Sn 256; exec \"$0\" \"$@\""];
    let home = Home::at("127.0.0.1:0".to_owned(), shell.map(str::to_owned).to_vec());
    let node = home.up();
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.pid())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<_> = files.unwrap().split_whitespace().collect();
    let number = |word: &str| word.parse().unwrap_or(u64::MAX);
    let (soft, hard) = (number(words[3]), number(words[4]));
    assert_eq!(soft, hard.min(DESCRIPTORS_MAX));
    assert_eq!(home.run(&["down"]).code, 0);
}

#[test]
fn up_streams_puts_of_others() {
    let home = Home::new();
    let mut node = home.start(&["up", "--watch", "/t/"]);
    node.line_with("stop ");
    home.run(&["put", "/t/hello", "world"]).ok();
    insta::assert_snapshot!(super::harness::redact(&node.line_with("/t/hello"), "[no home]"), @"[time]  put     /t/hello  world  [short]");
    node.signal(Signal::TERM);
    assert_eq!(node.end().code, 0);
}

#[test]
fn up_prints_objects_for_programs() {
    let home = Home::new();
    let mut node = home.start(&["up", "--json", "--watch", "/t/"]);
    node.line_with("\"type\":\"caught_up\"");
    home.run(&["down"]).ok();
    insta::assert_snapshot!(node.end(), @r#"
    {"type":"up","node":"[id]","data_dir":"[home]/data","socket":"[home]/data/run/sock","pid":[pid],"created":true}
    {"type":"caught_up","cursor":"[cursor]"}
    exit 0
    "#);
}

#[test]
fn signal_stops_the_node_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let home = Home::new();
        let node = home.up();
        home.run(&["put", "/t/a", "1"]).ok();
        node.signal(signal);
        assert_eq!(node.end().code, 0, "{signal:?}");
        assert_eq!(home.run(&["get", "/t/a"]).ok(), "1");
        assert!(!home.data().join("run/sock").exists(), "{signal:?}");
    }
}

#[test]
fn signal_ends_a_watch_with_130() {
    let home = Home::initialised();
    let _node = home.up();
    let mut watch = home.start(&["watch", "/t/", "--json"]);
    watch.line_with("caught_up");
    watch.signal(Signal::INT);
    assert_eq!(watch.end().code, 130);
}

#[test]
fn without_a_node_a_command_opens_the_store() {
    let home = Home::initialised();
    insta::assert_snapshot!(home.run(&["put", "/t/a", "1"]), @r#"
    [id]
    note: no node is running; written to the store here, peers get it when one runs
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["put", "/t/a", "2", "--json"]), @r#"
    {"type":"written","entry":"[id]","author":"[id]","seq":2,"wall_ms":[ms],"counter":[n]}
    {"type":"notice","notice":"no_node","message":"no node is running; written to the store here, peers get it when one runs"}
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["get", "/t/a"]), @"2exit 0");
}

#[test]
fn without_a_node_a_watch_is_one() {
    let home = Home::initialised();
    let mut watch = home.start(&["watch", "/t/", "--json"]);
    watch.line_with("caught_up");
    let put = home.run(&["put", "/t/a", "1"]);
    assert!(put.stderr.is_empty(), "{put}");
    watch.line_with("\"key\":\"/t/a\"");
    home.run(&["down"]).ok();
    assert_eq!(watch.end().code, 0);
}

#[test]
fn killed_node_leaves_nothing_in_the_way() {
    let home = Home::new();
    let node = home.up();
    home.run(&["put", "/t/a", "1"]).ok();
    node.signal(Signal::KILL);
    assert_eq!(node.end().code, -1);
    assert!(home.data().join("run/sock").exists());
    assert_eq!(home.run(&["get", "/t/a"]).ok(), "1");
    let _node = home.up();
    assert_eq!(home.run(&["get", "/t/a"]).ok(), "1");
}

/// A directory whose socket no system binds was filled with an identity and a store first.
#[test]
fn too_long_socket_path_creates_nothing() {
    let home = Home::new();
    let deep = home.path(&"d".repeat(120));
    let deep = deep.to_str().unwrap();
    let ran = home.run(&["up", "--data-dir", deep]);
    assert_eq!(ran.code, 2, "{ran}");
    assert!(ran.stderr.contains("the system allows 107"), "{ran}");
    assert!(!fs::exists(deep).unwrap());
}

/// The name was written with the escapes of Rust, which JSON does not have.
#[test]
fn info_of_the_node_is_json_for_any_name() {
    let home = Home::new();
    let name = "Zo\u{eb}'s \"kitchen\" \\ 1";
    home.run(&["init", "--name", name]).ok();
    let listed = home.run(&["list", "/nodes/", "--json"]).json();
    let info = listed
        .iter()
        .find(|item| item["key"].as_str().unwrap().ends_with("/info"))
        .unwrap();
    let info: serde_json::Value = serde_json::from_str(info["value"].as_str().unwrap()).unwrap();
    assert_eq!(info["name"], name);
}
