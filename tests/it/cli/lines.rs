//! Many writes from stdin.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use super::harness::Home;

#[test]
fn every_line_arrives_once_and_in_order() {
    let home = Home::initialised();
    let _node = home.up();
    let count = 5000;
    let mut watch = home.start(&["watch", "/t/", "--json", "--no-initial", "-c", "5000"]);
    // `--no-initial` has begun when it says so.
    watch.line_with("caught_up");
    let lines: String = (0..count).map(|n| format!("/t/{n}\tvalue {n}\n")).collect();
    insta::assert_snapshot!(home.feed(&["put", "--stdin", "--format", "tsv"], lines), @r#"
    5000 written
    exit 0
    "#);
    let seen = watch.end();
    assert_eq!(seen.code, 0);
    let events = seen.json();
    let changes = events.iter().filter(|event| event["type"] == "put");
    let keys: Vec<_> = changes
        .map(|event| event["key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        keys,
        (0..count).map(|n| format!("/t/{n}")).collect::<Vec<_>>()
    );
}

#[test]
fn bad_line_is_named_and_earlier_ones_kept() {
    let home = Home::initialised();
    let _node = home.up();
    let ran = home.feed(&["put", "--stdin"], "/t/a\t1\n/t/b\t2\nbad\n/t/c\t3\n");
    insta::assert_snapshot!(ran, @r#"
    2 written
    error: line 3: expected key<TAB>value, found no tab; 2 written and kept, the rest was not sent
    exit 7
    "#);
    insta::assert_snapshot!(home.run(&["list", "/t/"]), @r#"
    /t/a	1
    /t/b	2
    exit 0
    "#);
    let lines = "{\"key\":\"/t/d\",\"value\":\"4\"}\n{\"key\":\"/t/e\"}\n";
    let ran = home.feed(&["put", "--stdin", "--format", "json", "--json"], lines);
    insta::assert_snapshot!(ran, @r#"
    {"type":"writes","written":1}
    {"type":"error","error":"bad_line","message":"line 2: expected one of value, value_base64 and \"delete\": true; 1 written and kept, the rest was not sent","exit_code":7}
    exit 7
    "#);
}

#[test]
fn bad_first_line_is_a_usage_error() {
    let home = Home::initialised();
    let ran = home.feed(&["put", "--stdin"], "bad\n/t/a\t1\n");
    insta::assert_snapshot!(ran, @r#"
    0 written
    error: line 1: expected key<TAB>value, found no tab
    exit 2
    "#);
    assert_eq!(home.run(&["get", "/t/a"]).code, 3);
}

#[test]
fn json_lines_can_be_binary_and_delete() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["put", "/t/old", "x"]).ok();
    let lines = concat!(
        r#"{"key_base64": "L3Qv/w==", "value_base64": "AP8="}"#,
        "\n",
        r#"{"key": "/t/text", "value": "tab\there", "ttl_ms": 3600000}"#,
        "\n",
        r#"{"key": "/t/old", "delete": true}"#,
        "\n",
    );
    insta::assert_snapshot!(home.feed(&["put", "--stdin", "--format", "json"], lines), @r#"
    3 written
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["list", "/t/", "--json"]), @r#"
    {"type":"item","key":"/t/text","value":"tab\there","entry":"[id]","author":"[id]","seq":2,"wall_ms":[ms],"counter":[n],"expires_ms":[ms],"heads":["[id]"],"conflict":false}
    {"type":"item","key_base64":"L3Qv/w==","value_base64":"AP8=","entry":"[id]","author":"[id]","seq":2,"wall_ms":[ms],"counter":[n],"heads":["[id]"],"conflict":false}
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["list", "/t/", "--keys-only"]), @r#"
    /t/text
    /t/\xff
    exit 0
    "#);
}

/// `lattice list > backup.tsv; lattice put --stdin < backup.tsv` changed values without a word: a
/// newline became a backslash and an n, a TTL was lost, and so was a delete in what `watch` printed.
#[test]
fn printed_lines_can_be_put_elsewhere() {
    let home = Home::initialised();
    let _node = home.up();
    let lines = concat!(
        r#"{"key_base64": "L3QvcmF3/wAKCVw=", "value_base64": "AP8KCVxuDQ=="}"#,
        "\n",
        r#"{"key": "/t/lease", "value": "\\n is no newline", "expires_ms": 4000000000000}"#,
        "\n",
        r#"{"key": "/t/gone", "value": "expires_ms=1"}"#,
        "\n",
    );
    home.feed(&["put", "--stdin", "--format", "json"], lines)
        .ok();
    home.run(&["delete", "/t/gone"]).ok();
    insta::assert_snapshot!(home.run(&["list", "/t/"]), @r#"
    /t/lease	\\n is no newline	expires_ms=[ms]
    /t/raw\xff\x00\n\t\\	\x00\xff\n\t\\n\r
    exit 0
    "#);
    let author = home.run(&["status", "--json"]).json()[0]["node"].clone();
    let watch = ["watch", "/t/", "--since", "1h", "--until-caught-up"];
    let log = ["log", author.as_str().unwrap(), "--after", "0"];
    for (number, (format, command)) in [
        ("tsv", vec!["list", "/t/"]),
        ("json", vec!["list", "/t/", "--json"]),
        ("tsv", [&watch[..], &["--tsv"]].concat()),
        ("json", [&watch[..], &["--json"]].concat()),
        ("tsv", [&log[..], &["--tsv"]].concat()),
        ("json", [&log[..], &["--json", "--reverse"]].concat()),
    ]
    .into_iter()
    .enumerate()
    {
        let copy = format!("copy{number}");
        home.run(&["store", "create", &copy]).ok();
        let printed = home.run(&command).raw;
        let put = ["--store", &copy, "put", "--stdin", "--format", format];
        let copied = home.feed(&put, printed);
        assert_eq!(copied.code, 0, "{command:?}: {copied}");
        let listed = home.run(&["--store", &copy, "list", "/t/"]).ok();
        assert_eq!(listed, home.run(&["list", "/t/"]).ok(), "{command:?}");
    }
}

#[test]
fn json_mistakes_are_named_with_their_line() {
    let home = Home::initialised();
    let put = |line: &str| {
        let lines = format!("\n{line}\n");
        home.feed(&["put", "--stdin", "--format", "json"], lines)
    };
    insta::assert_snapshot!(put(r#"{"key": "/a", "value": "x", "ttl": 5}"#), @r#"
    0 written
    error: line 2: unknown field "ttl"; the fields of a write are key, value, delete, ttl_ms, expires_ms, key_base64 and value_base64, at column 33
    exit 2
    "#);
    insta::assert_snapshot!(put(r#"{"key": "/a", "value": {"b": 1}}"#), @r#"
    0 written
    error: line 2: value is an object, and must be text: put it in quotes, and a backslash before each quote in it, at column 32
    exit 2
    "#);
    insta::assert_snapshot!(home.feed(&["put", "--stdin"], "/a\tC:\\Users\n"), @r#"
    0 written
    error: line 1: a backslash is written \\; the other escapes are \n, \t, \r and \xNN; --format raw takes bytes as they are
    exit 2
    "#);
    home.feed(&["put", "--stdin", "--format", "raw"], "/a\tC:\\Users\tx\n")
        .ok();
    assert_eq!(home.run(&["get", "/a"]).ok(), "C:\\Users\tx");
    assert_eq!(home.run(&["get", "/b"]).code, 3);
}

#[test]
fn batch_is_one_atomic_entry() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["put", "/t/old", "x"]).ok();
    let mut watch = home.start(&["watch", "/t/", "--json", "--no-initial", "-c", "2"]);
    watch.line_with("caught_up");
    insta::assert_snapshot!(home.feed(&["batch"], "put\t/t/a\t1\ndelete\t/t/old\n"), @r#"
    [id]
    exit 0
    "#);
    let seen = watch.end();
    let changes: Vec<_> = seen
        .json()
        .into_iter()
        .filter(|event| event["type"] != "caught_up")
        .collect();
    assert_eq!(changes[0]["entry"], changes[1]["entry"]);
    assert!(changes.iter().all(|change| change["atomic"] == true));
    assert_eq!(changes[1]["type"], "delete");
}

#[test]
fn faulty_batch_does_nothing() {
    let home = Home::initialised();
    insta::assert_snapshot!(home.feed(&["batch"], "put\t/t/a\t1\nput\t/t/a\t2\n"), @r#"
    error: an entry names each key at most once; "/t/a" comes twice
    exit 2
    "#);
    insta::assert_snapshot!(home.feed(&["batch"], "put\t/t/a\t1\n/t/b\t2\n"), @r#"
    error: line 2: expected put<TAB>key<TAB>value or delete<TAB>key
    exit 2
    "#);
    insta::assert_snapshot!(home.feed(&["batch"], ""), @r#"
    error: stdin has no lines
    exit 2
    "#);
    assert_eq!(home.run(&["list", "/t/"]).ok(), "");
}

#[test]
fn values_from_stdin_and_files_are_unchanged() {
    let home = Home::initialised();
    let _node = home.up();
    let value = b"\0\x01line\n\tend\n";
    home.feed(&["put", "/t/stdin", "-"], value).ok();
    std::fs::write(home.path("file"), value).unwrap();
    home.run(&[
        "put",
        "/t/file",
        "--file",
        home.path("file").to_str().unwrap(),
    ])
    .ok();
    for key in ["/t/stdin", "/t/file"] {
        assert_eq!(home.run(&["get", key]).raw.as_bytes(), value);
    }
}

#[test]
fn prefix_delete_needs_confirmation() {
    let home = Home::initialised();
    let _node = home.up();
    let lines: String = (0..2000).map(|n| format!("/t/{n}\tx\n")).collect();
    home.feed(&["put", "--stdin"], lines + "/u\tx\n").ok();
    insta::assert_snapshot!(home.run(&["delete", "--prefix", "/t/", "--yes"]), @r#"
    2000 deleted
    exit 0
    "#);
    assert_eq!(home.run(&["list", "/t/"]).ok(), "");
    assert_eq!(home.run(&["get", "/u"]).ok(), "x");
}

/// The first key that only the node itself writes ended the command, and all keys behind it stayed.
#[test]
fn prefix_delete_leaves_the_keys_of_the_node() {
    let home = Home::initialised();
    let _node = home.up();
    let root = ["--store", "root"];
    home.feed(
        &[&root[..], &["put", "--stdin"]].concat(),
        "/a\tx\n/o\tx\n/z\tx\n",
    )
    .ok();
    let all = [&root[..], &["delete", "--prefix", "", "--yes"]].concat();
    insta::assert_snapshot!(home.run(&all), @r#"
    3 deleted
    note: 3 keys were left: only the node itself writes there
    exit 0
    "#);
    let listed = home.run(&[&root[..], &["list", "/"]].concat()).ok();
    let keys = ["/a", "/o", "/z"];
    assert!(keys.iter().all(|key| !listed.contains(key)), "{listed}");
    insta::assert_snapshot!(home.run(&["delete", "--prefix", "/nodes/", "--yes", "--json"]), @r#"
    {"type":"keys_deleted","deleted":0,"reserved":2}
    {"type":"notice","notice":"reserved_keys","message":"2 keys were left: only the node itself writes there"}
    exit 0
    "#);
}

/// A delete of a key that never was wrote a tombstone, which stays for ever.
#[test]
fn delete_of_nothing_writes_nothing() {
    let home = Home::initialised();
    let _node = home.up();
    let entries = || home.run(&["log", "--json"]).json().len();
    home.run(&["put", "/t/gone", "x"]).ok();
    home.run(&["put", "/t/brief", "x", "--ttl", "1ms"]).ok();
    home.run(&["delete", "/t/gone"]).ok();
    std::thread::sleep(std::time::Duration::from_millis(5));
    let before = entries();
    for key in ["/t/never", "/t/gone", "/t/brief"] {
        let deleted = home.run(&["delete", key]);
        assert_eq!(
            (deleted.code, deleted.stdout.as_str()),
            (0, ""),
            "{deleted}"
        );
        let note = format!("note: {key} has no value; nothing was written\n");
        assert_eq!(deleted.stderr, note);
    }
    insta::assert_snapshot!(home.run(&["delete", "/t/never", "--json"]), @r#"
    {"type":"notice","notice":"nothing_to_delete","message":"/t/never has no value; nothing was written"}
    exit 0
    "#);
    let lines = "{\"key\":\"/t/never\",\"delete\":true}\n";
    let json = home.feed(&["put", "--stdin", "--format", "json", "--json"], lines);
    insta::assert_snapshot!(json, @r#"
    {"type":"writes","written":0,"absent":1}
    {"type":"notice","notice":"nothing_to_delete","message":"1 key to delete has no value; nothing was written for it"}
    exit 0
    "#);
    let deletes = "delete\t/t/never\ndelete\t/t/gone\n";
    insta::assert_snapshot!(home.feed(&["batch"], deletes), @"
    note: the keys that it deletes have no value; nothing was written
    exit 0
    ");
    let shell = home.feed(&["shell"], "delete /t/never\n");
    assert_eq!(
        shell.stderr,
        "note: /t/never has no value; nothing was written\n"
    );
    assert_eq!(entries(), before);
    let mixed = home.feed(&["batch"], format!("{deletes}put\t/t/a\t1\n"));
    assert_eq!(
        mixed.stderr,
        "note: 2 keys to delete have no value; nothing was written for them\n"
    );
    let logged = home.run(&["log", "--json", "--limit", "1"]).json();
    assert_eq!(logged[0]["ops"].as_array().unwrap().len(), 1, "{logged:?}");
    // A condition is one, and reserved keys are refused.
    let id = "0".repeat(64);
    assert_eq!(home.run(&["delete", "/t/never", "--if-head", &id]).code, 4);
    assert_eq!(home.run(&["delete", "/nodes/x"]).code, 2);
}

/// A value that was put while the keys were listed and deleted was deleted unseen.
#[test]
fn prefix_delete_keeps_a_value_written_meanwhile() {
    const KEYS: usize = 100_000;
    let home = Home::initialised();
    let _node = home.up();
    let lines: String = (0..KEYS).map(|n| format!("/t/{n:06}\tx\n")).collect();
    home.feed(&["put", "--stdin"], lines).ok();
    let deleting = home.start(&["delete", "--prefix", "/t/", "--yes"]);
    // The keys were listed when the first one is gone; the last one is not sent yet.
    while home.run(&["get", "/t/000000"]).code == 0 {}
    let last = format!("/t/{:06}", KEYS - 1);
    home.run(&["put", &last, "new"]).ok();
    insta::assert_snapshot!(deleting.end(), @r#"
    99999 deleted
    error: 1 key was written meanwhile and left
    hint: look at the new values, then run the command again to delete them, too
    exit 7
    "#);
    assert_eq!(home.run(&["get", &last]).ok(), "new");
    assert_eq!(home.run(&["list", "/t/"]).raw.lines().count(), 1);
}

/// A key that is not UTF-8 could be written from stdin, and not be named again.
#[test]
fn any_key_can_be_named() {
    let home = Home::initialised();
    let _node = home.up();
    // With a NUL byte, which no argument can have, and one that can be given as it is.
    for (key, base64) in [(&b"/raw\xff\0"[..], "L3Jhd/8A"), (b"/raw\xff", "L3Jhd/8=")] {
        let line = [key, b"\tv\n"].concat();
        home.feed(&["put", "--stdin"], line).ok();
        let run = |arguments: &[&str]| home.run(&[arguments, &["--key-base64"]].concat());
        assert_eq!(run(&["get", base64]).ok(), "v");
        run(&["put", base64, "w"]).ok();
        assert_eq!(run(&["get", base64]).ok(), "w");
        assert_eq!(run(&["history", base64, "--json"]).json().len(), 2);
        assert_eq!(
            run(&["heads", base64, "--json"]).json()[0]["key_base64"],
            base64
        );
        let listed = run(&["list", base64, "--json"]).json();
        assert_eq!(listed[0]["key_base64"], base64);
        assert_eq!(
            run(&["diff", base64, "--from", "1h"]).ok().lines().count(),
            1
        );
        let watched = run(&["watch", base64, "--exact", "--until-caught-up", "--json"]);
        assert_eq!(watched.json()[0]["key_base64"], base64);
        run(&["status", base64]).ok();
        run(&["wait", "--key", base64, "--timeout", "5s"]).ok();
        let on = [
            "on",
            base64,
            "--initial",
            "-c",
            "1",
            "--json",
            "--key-base64",
            "--",
            "cat",
        ];
        assert_eq!(home.run(&on).json()[0]["key_base64"], base64);
        let create = ["consumer", "create", "raw", base64, "--from", "start"];
        let created = run(&[&create[..], &["--json"]].concat()).json();
        assert_eq!(created[0]["prefixes"][0]["key_base64"], base64);
        home.run(&["consumer", "delete", "raw"]).ok();
        let hook = [
            "hook",
            "add",
            "raw",
            base64,
            "--json",
            "--key-base64",
            "--",
            "true",
        ];
        let added = home.run(&hook).json();
        assert_eq!(added[0]["on_base64"], base64);
        home.run(&["hook", "remove", "raw"]).ok();
        // As it is printed, so it is typed.
        let printed = home.run(&["list", "/raw", "--keys-only"]).ok();
        let typed = home.feed(&["shell"], format!("get $'{}'\n", printed.trim()));
        assert_eq!(typed.ok(), "w");
        if !key.contains(&0) {
            let mut command = home.command(&["get"]);
            command.arg(OsStr::from_bytes(key));
            assert_eq!(home.spawn(command).end().ok(), "w");
        }
        run(&["delete", base64]).ok();
        assert_eq!(run(&["get", base64]).code, 3);
    }
    insta::assert_snapshot!(home.run(&["get", "?", "--key-base64"]), @r#"
    error: the key is not base64: Invalid symbol 63, offset 0
    exit 2
    "#);
}
