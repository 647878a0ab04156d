//! The architecture page: which module stands on which floor, and what it may name.
//!
//! A module names only modules of floors below its own; modules of one floor do not know each
//! other. `lib.rs` and `main.rs` stand above all floors: they list the modules.

use std::collections::BTreeSet;

use super::{
    graph::Graph,
    source::{Violation, assert_none, module_path, sources},
    tokens::{Named, named_in_crate, paths, tokens},
};

/// One floor, and the work of its modules.
struct Floor {
    number: u8,
    modules: &'static [&'static str],
    does: &'static str,
}

/// The modules of `src/`, from the top floor down. Modules may be named before they exist.
const FLOORS: [Floor; 9] = [
    Floor {
        number: 8,
        modules: &["cli"],
        does: "reads arguments; prints output; chooses the exit code",
    },
    Floor {
        number: 7,
        modules: &["daemon"],
        does: "starts the floors below, handles signals, and stops in order",
    },
    Floor {
        number: 6,
        modules: &["api"],
        does: "serves gRPC on the local socket",
    },
    Floor {
        number: 5,
        modules: &["net", "hooks"],
        does: "talks to peers; runs commands when a key changes",
    },
    Floor {
        number: 4,
        modules: &["node"],
        does: "owns the identity, the data directory, its lock, and the stores",
    },
    Floor {
        number: 3,
        modules: &["store", "client"],
        does: "takes entries in through one writer; reads, watches and consumers; the same calls to a node in another process",
    },
    Floor {
        number: 2,
        modules: &["clock", "log", "state", "bus", "calls", "light", "vault"],
        does: "reads the wall clock; keeps logs in files and heads in redb; broadcasts changes; names what calls of a store take and return; checks proofs; fetches the key",
    },
    Floor {
        number: 1,
        modules: &["protocol", "disk", "pace", "permissions"],
        does: "decides by rules without IO; wraps the file operations that a fault test can fail; shares a core fairly; checks owner and mode of files",
    },
    Floor {
        number: 0,
        modules: &["id", "limits", "manual", "wire", "support"],
        does: "defines ids and limits; holds the manual and the generated messages; makes mutants, in tests only",
    },
];

/// The modules inside a folder of `src/`, in floors of their own.
struct SubFloors {
    folder: &'static str,
    floors: &'static [(u8, &'static [&'static str])],
}

/// From the top floor down, as in `FLOORS`, and by the same rule. The folder's own `mod.rs` stands
/// above them.
const SUB_FLOORS: [SubFloors; 1] = [SubFloors {
    folder: "store",
    floors: &[
        (
            7,
            &[
                "read",
                "replication",
                "base_transfer",
                "base_wish",
                "json",
                "finality",
                "proof",
                "maintenance",
            ],
        ),
        (6, &["store"]),
        (5, &["consumers"]),
        (4, &["writer", "watch"]),
        (3, &["item", "taken", "write_pause"]),
        (2, &["shared", "write"]),
        (
            1,
            &["config", "error", "offered_base", "outbox", "state_root"],
        ),
    ],
}];

/// `protocol` names none of these: no files, sockets, clocks, threads or random source.
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
fn modules_of_a_folder_name_only_sub_floors_below() {
    let graph = Graph::of(&sources().collect::<Vec<_>>());
    for folder in &SUB_FLOORS {
        assert!(graph.modules_below(folder.folder).count() > 5);
        assert_none(&sub_floor_violations(folder, &graph));
    }
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
fn every_floor_and_module_is_named_once() {
    let mut names = BTreeSet::new();
    for (index, floor) in FLOORS.iter().rev().enumerate() {
        assert_eq!(usize::from(floor.number), index, "floors are in order");
        assert!(!floor.does.is_empty());
        for module in floor.modules {
            assert!(names.insert(module), "{module} has two floors");
        }
    }
    for folder in &SUB_FLOORS {
        let mut names = BTreeSet::new();
        for (index, (number, modules)) in folder.floors.iter().rev().enumerate() {
            assert_eq!(usize::from(*number), index + 1, "sub-floors are in order");
            for module in *modules {
                assert!(names.insert(module), "{module} has two sub-floors");
            }
        }
    }
}

fn floor_of(module: &str) -> Option<u8> {
    FLOORS
        .iter()
        .find(|floor| floor.modules.contains(&module))
        .map(|floor| floor.number)
}

fn floor_violations(path: &str, text: &str) -> Vec<Violation> {
    let module = module_path(path);
    // The roots stand above all floors.
    let Some(own) = module.first() else {
        return Vec::new();
    };
    let Some(floor) = floor_of(own) else {
        let what = format!("module {own} is on no floor: name it in tests/it/repository/floors.rs");
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

fn sub_floor_violations(folder: &SubFloors, graph: &Graph) -> Vec<Violation> {
    let floor_of = |module: &str| {
        let mut floors = folder.floors.iter();
        let found = floors.find(|(_, modules)| modules.contains(&module));
        found.map(|(number, _)| *number)
    };
    let mut found = Vec::new();
    for (module, path) in graph.modules_below(folder.folder) {
        let own = &module[1];
        if floor_of(own).is_none() {
            found.push(Violation {
                path: path.to_owned(),
                line: 1,
                what: format!("{}/{own} is on no sub-floor", folder.folder),
            });
        }
    }
    for edge in graph.edges() {
        let below = |module: &[String]| module.first().is_some_and(|first| first == folder.folder);
        if !below(&edge.from) || !below(&edge.to) || edge.from.len() < 2 {
            continue;
        }
        let own = &edge.from[1];
        let Some(other) = edge.to.get(1..).and_then(|rest| rest.first()) else {
            continue;
        };
        let (Some(floor), Some(named)) = (floor_of(own), floor_of(other)) else {
            continue;
        };
        if own != other && named >= floor {
            let what = format!("{own} (sub-floor {floor}) names {other} (sub-floor {named})");
            found.push(Violation::new(&edge.path, &edge.at, what));
        }
    }
    found
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

    const FOLDER: SubFloors = SubFloors {
        folder: "house",
        floors: &[(2, &["roof"]), (1, &["wall", "door"])],
    };

    fn sub_complaints(files: &[(&str, &str)]) -> Vec<String> {
        let files = files
            .iter()
            .map(|(path, text)| ((*path).into(), (*text).into()));
        sub_floor_violations(&FOLDER, &Graph::of(&files.collect::<Vec<_>>()))
            .iter()
            .map(Violation::to_string)
            .collect()
    }

    #[test]
    fn a_sub_floor_above_or_beside_is_refused() {
        let found = sub_complaints(&[
            (
                "src/house/mod.rs",
                "mod roof; mod wall; mod door; pub use roof::Roof;",
            ),
            ("src/house/roof.rs", "use super::{wall::Wall, door::Door};"),
            ("src/house/wall/mod.rs", "mod brick;"),
            (
                "src/house/wall/brick.rs",
                "use crate::house::Roof;\nuse super::super::door::Door;",
            ),
            (
                "src/house/door.rs",
                "use crate::other::X; mod tests { use super::*; }",
            ),
            ("src/other.rs", "use crate::house::Roof;"),
        ]);
        let expected = [
            "src/house/wall/brick.rs:1: wall (sub-floor 1) names roof (sub-floor 2)",
            "src/house/wall/brick.rs:2: wall (sub-floor 1) names door (sub-floor 1)",
        ];
        assert_eq!(found, expected);
        let found = sub_complaints(&[("src/house/mod.rs", ""), ("src/house/cellar.rs", "")]);
        assert_eq!(
            found,
            ["src/house/cellar.rs:1: house/cellar is on no sub-floor"]
        );
    }
}
