//! The errors of the net: with a peer, while joining a mesh, and of this node's own endpoint.

use std::{
    fmt::{self, Display},
    net::SocketAddr,
    time::Duration,
};

use iroh::endpoint::{
    ClosedStream, ConnectError, ConnectingError, ConnectionError, ReadError, ReadExactError,
    WriteError,
};

use crate::{
    id::Author,
    limits::PEER_SYNCS_MAX,
    net::{
        address::Addresses,
        base_refusal::BaseRefusal,
        gate::{self, NOT_A_MEMBER, SHUT_OUT},
    },
    node::{MeshError, OpenError},
    protocol::sync::SyncError,
};

/// Why a peer was not reached, or why an exchange with it ended early. "It" in a text is the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// Its id is not a valid public key, so no node can have it.
    #[error("its id is not a valid key")]
    NotAKey,
    /// It refuses: it does not know yet that this node is a member, or knows that it was removed.
    #[error("it does not know this node as a member (yet)")]
    NotAMember,
    /// It refuses: this node was removed, as it has proven.
    #[error("node {} has removed this node from the mesh", by.short())]
    Removed {
        /// Node that has removed this one.
        by: Author,
    },
    /// It refuses for a while because of messages that this node sent.
    #[error("it has shut this node out for a while")]
    ShutOut,
    /// It sent nothing for too long.
    #[error("no answer within {wait:?}")]
    Silent {
        /// Time for which this node waited.
        wait: Duration,
    },
    /// It ended the stream or the connection before the exchange was complete.
    #[error("it hung up")]
    HungUp,
    /// It has `PEER_CONNECTIONS_MAX` connections to this node already.
    #[error("it has too many connections")]
    TooManyConnections,
    /// One side has opened more syncs than the other serves at a time.
    #[error("more than {syncs_max} syncs at a time")]
    TooManySyncs {
        /// `PEER_SYNCS_MAX`.
        syncs_max: usize,
    },
    /// It has opened a sync of the same store itself, which does the same work.
    #[error("it has opened a session itself")]
    Busy,
    /// It serves a comparison of this node already, or those of several others.
    #[error("it serves other comparisons now; try again")]
    TooManyCompares,
    /// It has not opened the store, or does not have it.
    #[error("it does not have the store (yet)")]
    NoStore,
    /// It sent bytes that are not a message of the protocol.
    #[error("it sent {what}")]
    Malformed {
        /// The bytes that came, as a noun with its article.
        what: &'static str,
    },
    /// It broke a rule of a sync session, or this node's frontier does not fit one.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// It lacks entries that were removed everywhere else, or this node does, and this version of Lattice
    /// cannot give or take a base instead.
    #[error("it speaks a newer version of sync: update Lattice on this node")]
    NeedsUpdate,
    /// It has removed entries that this node lacks, and its base was not taken.
    #[error("it has removed entries that this node lacks: {why}")]
    Base {
        /// Why its base was not taken.
        why: BaseRefusal,
    },
    /// It has no known address or no route, or its connection broke.
    #[error("{what}")]
    Connection {
        /// The text of the transport's error.
        what: String,
    },
    /// A store or file of this node failed. The peer did nothing wrong.
    #[error("this node cannot go on: {what}")]
    Own {
        /// Text of the error.
        what: String,
    },
}

/// Why this node has no endpoint, or may not do what was asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The endpoint could not be bound.
    #[error("cannot listen for peers: {what}")]
    Bind {
        /// The text of the transport's error.
        what: String,
    },
    /// Another program has the port. The net tries again until it gets it.
    #[error("cannot listen for peers: another program uses UDP port {} of {}", address.port(), address.ip())]
    PortTaken {
        /// The address that was to be bound.
        address: SocketAddr,
    },
    /// The configured relay is not a URL.
    #[error("{relay:?} is not the URL of a relay")]
    BadRelay {
        /// The text that was configured.
        relay: String,
    },
    /// The rules of membership refuse it, or the root store could not be read or written.
    #[error(transparent)]
    Mesh(#[from] MeshError),
}

/// Why two states were not compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// The prefix is longer than any key. A peer would take the question for a broken rule.
    #[error("a prefix of {bytes} bytes; keys have at most {bytes_max}")]
    PrefixTooLong {
        /// Bytes of the prefix.
        bytes: usize,
        /// Bytes of the longest key.
        bytes_max: usize,
    },
    /// This node has no endpoint, or the other one is not a member.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The other node cannot be reached, refuses, or answers wrongly; or a store of this node failed.
    #[error("no comparison with node {}: {why}", node.short())]
    Peer {
        /// The other node.
        node: Author,
        /// The error.
        why: PeerError,
    },
}

/// Why the state of another member was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeStateError {
    /// This node has no endpoint, or the other one is not a member.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Its base was not taken.
    #[error("the state of node {} was not taken: {why}", node.short())]
    Base {
        /// The other node.
        node: Author,
        /// Why its base was not taken.
        why: BaseRefusal,
    },
    /// The other node cannot be reached, or refuses; or a store of this node failed.
    #[error("the state of node {} was not taken: {why}", node.short())]
    Peer {
        /// The other node.
        node: Author,
        /// The error.
        why: PeerError,
    },
}

/// Why a node has not joined a mesh, or has joined but not synced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// This node is a member of that mesh.
    #[error("this node is a member of that mesh already")]
    Member,
    /// This node has a mesh of its own, whose other members would lose it.
    #[error("this node has {others} other members in a mesh of its own")]
    HasMembers {
        /// Members of its mesh, without itself.
        others: usize,
    },
    /// The invitation is this node's own.
    #[error("this node made the invitation itself")]
    Own,
    /// The key of this node was removed from that mesh, or has left it. No grant takes that back.
    #[error("the key of this node was removed from that mesh, or has left it, for ever")]
    Removed,
    /// The node that invited cannot be reached.
    #[error("node {} cannot be reached: {why}; {tried}", node.short())]
    Unreachable {
        /// Node that made the invitation.
        node: Author,
        /// Addresses in the invitation.
        tried: Tried,
        /// Error of the last attempt.
        why: PeerError,
    },
    /// The node that invited was reached and refuses.
    #[error("the invitation is refused: {reason}")]
    Refused {
        /// Stable word for programs, such as `invite_expired`.
        word: String,
        /// Text for people, as the other node sent it.
        reason: String,
    },
    /// This node is a member now, but does not have the stores yet. While it runs it goes on by
    /// itself.
    #[error("this node was let in, but the first sync did not end: {why}")]
    NotSynced {
        /// Error that ended the sync.
        why: PeerError,
    },
    /// A file or store of this node failed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The endpoint of this node failed.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// The addresses at which a node was looked for, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried(pub Addresses);

impl Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Addresses { direct, relay } = &self.0;
        if self.0.is_empty() {
            return f
                .write_str("the token has no address of it, and it was not found on this network");
        }
        f.write_str("tried")?;
        let mut before = " UDP";
        for address in direct {
            write!(f, "{before} {address}")?;
            before = ",";
        }
        let before = if direct.is_empty() { "" } else { ", and" };
        relay
            .iter()
            .try_for_each(|relay| write!(f, "{before} the relay {relay}"))
    }
}

impl PeerError {
    /// Returns the error for a peer that has no route or whose connection broke.
    pub(super) fn connection(error: impl Display) -> Self {
        Self::Connection {
            what: error.to_string(),
        }
    }

    /// Returns the error for a store or file of this node that failed.
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
            code if code == u64::from(gate::STOPPED.0) => Self::HungUp,
            _other => Self::connection(error),
        }
    }
}

impl From<ReadError> for PeerError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) if code == BUSY.into() => Self::Busy,
            ReadError::Reset(code) if code == NO_STORE.into() => Self::NoStore,
            ReadError::Reset(code) if code == UPDATE.into() => Self::NeedsUpdate,
            ReadError::Reset(code) if code == COMPARES_BUSY.into() => Self::TooManyCompares,
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

/// A sync stream is reset with this code when the store is not open here.
pub(super) const NO_STORE: u32 = 404;
/// A sync stream is reset with this code when the peer speaks no version in which the sync could go on.
pub(super) const UPDATE: u32 = 426;
/// Code with which a node resets a stream of a comparison: it serves others.
pub(super) const COMPARES_BUSY: u32 = 423;
/// A sync stream is reset with this code when this node's own session of the store goes on.
pub(super) const BUSY: u32 = 409;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_become_errors() {
        let reset = |code: u32| PeerError::from(ReadError::Reset(code.into()));
        let syncs_max = PEER_SYNCS_MAX;
        assert_eq!(reset(BUSY), PeerError::Busy);
        assert_eq!(reset(NO_STORE), PeerError::NoStore);
        assert_eq!(reset(UPDATE), PeerError::NeedsUpdate);
        assert_eq!(reset(COMPARES_BUSY), PeerError::TooManyCompares);
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
        assert_eq!(closed(gate::STOPPED), PeerError::HungUp);
        let lost = ReadError::ConnectionLost(ConnectionError::TimedOut);
        let timed_out = PeerError::connection(ConnectionError::TimedOut);
        assert_eq!(PeerError::from(lost), timed_out);
    }
}
