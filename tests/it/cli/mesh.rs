//! Several nodes, as people use them: invite, join, watch, kill, restart, remove.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::harness::{Home, PATIENCE};

// The token is the one line on stdout.
fn token(home: &Home, arguments: &[&str]) -> String {
    let ran = home.run(&[&["invite"], arguments].concat());
    assert_eq!(ran.code, 0, "{ran}");
    let token = ran.raw.trim().to_owned();
    assert!(
        token.starts_with("lattice") && !token.contains('\n'),
        "{token}"
    );
    token
}

// A home whose node has joined that of `host`, and runs.
pub(super) fn joined(host: &Home, role: &str) -> (Home, super::harness::Running) {
    let home = Home::new();
    let token = token(host, &["--role", role]);
    let ran = home.run(&["join", &token, "--name", role]);
    assert_eq!(ran.code, 0, "{ran}");
    let node = home.up();
    (home, node)
}

// Asked again and again until it is so.
pub(super) fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not so: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn has(home: &Home, key: &str, value: &str) {
    soon(&format!("{key} = {value}"), || {
        home.run(&["get", key]).raw == value
    });
}

#[test]
fn two_nodes_meet_by_invite() {
    let a = Home::new();
    let _a_node = a.up();
    a.run(&["put", "/before", "it"]).ok();
    let token = token(&a, &[]);
    let b = Home::new();
    let joined = b.run(&["join", &token, "--name", "laptop"]).to_string();
    // The other node may have sent the put in a session of its own.
    let joined = joined.replace(" 3 entries", " 4 entries");
    insta::assert_snapshot!(joined, @r#"
    contacted  node [short]
    accepted   as writer
    synced     4 entries
    next       lattice up, and lattice watch /nodes/
    exit 0
    "#);
    assert_eq!(b.run(&["get", "/before"]).raw, "it");
    let b_node = b.up();
    // One node streams the other's puts, and a put can wait until both have it on disk.
    let mut watch = b.start(&["watch", "/from/", "--no-initial"]);
    soon("a sees b", || a.run(&["peers"]).raw.contains("online"));
    a.run(&["put", "/from/a", "1", "--wait-for", "2"]).ok();
    watch.line_with("/from/a");
    insta::assert_snapshot!(a.run(&["put", "/from/nobody", "1", "--wait-for", "9"]), @"
    error: --wait-for 9 asks for more members than there are (2); nothing was written
    hint: `lattice peers` lists them; this node counts, too
    exit 4
    ");
    assert_eq!(a.run(&["get", "/from/nobody"]).code, 3);
    let status = a.run(&["status", "/from/a", "--json"]).json();
    assert_eq!(status[0]["nodes"].as_array().unwrap().len(), 2);
    assert_eq!(status[0]["members"], 2);
    b.run(&["put", "/from/b", "2"]).ok();
    has(&a, "/from/b", "2");

    // Killed, it comes back on another port and is found again without help.
    b_node.signal(Signal::KILL);
    drop(b_node);
    a.run(&["put", "/meanwhile", "a"]).ok();
    let _b_node = b.up();
    has(&b, "/meanwhile", "a");

    // The same token is good for nobody else.
    let c = Home::new();
    let again = c.run(&["join", &token]);
    assert_eq!(again.code, 4, "{again}");
    assert!(again.stderr.contains("used the invite"), "{again}");
}

#[test]
fn malformed_tokens_and_nodes_are_refused() {
    let a = Home::new();
    let _node = a.up();
    let token = token(&a, &["--expires", "1ms"]);
    thread::sleep(Duration::from_millis(20));
    let b = Home::new();
    let expired = b.run(&["join", &token]);
    assert_eq!(expired.code, 4, "{expired}");
    assert!(expired.stderr.contains("expired"), "{expired}");
    let cut = &token[..token.len() - 3];
    let c = Home::new();
    insta::assert_snapshot!(c.run(&["join", cut]), @r#"
    error: not an invitation: it has letters that no invitation has, or was cut
    hint: copy the whole token that `lattice invite` printed
    exit 2
    "#);
    assert!(!c.data().exists(), "a mistyped token makes no node");
    insta::assert_snapshot!(a.run(&["join", &token]), @r#"
    error: this node made the invitation itself
    hint: give the token to another node
    exit 4
    "#);
    insta::assert_snapshot!(a.run(&["peer", "remove", "nobody"]), @r#"
    error: no peer has the id or the name "nobody"
    hint: `lattice peer list` lists the peers
    exit 3
    "#);
}

#[test]
fn list_shows_each_member() {
    let a = Home::new();
    let _a_node = a.up();
    let (b, b_node) = joined(&a, "reader");
    let line = |says: &[&str]| {
        soon(&format!("{says:?}"), || {
            let lines = a.run(&["peer", "list"]).raw;
            let (titles, lines) = lines.split_once('\n').unwrap();
            let (own, line) = lines.split_once('\n').unwrap();
            assert!(titles.starts_with("NAME "), "{titles}");
            assert!(own.contains(" * ") && own.contains("this node"), "{own}");
            says.iter().all(|part| line.contains(part))
        });
        let mut listed = a.run(&["peers", "--json"]).json();
        assert_eq!(
            (&listed[0]["own"], &listed[1]["own"]),
            (&true.into(), &false.into())
        );
        listed.remove(1)
    };
    let online = line(&["online", "direct", " ms", "in step"]);
    assert_eq!(online["role"], "reader");
    assert_eq!(online["online"], true);
    assert_eq!(online["behind"], 0);
    assert_eq!(online["relayed"], false);
    assert!(online["rtt_us"].as_u64().is_some_and(|rtt_us| rtt_us > 0));
    assert!(
        online["skew_ms"]
            .as_i64()
            .is_some_and(|skew_ms| skew_ms.abs() < 5000)
    );
    assert_eq!(online["addresses"].as_array().unwrap().len(), 1);

    b_node.signal(Signal::TERM);
    b_node.end();
    a.run(&["put", "/k", "1"]).ok();
    let away = line(&["seen 2", "1 behind"]);
    assert_eq!(
        (&away["online"], &away["behind"]),
        (&false.into(), &1.into())
    );
    assert_eq!(away["rtt_us"], serde_json::Value::Null);
    assert!(away["seen_ms"].as_u64().is_some_and(|ms| ms > 0));
    a.run(&["put", "/k", "2"]).ok();
    line(&["2 behind"]);
    let status = a.run(&["status"]).ok();
    assert!(status.starts_with("OK: 1 of 2 online"), "{status}");
    drop(b);
}

// A process that does not run closes nothing: for 6 s it was shown as online and in step.
#[test]
fn frozen_peer_is_offline_and_comes_back() {
    const SHOWN: Duration = Duration::from_secs(5);
    let a = Home::new();
    let _a_node = a.up();
    let (_b, b_node) = joined(&a, "writer");
    let peer = || a.run(&["peers", "--json"]).json().remove(1);
    soon("it is online", || peer()["online"] == true);
    b_node.signal(Signal::STOP);
    let frozen = Instant::now();
    soon("it is offline", || peer()["online"] == false);
    let took = frozen.elapsed();
    println!("offline after {took:?}");
    let line = a.run(&["peers"]).raw;
    assert!(line.contains("seen 2"), "{line}");
    let seen_ms = peer()["seen_ms"].as_u64().unwrap();
    assert_eq!(seen_ms, peer()["seen_ms"], "it is heard no more");
    b_node.signal(Signal::CONT);
    let again = Instant::now();
    soon("it is online again", || peer()["online"] == true);
    println!("online again after {:?}", again.elapsed());
    assert!(took < SHOWN, "{took:?}");
    assert!(peer()["seen_ms"].as_u64().unwrap() > seen_ms);
}

// The address at which the node listens, once it has made an invite.
fn listens(home: &Home, environment: Option<&str>) -> String {
    let mut up = home.command(&["up"]);
    up.env_remove("LATTICE_BIND").env_remove("LATTICE_NO_MDNS");
    if let Some(bind) = environment {
        up.env("LATTICE_BIND", bind);
    }
    let mut node = home.spawn(up);
    node.line_with("stop ");
    token(home, &[]);
    let said = home.run(&["peers"]).stderr;
    node.signal(Signal::TERM);
    node.end();
    said
}

#[test]
fn flags_win_over_the_settings_file() {
    let home = Home::initialised();
    let file = home.data().join("config.toml");
    std::fs::write(&file, "bind = '127.0.0.2:0'\nmdns = false\n").unwrap();
    let said = listens(&home, None);
    assert!(said.contains("listening on 127.0.0.2:"), "{said}");
    let said = listens(&home, Some("127.0.0.3:0"));
    assert!(said.contains("listening on 127.0.0.3:"), "{said}");

    std::fs::write(&file, "mdns = false\nbnd = '127.0.0.2:0'\n").unwrap();
    insta::assert_snapshot!(home.run(&["up"]), @r#"
    error: [home]/data/config.toml:2:1: unknown field `bnd`, expected one of `name`, `bind`, `mdns`, `relay`, `metrics`, `socket_mode`, `socket_group`
    exit 2
    "#);
    // A command that opens no connection does not read the settings.
    assert_eq!(home.run(&["put", "/k", "v"]).code, 0);
    insta::assert_snapshot!(home.run(&["up", "--relay", "relay.example"]), @r#"
    error: invalid value 'relay.example' for '--relay <RELAY>': "relay.example" is not a relay: expected off, n0 or a URL such as https://relay.example

    For more information, try '--help'.
    exit 2
    "#);
}

#[test]
fn conflict_is_listed_and_removed_node_is_out() {
    let a = Home::new();
    let _a_node = a.up();
    let (b, b_node) = joined(&a, "writer");
    // Apart, both write one key.
    b_node.signal(Signal::TERM);
    b_node.end();
    a.run(&["put", "/k", "from a"]).ok();
    b.run(&["put", "/k", "from b"]).ok();
    let _b_node = b.up();
    for home in [&a, &b] {
        soon("the conflict is known", || {
            home.run(&["conflicts", "--json"]).json().len() == 2
        });
    }
    assert_eq!(a.run(&["get", "/k"]).raw, b.run(&["get", "/k"]).raw);
    let said = a.run(&["get", "/k"]).stderr;
    for value in ["from a", "from b"] {
        assert!(said.contains(value), "{said}");
    }
    let status = a.run(&["status"]).ok();
    assert!(
        status.starts_with("WARNING: ") && status.contains("1 conflict: "),
        "{status}"
    );
    let refused = a.run(&["conflicts", "resolve", "/k", "--pick", "nobody"]);
    assert_eq!(refused.code, 2, "{refused}");
    assert!(
        refused.stderr.contains("no head of /k is meant"),
        "{refused}"
    );
    let heads = a.run(&["heads", "/k", "--json"]).json();
    let of_b = heads.iter().find(|head| head["value"] == "from b").unwrap();
    let picked = &of_b["entry"].as_str().unwrap()[..8];
    a.run(&["conflicts", "resolve", "/k", "--pick", picked])
        .ok();
    has(&b, "/k", "from b");
    insta::assert_snapshot!(a.run(&["conflicts", "resolve", "/k", "--pick", picked]), @r#"
    error: /k has one head, so there is no conflict
    hint: `lattice conflicts` lists the keys that have several heads
    exit 4
    "#);
    a.run(&["put", "/k", "merged"]).ok();
    has(&b, "/k", "merged");
    insta::assert_snapshot!(b.run(&["conflicts"]), @r#"
    note: no conflicts
    exit 0
    "#);

    // A writer lets nobody in, and removes nobody.
    let refused = b.run(&["invite"]);
    assert_eq!(refused.code, 4, "{refused}");
    let unasked = a.run(&["peer", "remove", "writer"]);
    assert_eq!(unasked.code, 2, "{unasked}");
    for part in [
        "asks before it removes node",
        "(writer, writer)",
        "add --yes",
    ] {
        assert!(unasked.stderr.contains(part), "{unasked}");
    }
    assert!(
        a.run(&["peers"]).raw.contains("online"),
        "it is still a member"
    );
    let mut watch = b.spawn({
        let mut command = b.command(&["watch", "/w/", "--json"]);
        command.stderr(std::fs::File::create(b.path("watch.err")).unwrap());
        command
    });
    b.run(&["put", "/w/1", "x"]).ok();
    watch.line_with("/w/1");
    let ran = a.run(&["peer", "remove", "writer", "--yes"]);
    assert_eq!(ran.code, 0, "{ran}");
    // Not with the next heartbeat, which comes every 15 s.
    let removed = Instant::now();
    soon("the watch says it", || {
        let said = std::fs::read_to_string(b.path("watch.err")).unwrap();
        said.contains("\"notice\":\"removed\"")
    });
    assert!(removed.elapsed() < Duration::from_secs(5), "{removed:?}");
    drop(watch);
    soon("the connection is closed", || {
        !b.run(&["peers"]).raw.contains("online")
    });
    assert!(
        !a.run(&["peers"]).raw.contains("writer"),
        "it is a member no more"
    );
    assert!(a.run(&["peers", "--all"]).raw.contains("removed"));
    a.run(&["put", "/k", "without b"]).ok();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(b.run(&["get", "/k"]).raw, "merged");
}

// The events of a watch of `/n/` on `home` from a start, as it ended.
fn watched(home: &Home, arguments: &[&str]) -> super::harness::Ran {
    home.run(&[&["watch", "/n/", "--json", "--cursors"], arguments].concat())
}

#[test]
fn cursor_resumes_on_another_node() {
    let a = Home::new();
    let a_node = a.up();
    let (b, b_node) = joined(&a, "writer");
    a.run(&["put", "/n/1", "a"]).ok();
    has(&b, "/n/1", "a");
    b.run(&["put", "/n/2", "b"]).ok();
    has(&a, "/n/2", "b");
    // Apart, A goes on: its cursor is ahead of what B has.
    b_node.signal(Signal::TERM);
    b_node.end();
    a.run(&["put", "/n/3", "a"]).ok();
    a.run(&["put", "/n/4", "a"]).ok();
    let seen = watched(&a, &["--since", "1h", "-c", "3"]).json();
    let cursor = seen[2]["cursor"].as_str().unwrap();
    // A is stopped, so that B certainly misses the rest.
    a_node.signal(Signal::STOP);
    let refused = watched(&b, &["--after", cursor, "--until-caught-up"]);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.stderr.contains("cursor_ahead"), "{refused}");
    let through = seen[2]["seq"].as_u64().unwrap();
    let lacking = format!("to {through} of [id]");
    assert!(refused.stderr.contains(&lacking), "{refused}");

    let _b_node = b.up();
    let wait = [
        "watch", "/n/", "--json", "--after", cursor, "--wait", "-c", "1",
    ];
    let rest = b.start(&wait);
    a_node.signal(Signal::CONT);
    let rest = rest.end();
    assert_eq!(rest.code, 0, "{rest}");
    let keys: Vec<_> = rest.json().iter().map(|line| line["key"].clone()).collect();
    assert_eq!(keys.last().unwrap(), "/n/4", "{rest}");
    assert_eq!(keys.len(), 1, "{rest}");
    // A cursor of B goes on on A, where there is nothing left.
    let end = watched(&b, &["--until-caught-up"]).json();
    let cursor = end.last().unwrap()["cursor"].as_str().unwrap();
    let nothing = watched(&a, &["--after", cursor, "--wait", "--until-caught-up"]);
    assert_eq!(nothing.json().len(), 1, "{nothing}");
}
