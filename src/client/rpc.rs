//! The calls of the API as they are in `proto/api.proto`, over the socket of a node.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::net::UnixStream;
use tonic::codegen::http::Uri;

use crate::{
    client::{
        error::{ApiError, EXIT_UNAVAILABLE, HINT_SHORTER, HINT_START},
        link::{Link, Stream},
    },
    limits::{MESSAGE_BYTES_MAX, REPLY_BYTES_MAX, SOCKET_PATH_BYTES_MAX},
    wire::api::lattice_client::LatticeClient,
};

/// The calls of a node. Cheap to clone; each clone may have many calls in flight.
pub type Rpc = LatticeClient<Link>;

/// A failed connection to the socket of a node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is no socket: no node runs, or a node is just starting.
    #[error("no node is running: there is no socket at {}", path.display())]
    NoSocket {
        /// Path of the missing socket.
        path: PathBuf,
    },
    /// No process listens on the socket: its node was killed.
    #[error("no node is running: no process listens on {}", path.display())]
    Refused {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The socket belongs to another user.
    #[error("the node at {} belongs to another user", path.display())]
    Denied {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The path is too long for a Unix socket, so no node can listen there.
    #[error(
        "the path of the socket has {bytes} bytes; the system allows {bytes_max}: {}",
        path.display()
    )]
    PathTooLong {
        /// Path that was asked for.
        path: PathBuf,
        /// Length of that path.
        bytes: usize,
        /// Longest path that the system allows.
        bytes_max: usize,
    },
    /// There is no `$LATTICE_DATA` and no home directory, so there is no place to look for a node.
    #[error("no home directory to look for a node in: name its socket, or set $LATTICE_DATA")]
    NoHome,
    /// The system refused for another reason.
    #[error("cannot connect to {}: {source}", path.display())]
    Io {
        /// Path of the socket.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
}

/// Connects to the node that listens on `socket`.
///
/// Returns when the socket has accepted the connection. A client whose connection breaks connects
/// again at its next call. The connection also counts as broken when the node leaves a ping
/// unanswered for `PINGS_UNANSWERED_MAX` times `PING_EVERY`; all calls in flight then fail.
///
/// # Errors
/// Every variant of `ConnectError`. `NoSocket` and `Refused` mean that no node is running.
pub async fn connect(socket: &Path) -> Result<Rpc, ConnectError> {
    let first = dial(socket).await?;
    let path = socket.to_owned();
    let link = Link::new(move || {
        let path = path.clone();
        Box::pin(async move { Ok(Box::new(dial(&path).await?) as Box<dyn Stream>) })
    });
    link.begin(first).await;
    Ok(client(link))
}

async fn dial(socket: &Path) -> Result<UnixStream, ConnectError> {
    let path = || socket.to_owned();
    let bytes = socket.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        let bytes_max = SOCKET_PATH_BYTES_MAX;
        return Err(ConnectError::PathTooLong {
            path: path(),
            bytes,
            bytes_max,
        });
    }
    UnixStream::connect(socket)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ConnectError::NoSocket { path: path() },
            io::ErrorKind::ConnectionRefused => ConnectError::Refused { path: path() },
            io::ErrorKind::PermissionDenied => ConnectError::Denied { path: path() },
            _other => ConnectError::Io {
                path: path(),
                source,
            },
        })
}

/// Returns the calls over `link`.
pub(crate) fn client(link: Link) -> Rpc {
    // HTTP/2 wants an authority; the link dials the socket and never resolves this name.
    Rpc::with_origin(link, Uri::from_static("http://lattice.local"))
        .max_decoding_message_size(REPLY_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

impl From<ConnectError> for ApiError {
    fn from(error: ConnectError) -> Self {
        let message = error.to_string();
        match error {
            ConnectError::NoSocket { .. } | ConnectError::Refused { .. } => {
                Self::new("no_node", EXIT_UNAVAILABLE, message).hint(HINT_START)
            }
            ConnectError::Denied { .. } => Self::new("denied", EXIT_UNAVAILABLE, message).hint(
                "run this as the user who runs the node, or as a member of its socket_group from a \
                     new login",
            ),
            ConnectError::PathTooLong { .. } => {
                Self::usage("socket_path_too_long", message).hint(HINT_SHORTER)
            }
            ConnectError::NoHome => Self::usage("no_home", message),
            ConnectError::Io { .. } => Self::new("unavailable", EXIT_UNAVAILABLE, message),
        }
    }
}
