//! The important errors: what they say, what to do next, and the exit code.

use super::harness::Home;

#[test]
fn a_mistyped_data_directory_is_not_created() {
    let home = Home::new();
    insta::assert_snapshot!(home.run(&["get", "/a"]), @"");
    insta::assert_snapshot!(home.run(&["put", "/a", "1", "--json"]), @"");
    for arguments in [
        &["watch"][..],
        &["shell"],
        &["status"],
        &["store", "list"],
        &["down"],
    ] {
        let ran = home.run(arguments);
        assert_eq!(ran.code, 5, "{arguments:?}: {ran}");
        assert!(ran.stderr.contains("[home]/data"), "{arguments:?}: {ran}");
    }
    assert!(!home.data().exists());
}

#[test]
fn usage_is_exit_2() {
    let home = Home::new();
    insta::assert_snapshot!(home.run(&["watch", "--since", "yesterday"]), @"");
    insta::assert_snapshot!(home.run(&["put", "/a", "--json"]), @"");
    insta::assert_snapshot!(home.run(&["delete", "--prefix", "/a"]), @"");
    for arguments in [
        &["watch", "--initial", "--no-initial"][..],
        &["watch", "--after", "x", "--since", "2h"],
        &["put", "--stdin", "/a"],
        &["put", "/a", "1", "--if-absent", "--if-head", "00"],
        &["list", "--limit", "0"],
        &["frobnicate"],
        &[],
    ] {
        assert_eq!(home.run(arguments).code, 2, "{arguments:?}");
    }
}

#[test]
fn missing_and_refused_have_their_codes() {
    let home = Home::initialised();
    let _node = home.up();
    insta::assert_snapshot!(home.run(&["get", "/t/none"]), @"");
    insta::assert_snapshot!(home.run(&["get", "/t/none", "--json"]), @"");
    insta::assert_snapshot!(home.run(&["put", "", "x"]), @"");
    insta::assert_snapshot!(home.run(&["put", &"k".repeat(4097), "x"]), @"");
    insta::assert_snapshot!(home.run(&["--store", "nope", "get", "/a"]), @"");
    insta::assert_snapshot!(home.run(&["watch", "--after", "garbage"]), @"");
    insta::assert_snapshot!(home.run(&["log", "00000000"]), @"");
    insta::assert_snapshot!(home.run(&["put", "/nodes/x", "1"]), @"");
}

#[test]
fn a_value_that_is_too_long_says_by_how_much() {
    let home = Home::initialised();
    let ran = home.feed(&["put", "/t/long", "-"], vec![b'v'; (1 << 20) + 1]);
    insta::assert_snapshot!(ran, @"");
}

#[test]
fn conditions_that_do_not_hold_are_exit_4() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["put", "/t/a", "1", "--if-absent"]).ok();
    insta::assert_snapshot!(home.run(&["put", "/t/a", "2", "--if-absent"]), @"");
    let head = home.run(&["heads", "/t/a", "--json"]).json()[0]["entry"].clone();
    let head = head.as_str().unwrap();
    home.run(&["put", "/t/a", "2", "--if-head", &head[..12]])
        .ok();
    for stale in [head, &head[..12]] {
        let ran = home.run(&["put", "/t/a", "3", "--if-head", stale]);
        assert_eq!(ran.code, 4, "{ran}");
        let ran = home.run(&["delete", "/t/a", "--if-head", stale, "--json"]);
        assert_eq!(ran.code, 4, "{ran}");
        assert!(ran.stderr.contains("\"exit_code\":4"), "{ran}");
    }
    assert_eq!(home.run(&["get", "/t/a"]).ok(), "2");
}

#[test]
fn a_second_node_is_told_about_the_first() {
    let home = Home::initialised();
    let _node = home.up();
    let ran = home.run(&["up"]);
    assert_eq!(ran.code, 5, "{ran}");
    assert!(ran.stderr.contains("lattice down"), "{ran}");
    home.run(&["status"]).ok();
}
