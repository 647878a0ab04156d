//! The calls about the node and its stores: status, create, list.

use std::{path::Path, process};

use crate::{
    api::{
        convert,
        error::{
            ApiError, EXIT_DAMAGED, EXIT_FAILED, EXIT_NOT_FOUND, EXIT_PRECONDITION,
            EXIT_UNAVAILABLE, text,
        },
        paging::{Answers, parts},
    },
    id::StoreId,
    limits::STORE_NAME_CHARS_MAX,
    net::Net,
    node::{NameError, Node, OpenError, StoreError, StoreInfo, Unopened},
    wire::api,
};

/// Answers `Status`.
pub(super) async fn status(
    node: &Node,
    net: Option<&Net>,
    socket: Option<&Path>,
    started_ms: u64,
) -> Result<Answers<api::StatusReply>, ApiError> {
    let mut stores = Vec::new();
    for info in default_first(node) {
        let store = node.store(&info.id.to_string())?;
        let mut status = store.status().await;
        if info.root {
            status.recovered.splice(..0, node.mended().iter().cloned());
        }
        let diverged = net.map(|net| net.divergences(&info.id)).unwrap_or_default();
        let mut status = convert::store_status(&info, status, &diverged);
        status.history = node.history(&info.id).as_ref().map(convert::store_history);
        stores.push(status);
    }
    let path_text = |path: &Path| path.to_string_lossy().into_owned();
    let of_node = api::StatusReply {
        node: convert::bytes(&node.id().0),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        data_dir: path_text(node.data_dir()),
        socket: socket.map(path_text).unwrap_or_default(),
        pid: process::id(),
        started_ms,
        now_ms: node.clock().now_ms(),
        stores: Vec::new(),
        unopened: Some(unopened(node)),
        removed_by: convert::author_or_empty(node.removed_by()),
        not_listening: net.and_then(Net::trouble).unwrap_or_default(),
    };
    let mut first = Some(of_node);
    Ok(parts(stores, move |stores, _last| api::StatusReply {
        stores,
        ..first.take().unwrap_or_default()
    }))
}

// Returns the stores: the data store, the root store, then the others by name.
fn default_first(node: &Node) -> Vec<StoreInfo> {
    let mut stores = node.stores();
    stores.sort_by_key(|info| !info.data);
    stores
}

fn unopened(node: &Node) -> api::UnopenedStores {
    let Unopened {
        of_lister,
        in_all,
        failed,
        error,
    } = node.unopened();
    api::UnopenedStores {
        of_lister: of_lister as u64,
        in_all: in_all as u64,
        failed: failed as u64,
        error: error.unwrap_or_default(),
    }
}

/// Answers `CreateStore`.
pub(super) async fn create(
    node: &Node,
    request: &api::CreateStoreRequest,
) -> Result<api::StoreInfo, ApiError> {
    let info = node.create_store(&request.name).await?;
    Ok(convert::store_info(&info))
}

/// Answers `RenameStore`.
pub(super) async fn rename(
    node: &Node,
    request: &api::RenameStoreRequest,
) -> Result<api::StoreInfo, ApiError> {
    let store = node.store(&request.store)?.id();
    node.rename_store(&store, &request.name).await?;
    info(node, &store)
}

/// Answers `DeleteStore`.
pub(super) async fn delete(
    node: &Node,
    request: &api::StoreRequest,
) -> Result<api::StoreInfo, ApiError> {
    let store = node.store(&request.store)?.id();
    let deleted = info(node, &store)?;
    node.delete_store(&store).await?;
    Ok(deleted)
}

/// Answers `ShareStore`.
pub(super) async fn share(
    node: &Node,
    request: &api::StoreRequest,
) -> Result<api::StoreInfo, ApiError> {
    let store = node.store(&request.store)?.id();
    node.share_store(&store).await?;
    info(node, &store)
}

fn info(node: &Node, store: &StoreId) -> Result<api::StoreInfo, ApiError> {
    let all = node.stores();
    let found = all.iter().find(|info| info.id == *store);
    let gone = || {
        ApiError::new(
            "unknown_store",
            EXIT_NOT_FOUND,
            "the store was deleted meanwhile",
        )
    };
    found.map(convert::store_info).ok_or_else(gone)
}

/// Answers `ListStores`.
pub(super) fn list(node: &Node) -> Answers<api::ListStoresReply> {
    let stores = default_first(node);
    let stores = stores.iter().map(convert::store_info).collect();
    parts(stores, |stores, _last| api::ListStoresReply { stores })
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let message = text(&error);
        match error {
            StoreError::Unknown { .. } => Self::new("unknown_store", EXIT_NOT_FOUND, message)
                .hint("`lattice store list` shows the stores of this node"),
            StoreError::NameInvalid { .. } => Self::usage("store_name_invalid", message)
                .hint(format!("a name has 1 to {STORE_NAME_CHARS_MAX} characters")),
            StoreError::NameTaken { .. } => Self::new("store_exists", EXIT_PRECONDITION, message),
            StoreError::NameReserved => Self::usage("store_name_reserved", message)
                .hint("choose another name for this store"),
            StoreError::Root => Self::new("root_store", EXIT_PRECONDITION, message),
            StoreError::Data => Self::new("data_store", EXIT_PRECONDITION, message),
            StoreError::TwoStores => Self::usage("two_stores", message).hint(
                "name the store with --store; /nodes/, /invites/ and /stores/ are in the root store",
            ),
            StoreError::NotFounder { .. } => Self::new("not_founder", EXIT_PRECONDITION, message)
                .hint("ask an admin; `lattice peer list` shows the admins"),
            StoreError::NotPrivate { .. } => Self::new("not_private", EXIT_PRECONDITION, message),
            StoreError::Open(error) => error.into(),
            StoreError::Write(error) => error.into(),
            StoreError::Read(error) => error.into(),
        }
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        let message = error.to_string();
        match error {
            NameError::Empty => Self::usage("name_empty", message),
            NameError::Long { .. } => Self::usage("name_too_long", message),
            NameError::LikeId { .. } => Self::usage("name_like_id", message)
                .hint("choose a name that is not 8 to 64 hex digits"),
        }
    }
}

impl From<OpenError> for ApiError {
    fn from(error: OpenError) -> Self {
        let message = text(&error);
        let failed = |code| Self::new(code, EXIT_FAILED, message.clone());
        match error {
            OpenError::AlreadyRunning { .. } => {
                Self::new("already_running", EXIT_UNAVAILABLE, message)
                    .hint("`lattice status` shows it, `lattice down` stops it")
            }
            OpenError::NoDataDir { .. } => Self::new("no_data_dir", EXIT_UNAVAILABLE, message)
                .hint(
                    "create it with `lattice init` or `lattice up`, or choose another with \
                    --data-dir",
                ),
            OpenError::Name(error) => error.into(),
            OpenError::IdentityMissing { .. } => {
                Self::new("identity_missing", EXIT_DAMAGED, message).hint(
                    "put the file back; or give the directory a new identity with \
                    `lattice init --new-identity`, and join the mesh again",
                )
            }
            OpenError::Restoring { .. } => Self::new("restoring", EXIT_UNAVAILABLE, message)
                .hint("if none is running, run `lattice snapshot restore` again: it starts over"),
            OpenError::Untrusted(error) => error.into(),
            OpenError::ReadOnly { .. } => failed("read_only").hint(
                "even reading needs to write there: give this user permission, \
                or choose a copy with --data-dir",
            ),
            OpenError::Unusable { .. } => Self::new("unusable", EXIT_DAMAGED, message)
                .hint("restore it from a backup, or move the data directory away"),
            OpenError::Key { source, .. } => {
                Self::new("key", EXIT_UNAVAILABLE, message).hint(source.remedy())
            }
            OpenError::Panicked => failed("panicked"),
            OpenError::RootUnknown { .. } => Self::new("root_unknown", EXIT_DAMAGED, message).hint(
                "restore meta.db from a backup; or move the directories of these stores out of \
                    stores/ if they do not belong to this node's mesh, and start again",
            ),
            OpenError::Io { .. } => failed("io"),
            OpenError::Store { source, .. } if source.is_damage() => {
                Self::new("store_damaged", EXIT_DAMAGED, message)
                    .hint("nothing was changed; restore the file from a backup, or move it away")
            }
            OpenError::Store { .. } => failed("store_open"),
            OpenError::Write(error) => error.into(),
            OpenError::Read(error) => error.into(),
        }
    }
}
