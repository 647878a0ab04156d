//! No cycles: between the files of a folder, names lead one way only.
//!
//! A folder inside a folder is one node of it, and its own files are looked at among themselves. A
//! `mod.rs` is no node: its files may name it, and it lists them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    graph::{Edge, Graph},
    source::sources,
};

/// Files or folders of one folder that can be reached from each other.
#[derive(Debug)]
struct Cycle {
    folder: String,
    members: BTreeSet<String>,
    edges: Vec<Edge>,
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<&str> = self.members.iter().map(String::as_str).collect();
        write!(f, "src/{}: {}", self.folder, members.join(", "))?;
        for edge in &self.edges {
            let (path, line) = (&edge.path, edge.at.line);
            write!(f, "\n    {path}:{line} names {}", edge.to.join("::"))?;
        }
        Ok(())
    }
}

#[test]
fn files_of_a_folder_have_no_cycles() {
    let graph = Graph::of(&sources().collect::<Vec<_>>());
    assert!(graph.edges().len() > 500, "src/ was read");
    let cycles: Vec<String> = cycles(&graph).iter().map(Cycle::to_string).collect();
    assert!(
        cycles.is_empty(),
        "{} cycles:\n{}",
        cycles.len(),
        cycles.join("\n")
    );
}

fn cycles(graph: &Graph) -> Vec<Cycle> {
    // By folder: which of its files and folders name which.
    let mut folders: BTreeMap<&[String], Vec<(&str, &str, &Edge)>> = BTreeMap::new();
    for edge in graph.edges() {
        let pairs = edge.from.iter().zip(&edge.to);
        let shared = pairs.take_while(|(from, to)| from == to).count();
        // One of them is the other's folder.
        if let (Some(from), Some(to)) = (edge.from.get(shared), edge.to.get(shared)) {
            let folder = folders.entry(&edge.from[..shared]).or_default();
            folder.push((from.as_str(), to.as_str(), edge));
        }
    }
    let mut found = Vec::new();
    for (folder, edges) in folders {
        let reached: BTreeMap<&str, BTreeSet<&str>> = edges
            .iter()
            .map(|(from, ..)| (*from, reached(from, &edges)))
            .collect();
        let both_ways = |a: &str, b: &str| {
            let reaches = |a: &str, b: &str| reached.get(a).is_some_and(|all| all.contains(b));
            reaches(a, b) && reaches(b, a)
        };
        let mut done: BTreeSet<&str> = BTreeSet::new();
        for start in reached.keys() {
            let members = reached.keys().filter(|other| both_ways(start, other));
            let members: BTreeSet<&str> = members.copied().collect();
            if members.is_empty() || !done.insert(members.first().copied().unwrap_or_default()) {
                continue;
            }
            let inside = |(from, to, _): &&(&str, &str, &Edge)| {
                members.contains(from) && members.contains(to)
            };
            found.push(Cycle {
                folder: folder.join("/"),
                edges: edges
                    .iter()
                    .filter(inside)
                    .map(|(.., edge)| (*edge).clone())
                    .collect(),
                members: members.into_iter().map(str::to_owned).collect(),
            });
        }
    }
    found
}

fn reached<'a>(start: &'a str, edges: &[(&'a str, &'a str, &Edge)]) -> BTreeSet<&'a str> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![start]);
    while let Some(from) = next.pop() {
        for (_, to, _) in edges.iter().filter(|(named_in, ..)| *named_in == from) {
            if reached.insert(*to) {
                next.push(to);
            }
        }
    }
    reached
}

mod the_check_fails_when_it_should {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let files = files
            .iter()
            .map(|(path, text)| ((*path).into(), (*text).into()));
        cycles(&Graph::of(&files.collect::<Vec<_>>()))
            .iter()
            .map(Cycle::to_string)
            .collect()
    }

    #[test]
    fn two_files_that_name_each_other_are_found() {
        let expected =
            ["src/log: a, b\n    src/log/a.rs:2 names log::b\n    src/log/b.rs:1 names log::a"];
        for (a, b) in [
            ("use std::fmt;\nuse super::b::B;", "use super::a::A;"),
            (
                "\nfn f() { crate::log::b::g() }",
                "use super::{a::{self, A}};",
            ),
            ("\nuse super::{B as C, D};", "use crate::log::A;"),
        ] {
            let files = [
                (
                    "src/log/mod.rs",
                    "mod a; mod b; pub use a::A; pub(crate) use self::b::{B, D};",
                ),
                ("src/log/a.rs", a),
                ("src/log/b.rs", b),
            ];
            assert_eq!(found(&files), expected, "{a}");
        }
    }

    #[test]
    fn cycles_over_several_files_and_folders_are_found() {
        let files = [
            ("src/lib.rs", "pub mod store; pub use store::Store;"),
            (
                "src/store/mod.rs",
                "pub use store::Store; pub use read::Item;",
            ),
            ("src/store/store.rs", "use super::read::get;"),
            ("src/store/read/mod.rs", "pub use item::Item;"),
            (
                "src/store/read/get.rs",
                "use super::item::Item; use super::super::shared::X;",
            ),
            ("src/store/read/item.rs", "use super::scan::S;"),
            ("src/store/read/scan.rs", "use super::Item;"),
            ("src/store/shared.rs", "use crate::Store;"),
        ];
        let found = found(&files);
        let heads: Vec<&str> = found
            .iter()
            .map(|cycle| cycle.lines().next().unwrap())
            .collect();
        assert_eq!(
            heads,
            [
                "src/store: read, shared, store",
                "src/store/read: item, scan"
            ]
        );
    }

    #[test]
    fn names_that_lead_one_way_are_allowed() {
        let files = [
            (
                "src/log/mod.rs",
                "mod a; mod b; use a::A; pub struct Log(A); #[cfg(test)] mod tests;",
            ),
            (
                "src/log/a.rs",
                "use super::{Log, b::B}; pub(super) struct A;",
            ),
            (
                "src/log/b.rs",
                "use super::Log; #[cfg(test)] mod tests { use super::super::a::A; }",
            ),
            ("src/log/tests.rs", "use super::{a::A, b::B};"),
            ("src/log/c.rs", "//! See [`super::d`]. use super::d::D;"),
            (
                "src/log/d.rs",
                "use super::c::C; #[cfg(test)] use super::tests;",
            ),
        ];
        assert_eq!(found(&files), Vec::<String>::new());
    }
}
