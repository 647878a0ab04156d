//! Damaged files: what the commands report, and how a person repairs them.

use std::{fs, path::PathBuf};

use super::harness::{Home, Ran};

// The log of the only author in the data store, which has an entry.
pub(super) fn own_log(home: &Home) -> PathBuf {
    let stores = home.run(&["store", "list", "--json"]).json();
    let store = stores.iter().find(|store| store["data"] == true).unwrap();
    let store = store["store"].as_str().unwrap();
    let logs = home.data().join("stores").join(store).join("logs");
    fs::read_dir(logs).unwrap().last().unwrap().unwrap().path()
}

// A command that does not log what it finds on opening.
fn quiet(home: &Home, arguments: &[&str]) -> Ran {
    let mut command = home.command(arguments);
    command.env("LATTICE_LOG", "off");
    home.spawn(command).end()
}

#[test]
fn cut_own_log_is_refused_until_repaired() {
    let home = Home::initialised();
    insta::assert_snapshot!(home.run(&["repair"]), @"
    store [uuid] (root): nothing to repair
    store [uuid] (data): nothing to repair
    exit 0
    ");
    home.run(&["put", "/t/first", "0"]).ok();
    let log = own_log(&home);
    home.run(&["put", "/t/a", "1"]).ok();
    let older = fs::read(&log).unwrap();
    home.run(&["put", "/t/a", "2"]).ok();
    home.run(&["put", "/t/b", "2"]).ok();
    // A backup of one file, not of the directory.
    fs::write(&log, older).unwrap();
    insta::assert_snapshot!(quiet(&home, &["put", "/t/c", "3"]), @r#"
    error: the end of this node's own log is gone: entries 3 to 4 were durable, and are not in its file
    hint: `lattice up` fetches them from peers that have them; otherwise restore the newest copy of the file, or give the entries up with `lattice repair`
    exit 6
    "#);
    assert_eq!(home.run(&["get", "/t/b"]).ok(), "2");
    let status = home.run(&["status"]).ok();
    assert!(
        status.contains("! data: writes are refused: the end of this node's own log is gone"),
        "{status}"
    );
    let report = home.run(&["verify"]);
    assert_eq!(report.code, 6, "{report}");
    insta::assert_snapshot!(quiet(&home, &["repair"]), @r#"
    error: repair asks for confirmation, but stdin is not a terminal
    hint: add --yes
    exit 2
    "#);
    insta::assert_snapshot!(quiet(&home, &["repair", "--yes"]), @r#"
    store [uuid] (root): nothing to repair
    store [uuid] (data): gave up 2 entries, 3 to 4 of [id].log
    exit 0
    "#);
    assert_eq!(home.run(&["get", "/t/a"]).ok(), "1");
    assert_eq!(home.run(&["get", "/t/b"]).code, 3);
    home.run(&["put", "/t/c", "3"]).ok();
    home.run(&["verify"]).ok();
    insta::assert_snapshot!(home.run(&["repair", "--json"]), @r#"
    {"type":"repaired","store":"[uuid]","name":"root","root":true,"data":false,"private":false,"lost":[]}
    {"type":"repaired","store":"[uuid]","name":"data","root":false,"data":true,"private":false,"lost":[]}
    exit 0
    "#);
}

#[test]
fn repair_of_a_running_node_is_a_gap() {
    let home = Home::initialised();
    home.run(&["put", "/t/a", "1"]).ok();
    fs::remove_file(own_log(&home)).unwrap();
    let _node = home.up();
    let mut watch = home.start(&["watch", "/t/", "--json"]);
    watch.line_with(r#""key":"/t/a""#);
    watch.line_with("caught_up");
    insta::assert_snapshot!(home.run(&["repair", "--yes"]), @"
    store [uuid] (root): nothing to repair
    store [uuid] (data): gave up 1 entry, 1 to 1 of [id].log
    exit 0
    ");
    watch.line_with(r#""type":"gap""#);
    watch.line_with("caught_up");
    home.run(&["put", "/t/b", "1"]).ok();
    watch.line_with(r#""key":"/t/b""#);
    assert_eq!(home.run(&["list", "/t/"]).ok().lines().count(), 1);
}

#[test]
fn watch_passes_a_damaged_value_and_exits_6() {
    let home = Home::initialised();
    for key in ["/t/a", "/t/b", "/t/c"] {
        home.feed(&["put", key, "-"], vec![b'v'; 3000]).ok();
    }
    let log = own_log(&home);
    let mut bytes = fs::read(&log).unwrap();
    let middle = bytes.len() - 4500;
    bytes[middle] ^= 1;
    fs::write(&log, bytes).unwrap();
    let ran = home.run(&["watch", "/t/", "--until-caught-up"]);
    assert_eq!((ran.code, ran.stdout.lines().count()), (6, 2), "{ran}");
    assert!(
        ran.stderr.contains("damaged: /t/b cannot be read: log of "),
        "{ran}"
    );
    assert!(ran.stderr.contains("1 value could not be read"), "{ran}");
    let ran = home.run(&["watch", "/t/", "--until-caught-up", "--json"]);
    let types: Vec<_> = ran.json().iter().map(|it| it["type"].clone()).collect();
    assert_eq!(types, ["put", "damaged", "put", "caught_up"], "{ran}");
    assert_eq!((ran.code, &ran.json()[1]["key"]), (6, &"/t/b".into()));
}

#[test]
fn damaged_store_is_exit_6() {
    let (home, other) = (Home::initialised(), Home::initialised());
    for home in [&home, &other] {
        home.run(&["put", "/t/a", "1"]).ok();
    }
    let name = own_log(&other);
    let name = name.file_name().unwrap();
    fs::copy(own_log(&other), own_log(&home).with_file_name(name)).unwrap();
    let ran = home.run(&["get", "/t/a"]);
    assert_eq!(ran.code, 6, "{ran}");
    assert!(
        ran.stderr
            .starts_with("error: cannot open store [uuid]: the log of "),
        "{ran}"
    );
}

/// The node of another mesh's member, with the data store that it had before as another store.
#[test]
fn empty_meta_is_built_again_and_reported() {
    let (a, b) = (Home::new(), Home::initialised());
    let _a_node = a.up();
    b.run(&["put", "/t/before", "1"]).ok();
    let token = a.run(&["invite"]).raw;
    b.run(&["join", token.trim(), "--name", "b"]).ok();
    // Without the sizes: a state file may grow when it is opened.
    let stores = || b.run(&["store", "list", "--json"]).json();
    let before = stores();
    assert_eq!(before.len(), 3, "{before:?}");
    fs::write(b.data().join("meta.db"), "").unwrap();
    let status = b.run(&["status"]);
    assert_eq!(status.code, 0, "{status}");
    let line = "meta.db was built again from the logs, with root store [uuid], 3 stores in all: it \
                is empty (the old file is kept as meta.db.damaged)";
    assert!(status.stdout.contains(line), "{status}");
    assert_eq!(stores(), before);
    b.run(&["put", "/t/after", "1"]).ok();
    b.run(&["verify"]).ok();
}
