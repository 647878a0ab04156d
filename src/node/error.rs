//! Why a node, or a store of it, could not be had.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    id::StoreId,
    limits::STORE_NAME_CHARS_MAX,
    store::{self, ReadError, WriteError},
};

/// Why a node could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the node in {} is running already{}", data_dir.display(), pid.map_or(String::new(), |pid| format!(" (process {pid})")))]
    AlreadyRunning {
        /// That process, where it is known.
        pid: Option<u32>,
        /// The data directory.
        data_dir: PathBuf,
    },
    /// There is no node, and none was to be made.
    #[error("there is no node in {}", data_dir.display())]
    NoDataDir {
        /// Where it was looked for.
        data_dir: PathBuf,
    },
    /// Others can read or change what must be private.
    #[error("{} has mode {mode:03o} and may have at most {mode_max:03o}: others could use it", path.display())]
    Exposed {
        /// Which file or directory.
        path: PathBuf,
        /// What it has.
        mode: u32,
        /// What it may have.
        mode_max: u32,
    },
    /// The file belongs to another user.
    #[error("{} belongs to user {owner}, this is user {user}", path.display())]
    WrongOwner {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// A file is not what this version writes.
    #[error("{} cannot be used: {what}", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The node may not write there: a read-only file system, or another user's directory.
    #[error("cannot write in {}", path.display())]
    ReadOnly {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file system refused.
    #[error("cannot open {}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A store could not be opened.
    #[error("cannot open store {id}")]
    Store {
        /// Which.
        id: StoreId,
        /// Why.
        source: Box<store::OpenError>,
    },
    /// The node's own keys could not be written into the root store.
    #[error("cannot write the node's own keys")]
    Write(#[from] WriteError),
    /// The node's own keys could not be read from the root store.
    #[error("cannot read the node's own keys")]
    Read(#[from] ReadError),
}

impl OpenError {
    /// Makes the error of a file that could not be opened or made for writing.
    pub(super) fn refused(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Self::ReadOnly { path, source }
            }
            _other => Self::Io { path, source },
        }
    }
}

/// Why a store could not be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no store of that name or id.
    #[error("there is no store {name:?} here; there are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// Not a name for a store.
    #[error(
        "{name:?} is no name for a store: 1 to {STORE_NAME_CHARS_MAX} letters, digits, '-', '_' or '.', not a UUID"
    )]
    NameInvalid {
        /// What was given, cut to 80 characters.
        name: String,
    },
    /// The name is in use.
    #[error("there is a store {name:?} already: {id}")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        id: StoreId,
    },
    /// The store could not be made or opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It could not be entered in the root store.
    #[error("cannot enter the store in the root store")]
    Write(#[from] WriteError),
}
