//! The store of a command that names none: the data store, and the root store for the node's own keys.

use std::{fs, thread, time::Duration, time::Instant};

use super::harness::{Home, PATIENCE};

#[test]
fn reserved_keys_are_found_without_a_store() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["put", "/a", "1"]).ok();
    assert_eq!(home.run(&["--store", "data", "get", "/a"]).ok(), "1");
    assert_eq!(home.run(&["--store", "root", "get", "/a"]).code, 3);
    let node = home.run(&["status", "--json"]).json()[0]["node"].clone();
    let status = format!("/nodes/{}/status", node.as_str().unwrap());
    for command in ["get", "heads", "history"] {
        assert_eq!(home.run(&[command, &status]).code, 0, "{command}");
        assert_eq!(
            home.run(&["--store", "data", command, &status]).code,
            3,
            "{command}"
        );
    }
    assert_eq!(home.run(&["list", "/nodes/"]).raw.lines().count(), 2);
    assert_eq!(home.run(&["list", "/"]).raw.lines().count(), 1);
    let watched = home.run(&["watch", "/nodes/", "--until-caught-up"]);
    assert!(watched.raw.contains(&status), "{watched}");
    for store in [&[][..], &["--store", "data"]] {
        let refused = home.run(&[store, &["put", "/nodes/x", "1"]].concat());
        assert_eq!(refused.code, 2, "{refused}");
        let text = "only the node itself writes keys under /nodes/ of the root store";
        assert!(refused.stderr.contains(text), "{refused}");
    }
    // Later commands name only the consumer.
    insta::assert_snapshot!(home.run(&["consumer", "create", "c", "/nodes/"]), @r"
    error: these keys are in the root store, and the consumer has no store
    hint: use --store root, here and in all commands about this consumer
    exit 2
    ");
    home.run(&["--store", "root", "consumer", "create", "c", "/nodes/"])
        .ok();
}

#[test]
fn hook_on_reserved_keys_needs_no_store() {
    let home = Home::initialised();
    let _node = home.up();
    let script = home.path("note.sh");
    let ran = home.path("ran");
    let text = format!(
        "echo \"$LATTICE_KEY <$LATTICE_STORE>\" >> {}\n",
        ran.display()
    );
    fs::write(&script, text).unwrap();
    let script = script.to_str().unwrap();
    home.run(&["hook", "add", "h", "/nodes/", "--", "/bin/sh", script])
        .ok();
    home.run(&["peer", "rename", ".", "attic"]).ok();
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(&ran).is_ok_and(|ran| ran.contains("/info <>")) {
        assert!(Instant::now() < deadline, "the hook does not run");
        thread::sleep(Duration::from_millis(50));
    }
}
