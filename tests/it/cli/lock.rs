//! `lock`: one command at a time, on one node, between nodes, and after a process died.

use std::{fs, thread, time::Duration};

use rustix::process::Signal;

use super::{
    harness::Home,
    mesh::{joined, soon},
};

#[test]
fn one_command_at_a_time_has_the_lock() {
    let home = Home::new();
    let _node = home.up();
    // Adds 1 to a number in a file, with time between reading and writing.
    let step = "n=$(cat n); sleep 0.05; echo $((n + 1)) > n";
    fs::write(home.path("n"), "0\n").unwrap();
    let all: Vec<_> = (0..8)
        .map(|_| home.start(&["lock", "/locks/n", "--", "sh", "-c", step]))
        .collect();
    for running in all {
        running.end().ok();
    }
    assert_eq!(fs::read_to_string(home.path("n")).unwrap(), "8\n");
    // It is free again.
    assert_eq!(home.run(&["get", "/locks/n"]).code, 3);
}

#[test]
fn exit_code_is_that_of_the_command() {
    let home = Home::new();
    let _node = home.up();
    let code = |script: &str| home.run(&["lock", "/l", "--", "sh", "-c", script]).code;
    assert_eq!(code("exit 0"), 0);
    assert_eq!(code("exit 42"), 42);
    assert_eq!(code("kill -KILL $$"), 128 + 9);
    insta::assert_snapshot!(home.run(&["lock", "/l", "--", "./nope"]), @r"
    error: cannot run ./nope: No such file or directory (os error 2)
    exit 2
    ");
    let ran = home.run(&["lock", "/l", "--", "sh", "-c", "echo $LATTICE_LOCK"]);
    assert_eq!(ran.raw, "/l\n");
    assert_eq!(
        home.run(&["get", "/l"]).code,
        3,
        "it is free after each of them"
    );
    insta::assert_snapshot!(home.run(&["lock", "/l", "--ttl", "1s", "--", "true"]), @r"
    error: --ttl 1s is too short: at least 3s
    exit 2
    ");
}

#[test]
fn lock_of_a_process_that_died_is_free_after_its_ttl() {
    let home = Home::new();
    let _node = home.up();
    let first = home.start(&["lock", "/l", "--ttl", "3s", "--", "sleep", "60"]);
    soon("it is taken", || home.run(&["get", "/l"]).code == 0);
    let holder = home.run(&["get", "/l"]).raw;
    assert!(
        holder.contains(&format!("\"pid\":{}", first.pid())),
        "{holder}"
    );
    let refused = home.run(&["lock", "/l", "--timeout", "0s", "--", "true"]);
    assert_eq!(refused.code, 8, "{refused}");
    assert!(refused.stderr.contains("\"pid\":"), "{refused}");
    // Renewed: it is held for longer than its TTL.
    thread::sleep(Duration::from_secs(4));
    assert_eq!(home.run(&["get", "/l"]).raw, holder);
    first.signal(Signal::KILL);
    home.run(&["lock", "/l", "--timeout", "30s", "--", "true"])
        .ok();
}

#[test]
fn lock_that_another_has_ends_the_command() {
    let home = Home::new();
    let _node = home.up();
    let held = home.start(&["lock", "/l", "--ttl", "3s", "--", "sleep", "60"]);
    soon("it is taken", || home.run(&["get", "/l"]).code == 0);
    home.run(&["put", "/l", "somebody else"]).ok();
    let ran = held.end();
    assert_eq!(ran.code, 4, "{ran}");
    assert!(ran.stderr.contains("the lock /l was lost"), "{ran}");
    assert_eq!(
        home.run(&["get", "/l"]).raw,
        "somebody else",
        "it is left alone"
    );
}

#[test]
fn signal_ends_the_command_and_frees_the_lock() {
    let home = Home::new();
    let _node = home.up();
    let held = home.start(&["lock", "/l", "--", "sleep", "60"]);
    soon("it is taken", || home.run(&["get", "/l"]).code == 0);
    thread::sleep(Duration::from_millis(200));
    held.signal(Signal::TERM);
    assert_eq!(held.end().code, 128 + 15);
    assert_eq!(home.run(&["get", "/l"]).code, 3);
}

#[test]
fn nodes_that_reach_each_other_take_turns() {
    let a = Home::new();
    let _a_node = a.up();
    let (b, _b_node) = joined(&a, "writer");
    a.run(&["wait", "--peers", "1", "--caught-up"]).ok();
    b.run(&["wait", "--peers", "1", "--caught-up"]).ok();
    // Both directories are on this machine: the file shows whether two ran at the same time.
    let busy = a.path("busy");
    let script = "mkdir \"$0\" && sleep 0.05 && rmdir \"$0\"";
    let busy = busy.to_str().unwrap();
    for round in 0..6 {
        let key = format!("/locks/{round}");
        let start = |home: &Home| home.start(&["lock", &key, "--", "sh", "-c", script, busy]);
        let both = [start(&a), start(&b)];
        for running in both {
            let ran = running.end();
            assert_eq!(ran.code, 0, "round {round}: {ran}");
        }
    }
}
