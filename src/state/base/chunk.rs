//! Chunks: some records in a row, read and checked together.
//!
//! ```text
//! record   length of the key u16, length of the body u32, key (its kind first), body
//! ```
//! Numbers are little-endian.

use bytes::{Buf as _, BufMut as _, Bytes};

use crate::state::base::record::RecordKey;

/// Bytes after which the next chunk begins.
pub(super) const CHUNK_BYTES: usize = 64 << 10;

/// Appends a record to a chunk.
pub(super) fn push(chunk: &mut Vec<u8>, key: &RecordKey, body: &[u8]) {
    let length = u16::try_from(key.0.len()).expect("a key has at most 4 KiB and an id");
    chunk.put_u16_le(length);
    chunk.put_u32_le(u32::try_from(body.len()).expect("a body has less than 4 GiB"));
    chunk.put_slice(&key.0);
    chunk.put_slice(body);
}

/// Returns the records of a chunk; `None` when it is malformed or they are not in order.
pub(super) fn records(mut chunk: Bytes) -> Option<Vec<(RecordKey, Bytes)>> {
    let mut records: Vec<(RecordKey, Bytes)> = Vec::new();
    while chunk.has_remaining() {
        let key_bytes = usize::from(chunk.try_get_u16_le().ok()?);
        let body_bytes = usize::try_from(chunk.try_get_u32_le().ok()?).ok()?;
        if chunk.remaining() < key_bytes.checked_add(body_bytes)? {
            return None;
        }
        let key = RecordKey(chunk.split_to(key_bytes));
        let body = chunk.split_to(body_bytes);
        if records.last().is_some_and(|(last, _)| *last >= key) {
            return None;
        }
        records.push((key, body));
    }
    Some(records)
}
