//! Rows of the state file: canonical bytes, each with a check that covers table, key and body.
//!
//! ```text
//! heads row   key -> the heads, as in `protocol::heads_row`
//! cause row   id of the cause 16 -> entry 32, seq u64
//! facts rows  as in `facts.rs`
//! notes row   key and body as the store gave them to `State::flush`
//! meta row    "frontier" -> keys u64, entries u64, expired_through_ms u64, then for each tip, by
//!               author, seq and id: author 32, seq u64, id 32
//! these rows  body, then 8 bytes: XXH3 of body, seeded with XXH3 of key, seeded with XXH3 of table
//!
//! without a body or check:
//! expiry row  (expires_ms u64, key) of each winner that expires
//! meta row    "lacks", while entries that the frontier leads back to are missing
//! ```
//! Numbers are little-endian. The check finds damage; it does not protect against a writer of the
//! file. Rows of earlier builds are also read: their check is 8 bytes of BLAKE3 of table, key
//! length u64, key and body.

use bytes::{Buf as _, BufMut as _};
use twox_hash::XxHash3_64;

use crate::id::{EntryId, Seq};

const CHECK_BYTES: usize = 8;

/// Appends the check of a row to its `body`.
pub fn seal(table: &str, key: &[u8], mut body: Vec<u8>) -> Vec<u8> {
    let check = check(table, key, &body);
    body.extend_from_slice(&check);
    body
}

/// Returns the body of a row; `None` when its check fails.
pub fn unseal<'a>(table: &str, key: &[u8], row: &'a [u8]) -> Option<&'a [u8]> {
    let (body, sum) = row.split_last_chunk::<CHECK_BYTES>()?;
    (check(table, key, body) == *sum || check_of_earlier_builds(table, key, body) == *sum)
        .then_some(body)
}

/// Encodes the body of a cause row.
pub fn encode_cause(entry: &EntryId, seq: Seq) -> Vec<u8> {
    let mut body = Vec::with_capacity(32 + 8 + CHECK_BYTES);
    body.put_slice(&entry.0);
    body.put_u64_le(seq);
    body
}

/// Decodes the body of a cause row; `None` when it is malformed.
pub fn decode_cause(mut body: &[u8]) -> Option<(Seq, EntryId)> {
    let entry = EntryId(take(&mut body)?);
    let seq = body.try_get_u64_le().ok()?;
    body.is_empty().then_some((seq, entry))
}

fn take<const N: usize>(body: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = body.split_first_chunk::<N>()?;
    *body = rest;
    Some(*bytes)
}

fn check(table: &str, key: &[u8], body: &[u8]) -> [u8; CHECK_BYTES] {
    let seed = XxHash3_64::oneshot(table.as_bytes());
    let seed = XxHash3_64::oneshot_with_seed(seed, key);
    XxHash3_64::oneshot_with_seed(seed, body).to_le_bytes()
}

// The check of rows that earlier builds wrote.
fn check_of_earlier_builds(table: &str, key: &[u8], body: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(table.as_bytes())
        .update(&(key.len() as u64).to_le_bytes());
    hasher.update(key).update(body);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..CHECK_BYTES]);
    check
}
