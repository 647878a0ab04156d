//! The important errors: text, hint and exit code.

use super::harness::Home;

#[test]
fn mistyped_directory_is_not_created() {
    let home = Home::new();
    insta::assert_snapshot!(home.run(&["get", "/a"]), @r#"
    error: there is no node in [home]/data
    hint: create it with `lattice init` or `lattice up`, or choose another with --data-dir
    exit 5
    "#);
    insta::assert_snapshot!(home.run(&["put", "/a", "1", "--json"]), @r#"
    {"type":"error","error":"no_data_dir","message":"there is no node in [home]/data","hint":"create it with `lattice init` or `lattice up`, or choose another with --data-dir","exit_code":5}
    exit 5
    "#);
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
    insta::assert_snapshot!(home.run(&["watch", "--since", "soon"]), @r#"
    error: invalid value 'soon' for '--since <TIME>': expected an age such as 30s, 5m, 2h, 1.5h, 7d or 1w; a time such as 10:30, 2026-01-31T12:00:00Z or Jan 31 12:00; a date; or yesterday

    For more information, try '--help'.
    exit 2
    "#);
    insta::assert_snapshot!(home.run(&["put", "/a", "--json"]), @r#"
    {"type":"error","error":"usage","message":"the following required arguments were not provided:\n  <VALUE>","hint":"see `lattice --help`","exit_code":2}
    exit 2
    "#);
    // Flags that the environment sets are not among those that were typed.
    insta::assert_snapshot!(home.run(&["join"]), @"
    error: the following required arguments were not provided:
      <TOKEN>

    Usage: lattice join <TOKEN>

    For more information, try '--help'.
    exit 2
    ");
    insta::assert_snapshot!(home.run(&["delete", "--prefix", "/a"]), @r#"
    error: delete --prefix asks for confirmation, but stdin is not a terminal
    hint: add --yes
    exit 2
    "#);
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
fn missing_and_refused_have_exit_codes() {
    let home = Home::initialised();
    let _node = home.up();
    insta::assert_snapshot!(home.run(&["get", "/t/none"]), @r#"
    error: /t/none has no value
    exit 3
    "#);
    insta::assert_snapshot!(home.run(&["get", "/t/none", "--json"]), @r#"
    {"type":"error","error":"not_found","message":"/t/none has no value","exit_code":3}
    exit 3
    "#);
    insta::assert_snapshot!(home.run(&["put", "", "x"]), @r#"
    error: a key has 1 to 4096 bytes; this one is empty
    exit 2
    "#);
    insta::assert_snapshot!(home.run(&["put", &"k".repeat(4097), "x"]), @r#"
    error: a key has at most 4096 bytes; this one has 4097
    hint: put the long part into the value, or a hash of it into the key
    exit 2
    "#);
    insta::assert_snapshot!(home.run(&["--store", "nope", "get", "/a"]), @r#"
    error: there is no store "nope" here; known stores: root, data
    hint: `lattice store list` shows the stores of this node
    exit 3
    "#);
    insta::assert_snapshot!(home.run(&["watch", "--after", "garbage"]), @r#"
    error: this is not a cursor: it has a character that cursors do not have, or it was truncated
    hint: copy the whole cursor as the watch printed it, or leave it out
    exit 2
    "#);
    insta::assert_snapshot!(home.run(&["log", "00000000"]), @r#"
    error: no author known here has the name or the id "[short]"
    hint: `lattice status -v` lists the authors
    exit 3
    "#);
    insta::assert_snapshot!(home.run(&["put", "/nodes/x", "1"]), @r#"
    error: only the node itself writes keys under /nodes/ of the root store; this key is /nodes/x
    hint: only the node itself writes there; choose another prefix
    exit 2
    "#);
}

#[test]
fn too_long_value_says_the_limit() {
    let home = Home::initialised();
    let ran = home.feed(&["put", "/t/long", "-"], vec![b'v'; (1 << 20) + 1]);
    insta::assert_snapshot!(ran, @r#"
    error: cannot read stdin: it has more than 1048576 bytes, the limit of a value
    hint: keep large data in a file and put its path or hash into the value
    exit 2
    "#);
}

#[test]
fn failed_conditions_are_exit_4() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["put", "/t/a", "1", "--if-absent"]).ok();
    insta::assert_snapshot!(home.run(&["put", "/t/a", "2", "--if-absent"]), @r#"
    error: the condition on /t/a does not hold: its winner is [short]
    hint: read the key again and decide by its current value
    exit 4
    "#);
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
fn second_node_names_the_first() {
    let home = Home::initialised();
    let _node = home.up();
    let ran = home.run(&["up"]);
    assert_eq!(ran.code, 5, "{ran}");
    assert!(ran.stderr.contains("lattice down"), "{ran}");
    home.run(&["status"]).ok();
}
