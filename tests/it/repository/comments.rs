//! A crude check of the English in comments and docs of `src/`.
//!
//! It finds sentences without a noun for a subject, and one verb that stood for publish, deliver,
//! report, return and list alike. It cannot tell a good sentence from a bad one.

use std::collections::BTreeMap;

use super::{
    source::{Violation, sources},
    tokens::comments,
};

/// A comment line does not begin so.
const BEGINNINGS: [&str; 7] = [
    "Who ",
    "What ",
    "Whoever ",
    "Whatever ",
    "Where nobody",
    "Which.",
    "Why.",
];

/// A comment does not have these words.
const WORDS: [&str; 3] = ["tell", "tells", "told"];

#[test]
fn comments_name_their_subject() {
    let mut found = Vec::new();
    let mut folders: BTreeMap<String, usize> = BTreeMap::new();
    for (path, text) in sources() {
        let unclear = unclear_comments(&path, &text);
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if !unclear.is_empty() {
            *folders.entry(folder.to_owned()).or_default() += unclear.len();
        }
        found.extend(unclear);
    }
    let lines: Vec<String> = found.iter().map(Violation::to_string).collect();
    assert!(
        found.is_empty(),
        "\n{}\nin all {}, by folder: {folders:#?}",
        lines.join("\n"),
        found.len(),
    );
}

fn unclear_comments(path: &str, text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    for comment in comments(text) {
        let begins = BEGINNINGS
            .iter()
            .any(|begin| comment.text.starts_with(begin));
        let mut words = comment.text.split(|letter: char| !letter.is_alphanumeric());
        let is_unclear = |word: &str| WORDS.contains(&word.to_lowercase().as_str());
        if begins || words.any(is_unclear) {
            found.push(Violation::new(path, &comment, comment.text.clone()));
        }
    }
    found
}

#[test]
fn unclear_comments_are_found() {
    let text = "//! What waits.\n/// Who comes.\n// Which.\nlet a = \"// Who is it\"; // Whatever it is.\n\
                /// Watches are told.\n// Tells it.\n/// Where nobody answers.\n";
    let lines: Vec<usize> = unclear_comments("a", text)
        .iter()
        .map(|found| found.line)
        .collect();
    assert_eq!(lines, [1, 2, 3, 4, 5, 6, 7]);
    let fine = "//! # What is promised\n/// The key that\n/// what waits for it has.\n// Whole.\n\
                // It is untold, a teller.\nlet tell = 1;\n";
    assert_eq!(unclear_comments("a", fine), []);
}
