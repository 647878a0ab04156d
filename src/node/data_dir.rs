//! The data directory: checking it, and opening private files in it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::fs::OFlags;

use crate::{
    disk::{Disk, Open},
    id::StoreId,
    node::error::OpenError,
    permissions::check_dir,
};

/// Name of the file with the signing key. A directory that has it belongs to a node.
pub(super) const IDENTITY: &str = "identity.key";

/// Name of the file with the list of stores.
pub(super) const META: &str = "meta.db";
/// Name of the directory with a directory for each store.
pub(super) const STORES_DIR: &str = "stores";

/// Name of the file that a directory has as long as a snapshot is being restored into it.
pub(super) const RESTORING: &str = "restoring";

/// Name of the file that a directory has while its node refuses own writes, because it was restored from a
/// snapshot and may lack entries that it signed.
pub(super) const RESTORED: &str = "restored";

/// Checks that the directory can be used. Makes it, 0700, if it is missing and `create` is true; its
/// name, and the names of parents that are made for it, are durable on return.
///
/// # Errors
/// `NoDataDir`, `Unusable`, `ReadOnly`, `Io`; `Untrusted` if another user owns it or may write in
/// it.
pub(super) fn prepare(disk: &dyn Disk, data_dir: &Path, create: bool) -> Result<(), OpenError> {
    let missing = || OpenError::NoDataDir {
        data_dir: data_dir.to_owned(),
    };
    let io = |source| OpenError::refused(data_dir, source);
    match fs::metadata(data_dir) {
        Ok(there) if !there.is_dir() => Err(OpenError::Unusable {
            path: data_dir.to_owned(),
            what: "it is not a directory".to_owned(),
        }),
        Ok(_there) if create || holds_node(data_dir) => Ok(check_dir(data_dir)?),
        Ok(_empty) => Err(missing()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
            disk.create_dir(data_dir).map_err(io)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing()),
        Err(error) => Err(io(error)),
    }
}

/// True when the directory has anything of a node: its key or its data.
pub(super) fn holds_node(data_dir: &Path) -> bool {
    has(data_dir, IDENTITY) || holds_data(data_dir)
}

/// True when the directory has data of a node, which need not be readable.
pub(super) fn holds_data(data_dir: &Path) -> bool {
    has(data_dir, META) || has(data_dir, STORES_DIR)
}

/// True when the directory has the files of a restore that has not ended.
pub(super) fn is_restoring(data_dir: &Path) -> bool {
    has(data_dir, RESTORING)
}

/// True while the node refuses own writes because it was restored.
pub(super) fn is_restored(data_dir: &Path) -> bool {
    match data_dir.join(RESTORED).symlink_metadata() {
        Ok(_there) => true,
        // Own writes stay refused if the mark cannot be looked up.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Marks a directory whose node was restored. Durable on return.
pub(super) fn mark_restored(disk: &dyn Disk, data_dir: &Path) -> io::Result<()> {
    match disk.open(&data_dir.join(RESTORED), Open::New) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _made => disk.sync_dir(data_dir),
    }
}

/// Takes that mark away. Durable on return.
pub(super) fn unmark_restored(disk: &dyn Disk, data_dir: &Path) -> io::Result<()> {
    match disk.remove(&data_dir.join(RESTORED)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| disk.sync_dir(data_dir)),
    }
}

fn has(data_dir: &Path, name: &str) -> bool {
    data_dir.join(name).symlink_metadata().is_ok()
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

/// Opens a regular file for reading and writing. Makes it, empty and 0600, if it is missing. Refuses
/// a symlink.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow())
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )),
    }
}

/// Returns the open flags that refuse a symlink, and do not wait at a pipe.
pub(super) fn no_follow() -> i32 {
    i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0)
}
