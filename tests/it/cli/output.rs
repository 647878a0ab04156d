//! Output of each command, for people and for programs.

use super::harness::Home;

#[test]
fn reads_and_writes_print_lines() {
    let home = Home::initialised();
    let _node = home.up();
    insta::assert_snapshot!(home.run(&["put", "/t/hello", "world"]), @r#"
    [id]
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["get", "/t/hello"]), @"worldexit 0");
    home.run(&["put", "/t/hello", "again", "--ttl", "1h"]).ok();
    insta::assert_snapshot!(home.run(&["list", "/t/"]), @r#"
    /t/hello	again	expires_ms=[ms]
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["heads", "/t/hello"]), @"
    * [short]  [time]+[n]  author [short]  seq 2  put again (expires [time])
    exit 0
    ");
    insta::assert_snapshot!(home.run(&["history", "/t/hello"]), @r#"
    *  [short]  [time]  [short]  (head, wins)  put again (expires [time])
    *  [short]  [time]  [short]  put world
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["delete", "/t/hello"]), @r#"
    [id]
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["heads", "/t/hello"]), @"
    * [short]  [time]+[n]  author [short]  seq 3  delete
    exit 0
    ");
    assert_eq!(home.run(&["get", "/t/hello"]).code, 3);
    let own = home.run(&["status", "--json"]).json()[0]["node"]
        .as_str()
        .unwrap()
        .to_owned();
    let log = home.run(&["log", &own[..10], "--limit", "100"]).ok();
    let tail: Vec<&str> = log.lines().filter(|line| line.contains("/t/")).collect();
    assert_eq!(tail.len(), 3, "{log}");
    assert!(tail[0].ends_with("delete /t/hello"), "{log}");
    assert!(tail[2].ends_with("put /t/hello=world"), "{log}");
}

#[test]
fn reads_and_writes_print_objects() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["store", "create", "notes"]).ok();
    let run = |arguments: &[&str]| home.run(&[&["--store", "notes", "--json"], arguments].concat());
    insta::assert_snapshot!(run(&["put", "/hello", "world"]), @r#"
    {"type":"written","entry":"[id]","author":"[id]","seq":1,"wall_ms":[ms],"counter":[n]}
    exit 0
    "#);
    insta::assert_snapshot!(run(&["get", "/hello"]), @r#"
    {"type":"item","key":"/hello","value":"world","entry":"[id]","author":"[id]","seq":1,"wall_ms":[ms],"counter":[n],"heads":["[id]"],"conflict":false}
    exit 0
    "#);
    insta::assert_snapshot!(run(&["put", "/hello", "again", "--ttl", "1h"]), @r#"
    {"type":"written","entry":"[id]","author":"[id]","seq":2,"wall_ms":[ms],"counter":[n]}
    exit 0
    "#);
    insta::assert_snapshot!(run(&["list", "/"]), @r#"
    {"type":"item","key":"/hello","value":"again","entry":"[id]","author":"[id]","seq":2,"wall_ms":[ms],"counter":[n],"expires_ms":[ms],"heads":["[id]"],"conflict":false}
    exit 0
    "#);
    insta::assert_snapshot!(run(&["list", "/", "--keys-only"]), @r#"
    {"type":"item","key":"/hello","entry":"[id]","author":"[id]","seq":2,"wall_ms":[ms],"counter":[n],"expires_ms":[ms],"heads":["[id]"],"conflict":false}
    exit 0
    "#);
    insta::assert_snapshot!(run(&["heads", "/hello"]), @r#"
    {"type":"head","kind":"put","key":"/hello","value":"again","entry":"[id]","author":"[id]","seq":2,"wall_ms":[ms],"counter":[n],"expires_ms":[ms],"expired":false,"wins":true}
    exit 0
    "#);
    insta::assert_snapshot!(run(&["history", "/hello"]), @r#"
    {"type":"version","kind":"put","key":"/hello","value":"again","entry":"[id]","author":"[id]","seq":2,"wall_ms":[ms],"counter":[n],"expires_ms":[ms],"parents":["[id]"],"head":true,"wins":true}
    {"type":"version","kind":"put","key":"/hello","value":"world","entry":"[id]","author":"[id]","seq":1,"wall_ms":[ms],"counter":[n],"parents":[],"head":false,"wins":false}
    exit 0
    "#);
    insta::assert_snapshot!(run(&["delete", "/hello"]), @r#"
    {"type":"written","entry":"[id]","author":"[id]","seq":3,"wall_ms":[ms],"counter":[n]}
    exit 0
    "#);
    insta::assert_snapshot!(run(&["delete", "--prefix", "/", "--yes"]), @r#"
    {"type":"keys_deleted","deleted":0}
    exit 0
    "#);
    insta::assert_snapshot!(run(&["log", "--after", "1"]), @r#"
    {"type":"entry","entry":"[id]","author":"[id]","seq":3,"wall_ms":[ms],"counter":[n],"branch":0,"prev":"[id]","parents":["[id]"],"atomic":false,"arrived_ms":[ms],"ops":[{"kind":"delete","key":"/hello"}]}
    {"type":"entry","entry":"[id]","author":"[id]","seq":2,"wall_ms":[ms],"counter":[n],"branch":0,"prev":"[id]","parents":["[id]"],"atomic":false,"arrived_ms":[ms],"ops":[{"kind":"put","key":"/hello","value":"again","expires_ms":[ms]}]}
    exit 0
    "#);
    insta::assert_snapshot!(run(&["verify"]), @r#"
    {"type":"verified","store":"[uuid]","name":"notes","root":false,"data":false,"private":false,"entries":3,"signatures":3,"rows":1,"damaged":0}
    exit 0
    "#);
    insta::assert_snapshot!(run(&["store", "list"]), @r#"
    {"type":"store","store":"[uuid]","name":"data","root":false,"data":true,"private":false}
    {"type":"store","store":"[uuid]","name":"root","root":true,"data":false,"private":false}
    {"type":"store","store":"[uuid]","name":"notes","root":false,"data":false,"private":false}
    exit 0
    "#);
}

#[test]
fn status_shows_the_node_and_its_stores() {
    let home = Home::new();
    home.run(&["init", "--name", "attic"]).ok();
    let without = home.run(&["status"]).ok();
    assert!(
        without.starts_with("STOPPED: no node is running here"),
        "{without}"
    );
    let _node = home.up();
    home.run(&["store", "create", "notes"]).ok();
    home.run(&["--store", "notes", "put", "/hello", "world"])
        .ok();
    let status = home.run(&["status"]).ok();
    let head: Vec<&str> = status.lines().take(4).collect();
    insta::assert_snapshot!(head.join("\n"), @"
    OK: no other members, no conflicts
    attic ([short]), admin, up since [time], lattice 0.1.0, process [pid]
    data    [home]/data
    socket  [home]/data/run/sock
    ");
    let notes = status.lines().find(|line| line.starts_with("  notes "));
    let cells: Vec<&str> = notes.unwrap().split_whitespace().collect();
    assert_eq!(cells[..3], ["notes", "1", "1"], "{status}");
    assert!(status.contains("  data * "), "{status}");
    let whole = home.run(&["status", "-v"]).ok();
    assert!(whole.contains("attic ([id])"), "{whole}");
    assert!(whole.contains("authors in notes"), "{whole}");
    let json = &home.run(&["status", "--json"]).json()[0];
    let mut fields: Vec<&String> = json.as_object().unwrap().keys().collect();
    fields.sort();
    insta::assert_snapshot!(format!("{fields:?}"), @r#"["data_dir", "node", "node_name", "now_ms", "now_time", "pid", "socket", "started_ms", "started_time", "stores", "type", "unopened", "version"]"#);
    let mut fields: Vec<&String> = json["stores"][0].as_object().unwrap().keys().collect();
    // It is there once the node has looked at it.
    fields.retain(|field| *field != "history");
    fields.sort();
    insta::assert_snapshot!(format!("{fields:?}"), @r#"["damage", "data", "diverged", "entries", "forks", "held", "held_entries", "keys", "log_bytes", "name", "pending_bytes", "pending_entries", "private", "recovered", "root", "state_bytes", "store", "tips", "void_acts", "watchers"]"#);
}

#[test]
fn verify_of_a_sound_store_is_clean() {
    let home = Home::initialised();
    home.run(&["put", "/t/a", "1"]).ok();
    let report = home.run(&["verify"]).ok();
    assert!(report.starts_with("store [uuid] (root"), "{report}");
    assert!(report.trim_end().ends_with("all good"), "{report}");
}

#[test]
fn chosen_store_is_the_default() {
    let home = Home::initialised();
    let _node = home.up();
    insta::assert_snapshot!(home.run(&["store", "create", "notes"]), @r#"
    [uuid] (notes)
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["store", "use", "notes"]), @r#"
    commands in this directory use notes
    exit 0
    "#);
    home.run(&["put", "/a", "in notes"]).ok();
    let listed = home.run(&["store", "list"]).ok();
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 4, "{listed}");
    assert!(lines[0].starts_with("STORE "), "{listed}");
    for (line, name) in lines[1..].iter().zip(["data ", "root ", "notes * "]) {
        assert!(
            line.starts_with(name) && line.contains("[uuid]"),
            "{listed}"
        );
    }
    assert_eq!(
        home.run(&["--store", "notes", "get", "/a"]).ok(),
        "in notes"
    );
    let mut other = home.command(&["get", "/a"]);
    std::fs::create_dir(home.path("elsewhere")).unwrap();
    other.current_dir(home.path("elsewhere"));
    assert_eq!(
        other.output().unwrap().status.code(),
        Some(3),
        "only this directory"
    );
    insta::assert_snapshot!(home.run(&["store", "use", "nope"]), @r#"
    error: no store has the name or UUID "nope"
    hint: `lattice store list` lists the stores, `lattice store create` makes one
    exit 3
    "#);
    insta::assert_snapshot!(home.run(&["store", "use"]), @"
    commands in this directory use notes
    exit 0
    ");
    insta::assert_snapshot!(home.run(&["store", "use", "--json"]), @r#"
    {"type":"store_used","store":"[uuid]","name":"notes"}
    exit 0
    "#);
    insta::assert_snapshot!(home.run(&["store", "use", "--clear"]), @"
    commands in this directory use the data store
    exit 0
    ");
    assert_eq!(home.run(&["get", "/a"]).code, 3);
}

#[test]
fn l10_control_characters_are_escaped() {
    let home = Home::initialised();
    let _node = home.up();
    home.run(&["put", "/t/\u{1b}[31mred", "a\u{1b}[0m\nfake\tline"])
        .ok();
    insta::assert_snapshot!(home.run(&["list", "/t/"]), @r#"
    /t/\x1b[31mred	a\x1b[0m\nfake\tline
    exit 0
    "#);
    // A pipe gets the bytes as they are.
    let raw = home.run(&["get", "/t/\u{1b}[31mred"]).raw;
    assert_eq!(raw, "a\u{1b}[0m\nfake\tline");
}

/// `log` listed the oldest entries first, which nobody asks for.
#[test]
fn log_lists_the_newest_first() {
    let home = Home::initialised();
    let _node = home.up();
    // More entries than are read together.
    let lines: String = (1..=230).map(|n| format!("put /u/{n} x\n")).collect();
    home.feed(&["shell"], lines).ok();
    for n in 1..=5 {
        home.run(&["put", &format!("/t/{n}"), "x"]).ok();
    }
    let keys = |arguments: &[&str]| -> Vec<String> {
        let listed = home.run(&[&["log", "--json"], arguments].concat()).json();
        let key = |entry: &serde_json::Value| entry["ops"][0]["key"].as_str().unwrap().to_owned();
        listed.iter().map(key).collect()
    };
    assert_eq!(keys(&["--limit", "2"]), ["/t/5", "/t/4"]);
    assert_eq!(keys(&["--limit", "2", "--reverse"]), ["/t/4", "/t/5"]);
    let first = home.run(&["log", "--json"]).json().len() - 5;
    assert!(first >= 230, "{first}");
    let after = first.to_string();
    let after = ["--after", &after, "--limit", "2"];
    assert_eq!(keys(&after), ["/t/2", "/t/1"]);
    assert_eq!(
        keys(&[&after[..], &["--reverse"]].concat()),
        ["/t/1", "/t/2"]
    );
    assert_eq!(keys(&["--limit", "1000"]).len(), first + 5);
    let seqs = |arguments: &[&str]| -> Vec<u64> {
        let listed = home.run(&[&["log", "--json"], arguments].concat()).json();
        listed
            .iter()
            .map(|entry| entry["seq"].as_u64().unwrap())
            .collect()
    };
    let mut oldest_first = seqs(&["--reverse"]);
    assert!(oldest_first.is_sorted() && oldest_first.len() == first + 5);
    oldest_first.reverse();
    assert_eq!(seqs(&[]), oldest_first);
    // Lines that are written again end with the values that the log ends with.
    let tsv = home.run(&["log", "--tsv", "--limit", "2"]).ok();
    assert_eq!(tsv, "/t/4\tx\n/t/5\tx\n");
}

#[test]
fn history_is_read_in_both_directions() {
    let home = Home::initialised();
    let _node = home.up();
    for value in ["1", "2", "3"] {
        home.run(&["put", "/h", value]).ok();
    }
    let values = |arguments: &[&str]| -> Vec<String> {
        let past = home
            .run(&[&["history", "/h", "--json"], arguments].concat())
            .json();
        past.iter()
            .map(|it| it["value"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(values(&[]), ["3", "2", "1"]);
    assert_eq!(values(&["--reverse"]), ["1", "2", "3"]);
    assert_eq!(values(&["--reverse", "-n", "2"]), ["2", "3"]);
    insta::assert_snapshot!(home.run(&["history", "/h", "--reverse", "-n", "2"]), @"
    older entries exist, see --limit
    *  [short]  [time]  [short]  put 2
    *  [short]  [time]  [short]  (head, wins)  put 3
    exit 0
    ");
}

#[test]
fn future_since_is_an_error() {
    let home = Home::initialised();
    for command in [
        &["watch", "/", "--since"][..],
        &["watch", "/", "--arrived-since"],
        &["diff", "--from"],
        &["consumer", "create", "c", "--from"],
        &["hook", "test", "h", "--since"],
        &["on", "/", "--since"],
    ] {
        let mut arguments = [command, &["2999-01-01"]].concat();
        if command[0] == "on" {
            arguments.extend(["--", "true"]);
        }
        let refused = home.run(&arguments);
        assert_eq!(refused.code, 2, "{refused}");
        assert!(refused.stderr.contains("is in the future"), "{refused}");
    }
}

/// The time that `watch` prints could not be given to `--since`, and an expiry had the time of the put.
#[test]
fn printed_times_can_be_given_to_since() {
    let home = Home::initialised();
    let _node = home.up();
    let mut watch = home.start(&["watch", "/t/", "-c", "2"]);
    home.run(&["put", "/t/a", "1", "--ttl", "1100ms"]).ok();
    let time = |line: String| line.split("  ").next().unwrap().to_owned();
    let (put, expired) = (time(watch.line().unwrap()), time(watch.line().unwrap()));
    // Unless midnight is between them.
    assert!(put < expired || put.starts_with("23:59"), "{put} {expired}");
    for since in [&put, "today", "1w", "1.5h"] {
        let seen = home.run(&[
            "watch",
            "/t/",
            "--since",
            since,
            "--until-caught-up",
            "--only",
            "put",
        ]);
        assert!(
            seen.stdout.contains("/t/a") || put.starts_with("23:59"),
            "{since}: {seen}"
        );
    }
}

/// A value of 2 MB "has 1048577" bytes.
#[test]
fn long_value_is_not_given_a_wrong_length() {
    let home = Home::initialised();
    std::fs::write(home.path("long"), vec![b'x'; 2 << 20]).unwrap();
    insta::assert_snapshot!(home.run(&["put", "/a", "--file", "long"]), @r#"
    error: cannot read long: it has more than 1048576 bytes, the limit of a value
    hint: keep large data in a file and put its path or hash into the value
    exit 2
    "#);
    insta::assert_snapshot!(home.feed(&["put", "/a", "-"], vec![b'x'; 2 << 20]), @r#"
    error: cannot read stdin: it has more than 1048576 bytes, the limit of a value
    hint: keep large data in a file and put its path or hash into the value
    exit 2
    "#);
}

#[test]
fn data_is_printed_in_the_chosen_form() {
    let home = Home::new();
    home.run(&["init", "--name", "attic"]).ok();
    let _node = home.up();
    home.run(&["put", "/t/a", "1"]).ok();
    home.run(&["put", "/t/b", "a\tb"]).ok();
    let list = |form: &str| home.run(&["list", "/t/", "-o", form]);
    assert_eq!(list("json").raw, home.run(&["list", "/t/", "--json"]).raw);
    let table = list("table").ok();
    let titles: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(titles[..2], ["KEY", "VALUE"], "{table}");
    assert!(table.contains("attic"), "{table}");
    // A pipe gets the bytes as they are.
    assert_eq!(
        list("template={{key}} {{value}} {{author_name}}\\n--").raw,
        "/t/a 1 attic\n--\n/t/b a\tb attic\n--\n"
    );
    assert_eq!(list("template={% if seq == 9 %}x{% endif %}").ok(), "");
    let watch = [
        "watch",
        "/t/",
        "--until-caught-up",
        "-o",
        "template={{key}}",
    ];
    assert_eq!(home.run(&watch).ok(), "/t/a\n/t/b\n");
    insta::assert_snapshot!(list("template={{vaule}}"), @"
    error: invalid value 'template={{vaule}}' for '--output <FORMAT>': no command prints a field vaule: did you mean value?

    For more information, try '--help'.
    exit 2
    ");
    insta::assert_snapshot!(list("template={{key"), @"
    error: invalid value 'template={{key' for '--output <FORMAT>': the template is wrong: unexpected end of input, expected end of variable block

    For more information, try '--help'.
    exit 2
    ");
    insta::assert_snapshot!(list("xml"), @"
    error: invalid value 'xml' for '--output <FORMAT>': expected table, json or template='{{key}} {{value}}'

    For more information, try '--help'.
    exit 2
    ");
    insta::assert_snapshot!(home.run(&["get", "/none", "-o", "template={{key}}"]), @"
    error: /none has no value
    exit 3
    ");
    insta::assert_snapshot!(home.run(&["get", "/none", "-o", "json"]), @r#"
    {"type":"error","error":"not_found","message":"/none has no value","exit_code":3}
    exit 3
    "#);
    insta::assert_snapshot!(home.run(&["get", "-o", "json"]), @r#"
    {"type":"error","error":"usage","message":"the following required arguments were not provided:\n  <KEY>","hint":"see `lattice --help`","exit_code":2}
    exit 2
    "#);
    let both = home.run(&["list", "--json", "-o", "table"]);
    assert_eq!(both.code, 2, "{both}");
}
