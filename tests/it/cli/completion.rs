//! Completion in shells: the completer is asked as bash, zsh and fish ask it, and by a real bash.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::{harness::Home, mesh::soon};

/// Asks for the candidates of the last word.
fn complete(home: &Home, shell: &str, words: &[&str]) -> Vec<String> {
    let mut command = home.command(&[&["--", "lattice"], words].concat());
    command
        .env("LATTICE_COMPLETE", shell)
        .env("_CLAP_IFS", "\n")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string());
    let output = command.output().unwrap();
    assert!(output.stderr.is_empty(), "{words:?}: {output:?}");
    assert!(output.status.success(), "{words:?}: {output:?}");
    let candidates = String::from_utf8(output.stdout).unwrap();
    // Behind the candidate, fish and zsh have what the candidate is.
    let name = |line: &str| line.split(['\t', ':']).next().unwrap().to_owned();
    candidates.lines().map(name).collect()
}

fn filled() -> Home {
    let home = Home::new();
    home.run(&["init", "--name", "attic"]).ok();
    home
}

fn fill(home: &Home) {
    for key in ["/config/a", "/config/b", "/jobs/1", "/with space"] {
        home.run(&["put", key, "x"]).ok();
    }
    home.run(&["store", "create", "notes"]).ok();
    home.run(&["--store", "notes", "put", "/in/notes", "x"])
        .ok();
    home.run(&["consumer", "create", "billing"]).ok();
    home.run(&["hook", "add", "deploy", "/d/", "--", "true"])
        .ok();
}

#[test]
fn names_that_the_node_knows_are_completed() {
    let home = filled();
    let _node = home.up();
    fill(&home);
    for shell in ["bash", "zsh", "fish"] {
        for (words, expected) in [
            (&["get", "/c"][..], &["/config/"][..]),
            (&["get", "/config/"], &["/config/a", "/config/b"]),
            (&["watch", "/jobs/1", "/con"], &["/config/"]),
            (&["get", "/w"], &[]),
            (&["--store", "no"], &["notes"]),
            (&["store", "use", "n"], &["notes"]),
            (&["--store", "notes", "get", "/"], &["/in/"]),
            (&["log", "at"], &["attic"]),
            (&["watch", "--author", "at"], &["attic"]),
            (&["hook", "logs", "d"], &["deploy"]),
            (&["hook", "add", "d"], &[]),
            (&["consumer", "next", "b"], &["billing"]),
            (&["consumer", "create", "b"], &[]),
            // The grammar.
            (&["hist"], &["history"]),
            (&["get", "--key-b"], &["--key-base64"]),
        ] {
            // The node has 80 ms for an answer, which other tests may take.
            soon(&format!("{shell}: {words:?}: {expected:?}"), || {
                complete(&home, shell, words) == expected
            });
        }
    }
    let other = Home::new();
    let data = home.data();
    let words = ["--data-dir", data.to_str().unwrap(), "get", "/c"];
    soon("the directory is that of the line", || {
        complete(&other, "bash", &words) == ["/config/"]
    });
}

#[test]
fn candidates_are_few() {
    let home = filled();
    let _node = home.up();
    let lines: String = (0..1000).map(|n| format!("/many/{n:04}\tx\n")).collect();
    home.feed(&["put", "--stdin", "--format", "tsv"], lines)
        .ok();
    soon("200 of them are listed", || {
        complete(&home, "bash", &["get", "/many/"]).len() == 200
    });
}

#[test]
fn no_node_is_started() {
    let none = Home::new();
    assert!(complete(&none, "bash", &["get", "/"]).is_empty());
    assert!(!none.data().exists(), "nothing is made");
    let home = filled();
    home.run(&["put", "/config/a", "x"]).ok();
    for words in [&["get", "/"][..], &["--store", "d"], &["log", "at"]] {
        assert!(complete(&home, "bash", words).is_empty(), "{words:?}");
    }
    assert!(!home.data().join("run/sock").exists());
    // Commands need no node.
    assert_eq!(complete(&home, "bash", &["hist"]), ["history"]);
}

#[test]
fn bash_completes_keys() {
    let mut asked = Command::new("bash");
    asked.arg("--version").stdout(Stdio::null());
    if !asked.status().is_ok_and(|status| status.success()) {
        eprintln!("no bash: skipped");
        return;
    }
    let home = filled();
    let _node = home.up();
    fill(&home);
    let binary = Path::new(env!("CARGO_BIN_EXE_lattice")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let text = r#"
        source <(lattice completions bash)
        complete -p lattice
        COMP_WORDS=(lattice get /config/) COMP_CWORD=2 COMP_TYPE=9
        _clap_complete_lattice lattice /config/ get
        printf '<%s>' "${COMPREPLY[@]}"
    "#;
    soon("bash has the keys", || {
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", text])
            .env("PATH", format!("{}:{path}", binary.display()))
            .env("LATTICE_DATA", home.data());
        let output = bash.output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(
            printed.contains("-F _clap_complete_lattice lattice"),
            "{printed}"
        );
        printed.ends_with("</config/a></config/b>")
    });
}
