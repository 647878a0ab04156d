//! Durable consumers at the command line: taken, acknowledged, killed, shared.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use super::harness::{Home, PATIENCE, Running};

fn show(home: &Home, name: &str) -> Value {
    let mut shown = home.run(&["consumer", "show", name, "--json"]).json();
    shown.remove(0)
}

// Asked again and again until it is so.
fn until(home: &Home, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = show(home, name);
        if is_so(&status) {
            return;
        }
        assert!(Instant::now() < deadline, "not so: {what}; it is {status}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn put(home: &Home, key: &str, value: &str) {
    home.run(&["put", key, value]).ok();
}

// Takes one change: its line, which has come within seconds.
fn take(home: &Home, name: &str) -> Value {
    let ran = home.run(&["consumer", "next", name, "--timeout", "30s", "--json"]);
    assert_eq!(ran.code, 0, "{ran}");
    ran.json().remove(0)
}

fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line[field].as_str().unwrap_or_default()
}

// Returns the next line of a stream.
fn streamed(stream: &mut Running) -> Value {
    serde_json::from_str(&stream.line().expect("the stream goes on")).unwrap()
}

#[test]
fn acknowledged_is_done_rest_is_listed() {
    let home = Home::initialised();
    let _node = home.up();
    put(&home, "/orders/7", "two\nhammers");
    home.run(&[
        "consumer", "create", "billing", "/orders/", "--from", "start",
    ])
    .ok();
    let next = ["consumer", "next", "billing", "--timeout", "30s"];
    let taken = home.run(&next);
    insta::assert_snapshot!(taken, @r#"
    [change].1  [time]  put     /orders/7  two\nhammers  [short]
    exit 0
    "#);
    let id = taken.raw.split_whitespace().next().unwrap().to_owned();
    put(&home, "/orders/8", "a saw");
    until(&home, "billing", "both were read", |status| {
        status["backlog_entries"] == 0 && status["outstanding"] == 2
    });
    insta::assert_snapshot!(home.run(&["consumer", "show", "billing"]), @r#"
    consumer   billing
    state      running
    delivers   a change now
    keys       /orders/
    backlog    0 entries
    changes    2 outstanding, 1 in flight, 0 acked, 0 redelivered, 0 dead
    last seen  [time]
    created    [time]
    ack wait   30s
    attempts   10, after 100ms, 1s, 5s, 30s, 2m
    at a time  1000
    at a gap   stop; 0 so far
    [change].1  attempt 1  taken by id, taken back at [time]  put /orders/7
    [change].0  attempt 0  ready  put /orders/8
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["consumer", "ack", "billing", &id]), @r#"
    acked    [change].1
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["consumer", "ack", "billing", &id]), @r#"
    error: [change].1 is not outstanding: it was acknowledged already, or it belongs to another consumer
    exit 4
    "#);
    insta::assert_snapshot!(
        home.run(&[&next[..], &["-n", "9", "--ack", "--json"]].concat()), @r#"
    {"type":"put","key":"/orders/8","value":"a saw","entry":"[id]","author":"[id]","seq":2,"wall_ms":[ms],"counter":[n],"op_index":0,"op_count":1,"atomic":false,"heads":["[id]"],"conflict":false,"origin":"local","arrived_ms":[ms],"late":false,"delivery":"[change].1","attempt":1}
    exit 0
    "#);
    until(&home, "billing", "all was read", |status| {
        status["backlog_entries"] == 0
    });
    insta::assert_snapshot!(home.run(&["consumer", "list"]), @r#"
    CONSUMER  STATE    KEYS      BACKLOG  SEEN
    billing   running  /orders/        0  [time]
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["consumer", "show", "billing", "--json"]), @r#"
    {"type":"consumer","consumer":"billing","state":"running","prefixes":[{"key":"/orders/"}],"backlog_entries":0,"outstanding":0,"in_flight":0,"acked":2,"redelivered":0,"dead":0,"last_seen_ms":[ms],"created_ms":[ms],"position":"[cursor]","ack_wait_ms":30000,"max_deliver":10,"max_in_flight":1000,"backoff_ms":[100,1000,5000,30000,120000],"on_gap":"stop","gaps":0,"idle":"empty"}
    exit 0
    "#);
    insta::assert_snapshot!(
        home.run(&["consumer", "next", "billing", "--timeout", "50ms"]), @r#"
    error: no change within 50ms: nothing new
    exit 8
    "#);
    insta::assert_snapshot!(
        home.run(&["consumer", "next", "billing", "--timeout", "0s", "--json"]), @r#"
    {"type":"error","error":"timed_out","message":"no change is available now: nothing new","exit_code":8}
    exit 8
    "#);
}

/// A consumer whose places were all taken by changes that wait looked idle: "running", "in flight 0",
/// "no change". And the places could not be made more without losing what was outstanding.
#[test]
fn full_consumer_says_so_and_can_be_given_more_places() {
    let home = Home::initialised();
    let _node = home.up();
    let create = ["consumer", "create", "w", "/q/", "--max-in-flight", "2"];
    home.run(&create).ok();
    for n in 1..=5 {
        put(&home, &format!("/q/{n}"), "x");
    }
    let two = [take(&home, "w"), take(&home, "w")];
    let ids = two.each_ref().map(|line| text(line, "delivery"));
    home.run(&["consumer", "nack", "w", ids[0], ids[1], "--delay", "5m"])
        .ok();
    let next = ["consumer", "next", "w", "--timeout", "100ms"];
    let refused = home.run(&next);
    assert_eq!(refused.code, 8, "{refused}");
    for part in [
        "all 2 places (--max-in-flight) are taken",
        "2 that wait",
        "comes again at",
    ] {
        assert!(
            refused.stderr.contains(part),
            "{part:?} is not in {refused}"
        );
    }
    let shown = home.run(&["consumer", "show", "w"]).ok();
    assert!(shown.contains("nothing now: all 2 places"), "{shown}");
    assert!(shown.contains("attempt 1  comes again at"), "{shown}");
    let status = show(&home, "w");
    assert_eq!(
        (&status["idle"], &status["outstanding"]),
        (&"full".into(), &2.into())
    );
    let changes = status["changes"].as_array().unwrap();
    let keys: Vec<_> = changes.iter().map(|change| text(change, "key")).collect();
    assert_eq!(keys, ["/q/1", "/q/2"]);
    assert!(
        changes.iter().all(|change| change["due_ms"].is_u64()),
        "{changes:?}"
    );

    let set = [
        "consumer",
        "set",
        "w",
        "--max-in-flight",
        "3",
        "--ack-wait",
        "1m",
        "--json",
    ];
    let set = home.run(&set).json().remove(0);
    assert_eq!(
        (&set["max_in_flight"], &set["ack_wait_ms"]),
        (&3.into(), &60_000.into())
    );
    assert_eq!(text(&take(&home, "w"), "key"), "/q/3");
    assert_eq!(show(&home, "w")["outstanding"], 3);
    assert_eq!(home.run(&["consumer", "set", "w"]).code, 2);
    assert_eq!(
        home.run(&["consumer", "set", "none", "--ack-wait", "1s"])
            .code,
        3
    );
    home.run(&["down"]).ok();
    let _again = home.up();
    let status = show(&home, "w");
    let kept = (
        &status["max_in_flight"],
        &status["outstanding"],
        &status["max_deliver"],
    );
    assert_eq!(kept, (&3.into(), &3.into(), &10.into()));

    home.run(&["consumer", "pause", "w"]).ok();
    let paused = home.run(&next);
    let why = "it is paused; `lattice consumer resume w` ends that";
    assert!(paused.stderr.contains(why), "{paused}");
    let stream = ["consumer", "next", "w", "--stream", "--timeout", "100ms"];
    let paused = home.run(&stream);
    assert!(
        paused
            .stderr
            .contains("note: no change comes now: it is paused"),
        "{paused}"
    );
}

/// `consumer next --stream --ack` into a pipe acknowledged 126 changes that stood in the pipe when its
/// reader ended.
#[test]
fn pipe_acknowledges_only_lines_that_were_read() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["consumer", "create", "c", "/p/", "--from", "start"])
        .ok();
    let lines: String = (0..500).map(|n| format!("/p/{n:04}\tv\n")).collect();
    home.feed(&["put", "--stdin"], lines).ok();
    let binary = env!("CARGO_BIN_EXE_lattice");
    let script = format!(
        "'{binary}' consumer next c --stream --ack --json |
        while read -r line; do n=$((n+1)); [ $n = 3 ] && break; sleep 0.1; done; echo handled $n"
    );
    let mut command = std::process::Command::new("sh");
    let of_home = home.command(&[]);
    let environment = of_home
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    command
        .args(["-c", &script])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(environment)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    home.spawn(command).end().ok();
    until(&home, "c", "the stream has ended", |status| {
        status["in_flight"] == 0
    });
    let acked = show(&home, "c")["acked"].as_u64().unwrap();
    // The line that was read last may or may not be acknowledged when its reader is gone.
    assert!(
        (2..=3).contains(&acked),
        "{acked} of 3 lines that were read"
    );
    // Its acknowledgement may also be on its way still.
    let next = take(&home, "c");
    let next = text(&next, "key");
    assert!(["/p/0002", "/p/0003"].contains(&next), "{next}");
}

#[test]
fn without_a_node_each_command_opens_the_store() {
    let home = Home::initialised();
    home.run(&["consumer", "create", "billing", "/orders/"])
        .ok();
    put(&home, "/orders/1", "a");
    put(&home, "/other", "b");
    put(&home, "/orders/2", "c");
    let first = take(&home, "billing");
    assert_eq!(text(&first, "key"), "/orders/1");
    // It stays with its taker, though that process has ended.
    let second = take(&home, "billing");
    assert_eq!(text(&second, "key"), "/orders/2");
    home.run(&["consumer", "ack", "billing", text(&first, "delivery")])
        .ok();
    let id = text(&second, "delivery");
    home.run(&["consumer", "nack", "billing", id, "--delay", "0s"])
        .ok();
    let again = take(&home, "billing");
    assert_eq!(
        (text(&again, "key"), &again["attempt"]),
        ("/orders/2", &2.into())
    );
    let status = show(&home, "billing");
    assert_eq!(
        (&status["acked"], &status["redelivered"]),
        (&1.into(), &1.into())
    );
}

#[test]
fn killed_taker_returns_its_changes() {
    let home = Home::initialised();
    let _node = home.up();
    let create = [
        "consumer",
        "create",
        "billing",
        "/orders/",
        "--ack-wait",
        "1h",
    ];
    home.run(&create).ok();
    home.feed(
        &["put", "--stdin"],
        "/orders/1\ta\n/orders/2\tb\n/orders/3\tc\n",
    )
    .ok();
    let stream = ["consumer", "next", "billing", "--stream", "--json"];
    let mut killed = home.start(&[&stream[..], &["--prefetch", "3"]].concat());
    let mut had = BTreeMap::new();
    for _ in 0..3 {
        let line = streamed(&mut killed);
        assert_eq!(line["attempt"], 1);
        had.insert(
            text(&line, "key").to_owned(),
            text(&line, "delivery").to_owned(),
        );
    }
    home.run(&["consumer", "ack", "billing", &had["/orders/2"]])
        .ok();
    killed.signal(Signal::KILL);
    drop(killed);
    let other = home.run(&[&stream[..], &["--ack", "-n", "2"]].concat());
    assert_eq!(other.code, 0, "{other}");
    for line in other.json() {
        let (change, _) = had[text(&line, "key")].split_once('.').unwrap();
        assert_eq!(text(&line, "delivery"), format!("{change}.2"));
        assert_eq!(line["attempt"], 2);
        had.remove(text(&line, "key"));
    }
    assert_eq!(had.keys().collect::<Vec<_>>(), ["/orders/2"]);
    let status = show(&home, "billing");
    assert_eq!(
        (&status["acked"], &status["outstanding"]),
        (&3.into(), &0.into())
    );
}

#[test]
fn stream_sends_the_next_after_an_answer() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["consumer", "create", "c", "/k/"]).ok();
    put(&home, "/k/1", "a");
    put(&home, "/k/2", "b");
    let mut stream = home.start(&["consumer", "next", "c", "--stream", "--json"]);
    let first = streamed(&mut stream);
    until(&home, "c", "the second one was read", |status| {
        status["outstanding"] == 2
    });
    thread::sleep(Duration::from_millis(300));
    assert_eq!(show(&home, "c")["in_flight"], 1, "one at a time");
    home.run(&["consumer", "ack", "c", text(&first, "delivery")])
        .ok();
    assert_eq!(text(&streamed(&mut stream), "key"), "/k/2");
}

#[test]
fn many_processes_share_the_work() {
    const CHANGES: usize = 300;
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["consumer", "create", "c", "/k/"]).ok();
    let stream = ["consumer", "next", "c", "--stream", "--ack", "--json"];
    let streams = [home.start(&stream), home.start(&stream)];
    let lines: String = (0..CHANGES)
        .map(|n| format!("/k/{}\t{n}\n", n % 40))
        .collect();
    home.feed(&["put", "--stdin"], lines).ok();
    until(&home, "c", "all is done", |status| {
        status["acked"] == CHANGES
    });
    let mut values = BTreeSet::new();
    for stream in streams {
        stream.signal(Signal::TERM);
        let ran = stream.end();
        assert_eq!(ran.code, 130, "{ran}");
        let own = ran.json();
        assert!(own.len() > CHANGES / 20, "it had {} changes", own.len());
        for line in own {
            assert_eq!(line["attempt"], 1);
            let value = text(&line, "value").to_owned();
            assert!(values.insert(value), "given out twice: {line}");
        }
    }
    assert_eq!(values.len(), CHANGES);
}

#[test]
fn stream_survives_its_node() {
    let home = Home::initialised();
    let node = home.up();
    home.run(&["consumer", "create", "c", "/k"]).ok();
    let mut stream = home.start(&["consumer", "next", "c", "--stream", "--ack", "--json"]);
    put(&home, "/k", "1");
    assert_eq!(text(&streamed(&mut stream), "value"), "1");
    until(&home, "c", "it is acknowledged", |status| {
        status["acked"] == 1
    });
    // Acknowledged means durable after 100 ms.
    thread::sleep(Duration::from_millis(300));
    node.signal(Signal::KILL);
    node.end();
    put(&home, "/k", "2");
    let _node = home.up();
    put(&home, "/k", "3");
    for value in ["2", "3"] {
        assert_eq!(text(&streamed(&mut stream), "value"), value);
    }
    stream.signal(Signal::TERM);
    let ran = stream.end();
    assert!(ran.stderr.contains("\"notice\":\"disconnected\""), "{ran}");
    assert!(ran.stderr.contains("\"notice\":\"reconnected\""), "{ran}");
}

#[test]
fn failed_changes_become_dead_letters() {
    let home = Home::initialised();
    let _node = home.up();
    let create = [
        "consumer",
        "create",
        "c",
        "/k",
        "--max-deliver",
        "2",
        "--backoff",
        "1ms",
    ];
    home.run(&create).ok();
    put(&home, "/k/1", "poison");
    for attempt in 1..=2 {
        let line = take(&home, "c");
        assert_eq!(line["attempt"], attempt);
        home.run(&["consumer", "nack", "c", text(&line, "delivery")])
            .ok();
    }
    put(&home, "/k/2", "hopeless");
    let given_up = take(&home, "c");
    let id = text(&given_up, "delivery");
    home.run(&["consumer", "term", "c", id]).ok();
    insta::assert_snapshot!(home.run(&["consumer", "dead", "c"]), @r#"
    0      [time]  max_deliver after 2 attempts  put     /k/1  [change].2
    1      [time]  terminated  after 1 attempts  put     /k/2  [change].1
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["consumer", "dead", "c", "retry", "9"]), @r#"
    error: the consumer has no dead letter 9
    hint: `lattice consumer dead NAME` lists them
    exit 3
    "#);
    insta::assert_snapshot!(home.run(&["consumer", "dead", "c", "skip", id]), @r#"
    1 skipped
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["consumer", "dead", "c", "retry", "--all"]), @r#"
    1 retried
    exit 0
    "#);
    let again = take(&home, "c");
    assert_eq!(
        (text(&again, "value"), &again["attempt"]),
        ("poison", &1.into())
    );
    insta::assert_snapshot!(home.run(&["consumer", "term", "c", id]), @r#"
    error: [change].1 is not outstanding: it was acknowledged already, or it belongs to another consumer
    exit 4
    "#);
    assert_eq!(home.run(&["consumer", "dead", "c", "skip"]).code, 2);
}

#[test]
fn pause_resume_reset_and_delete() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["consumer", "create", "c", "/k"]).ok();
    let paused = home.run(&["consumer", "pause", "c", "--json"]).json();
    assert_eq!(paused[0]["state"], "paused");
    put(&home, "/k", "1");
    let nothing = home.run(&["consumer", "next", "c", "--timeout", "300ms"]);
    assert_eq!(nothing.code, 8, "{nothing}");
    home.run(&["consumer", "resume", "c"]).ok();
    let first = take(&home, "c");
    home.run(&["consumer", "ack", "c", text(&first, "delivery")])
        .ok();
    home.run(&["consumer", "reset", "c", "--from", "start"])
        .ok();
    assert_eq!(text(&take(&home, "c"), "value"), "1");
    home.run(&["consumer", "reset", "c", "--from", "now"]).ok();
    let nothing = home.run(&["consumer", "next", "c", "--timeout", "300ms"]);
    assert_eq!(nothing.code, 8, "{nothing}");
    // While it waits, it learns of the end.
    let waiting = home.start(&["consumer", "next", "c", "--stream"]);
    thread::sleep(Duration::from_millis(300));
    insta::assert_snapshot!(home.run(&["consumer", "delete", "c"]), @r#"
    deleted  c
    exit 0
    "#);
    insta::assert_snapshot!(waiting.end(), @r#"
    error: there is no consumer "c" in this store: create it first
    hint: `lattice consumer list` lists the consumers of the store
    exit 3
    "#);
    insta::assert_snapshot!(home.run(&["consumer", "list"]), @r#"
    note: this store has no consumers; create one with `lattice consumer create`
    exit 0
    "#);
}

#[test]
fn nonsense_is_refused() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["consumer", "create", "c", "/k"]).ok();
    home.run(&["consumer", "create", "c", "/k", "--from", "start"])
        .ok();
    insta::assert_snapshot!(home.run(&["consumer", "create", "c", "/j"]), @r#"
    error: a consumer "c" exists already, with another list of prefixes: delete it first, or choose another name
    hint: `lattice consumer show` shows the options it was created with
    exit 4
    "#);
    insta::assert_snapshot!(home.run(&["consumer", "create", "a/b"]), @r#"
    error: "a/b" is not a name for a consumer: expected 1 to 64 letters, digits, '-', '_' or '.'
    exit 2
    "#);
    insta::assert_snapshot!(
        home.run(&["consumer", "create", "d", "--max-in-flight", "99999"]), @r#"
    error: max_in_flight must be at most 16384, it is 99999
    exit 2
    "#);
    insta::assert_snapshot!(home.run(&["consumer", "ack", "c", "7"]), @r#"
    error: "7" is not a delivery (32 hex digits, a point, a number)
    hint: copy the whole id that came with the change
    exit 2
    "#);
    insta::assert_snapshot!(home.run(&["consumer", "next", "nobody", "--json"]), @r#"
    {"type":"error","error":"unknown_consumer","message":"there is no consumer \"nobody\" in this store: create it first","hint":"`lattice consumer list` lists the consumers of the store","exit_code":3}
    exit 3
    "#);
    for wrong in [
        &["create", "d", "--from", "soon"][..],
        &["create", "d", "--ack-wait", "0s"],
        &["reset", "c"],
        &["next", "c", "--prefetch", "3"],
        &["ack", "c"],
    ] {
        let ran = home.run(&[&["consumer"], wrong].concat());
        assert_eq!(ran.code, 2, "{wrong:?}: {ran}");
    }
    let status = show(&home, "c");
    assert_eq!(status["prefixes"][0]["key"], "/k");
}
