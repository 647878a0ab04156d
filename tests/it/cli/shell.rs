//! The shell, driven by a script.

use super::harness::Home;

#[test]
fn script_runs_line_by_line() {
    let home = Home::initialised();
    let script = "\
put /t/a 'two words'
# a comment, and an empty line

lattice list /t/
put /t/b
list /t/ --json
store create notes
--store notes put /t/c 3
--store notes list /t/
get /t/none
quit
put /t/never 1
";
    insta::assert_snapshot!(home.feed(&["shell"], script), @r#"
    [id]
    /t/a	two words
    {"type":"item","key":"/t/a","value":"two words","entry":"[id]","author":"[id]","seq":1,"wall_ms":[ms],"counter":[n],"heads":["[id]"],"conflict":false}
    [uuid] (notes)
    [id]
    /t/c	3
    error: the following required arguments were not provided:
      <VALUE>
    hint: see `lattice --help`
    error: /t/none has no value
    exit 3
    "#);
    assert_eq!(home.run(&["get", "/t/never"]).code, 3);
}

#[test]
fn last_line_decides_the_exit_code() {
    let home = Home::initialised();
    assert_eq!(home.feed(&["shell"], "get /t/none\nput /t/a 1\n").code, 0);
    assert_eq!(home.feed(&["shell"], "put /t/a 1\nget /t/none").code, 3);
    assert_eq!(home.feed(&["shell"], "put 'open\n").code, 2);
    // Commands in one line, as in sh; the quoted `;` is part of the value.
    let ran = home.feed(&["shell"], "put /t/b 'x;y'; get /t/b; quit; get /t/none\n");
    assert_eq!(
        (ran.code, ran.raw.lines().nth(1)),
        (0, Some("x;y")),
        "{ran}"
    );
    assert_eq!(home.feed(&["shell"], "up\n").code, 2);
}

#[test]
fn shell_without_a_node_is_the_node() {
    use std::io::Write as _;

    let home = Home::initialised();
    let mut child = home
        .command(&["shell"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // The socket is there when the first line was answered.
    stdin.write_all(b"put /t/a 1\n").unwrap();
    let deadline = std::time::Instant::now() + super::harness::PATIENCE;
    while home.run(&["get", "/t/a"]).code != 0 {
        assert!(std::time::Instant::now() < deadline);
    }
    let put = home.run(&["put", "/t/b", "2"]);
    assert!(put.stderr.is_empty(), "{put}");
    assert_eq!(home.run(&["down"]).code, 0);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(stdin);
}
