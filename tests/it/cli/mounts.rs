//! File systems that are read-only or full. Each command runs in a mount namespace of its own,
//! which ends with it.

use std::process::{Command, Stdio};

use super::harness::{Home, Ran};

// The flags with which this user may mount, if so.
fn namespace() -> Option<&'static str> {
    let may = |flags: &&str| {
        let tried = Command::new("unshare")
            .args([flags, "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
            .output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let found = ["-m", "-rm"].into_iter().find(|flags| may(flags));
    if found.is_none() {
        println!("skipped: `unshare` and `mount` are not permitted, or not there");
    }
    found
}

fn run(home: &Home, flags: &str, script: &str) -> Ran {
    let lattice = home.command(&[]);
    let mut command = Command::new("unshare");
    command
        .args([flags, "sh", "-euc", script])
        .envs(
            lattice
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("LATTICE", lattice.get_program())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    home.spawn(command).end()
}

#[test]
fn s15_read_only_directory_is_refused() {
    let Some(flags) = namespace() else { return };
    let home = Home::initialised();
    home.run(&["put", "/t/a", "1"]).ok();
    let read_only = r#"
        mount --bind "$LATTICE_DATA" "$LATTICE_DATA"
        mount -o remount,ro,bind "$LATTICE_DATA"
    "#;
    let ran = run(&home, flags, &format!(r#"{read_only} "$LATTICE" get /t/a"#));
    insta::assert_snapshot!(ran, @r#"
    error: cannot write in [home]/data/lock: Read-only file system (os error 30)
    hint: even reading needs to write there: give this user permission, or choose a copy with --data-dir
    exit 1
    "#);
    let ran = run(
        &home,
        flags,
        &format!(r#"{read_only} "$LATTICE" up --json"#),
    );
    assert!(ran.stderr.contains(r#""error":"read_only""#), "{ran}");
    // A new node cannot be made there either.
    let ran = run(
        &home,
        flags,
        &format!(r#"{read_only} "$LATTICE" --data-dir "$LATTICE_DATA/new" init"#),
    );
    insta::assert_snapshot!(ran, @r#"
    error: cannot write in [home]/data/new: Read-only file system (os error 30)
    hint: even reading needs to write there: give this user permission, or choose a copy with --data-dir
    exit 1
    "#);
    assert_eq!(home.run(&["get", "/t/a"]).ok(), "1");
}

#[test]
fn s10_full_file_system_recovers() {
    let Some(flags) = namespace() else { return };
    let home = Home::new();
    let ran = run(
        &home,
        flags,
        r#"
        mkdir "$LATTICE_DATA"
        mount -t tmpfs -o size=3m,mode=700 tmpfs "$LATTICE_DATA"
        # The state file may find no room either, and logs that; reads go on from memory.
        export LATTICE_LOG=off
        "$LATTICE" init >/dev/null
        "$LATTICE" up >/dev/null &
        until [ -S "$LATTICE_DATA/run/sock" ]; do sleep 0.05; done
        big() { head -c 300000 /dev/zero | tr '\0' v | "$LATTICE" put "$1" - >/dev/null; }
        "$LATTICE" put /t/a 1 >/dev/null
        head -c 4000000 /dev/zero >"$LATTICE_DATA/filler" 2>/dev/null || echo "full"
        big /t/big || echo "exit $?"
        # Longer than until the next flush of the state.
        sleep 1.5
        echo "a is $("$LATTICE" get /t/a)"
        "$LATTICE" get /t/big || echo "exit $?"
        rm "$LATTICE_DATA/filler"
        tries=0
        until big /t/big 2>/dev/null; do
            tries=$((tries + 1))
            [ $tries -lt 50 ] || { echo "writes do not resume"; exit 9; }
            sleep 0.1
        done
        "$LATTICE" put /t/b 2 >/dev/null
        echo "big has $("$LATTICE" get /t/big | wc -c) bytes, b is $("$LATTICE" get /t/b)"
        "$LATTICE" verify
        "$LATTICE" down
        wait
        "$LATTICE" verify
        "#,
    );
    insta::assert_snapshot!(ran, @"
    full
    exit 1
    a is 1
    exit 3
    big has 300000 bytes, b is 2
    store [uuid] (root): 1 entries, 1 signatures, 3 rows, all good
    store [uuid] (data): 3 entries, 3 signatures, 3 rows, all good
    stopped  process [pid]
    store [uuid] (root): 1 entries, 1 signatures, 3 rows, all good
    store [uuid] (data): 3 entries, 3 signatures, 3 rows, all good
    error: no space left on the file system of the store: [id].log: No space left on device (os error 28)
    hint: free some space; reads still work, and writes work again when there is space
    error: /t/big has no value
    exit 0
    ");
}

#[test]
fn s10_full_file_system_leaves_no_half_hook() {
    let Some(flags) = namespace() else { return };
    let home = Home::new();
    let ran = run(
        &home,
        flags,
        r#"
        mkdir "$LATTICE_DATA"
        mount -t tmpfs -o size=8m,mode=700 tmpfs "$LATTICE_DATA"
        export LATTICE_LOG=off
        "$LATTICE" init >/dev/null
        "$LATTICE" up >/dev/null &
        until [ -S "$LATTICE_DATA/run/sock" ]; do sleep 0.05; done
        "$LATTICE" put /in/a 1 >/dev/null
        # So that consumers.db is there, with room in it.
        "$LATTICE" hook add first /in/ -- true >/dev/null
        head -c 9000000 /dev/zero >"$LATTICE_DATA/filler" 2>/dev/null || echo "full"
        "$LATTICE" hook add second /in/ -- true || echo "exit $?"
        "$LATTICE" hook test first --since 1h --dry-run
        "$LATTICE" diff /in/ --from 1h
        rm "$LATTICE_DATA/filler"
        "$LATTICE" hook list | grep -o '^[a-z]*'
        "$LATTICE" hook add second /in/ -- true | grep -o '^[a-z]*'
        "$LATTICE" down >/dev/null
        wait
        "#,
    );
    let told = ran.stdout.lines().collect::<Vec<_>>();
    assert_eq!(told[..2], ["full", "exit 1"], "{ran}");
    assert!(told.contains(&"would run 1 time, 0 failed"), "{ran}");
    assert!(told.contains(&"+ /in/a\t1"), "{ran}");
    assert_eq!(told[told.len() - 2..], ["first", "second"], "{ran}");
    assert!(ran.stderr.contains("No space left"), "{ran}");
    assert_eq!(ran.code, 0, "{ran}");
}
