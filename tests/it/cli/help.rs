//! Help texts, manual pages and completions.

use lattice::manual::{PAGES, Page};

use super::harness::Home;

const COMMANDS: &[&[&str]] = &[
    &["init"],
    &["up"],
    &["down"],
    &["put"],
    &["get"],
    &["delete"],
    &["batch"],
    &["list"],
    &["heads"],
    &["history"],
    &["diff"],
    &["export"],
    &["import"],
    &["conflicts"],
    &["conflicts", "resolve"],
    &["watch"],
    &["consumer"],
    &["consumer", "create"],
    &["consumer", "next"],
    &["consumer", "ack"],
    &["consumer", "nack"],
    &["consumer", "term"],
    &["consumer", "extend"],
    &["consumer", "list"],
    &["consumer", "show"],
    &["consumer", "pause"],
    &["consumer", "resume"],
    &["consumer", "reset"],
    &["consumer", "delete"],
    &["consumer", "dead"],
    &["on"],
    &["hook"],
    &["hook", "add"],
    &["hook", "list"],
    &["hook", "logs"],
    &["hook", "test"],
    &["hook", "pause"],
    &["hook", "resume"],
    &["hook", "remove"],
    &["hook", "dead"],
    &["wait"],
    &["lock"],
    &["status"],
    &["top"],
    &["log"],
    &["root"],
    &["compare"],
    &["verify"],
    &["repair"],
    &["invite"],
    &["join"],
    &["peers"],
    &["peer"],
    &["peer", "list"],
    &["peer", "remove"],
    &["peer", "dormant"],
    &["connect"],
    &["demo"],
    &["store"],
    &["store", "create"],
    &["store", "list"],
    &["store", "use"],
    &["snapshot"],
    &["snapshot", "create"],
    &["snapshot", "list"],
    &["snapshot", "verify"],
    &["snapshot", "restore"],
    &["retention"],
    &["prune"],
    &["service"],
    &["service", "print"],
    &["service", "install"],
    &["service", "uninstall"],
    &["shell"],
    &["completions"],
    &["man"],
    &["help"],
];

#[test]
fn help_lists_the_commands() {
    insta::assert_snapshot!(Home::new().run(&["--help"]).ok(), @"
    A pub/sub node with watch streams on a signed key-value log, without a server

    Usage: lattice [OPTIONS] <COMMAND>

    Start:
      up           Start the node; create it if there is none
      down         Stop the running node
      init         Create the node: its data directory, identity, root store and data store
      status       Show the node, its stores and their health
      top          Show the node, its mesh and its changes on a live screen
      service      Run the node as a systemd service
      demo         Watch three nodes find each other, disagree and agree, on this machine

    Data:
      put          Set a key
      get          Print the value of a key
      delete       Delete a key, or all keys under a prefix
      batch        Apply puts and deletes from stdin as one atomic entry
      list         List keys and their values
      export       Write keys and values as JSON lines, which `import` reads
      import       Write the keys and values of JSON lines, as `export` prints them
      heads        Show all heads of a key
      history      Draw the history of a key
      diff         Show the keys that differ between two times
      conflicts    List the keys that have several heads, and their heads
      log          List the entries of a log
      store        Create, list, choose, rename and delete stores

    Watch and react:
      watch        Print the changes of keys as they happen
      on           Run a command, or post to a URL, for each change while this runs
      hook         Hooks: the node runs a command, or posts to a URL, when a key changes
      consumer     Durable consumers: every change under a prefix is delivered until it is acknowledged
      wait         Wait until the node answers and meets the given conditions
      lock         Run a command while holding a lock, which others wait for

    Mesh:
      invite       Invite another node: prints a token for `lattice join`
      join         Join the mesh of another node, with the token that `lattice invite` printed there
      peers        List the members: the same as `peer list`
      peer         List the other members, change their role or name, remove them, or mark them dormant
      connect      Connect to a member now
      leave        End this node's own membership of its mesh, for ever

    Care:
      verify       Check every record and every signature, and the state against the log
      repair       Make this node able to write again after it lost a part of its own log, or forked
      snapshot     Back up all stores into one file, check it anywhere, restore it
      key          Show where the secret of this node's key is, and move it to a safer place
      retention    Show how much of a store's history is final and kept, or set how much is kept
      prune        Remove final entries of a store from the logs of this node
      root         Print the root of a store: one hash for its whole state
      compare      Compare a store here with the same store on another member

    Tools:
      shell        Type commands interactively, with history and completion of commands and keys
      bench        Measure a node on this machine: rates, times, and ratios to the speed of its disk
      completions  Print the script with which a shell completes commands, keys and names
      man          Print the manual page of lattice, of one command, or of a topic
      help         Print the help of a command, or a page of the manual

    Options:
          --data-dir <DIR>   Data directory of the node [default: the platform's data folder] [env:
                             LATTICE_DATA]
          --store <STORE>    Store, by name or UUID [default: the choice of `store use` here, else the
                             data store] [env: LATTICE_STORE]
          --json             Short for -o json: one object per line; errors are one object on stderr
      -o, --output <FORMAT>  Print a table, JSON, or fields of the JSON: table, json or
                             template='{{key}} {{value}}'
          --color <WHEN>     Colours: auto (none if NO_COLOR is set), always (a pipe gets tables, too)
                             or never [default: auto]
      -v, --verbose...       Print whole ids and cut nothing off; log more to stderr, with -vv and -vvv
                             still more
      -h, --help             Print help
      -V, --version          Print version

    Examples:
      lattice up --watch /              start the node here and stream every change
      lattice put /hello world          in another terminal: appears there at once
      lattice get /hello
      lattice watch /nodes/ --json      one JSON object per change, for programs
      lattice list /                    the keys and their values

    Exit codes: 0 done, 1 failed (compare: different), 2 usage, 3 not found,
    4 precondition failed, 5 node unavailable, 6 damaged data, 7 partly done,
    8 timed out, 130 interrupted.
    ");
}

#[test]
fn short_help_of_watch_names_every_flag() {
    insta::assert_snapshot!(Home::new().run(&["watch", "-h"]).ok(), @"
    Print the changes of keys as they happen

    Usage: lattice watch [OPTIONS] [PREFIX]...

    Arguments:
      [PREFIX]...  Only keys that start with this, byte by byte: /jobs/1 also matches /jobs/10

    Options:
          --key-base64            The key or prefix is given in base64, like `key_base64` of --json
          --exact                 Match the keys exactly, not as prefixes
      -g, --glob <PATTERN>        Also keys that match: * matches bytes other than /, ** any bytes, ?
                                  one byte other than /
          --initial               Begin with the current state (the default)
          --no-initial            Begin with changes from now on
          --after <CURSOR>        Begin after a cursor that a watch of this store printed, here or on
                                  another node
          --wait                  With --after: wait for entries of the cursor that this node is missing
          --since <TIME>          Begin with changes written since: 2h or 7d ago, 10:30, yesterday, a
                                  date, or an RFC 3339 time
          --arrived-since <TIME>  Begin with changes that arrived here since, whenever they were
                                  written; times as for --since
          --until <TIME>          Only changes written until then; ends once that time has passed and
                                  they are printed
          --latest                If the watch falls behind, skip to the newest change of each key
          --keys-only             Leave the values out
          --only <KIND>           Only changes of these kinds [possible values: put, delete, expire,
                                  retract, conflict]
          --author <AUTHOR>       Only changes by this author: its name, its id, or the first digits of
                                  it
          --cursors               Print a cursor with every change, even within an entry
          --tsv                   Print puts and deletes as lines that `put --stdin` reads, and nothing
                                  else
          --proof                 With --json: add to each put and delete its entry, as the author
                                  signed it
          --hash                  With --json: add to caught_up and progress the root of the keys, as
                                  `lattice root --prefix PREFIX` prints it on every node with the same
                                  state; absent while changes are on their way
          --until-caught-up       End once the state, or the history since the start, is complete
      -n, --limit <N>             End after this many changes
          --timeout <DURATION>    End after this long, with exit 8
          --no-reconnect          Exit with 5 if the node disconnects
          --tree                  Show the keys on a live screen, as a tree of their prefixes
      -h, --help                  Print help (see more with '--help')

    Global options:
          --data-dir <DIR>   Data directory of the node [default: the platform's data folder] [env:
                             LATTICE_DATA]
          --store <STORE>    Store, by name or UUID [default: the choice of `store use` here, else the
                             data store] [env: LATTICE_STORE]
          --json             Short for -o json: one object per line; errors are one object on stderr
      -o, --output <FORMAT>  Print a table, JSON, or fields of the JSON: table, json or
                             template='{{key}} {{value}}'
          --color <WHEN>     Colours: auto (none if NO_COLOR is set), always (a pipe gets tables, too)
                             or never [default: auto]
      -v, --verbose...       Print whole ids and cut nothing off; log more to stderr, with -vv and -vvv
                             still more

    Examples:
      lattice watch /nodes/
      lattice watch --tree                               a live screen of all keys
      lattice watch /jobs/ --no-initial --only put
      lattice watch /nodes/ -g '/jobs/*/done'            a prefix and a pattern
      lattice watch /hello --exact -n 1 --timeout 30s    wait for one change
      lattice watch / --since 2h --until-caught-up       what happened in the last two hours
      lattice watch / --since 2026-11-21 --until 1d      what happened until this time yesterday
      lattice watch / --arrived-since 2h                 also changes written earlier that came late
      lattice watch /jobs/ --json --cursors | my-worker  later go on with --after and the last cursor
      lattice watch /audit/ --json --proof >> audit.jsonl  later check with `lattice verify --lines`
      lattice watch /jobs/ --after CURSOR --wait         go on after the cursor on another node
    ");
}

#[test]
fn short_help_of_put_names_every_flag() {
    insta::assert_snapshot!(Home::new().run(&["put", "-h"]).ok(), @r"
    Set a key

    Usage: lattice put [OPTIONS] [KEY] [VALUE]

    Arguments:
      [KEY]    The key, 1 to 4096 bytes; by convention a path such as /nodes/7/state
      [VALUE]  The value, up to 1 MiB; `-` reads it from stdin

    Options:
          --key-base64          The key or prefix is given in base64, like `key_base64` of --json
          --file <PATH>         Read the value from a file
          --stdin               Read keys and values from stdin, one pair per line, each a write of its
                                own
          --format <FORMAT>     Format of the lines of --stdin [default: tsv] [possible values: tsv,
                                raw, json]
          --ttl <DURATION>      Expire the value after this long: 30s, 5m, 2h, 7d; watchers then get
                                `expire`
          --if-absent           Write only if the key has no value; else exit 4
          --if-head <ENTRY>     Write only if reads return this entry (an id, or its first digits); else
                                exit 4
          --wait-for <MEMBERS>  Wait until this many members have it on disk, this node included; exit 8
                                after --timeout
          --timeout <DURATION>  How long --wait-for waits; the write stays written [default: 30s]
      -h, --help                Print help (see more with '--help')

    Global options:
          --data-dir <DIR>   Data directory of the node [default: the platform's data folder] [env:
                             LATTICE_DATA]
          --store <STORE>    Store, by name or UUID [default: the choice of `store use` here, else the
                             data store] [env: LATTICE_STORE]
          --json             Short for -o json: one object per line; errors are one object on stderr
      -o, --output <FORMAT>  Print a table, JSON, or fields of the JSON: table, json or
                             template='{{key}} {{value}}'
          --color <WHEN>     Colours: auto (none if NO_COLOR is set), always (a pipe gets tables, too)
                             or never [default: auto]
      -v, --verbose...       Print whole ids and cut nothing off; log more to stderr, with -vv and -vvv
                             still more

    Examples:
      lattice put /hello world
      lattice put /hello world --wait-for 2
      lattice put /jobs/7/lease worker-3 --ttl 30s --if-absent
      date | lattice put /clock -
      lattice put /logo --file logo.png
      dpkg-query -W -f '/packages/${Package}\t${Version}\n' | lattice put --stdin
      lattice list /a/ > backup.tsv; lattice --store other put --stdin < backup.tsv
      lattice list /a/ --json | lattice --store other put --stdin --format json
    ");
}

#[test]
fn every_command_has_examples_and_a_page() {
    let home = Home::new();
    for command in COMMANDS {
        let help = home.run(&[*command, &["--help"]].concat()).ok();
        assert!(help.contains("Examples:"), "{command:?} has no examples");
        assert!(help.contains("lattice"), "{command:?}");
        let page = home.run(&[&["man"], *command].concat()).ok();
        assert!(
            page.contains(".SH SYNOPSIS"),
            "{command:?} has no manual page"
        );
    }
    assert!(!home.data().exists(), "help created something");
}

#[test]
fn aliases_are_the_commands() {
    let home = Home::new();
    let aliases = [
        ("serve", "up"),
        ("del", "delete"),
        ("rm", "delete"),
        ("ls", "list"),
        ("subscribe", "watch"),
        ("sub", "watch"),
    ];
    for (alias, command) in aliases {
        assert_eq!(
            home.run(&[alias, "-h"]).ok(),
            home.run(&[command, "-h"]).ok()
        );
    }
}

#[test]
fn completions_are_for_five_shells() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Home::new().run(&["completions", shell]).ok();
        assert!(script.contains("LATTICE_COMPLETE"), "{shell}: {script}");
    }
}

#[test]
fn manual_pages_go_to_a_directory() {
    let home = Home::new();
    let dir = home.path("man1");
    home.run(&["man", "--dir", dir.to_str().unwrap()]).ok();
    for page in ["lattice.1", "lattice-watch.1", "lattice-store-create.1"] {
        assert!(dir.join(page).is_file(), "{page}");
    }
    for page in PAGES {
        let name = format!("lattice-{}.7", page.name);
        assert!(home.path("man7").join(&name).is_file(), "{name}");
    }
    let other = home.path("pages");
    home.run(&["man", "--dir", other.to_str().unwrap()]).ok();
    assert!(other.join("lattice-up.1").is_file() && other.join("lattice-mesh.7").is_file());
}

#[test]
fn a_page_of_the_manual_is_printed() {
    let home = Home::new();
    let mesh = home.run(&["help", "mesh"]).ok();
    assert!(
        mesh.starts_with("Mesh\n\n  Connect several nodes"),
        "{mesh}"
    );
    assert!(mesh.contains("\n      lattice invite "), "{mesh}");
    let object = home.run(&["help", "mesh", "--json"]).json().remove(0);
    assert_eq!(object["topic"], "mesh");
    assert_eq!(object["text"], Page::find("mesh").unwrap().text);
    assert!(home.run(&["man", "mesh"]).ok().contains(".TH LATTICE"));
}

#[test]
fn help_of_a_command_is_that_of_its_flag() {
    let home = Home::new();
    for command in [&["watch"][..], &["store", "create"]] {
        let flag = home.run(&[command, &["--help"]].concat()).ok();
        assert_eq!(home.run(&[&["help"], command].concat()).ok(), flag);
    }
    let alone = home.run(&["help"]).ok();
    let (commands, topics) = alone.split_once("\n\nTopics, ").unwrap();
    assert_eq!(format!("{commands}\n"), home.run(&["--help"]).ok());
    assert_eq!(
        format!("Topics, {topics}"),
        home.run(&["help", "topics"]).ok()
    );
    for page in PAGES {
        assert!(topics.contains(&format!("\n  {} ", page.name)), "{topics}");
    }
}

#[test]
fn unknown_topic_names_the_nearest_one() {
    let home = Home::new();
    insta::assert_snapshot!(home.run(&["help", "hoks"]), @"
    error: hoks is neither a command nor a topic of the manual
    hint: did you mean `lattice help hooks`?
    exit 2
    ");
    let ran = home.run(&["help", "store", "nothing"]);
    assert_eq!(ran.code, 2);
}
