//! Copies of directories, as people make them.

use std::{fs, path::Path};

/// Copies a directory with all files in it. Files of the copy that are there already are replaced.
pub fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        let to = to.join(entry.file_name());
        match (kind.is_dir(), kind.is_file()) {
            (true, _) => copy_all(&entry.path(), &to),
            (_, true) => drop(fs::copy(entry.path(), &to).unwrap()),
            // A socket.
            _other => {}
        }
    }
}
