//! `lattice wait`, for scripts.

use super::harness::Home;

#[test]
fn wait_for_a_key_and_a_node() {
    let home = Home::initialised();
    let waiting = home.start(&["wait", "--key", "/w/a", "--timeout", "1m"]);
    let _node = home.up();
    home.run(&["put", "/w/a", "1"]).ok();
    assert_eq!(waiting.end().ok(), "");
    let ready = home
        .run(&["wait", "--caught-up", "--peers", "0", "--json"])
        .json();
    assert_eq!(ready[0]["type"], "ready");
}

#[test]
fn timeout_names_the_missing() {
    let home = Home::initialised();
    insta::assert_snapshot!(home.run(&["wait", "--timeout", "100ms"]), @r#"
    error: timed out after 100ms: no node is running on [home]/data
    exit 8
    "#);
    let _node = home.up();
    let missing =
        |arguments: &[&str]| home.run(&[&["wait", "--timeout", "100ms"], arguments].concat());
    insta::assert_snapshot!(missing(&["--peers", "1"]), @r#"
    error: timed out after 100ms: 0 other members are connected, and --peers waits for 1
    exit 8
    "#);
    insta::assert_snapshot!(missing(&["--key", "/w/b"]), @r#"
    error: timed out after 100ms: /w/b has no value
    exit 8
    "#);
    assert_eq!(missing(&[]).code, 0);
}

#[test]
fn wait_for_a_joining_member() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["put", "/w/early", "1"]).ok();
    let token = home.run(&["invite"]).ok();
    let other = Home::initialised();
    let _other = other.up();
    let waiting = home.start(&["wait", "--peers", "1", "--caught-up", "--timeout", "1m"]);
    other.run(&["join", token.trim()]).ok();
    waiting.end().ok();
    other
        .run(&[
            "wait",
            "--caught-up",
            "--key",
            "/w/early",
            "--timeout",
            "1m",
        ])
        .ok();
    assert_eq!(other.run(&["get", "/w/early"]).ok(), "1");
}
