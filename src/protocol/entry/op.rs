//! An op: the change that an entry makes to one key.

use std::collections::BTreeSet;

use bytes::{Buf as _, Bytes};
use prost::Message as _;

use crate::{
    limits::{KEY_BYTES_MAX, OPS_MAX, VALUE_BYTES_MAX},
    protocol::entry::error::{EntryError, malformed},
    wire,
};

/// A put or a delete of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put {
        /// 1 to `KEY_BYTES_MAX` bytes.
        key: Bytes,
        /// At most `VALUE_BYTES_MAX` bytes.
        value: Bytes,
        /// Time when the value expires, ms since 1970; `None`: never.
        expires_ms: Option<u64>,
    },
    /// Leaves a tombstone at a key.
    Delete {
        /// 1 to `KEY_BYTES_MAX` bytes.
        key: Bytes,
    },
}

impl Op {
    /// Returns the key that it changes.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    /// Checks the limits on key and value.
    ///
    /// # Errors
    /// `KeyEmpty`, `KeyTooLong` or `ValueTooLong`.
    pub fn check(&self) -> Result<(), EntryError> {
        check_key(self.key())?;
        match self {
            Self::Put { value, .. } if value.len() > VALUE_BYTES_MAX => {
                Err(EntryError::ValueTooLong {
                    bytes: value.len(),
                    bytes_max: VALUE_BYTES_MAX,
                })
            }
            Self::Put { .. } | Self::Delete { .. } => Ok(()),
        }
    }

    /// Returns an upper bound of its encoded bytes in an entry.
    pub fn encoded_bytes_max(&self) -> usize {
        let value = match self {
            Self::Put { value, .. } => value.len(),
            Self::Delete { .. } => 0,
        };
        self.key().len().saturating_add(value).saturating_add(40)
    }
}

/// Checks the limits on a key.
///
/// # Errors
/// `KeyEmpty` or `KeyTooLong`.
pub fn check_key(key: &[u8]) -> Result<(), EntryError> {
    match key.len() {
        0 => Err(EntryError::KeyEmpty),
        bytes if bytes > KEY_BYTES_MAX => Err(EntryError::KeyTooLong {
            bytes,
            bytes_max: KEY_BYTES_MAX,
        }),
        _fits => Ok(()),
    }
}

// Decodes one op at a time, so that too many are refused before memory is reserved for them.
pub(crate) fn decode_ops(bytes: &Bytes) -> Result<Vec<Op>, EntryError> {
    const NO_OPS: EntryError = malformed("its ops are not an Ops message");
    let mut rest = bytes.clone();
    let mut ops = Vec::new();
    while rest.has_remaining() {
        if rest.get_u8() != OP_TAG {
            return Err(EntryError::NeedsNewer { what: "op field" });
        }
        let length = prost::decode_length_delimiter(&mut rest).map_err(|_reason| NO_OPS)?;
        if length > rest.len() {
            return Err(NO_OPS);
        }
        if ops.len() == OPS_MAX {
            return Err(EntryError::TooManyOps {
                ops: OPS_MAX.saturating_add(1),
                ops_max: OPS_MAX,
            });
        }
        let op = wire::Op::decode(rest.split_to(length)).map_err(|_reason| NO_OPS)?;
        let known = op.encoded_len() == length;
        ops.push(match op.kind {
            Some(wire::op::Kind::Put(put)) => Op::Put {
                key: put.key,
                value: put.value,
                expires_ms: put.expires_ms,
            },
            Some(wire::op::Kind::Delete(delete)) => Op::Delete { key: delete.key },
            None => return Err(EntryError::NeedsNewer { what: "op kind" }),
        });
        if !known {
            return Err(EntryError::NeedsNewer { what: "op field" });
        }
    }
    Ok(ops)
}

pub(crate) fn encode_ops(ops: &[Op]) -> Bytes {
    let ops = ops
        .iter()
        .map(|op| {
            let kind = match op.clone() {
                Op::Put {
                    key,
                    value,
                    expires_ms,
                } => wire::op::Kind::Put(wire::Put {
                    key,
                    value,
                    expires_ms,
                }),
                Op::Delete { key } => wire::op::Kind::Delete(wire::Delete { key }),
            };
            wire::Op { kind: Some(kind) }
        })
        .collect();
    Bytes::from(wire::Ops { ops }.encode_to_vec())
}

pub(crate) fn check_ops(ops: &[Op]) -> Result<(), EntryError> {
    if ops.len() > OPS_MAX {
        return Err(EntryError::TooManyOps {
            ops: ops.len(),
            ops_max: OPS_MAX,
        });
    }
    let mut keys = BTreeSet::new();
    for op in ops {
        op.check()?;
        if ops.len() > 1 && !keys.insert(op.key()) {
            return Err(EntryError::KeyTwice {
                key: op.key().clone(),
            });
        }
    }
    Ok(())
}

// Tag of field 1 of `Ops`, with a length after it.
const OP_TAG: u8 = 0x0a;
