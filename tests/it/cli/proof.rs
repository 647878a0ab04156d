//! Lines of `watch --proof` verify without a node, and a changed line does not.

use std::collections::BTreeSet;

use lattice::{
    clock::Clock,
    protocol::{
        entry::{Header, Op, sign},
        hlc::Hlc,
    },
    store::Ingested,
};
use serde_json::{Value, json};

use super::harness::{Home, Ran};
use crate::support::{
    model::{AUTHOR_A, author_of, key_of},
    watch::open,
    writer::Writer,
};

// The changes of a store, with their proofs, and another author's.
fn changes(home: &Home) -> Vec<Value> {
    home.run(&["put", "/p/a", "1"]).ok();
    home.feed(
        &["batch"],
        "put\t/p/b\ttwo\nput\t/p/c\tthree\ndelete\t/p/a\n",
    )
    .ok();
    home.run(&["put", "/p/ttl", "4", "--ttl", "1h"]).ok();
    home.feed(&["put", "/p/bin", "-"], b"\xff\x00").ok();
    let watch = [
        "watch",
        "/p/",
        "--json",
        "--proof",
        "--since",
        "1h",
        "--until-caught-up",
    ];
    let mut lines = home.run(&watch).json();
    lines.pop();
    lines
}

fn text(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

// In a home where no node ever was.
fn verify(lines: impl AsRef<[u8]>, extra: &[&str]) -> Ran {
    let nowhere = Home::new();
    let ran = nowhere.feed(&[&["verify", "--lines"], extra].concat(), lines);
    assert!(!nowhere.data().exists(), "nothing is made or looked for");
    assert!(!ran.stderr.contains("panicked"), "{ran}");
    ran
}

// How many lines were good, and how many false.
fn counts(lines: impl AsRef<[u8]>, extra: &[&str]) -> (u64, u64) {
    let ran = verify(lines, &[&["--json"], extra].concat());
    let told = ran.json();
    let good = told.iter().filter_map(|it| it["lines"].as_u64()).sum();
    let end = told.iter().find(|it| it["type"] == "checked").unwrap();
    let wrong = end["false"].as_u64().unwrap();
    assert_eq!(ran.code, if wrong == 0 { 0 } else { 6 }, "{ran}");
    (good, wrong)
}

#[test]
fn watch_lines_verify_without_a_node() {
    let home = Home::initialised();
    let _node = home.up();
    let lines = changes(&home);
    assert!(lines.len() >= 5, "{lines:?}");
    let count = u64::try_from(lines.len()).unwrap();
    let own = lines[0]["author"].as_str().unwrap();
    let store = home.run(&["store", "list", "--json"]).json()[0]["store"].clone();
    let all = text(&lines) + "\n{\"type\":\"caught_up\"}\n";
    assert_eq!(
        counts(&all, &["--author", own, "--store", store.as_str().unwrap()]),
        (count, 0)
    );
    insta::assert_snapshot!(verify(&all, &[]), @r#"
    author [id]: 6 lines, store [uuid]
    not signed by anybody, only seen by a node: 1 caught_up
    exit 0
    "#);
    // The state at the start proves itself too.
    let state = home.run(&["watch", "/p/", "--json", "--proof", "--until-caught-up"]);
    let (good, wrong) = counts(&state.raw, &[]);
    assert!(good >= 3 && wrong == 0, "{state}");
}

// An honest line about a damaged value was called made up. A gap that somebody adds is seen in the count.
#[test]
fn gap_and_damaged_lines_are_counted_apart() {
    let lines = "{\"type\":\"gap\"}\n{\"type\":\"damaged\",\"key\":\"/p/a\"}\n{\"type\":\"gap\"}\n";
    insta::assert_snapshot!(verify(lines, &[]), @r#"
    not signed by anybody, only seen by a node: 1 damaged, 2 gap
    exit 0
    "#);
}

fn forge(forged: &mut Vec<Value>, line: &Value, field: &str, to: Value) {
    let mut line = line.clone();
    assert_ne!(line[field], to, "{field}");
    line[field] = to;
    forged.push(line);
}

#[test]
fn any_changed_field_fails() {
    let home = Home::initialised();
    let _node = home.up();
    let lines = changes(&home);
    let other = Home::initialised();
    other.run(&["put", "/p/a", "1"]).ok();
    let watch = ["watch", "/p/", "--json", "--proof", "--until-caught-up"];
    let theirs = other.run(&watch).json().remove(0);

    let mut forged = Vec::new();
    for line in &lines {
        forge(&mut forged, line, "key", json!("/p/other"));
        forge(
            &mut forged,
            line,
            "type",
            json!(if line["type"] == "put" {
                "delete"
            } else {
                "put"
            }),
        );
        forge(&mut forged, line, "value", json!("forged"));
        forge(&mut forged, line, "entry", theirs["entry"].clone());
        forge(&mut forged, line, "author", theirs["author"].clone());
        forge(&mut forged, line, "seq", json!(9999));
        forge(&mut forged, line, "wall_ms", json!(1));
        forge(&mut forged, line, "counter", json!(9999));
        forge(&mut forged, line, "op_index", json!(77));
        forge(&mut forged, line, "op_count", json!(77));
        forge(&mut forged, line, "atomic", json!(line["atomic"] != true));
        forge(&mut forged, line, "expires_ms", json!(1));
        forge(&mut forged, line, "proof", theirs["proof"].clone());
        forge(&mut forged, line, "proof", json!(""));
        forge(&mut forged, line, "proof", json!("%%%"));
        forge(&mut forged, line, "proof", Value::Null);
        // One bit of the signed bytes, anywhere.
        let proof = line["proof"].as_str().unwrap();
        for at in (0..proof.len() - 4).step_by(7) {
            let with = if &proof[at..=at] == "A" { "B" } else { "A" };
            forge(
                &mut forged,
                line,
                "proof",
                json!(format!("{}{with}{}", &proof[..at], &proof[at + 1..])),
            );
        }
        for length in [4, proof.len() / 8 * 4, proof.len() - 4] {
            forge(&mut forged, line, "proof", json!(&proof[..length]));
        }
        let mut line = line.clone();
        line.as_object_mut().unwrap().remove("atomic");
        forged.push(line);
    }
    // Two changes of one entry: each line proves the entry of the other, and not its change.
    let batch: Vec<_> = lines.iter().filter(|line| line["op_count"] == 3).collect();
    assert_eq!(batch.len(), 3, "{lines:?}");
    forge(
        &mut forged,
        batch[0],
        "op_index",
        batch[1]["op_index"].clone(),
    );
    forge(&mut forged, batch[0], "key", batch[1]["key"].clone());
    let count = u64::try_from(forged.len()).unwrap();
    assert_eq!(counts(text(&forged), &[]), (0, count));

    // Whole lines of another author and another store hold, and not where others are asked for.
    let mixed = text(&[lines[0].clone(), theirs]);
    assert_eq!(counts(&mixed, &[]), (2, 0));
    let own = lines[0]["author"].as_str().unwrap();
    assert_eq!(counts(&mixed, &["--author", own]), (1, 1));
    let store = home.run(&["store", "list", "--json"]).json()[0]["store"].clone();
    assert_eq!(
        counts(&mixed, &["--store", store.as_str().unwrap()]),
        (1, 1)
    );
}

#[test]
fn malformed_line_fails() {
    let home = Home::initialised();
    let _node = home.up();
    let line = changes(&home).remove(0).to_string();
    let twice = line.replacen('{', "{\"value\":\"forged\",", 1);
    let both = line.replacen('{', "{\"value_base64\":\"Zm9yZ2Vk\",", 1);
    let long = line.replacen("\"1\"", &format!("\"{}\"", "x".repeat(2 << 20)), 1);
    let endless = format!("\"{}", "x".repeat(17 << 20));
    let deep = "[".repeat(100_000);
    let cut = &line[..line.len() / 2];
    let bad = [
        twice.as_str(),
        &both,
        &long,
        &endless,
        &deep,
        cut,
        "null",
        "[]",
        "7",
        "{}",
        "{\"type\":\"puts\"}",
        "{\"type\":\"put\"}",
        "\u{0}",
        "not json",
    ];
    let all = format!("{line}\n{}\n{line}", bad.join("\n"));
    assert_eq!(counts(all, &[]), (2, u64::try_from(bad.len()).unwrap()));
    assert_eq!(counts(b"\xff\xfe\n", &[]), (0, 1));
    assert_eq!(counts("", &[]), (0, 0));
    // A value that the watch could not read: there is nothing to check.
    let damaged = r#"{"type":"damaged","key":"/a","entry":"00","author":"00","seq":1,"what":"x"}"#;
    assert_eq!(counts(format!("{line}\n{damaged}\n{line}"), &[]), (2, 0));
}

#[test]
fn unsigned_change_is_reported() {
    let home = Home::initialised();
    let _node = home.up();
    let mut watch = home.start(&["watch", "/x/", "--json", "--proof", "-c", "2"]);
    watch.line_with("caught_up");
    home.run(&["put", "/x/brief", "v", "--ttl", "50ms"]).ok();
    let lines = watch.end();
    let expired = lines.json().pop().unwrap();
    assert_eq!(
        (&expired["type"], &expired["proof"]),
        (&json!("expire"), &Value::Null)
    );
    assert!(expired["proof_missing"].is_string(), "{expired}");
    // Nobody signs that a time has passed: the line is not false.
    assert_eq!(counts(&lines.raw, &[]), (1, 0));
    insta::assert_snapshot!(verify(&lines.raw, &[]), @r#"
    author [id]: 1 line, store [uuid]
    not signed by anybody, only seen by a node: 1 caught_up, 1 expire
    exit 0
    "#);
    // A put is signed, whatever its line says.
    let unsigned = lines.raw.replace("\"proof\":\"", "\"proof_missing\":\"");
    assert_eq!(counts(&unsigned, &[]), (0, 1));
    assert_eq!(counts(&unsigned, &["--allow-missing"]), (0, 0));
    assert_eq!(home.run(&["watch", "/x/", "--proof"]).code, 2);
    assert_eq!(verify("", &["--store", "notes"]).code, 2);
    assert_eq!(verify("", &["--author", "5b1e"]).code, 2);
}

// An entry whose own signature is odd is authentic all the same: a later one of its author commits
// to it. A line cannot prove that alone, so it says why not; the later one's proves itself.
#[tokio::test(flavor = "multi_thread")]
async fn vouched_entry_explains_its_missing_signature() {
    let home = Home::new();
    let author = author_of(AUTHOR_A);
    {
        let clock = Clock::system();
        let (node, store) = open(&home.data(), &clock, 64).await;
        let mut writer = Writer::new(AUTHOR_A, store.id());
        let put = |key: &'static str| Op::Put {
            key: key.into(),
            value: "v".into(),
            expires_ms: None,
        };
        let first = writer.write(clock.now_ms(), vec![put("/odd")], BTreeSet::new(), false);
        let mut odd = first.signed.clone();
        odd.signature[3] ^= 1;
        let header = Header {
            seq: 2,
            prev: Some(odd.id()),
            hlc: Hlc {
                wall_ms: first.header.hlc.wall_ms + 1,
                counter: 0,
            },
            ..first.header.clone()
        };
        let next = sign(&key_of(AUTHOR_A), header, vec![put("/next")]).unwrap();
        let both = vec![odd.encode().into(), next.signed.encode().into()];
        let applied = [odd.id(), next.id].map(Ingested::Applied);
        assert_eq!(store.ingest(both).await.unwrap(), applied);
        node.close().await.unwrap();
    }
    let key = author.to_string();
    for start in [&["--since", "1h"][..], &[]] {
        let watch = [
            "watch",
            "--store",
            "s",
            "--json",
            "--proof",
            "--until-caught-up",
        ];
        let ran = home.run(&[&watch, start].concat());
        let lines = ran.json();
        let of = |key: &str| lines.iter().find(|line| line["key"] == key).unwrap();
        assert_eq!(of("/odd")["proof"], Value::Null, "{ran}");
        assert_eq!(
            of("/odd")["proof_missing"],
            "its own signature does not verify: a later entry of its author vouches for it"
        );
        let (odd, next) = (text(&[of("/odd").clone()]), text(&[of("/next").clone()]));
        assert_eq!(counts(&next, &["--author", &key]), (1, 0));
        assert_eq!(counts(&odd, &["--author", &key]), (0, 1));
        assert_eq!(counts(odd + &next, &["--allow-missing"]), (1, 0));
        // Bytes taken from `lattice log` do not help.
        let mut forged = of("/odd").clone();
        forged["proof"] = of("/next")["proof"].clone();
        assert_eq!(counts(text(&[forged]), &[]), (0, 1));
    }
}
