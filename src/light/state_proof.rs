//! State proof: the contents of a proof file, and its bytes.
//!
//! ```text
//! proof   "latproof", version u8 (1), a message `lattice.v1.StateProof`, then the first 8 bytes of
//!         the BLAKE3 hash of all before
//! ```
//! The message has one encoding: that of `StateProof::encode`. Other bytes are refused. The hash finds a
//! file that was cut or damaged; it does not protect against a liar, who can make another one.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;

use crate::{
    id::StoreId,
    light::ProofError,
    protocol::{entry::check_key, signed::count_items},
    wire,
};

/// Proves rows of a store to a reader who has nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateProof {
    /// The store.
    pub store: StoreId,
    /// The keys that the proof is about.
    pub subject: Subject,
    /// The rows of these keys, by key; of a key that was never written there is none.
    pub rows: Vec<StateRow>,
    /// The encoded `RowProof` of all of them.
    pub row_proof: Bytes,
    /// Signed acks with the root of the state, by node; at least one.
    pub acks: Vec<Bytes>,
}

/// The keys that a proof is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// One key.
    Key(Bytes),
    /// All keys that begin with this; all keys of the store if it is empty.
    Prefix(Bytes),
}

/// A row of a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRow {
    /// The key.
    pub key: Bytes,
    /// Its heads, as `heads_row` encodes them.
    pub row: Bytes,
    /// The winning value, if the row has only its hash and the proof has the value; else empty.
    pub value: Bytes,
}

impl StateProof {
    /// Returns the bytes of the proof file.
    pub fn encode(&self) -> Bytes {
        Self::seal(&self.message().encode_to_vec())
    }

    /// Returns the proof of these bytes. [`verify`](crate::light::verify) decides whether it shows
    /// anything.
    ///
    /// Takes about as much memory as the bytes.
    ///
    /// # Errors
    /// `NotAProof`, `Version`, `TooLong`, `Malformed`.
    pub fn decode(file: &[u8]) -> Result<Self, ProofError> {
        let bytes_max = PROOF_BYTES_MAX;
        if file.len() > bytes_max {
            return Err(ProofError::TooLong { bytes_max });
        }
        let body = file.strip_prefix(HEAD).ok_or(ProofError::NotAProof)?;
        let (version, body) = body.split_first().ok_or(CUT)?;
        if *version != VERSION {
            return Err(ProofError::Version {
                version: *version,
                expected: VERSION,
            });
        }
        let (body, sum) = body.split_last_chunk::<SUM_BYTES>().ok_or(CUT)?;
        if *sum != Self::sum(body) {
            return Err(malformed("its check fails"));
        }
        // The lists take no more memory than bytes.
        let rows = count_items(body, ROWS_FIELD, ROW_BYTES_MIN);
        let acks = count_items(body, ACKS_FIELD, ACK_BYTES_MIN);
        rows.and(acks).ok_or(CUT)?;
        let message = wire::StateProof::decode(body).map_err(|_reason| CUT)?;
        let proof = Self::of(message)?;
        if proof.message().encode_to_vec() != body {
            return Err(malformed("it has another form than a proof has"));
        }
        Ok(proof)
    }

    /// Returns the file with this encoded message.
    pub(super) fn seal(message: &[u8]) -> Bytes {
        let mut file = BytesMut::with_capacity(HEAD.len() + 1 + message.len() + SUM_BYTES);
        file.put_slice(HEAD);
        file.put_u8(VERSION);
        file.put_slice(message);
        file.put_slice(&Self::sum(message));
        file.freeze()
    }

    fn sum(message: &[u8]) -> [u8; SUM_BYTES] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(HEAD).update(&[VERSION]).update(message);
        let mut sum = [0; SUM_BYTES];
        hasher.finalize_xof().fill(&mut sum);
        sum
    }

    fn of(message: wire::StateProof) -> Result<Self, ProofError> {
        let wire::StateProof {
            store_id,
            key,
            prefix,
            rows,
            row_proof,
            acks,
        } = message;
        let store = StoreId::from_slice(&store_id);
        let subject = if key.is_empty() {
            Subject::Prefix(prefix)
        } else {
            check_key(&key).map_err(|_reason| malformed("its key is too long"))?;
            Subject::Key(key)
        };
        let row = |row: wire::ProvenRow| StateRow {
            key: row.key,
            row: row.row,
            value: row.value,
        };
        Ok(Self {
            store: store.ok_or(malformed("its store id is not 16 bytes long"))?,
            subject,
            rows: rows.into_iter().map(row).collect(),
            row_proof,
            acks,
        })
    }

    fn message(&self) -> wire::StateProof {
        let (key, prefix) = match &self.subject {
            Subject::Key(key) => (key.clone(), Bytes::new()),
            Subject::Prefix(prefix) => (Bytes::new(), prefix.clone()),
        };
        let row = |row: &StateRow| wire::ProvenRow {
            key: row.key.clone(),
            row: row.row.clone(),
            value: row.value.clone(),
        };
        wire::StateProof {
            store_id: Bytes::copy_from_slice(&self.store.0),
            key,
            prefix,
            rows: self.rows.iter().map(row).collect(),
            row_proof: self.row_proof.clone(),
            acks: self.acks.clone(),
        }
    }
}

pub(super) const fn malformed(what: &'static str) -> ProofError {
    ProofError::Malformed { what }
}

/// Bytes of a proof file: the rows and the row proof of 20,000 short keys, and acks of a hundred members
/// of a large mesh. A longer one is refused.
pub const PROOF_BYTES_MAX: usize = 16 << 20;
const HEAD: &[u8] = b"latproof";
const VERSION: u8 = 1;
const SUM_BYTES: usize = 8;
const CUT: ProofError = malformed("it does not decode");
const ROWS_FIELD: u32 = 4;
const ACKS_FIELD: u32 = 6;
// Fewest bytes of a row: a key, and a row with one head. Of an ack: a signature and a key.
const ROW_BYTES_MIN: usize = 92;
const ACK_BYTES_MIN: usize = 96;
