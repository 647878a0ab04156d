//! The client's end: to a node's socket, or to a node in this process.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::net::UnixStream;
use tonic::codegen::http::Uri;

use crate::{
    api::{
        error::{ApiError, EXIT_UNAVAILABLE, HINT_SHORTER, HINT_START},
        link::{Link, Stream},
    },
    limits::{MESSAGE_BYTES_MAX, REPLY_BYTES_MAX, SOCKET_PATH_BYTES_MAX},
    wire::api::lattice_client::LatticeClient,
};

/// A client of a node; cheap to clone, and each clone may have many calls in flight.
pub type Client = LatticeClient<Link>;

/// Why no node answers at a socket.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No socket: no node runs, or it is just starting.
    #[error("no node is running: there is no socket at {}", path.display())]
    NoSocket {
        /// Where it should be.
        path: PathBuf,
    },
    /// A socket that nobody listens on: its node died.
    #[error("no node is running: nobody listens on {}", path.display())]
    Refused {
        /// Where it is.
        path: PathBuf,
    },
    /// Another user's node.
    #[error("the node at {} belongs to another user", path.display())]
    Denied {
        /// Where it is.
        path: PathBuf,
    },
    /// No node can have a socket there.
    #[error(
        "the socket's path has {bytes} bytes, a socket's path has at most {bytes_max}: {}",
        path.display()
    )]
    PathTooLong {
        /// Where it would be.
        path: PathBuf,
        /// What it has.
        bytes: usize,
        /// What the system allows.
        bytes_max: usize,
    },
    /// The system refused.
    #[error("cannot connect to {}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Connects to the node that listens on `socket`.
///
/// Returns when the node's socket has accepted. A client whose connection breaks connects again
/// at its next call. One to a node that answers no ping for `PING_EVERY` and `PINGS_UNANSWERED_MAX`
/// times that counts as broken: all calls under way fail.
///
/// # Errors
/// Every variant of `ConnectError`; `NoSocket` and `Refused` mean that no node is running.
pub async fn connect(socket: &Path) -> Result<Client, ConnectError> {
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

pub(super) fn client(link: Link) -> Client {
    // Nobody looks the name up: the link knows where to go.
    Client::with_origin(link, Uri::from_static("http://lattice.local"))
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
            ConnectError::Denied { .. } => Self::new("denied", EXIT_UNAVAILABLE, message)
                .hint("run this as the user who runs the node"),
            ConnectError::PathTooLong { .. } => {
                Self::usage("socket_path_too_long", message).hint(HINT_SHORTER)
            }
            ConnectError::Io { .. } => Self::new("unavailable", EXIT_UNAVAILABLE, message),
        }
    }
}
