//! `top` and `watch --tree` on a pseudo-terminal.

use rustix::process::Signal;

use super::{
    harness::{Home, Running},
    on_terminal::{OnTerminal, Shown},
};

fn attic() -> (Home, Running) {
    let home = Home::new();
    home.run(&["init", "--name", "attic"]).ok();
    let node = home.up();
    (home, node)
}

fn top(home: &Home) -> OnTerminal {
    let top = OnTerminal::start(home.command(&["top"]), 80);
    top.see("OK: no other members");
    top
}

fn assert_is_taken(terminal: &OnTerminal) {
    terminal.wait_until("the whole screen is taken", |shown| {
        shown.screen().alternate_screen() && shown.screen().hide_cursor()
    });
    assert!(terminal.is_raw());
}

#[test]
fn top_shows_the_node_and_changes_and_gives_the_terminal_back() {
    let (home, _node) = attic();
    let mut top = top(&home);
    assert_is_taken(&top);
    top.see("attic *");
    top.see("data *");
    home.run(&["put", "/live/a", "first-value"]).ok();
    top.see("first-value");
    home.run(&["put", "/live/\u{1b}[2J", "\u{1b}[31m"]).ok();
    top.see("/live/\\x1b[2J");
    top.resize(120, 40);
    top.wait_until("the keys are on the last row", |shown| {
        shown
            .screen()
            .rows(0, 120)
            .nth(39)
            .unwrap()
            .contains("q leave")
    });
    top.press("p");
    top.see("PAUSED");
    home.run(&["put", "/live/b", "while-paused"]).ok();
    top.press("p");
    top.see("while-paused");
    top.press("q");
    let (code, left) = top.restored();
    assert_eq!((code, left.contains("first-value")), (0, false), "{left}");
}

#[test]
fn every_way_out_restores_the_terminal() {
    let (home, _node) = attic();
    for key in ["q", "\u{1b}", "\u{3}"] {
        let mut top = top(&home);
        top.press(key);
        assert_eq!(top.restored().0, 0, "{key:?}");
    }
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let top = top(&home);
        top.signal(signal);
        assert_eq!(top.restored().0, 130, "{signal:?}");
    }
}

/// A reader of keys that never returns from a closed terminal would keep the process, at full load.
#[test]
fn closed_terminal_ends_the_screen() {
    let (home, _node) = attic();
    let top = top(&home);
    assert_ne!(top.close(), 0);
}

#[test]
fn suspended_screen_comes_back() {
    let (home, _node) = attic();
    let mut top = top(&home);
    let times = |text: &str, mode: &str| text.matches(&format!("\u{1b}[?1049{mode}")).count();
    top.press("\u{1a}");
    top.wait_until("the terminal was given back", |shown| {
        times(&shown.text, "l") == 1
    });
    // A process that no shell could continue was not stopped.
    top.wait_until("it goes on", |shown| {
        top.signal(Signal::CONT);
        times(&shown.text, "h") == 2
    });
    top.see("attic *");
    assert_is_taken(&top);
    top.press("q");
    assert_eq!(top.restored().0, 0);
}

#[test]
fn screens_go_on_when_the_node_comes_back() {
    let (home, node) = attic();
    home.run(&["put", "/live/a", "before"]).ok();
    let mut top = top(&home);
    let mut tree = OnTerminal::start(home.command(&["watch", "--tree"]), 80);
    tree.see("before");
    node.signal(Signal::KILL);
    drop(node);
    top.see("AWAY: ");
    tree.see("AWAY: ");
    assert_is_taken(&top);
    let _node = home.up();
    home.run(&["put", "/live/b", "after"]).ok();
    tree.see("after");
    tree.see("2 keys, live");
    top.see("OK: ");
    home.run(&["put", "/live/c", "later"]).ok();
    top.see("later");
    for terminal in [&mut top, &mut tree] {
        terminal.press("q");
    }
    assert_eq!((top.restored().0, tree.restored().0), (0, 0));
}

#[test]
fn screen_without_a_node_is_the_node() {
    let home = Home::initialised();
    let top = top(&home);
    let put = home.run(&["put", "/live/a", "served"]);
    assert!(put.stderr.is_empty(), "{put}");
    top.see("served");
    assert_eq!(home.run(&["down"]).code, 0);
    let (code, left) = top.restored();
    assert_eq!(code, 0);
    assert!(
        left.contains("no node is running; this process is the node"),
        "{left}"
    );
}

#[test]
fn tree_shows_live_values_a_filter_and_a_history() {
    let (home, _node) = attic();
    home.run(&["put", "/config/colour", "blue"]).ok();
    home.run(&["put", "/jobs/1", "waits"]).ok();
    let mut tree = OnTerminal::start(home.command(&["watch", "--tree"]), 120);
    tree.see("2 keys, live");
    tree.see("/config/");
    tree.see("blue");
    assert_is_taken(&tree);
    home.run(&["put", "/jobs/1", "runs"]).ok();
    tree.see("runs");
    tree.see_no("waits");
    home.run(&["put", "/jobs/\u{1b}]0;x\u{7}", "\u{1b}[2Jx"])
        .ok();
    tree.see("/jobs/\\x1b]0;x\\x07");

    tree.press("/");
    tree.press("Jobs/1");
    tree.see_no("blue");
    tree.see("1 matching \"Jobs/1\"");
    tree.press("\r\t\r");
    tree.see("history of /jobs/1");
    tree.see("waits");
    // The history follows the key.
    home.run(&["put", "/jobs/1", "is-done"]).ok();
    tree.see("is-done");
    tree.press("\u{1b}");
    tree.see_no("history of");
    tree.press("\u{1b}");
    tree.see("blue");
    home.run(&["delete", "/config/colour"]).ok();
    tree.see_no("blue");
    tree.press("q");
    assert_eq!(tree.restored().0, 0);
}

#[test]
fn tree_of_a_prefix_has_its_keys_only() {
    let (home, _node) = attic();
    home.run(&["put", "/config/colour", "blue"]).ok();
    home.run(&["put", "/jobs/1", "waits"]).ok();
    let mut tree = OnTerminal::start(home.command(&["watch", "--tree", "/jobs/"]), 80);
    tree.see("1 key under /jobs/, live");
    tree.see_no("blue");
    tree.press("q");
    assert_eq!(tree.restored().0, 0);
    let two = OnTerminal::start(home.command(&["watch", "--tree", "/a/", "/b/"]), 80);
    let (code, shown) = two.restored();
    assert_eq!(code, 2);
    assert!(shown.contains("one prefix"), "{shown}");
}

#[test]
fn colours_follow_the_environment() {
    let (home, _node) = attic();
    let has_colours = |no_color: &str| {
        let mut command = home.command(&["top"]);
        command.env("NO_COLOR", no_color);
        let top = OnTerminal::start(command, 80);
        top.see("attic *");
        let first = |shown: &Shown| shown.screen().cell(0, 0).unwrap().fgcolor();
        top.shown(|shown| first(shown) != vt100::Color::Default)
    };
    assert!(has_colours("") && !has_colours("1"));
}

#[test]
fn screens_name_what_to_use_without_a_terminal() {
    let home = Home::initialised();
    insta::assert_snapshot!(home.run(&["top"]), @"
    error: `lattice top` needs a terminal for its keys and its screen
    hint: `lattice status --json` and `lattice watch --json` are for programs; `lattice status` and `lattice watch` print lines
    exit 2
    ");
    insta::assert_snapshot!(home.run(&["watch", "--tree", "--json"]), @r#"
    {"type":"error","error":"no_screen","message":"`lattice watch --tree` is a screen for people and has no --json","hint":"`lattice watch` and `lattice list` print lines, with --json for programs","exit_code":2}
    exit 2
    "#);
    let mut dumb = home.command(&["watch", "--tree"]);
    dumb.env("TERM", "dumb");
    let (code, shown) = OnTerminal::start(dumb, 120).restored();
    assert_eq!(code, 2);
    insta::assert_snapshot!(shown, @"
    error: `lattice watch --tree` needs a terminal that can move its cursor, and TERM says that this one is dumb
    hint: `lattice watch` and `lattice list` print lines, with --json for programs
    ");
    let json = OnTerminal::start(home.command(&["top", "--json"]), 120);
    assert_eq!(json.restored().0, 2);
}
