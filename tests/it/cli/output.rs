//! What each command prints, for people and for programs.

use super::harness::Home;

#[test]
fn reads_and_writes_print_lines() {
    let home = Home::initialised();
    let _node = home.up();
    insta::assert_snapshot!(home.run(&["put", "/t/hello", "world"]), @"");
    insta::assert_snapshot!(home.run(&["get", "/t/hello"]), @"");
    home.run(&["put", "/t/hello", "again", "--ttl", "1h"]).ok();
    insta::assert_snapshot!(home.run(&["list", "/t/"]), @"");
    insta::assert_snapshot!(home.run(&["heads", "/t/hello"]), @"");
    insta::assert_snapshot!(home.run(&["history", "/t/hello"]), @"");
    insta::assert_snapshot!(home.run(&["delete", "/t/hello"]), @"");
    insta::assert_snapshot!(home.run(&["heads", "/t/hello"]), @"");
    assert_eq!(home.run(&["get", "/t/hello"]).code, 3);
    let own = home.run(&["status", "--json"]).json()[0]["node"]
        .as_str()
        .unwrap()
        .to_owned();
    let log = home.run(&["log", &own[..10], "--limit", "100"]).ok();
    let tail: Vec<&str> = log.lines().filter(|line| line.contains("/t/")).collect();
    assert_eq!(tail.len(), 3, "{log}");
    assert!(tail[0].ends_with("put /t/hello=world"), "{log}");
    assert!(tail[2].ends_with("delete /t/hello"), "{log}");
}

#[test]
fn reads_and_writes_print_objects() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["store", "create", "notes"]).ok();
    let run = |arguments: &[&str]| home.run(&[&["--store", "notes", "--json"], arguments].concat());
    insta::assert_snapshot!(run(&["put", "/hello", "world"]), @"");
    insta::assert_snapshot!(run(&["get", "/hello"]), @"");
    insta::assert_snapshot!(run(&["put", "/hello", "again", "--ttl", "1h"]), @"");
    insta::assert_snapshot!(run(&["list", "/"]), @"");
    insta::assert_snapshot!(run(&["list", "/", "--keys-only"]), @"");
    insta::assert_snapshot!(run(&["heads", "/hello"]), @"");
    insta::assert_snapshot!(run(&["history", "/hello"]), @"");
    insta::assert_snapshot!(run(&["delete", "/hello"]), @"");
    insta::assert_snapshot!(run(&["delete", "--prefix", "/", "--yes"]), @"");
    insta::assert_snapshot!(run(&["log", "--after", "1"]), @"");
    insta::assert_snapshot!(run(&["verify"]), @"");
    insta::assert_snapshot!(run(&["store", "list"]), @"");
}

#[test]
fn status_shows_the_node_and_its_stores() {
    let home = Home::initialised();
    let without = home.run(&["status"]).ok();
    assert!(without.contains("running  no;"), "{without}");
    let _node = home.up();
    home.run(&["store", "create", "notes"]).ok();
    home.run(&["--store", "notes", "put", "/hello", "world"])
        .ok();
    let status = home.run(&["status"]).ok();
    let head: Vec<&str> = status.lines().take(5).collect();
    insta::assert_snapshot!(head.join("\n"), @"");
    assert!(
        status.contains("store    [uuid] (notes)\n  1 entries, 1 keys, log "),
        "{status}"
    );
    let json = &home.run(&["status", "--json"]).json()[0];
    let mut fields: Vec<&String> = json.as_object().unwrap().keys().collect();
    fields.sort();
    insta::assert_snapshot!(format!("{fields:?}"), @"");
    let mut fields: Vec<&String> = json["stores"][0].as_object().unwrap().keys().collect();
    fields.sort();
    insta::assert_snapshot!(format!("{fields:?}"), @"");
}

#[test]
fn verify_finds_nothing_in_a_sound_store() {
    let home = Home::initialised();
    home.run(&["put", "/t/a", "1"]).ok();
    let report = home.run(&["verify"]).ok();
    assert!(report.starts_with("store [uuid] (root"), "{report}");
    assert!(report.trim_end().ends_with("all good"), "{report}");
}

#[test]
fn a_directory_uses_the_store_that_was_chosen_for_it() {
    let home = Home::initialised();
    let _node = home.up();
    insta::assert_snapshot!(home.run(&["store", "create", "notes"]), @"");
    insta::assert_snapshot!(home.run(&["store", "use", "notes"]), @"");
    home.run(&["put", "/a", "in notes"]).ok();
    insta::assert_snapshot!(home.run(&["store", "list"]), @"");
    assert_eq!(
        home.run(&["--store", "notes", "get", "/a"]).ok(),
        "in notes"
    );
    let mut other = home.command(&["get", "/a"]);
    std::fs::create_dir(home.path("elsewhere")).unwrap();
    other.current_dir(home.path("elsewhere"));
    assert_eq!(
        other.output().unwrap().status.code(),
        Some(3),
        "only this directory"
    );
    insta::assert_snapshot!(home.run(&["store", "use", "nope"]), @"");
    insta::assert_snapshot!(home.run(&["store", "use", "--json"]), @"");
    insta::assert_snapshot!(home.run(&["store", "use", "--clear"]), @"");
    assert_eq!(home.run(&["get", "/a"]).code, 3);
}

#[test]
fn escapes_in_values_do_not_reach_a_line() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["put", "/t/\u{1b}[31mred", "a\u{1b}[0m\nfake\tline"])
        .ok();
    insta::assert_snapshot!(home.run(&["list", "/t/"]), @"");
    // A pipe gets the bytes as they are.
    let raw = home.run(&["get", "/t/\u{1b}[31mred"]).raw;
    assert_eq!(raw, "a\u{1b}[0m\nfake\tline");
}
