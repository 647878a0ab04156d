//! The shape of the repository: the top level, the length of files, the place of tests and of the
//! wall clock.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{
    source::{Violation, assert_none, files_below, root, sources, tracked_files},
    tokens::tokens,
};

const TOP_LEVEL: [&str; 9] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "examples",
    "proto",
    "src",
    "tests",
];

const FILE_LINES_MAX: usize = 600;

#[test]
fn wall_clock_is_read_in_one_place() {
    for (path, text) in sources().filter(|(path, _)| path != "src/clock.rs") {
        let reads = tokens(&text)
            .into_iter()
            .filter(|token| token.text == "SystemTime");
        assert_none(
            &reads
                .map(|token| Violation::new(&path, &token, "names SystemTime"))
                .collect::<Vec<_>>(),
        );
    }
}

#[test]
fn files_are_short() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(
            lines <= FILE_LINES_MAX,
            "{path} has {lines} lines, at most {FILE_LINES_MAX}: split it by nouns"
        );
    }
}

#[test]
fn every_limit_says_why() {
    let read = |path| fs::read_to_string(root().join(path)).unwrap();
    let text = read("src/limits.rs") + &read("src/limits/peers.rs") + &read("src/limits/client.rs");
    assert!(text.matches("pub const").count() > 20, "limits.rs was read");
    assert_eq!(undocumented_limits(&text), Vec::<String>::new());
}

#[test]
fn top_level_matches_the_design() {
    let found: BTreeSet<String> = tracked_files()
        .iter()
        .map(|path| {
            path.components()
                .next()
                .unwrap()
                .as_os_str()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert!(found.contains("src"));
    let strangers: Vec<&String> = found.iter().filter(|name| !is_at_home(name)).collect();
    assert!(
        strangers.is_empty(),
        "at the top level, and not named in the design: {strangers:?}"
    );
}

#[test]
fn no_left_overs_and_no_local_paths() {
    let mut files = 0;
    for path in tracked_files() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        files += 1;
        assert_none(&left_overs(&path.display().to_string(), &text));
    }
    assert!(files > 20, "files were read");
}

#[test]
fn every_test_file_is_registered() {
    let mut files = 0;
    for path in files_below(Path::new("tests/it")) {
        let Some(registered_in) = registered_in(&path) else {
            continue;
        };
        files += 1;
        let module = module_name(&path);
        let text = fs::read_to_string(root().join(&registered_in)).unwrap_or_default();
        assert!(
            is_registered(&module, &text),
            "{} is not in {}: its tests do not run",
            path.display(),
            registered_in.display()
        );
    }
    assert!(files > 80, "tests/it was read");
}

/// Returns the file that must have a `mod` line for the test file at `path`; `None` for what is no
/// module.
fn registered_in(path: &Path) -> Option<PathBuf> {
    if path.extension()? != "rs" || path.ends_with("tests/it/main.rs") {
        return None;
    }
    let mut folder = path.parent()?;
    if path.file_name()? == "mod.rs" {
        folder = folder.parent()?;
    }
    let name = if folder == Path::new("tests/it") {
        "main.rs"
    } else {
        "mod.rs"
    };
    Some(folder.join(name))
}

/// `a/b.rs` and `a/b/mod.rs` are module `b`.
fn module_name(path: &Path) -> String {
    let own = if path.ends_with("mod.rs") {
        path.parent().unwrap()
    } else {
        path
    };
    own.file_stem().unwrap().to_string_lossy().into_owned()
}

fn is_registered(module: &str, text: &str) -> bool {
    let names_it = |line: &str| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        line == format!("mod {module};")
    };
    text.lines().any(names_it)
}

fn undocumented_limits(text: &str) -> Vec<String> {
    let mut documented = false;
    let mut undocumented = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("pub const") && !documented {
            undocumented.push(line.to_owned());
        }
        documented = line.starts_with("///") || (documented && line.starts_with("#["));
    }
    undocumented
}

fn is_at_home(name: &str) -> bool {
    name.starts_with('.') || TOP_LEVEL.contains(&name)
}

fn left_overs(path: &str, text: &str) -> Vec<Violation> {
    // Put together here, so that this file does not name them.
    let undone = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X:"],
        ["todo", "!("],
        ["unimplemented", "!("],
    ];
    let places = [
        ["/ho", "me/"],
        ["/ro", "ot/"],
        ["/wo", "rk/"],
        ["/Us", "ers/"],
    ];
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut complain = |what: String| {
            found.push(Violation {
                path: path.to_owned(),
                line: index + 1,
                what,
            });
        };
        for word in undone.map(|halves| halves.concat()) {
            if line.contains(&word) {
                complain(format!("{word} is left"));
            }
        }
        for place in places.map(|halves| halves.concat()) {
            // Not where it is the middle of a longer path or an address.
            let begins = |at: usize| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|before| before.is_alphanumeric() || "._-~}".contains(before))
            };
            if line.match_indices(&place).any(|(at, _)| begins(at)) {
                complain(format!("{place} is a path of one machine"));
            }
        }
    }
    found
}

mod the_checks_fail_when_they_should {
    use super::*;

    #[test]
    fn limits_without_a_reason_are_found() {
        let text = "/// Why.\npub const A: u8 = 1;\npub const B: u8 = 2;\n/// Why.\n#[x]\npub const C: u8 = 3;\n\n// No.\npub const D: u8 = 4;";
        assert_eq!(
            undocumented_limits(text),
            ["pub const B: u8 = 2;", "pub const D: u8 = 4;"]
        );
    }

    #[test]
    fn left_overs_are_found() {
        let place = ["/ho", "me/"].concat();
        let undone = ["// TO", "DO later"].concat();
        let text = format!(
            "fine\n{undone}\nlet x = \"{place}a\";\nhttps://example.org{place}a\n{place}\n"
        );
        let lines: Vec<usize> = left_overs("a", &text)
            .iter()
            .map(|found| found.line)
            .collect();
        assert_eq!(lines, [2, 3, 5]);
    }

    #[test]
    fn file_is_registered_in_the_folder_above() {
        let registered = |path: &str| registered_in(Path::new(path));
        let main = Some(PathBuf::from("tests/it/main.rs"));
        assert_eq!(registered("tests/it/a/mod.rs"), main);
        assert_eq!(registered("tests/it/a.rs"), main);
        assert_eq!(registered("tests/it/main.rs"), None);
        assert_eq!(registered("tests/it/threats.md"), None);
        let folder = Some(PathBuf::from("tests/it/a/mod.rs"));
        assert_eq!(registered("tests/it/a/b.rs"), folder);
        assert_eq!(registered("tests/it/a/b/mod.rs"), folder);
        assert_eq!(module_name(Path::new("tests/it/a/b/mod.rs")), "b");
        assert_eq!(module_name(Path::new("tests/it/a/b.rs")), "b");
        assert!(is_registered("b", "mod a;\npub mod b;\n"));
        assert!(!is_registered("b", "// mod b;\nmod bb;\nuse b;\n"));
    }

    #[test]
    fn top_level_strangers_are_found() {
        assert!(is_at_home("src") && is_at_home(".ci") && is_at_home("LICENSE-MIT"));
        assert!(!is_at_home("scripts") && !is_at_home("notes.md") && !is_at_home("build.rs"));
    }
}
