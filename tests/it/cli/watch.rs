//! Watch streams at the command line.

use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::harness::Home;

#[test]
fn events_are_objects_with_a_type() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["put", "/t/a", "1"]).ok();
    let mut watch = home.start(&["watch", "/t/", "--json", "-c", "4"]);
    watch.line_with("caught_up");
    home.run(&["put", "/t/b", "2", "--ttl", "300ms"]).ok();
    watch.line_with("\"expire\"");
    home.run(&["delete", "/t/a"]).ok();
    insta::assert_snapshot!(watch.end(), @r#"
    {"type":"put","key":"/t/a","value":"1","entry":"[id]","author":"[id]","seq":1,"wall_ms":[ms],"counter":[n],"op_index":0,"op_count":1,"atomic":false,"heads":["[id]"],"conflict":false,"origin":"initial","late":false}
    {"type":"caught_up","cursor":"[cursor]"}
    {"type":"put","key":"/t/b","value":"2","entry":"[id]","author":"[id]","seq":2,"wall_ms":[ms],"counter":[n],"op_index":0,"op_count":1,"atomic":false,"expires_ms":[ms],"heads":["[id]"],"conflict":false,"origin":"local","arrived_ms":[ms],"late":false}
    {"type":"expire","key":"/t/b","entry":"[id]","author":"[id]","seq":2,"wall_ms":[ms],"counter":[n],"op_index":0,"op_count":1,"atomic":false,"expires_ms":[ms],"heads":["[id]"],"conflict":false,"previous":"[id]","origin":"local","arrived_ms":[ms],"late":false}
    {"type":"delete","key":"/t/a","entry":"[id]","author":"[id]","seq":3,"wall_ms":[ms],"counter":[n],"op_index":0,"op_count":1,"atomic":false,"heads":["[id]"],"conflict":false,"previous":"[id]","origin":"local","arrived_ms":[ms],"late":false}
    exit 0
    "#);
}

#[test]
fn plain_lines_for_people() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["put", "/t/a", "one\ntwo"]).ok();
    home.run(&["put", "/t/b", "2"]).ok();
    home.run(&["delete", "/t/b"]).ok();
    insta::assert_snapshot!(home.run(&["watch", "/t/", "--until-caught-up"]), @r#"
    [time]  put     /t/a  one\ntwo  [short]
    exit 0
    "#);
    insta::assert_snapshot!(
        home.run(&["watch", "/t/", "--until-caught-up", "--since", "1h", "--keys-only"]), @r#"
    [time]  put     /t/a  [short]
    [time]  put     /t/b  [short] (late)
    [time]  delete  /t/b  [short]
    exit 0
    "#);
}

#[test]
fn cursor_resumes_where_a_watch_ended() {
    let home = Home::initialised();
    let _node = home.up();
    for n in 1..=4 {
        home.run(&["put", "/t/a", &n.to_string()]).ok();
    }
    let from_start = [
        "watch",
        "/t/",
        "--json",
        "--cursors",
        "--since",
        "1h",
        "-c",
        "2",
    ];
    let first = home.run(&from_start).json();
    let cursor = first[1]["cursor"].as_str().unwrap();
    let rest = home.run(&[
        "watch",
        "/t/",
        "--json",
        "--after",
        cursor,
        "--until-caught-up",
    ]);
    let values: Vec<_> = rest
        .json()
        .iter()
        .map(|event| event["value"].clone())
        .collect();
    assert_eq!(
        values,
        ["3".into(), "4".into(), serde_json::Value::Null],
        "{rest}"
    );
}

#[test]
fn filters_select_changes() {
    let home = Home::initialised();
    let _node = home.up();
    home.feed(&["put", "--stdin"], "/t/1\ta\n/t/10\tb\n").ok();
    home.run(&["delete", "/t/10"]).ok();
    let own = home.run(&["status", "--json"]).json()[0]["node"]
        .as_str()
        .unwrap()
        .to_owned();
    let since = |extra: &[&str]| {
        let common = [
            "watch",
            "/t/1",
            "--json",
            "--since",
            "1h",
            "--until-caught-up",
        ];
        let events = home.run(&[&common, extra].concat()).json();
        events.len() - 1
    };
    assert_eq!(since(&[]), 3);
    assert_eq!(since(&["--exact"]), 1);
    assert_eq!(since(&["--only", "delete"]), 1);
    assert_eq!(since(&["--only", "put,delete"]), 3);
    assert_eq!(since(&["--only", "conflict"]), 0);
    assert_eq!(since(&["--author", &own[..8]]), 3);
}

#[test]
fn timeout_is_exit_8() {
    let home = Home::initialised();
    let _node = home.up();
    insta::assert_snapshot!(home.run(&["watch", "/t/", "--timeout", "50ms"]), @r#"
    error: timed out after 50ms
    exit 8
    "#);
}

#[test]
fn head_ends_a_quiet_watch() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["put", "/t/a", "1"]).ok();
    let mut watch = home.command(&["watch", "/t/", "--json"]).spawn().unwrap();
    let head = Command::new("head")
        .args(["-n", "1"])
        .stdin(watch.stdout.take().unwrap())
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    assert!(String::from_utf8(head.stdout).unwrap().contains("\"/t/a\""));
    let output = watch.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stderr, b"");
}

#[test]
fn watch_survives_its_node() {
    let home = Home::initialised();
    let node = home.up();
    home.run(&["put", "/t/a", "1"]).ok();
    let mut watch = home.start(&["watch", "/t/", "--json", "-c", "4"]);
    watch.line_with("caught_up");
    home.run(&["put", "/t/a", "2"]).ok();
    watch.line_with("\"value\":\"2\"");
    node.signal(Signal::KILL);
    node.end();
    // The watch does not get this one.
    home.run(&["put", "/t/a", "3"]).ok();
    let _node = home.up();
    home.run(&["put", "/t/a", "4"]).ok();
    let seen = watch.end();
    let events = seen.json();
    let values: Vec<_> = events
        .iter()
        .filter_map(|event| event["value"].as_str())
        .collect();
    assert_eq!(values, ["1", "2", "3", "4"], "{seen}");
    assert!(
        seen.stderr.contains("\"notice\":\"disconnected\""),
        "{seen}"
    );
    assert!(seen.stderr.contains("\"notice\":\"reconnected\""), "{seen}");
    assert_eq!(seen.code, 0);
}

#[test]
fn watch_without_reconnect_ends_with_its_node() {
    let home = Home::initialised();
    let node = home.up();
    let mut watch = home.start(&["watch", "/t/", "--json", "--no-reconnect"]);
    watch.line_with("caught_up");
    node.signal(Signal::TERM);
    assert_eq!(node.end().code, 0);
    assert_eq!(watch.end().code, 5);
}
