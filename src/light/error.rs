//! Why a proof is refused.

use crate::{
    id::Author,
    protocol::{ack::AckError, merkle::RowProofError},
};

/// Why a proof is refused: nothing that it says is shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The bytes do not begin as a proof does.
    #[error("this is not a proof: it does not begin as one")]
    NotAProof,
    /// The proof has a format that this version does not read.
    #[error("the proof has format {version}; this version reads format {expected}")]
    Version {
        /// Format of the proof.
        version: u8,
        /// Format that is read.
        expected: u8,
    },
    /// The proof is longer than any that a node makes.
    #[error("the proof has more than {bytes_max} bytes")]
    TooLong {
        /// Bytes that a proof can have.
        bytes_max: usize,
    },
    /// No node made these bytes, or they were changed.
    #[error("the proof was changed or cut: {what}")]
    Malformed {
        /// The fault, for people.
        what: &'static str,
    },
    /// The rows do not belong to the root that is signed.
    #[error("the proof does not show what it says")]
    Row(#[from] RowProofError),
    /// An ack is malformed, or is not signed by its node.
    #[error("the signed root in the proof is refused")]
    Ack(#[from] AckError),
    /// An ack is about another state than the others, or about another store.
    #[error("what node {node} has signed is about another state")]
    OtherState {
        /// Node that signed it.
        node: Author,
    },
    /// The value is not the one of which the row has the hash.
    #[error("the value in the proof is not the one that was signed")]
    OtherValue,
}
