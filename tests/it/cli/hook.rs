//! Hooks at the command line: added, listed, tested, repaired; and `on`, which runs in the
//! terminal.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use super::harness::{Home, PATIENCE};

fn script(home: &Home, name: &str, text: &str) {
    let path = home.path(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn put(home: &Home, key: &str, value: &str) {
    home.run(&["put", key, value]).ok();
}

// Asked again and again until it is so.
fn until(home: &Home, what: &str, is_so: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let list = home.run(&["hook", "list", "--json"]).json();
        if list.iter().any(&is_so) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not so: {what}; there are {list:?}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// Also with the texts of times and the name of the author.
#[test]
fn stdin_of_a_hook_is_a_line_of_watch() {
    let home = Home::new();
    home.run(&["init", "--name", "attic"]).ok();
    let _node = home.up();
    for way in [&["hook", "add", "keep"][..], &["on"]] {
        let prefix = format!("/{}/", way[0]);
        let file = home.path(way[0]);
        script(
            &home,
            "keep.sh",
            "read -r line; printf '%s\\n' \"$line\" > $1",
        );
        let words = [way, &[&prefix, "--", "./keep.sh", way[0]]].concat();
        let mut reacting = home.start(&words);
        if way[0] == "hook" {
            reacting.line_with("keep");
        }
        let key = format!("{prefix}key");
        let deadline = Instant::now() + PATIENCE;
        let read = loop {
            let read = fs::read_to_string(&file).unwrap_or_default();
            if read.ends_with('\n') {
                break read;
            }
            assert!(Instant::now() < deadline, "{way:?} does not run");
            home.run(&["put", &key, "1", "--ttl", "1h"]).ok();
            thread::sleep(Duration::from_millis(300));
        };
        let read: Value = serde_json::from_str(&read).unwrap();
        let since = [
            "watch",
            &key,
            "--since",
            "1h",
            "--json",
            "--until-caught-up",
        ];
        let watched = home.run(&since).json();
        let mut same = watched
            .into_iter()
            .find(|it| it["entry"] == read["entry"])
            .unwrap();
        // Where it comes from is another matter.
        same["origin"] = read["origin"].clone();
        assert_eq!(same, read);
        assert_eq!(read["author_name"], "attic");
    }
}

#[test]
fn hook_is_one_line() {
    let home = Home::initialised();
    script(
        &home,
        "deploy.sh",
        "read change; echo deploying $LATTICE_KEY; echo oops >&2; test $LATTICE_KEY != /deploy/bad",
    );
    // Without a node: written down for when there is one.
    let added = home.run(&[
        "hook",
        "add",
        "deploy",
        "/deploy/",
        "--attempts",
        "2",
        "--backoff",
        "10ms",
        "--",
        "./deploy.sh",
        "-v",
    ]);
    insta::assert_snapshot!(added, @"
    HOOK    STATE  KEYS      RUNS
    deploy  off    /deploy/  ./deploy.sh -v
    exit 0
    ");
    let file = fs::read_to_string(home.data().join("hooks.toml")).unwrap();
    insta::assert_snapshot!(file.replace(home.path("x").parent().unwrap().to_str().unwrap(), "[home]"), @r#"
    [deploy]
    on = "/deploy/"
    run = ["./deploy.sh", "-v"]
    dir = "[home]"
    attempts = 2
    backoff = ["10ms"]
    "#);
    let _node = home.up();
    put(&home, "/deploy/1", "v1");
    until(&home, "one done", |hook| hook["done"] == 1);
    put(&home, "/deploy/bad", "v2");
    until(&home, "one dead", |hook| hook["dead"] == 1);
    insta::assert_snapshot!(home.run(&["hook", "list"]), @r#"
    HOOK    STATE    KEYS      RUNS            DONE  FAILED  DEAD  LAST
    deploy  running  /deploy/  ./deploy.sh -v     1       2     1  dead [time]
      ! deploy: 1 dead letter: lattice hook dead deploy
    exit 0
    "#);
    let status = home.run(&["status"]).ok();
    let verdict = "WARNING: no other members, 1 dead letter: lattice hook dead deploy\n";
    assert!(status.starts_with(verdict), "{status}");
    insta::assert_snapshot!(home.run(&["hook", "logs", "deploy"]), @r#"
    [time]  done   put /deploy/1, attempt 1, [n]ms
      | deploying /deploy/1
      | oops
    [time]  failed put /deploy/bad, attempt 1, [n]ms: exited with 1, again in [n]ms
      | deploying /deploy/bad
      | oops
    [time]  dead   put /deploy/bad, attempt 2, [n]ms: exited with 1
      | deploying /deploy/bad
      | oops
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["hook", "logs", "deploy", "-n", "1", "--json"]), @r#"
    {"type":"run","at_ms":[ms],"run":"[change]","attempt":2,"changes":1,"kind":"put","key":"/deploy/bad","entry":"[id]","outcome":"dead","what":"exited with 1","took_ms":[n],"stdout":"deploying /deploy/bad\n","stdout_bytes":[n],"stderr":"oops\n","stderr_bytes":[n]}
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["hook", "dead", "deploy"]), @r#"
    1      [time]  terminated  after 2 attempts  put     /deploy/bad  [change].2
    exit 0
    "#);
    script(&home, "deploy.sh", "true");
    insta::assert_snapshot!(home.run(&["hook", "dead", "deploy", "retry", "--all"]), @r#"
    1 retried
    exit 0
    "#);
    until(&home, "none dead", |hook| {
        hook["dead"] == 0 && hook["done"] == 2
    });
    assert_eq!(
        home.run(&["hook", "pause", "deploy", "--json"]).json()[0]["state"],
        "paused"
    );
    assert_eq!(
        home.run(&["hook", "resume", "deploy", "--json"]).json()[0]["state"],
        "running"
    );
    insta::assert_snapshot!(home.run(&["hook", "remove", "deploy"]), @r#"
    removed  deploy
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["hook", "list"]), @r#"
    note: this node has no hooks; add one with `lattice hook add`
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["hook", "logs", "deploy"]), @r#"
    error: there is no hook "deploy"
    hint: `lattice hook list` lists the hooks of this node
    exit 3
    "#);
}

#[test]
fn hook_test_shows_results_without_writing() {
    let home = Home::initialised();
    script(
        &home,
        "index.sh",
        "test -n \"$LATTICE_DRY_RUN\" || touch ran\nprintf '{\"key\":\"/index/%s\",\"value\":\"1\"}\\n{\"key\":\"/old\",\"delete\":true}\\n' ${LATTICE_KEY#/pages/}",
    );
    put(&home, "/pages/a", "1");
    put(&home, "/pages/b", "2");
    home.run(&[
        "hook",
        "add",
        "index",
        "/pages/",
        "--writes",
        "--",
        "./index.sh",
    ])
    .ok();
    home.run(&[
        "hook",
        "add",
        "tell",
        "/pages/",
        "--http",
        "http://127.0.0.1:9/",
    ])
    .ok();
    let dry = ["hook", "test", "index", "--since", "1h", "--dry-run"];
    insta::assert_snapshot!(home.run(&dry), @r#"
    put /pages/a  run [change]  ./index.sh
      would put /index/a  1
      would delete /old
    put /pages/b  run [change]  ./index.sh
      would put /index/b  1
      would delete /old
    would run 2 times, 0 failed
    exit 0
    "#);
    let json = home.run(&[&dry[..], &["--json"]].concat()).json();
    assert_eq!(json[0]["outcome"], "would_run");
    assert_eq!(json[0]["would_write"][1]["delete"], true);
    insta::assert_snapshot!(home.run(&["hook", "test", "tell", "--since", "1h", "--dry-run"]), @r#"
    put /pages/a  run [change]  POST http://127.0.0.1:9/
    put /pages/b  run [change]  POST http://127.0.0.1:9/
    would run 2 times, 0 failed
    exit 0
    "#);
    assert!(!home.path("ran").exists());
    assert_eq!(home.run(&["get", "/index/a"]).code, 3);
    // A real run writes once, however often it runs.
    for _ in 0..2 {
        home.run(&["hook", "test", "index", "--since", "1h"]).ok();
    }
    assert_eq!(home.run(&["get", "/index/a"]).ok(), "1");
    let history = home.run(&["history", "/index/a", "--json"]).json();
    assert_eq!(history.len(), 1);
    assert_eq!(home.run(&["hook", "test", "none", "--since", "1h"]).code, 3);
}

/// The misspelt command was accepted in silence, and a test announced that it "comes again".
#[test]
fn missing_command_is_named() {
    let home = Home::initialised();
    let _node = home.up();
    let added = home.run(&["hook", "add", "nope", "/a/", "--", "./nope.sh"]);
    assert_eq!(added.code, 0, "{added}");
    assert!(
        added.stderr.contains("[home]/nope.sh does not exist (yet)"),
        "{added}"
    );
    let added = home.run(&["hook", "add", "fine", "/b/", "--", "/bin/false"]);
    assert_eq!(added.stderr, "");
    home.run(&["put", "/b/1", "x"]).ok();
    let tested = home.run(&["hook", "test", "fine", "--since", "1h"]);
    assert_eq!(tested.code, 7, "{tested}");
    assert!(
        tested.stdout.contains("failed") && !tested.stdout.contains("again"),
        "{tested}"
    );
}

#[test]
fn nonsense_is_refused() {
    let home = Home::initialised();
    for (wrong, code) in [
        (&["add", "a", "/a/"][..], 2),
        (&["add", "../a", "/a/", "--", "true"], 2),
        (&["add", "a", "/a/", "--http", "ftp://x"], 2),
        (&["add", "a", "/a/", "--debounce", "1s", "--", "true"], 2),
        (
            &[
                "add", "a", "/a/", "--writes", "--mode", "batch", "--", "true",
            ],
            2,
        ),
        (&["add", "a", "/a/", "--parallel", "65", "--", "true"], 2),
        (&["remove", "none"], 3),
        (&["logs", "none"], 3),
        (&["pause", "none"], 3),
    ] {
        let ran = home.run(&[&["hook"], wrong].concat());
        assert_eq!(ran.code, code, "{wrong:?}: {ran}");
    }
    home.run(&["hook", "add", "a", "/a/", "--", "true"]).ok();
    home.run(&["hook", "add", "a", "/a/", "--", "true"]).ok();
    assert_eq!(home.run(&["hook", "add", "a", "/b/", "--", "true"]).code, 4);
    fs::write(
        home.data().join("hooks.toml"),
        "[a]\non = \"/a/\"\nrun = \"true\"\n",
    )
    .unwrap();
    insta::assert_snapshot!(home.run(&["hook", "list"]), @r#"
    error: [home]/data/hooks.toml:3:7: invalid type: string "true", expected a sequence
    hint: correct the file; until then the hooks run as before
    exit 2
    "#);
}

#[test]
fn on_runs_a_command_for_each_change() {
    let home = Home::initialised();
    let _node = home.up();
    script(
        &home,
        "note.sh",
        "read change; echo \"$LATTICE_KIND $LATTICE_KEY\"; test $LATTICE_KEY != /a/2",
    );
    put(&home, "/a/1", "x");
    let mut on = home.start(&["on", "/a/", "--initial", "-c", "3", "--", "./note.sh"]);
    assert_eq!(on.line().unwrap(), "put /a/1");
    put(&home, "/b", "x");
    put(&home, "/a/2", "x");
    home.run(&["delete", "/a/1"]).ok();
    assert_eq!(on.line().unwrap(), "put /a/2");
    assert_eq!(on.line().unwrap(), "delete /a/1");
    let ran = on.end();
    insta::assert_snapshot!(ran.stderr, @r#"
    failed: put /a/2: exited with 1
    error: 1 of 3 runs failed
    "#);
    assert_eq!(ran.code, 7);
}

#[test]
fn on_latest_coalesces_waiting_changes() {
    let home = Home::initialised();
    let _node = home.up();
    script(
        &home,
        "slow.sh",
        "sed 's/.*\"value\":\"\\([^\"]*\\)\".*/\\1/'; while test ! -e go; do sleep 0.02; done",
    );
    put(&home, "/a", "0");
    let mut on = home.start(&[
        "on",
        "/a",
        "--initial",
        "--latest",
        "--json",
        "-c",
        "2",
        "--",
        "./slow.sh",
    ]);
    // The first run waits for the others to have come.
    let lines: String = (1..=50).map(|n| format!("/a\t{n}\n")).collect();
    thread::sleep(Duration::from_millis(300));
    home.feed(&["put", "--stdin"], lines).ok();
    thread::sleep(Duration::from_millis(300));
    fs::write(home.path("go"), "").unwrap();
    let runs = [on.line().unwrap(), on.line().unwrap()];
    let runs = runs.map(|run| serde_json::from_str::<Value>(&run).unwrap());
    assert_eq!(
        (&runs[0]["stdout"], &runs[1]["stdout"]),
        (&"0\n".into(), &"50\n".into())
    );
    assert_eq!(on.end().code, 0);
}

#[test]
fn on_kills_its_runs_when_interrupted() {
    let home = Home::initialised();
    let _node = home.up();
    script(
        &home,
        "hang.sh",
        "sleep 60 & echo $! > pid.new; mv pid.new pid; wait",
    );
    put(&home, "/a", "0");
    let on = home.start(&["on", "/a", "--initial", "--", "./hang.sh"]);
    let deadline = Instant::now() + PATIENCE;
    while !home.path("pid").exists() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(10));
    }
    on.signal(Signal::INT);
    assert_eq!(on.end().code, 130);
    let pid = fs::read_to_string(home.path("pid")).unwrap();
    // It was killed; the kernel takes a moment to end it.
    loop {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            break;
        }
        assert!(Instant::now() < deadline, "{stat}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn logs_are_followed_across_a_restart() {
    let home = Home::initialised();
    let node = home.up();
    script(&home, "tell.sh", "echo $LATTICE_KEY");
    let add = ["hook", "add", "h", "/in/", "--", "./tell.sh"];
    home.run(&add).ok();
    put(&home, "/in/1", "v");
    until(&home, "one done", |hook| hook["done"] == 1);
    let mut plain = home.start(&["hook", "logs", "h", "--follow"]);
    let mut json = home.start(&["hook", "logs", "h", "-f", "--json"]);
    plain.line_with("  | /in/1");
    json.line_with("\"key\":\"/in/1\"");
    put(&home, "/in/2", "v");
    plain.line_with("  | /in/2");
    json.line_with("\"key\":\"/in/2\"");
    node.signal(Signal::KILL);
    node.end();
    // Long enough to be noticed.
    thread::sleep(Duration::from_millis(500));
    let _node = home.up();
    put(&home, "/in/3", "v");
    plain.line_with("  | /in/3");
    json.line_with("\"key\":\"/in/3\"");
    plain.signal(Signal::INT);
    json.signal(Signal::INT);
    let (plain, json) = (plain.end(), json.end());
    assert_eq!((plain.code, json.code), (130, 130), "{plain}");
    assert!(plain.stderr.contains("waiting for the node"), "{plain}");
    assert!(plain.stderr.contains("the node is back"), "{plain}");
    // Each run once.
    let keys: Vec<_> = json.json().iter().map(|run| run["key"].clone()).collect();
    assert_eq!(keys, ["/in/1", "/in/2", "/in/3"], "{json}");
    assert_eq!(home.run(&["hook", "logs", "none", "-f"]).code, 3);
    let remove = home.start(&["hook", "logs", "h", "-f"]);
    home.run(&["hook", "remove", "h"]).ok();
    assert_eq!(
        remove.end().code,
        3,
        "a hook that is gone is followed no more"
    );
}

#[test]
fn written_entry_names_its_cause() {
    let home = Home::initialised();
    let _node = home.up();
    script(
        &home,
        "copy.sh",
        "printf '{\"key\":\"/out/%s\",\"value\":\"x\"}\\n' ${LATTICE_KEY#/in/}",
    );
    let add = ["hook", "add", "copy", "/in/", "--writes", "--", "./copy.sh"];
    home.run(&add).ok();
    let written = home.run(&["put", "/in/a", "v", "--json"]).json();
    let trigger = written[0]["entry"].as_str().unwrap();
    until(&home, "one done", |hook| hook["done"] == 1);
    let history = home.run(&["history", "/out/a", "--json"]).json();
    let cause = serde_json::json!({
        "consumer": "copy", "trigger": trigger, "position": 0, "depth": 1,
    });
    assert_eq!(history[0]["cause"], cause);
    let log = home.run(&["log", "--json"]).json();
    assert_eq!(log[0]["cause"], cause);
    assert!(
        log.iter()
            .all(|it| it["cause"].is_null() || it["ops"][0]["key"] == "/out/a")
    );
    let by = format!("  by hook copy at {}  ", &trigger[..8]);
    for command in [&["history", "/out/a"][..], &["log"]] {
        let told = home.run(command).raw;
        assert_eq!(told.matches(&by).count(), 1, "{told}");
    }
    let person = home.run(&["history", "/in/a", "--json"]).json();
    assert!(person[0].get("cause").is_none(), "{person:?}");
}

#[test]
fn listing_makes_no_consumers() {
    let home = Home::initialised();
    let mut node = home.start(&["up", "--metrics", "127.0.0.1:0"]);
    let at = node
        .line_with("metrics http://")
        .split('/')
        .nth(2)
        .unwrap()
        .to_owned();
    node.line_with("stop ");
    assert_eq!(home.run(&["hook", "list"]).code, 0);
    assert_eq!(home.run(&["hook", "logs", "h"]).code, 3);
    assert_eq!(home.run(&["hook", "pause", "h"]).code, 3);
    assert_eq!(home.run(&["consumer", "list"]).code, 0);
    assert_eq!(home.run(&["consumer", "show", "c"]).code, 3);
    assert_eq!(home.run(&["consumer", "next", "c"]).code, 3);
    let (_, text) = super::metrics::get(&at, "/metrics");
    assert!(text.contains("lattice_consumers_readable"), "{text}");
    let files = || {
        let stores = fs::read_dir(home.data().join("stores")).unwrap();
        let files = stores.map(|store| store.unwrap().path().join("consumers.db"));
        files.filter(|file| file.exists()).count()
    };
    assert_eq!(files(), 0);
    home.run(&["consumer", "create", "c"]).ok();
    assert_eq!(files(), 1);
}

#[test]
fn credentials_in_a_url_are_not_shown() {
    let home = Home::initialised();
    let url = "https://me:hush@example.org/in?q=1";
    let added = home.run(&["hook", "add", "h", "/x/", "--http", url]);
    let listed = home.run(&["hook", "list"]);
    let json = home.run(&["hook", "list", "--json"]);
    for shown in [&added, &listed, &json] {
        assert_eq!(shown.code, 0, "{shown}");
        assert!(
            shown.stdout.contains("https://...@example.org/in?q=1"),
            "{shown}"
        );
        assert!(!shown.to_string().contains("hush"), "{shown}");
    }
    let file = fs::read_to_string(home.data().join("hooks.toml")).unwrap();
    assert!(file.contains(url), "{file}");
    // The same definition again.
    home.run(&["hook", "add", "h", "/x/", "--http", url]).ok();
}
