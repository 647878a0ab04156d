//! A directory whose key is missing, and a copy of a directory that gets a key of its own.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use super::harness::{Home, PATIENCE};
use crate::support::files::copy_all;

fn until(home: &Home, key: &str, value: &str) {
    let deadline = Instant::now() + PATIENCE;
    while home.run(&["get", key]).raw != value {
        assert!(Instant::now() < deadline, "{key} is not {value}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn node_of(home: &Home) -> String {
    let status = home.run(&["status", "--json"]).json();
    status[0]["node"].as_str().unwrap().to_owned()
}

/// `up` made a new key without a word: a stranger with the data of a member, which could not write,
/// and a join that reported damage.
#[test]
fn s21_missing_identity_beside_data_is_an_error() {
    let home = Home::initialised();
    home.run(&["put", "/t/a", "1"]).ok();
    let node = node_of(&home);
    let key = home.data().join("identity.key");
    fs::rename(&key, home.path("elsewhere")).unwrap();
    for command in [&["up"][..], &["init"], &["status"], &["get", "/t/a"]] {
        let ran = home.run(command);
        assert_eq!(ran.code, 6, "{command:?}: {ran}");
        assert!(!key.exists(), "{command:?} made a key");
    }
    insta::assert_snapshot!(home.run(&["up"]), @r#"
    error: [home]/data holds the data of node [id], and its identity.key is missing
    hint: put the file back; or give the directory a new identity with `lattice init --new-identity`, and join the mesh again
    exit 6
    "#);
    let error = home.start(&["up", "--json"]).end();
    assert!(error.stderr.contains("identity_missing"), "{error}");
    fs::rename(home.path("elsewhere"), &key).unwrap();
    assert_eq!(node_of(&home), node);
    assert_eq!(home.run(&["get", "/t/a"]).ok(), "1");
}

#[test]
fn s21_copy_with_a_new_identity_is_another_node() {
    let a = Home::new();
    let a_node = a.up();
    a.run(&["put", "/t/a", "of a"]).ok();
    // A copy, made as people make them: of a node that runs.
    let copied = Home::new();
    copy_all(&a.data(), &copied.data());
    let made = copied.run(&["init", "--new-identity"]);
    insta::assert_snapshot!(made, @r#"
    node     [id]
    data     [home]/data (kept)
    before   [id]
    old key  [home]/data/identity.[short].key
    next     lattice join TOKEN, with a token from `lattice invite` on a member
    exit 0
    "#);
    // It reads, and writes nothing until it is a member.
    assert_eq!(copied.run(&["get", "/t/a"]).ok(), "of a");
    let node = node_of(&copied);
    assert_ne!(node, node_of(&a));
    let refused = copied.run(&["put", "/t/b", "of the copy"]);
    assert_eq!(refused.code, 4, "{refused}");
    assert!(refused.stderr.contains("not a member"), "{refused}");

    let token = a.run(&["invite"]).raw;
    let joined = copied.run(&["join", token.trim()]).ok();
    assert!(joined.contains("accepted   as writer"), "{joined}");
    assert!(!joined.contains("kept "), "{joined}");
    let copied_node = copied.up();
    copied.run(&["put", "/t/b", "of the copy"]).ok();
    a.run(&["put", "/t/a", "of a again"]).ok();
    until(&a, "/t/b", "of the copy");
    until(&copied, "/t/a", "of a again");
    for home in [&a, &copied] {
        let status = home.run(&["status", "--json"]).json();
        assert_eq!(status[0]["stores"][0]["forks"].as_array().unwrap().len(), 0);
        home.run(&["verify"]).ok();
    }
    drop((a_node, copied_node));
}

/// The node had begun to listen for the members that it knew, and joined only if that had come to
/// nothing before: else "another program uses UDP port ...", which was itself.
#[test]
fn copy_joins_on_a_port_of_its_own() {
    let a = Home::new();
    let _a_node = a.up();
    let token = || a.run(&["invite"]).raw.trim().to_owned();
    // Below the ports that sockets of other tests get.
    let is_free = |port: &u16| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok();
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let port = (first..).find(is_free).unwrap();
    let b = Home::at(format!("127.0.0.1:{port}"), Vec::new());
    b.run(&["join", &token(), "--name", "b"]).ok();
    for again in 0..5 {
        b.run(&["init", "--new-identity"]).ok();
        // The name was refused: of a node that is not a member.
        let name = format!("b{again}");
        let joined = b.run(&["join", &token(), "--name", &name]);
        assert_eq!(joined.code, 0, "{joined}");
        let peers = a.run(&["peers", "--json"]).json();
        assert!(peers.iter().any(|peer| peer["name"] == name), "{peers:?}");
    }
    b.run(&["put", "/t/b", "of b"]).ok();
    b.run(&["verify"]).ok();
}

#[test]
fn lost_identity_can_be_renewed() {
    let home = Home::initialised();
    home.run(&["put", "/t/a", "1"]).ok();
    home.run(&["store", "create", "jobs"]).ok();
    fs::remove_file(home.data().join("identity.key")).unwrap();
    let node = home.run(&["init", "--new-identity", "--json"]).json();
    assert_eq!(node[0]["type"], "new_identity");
    assert!(node[0].get("kept").is_none(), "{node:?}");
    // The first command after it says so.
    let status = home.run(&["status"]).ok();
    assert!(
        status.contains("this directory was used by node"),
        "{status}"
    );
    assert_eq!(node_of(&home), node[0]["node"].as_str().unwrap());
    assert_eq!(home.run(&["get", "/t/a"]).ok(), "1");
    assert_eq!(home.run(&["store", "list"]).raw.lines().count(), 4);
    // Nothing to renew, and nothing is made.
    let empty = Home::new();
    assert_eq!(empty.run(&["init", "--new-identity"]).code, 5);
    assert!(!empty.data().exists());
}
