//! The data directory: checking it, and opening private files in it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;

use crate::node::error::OpenError;

/// Name of the file with the signing key. A directory that has it belongs to a node.
pub(super) const IDENTITY: &str = "identity.key";

/// Checks that the directory can be used. Makes it, 0700, if it is missing and `create` is true.
///
/// # Errors
/// `NoDataDir`, `Unusable`, `Exposed` if every user may write in it, `ReadOnly`, `Io`.
pub(super) fn prepare(data_dir: &Path, create: bool) -> Result<(), OpenError> {
    let missing = || OpenError::NoDataDir {
        data_dir: data_dir.to_owned(),
    };
    let io = |source| OpenError::refused(data_dir, source);
    match fs::metadata(data_dir) {
        Ok(there) if !there.is_dir() => Err(OpenError::Unusable {
            path: data_dir.to_owned(),
            what: "it is not a directory".to_owned(),
        }),
        Ok(there) if there.mode() & 0o002 != 0 => Err(OpenError::Exposed {
            path: data_dir.to_owned(),
            mode: there.mode() & 0o777,
            mode_max: 0o775,
        }),
        Ok(_there) if create || data_dir.join(IDENTITY).exists() => Ok(()),
        Ok(_empty) => Err(missing()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && create => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir)
            .map_err(io),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing()),
        Err(error) => Err(io(error)),
    }
}

/// Opens a file for reading and writing. Makes it, empty and 0600, if it is missing. Refuses a
/// symlink.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow())
        .open(path)
}

/// Returns the open flags that refuse a symlink.
pub(super) fn no_follow() -> i32 {
    i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0)
}
