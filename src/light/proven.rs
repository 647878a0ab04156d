//! The one check: a proof file in, what it shows out.

use bytes::Bytes;

use crate::{
    id::{Author, StoreId},
    light::{ProofError, StateProof, StateRow, Subject, state_proof::malformed},
    protocol::{
        ack::Ack,
        frontier::Frontier,
        heads::{Content, Heads, Value},
        heads_row::decode_heads,
        membership::ActsHash,
        merkle::{self, Levels, RowProof, TreeRoot, prefix_end},
    },
};

/// The contents of a proof that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The store.
    pub store: StoreId,
    /// The root of the state: the hash over the rows of all keys.
    pub root: TreeRoot,
    /// The keys that are proven.
    pub subject: Subject,
    /// All their rows, by key. Of a single key without a row: it was never written.
    pub rows: Vec<ProvenRow>,
    /// The nodes that have signed the root, by key; at least one.
    pub signers: Vec<Signer>,
}

/// A proven row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenRow {
    /// The key.
    pub key: Bytes,
    /// Its heads, with the value or the hash of each. The winner is what reads return.
    pub heads: Heads,
    /// The winning value. `None` for a tombstone, and where the proof has only the hash of the value.
    pub value: Option<Bytes>,
}

/// A node that has signed the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The node.
    pub node: Author,
    /// The entries that make the state.
    pub frontier: Frontier,
    /// The acts that count in it.
    pub acts: ActsHash,
}

/// Checks a proof file, and returns what it shows.
///
/// Reads nothing but `file`; takes some times as much memory, and `file` has at most
/// `PROOF_BYTES_MAX`. A caller that reads a file from elsewhere reads one byte more at most.
///
/// # Errors
/// `ProofError`: the proof shows nothing.
pub fn verify(file: &[u8]) -> Result<Proven, ProofError> {
    let proof = StateProof::decode(file)?;
    let (root, signers) = signers(&proof)?;
    let levels = Levels::new(proof.store);
    let row_proof = RowProof::decode(&proof.row_proof)?;
    match &proof.subject {
        Subject::Key(key) => {
            let row = match proof.rows.as_slice() {
                [] => None,
                [row] if row.key == key => Some(row.row.as_ref()),
                _other => return Err(malformed("it has the row of another key")),
            };
            merkle::verify(&levels, &root, key, row, &row_proof)?;
        }
        Subject::Prefix(prefix) => {
            let rows = proof.rows.iter();
            let rows = rows.map(|row| (row.key.as_ref(), row.row.as_ref()));
            let end = prefix_end(prefix);
            let range = (prefix.as_ref(), end.as_deref());
            merkle::verify_range(&levels, &root, range, rows, &row_proof)?;
        }
    }
    let rows: Result<_, _> = proof.rows.into_iter().map(ProvenRow::of).collect();
    Ok(Proven {
        store: proof.store,
        root,
        subject: proof.subject,
        rows: rows?,
        signers,
    })
}

// Returns the root, and the nodes that have signed it.
fn signers(proof: &StateProof) -> Result<(TreeRoot, Vec<Signer>), ProofError> {
    let mut signed: Option<TreeRoot> = None;
    let mut signers: Vec<Signer> = Vec::new();
    for bytes in &proof.acks {
        let claimed = Ack::decode(bytes.clone())?;
        if claimed.encode() != bytes {
            return Err(malformed("an ack has another form than acks have"));
        }
        let Ack {
            node,
            store,
            frontier,
            state,
            ..
        } = claimed.verify()?;
        let state = state.ok_or(malformed("an ack has no root"))?;
        if store != proof.store || signed.is_some_and(|root| root != state.root) {
            return Err(ProofError::OtherState { node });
        }
        if signers.last().is_some_and(|last| last.node >= node) {
            return Err(malformed("its acks are not in order"));
        }
        signed = Some(state.root);
        signers.push(Signer {
            node,
            frontier,
            acts: state.acts,
        });
    }
    let root = signed.ok_or(malformed("nobody has signed it"))?;
    Ok((root, signers))
}

impl ProvenRow {
    fn of(row: StateRow) -> Result<Self, ProofError> {
        let heads = decode_heads(&row.row).ok_or(malformed("a row does not decode"))?;
        let value = match heads.winner().map(|winner| &winner.content) {
            Some(Content::Value {
                value: Value::InLog { bytes, hash },
                ..
            }) if !row.value.is_empty() => {
                let is_it = row.value.len() == *bytes as usize
                    && *blake3::hash(&row.value).as_bytes() == *hash;
                if !is_it {
                    return Err(ProofError::OtherValue);
                }
                Some(row.value)
            }
            _other if !row.value.is_empty() => return Err(ProofError::OtherValue),
            Some(Content::Value {
                value: Value::Inline(value),
                ..
            }) => Some(value.clone()),
            Some(Content::Value { .. } | Content::Tombstone) | None => None,
        };
        Ok(Self {
            key: row.key,
            heads,
            value,
        })
    }
}
