//! Files that others could have put into the data directory: they are refused, and nothing hangs.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, FileType, Mode},
    process::Signal,
};

use super::harness::{Home, PATIENCE};

fn pipe(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from(0o600), 0).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn group_of_the_socket_must_exist_and_fit_its_mode() {
    let home = Home::initialised();
    let config = |text: &str| fs::write(home.data().join("config.toml"), text).unwrap();
    config("socket_group = \"no-such-group\"\n");
    insta::assert_snapshot!(home.run(&["up"]), @r"
    error: there is no group no-such-group on this machine
    hint: correct socket_group in config.toml, or make the group: `groupadd no-such-group`
    exit 2
    ");
    config("socket_group = \"root\"\nsocket_mode = \"0600\"\n");
    insta::assert_snapshot!(home.run(&["up"]), @r#"
    error: [home]/data/config.toml: socket_group lets a group use the socket, and socket_mode = "0600" lets no group
    hint: remove one of the two settings
    exit 2
    "#);
    config("socket_mode = \"0660\"\n");
    let node = home.up();
    let mode = |name: &str| {
        fs::metadata(home.data().join(name))
            .unwrap()
            .permissions()
            .mode()
    };
    assert_eq!(mode("run/sock") & 0o777, 0o660);
    assert_eq!((mode("run") & 0o777, mode("") & 0o777), (0o710, 0o710));
    home.run(&["put", "/a", "1"]).ok();
    drop(node);
}

/// `up` waited for a writer of the pipe, and not even SIGTERM ended it.
#[test]
fn l15_pipe_in_the_place_of_a_file_is_refused() {
    for name in [
        "config.toml",
        "identity.key",
        "store-use.json",
        "meta.db",
        "lock",
    ] {
        let home = Home::initialised();
        let path = home.data().join(name);
        drop(fs::remove_file(&path));
        pipe(&path);
        for command in ["up", "status"] {
            let ran = home.run(&[command]);
            // A short command does not read the settings.
            if (name, command) == ("config.toml", "status") {
                assert_eq!(ran.code, 0, "{ran}");
                continue;
            }
            assert_eq!(ran.code, 1, "{name}, {command}: {ran}");
            assert!(ran.stderr.contains(name), "{name}, {command}: {ran}");
        }
    }
    let home = Home::initialised();
    pipe(&home.data().join("config.toml"));
    insta::assert_snapshot!(home.run(&["up"]), @r#"
    error: [home]/data/config.toml is a pipe, not a regular file
    hint: move [home]/data/config.toml away, or put a regular file in its place
    exit 1
    "#);
}

#[test]
fn l15_pipe_in_the_place_of_the_hooks_stops_no_node() {
    let home = Home::initialised();
    pipe(&home.data().join("hooks.toml"));
    let node = home.up();
    home.run(&["put", "/t/a", "1"]).ok();
    let list = home.run(&["hook", "list"]);
    let what = "hooks.toml is a pipe, not a regular file (move ";
    assert!(list.stderr.contains(what), "{list}");
    node.signal(Signal::TERM);
    assert_eq!(node.end().code, 0);
}

/// Another user wrote a `hooks.toml` with mode 666, and its command ran as the user of the node.
#[test]
fn hooks_that_others_can_write_do_not_run() {
    let home = Home::initialised();
    let file = home.data().join("hooks.toml");
    let ran = home.path("ran");
    let text = format!(
        "[h]\non = \"/t/\"\nrun = [\"/bin/sh\", \"-c\", \"echo > {}\"]\n",
        ran.display()
    );
    fs::write(&file, text).unwrap();
    set_mode(&file, 0o666);
    let _node = home.up();
    let list = home.run(&["hook", "list"]);
    let what = "hooks.toml has mode 666: other users could change it (chmod go-w ";
    assert!(list.stderr.contains(what), "{list}");
    home.run(&["put", "/t/a", "1"]).ok();
    thread::sleep(Duration::from_millis(1500));
    assert!(!ran.exists(), "it ran");
    // The command that the error names. The node finds the change of the mode by itself.
    set_mode(&file, 0o644);
    let deadline = Instant::now() + PATIENCE;
    while !ran.exists() {
        home.run(&["put", "/t/a", "2"]).ok();
        assert!(Instant::now() < deadline, "it does not run");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn settings_and_directory_of_others_are_refused() {
    let home = Home::initialised();
    let file = home.data().join("config.toml");
    fs::write(&file, "mdns = false\n").unwrap();
    set_mode(&file, 0o664);
    insta::assert_snapshot!(home.run(&["up"]), @r#"
    error: [home]/data/config.toml has mode 664: other users could change it
    hint: chmod go-w [home]/data/config.toml
    exit 1
    "#);
    set_mode(&file, 0o644);
    set_mode(&home.data(), 0o775);
    insta::assert_snapshot!(home.run(&["get", "/a", "--json"]), @r#"
    {"type":"error","error":"exposed","message":"[home]/data has mode 775: other users could change it","hint":"chmod go-w [home]/data","exit_code":1}
    exit 1
    "#);
    // Only the superuser can give a file away.
    if rustix::process::geteuid().is_root() {
        set_mode(&home.data(), 0o755);
        std::os::unix::fs::chown(home.data(), Some(65534), None).unwrap();
        insta::assert_snapshot!(home.run(&["up"]), @r#"
        error: [home]/data belongs to user 65534, and this process runs as user 0
        hint: run this as user 65534, or chown 0 [home]/data
        exit 1
        "#);
    }
}
