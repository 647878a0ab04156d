//! The count of the scripts, and the rows of the threat table that they try.

use std::{collections::BTreeSet, fs, path::Path};

use super::{contents, sync};

/// Fewer hostile scripts than this are too few.
const SCRIPTS_MIN: usize = 150;

/// The row and name of each script that stands in a table.
fn scripts() -> Vec<(&'static str, String)> {
    let contents = contents::scripts().into_iter();
    let contents = contents.map(|script| (script.row, script.name));
    let of_sync = sync::names().into_iter();
    let of_sync = of_sync.map(|(row, name)| (row, name.to_owned()));
    contents.chain(of_sync).collect()
}

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The rows of the table of which an attacker is among how they are tried.
fn tried_by_attackers(table: &str) -> BTreeSet<String> {
    let rows = table.lines().filter(|line| line.starts_with("| "));
    let cells = rows.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let tried = cells.filter(|cells| cells.get(4).is_some_and(|how| how.contains("attacker")));
    tried.map(|cells| cells[1].to_owned()).collect()
}

/// The rows at the front of the names of the tests in a file: `fn n1_n4_x` has N1 and N4.
fn rows_of_tests(text: &str) -> BTreeSet<String> {
    let names = text
        .lines()
        .filter_map(|line| line.strip_prefix("async fn "));
    let parts = names.flat_map(|name| {
        let is_row = |part: &&str| {
            let (letter, number) = part.split_at(part.len().min(1));
            letter.chars().all(|it| it.is_ascii_lowercase()) && number.parse::<u8>().is_ok()
        };
        name.split('_').take_while(is_row)
    });
    parts.map(str::to_uppercase).collect()
}

#[test]
fn there_are_at_least_150_scripts_with_names_of_their_own() {
    let scripts = scripts();
    println!("{} hostile scripts", scripts.len());
    let names: BTreeSet<&str> = scripts.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names.len(), scripts.len(), "a name stands for one script");
    assert!(scripts.len() >= SCRIPTS_MIN, "{} scripts", scripts.len());
}

#[test]
fn each_row_for_attackers_is_tried() {
    let table = text("tests/it/threats.md");
    let mut tried: BTreeSet<String> = scripts().iter().map(|(row, _)| (*row).to_owned()).collect();
    let unknown: Vec<_> = tried
        .iter()
        .filter(|row| !table.contains(&format!("| {row} |")))
        .collect();
    assert_eq!(unknown, [""; 0], "they are no rows");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/mesh/hostile");
    for folder in [folder.join("contents"), folder] {
        let paths = fs::read_dir(folder).unwrap();
        let paths = paths.map(|file| file.unwrap().path());
        for path in paths.filter(|path| path.is_file()) {
            tried.extend(rows_of_tests(&fs::read_to_string(path).unwrap()));
        }
    }
    let due = tried_by_attackers(&table);
    assert!(due.len() > 15, "the table was read: {due:?}");
    let missing: Vec<_> = due.difference(&tried).collect();
    assert_eq!(
        missing, [""; 0],
        "no script and no test of attackers tries them"
    );
}
