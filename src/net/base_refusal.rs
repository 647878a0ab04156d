//! Why the base of a peer was not taken.

use crate::{
    log::CannotInstall,
    store::{InstallError, TakeBaseError},
};

/// Why the base of a peer was not taken. "It" in a text is the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BaseRefusal {
    /// It has none: it has removed no history, and made none final.
    #[error("it has no base")]
    NoBase,
    /// Another base is being taken into the store.
    #[error("the base of another peer is being taken")]
    Busy,
    /// It has failed to give one, and other peers have not been asked yet.
    #[error("it has failed to give a base, so other peers are asked first")]
    AskedLast,
    /// The user has chosen the state of another node since.
    #[error("the state of another node was chosen meanwhile")]
    OtherChosen,
    /// This node has removed entries that the base does not have.
    #[error("{what}")]
    Behind {
        /// Text of the error.
        what: String,
    },
    /// This node's own log does not go on from the base: it ends before it, or has forked.
    #[error("{what}")]
    OwnLog {
        /// Text of the error.
        what: String,
    },
    /// No act of an admin names it, it is malformed or came too slowly, or this node could not put it in place.
    #[error("{what}")]
    Other {
        /// Text of the error.
        what: String,
    },
}

impl From<&TakeBaseError> for BaseRefusal {
    fn from(error: &TakeBaseError) -> Self {
        let what = error.to_string();
        match error {
            TakeBaseError::Busy => Self::Busy,
            TakeBaseError::Install(InstallError::Cannot(CannotInstall::Apart { .. })) => {
                Self::Behind { what }
            }
            TakeBaseError::Install(
                InstallError::OwnLogCut
                | InstallError::Cannot(
                    CannotInstall::OwnLogBehind { .. } | CannotInstall::OwnLogForked { .. },
                ),
            ) => Self::OwnLog { what },
            _other => Self::Other { what },
        }
    }
}
