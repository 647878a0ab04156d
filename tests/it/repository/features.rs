//! Features: a program that only talks to a node builds nothing of the node.

use std::{collections::BTreeSet, fs, process::Command};

use super::source::root;

/// Lines of `cargo tree` for the feature `client`, at most: each is a crate, or one named again.
const CLIENT_CRATES_MAX: usize = 90;

/// Modules that the feature `client` builds.
const OF_CLIENT: [&str; 9] = [
    "architecture",
    "calls",
    "client",
    "id",
    "light",
    "limits",
    "manual",
    "protocol",
    "wire",
];

/// Crates that only a node needs.
const OF_NODE: [&str; 8] = [
    "iroh",
    "redb",
    "reqwest",
    "rustix",
    "rustls",
    "serde_json",
    "hyper",
    "clap",
];

#[test]
fn client_needs_few_crates_and_none_of_the_node() {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--locked", "--offline", "-e", "normal"])
        .args(["--no-default-features", "--features", "client"])
        .args(["--prefix", "none"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let lines: BTreeSet<&str> = text.lines().collect();
    assert!(lines.len() > 40, "the tree was read: {text}");
    assert!(
        lines.len() <= CLIENT_CRATES_MAX,
        "{} lines, at most {CLIENT_CRATES_MAX}: {lines:#?}",
        lines.len()
    );
    let crates: BTreeSet<&str> = lines.iter().filter_map(|it| it.split(' ').next()).collect();
    let found: Vec<_> = OF_NODE.iter().filter(|it| crates.contains(*it)).collect();
    assert!(found.is_empty(), "crates of the node: {found:?}");
}

#[test]
fn client_builds_no_floor_of_the_node() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    assert_eq!(modules_of_client(&text), BTreeSet::from(OF_CLIENT));
}

#[test]
fn a_module_without_a_feature_is_found() {
    let text = "pub mod id;\n#[cfg(feature = \"node\")]\npub mod log;\n#[cfg(feature = \"client\")]\n\
                pub mod client;\nmod pace;\nmod architecture {}\n#[cfg(test)]\nmod support {";
    let expected = BTreeSet::from(["architecture", "client", "id", "pace"]);
    assert_eq!(modules_of_client(text), expected);
}

/// Returns the modules of a `lib.rs` that have no feature, or the feature `client`.
fn modules_of_client(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut is_built = true;
    for line in text.lines() {
        if line.starts_with("#[cfg(") {
            is_built = line == "#[cfg(feature = \"client\")]";
            continue;
        }
        // Other attributes stand between.
        if line.starts_with("#[") || line.starts_with("    ") || line == ")]" {
            continue;
        }
        let line = line.strip_prefix("pub ").unwrap_or(line);
        if let Some(name) = line.strip_prefix("mod ")
            && is_built
        {
            found.insert(name.trim_end_matches([';', '{', '}', ' ']));
        }
        is_built = true;
    }
    found
}
