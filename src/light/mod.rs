//! A light client: checks what a store has at a key, without a node, a store or a connection.
//!
//! `lattice get KEY --prove FILE` makes a file with the row of a key, the hashes that lead from it to
//! the root of the whole state, and the acks of members that have signed this root. `lattice list
//! PREFIX --prove FILE` does so for all keys that begin with a prefix. [`verify`] checks such a file.
//! It needs nothing else, so it can run anywhere: this module builds with `--no-default-features`.
//!
//! # What a proof shows
//! That each of [`Proven::signers`] has signed a state of the store [`Proven::store`] in which the key
//! has exactly this row, or has none. The entries of that state are named by [`Signer::frontier`]. A
//! proof does not show that the state is the newest one, nor that its signers are members: the reader
//! knows which nodes to trust, and asks whether one of them has signed.
//!
//! ```
//! use lattice::light::{self, Proven, Subject};
//!
//! /// Returns the value of `key` if `trusted` has signed a state with it.
//! fn value(
//!     file: &[u8],
//!     key: &str,
//!     trusted: lattice::id::Author,
//! ) -> Result<Option<bytes::Bytes>, light::ProofError> {
//!     let proven: Proven = light::verify(file)?;
//!     let is_trusted = proven.signers.iter().any(|signer| signer.node == trusted);
//!     let is_asked = proven.subject == Subject::Key(bytes::Bytes::copy_from_slice(key.as_bytes()));
//!     let row = proven.rows.into_iter().next();
//!     Ok(row.filter(|_| is_trusted && is_asked).and_then(|row| row.value))
//! }
//!
//! let refused = value(b"no proof", "/hello", lattice::id::Author([7; 32]));
//! assert_eq!(refused, Err(light::ProofError::NotAProof));
//! ```

mod error;
mod proven;
mod state_proof;
#[cfg(test)]
mod tests;

pub use error::ProofError;
pub use proven::{Proven, ProvenRow, Signer, verify};
pub use state_proof::{PROOF_BYTES_MAX, StateProof, StateRow, Subject};
