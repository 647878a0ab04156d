//! The secret of a node's key: moved from place to place, and what cannot be had.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use rustix::process::Signal;

use super::{
    harness::{Home, Ran},
    on_terminal::OnTerminal,
};
use crate::support::random::Random;

fn write_private(home: &Home, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = home.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn identity(home: &Home) -> String {
    fs::read_to_string(home.data().join("identity.key")).unwrap()
}

// The 64 hex digits of the secret, as a new node has them.
fn secret(home: &Home) -> String {
    let text = identity(home);
    let digits = text.strip_prefix("lattice identity v1\n").unwrap();
    digits.trim().to_owned()
}

fn from(home: &Home) -> String {
    let shown = home.run(&["key", "show", "--json"]).json();
    shown[0]["from"].as_str().unwrap().to_owned()
}

/// Asserts that the key cannot be had, and that nothing was tried in its place. Returns the error.
fn cannot_be_had(home: &Home, arguments: &[&str]) -> Ran {
    let before = identity(home);
    let ran = home.run(arguments);
    assert_eq!(ran.code, 5, "{ran}");
    assert_eq!(identity(home), before);
    assert!(!home.data().join("identity.new").exists());
    ran
}

#[test]
fn secret_moves_from_place_to_place_and_the_node_stays_the_same() {
    let home = Home::initialised();
    home.run(&["put", "/t/a", "1"]).ok();
    let secret = secret(&home);
    let node = home.run(&["status", "--json"]).json()[0]["node"].clone();
    let passphrase = write_private(&home, "passphrase", "correct horse\n");
    let with = |arguments: &[&str]| {
        let all = [&["--passphrase-file", &passphrase], arguments].concat();
        home.run(&all)
    };
    insta::assert_snapshot!(home.run(&["key", "show"]), @r#"
    node     [id]
    secret   identity.key, not sealed
    note: no node is running here, so its role and other admins are not shown
    note: whoever can read this disk can write as this node; `lattice key move` knows safer places
    exit 0
    "#);

    let moved = home.run(&[
        "key",
        "move",
        "--to",
        "passphrase",
        "--new-passphrase-file",
        &passphrase,
    ]);
    insta::assert_snapshot!(moved, @r#"
    moved    the secret of node [short]
    from     identity.key, not sealed
    to       identity.key, sealed with a passphrase
    next     `lattice up` asks for the passphrase, or takes --passphrase-file
    note: backups and copies of identity.key still have it, and a disk may keep the old bytes
    exit 0
    "#);
    assert_eq!(from(&home), "passphrase");
    assert!(!identity(&home).contains(&secret));
    assert_eq!(
        home.data().join("identity.key").metadata().unwrap().mode() & 0o777,
        0o600
    );
    assert_eq!(with(&["get", "/t/a"]).ok(), "1");
    insta::assert_snapshot!(cannot_be_had(&home, &["get", "/t/a"]), @r#"
    error: the key of the node cannot be had ([home]/data/identity.key): the key of node [short] is sealed with a passphrase, and there is no terminal to ask for it
    hint: name a file that has it with --passphrase-file
    exit 5
    "#);
    let wrong = write_private(&home, "wrong", "correct horse battery");
    let wrong = ["--passphrase-file", &wrong, "get", "/t/a"];
    insta::assert_snapshot!(cannot_be_had(&home, &wrong), @r#"
    error: the key of the node cannot be had ([home]/data/identity.key): the passphrase is wrong, or the sealed key was changed
    hint: try again; without the passphrase, only a backup of the key helps
    exit 5
    "#);

    // A password manager keeps it from now on.
    let exported = with(&["key", "export"]);
    assert_eq!(exported.raw, format!("lattice identity v1\n{secret}\n"));
    let kept = write_private(&home, "kept", &exported.raw);
    let moved = with(&["key", "move", "--to", "command", "--", "/bin/cat", &kept]);
    insta::assert_snapshot!(moved, @r#"
    moved    the secret of node [short]
    from     identity.key, sealed with a passphrase
    to       the output of `/bin/cat [home]/kept`
    exit 0
    "#);
    let running = home.up();
    home.run(&["put", "/t/a", "2"]).ok();
    assert_eq!(
        home.run(&["key", "show", "--json"]).json()[0]["role"],
        "admin"
    );
    // The one that runs has the lock.
    let refused = home.run(&["key", "move", "--to", "file"]);
    assert_eq!(refused.code, 5, "{refused}");
    assert!(refused.stderr.contains("is running already"), "{refused}");
    running.signal(Signal::TERM);
    assert_eq!(running.end().code, 0);
    assert_eq!(from(&home), "command");

    // A backup of hard links is not overwritten.
    let backup = home.path("backup");
    fs::hard_link(home.data().join("identity.key"), &backup).unwrap();
    let kept_place = fs::read_to_string(&backup).unwrap();
    let moved = home.run(&["key", "move", "--to", "file", "--json"]);
    assert!(moved.stderr.contains("as in a backup"), "{moved}");
    assert_eq!(fs::read_to_string(&backup).unwrap(), kept_place);
    let moved = &moved.json()[0];
    assert_eq!(
        (&moved["from"], &moved["to"], &moved["left_behind"]),
        (&"command".into(), &"file".into(), &true.into())
    );
    assert_eq!(identity(&home), format!("lattice identity v1\n{secret}\n"));
    assert_eq!(home.run(&["status", "--json"]).json()[0]["node"], node);
    assert_eq!(home.run(&["get", "/t/a"]).ok(), "2");
}

#[test]
fn command_that_does_not_print_the_key_is_an_error_and_no_other_place_is_tried() {
    let home = Home::initialised();
    let before = identity(&home);
    let other = Home::initialised();
    let to = |script: &str| {
        home.run(&[
            "key", "move", "--to", "command", "--", "/bin/sh", "-c", script,
        ])
    };
    let of_other = format!("cat {}", other.data().join("identity.key").display());
    let cases = [
        (
            "echo locked >&2; exit 2",
            "failed (exit status: 2); it wrote: locked",
        ),
        ("true", "gave 0 bytes that are not a key"),
        ("echo hello", "gave 6 bytes that are not a key"),
        ("yes", "printed more than 16384 bytes"),
        (&of_other, "has the key of node"),
    ];
    for (script, expected) in cases {
        let ran = to(script);
        assert_eq!(ran.code, 1, "{ran}");
        assert!(ran.stderr.contains(expected), "{ran}");
        assert!(ran.stderr.contains("lattice key export"), "{ran}");
        assert_eq!(identity(&home), before);
    }
    let kept = write_private(&home, "kept", &before);
    assert_eq!(to(&format!("cat {kept}")).code, 0);
    fs::remove_file(&kept).unwrap();
    let ran = cannot_be_had(&home, &["put", "/t/a", "1"]);
    assert!(ran.stderr.contains("No such file"), "{ran}");
    let ran = cannot_be_had(&home, &["up"]);
    assert!(ran.stderr.contains("run the command by hand"), "{ran}");
    // The copy that was kept elsewhere is the way out.
    write_private(&home, "data/identity.key", &before);
    home.run(&["put", "/t/a", "1"]).ok();
}

#[test]
fn move_that_is_refused_changes_nothing() {
    let home = Home::initialised();
    let before = identity(&home);
    let short = write_private(&home, "short", "horse\n");
    let open = write_private(&home, "open", "correct horse\n");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let to = |arguments: &[&str]| {
        let ran = home.run(&[&["key", "move", "--to"], arguments].concat());
        assert_eq!(identity(&home), before, "{ran}");
        ran
    };
    let ran = to(&["passphrase", "--new-passphrase-file", &short]);
    assert!(ran.stderr.contains("has 5 bytes; 8 to 1024"), "{ran}");
    let ran = to(&["passphrase", "--new-passphrase-file", &open]);
    assert!(
        ran.stderr.contains("other users could read or change it"),
        "{ran}"
    );
    // Nobody can type one.
    let ran = to(&["passphrase"]);
    assert!(ran.stderr.contains("--new-passphrase-file"), "{ran}");
    for wrong in [
        &["command"][..],
        &["credential"],
        &["file", "x"],
        &["credential", "a", "b"],
    ] {
        assert_eq!(to(wrong).code, 2);
    }
    assert_eq!(to(&["tpm"]).code, 2);
    let ran = to(&["credential", "somewhere"]);
    assert!(ran.stderr.contains("add --yes"), "{ran}");
    fs::write(home.data().join("identity.key"), "lattice identity v9\n").unwrap();
    let ran = home.run(&["key", "show"]);
    assert_eq!(ran.code, 6, "{ran}");
    assert!(
        ran.stderr
            .contains("not that of an identity of this version"),
        "{ran}"
    );
    let nobody = Home::new();
    assert_eq!(nobody.run(&["key", "show"]).code, 5);
    assert!(!nobody.data().exists());
}

// The key of the machine that encrypts credentials, made by a first call as the superuser.
fn has_systemd_creds(home: &Home) -> bool {
    let made = Command::new("systemd-creds")
        .args(["--with-key=host", "encrypt", "/dev/null"])
        .arg(home.path("tried"))
        .output();
    made.is_ok_and(|made| made.status.success())
}

#[test]
fn credential_of_systemd_has_the_key() {
    let home = Home::initialised();
    if !has_systemd_creds(&home) {
        eprintln!("skipped: no systemd-creds that works here");
        return;
    }
    let before = identity(&home);
    let sealed = home.path("sealed");
    let sealed = sealed.to_str().unwrap();
    // Nothing is made while the node runs, so the next attempt can make it.
    let running = home.up();
    let refused = home.run(&["key", "move", "--yes", "--to", "credential", sealed]);
    assert_eq!(refused.code, 5, "{refused}");
    assert!(!Path::new(sealed).exists());
    running.signal(Signal::TERM);
    assert_eq!(running.end().code, 0);
    let moved = home.run(&["key", "move", "--yes", "--to", "credential", sealed]);
    insta::assert_snapshot!(moved, @r#"
    moved    the secret of node [short]
    from     identity.key, not sealed
    to       the credential lattice.key of systemd
    next     lattice service install --credential [home]/sealed
    note: backups and copies of identity.key still have it, and a disk may keep the old bytes
    exit 0
    "#);
    assert!(!fs::read_to_string(sealed).unwrap().contains(&before[20..]));
    insta::assert_snapshot!(cannot_be_had(&home, &["status"]), @r#"
    error: the key of the node cannot be had ([home]/data/identity.key): the key is the credential lattice.key of systemd, and this process was given no credentials
    hint: start the service, which systemd gives the credential; or, as its user, name the directory of the credentials in $CREDENTIALS_DIRECTORY
    exit 5
    "#);
    let unit = home.run(&["service", "print", "--credential", sealed]).raw;
    let line = format!("\nLoadCredentialEncrypted=lattice.key:{sealed}\n");
    assert!(unit.contains(&line), "{unit}");
    // As systemd does it.
    fs::create_dir(home.path("credentials")).unwrap();
    let decrypted = Command::new("systemd-creds")
        .args(["decrypt", "--name=lattice.key", sealed])
        .arg(home.path("credentials/lattice.key"))
        .status();
    assert!(decrypted.unwrap().success());
    let with = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.env("CREDENTIALS_DIRECTORY", home.path("credentials"));
        home.spawn(command).end()
    };
    with(&["put", "/t/a", "1"]).ok();
    // It is not overwritten.
    let again = with(&["key", "move", "--yes", "--to", "credential", sealed]);
    assert_eq!(again.code, 1, "{again}");
    with(&["key", "move", "--to", "file"]).ok();
    assert_eq!(identity(&home), before);
    assert_eq!(home.run(&["get", "/t/a"]).ok(), "1");
}

/// A move that is killed at any moment leaves a node that opens with the key, from one of the two places.
#[test]
fn move_that_is_killed_leaves_the_key_in_one_of_the_places() {
    let home = Home::initialised();
    home.run(&["put", "/t/a", "1"]).ok();
    let passphrase = write_private(&home, "passphrase", "correct horse\n");
    let mut random = Random::new(5);
    let mut found = [0, 0];
    for turn in 0..16 {
        let to = if from(&home) == "file" {
            "passphrase"
        } else {
            "file"
        };
        let moving = home.start(&[
            "--passphrase-file",
            &passphrase,
            "key",
            "move",
            "--to",
            to,
            "--new-passphrase-file",
            &passphrase,
        ]);
        // Argon2 alone takes some hundred milliseconds, twice; more in a build without optimization.
        thread::sleep(Duration::from_millis(
            random.below(if turn % 2 == 0 { 3000 } else { 800 }) as u64,
        ));
        moving.signal(Signal::KILL);
        drop(moving.end());
        let got = home.run(&["--passphrase-file", &passphrase, "get", "/t/a"]);
        assert_eq!(got.raw, "1", "{got}");
        assert!(!home.data().join("identity.new").exists());
        found[usize::from(from(&home) == to)] += 1;
    }
    eprintln!("before and after the move: {found:?}");
}

/// Nobody reads the memory of a process that may have the secret.
#[test]
fn memory_of_the_process_is_not_dumped() {
    let home = Home::initialised();
    let trace = home.path("trace");
    let traced = Command::new("strace")
        .args(["-f", "-e", "trace=prctl", "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_lattice"))
        .args(["key", "show"])
        .env("LATTICE_DATA", home.data())
        .output();
    if !traced.is_ok_and(|traced| traced.status.success()) {
        eprintln!("skipped: strace is not here, or may not trace");
        return;
    }
    let trace = fs::read_to_string(trace).unwrap();
    assert!(
        trace.contains("PR_SET_DUMPABLE, SUID_DUMP_DISABLE"),
        "{trace}"
    );
}

// A command whose terminal is its controlling one, as in a shell: passphrases are typed there.
fn on_own_terminal(home: &Home, arguments: &[&str]) -> OnTerminal {
    let inner = home.command(arguments);
    let mut command = Command::new(SETSID);
    command
        .args(["--ctty", "--wait"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env_clear()
        .envs(
            inner
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir(home.path(""));
    OnTerminal::start(command, 100)
}

const SETSID: &str = "/usr/bin/setsid";

// Waits until this is asked and what is typed is not shown: what is typed before that may be lost.
fn is_asked(terminal: &OnTerminal, question: &str, times: usize) {
    terminal.wait_until(question, |shown| {
        shown.text.matches(question).count() >= times && !terminal.echoes()
    });
}

#[test]
fn passphrase_is_typed_on_the_terminal_and_not_shown() {
    if !Path::new(SETSID).exists() {
        eprintln!("skipped: no setsid");
        return;
    }
    let home = Home::initialised();
    home.run(&["put", "/t/a", "1"]).ok();
    let before = identity(&home);
    let mut moving = on_own_terminal(&home, &["key", "move", "--to", "passphrase"]);
    is_asked(&moving, "new passphrase: ", 1);
    moving.press("correct horse\n");
    is_asked(&moving, "the same again: ", 1);
    moving.press("correct house\n");
    let (code, screen) = moving.restored();
    assert_eq!(code, 1, "{screen}");
    assert!(screen.contains("the two are not the same"), "{screen}");
    assert_eq!(identity(&home), before);

    let mut moving = on_own_terminal(&home, &["key", "move", "--to", "passphrase"]);
    for question in ["new passphrase: ", "the same again: "] {
        is_asked(&moving, question, 1);
        moving.press("correct horse\n");
    }
    assert_eq!(moving.restored().0, 0);
    assert_eq!(from(&home), "passphrase");

    let get = || {
        let getting = on_own_terminal(&home, &["get", "/t/a"]);
        is_asked(&getting, "passphrase of node", 1);
        getting
    };
    let mut getting = get();
    getting.press("wrong horse\n");
    is_asked(&getting, "wrong, again: ", 1);
    getting.press("correct horse\n");
    let (code, screen) = getting.restored();
    assert_eq!(code, 0, "{screen}");
    assert!(!screen.contains("correct horse"), "{screen}");
    assert_eq!(screen.trim_end().lines().last(), Some("1"));

    // Ctrl-C at the question leaves a terminal that shows what is typed.
    for arguments in [&["get", "/t/a"][..], &["up"]] {
        let mut asking = on_own_terminal(&home, arguments);
        is_asked(&asking, "passphrase of node", 1);
        asking.press("\u{3}");
        let (code, screen) = asking.restored();
        assert_eq!(code, 130, "{screen}");
    }

    let mut getting = get();
    for turn in 1..=3 {
        is_asked(&getting, "passphrase of node", turn);
        getting.press("wrong horse\n");
    }
    let (code, screen) = getting.restored();
    assert_eq!(code, 5, "{screen}");
    assert!(screen.contains("the passphrase is wrong"), "{screen}");
}
