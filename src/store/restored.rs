//! The mark of a store that was restored from a snapshot.
//!
//! What this node wrote after the snapshot was made is not in the directory, and other members may have
//! it: the node's next entry could take a place that is taken, which would be a fork. So the store has
//! a file `restored`, and takes no own writes, until a member has given back what it has of this node's
//! log, or until `Store::repair` gives it up.

use std::{io, path::Path};

use crate::disk::{Disk, Open};

/// Marks the store in `dir`. Durable on return.
///
/// # Errors
/// Any error of the file system.
pub(crate) fn mark(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    match disk.open(&dir.join(FILE), Open::New) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _made => {}
    }
    disk.sync_dir(dir)
}

/// Takes the mark of the store in `dir` away. Durable on return.
///
/// # Errors
/// Any error of the file system.
pub(crate) fn unmark(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    match disk.remove(&dir.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| disk.sync_dir(dir)),
    }
}

/// Returns whether the store in `dir` is marked.
///
/// # Errors
/// Any error of the file system.
pub(super) fn is_marked(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    match disk.open(&dir.join(FILE), Open::Existing) {
        Ok(_there) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

const FILE: &str = "restored";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn mark_stays_until_it_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let is_marked = || is_marked(&RealDisk, dir.path()).unwrap();
        assert!(!is_marked());
        unmark(&RealDisk, dir.path()).unwrap();
        for _time in 0..2 {
            mark(&RealDisk, dir.path()).unwrap();
            assert!(is_marked());
        }
        unmark(&RealDisk, dir.path()).unwrap();
        assert!(!is_marked());
    }
}
