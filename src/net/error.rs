//! Why a peer is not reached, a mesh is not joined, or there is no net.

use std::{fmt::Display, time::Duration};

use iroh::endpoint::{
    ClosedStream, ConnectError, ConnectingError, ConnectionError, ReadError, ReadExactError,
    WriteError,
};

use crate::{
    id::Author,
    limits::PEER_SYNCS_MAX,
    net::gate::{self, NOT_A_MEMBER, SHUT_OUT},
    node::{MeshError, OpenError},
    protocol::sync::SyncError,
};

/// Why a peer is not reached, or what ended before its time. The peer's side of it is "it".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No node can have such an id.
    #[error("its id is no key")]
    NotAKey,
    /// It refuses: it has not heard of this node's membership, or has heard of its end.
    #[error("it does not know this node as a member (yet)")]
    NotAMember,
    /// It refuses for a while, because of what this node sent.
    #[error("it has shut this node out for a while")]
    ShutOut,
    /// It said nothing for too long.
    #[error("no answer within {wait:?}")]
    Silent {
        /// How long was waited.
        wait: Duration,
    },
    /// It ended the stream or the connection where more was due.
    #[error("it hung up")]
    HungUp,
    /// It has as many connections to this node as one may have.
    #[error("it has too many connections")]
    TooManyConnections,
    /// One side has opened more syncs than are served at a time.
    #[error("more than {syncs_max} syncs at a time")]
    TooManySyncs {
        /// What is served.
        syncs_max: usize,
    },
    /// It has opened a sync of the same store itself, which does the same.
    #[error("it has opened a session itself")]
    Busy,
    /// It does not have the store.
    #[error("it does not have the store (yet)")]
    NoStore,
    /// It sent what is no message.
    #[error("it sent {what}")]
    Malformed {
        /// What came instead.
        what: &'static str,
    },
    /// It broke the rules of a sync, or this node cannot keep them.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The way to it: no address, no route, a connection that broke.
    #[error("{what}")]
    Connection {
        /// What is wrong with it.
        what: String,
    },
    /// This node's own store or files; the peer is well.
    #[error("this node cannot go on: {what}")]
    Own {
        /// Why.
        what: String,
    },
}

/// Why there is no net.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The endpoint could not be bound.
    #[error("cannot listen for peers: {what}")]
    Bind {
        /// Why.
        what: String,
    },
    /// Not a relay's URL.
    #[error("{relay:?} is no URL of a relay")]
    BadRelay {
        /// What was given.
        relay: String,
    },
    /// The mesh says no.
    #[error(transparent)]
    Mesh(#[from] MeshError),
}

/// Why a node has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It is one of this mesh already.
    #[error("this node belongs to that mesh already")]
    Member,
    /// It has members of its own, who would lose it.
    #[error("this node has {others} other members in a mesh of its own")]
    HasMembers {
        /// How many.
        others: usize,
    },
    /// Its own invitation.
    #[error("this node gave out the invitation itself")]
    Own,
    /// The node that invited cannot be reached.
    #[error("node {} cannot be reached: {why}", node.short())]
    Unreachable {
        /// Which.
        node: Author,
        /// Why.
        why: PeerError,
    },
    /// It was reached, and refuses.
    #[error("the invitation is refused: {reason}")]
    Refused {
        /// One word for programs.
        word: String,
        /// For people.
        reason: String,
    },
    /// Let in, but not in step yet: a node that runs goes on by itself.
    #[error("this node was let in, but the first sync did not end: {why}")]
    NotSynced {
        /// Why.
        why: PeerError,
    },
    /// This node's own files.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// This node's own endpoint.
    #[error(transparent)]
    Net(#[from] NetError),
}

impl PeerError {
    /// Makes the error of a way that is none, or that broke.
    pub(super) fn connection(error: impl Display) -> Self {
        Self::Connection {
            what: error.to_string(),
        }
    }

    /// Makes the error of what went wrong here.
    pub(super) fn own(error: impl Display) -> Self {
        Self::Own {
            what: error.to_string(),
        }
    }
}

impl From<ConnectError> for PeerError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Connecting {
                source: ConnectingError::ConnectionError { source, .. },
                ..
            }
            | ConnectError::Connection { source, .. } => source.into(),
            error => Self::connection(error),
        }
    }
}

impl From<ConnectionError> for PeerError {
    fn from(error: ConnectionError) -> Self {
        let ConnectionError::ApplicationClosed(closed) = &error else {
            return Self::connection(error);
        };
        match closed.error_code.into_inner() {
            code if code == u64::from(NOT_A_MEMBER.0) => Self::NotAMember,
            code if code == u64::from(SHUT_OUT.0) => Self::ShutOut,
            code if code == u64::from(gate::BUSY.0) => Self::TooManyConnections,
            0 => Self::HungUp,
            _other => Self::connection(error),
        }
    }
}

impl From<ReadError> for PeerError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) if code == BUSY.into() => Self::Busy,
            ReadError::Reset(code) if code == NO_STORE.into() => Self::NoStore,
            ReadError::Reset(code) if code == gate::BUSY.0.into() => Self::TooManySyncs {
                syncs_max: PEER_SYNCS_MAX,
            },
            ReadError::ConnectionLost(error) => error.into(),
            error => Self::connection(error),
        }
    }
}

impl From<ReadExactError> for PeerError {
    fn from(error: ReadExactError) -> Self {
        match error {
            ReadExactError::FinishedEarly(_) => Self::HungUp,
            ReadExactError::ReadError(error) => error.into(),
        }
    }
}

impl From<WriteError> for PeerError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => error.into(),
            error => Self::connection(error),
        }
    }
}

impl From<ClosedStream> for PeerError {
    fn from(_closed: ClosedStream) -> Self {
        Self::HungUp
    }
}

/// A sync stream is reset with it where the store is not.
pub(super) const NO_STORE: u32 = 404;
/// A sync stream is reset with it where a session in the other direction goes on.
pub(super) const BUSY: u32 = 409;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_by_number_is_known_by_name() {
        let reset = |code: u32| PeerError::from(ReadError::Reset(code.into()));
        let syncs_max = PEER_SYNCS_MAX;
        assert_eq!(reset(BUSY), PeerError::Busy);
        assert_eq!(reset(NO_STORE), PeerError::NoStore);
        assert_eq!(reset(gate::BUSY.0), PeerError::TooManySyncs { syncs_max });
        assert!(matches!(reset(1), PeerError::Connection { .. }));
        let closed = |(code, reason): (u32, &'static [u8])| {
            let closed = iroh::endpoint::ApplicationClose {
                error_code: code.into(),
                reason: reason.into(),
            };
            PeerError::from(ConnectionError::ApplicationClosed(closed))
        };
        assert_eq!(closed(NOT_A_MEMBER), PeerError::NotAMember);
        assert_eq!(closed(SHUT_OUT), PeerError::ShutOut);
        assert_eq!(closed(gate::BUSY), PeerError::TooManyConnections);
        assert_eq!(closed((0, b"")), PeerError::HungUp);
        let lost = ReadError::ConnectionLost(ConnectionError::TimedOut);
        let timed_out = PeerError::connection(ConnectionError::TimedOut);
        assert_eq!(PeerError::from(lost), timed_out);
    }
}
