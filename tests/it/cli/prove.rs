//! Roots and proofs: `root`, `get --prove`, `list --prove`, and `verify --proof` with no node.

use std::fs;

use lattice::light;
use serde_json::Value;

use super::{
    harness::{Home, Ran},
    mesh::{joined, soon},
    metrics,
};
use crate::support::state_file::change_state;

// In a home where no node ever was.
fn verify(proof: &[u8], extra: &[&str]) -> Ran {
    let nowhere = Home::new();
    let ran = nowhere.feed(&[&["verify", "--proof", "-"], extra].concat(), proof);
    assert!(!nowhere.data().exists(), "nothing is made or looked for");
    assert!(!ran.stderr.contains("panicked"), "{ran}");
    ran
}

fn proof(home: &Home, arguments: &[&str]) -> Vec<u8> {
    let file = home.path("proof");
    let file = file.to_str().unwrap();
    home.run(&[arguments, &["--prove", file]].concat()).ok();
    fs::read(file).unwrap()
}

fn root(home: &Home, arguments: &[&str]) -> Value {
    let ran = home.run(&[&["root", "--json"], arguments].concat());
    assert_eq!(ran.code, 0, "{ran}");
    ran.json().remove(0)
}

#[test]
fn root_is_printed_with_and_without_a_node() {
    let home = Home::initialised();
    home.run(&["put", "/a", "1"]).ok();
    home.run(&["put", "/b/1", "2"]).ok();
    insta::assert_snapshot!(home.run(&["root"]), @"
    root     [id]
    store    [uuid] (data)
    after    2 entries
    exit 0
    ");
    let (all, of_b) = (root(&home, &[]), root(&home, &["--prefix", "/b/"]));
    assert_eq!((&all["entries"], &all["members"]), (&2.into(), &1.into()));
    assert_eq!(of_b["prefix"], "/b/");
    assert_ne!(all["root"], of_b["root"]);
    let _node = home.up();
    let again = root(&home, &[]);
    assert_eq!(again["root"], all["root"]);
    home.run(&["put", "/a", "2"]).ok();
    assert_ne!(root(&home, &[])["root"], all["root"]);
    let b_again = root(&home, &["--prefix", "/b/"]);
    assert_eq!(b_again["root"], of_b["root"], "its keys have not changed");
}

/// A reader that has missed nothing has the keys of which the bookmark has the root.
#[test]
fn bookmarks_of_a_watch_have_the_root_of_its_keys() {
    let home = Home::initialised();
    home.run(&["put", "/a/1", "1"]).ok();
    home.run(&["put", "/b/1", "1"]).ok();
    let caught_up = |flags: &[&str]| {
        let watch = ["watch", "/a/", "--json", "--until-caught-up"];
        home.run(&[&watch, flags].concat()).json().pop().unwrap()
    };
    let of_a = || root(&home, &["--prefix", "/a/"])["root"].clone();
    let begun = caught_up(&["--hash"]);
    assert_eq!(
        (&begun["type"], &begun["root"]),
        (&"caught_up".into(), &of_a())
    );
    assert!(caught_up(&[])["root"].is_null(), "it is asked for");
    // Of the whole store; and later, from the cursor on.
    let all = home.run(&["watch", "--json", "--hash", "--until-caught-up"]);
    assert_eq!(all.json().pop().unwrap()["root"], root(&home, &[])["root"]);
    home.run(&["put", "/a/1", "2"]).ok();
    let cursor = begun["cursor"].as_str().unwrap();
    let later = caught_up(&["--hash", "--after", cursor]);
    assert_eq!(later["root"], of_a());
    assert_ne!(later["root"], begun["root"]);
    let two = home.run(&["watch", "/a/", "/b/", "--json", "--hash"]);
    assert_eq!(two.code, 2, "{two}");
}

#[test]
fn proofs_are_checked_with_no_node_and_no_store() {
    let home = Home::initialised();
    home.run(&["put", "/hello", "world"]).ok();
    home.run(&["put", "/gone", "1"]).ok();
    home.run(&["delete", "/gone"]).ok();
    home.feed(&["put", "/big", "-"], vec![b'x'; 5000]).ok();
    let hello = proof(&home, &["get", "/hello"]);
    insta::assert_snapshot!(verify(&hello, &[]), @"
    proved   /hello = world
             entry [id], 1 of [id], [time]
    store    [uuid]
    root     [id]
    signed   by [id] after 4 entries
    exit 0
    ");
    insta::assert_snapshot!(verify(&proof(&home, &["get", "/gone"]), &[]), @"
    proved   /gone was deleted
             entry [id], 3 of [id], [time]
    store    [uuid]
    root     [id]
    signed   by [id] after 4 entries
    exit 0
    ");
    insta::assert_snapshot!(verify(&proof(&home, &["get", "/none"]), &[]), @"
    proved   /none was never written
    store    [uuid]
    root     [id]
    signed   by [id] after 4 entries
    exit 0
    ");
    let big = verify(&proof(&home, &["get", "/big"]), &["--json"]).json();
    assert_eq!(big[1]["value"], "x".repeat(5000));
    // It prints what it proves where the proof goes into a file, and the proof alone on stdout.
    let ran = home.run(&["get", "/hello", "--prove", "hello.proof"]);
    assert!(ran.raw.starts_with("proved   /hello = world\n"), "{ran}");
    let piped = home
        .command(&["get", "/hello", "--prove"])
        .output()
        .unwrap();
    assert_eq!(piped.stdout, fs::read(home.path("hello.proof")).unwrap());

    // All keys under a prefix, and no other.
    let list = proof(&home, &["list", "/"]);
    let lines = verify(&list, &["--json"]).json();
    assert_eq!(
        (&lines[0]["prefix"], &lines[0]["rows"]),
        (&"/".into(), &3.into())
    );
    let listed: Vec<_> = lines[1..]
        .iter()
        .map(|line| (&line["key"], &line["kind"]))
        .collect();
    let is = |key: &str, kind: &str| listed.iter().any(|(of, is)| **of == key && **is == kind);
    assert!(
        is("/hello", "put") && is("/gone", "delete") && is("/big", "put"),
        "{listed:?}"
    );
    let of_big = lines.iter().find(|line| line["key"] == "/big").unwrap();
    assert!(of_big["value"].is_null() && of_big["value_hash"].is_string());

    // The flags that name what is expected.
    let root_now = root(&home, &[])["root"].as_str().unwrap().to_owned();
    let proven = light::verify(&hello).unwrap();
    let (node, store) = (proven.signers[0].node.to_string(), proven.store.to_string());
    let flags = ["--root", &root_now, "--author", &node, "--store", &store];
    assert_eq!(verify(&hello, &flags).code, 0);
    let other = "0".repeat(64);
    insta::assert_snapshot!(verify(&hello, &["--root", &other]), @"
    error: the proof is about the root [id], not [id]
    exit 6
    ");
    insta::assert_snapshot!(verify(&hello, &["--author", &other]), @"
    error: none of the accepted authors has signed the root: [id] did
    exit 6
    ");
    let other = "00000000-0000-8000-8000-000000000000";
    assert_eq!(verify(&hello, &["--store", other]).code, 6);
    assert_eq!(verify(&hello, &["--root", "12"]).code, 2);
    assert_eq!(
        home.run(&["list", "/", "--limit", "1", "--prove", "x"])
            .code,
        2
    );
    assert_eq!(
        home.run(&["get", "/a", "--at", "1h", "--prove", "x"]).code,
        2
    );
}

#[test]
fn wrong_proofs_exit_with_6_and_a_reason() {
    let home = Home::initialised();
    home.run(&["put", "/hello", "world"]).ok();
    let hello = proof(&home, &["get", "/hello"]);
    insta::assert_snapshot!(verify(b"", &[]), @"
    error: this is not a proof: it does not begin as one
    hint: it proves nothing; ask for another one with `lattice get KEY --prove FILE`
    exit 6
    ");
    insta::assert_snapshot!(verify(&hello[..hello.len() - 1], &[]), @"
    error: the proof was changed or cut: its check fails
    hint: it proves nothing; ask for another one with `lattice get KEY --prove FILE`
    exit 6
    ");
    let mut newer = hello.clone();
    newer[8] = 9;
    insta::assert_snapshot!(verify(&newer, &[]), @"
    error: the proof has format 9; this version reads format 1
    hint: it proves nothing; ask for another one with `lattice get KEY --prove FILE`
    exit 6
    ");
    // A liar changes the value and the check.
    let mut lie = light::StateProof::decode(&hello).unwrap();
    let row = lie.rows[0].row.to_vec();
    lie.rows[0].row = row
        .into_iter()
        .map(|byte| if byte == b'w' { b'W' } else { byte })
        .collect();
    let lied = verify(&lie.encode(), &["--json"]);
    assert_eq!(lied.code, 6);
    assert!(lied.stderr.contains("\"error\":\"proof_wrong\""), "{lied}");
    let ran = verify(&vec![b'x'; light::PROOF_BYTES_MAX + 10], &[]);
    assert!(
        ran.code == 6 && ran.stderr.contains("has more than"),
        "{ran}"
    );
    let missing = Home::new().run(&["verify", "--proof", "nowhere"]);
    assert_eq!(missing.code, 1, "{missing}");
}

/// The proof of one node has the signatures of the others that have the same state.
#[test]
fn proof_has_the_signatures_of_members_that_agree() {
    let a = Home::new();
    let _a_node = a.up();
    let (b, _b_node) = joined(&a, "writer");
    a.run(&["put", "/hello", "world"]).ok();
    soon("both have signed", || {
        let signed = |home: &Home| root(home, &[])["signed_by"].as_array().unwrap().len() == 1;
        signed(&a) && signed(&b)
    });
    assert_eq!(root(&a, &[])["root"], root(&b, &[])["root"]);
    let ran = a.run(&["root"]).raw;
    assert!(ran.contains("signed   by 1 of 1 other members: "), "{ran}");
    let proven = light::verify(&proof(&b, &["get", "/hello"])).unwrap();
    assert_eq!(proven.signers.len(), 2);
    assert_eq!(proven.rows[0].value.as_deref(), Some(b"world".as_slice()));
    let status = a.run(&["status", "--json"]).json();
    assert_eq!(status[0]["stores"][0]["diverged"], Value::Array(Vec::new()));
    assert_eq!(a.run(&["peers", "--json"]).json()[1]["diverged"], 0);
}

#[test]
fn wrong_state_is_found_by_a_comparison_and_by_the_alarm() {
    let a = Home::new();
    let (_a_node, at) = metrics::up(&a);
    let (b, b_node) = joined(&a, "writer");
    a.run(&["put", "/hello", "world"]).ok();
    soon("b has it", || b.run(&["get", "/hello"]).raw == "world");
    let ran = b.run(&["compare", &id_of(&a)]);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.raw.starts_with("equal    1 round trip, "), "{ran}");
    let json = a
        .run(&["compare", "writer", "--prefix", "/h", "--json"])
        .json();
    assert_eq!(
        (&json[0]["equal"], &json[0]["same_entries"]),
        (&true.into(), &true.into())
    );

    // A state that was changed behind the back of its node differs, and says so.
    let store = root(&b, &[])["store"].as_str().unwrap().to_owned();
    b.run(&["down"]).ok();
    assert_eq!(b_node.end().code, 0);
    change_state(&b.data(), &store.parse().unwrap(), &["/hello".to_owned()]);
    let _b_node = b.up();
    soon("a sees b", || a.run(&["peers"]).raw.contains("online"));
    let ran = a.run(&["compare", "writer"]);
    assert_eq!(ran.code, 1, "{ran}");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].starts_with("differ   "), "{ran}");
    assert!(
        lines[3].starts_with("! both have the same entries"),
        "{ran}"
    );
    assert!(
        lines[4].starts_with("/hello\there put [short]\tthere put [short]"),
        "{ran}"
    );
    let json = a.run(&["compare", "writer", "--json"]).json();
    assert_eq!(
        (&json[1]["type"], &json[1]["key"]),
        (&"key".into(), &"/hello".into())
    );
    assert_eq!(json[1]["here"].as_array().unwrap().len(), 1);

    // The alarm is seen by people and by programs, on both.
    for home in [&a, &b] {
        soon("an alarm", || home.run(&["peers"]).raw.contains("DIVERGED"));
        let status = home.run(&["status"]).ok();
        let line = " says that its state differs from the state here, with the same entries: 1 member \
                    signed the state here, 1 member signed that of ";
        assert!(
            status.starts_with("PROBLEM: ") && status.contains(line),
            "{status}"
        );
        let json = home.run(&["status", "--json"]).json();
        assert_eq!(json[0]["stores"][0]["diverged"][0]["with_here"], 1);
    }
    // No member makes this node look broken by its word alone.
    let (code, body) = metrics::get(&at, "/healthz");
    assert_eq!(code, 200, "{body}");
    assert!(
        body.starts_with("warning: data: node ") && body.ends_with("\nok\n"),
        "{body}"
    );
    let diverged = || {
        let text = metrics::get(&at, "/metrics").1;
        metrics::value(&text, "lattice_diverged_members", &["store=\"data\""])
    };
    assert!((diverged() - 1.0).abs() < 0.5);

    // The log shows whose state it is.
    assert_eq!(a.run(&["verify"]).code, 0);
    assert_eq!(b.run(&["verify"]).code, 6);

    // The state is built again from the log: the alarm goes.
    b.run(&["down"]).ok();
    fs::remove_file(b.data().join("stores").join(&store).join("state.db")).unwrap();
    let _b_node = b.up();
    for home in [&a, &b] {
        soon("no alarm", || {
            let peers = home.run(&["peers"]).raw;
            peers.contains("online") && !peers.contains("DIVERGED")
        });
    }
    assert!(diverged() < 0.5);
    assert_eq!(metrics::get(&at, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(a.run(&["compare", "nobody"]).code, 3);
    // The peer took it for a broken rule and hung up.
    let long = "a".repeat(5000);
    let refused = a.run(&["compare", "writer", "--prefix", &long]);
    assert_eq!(refused.code, 2, "{refused}");
    assert!(refused.stderr.contains("at most 4096"), "{refused}");
}

fn id_of(home: &Home) -> String {
    home.run(&["status", "--json"]).json()[0]["node"]
        .as_str()
        .unwrap()
        .to_owned()
}
