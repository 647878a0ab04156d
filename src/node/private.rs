//! Private stores: the stores that a node had before it joined its mesh, and keeps to itself.
//!
//! Such a store has a file `private` in its directory, which names the root store that it belongs
//! to: the root store that the node had before. The file counts as long as that is not the root
//! store of the node again. It is in the directory of the store and not in `meta.db`, so that a
//! `meta.db` that is built again from the logs makes no private store public.

use std::{io, path::Path};

use crate::{
    disk::{Disk, Open},
    id::StoreId,
    node::error::OpenError,
};

/// Marks the store in `dir` as private, under the root store `root`. Durable on return.
///
/// # Errors
/// `ReadOnly`, `Io`.
pub(super) fn mark(disk: &dyn Disk, dir: &Path, root: &StoreId) -> Result<(), OpenError> {
    let (path, new) = (dir.join(FILE), dir.join(NEW));
    let written = || {
        match disk.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _removed => {}
        }
        let file = disk.open(&new, Open::New)?;
        file.write_at(format!("{root}\n").as_bytes(), 0)?;
        file.sync_data()?;
        disk.rename(&new, &path)?;
        disk.sync_dir(dir)
    };
    written().map_err(|source| OpenError::refused(&path, source))
}

/// Takes the mark of the store in `dir` away. Durable on return.
///
/// # Errors
/// `ReadOnly`, `Io`.
pub(super) fn unmark(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    let path = dir.join(FILE);
    let removed = match disk.remove(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed.and_then(|()| disk.sync_dir(dir)),
    };
    removed.map_err(|source| OpenError::refused(&path, source))
}

/// Returns the root store under which the store `id` in `dir` is private; `None` if it has no mark.
/// A mark that cannot be read as one makes the store private by itself.
///
/// # Errors
/// `Io`.
pub(super) fn root_of(
    disk: &dyn Disk,
    dir: &Path,
    id: &StoreId,
) -> Result<Option<StoreId>, OpenError> {
    let path = dir.join(FILE);
    let read = || {
        let file = disk.open(&path, Open::Existing)?;
        let mut text = [0; TEXT_BYTES];
        match file.len()? {
            length if length == text.len() as u64 => file.read_at(&mut text, 0)?,
            _damaged => {}
        }
        Ok(text)
    };
    match read() {
        Ok(text) => {
            let text = str::from_utf8(&text).unwrap_or_default();
            let root = text.strip_suffix('\n').and_then(|root| root.parse().ok());
            Ok(Some(root.unwrap_or(*id)))
        }
        Err(error) if is_absent(&error) => Ok(None),
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

const FILE: &str = "private";
const NEW: &str = "private.new";
// A store id and the end of the line.
const TEXT_BYTES: usize = 37;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    const ROOT: StoreId = StoreId([1; 16]);
    const STORE: StoreId = StoreId([2; 16]);

    #[test]
    fn mark_is_read_back_and_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let root_of = || root_of(&RealDisk, dir.path(), &STORE).unwrap();
        assert_eq!(root_of(), None);
        unmark(&RealDisk, dir.path()).unwrap();
        for _time in 0..2 {
            mark(&RealDisk, dir.path(), &ROOT).unwrap();
            assert_eq!(root_of(), Some(ROOT));
        }
        unmark(&RealDisk, dir.path()).unwrap();
        assert_eq!(root_of(), None);
        let missing = dir.path().join("no such store");
        assert!(
            super::root_of(&RealDisk, &missing, &STORE)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn damaged_mark_makes_no_store_public() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "x", "not an id, but as long as a mark.....", "\u{e9}"] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            let root = root_of(&RealDisk, dir.path(), &STORE).unwrap();
            assert_eq!(root, Some(STORE), "{text:?}");
        }
    }
}
