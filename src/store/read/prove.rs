//! Proofs: rows of the state, with the hashes that lead from them to its root.

use bytes::Bytes;

use crate::{
    protocol::{entry::check_key, merkle::RowProof},
    state::ProvenRows,
    store::{ReadError, StateRoot, Store, read::root::state_root},
};

/// A proof that a key has a row in a state, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenKey {
    /// The state, with the root over the rows of all keys.
    pub state: StateRoot,
    /// The row of the key, as `heads_row` decodes it; `None` if it was never written.
    pub row: Option<Bytes>,
    /// The proof, for [`verify`](crate::protocol::merkle::verify).
    pub proof: RowProof,
}

/// A proof of all rows of the keys that begin with a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenPrefix {
    /// The state, with the root over the rows of all keys.
    pub state: StateRoot,
    /// The keys and their rows, by key.
    pub rows: Vec<(Bytes, Bytes)>,
    /// The proof, for [`verify_range`](crate::protocol::merkle::verify_range).
    pub proof: RowProof,
}

impl Store {
    /// Returns the row of `key` with a proof of it, or a proof that it has none.
    ///
    /// # Errors
    /// `ReadError`, as for `root`.
    pub async fn prove(&self, key: &[u8]) -> Result<ProvenKey, ReadError> {
        check_key(key).map_err(ReadError::Key)?;
        let key = Bytes::copy_from_slice(key);
        self.look(move |view, members| {
            let (root, row, proof) = view.prove(&key)?;
            Ok(ProvenKey {
                state: state_root(view, members, root)?,
                row: row.map(Bytes::from),
                proof,
            })
        })
        .await
    }

    /// Returns the rows of all keys that begin with `prefix`, tombstones among them, and a proof that
    /// these are all. `None` if they take more than about `bytes_max` bytes.
    ///
    /// # Errors
    /// `ReadError`, as for `root`.
    pub async fn prove_prefix(
        &self,
        prefix: &[u8],
        bytes_max: usize,
    ) -> Result<Option<ProvenPrefix>, ReadError> {
        let prefix = Bytes::copy_from_slice(prefix);
        self.look(move |view, members| {
            let Some(ProvenRows { root, rows, proof }) = view.prove_prefix(&prefix, bytes_max)?
            else {
                return Ok(None);
            };
            let rows = rows.into_iter().map(|(key, row)| (key, Bytes::from(row)));
            Ok(Some(ProvenPrefix {
                state: state_root(view, members, root)?,
                rows: rows.collect(),
                proof,
            }))
        })
        .await
    }
}
