//! Commands on a terminal: what people see.

use std::{process::Stdio, thread, time::Duration};

use rustix::process::Signal;

use super::{harness::Home, on_terminal::OnTerminal};

fn shown(home: &Home, arguments: &[&str], columns: u16) -> String {
    OnTerminal::start(home.command(arguments), columns).end()
}

// Columns that a line takes: a tab goes on to the next multiple of eight.
fn width(line: &str) -> usize {
    line.chars().fold(0, |column, letter| match letter {
        '\t' => (column / 8 + 1) * 8,
        _other => column + 1,
    })
}

#[test]
fn lines_fit_into_the_terminal() {
    let home = Home::initialised();
    let _node = home.up();
    let long = "v".repeat(300);
    home.run(&["put", "/fit/a", &long]).ok();
    home.run(&["put", "/fit/a", &format!("{long}2")]).ok();
    let key = format!("/fit/{}", "k".repeat(200));
    home.run(&["put", &key, &long]).ok();
    for columns in [40, 80] {
        for command in [
            &["list", "/fit/"][..],
            &["diff", "/fit/", "--from", "1h"],
            &["watch", "/fit/", "--until-caught-up"],
            &["log"],
            &["history", "/fit/a"],
        ] {
            let shown = shown(&home, &[command, &["--color", "never"]].concat(), columns);
            assert!(shown.lines().count() > 1, "{command:?}: {shown}");
            for line in shown.lines() {
                assert!(width(line) <= columns.into(), "{command:?}: {line:?}");
            }
        }
    }
}

/// The line can be pasted on the other machine; a script gets the token alone.
#[test]
fn invite_prints_the_command_of_the_other_machine() {
    let home = Home::initialised();
    let _node = home.up();
    let shown = shown(&home, &["invite"], 300);
    let command = shown.lines().find(|line| line.starts_with("lattice join "));
    let token = command.unwrap().split(' ').nth(2).unwrap();
    assert!(token.len() > 100 && !shown.contains("TOKEN"), "{shown}");
    let ran = home.run(&["invite"]);
    assert!(ran.raw.starts_with("latticeae"), "{ran}");
}

#[test]
fn delimiter_shows_beginnings_and_keys_in_order() {
    let home = Home::initialised();
    let _node = home.up();
    for key in ["/d/a", "/d/b/1", "/d/b/2", "/d/c", "/d/\u{1b}[31m/x"] {
        home.run(&["put", key, "v"]).ok();
    }
    let listed = screen(&home, &["list", "/d/", "--delimiter", "/"]);
    let keys = listed.lines().map(|line| line.split(' ').next().unwrap());
    let keys: Vec<&str> = keys.collect();
    assert_eq!(
        keys,
        ["KEY", "/d/\\x1b[31m/", "/d/a", "/d/b/", "/d/c"],
        "{listed}"
    );
}

// The text on a terminal of 80 columns without colours.
fn screen(home: &Home, arguments: &[&str]) -> String {
    shown(home, &[arguments, &["--color", "never"]].concat(), 80)
}

/// A person saw 64 digits after each put, ragged columns, and no end of the state in a watch.
#[test]
fn terminal_shows_names_ages_and_tables() {
    let home = Home::new();
    home.run(&["init", "--name", "attic"]).ok();
    let _node = home.up();
    let put = screen(&home, &["put", "/demo/x", "again"]);
    let (key, id) = put.trim().rsplit_once("  ").unwrap();
    assert_eq!(key, "ok  /demo/x");
    assert!(
        id.len() == 8 && id.bytes().all(|digit| digit.is_ascii_hexdigit()),
        "{put}"
    );
    let listed = screen(&home, &["list"]);
    assert!(
        listed.starts_with("KEY      VALUE  BY     WRITTEN\n/demo/x  again  attic  "),
        "{listed}"
    );
    assert!(!listed.contains('\t'), "{listed}");
    let history = screen(&home, &["history", "/demo/x"]);
    assert!(
        history.contains("again") && history.contains("attic"),
        "{history}"
    );
    let log = screen(&home, &["log", "attic"]);
    assert!(
        log.starts_with("SEQ  WRITTEN ") && log.contains("put /demo/x=again"),
        "{log}"
    );

    let mut watch = home.command(&["watch", "/demo/", "-c", "2", "--color", "never"]);
    watch.stdin(Stdio::null());
    let watch = OnTerminal::start(watch, 80);
    watch.wait_for("-- live --");
    home.run(&["delete", "/demo/x"]).ok();
    let watched = watch.end();
    let lines: Vec<&str> = watched.lines().collect();
    assert!(
        lines[0].ends_with("put       attic     /demo/x           again"),
        "{watched}"
    );
    assert_eq!(lines[1].chars().count(), 80, "{watched}");
    assert!(
        lines[2].ends_with("  delete    attic     /demo/x"),
        "{watched}"
    );

    let missing = home.run(&["get", "/demo/x"]);
    assert!(
        missing.stderr.contains("it was deleted ") && missing.stderr.contains(" by attic"),
        "{missing}"
    );
    assert_eq!(missing.code, 3);
}

#[test]
fn colours_follow_the_flag_the_stream_and_the_environment() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["put", "/a", "1"]).ok();
    let coloured = |arguments: &[&str], no_color: &str| {
        let mut command = home.command(arguments);
        command.env("NO_COLOR", no_color);
        OnTerminal::start(command, 80).end().contains('\u{1b}')
    };
    assert!(coloured(&["list"], ""));
    assert!(!coloured(&["list"], "1"));
    assert!(!coloured(&["list", "--color", "never"], ""));
    assert!(coloured(&["list", "--color", "always"], "1"));
    // A pipe has lines for scripts, unless it is to be as a terminal is.
    assert_eq!(home.run(&["list"]).raw, "/a\t1\n");
    let always = home.run(&["list", "--color", "always"]).raw;
    assert!(
        always.contains("KEY") && always.contains('\u{1b}'),
        "{always}"
    );
    let peers = home.run(&["peers"]).raw;
    assert!(!peers.contains('\u{1b}'), "{peers}");
}

#[test]
fn delete_of_a_prefix_has_one_bar() {
    let home = Home::initialised();
    let node = home.up();
    let lines: String = (0..4000).map(|n| format!("/bar/{n}\tx\n")).collect();
    home.feed(&["put", "--stdin"], lines).ok();
    let command = home.command(&["delete", "--prefix", "/bar/"]);
    let mut delete = OnTerminal::start(command, 80);
    delete.wait_for("delete 4000 keys under \"/bar/\"? [y/N] ");
    // The bar comes after a second, so the node takes that long.
    node.signal(Signal::STOP);
    delete.press("y\n");
    thread::sleep(Duration::from_millis(1500));
    node.signal(Signal::CONT);
    let shown = delete.end();
    let (question, rest) = shown.split_once("[y/N] ").unwrap();
    assert!(!question.contains('%'), "{shown:?}");
    assert!(
        rest.contains("deleted, ") && rest.contains('%'),
        "{shown:?}"
    );
    assert_eq!(
        rest.matches('\n').count(),
        2,
        "one bar, on one line: {shown:?}"
    );
    assert!(rest.ends_with("4000 deleted\n"), "{shown:?}");
}
