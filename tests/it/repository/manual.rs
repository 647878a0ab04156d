//! The manual in `src/manual` and the README: every page is listed, and every link leads to a file.

use std::{collections::BTreeSet, fs, path::Path};

use lattice::manual::PAGES;

use super::source::{Violation, assert_none, files_below, root};

const FOLDER: &str = "src/manual";
const README_LINES_MAX: usize = 150;
const COLUMNS_MAX: usize = 100;

#[test]
fn every_page_is_listed() {
    let files = files_below(Path::new(FOLDER));
    let found: BTreeSet<String> = files
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let listed: BTreeSet<String> = PAGES.iter().map(|page| page.name.to_owned()).collect();
    assert_eq!(found, listed);
    let links = fs::read_to_string(root().join(FOLDER).join("links.txt")).unwrap();
    let expected: Vec<String> = listed
        .iter()
        .map(|name| format!("[{name}]: crate::manual::{name}"))
        .collect();
    assert_eq!(links.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn pages_begin_with_a_title_and_a_sentence() {
    for page in PAGES {
        let mut parts = page.text.split("\n\n");
        let title = parts.next().unwrap_or_default();
        let sentence = parts.next().unwrap_or_default();
        assert!(
            title.starts_with("# ") && title.lines().count() == 1,
            "{title}"
        );
        assert!(
            sentence.ends_with('.') && sentence.len() < 200,
            "{}: {sentence}",
            page.name
        );
        assert!(
            !sentence.trim_end_matches('.').contains(". "),
            "{}: {sentence}",
            page.name
        );
        assert!(page.summary.len() <= 60, "{}: {}", page.name, page.summary);
    }
}

#[test]
fn lines_of_the_manual_and_the_readme_are_short() {
    for (path, text) in texts() {
        assert_none(&long_lines(&path, &text));
    }
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let lines = readme.lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines");
}

#[test]
fn links_lead_to_files() {
    let mut links = 0;
    for (path, text) in texts() {
        links += targets(&text).len();
        assert_none(&dead_links(&path, &text));
    }
    assert!(links > 60, "{links} links were read");
}

#[test]
fn readme_leads_to_every_page() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for page in PAGES {
        let link = format!("({FOLDER}/{}.md", page.name);
        assert!(
            readme.contains(&link),
            "README.md has no link to {}",
            page.name
        );
    }
}

/// Returns the README and the pages, with their paths.
fn texts() -> impl Iterator<Item = (String, String)> {
    let pages = PAGES
        .iter()
        .map(|page| format!("{FOLDER}/{}.md", page.name));
    let paths = pages.chain(["README.md".to_owned()]);
    paths.map(|path| {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        (path, text)
    })
}

/// Rows of tables cannot be wrapped.
fn long_lines(path: &str, text: &str) -> Vec<Violation> {
    let lines = text.lines().enumerate();
    let long =
        lines.filter(|(_, line)| !line.starts_with('|') && line.chars().count() > COLUMNS_MAX);
    long.map(|(index, line)| Violation {
        path: path.to_owned(),
        line: index + 1,
        what: format!("has {} columns", line.chars().count()),
    })
    .collect()
}

fn dead_links(path: &str, text: &str) -> Vec<Violation> {
    let folder = Path::new(path).parent().unwrap();
    let dead = targets(text).into_iter().filter(|(_, target)| {
        let file = target.split('#').next().unwrap_or_default();
        !target.contains("://") && !root().join(folder).join(file).is_file()
    });
    dead.map(|(line, target)| Violation {
        path: path.to_owned(),
        line,
        what: format!("links to {target}, which is no file"),
    })
    .collect()
}

/// Returns the targets of links with their lines: `](target)`, `[name]: target` and `src="target"`.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for (begin, end) in [("](", ')'), ("]: ", ' '), ("src=\"", '"')] {
            if begin == "]: " && !line.starts_with('[') {
                continue;
            }
            for after in line.split(begin).skip(1) {
                let target = after.split(end).next().unwrap_or_default();
                found.push((index + 1, target.to_owned()));
            }
        }
    }
    found
}

#[test]
fn dead_links_and_long_lines_are_found() {
    let text = "[a](Cargo.toml) [b](none.md)\n[c]: src/lib.rs\n[d]: none.rs\n<img src=\"x.svg\">\n\
                x [e](https://example.org) a[0]: b\n";
    let lines: Vec<usize> = dead_links("README.md", text)
        .iter()
        .map(|found| found.line)
        .collect();
    assert_eq!(lines, [1, 3, 4]);
    assert_eq!(dead_links("src/manual/a.md", "[mesh]: mesh.md\n"), []);
    let text = format!(
        "{}\n{}\n| {} |\n",
        "a".repeat(100),
        "b".repeat(101),
        "c".repeat(200)
    );
    let lines: Vec<usize> = long_lines("a", &text)
        .iter()
        .map(|found| found.line)
        .collect();
    assert_eq!(lines, [2]);
}

/// The page `output` lists the types of JSON lines, and the schema defines them.
#[test]
fn every_type_of_a_line_is_in_the_manual() {
    let schema = fs::read_to_string(root().join("proto/output.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let definitions = schema["$defs"].as_object().unwrap();
    let is_line = |object: &serde_json::Value| object["properties"]["type"].is_object();
    let defined: BTreeSet<&str> = definitions
        .iter()
        .filter(|(_, object)| is_line(object))
        .map(|(name, _)| name.as_str())
        .collect();
    let page = lattice::manual::Page::find("output").unwrap().text;
    let rows = page.split("## Types").nth(1).unwrap().lines();
    let firsts = rows.filter_map(|row| row.strip_prefix("| `")?.split(" | ").next());
    let listed: BTreeSet<&str> = firsts
        .flat_map(|first| first.split(", "))
        .map(|name| name.trim_matches('`'))
        .filter(|name| *name != "type")
        .collect();
    assert_eq!(listed, defined);
}
