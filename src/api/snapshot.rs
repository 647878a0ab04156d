//! The call that makes a snapshot, and the errors of snapshots as those of the API.

use tonic::Status;

use crate::{
    api::{
        error::{ApiError, EXIT_DAMAGED, EXIT_FAILED, EXIT_PRECONDITION, text},
        paging::{Answers, unfold},
    },
    node::{CreateError, FileError, Node, RestoreError, SnapshotOptions, SnapshotStream},
    protocol::snapshot::SnapshotError,
    state::IncomingError,
    store::ReadError,
    wire::api,
};

/// Answers `Snapshot`.
pub(super) async fn snapshot(
    node: &Node,
    request: &api::SnapshotRequest,
) -> Result<Answers<api::SnapshotReply>, ApiError> {
    let store = match request.all {
        true => None,
        false => Some(node.store(&request.store)?.id()),
    };
    let options = SnapshotOptions {
        store,
        with_key: request.with_key,
    };
    let stream = node.snapshot(options).await?;
    Ok(unfold(stream, |stream| Box::pin(next(stream))))
}

async fn next(
    mut stream: SnapshotStream,
) -> Option<(Result<api::SnapshotReply, Status>, SnapshotStream)> {
    let part = stream.next().await?;
    let part = part.map(|part| api::SnapshotReply { part });
    let part = part.map_err(|error| ApiError::from(error).into());
    Some((part, stream))
}

impl From<CreateError> for ApiError {
    fn from(error: CreateError) -> Self {
        let message = text(&error);
        match error {
            CreateError::Store(error) => error.into(),
            CreateError::Open(error) => error.into(),
            CreateError::Read {
                source: ReadError::Damaged { .. },
                ..
            } => Self::new("damaged", EXIT_DAMAGED, message)
                .hint(
                    "`lattice verify` lists the damage. A peer repairs it with the next sync; without one, \
                     copy the data directory before you change anything",
                ),
            CreateError::Read {
                source: ReadError::Pruned(_),
                ..
            } => Self::new("damaged", EXIT_DAMAGED, message).hint(
                "the base with the state of its removed entries is damaged or missing. `lattice verify` shows \
                 the damage; make the snapshot on another member",
            ),
            CreateError::Read { source, .. } => Self {
                message,
                ..Self::from(source)
            },
        }
    }
}

impl From<FileError> for ApiError {
    fn from(error: FileError) -> Self {
        let message = text(&error);
        match error {
            FileError::Io { .. } => Self::new("snapshot_file", EXIT_FAILED, message),
            FileError::Unusable { source, .. } => {
                let error = Self::new("snapshot_damaged", EXIT_DAMAGED, message);
                error.hint(match source {
                    SnapshotError::NotASnapshot => {
                        "name the file that `lattice snapshot create` wrote; decrypt or unpack it first"
                    }
                    SnapshotError::Version { .. } => "use the version of Lattice that made the file",
                    SnapshotError::Cut { .. } | SnapshotError::Damaged { .. } => {
                        "use another copy of this file, or another snapshot; nothing was restored"
                    }
                })
            }
        }
    }
}

impl From<RestoreError> for ApiError {
    fn from(error: RestoreError) -> Self {
        let message = text(&error);
        let precondition = |code| Self::new(code, EXIT_PRECONDITION, message.clone());
        match error {
            RestoreError::NotEmpty { .. } => precondition("not_empty").hint(
                "if that node is new and empty, stop it and move its directory away; else name another with \
                 --data-dir. To bring back only some keys, use --as-puts PREFIX",
            ),
            RestoreError::File(error) => error.into(),
            RestoreError::NoKey { .. } => precondition("no_key").hint(
                "name a copy of that node's identity.key with --identity. Without a copy, use \
                 --new-identity: the new node can be read at once, and writes when a member has invited it",
            ),
            RestoreError::OtherKey { .. } => precondition("other_key")
                .hint("name the identity.key of that node, or use --new-identity"),
            RestoreError::Branch { .. }
            | RestoreError::Base(
                IncomingError::Unsound { .. } | IncomingError::Forged { .. } | IncomingError::Cut,
            ) => Self::new("snapshot_damaged", EXIT_DAMAGED, message)
                .hint("use another snapshot; nothing was restored"),
            RestoreError::Open(error) => error.into(),
            RestoreError::Read(source) => Self {
                message,
                ..Self::from(source)
            },
            RestoreError::Write(source) => Self {
                message,
                ..Self::from(source)
            },
            RestoreError::Io { .. } | RestoreError::Log(_) | RestoreError::Base(_) => {
                Self::new("restore_failed", EXIT_FAILED, message)
            }
        }
    }
}
