//! `snapshot`: a backup as people make it, check it and use it.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::{
    harness::{Home, Ran},
    mesh::{joined, soon},
};

fn with(home: &Home, data: &str, arguments: &[&str]) -> Ran {
    let data = home.path(data);
    let data = ["--data-dir", data.to_str().unwrap()];
    home.run(&[&data, arguments].concat())
}

#[test]
fn a_backup_is_made_while_the_node_runs_and_restored_elsewhere() {
    let home = Home::initialised();
    home.run(&["store", "create", "notes"]).ok();
    home.run(&["put", "/a", "1"]).ok();
    let node = home.up();
    home.run(&["--store", "notes", "put", "/b", "2"]).ok();
    let made = home.run(&["snapshot", "create", "backup.lsnap", "--with-key"]);
    assert_eq!(made.code, 0, "{made}");
    let file = home.path("backup.lsnap");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only its owner reads it");
    // Nothing is replaced without being asked for, and no part of a file stays behind.
    let again = home.run(&["snapshot", "create", "backup.lsnap"]);
    assert_eq!(
        (again.code, again.stderr.contains("--force")),
        (2, true),
        "{again}"
    );
    home.run(&[
        "snapshot",
        "create",
        "backup.lsnap",
        "--with-key",
        "--force",
    ])
    .ok();
    assert!(!home.path("backup.lsnap.new").exists());
    home.run(&["put", "/a", "3"]).ok();
    drop(node);

    // Where no node ever was.
    let nowhere = Home::new();
    fs::copy(&file, nowhere.path("copy.lsnap")).unwrap();
    let verified = nowhere.run(&["snapshot", "verify", "copy.lsnap", "--json"]);
    assert_eq!(verified.code, 0, "{verified}");
    assert!(!nowhere.data().exists(), "nothing is made");
    let verified = verified.json().remove(0);
    assert_eq!(verified["type"], "snapshot_verified");
    assert_eq!(
        (&verified["key"], &verified["stores"][0]["root"]),
        (&true.into(), &true.into())
    );
    let restored = nowhere.run(&["snapshot", "restore", "copy.lsnap"]);
    assert_eq!(restored.code, 0, "{restored}");
    assert_eq!(nowhere.run(&["get", "/a"]).raw, "1");
    assert_eq!(nowhere.run(&["--store", "notes", "get", "/b"]).raw, "2");
    let refused = nowhere.run(&["put", "/a", "4"]);
    assert_eq!(refused.code, 4, "{refused}");
    // It asks, and there is nobody who could answer.
    assert_eq!(nowhere.run(&["repair"]).code, 2);
    let repaired = nowhere.run(&["repair", "--yes"]);
    assert!(repaired.raw.contains("writes again"), "{repaired}");
    nowhere.run(&["put", "/a", "4"]).ok();
    // A directory with a node is left alone.
    let refused = nowhere.run(&["snapshot", "restore", "copy.lsnap"]);
    assert_eq!(refused.code, 4, "{refused}");
    assert_eq!(nowhere.run(&["get", "/a"]).raw, "4");
}

#[test]
fn snapshots_without_a_name_are_listed() {
    let home = Home::initialised();
    let none = home.run(&["snapshot", "list"]);
    assert_eq!((none.code, none.raw.as_str()), (0, ""), "{none}");
    assert!(none.stderr.contains("no file in"), "{none}");
    for value in ["1", "2"] {
        home.run(&["put", "/a", value]).ok();
        let made = home.run(&["snapshot", "create"]);
        assert_eq!(made.code, 0, "{made}");
        assert!(
            made.stderr.contains("identity.key"),
            "nobody else has a key: {made}"
        );
    }
    let listed = home.run(&["snapshot", "list", "--json"]).json();
    assert_eq!(listed.len(), 2);
    let entries = |at: usize| listed[at]["stores"][1]["entries"].as_u64().unwrap();
    assert_eq!(entries(1), entries(0) + 1, "the oldest is first");
    let path = listed[0]["file"].as_str().unwrap();
    // One that is damaged does not hide the other.
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - 40;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
    let listed = home.run(&["snapshot", "list", "--json"]);
    assert_eq!((listed.code, listed.json().len()), (6, 1), "{listed}");
    let verified = home.run(&["snapshot", "verify", path]);
    assert_eq!(verified.code, 6, "{verified}");
    assert!(verified.stderr.contains("damaged at byte"), "{verified}");
    assert!(!verified.stderr.contains("panicked"), "{verified}");
}

#[test]
fn s22_files_that_are_no_snapshots_are_refused_by_name() {
    let home = Home::initialised();
    fs::write(home.path("text"), "hello, I am a text").unwrap();
    fs::write(home.path("empty"), "").unwrap();
    for (file, code, what) in [
        ("text", 6, "is not a snapshot"),
        ("empty", 6, "it is cut"),
        ("missing", 1, "cannot read"),
        (".", 1, "not a regular file"),
        ("/dev/zero", 1, "not a regular file"),
    ] {
        for command in ["verify", "restore"] {
            let ran = with(&home, "other", &["snapshot", command, file]);
            assert_eq!(ran.code, code, "{command} {file}: {ran}");
            assert!(ran.stderr.contains(what), "{command} {file}: {ran}");
        }
    }
    let ran = home.run(&["snapshot", "create", "no/such/directory"]);
    assert_eq!(ran.code, 1, "{ran}");
    // A device would have been replaced by a file.
    std::os::unix::fs::symlink("/dev/null", home.path("device")).unwrap();
    let ran = home.run(&["snapshot", "create", "device", "--force"]);
    assert_eq!(
        (ran.code, ran.stderr.contains("not a regular file")),
        (2, true),
        "{ran}"
    );
    assert!(home.path("device").is_symlink());
}

#[test]
fn single_keys_are_put_again() {
    let home = Home::initialised();
    let _node = home.up();
    for (key, value) in [
        ("/c/same", "1"),
        ("/c/changed", "1"),
        ("/c/gone", "1"),
        ("/d", "1"),
    ] {
        home.run(&["put", key, value]).ok();
    }
    home.run(&["snapshot", "create", "file"]).ok();
    home.run(&["put", "/c/changed", "2"]).ok();
    home.run(&["put", "/c/new", "2"]).ok();
    home.run(&["put", "/d", "2"]).ok();
    home.run(&["delete", "/c/gone"]).ok();
    let restore = |more: &[&str]| {
        let ran = home.run(&[&["snapshot", "restore", "file", "--as-puts", "/c/"], more].concat());
        assert_eq!(ran.code, 0, "{ran}");
        ran
    };
    insta::assert_snapshot!(restore(&["--dry-run"]), @"
    would restore /c/changed
    would restore /c/gone
    would restore 2 keys; 1 key has the same value already
    exit 0
    ");
    assert_eq!(home.run(&["get", "/c/changed"]).raw, "2");
    insta::assert_snapshot!(restore(&[]), @"
    restored 2 keys; 1 key has the same value already
    exit 0
    ");
    for (key, value) in [
        ("/c/changed", "1"),
        ("/c/gone", "1"),
        ("/c/new", "2"),
        ("/d", "2"),
    ] {
        assert_eq!(home.run(&["get", key]).raw, value, "{key}");
    }
    let all = home.run(&["snapshot", "restore", "file", "--as-puts", "/", "--json"]);
    let counts = all.json().pop().unwrap();
    assert_eq!(
        (&counts["put"], &counts["type"]),
        (&1.into(), &"restored_keys".into()),
        "{all}"
    );
}

#[test]
fn a_restored_member_says_why_it_does_not_write() {
    let a = Home::initialised();
    let _a = a.up();
    let (b, b_node) = joined(&a, "writer");
    b.run(&["snapshot", "create", "file"]).ok();
    b.run(&["put", "/since", "b", "--wait-for", "2"]).ok();
    drop(b_node);
    let key = b.data().join("identity.key");
    let restore = [
        "snapshot",
        "restore",
        "file",
        "--identity",
        key.to_str().unwrap(),
    ];
    let restored = with(&b, "new", &restore);
    assert_eq!(restored.code, 0, "{restored}");
    assert!(
        restored.stderr.contains("refuses writes until"),
        "{restored}"
    );
    let refused = with(&b, "new", &["put", "/0", "b"]);
    assert_eq!(refused.code, 4, "{refused}");
    assert!(
        refused.stderr.contains("restored from a snapshot"),
        "{refused}"
    );
    let status = with(&b, "new", &["status"]);
    assert!(status.raw.contains("restored from a snapshot"), "{status}");
    let mut up = b.command(&["--data-dir", b.path("new").to_str().unwrap(), "up"]);
    up.env("LATTICE_DATA", b.path("new"));
    let _b = b.spawn(up);
    soon("it writes", || {
        with(&b, "new", &["put", "/0", "b"]).code == 0
    });
    assert_eq!(with(&b, "new", &["get", "/since"]).raw, "b");
    let status = a.run(&["status"]);
    assert!(!status.raw.contains("FORK"), "{status}");
}
