//! One home for each matter: the files of `store` with methods of `Store`, and the file that
//! defines the kinds of notes.

use super::{
    source::{Violation, assert_none, sources},
    tokens::tokens,
};

/// Files and folders in which `impl Store` may stand.
const STORE_CALLS: [&str; 9] = [
    "src/store/store.rs",
    "src/store/replication.rs",
    "src/store/base_transfer.rs",
    "src/store/base_wish.rs",
    "src/store/json.rs",
    "src/store/finality.rs",
    "src/store/proof.rs",
    "src/store/maintenance.rs",
    "src/store/read/",
];

/// The file of the notes that the state keeps for the store, with the first byte of each kind.
const NOTES: &str = "src/store/writer/notes.rs";

#[test]
fn calls_of_the_store_stand_in_few_files() {
    let files = sources().filter(|(path, _)| path.starts_with("src/store/"));
    let found: Vec<Violation> = files
        .flat_map(|(path, text)| store_calls(&path, &text))
        .collect();
    assert_none(&found);
}

#[test]
fn kinds_of_notes_are_defined_in_one_file() {
    let files = sources().filter(|(path, _)| path.starts_with("src/store/"));
    let found: Vec<Violation> = files
        .flat_map(|(path, text)| note_kinds(&path, &text))
        .collect();
    assert_none(&found);
}

fn store_calls(path: &str, text: &str) -> Vec<Violation> {
    if STORE_CALLS.iter().any(|allowed| path.starts_with(allowed)) {
        return Vec::new();
    }
    let tokens = tokens(text);
    let words = tokens.windows(3);
    let begins = words.filter(|words| {
        [&words[0], &words[1], &words[2]].map(|token| token.text.as_str()) == ["impl", "Store", "{"]
    });
    begins
        .map(|words| Violation::new(path, &words[0], "impl Store stands here"))
        .collect()
}

fn note_kinds(path: &str, text: &str) -> Vec<Violation> {
    if path == NOTES {
        return Vec::new();
    }
    let lines = text.lines().enumerate();
    let defines = lines.filter(|(_, line)| line.contains("const ") && line.contains(": u8 = b'"));
    defines
        .map(|(index, line)| Violation {
            path: path.to_owned(),
            line: index + 1,
            what: format!("{} is defined outside {NOTES}", line.trim()),
        })
        .collect()
}

#[test]
fn calls_and_kinds_in_other_files_are_found() {
    let text = "impl Store {}\nimpl Clone for Store {}\nimpl Stored {}\n// impl Store {\n";
    assert_eq!(store_calls("src/store/writer/mend.rs", text).len(), 1);
    assert_eq!(store_calls("src/store/read/get.rs", text), []);
    assert_eq!(store_calls("src/store/store.rs", text), []);
    let text = "const KIND: u8 = b'k';\nconst N: u8 = 3;\n    pub const O: u8 = b'o';\n";
    let lines = note_kinds("src/store/writer/forks.rs", text);
    assert_eq!(
        lines.iter().map(|found| found.line).collect::<Vec<_>>(),
        [1, 3]
    );
    assert_eq!(note_kinds(NOTES, text), []);
}
