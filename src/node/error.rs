//! The errors of opening a node, and of finding or making a store.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    id::{Author, StoreId},
    limits::{NODE_NAME_CHARS_MAX, STORE_NAME_CHARS_MAX},
    permissions::Untrusted,
    store::{self, ReadError, WriteError},
    vault::KeyError,
};

/// Why a node could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the node open.
    #[error("the node in {} is running already{}", data_dir.display(), pid.map_or(String::new(), |pid| format!(" (process {pid})")))]
    AlreadyRunning {
        /// Id of that process. `None` if the lock file does not name it.
        pid: Option<u32>,
        /// The data directory.
        data_dir: PathBuf,
    },
    /// There is no node in the directory, and the caller did not ask for a new one.
    #[error("there is no node in {}", data_dir.display())]
    NoDataDir {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The name cannot be the name of a node.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The directory has the data of a node, and not its key.
    #[error("{} holds the data of {}, and its identity.key is missing", data_dir.display(), owner.map_or("a node".to_owned(), |owner| format!("node {owner}")))]
    IdentityMissing {
        /// The data directory.
        data_dir: PathBuf,
        /// Node that used the directory last. `None` if `meta.db` does not say.
        owner: Option<Author>,
    },
    /// A snapshot is being restored into the directory, or that was cut off.
    #[error("a restore of a snapshot into {} was interrupted, or is still running", data_dir.display())]
    Restoring {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// A file or the directory belongs to another user, or other users can read or change it.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// A file is damaged, or is not one that this version writes.
    #[error("{} cannot be used: {what}", path.display())]
    Unusable {
        /// Path of the file.
        path: PathBuf,
        /// The reason, as a clause.
        what: String,
    },
    /// `meta.db` is damaged, and the logs do not show which store is the root store.
    #[error("{} cannot be used ({what}), and the logs do not show which store is the root store (unclear: {})", path.display(), listed(unclear))]
    RootUnknown {
        /// Path of `meta.db`.
        path: PathBuf,
        /// The damage, as a clause.
        what: String,
        /// Stores that no root store lists, or all root stores that are possible.
        unclear: Vec<StoreId>,
    },
    /// The node may not write there: a read-only file system, or another user's directory.
    #[error("cannot write in {}", path.display())]
    ReadOnly {
        /// Path of the file or directory.
        path: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
    /// The secret of the node's key cannot be had from the place that `identity.key` names. No other place is
    /// tried.
    #[error("the key of the node cannot be had ({}): {source}", path.display())]
    Key {
        /// Path of `identity.key`.
        path: PathBuf,
        /// Error of the place.
        source: KeyError,
    },
    /// A task of the node has panicked.
    #[error("a task of the node has panicked")]
    Panicked,
    /// The file system returned an error.
    #[error("cannot open {}", path.display())]
    Io {
        /// Path of the file or directory.
        path: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
    /// A store could not be opened.
    #[error("cannot open store {id}")]
    Store {
        /// Id of the store.
        id: StoreId,
        /// Error of the store.
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
    /// Returns the error of a key that cannot be had.
    pub(super) fn key(path: &Path, source: KeyError) -> Self {
        let path = path.to_owned();
        match source {
            KeyError::Malformed { what } => Self::Unusable { path, what },
            source => Self::Key { path, source },
        }
    }

    /// Returns the error for a file that could not be opened or made for writing.
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

fn listed(stores: &[StoreId]) -> String {
    let stores: Vec<String> = stores.iter().map(ToString::to_string).collect();
    stores.join(", ")
}

/// Why a text cannot be the name of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It has no letters.
    #[error("the name of a node is empty")]
    Empty,
    /// It has too many characters.
    #[error(
        "the name of a node has {characters} characters; at most {NODE_NAME_CHARS_MAX} are allowed"
    )]
    Long {
        /// Number of characters.
        characters: usize,
    },
    /// It looks like the id of another node.
    #[error("{name:?} is not a name for a node: it looks like an id")]
    LikeId {
        /// The name.
        name: String,
    },
}

/// Why a store could not be found, made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no store of that name or id.
    #[error("there is no store {name:?} here; known stores: {known}")]
    Unknown {
        /// Name or id that was asked for, shortened to 80 characters.
        name: String,
        /// Names of all stores, separated by commas.
        known: String,
    },
    /// The name is not allowed for a store.
    #[error(
        "{name:?} is not a name for a store: expected 1 to {STORE_NAME_CHARS_MAX} letters, digits, '-', '_' or '.', and not a UUID"
    )]
    NameInvalid {
        /// The name, shortened to 80 characters.
        name: String,
    },
    /// The name is that of the data store.
    #[error("the name \"data\" is that of the store which every node uses by default")]
    NameReserved,
    /// Another store has the name.
    #[error("a store named {name:?} already exists: {id}")]
    NameTaken {
        /// The name that is taken.
        name: String,
        /// Id of the store that has it.
        id: StoreId,
    },
    /// The root store is the mesh itself: it has one name, and ends with the mesh.
    #[error("the root store cannot be renamed, deleted or shared")]
    Root,
    /// Every mesh has a data store, under that name on all nodes.
    #[error("the data store cannot be renamed, deleted or shared: every member has it")]
    Data,
    /// No store was named, and some of the keys are in the root store, others in the data store.
    #[error("some of the keys are in the root store, and others in the data store")]
    TwoStores,
    /// Neither did this node create the store, nor is it an admin.
    #[error("store {name:?} was created by node {}; only that node or an admin may do this", founder.short())]
    NotFounder {
        /// Name of the store.
        name: String,
        /// Node that created it.
        founder: Author,
    },
    /// The store belongs to the mesh already.
    #[error("store {name:?} is not private: the members have it already")]
    NotPrivate {
        /// Name of the store.
        name: String,
    },
    /// The store could not be made or opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store could not be listed in the root store.
    #[error("cannot list the store in the root store")]
    Write(#[from] WriteError),
    /// The list of stores in the root store could not be read.
    #[error("cannot read the list of stores in the root store")]
    Read(#[from] ReadError),
}
