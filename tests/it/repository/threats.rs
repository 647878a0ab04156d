//! The threat table in `tests/it/threats.md`, and the tests that are named by its rows.

use std::{collections::BTreeSet, fs, path::Path};

use super::{
    source::{Violation, assert_none, files_below, root},
    tokens::tokens,
};

#[test]
fn every_threat_in_a_test_name_is_in_the_table() {
    let table = fs::read_to_string(root().join("tests/it/threats.md")).unwrap();
    let rows = rows(&table);
    assert!(rows.len() > 50, "the table was read");
    let mut cited = 0;
    for folder in ["src", "tests"] {
        for path in files_below(Path::new(folder)) {
            let name = path.to_string_lossy().replace('\\', "/");
            if name.ends_with(".rs") {
                let text = fs::read_to_string(root().join(&path)).unwrap();
                cited += cited_in(&text).len();
                assert_none(&unknown_threats(&name, &text, &rows));
            }
        }
    }
    assert!(cited > 150, "names cite {cited} rows");
}

/// Returns the first column of each row, in lower case: `| S1 | ...` is `s1`.
fn rows(table: &str) -> BTreeSet<String> {
    let cells = table.lines().filter_map(|line| line.strip_prefix("| "));
    let ids = cells.filter_map(|row| row.split(" |").next());
    let ids = ids.map(str::to_lowercase);
    ids.filter(|id| is_threat(id)).collect()
}

/// A letter and a number.
fn is_threat(text: &str) -> bool {
    let mut letters = text.chars();
    letters
        .next()
        .is_some_and(|first| first.is_ascii_lowercase())
        && text.len() > 1
        && letters.all(|letter| letter.is_ascii_digit())
}

/// Returns the rows that function names cite, with their places: `fn s1_s7_power_cut` cites two.
fn cited_in(text: &str) -> Vec<(String, Violation)> {
    let tokens = tokens(text);
    let names = tokens.windows(2).filter(|words| words[0].text == "fn");
    let mut cited = Vec::new();
    for words in names {
        let name = &words[1].text;
        let (ids, rest): (Vec<&str>, _) = match name.rsplit_once('_') {
            Some((before, last)) => (before.split('_').collect(), last),
            None => continue,
        };
        if rest.is_empty() {
            continue;
        }
        for id in ids.into_iter().take_while(|part| is_threat(part)) {
            let what = format!("{name} cites {id}, which is not in tests/it/threats.md");
            cited.push((id.to_owned(), Violation::new("", &words[1], what)));
        }
    }
    cited
}

fn unknown_threats(path: &str, text: &str, rows: &BTreeSet<String>) -> Vec<Violation> {
    let cited = cited_in(text).into_iter();
    let unknown = cited.filter(|(id, _)| !rows.contains(id));
    unknown
        .map(|(_, found)| Violation {
            path: path.to_owned(),
            ..found
        })
        .collect()
}

#[test]
fn unknown_threats_are_found() {
    let rows = rows("# T1\n| id | what |\n|---|---|\n| S1 | torn |\n| N12 | S7 |\n| 7 | x |\n");
    assert_eq!(rows.iter().collect::<Vec<_>>(), ["n12", "s1"]);
    let text = "fn s1_torn_tail_is_cut() {}\nasync fn n12_s9_x() {}\nfn t1_() {}\nfn z9() {}\n\
                fn short_b8_x() {}\n// fn q1_x\n";
    let found: Vec<String> = unknown_threats("a.rs", text, &rows)
        .iter()
        .map(Violation::to_string)
        .collect();
    let expected = ["a.rs:2: n12_s9_x cites s9, which is not in tests/it/threats.md"];
    assert_eq!(found, expected);
}
