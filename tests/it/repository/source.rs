//! The files of the repository, and how a check complains about them.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::tokens::Token;

/// A rule that a line breaks.
#[derive(Debug, PartialEq, Eq)]
pub struct Violation {
    pub path: String,
    pub line: usize,
    pub what: String,
}

impl Violation {
    pub fn new(path: &str, token: &Token, what: impl Into<String>) -> Self {
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

pub fn assert_none(violations: &[Violation]) {
    let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
    assert!(lines.is_empty(), "\n{}", lines.join("\n"));
}

/// Returns the module that a file of `src/` belongs to, and its path: `src/store/watch.rs` is
/// `["store", "watch"]`. Empty for the two roots.
pub fn module_path(path: &str) -> Vec<String> {
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

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the Rust files of `src/`, as paths from the root with `/`, and their text.
pub fn sources() -> impl Iterator<Item = (String, String)> {
    files_below(Path::new("src"))
        .into_iter()
        .filter_map(|path| {
            let name = path.to_string_lossy().replace('\\', "/");
            name.ends_with(".rs")
                .then(|| (name, fs::read_to_string(root().join(path)).unwrap()))
        })
}

/// Returns the files that a commit of everything would have; without git, all but build output.
pub fn tracked_files() -> Vec<PathBuf> {
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

pub fn files_below(folder: &Path) -> Vec<PathBuf> {
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
