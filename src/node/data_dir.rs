//! The data directory: checking it, and opening private files in it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;

use crate::{disk::Disk, id::StoreId, node::error::OpenError};

/// Name of the file with the signing key. A directory that has it belongs to a node.
pub(super) const IDENTITY: &str = "identity.key";

/// Name of the file with the list of stores.
pub(super) const META: &str = "meta.db";
/// Name of the directory with a directory for each store.
pub(super) const STORES_DIR: &str = "stores";

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
        Ok(_there) if create || holds_node(data_dir) => Ok(()),
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

/// True when the directory has anything of a node: its key or its data.
pub(super) fn holds_node(data_dir: &Path) -> bool {
    let names = [IDENTITY, META, STORES_DIR];
    let has = |name: &&str| data_dir.join(name).symlink_metadata().is_ok();
    names.iter().any(|name| has(&name))
}

/// Returns the ids of the stores that have a directory, in order.
///
/// # Errors
/// `Io`.
pub(super) fn store_ids(disk: &dyn Disk, data_dir: &Path) -> Result<Vec<StoreId>, OpenError> {
    let stores = data_dir.join(STORES_DIR);
    let names = match disk.list(&stores) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        names => names.map_err(|source| OpenError::Io {
            path: stores,
            source,
        })?,
    };
    let mut ids: Vec<StoreId> = names
        .iter()
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect();
    ids.sort_unstable();
    Ok(ids)
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
