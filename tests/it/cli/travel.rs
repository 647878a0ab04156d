//! Time travel at the command line: values at a time, changes between two times, and the limits of
//! it.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::harness::{Home, PATIENCE};

// Runs a write and returns when it was stamped; the next one is later.
fn wrote(home: &Home, arguments: &[&str]) -> String {
    let written = home.run(&[arguments, &["--json"]].concat()).json();
    std::thread::sleep(Duration::from_millis(3));
    written[0]["wall_ms"].as_u64().unwrap().to_string()
}

// Three times of one store; at the second `/c/a` was 2, and `/c/b` was there.
fn a_history(home: &Home) -> [String; 3] {
    wrote(home, &["put", "/c/a", "1"]);
    let first = wrote(home, &["put", "/c/same", "0"]);
    wrote(home, &["put", "/c/a", "2"]);
    let second = wrote(home, &["put", "/c/b", "new"]);
    wrote(home, &["put", "/other", "x"]);
    wrote(home, &["delete", "/c/a"]);
    let third = wrote(home, &["put", "/c/b", "newer"]);
    [first, second, third]
}

#[test]
fn keys_are_read_at_a_time() {
    let home = Home::initialised();
    let _node = home.up();
    let [first, second, third] = a_history(&home);
    let get = |key, at: &str| home.run(&["get", key, "--at", at]);
    assert_eq!(get("/c/a", &first).ok(), "1");
    assert_eq!(get("/c/a", &second).ok(), "2");
    insta::assert_snapshot!(get("/c/a", &third), @r#"
    error: /c/a had no value at that time
    exit 3
    "#);
    assert_eq!(get("/c/b", &first).code, 3);
    insta::assert_snapshot!(home.run(&["list", "/c/", "--at", &first]), @r#"
    /c/a	1
    /c/same	0
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["list", "/c/", "--at", &second, "--limit", "2"]), @r#"
    /c/a	2
    /c/b	new
    exit 0
    "#);
    assert_eq!(home.run(&["list", "--at", "1h"]).ok(), "");
    insta::assert_snapshot!(home.run(&["get", "/c/b", "--at", &second, "--json"]), @r#"
    {"type":"item","key":"/c/b","value":"new","entry":"[id]","author":"[id]","seq":4,"wall_ms":[ms],"counter":[n],"heads":["[id]"],"conflict":false}
    exit 0
    "#);
}

#[test]
fn two_times_are_compared() {
    let home = Home::initialised();
    let _node = home.up();
    let [first, second, third] = a_history(&home);
    let diff = |from: &str, to: &str, extra: &[&str]| {
        home.run(&[&["diff", "/c/", "--from", from, "--to", to], extra].concat())
    };
    insta::assert_snapshot!(diff(&first, &second, &[]), @r#"
    ~ /c/a	2  (was 1)
    + /c/b	new
    exit 0
    "#);
    insta::assert_snapshot!(diff(&second, &third, &[]), @r#"
    - /c/a	2
    ~ /c/b	newer  (was new)
    exit 0
    "#);
    insta::assert_snapshot!(diff(&second, &third, &["--json", "--keys-only"]), @r#"
    {"type":"removed","key":"/c/a","before":{"key":"/c/a","entry":"[id]","author":"[id]","seq":3,"wall_ms":[ms],"counter":[n],"heads":["[id]"],"conflict":false}}
    {"type":"changed","key":"/c/b","before":{"key":"/c/b","entry":"[id]","author":"[id]","seq":4,"wall_ms":[ms],"counter":[n],"heads":["[id]"],"conflict":false},"after":{"key":"/c/b","entry":"[id]","author":"[id]","seq":7,"wall_ms":[ms],"counter":[n],"heads":["[id]"],"conflict":false}}
    exit 0
    "#);
    assert_eq!(diff(&second, &second, &[]).ok(), "");
    let until_now = home.run(&["diff", "/c/", "--from", &second]).ok();
    assert_eq!(until_now, diff(&second, &third, &[]).ok());
}

#[test]
fn past_watch_begins_and_ends_as_asked() {
    let home = Home::initialised();
    let _node = home.up();
    let [first, second, third] = a_history(&home);
    let watch = |extra: &[&str]| {
        let lines = home
            .run(&[&["watch", "/c/", "-g", "/oth*"], extra].concat())
            .ok();
        let kinds = lines
            .lines()
            .map(|line| line.split_whitespace().nth(1).unwrap().to_owned());
        kinds.collect::<Vec<_>>()
    };
    let kinds = |count| vec!["put".to_owned(); count];
    assert_eq!(watch(&["--since", &first, "--until", &second]), kinds(3));
    assert_eq!(watch(&["--since", "1h", "--until", &first]), kinds(2));
    let rest = watch(&["--since", &second, "--until", &third]);
    assert_eq!(rest, ["put", "put", "delete", "put"]);
    let refused = |extra: &[&str]| home.run(&[&["watch", "/c/"], extra].concat());
    insta::assert_snapshot!(refused(&["--until", &first]), @r#"
    error: a watch that begins with the current state cannot end at a time
    hint: begin at a time in the past, or after a cursor
    exit 2
    "#);
    assert_eq!(refused(&["--since", &second, "--until", &first]).code, 2);
}

// Written here before the time asked for, and come from elsewhere after it: by arrival it is there.
#[test]
fn since_arrival_lists_later_arrivals() {
    let home = Home::initialised();
    let _node = home.up();
    let [_first, second, _third] = a_history(&home);
    let since = |flag| {
        let arguments = ["watch", "/c/", flag, &second, "--until-caught-up", "--json"];
        home.run(&arguments).json().len() - 1
    };
    assert_eq!(since("--arrived-since"), 3);
    assert_eq!(since("--since"), 3);
    let both = ["watch", "--since", "1h", "--arrived-since", "1h"];
    assert_eq!(home.run(&both).code, 2);
}

#[test]
fn too_far_back_is_an_error() {
    let home = Home::initialised();
    let _node = home.up();
    let first = wrote(&home, &["put", "/k", "0"]);
    let lines: String = (1..=10_000).map(|n| format!("/k\t{n}\n")).collect();
    home.feed(&["put", "--stdin"], lines).ok();
    insta::assert_snapshot!(home.run(&["get", "/k", "--at", &first, "--json"]), @r#"
    {"type":"error","error":"too_far_back","message":"\"/k\" was written more than 10000 times since then: too far back","hint":"choose a later time, or read the log in order with `lattice watch --since`","exit_code":1}
    exit 1
    "#);
    let all = ["list", "diff"].map(|command| {
        let time = if command == "list" { "--at" } else { "--from" };
        home.run(&[command, time, &first]).code
    });
    assert_eq!(all, [1, 1]);
}

#[test]
fn nonsense_patterns_are_refused() {
    let home = Home::initialised();
    let _node = home.up();
    insta::assert_snapshot!(home.run(&["watch", "-g", "/a\\"]), @r#"
    error: the pattern ends with a single \: write \\ for a backslash
    exit 2
    "#);
    assert_eq!(home.run(&["watch", "--exact"]).code, 2);
    let many = vec!["/a"; 65];
    assert_eq!(home.run(&[&["watch"], many.as_slice()].concat()).code, 2);
}

// A byte of the log flips while no node runs: what needs that entry is told where it is, and
// everything else is answered as before. No third answer.
#[test]
fn damaged_log_is_right_or_an_error() {
    let home = Home::initialised();
    let mut at = String::new();
    for value in ["1", "2"] {
        for key in ["/d/a", "/d/b"] {
            at = wrote(&home, &["put", key, &value.repeat(3000)]);
        }
    }
    for key in ["/d/a", "/d/b"] {
        wrote(&home, &["put", key, &"3".repeat(3000)]);
    }
    let commands = [
        &["get", "/d/a", "--at", &at, "--json"][..],
        &["list", "/d/", "--at", &at, "--json"],
        &["diff", "/d/", "--from", &at, "--json"],
    ];
    let quiet = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.env("LATTICE_LOG", "off");
        home.spawn(command).end()
    };
    let right = commands.map(|command| quiet(command).raw);
    assert!(right[0].contains(&"2".repeat(3000)), "{}", right[0]);
    let log = super::damage::own_log(&home);
    let whole = fs::read(&log).unwrap();
    let (mut refused, mut answered) = (0, 0);
    for offset in (0..whole.len()).step_by(whole.len() / 20) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 0x10;
        fs::write(&log, &bytes).unwrap();
        for (command, right) in commands.iter().zip(&right) {
            let ran = quiet(command);
            match ran.code {
                0 => {
                    assert_eq!(&ran.raw, right, "flipped {offset}: {command:?}");
                    answered += 1;
                }
                6 => {
                    let says = |text: &str| assert!(ran.stderr.contains(text), "{offset}: {ran}");
                    says("damaged at entry ");
                    says("bytes at offset ");
                    says(".log");
                    refused += 1;
                }
                _other => panic!("flipped {offset}: {command:?}: {ran}"),
            }
        }
    }
    assert!(refused >= 10 && answered >= 10, "{refused}, {answered}");
    fs::write(&log, &whole).unwrap();
    assert_eq!(commands.map(|command| quiet(command).raw), right);
}

// Two nodes; one wrote long before and could not say so. By arrival it is news, by its stamp not.
#[test]
fn since_arrival_lists_offline_writes() {
    let home = Home::new();
    let node = home.up();
    let token = home.run(&["invite"]).raw.trim().to_owned();
    let away = Home::new();
    away.run(&["join", &token, "--name", "away"]).ok();
    // No node runs there: the entry is on disk, and reaches no peer.
    away.run(&["put", "/late/a", "from away"]).ok();
    std::thread::sleep(Duration::from_millis(20));
    let then = wrote(&home, &["put", "/late/mark", "1"]);
    std::thread::sleep(Duration::from_millis(20));
    let since = |flag| {
        let watch = [
            "watch",
            "/late/a",
            flag,
            &then,
            "--until-caught-up",
            "--json",
        ];
        let mut lines = home.run(&watch).json();
        lines.pop();
        lines
    };
    assert_eq!(since("--arrived-since"), Vec::<serde_json::Value>::new());
    let _away = away.up();
    let deadline = Instant::now() + PATIENCE;
    while home.run(&["get", "/late/a"]).code != 0 {
        assert!(Instant::now() < deadline, "it comes back");
        std::thread::sleep(Duration::from_millis(50));
    }
    let told = since("--arrived-since");
    assert_eq!(told.len(), 1, "{told:?}");
    let then: u64 = then.parse().unwrap();
    let ms = |field: &str| told[0][field].as_u64().unwrap();
    assert!(ms("wall_ms") < then && then < ms("arrived_ms"), "{told:?}");
    assert_eq!(since("--since"), Vec::<serde_json::Value>::new());
    // It stays so: arrival is in the log.
    drop(node);
    assert_eq!(since("--arrived-since").len(), 1);
}
