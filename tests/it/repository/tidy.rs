//! The architecture page, and the test that the repository has this shape.
//!
//! A module names only modules of floors below its own; modules of one floor do not know each
//! other. `lib.rs` and `main.rs` stand above all floors: they say what there is.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// One floor, and what its modules are for.
struct Floor {
    number: u8,
    modules: &'static [&'static str],
    does: &'static str,
}

/// From the roof down. Everything in `src/` is named here; not all that is named exists yet.
const FLOORS: [Floor; 9] = [
    Floor {
        number: 8,
        modules: &["cli"],
        does: "arguments in; output and exit code out",
    },
    Floor {
        number: 7,
        modules: &["daemon"],
        does: "wires the floors; signals; ordered shutdown",
    },
    Floor {
        number: 6,
        modules: &["api"],
        does: "gRPC on the local socket, server and client",
    },
    Floor {
        number: 5,
        modules: &["net", "hooks"],
        does: "peers; commands that run on a change",
    },
    Floor {
        number: 4,
        modules: &["node"],
        does: "identity, data directory, lock, the stores",
    },
    Floor {
        number: 3,
        modules: &["store"],
        does: "the handle and its one writer; replay, watch",
    },
    Floor {
        number: 2,
        modules: &["clock", "log", "state", "bus"],
        does: "time; files of entries; redb; broadcast",
    },
    Floor {
        number: 1,
        modules: &["protocol", "disk", "pace"],
        does: "rules without IO; the few file operations a fault test can fail; turns on a core",
    },
    Floor {
        number: 0,
        modules: &["id", "limits", "wire"],
        does: "names; maxima; generated schemas",
    },
];

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

/// What the rules of floor 1 may not name: files, sockets, clocks, threads, chance.
const IMPURE: [&str; 12] = [
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::path",
    "std::process",
    "std::thread",
    "std::time",
    "tokio",
    "getrandom",
    "rand",
];

#[test]
fn modules_name_only_floors_below() {
    let mut files = 0;
    for (path, text) in sources() {
        files += 1;
        assert_none(&floor_violations(&path, &text));
    }
    assert!(files > 10, "src/ was read");
}

#[test]
fn protocol_is_pure() {
    let mut files = 0;
    for (path, text) in sources().filter(|(path, _)| path.starts_with("src/protocol/")) {
        files += 1;
        assert_none(&impure_names(&path, &text));
    }
    assert!(files > 5, "src/protocol was read");
}

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
fn every_floor_and_module_is_named_once() {
    let mut names = BTreeSet::new();
    for (index, floor) in FLOORS.iter().rev().enumerate() {
        assert_eq!(usize::from(floor.number), index, "floors are in order");
        assert!(!floor.does.is_empty());
        for module in floor.modules {
            assert!(names.insert(module), "{module} has two floors");
        }
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
    let text = fs::read_to_string(root().join("src/limits.rs")).unwrap();
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

/// A rule that a line breaks.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    path: String,
    line: usize,
    what: String,
}

impl Violation {
    fn new(path: &str, token: &Token, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line: token.line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

fn assert_none(violations: &[Violation]) {
    let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
    assert!(lines.is_empty(), "\n{}", lines.join("\n"));
}

fn floor_of(module: &str) -> Option<u8> {
    FLOORS
        .iter()
        .find(|floor| floor.modules.contains(&module))
        .map(|floor| floor.number)
}

/// Returns the module that a file of `src/` belongs to, and its path: `src/store/watch.rs` is
/// `["store", "watch"]`. Empty for the two roots.
fn module_path(path: &str) -> Vec<String> {
    let path = path
        .strip_prefix("src/")
        .unwrap_or(path)
        .trim_end_matches(".rs");
    let mut parts: Vec<String> = path.split('/').map(str::to_owned).collect();
    let is_root = parts.len() == 1 && ["lib", "main"].contains(&parts[0].as_str());
    if is_root || parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

fn floor_violations(path: &str, text: &str) -> Vec<Violation> {
    let module = module_path(path);
    // The roots stand above all floors.
    let Some(own) = module.first() else {
        return Vec::new();
    };
    let Some(floor) = floor_of(own) else {
        let what = format!("module {own} is on no floor: name it in tests/it/tidy.rs");
        return vec![Violation {
            path: path.to_owned(),
            line: 1,
            what,
        }];
    };
    let complaint = |named: &Named| {
        let name = named.path.first().map_or("the whole crate", String::as_str);
        match floor_of(name) {
            _ if name == own => None,
            None => Some(format!("{own} names {name}, which is on no floor")),
            Some(other) if other < floor => None,
            Some(other) => Some(format!(
                "{own} (floor {floor}) names {name} (floor {other})"
            )),
        }
    };
    named_in_crate(&tokens(text), &module, own == "cli")
        .iter()
        .filter_map(|named| Some(Violation::new(path, &named.at, complaint(named)?)))
        .collect()
}

fn impure_names(path: &str, text: &str) -> Vec<Violation> {
    let is_impure = |named: &str| {
        let under = |impure: &str| {
            named
                .strip_prefix(impure)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        IMPURE.iter().any(|impure| under(impure))
    };
    paths(&tokens(text))
        .into_iter()
        .map(|named| (named.path.join("::"), named.at))
        .filter(|(named, _)| is_impure(named))
        .map(|(named, at)| Violation::new(path, &at, format!("protocol names {named}")))
        .collect()
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

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the Rust files of `src/`, as paths from the root with `/`, and their text.
fn sources() -> impl Iterator<Item = (String, String)> {
    files_below(Path::new("src"))
        .into_iter()
        .filter_map(|path| {
            let name = path.to_string_lossy().replace('\\', "/");
            name.ends_with(".rs")
                .then(|| (name, fs::read_to_string(root().join(path)).unwrap()))
        })
}

/// Returns the files that a commit of everything would have; without git, all but the built.
fn tracked_files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output();
    match listed {
        Ok(listed) if listed.status.success() => String::from_utf8(listed.stdout)
            .unwrap()
            .split_terminator('\0')
            .map(PathBuf::from)
            .filter(|path| root().join(path).exists())
            .collect(),
        _no_git => files_below(Path::new("")),
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        if !entry.file_type().unwrap().is_dir() {
            files.push(path);
        } else if ![Path::new("target"), Path::new(".git")].contains(&path.as_path()) {
            files.extend(files_below(&path));
        }
    }
    files.sort();
    files
}

/// A word, a number, `::`, or one other sign; what stands in texts and comments is none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

/// A path that the code names, as far as it is written there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    path: Vec<String>,
    at: Token,
    // The inline modules around it.
    inside: Vec<String>,
}

fn tokens(text: &str) -> Vec<Token> {
    let letters: Vec<char> = text.chars().collect();
    let at = |place: usize| letters.get(place).copied().unwrap_or('\0');
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut found = Vec::new();
    let (mut place, mut line) = (0, 1);
    while place < letters.len() {
        let start = place;
        match (at(place), at(place + 1)) {
            ('/', '/') => {
                while place < letters.len() && at(place) != '\n' {
                    place += 1
                }
            }
            ('/', '*') => place = after_block_comment(&letters, place),
            ('r', '"' | '#') | ('b', 'r') if raw_text_end(&letters, place).is_some() => {
                place = raw_text_end(&letters, place).unwrap();
            }
            ('"', _) => place = after_quoted(&letters, place, '"'),
            // A letter in quotes, not a lifetime.
            ('\'', '\\') => place = after_quoted(&letters, place, '\''),
            ('\'', _) if at(place + 2) == '\'' => place += 3,
            (':', ':') => {
                found.push(Token {
                    text: "::".to_owned(),
                    line,
                });
                place += 2;
            }
            (letter, _) if is_word(letter) => {
                while is_word(at(place)) {
                    place += 1
                }
                let text = letters[start..place].iter().collect();
                found.push(Token { text, line });
            }
            (letter, _) => {
                if !letter.is_whitespace() {
                    found.push(Token {
                        text: letter.to_string(),
                        line,
                    });
                }
                place += 1;
            }
        }
        line += letters[start..place.min(letters.len())]
            .iter()
            .filter(|letter| **letter == '\n')
            .count();
    }
    found
}

fn after_block_comment(letters: &[char], mut place: usize) -> usize {
    let mut depth = 0;
    while place < letters.len() {
        match (letters[place], letters.get(place + 1)) {
            ('/', Some('*')) => (depth, place) = (depth + 1, place + 2),
            ('*', Some('/')) => (depth, place) = (depth - 1, place + 2),
            _inside => place += 1,
        }
        if depth == 0 {
            break;
        }
    }
    place
}

fn after_quoted(letters: &[char], start: usize, quote: char) -> usize {
    let mut place = start + 1;
    while place < letters.len() && letters[place] != quote {
        place += if letters[place] == '\\' { 2 } else { 1 };
    }
    place + 1
}

/// Returns where a raw text that begins at `start` is over; `None` when none begins there.
fn raw_text_end(letters: &[char], start: usize) -> Option<usize> {
    let mut place = start + if letters[start] == 'b' { 2 } else { 1 };
    let hashes = letters[place..]
        .iter()
        .take_while(|letter| **letter == '#')
        .count();
    place += hashes;
    if letters.get(place) != Some(&'"') {
        return None;
    }
    let closing: Vec<char> = ['"'].into_iter().chain(['#'].repeat(hashes)).collect();
    let inside = &letters[place + 1..];
    let length = inside
        .windows(closing.len())
        .position(|window| window == closing)?;
    Some(place + 1 + length + closing.len())
}

/// Returns every path of the code, each branch of a `use` tree as one.
fn paths(tokens: &[Token]) -> Vec<Named> {
    let text = |place: usize| tokens.get(place).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    let mut modules: Vec<Option<String>> = Vec::new();
    let mut place = 0;
    while place < tokens.len() {
        match text(place) {
            "{" => {
                let opens = place >= 2 && text(place - 2) == "mod";
                modules.push(opens.then(|| text(place - 1).to_owned()));
                place += 1;
            }
            "}" => {
                modules.pop();
                place += 1;
            }
            // `::std::time` begins at `std`, as does `std::time`.
            word if starts_word(word) => {
                let inside: Vec<String> = modules.iter().flatten().cloned().collect();
                let end = tree(tokens, place, &[], &inside, &mut found);
                place = end.max(place + 1);
            }
            _sign => place += 1,
        }
    }
    found
}

fn starts_word(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
}

/// Reads `a::b::{c, d::e}` at `place`; returns the place after it.
fn tree(
    tokens: &[Token],
    mut place: usize,
    before: &[String],
    inside: &[String],
    found: &mut Vec<Named>,
) -> usize {
    let text = |place: usize| tokens.get(place).map_or("", |token| token.text.as_str());
    let mut path = before.to_vec();
    let at = tokens[place].clone();
    loop {
        if starts_word(text(place)) || (text(place) == "*" && !path.is_empty()) {
            path.push(text(place).to_owned());
            place += 1;
            if text(place) == "::"
                && (starts_word(text(place + 1)) || "{*".contains(text(place + 1)))
            {
                place += 1;
                continue;
            }
        } else if text(place) == "{" && !path.is_empty() {
            place += 1;
            while !["}", ""].contains(&text(place)) {
                // A comma, or `as name` after a branch.
                let is_branch = (starts_word(text(place)) && text(place) != "as")
                    || ["*", "{"].contains(&text(place));
                match text(place) {
                    "as" => place += 2,
                    _ if is_branch => place = tree(tokens, place, &path, inside, found),
                    _sign => place += 1,
                }
            }
            return place + 1;
        }
        found.push(Named {
            path,
            at,
            inside: inside.to_vec(),
        });
        return place;
    }
}

/// Returns the paths that lead into this crate, without `crate`, `super` and `self`.
fn named_in_crate(tokens: &[Token], module: &[String], in_binary: bool) -> Vec<Named> {
    let resolve = |named: Named| {
        let here: Vec<String> = module.iter().chain(&named.inside).cloned().collect();
        let mut rest = named.path.as_slice();
        let mut base = match rest.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("lattice") if in_binary && rest.len() > 1 => Vec::new(),
            Some("self") if rest.len() > 1 => here,
            Some("super") => here[..here.len().saturating_sub(1)].to_vec(),
            _elsewhere => return None,
        };
        rest = &rest[1..];
        while rest.first().is_some_and(|first| first == "super") {
            base.pop();
            rest = &rest[1..];
        }
        // `crate` alone, in `pub(crate)`, names nothing; `crate::*` and `super` of a floor name all.
        let visibility = rest.is_empty() && base.is_empty();
        base.extend(
            rest.iter()
                .filter(|name| *name != "self" && *name != "*")
                .cloned(),
        );
        (!visibility).then_some(Named {
            path: base,
            ..named
        })
    };
    paths(tokens).into_iter().filter_map(resolve).collect()
}

mod the_checks_fail_when_they_should {
    use super::*;

    fn complaints(path: &str, text: &str) -> Vec<String> {
        floor_violations(path, text)
            .iter()
            .map(Violation::to_string)
            .collect()
    }

    #[test]
    fn any_name_of_a_floor_above_is_refused() {
        let ways = [
            "use crate::store::Store;",
            "use crate::{id::Author, store::Store};",
            "use crate::{\n    id::Author,\n    store::{\n        Store,\n        watch::{Watch},\n    },\n};",
            "use crate::{store};",
            "use crate::{store as other};",
            "use crate::store as other;",
            "pub(crate) use crate::store::*;",
            "fn f() -> crate::store::Store { g() }",
            "fn f() { let x: Vec<crate::store::Store> = Vec::new(); }",
            "fn f() { ::std::mem::drop(crate::store::open()) }",
            "macro_rules! m { () => { $crate::store::open() } }",
            "use super::super::store::Store;",
            "mod tests { use super::super::super::store::Store; }",
            "fn f<'a>(x: &'a str) -> crate::store::Store<'a> { g(x) }",
            "fn f() { g('\"'); crate::store::open(); g('\"') }",
            "fn f() { g(\"//\"); crate::store::open() }",
            "fn f() { g(r#\"\"//\"#); crate::store::open() }",
            "/* /* */ */ use crate::store::Store;",
        ];
        for way in ways {
            let found = complaints("src/log/file.rs", way);
            assert!(!found.is_empty(), "{way}");
            assert!(
                found
                    .iter()
                    .all(|line| line.ends_with("log (floor 2) names store (floor 3)")),
                "{found:?}"
            );
        }
        assert!(!complaints("src/clock.rs", "use super::store::Store;").is_empty());
        assert!(!complaints("src/log/mod.rs", "use super::store::Store;").is_empty());
    }

    #[test]
    fn every_branch_of_a_use_tree_is_seen() {
        let text = "use std::{fs, io::Read};\n\nuse crate::{\n    id::{Author, Seq},\n    api::Server,\n    \
                    cli::{self, put::{Put as P, get}, *},\n    protocol::heads,\n};\n";
        let expected = [
            "src/store/a.rs:5: store (floor 3) names api (floor 6)",
            "src/store/a.rs:6: store (floor 3) names cli (floor 8)",
        ];
        let mut found = complaints("src/store/a.rs", text);
        found.dedup();
        assert_eq!(found, expected);
    }

    #[test]
    fn modules_of_one_floor_are_strangers() {
        assert_eq!(
            complaints("src/state/mod.rs", "use crate::log::Log;"),
            ["src/state/mod.rs:1: state (floor 2) names log (floor 2)"]
        );
        assert!(!complaints("src/id.rs", "use crate::limits::KEY_BYTES_MAX;").is_empty());
        assert!(!complaints("src/net/mod.rs", "use crate::hooks::Hook;").is_empty());
    }

    #[test]
    fn whole_crate_and_unknown_modules_are_refused() {
        assert_eq!(
            complaints("src/log/mod.rs", "use crate::Node;"),
            ["src/log/mod.rs:1: log names Node, which is on no floor"]
        );
        assert_eq!(
            complaints("src/log/mod.rs", "use crate::*;"),
            ["src/log/mod.rs:1: log names the whole crate, which is on no floor"]
        );
        assert_eq!(complaints("src/util.rs", "").len(), 1);
        assert_eq!(complaints("src/common/mod.rs", "").len(), 1);
    }

    #[test]
    fn binary_names_the_library() {
        assert!(
            complaints(
                "src/cli/put.rs",
                "use lattice::store::Store; use crate::cli::Out;"
            )
            .is_empty()
        );
        assert!(!complaints("src/cli/put.rs", "use lattice::util::x;").is_empty());
        assert!(complaints("src/main.rs", "use lattice::store::Store; mod cli;").is_empty());
    }

    #[test]
    fn floors_below_own_names_and_texts_are_allowed() {
        let text = r##"
            //! See [`crate::store`]. use crate::store::Store;
            use std::{collections::BTreeMap, fs::File};
            use crate::{disk::Disk, id::{Author, Seq}, log::frame::{self, Frame}, protocol::*};
            pub(crate) struct Log; pub(super) fn f() {} pub(in crate::log) fn g() {}
            /* crate::store */ // crate::store
            const TEXT: &str = "crate::store \" crate::store";
            const RAW: &str = r#"crate::store "quoted" crate::store"#;
            const BYTES: &[u8] = b"crate::store";
            const QUOTE: char = '"'; const OTHER: char = '\'';
            fn store<'store>(store: &'store str) { store::not_of_this_crate(); self::frame::read() }
            mod tests { use super::*; use super::frame; use crate::log::Log; }
        "##;
        assert_eq!(complaints("src/log/mod.rs", text), Vec::<String>::new());
        assert!(complaints("src/log/file.rs", "use super::{frame, Log};").is_empty());
    }

    #[test]
    fn impure_names_are_refused() {
        let impure = [
            "use std::time::Duration;",
            "use std::{fmt, time::{Duration, Instant}};",
            "use std::{\n    fmt,\n    fs,\n};",
            "fn f() { std::thread::sleep(x) }",
            "fn f() { ::std::net::lookup() }",
            "use tokio::sync::mpsc;",
            "use getrandom;",
            "fn f() { rand::random() }",
        ];
        for text in impure {
            assert_eq!(
                impure_names("src/protocol/a.rs", text).len(),
                impure_count(text),
                "{text}"
            );
        }
        let pure = "use std::{fmt, sync::Arc}; // std::time\nfn f(time: u64, random: u64) {}";
        assert!(impure_names("src/protocol/a.rs", pure).is_empty());
    }

    fn impure_count(text: &str) -> usize {
        if text.contains("Instant") { 2 } else { 1 }
    }

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
