//! Rows of the state file: canonical bytes, each with a check that covers table, key and body.
//!
//! ```text
//! heads row   key -> count u32, then for each head, least first:
//!               wall_ms u64, counter u32, author 32, seq u64, id 32, flags u8
//!               (1 tombstone, 2 expires, 4 value in log, 8 taken back)
//!               [expires_ms u64] [value length u32 [value]]
//! cause row   id of the cause 16 -> entry 32, seq u64
//! notes row   key and body as the store gave them to `State::flush`
//! meta row    "frontier" -> keys u64, entries u64, expired_through_ms u64, then for each tip, by
//!               author, seq and id: author 32, seq u64, id 32
//! these rows  body, then 8 bytes: XXH3 of body, seeded with XXH3 of key, seeded with XXH3 of table
//!
//! without a body or check:
//! expiry row  (expires_ms u64, key) of each winner that expires
//! meta row    "lacks", while entries that the frontier leads back to are missing
//! ```
//! Numbers are little-endian. Equal heads have equal bytes on every node. The check finds damage;
//! it does not protect against a writer of the file. Rows of earlier builds are also read: their
//! check is 8 bytes of BLAKE3 of table, key length u64, key and body.

use bytes::{Buf as _, BufMut as _, Bytes};
use twox_hash::XxHash3_64;

use crate::{
    id::{Author, EntryId, Seq},
    protocol::{
        heads::{Content, Head, Heads, Value},
        hlc::Hlc,
    },
};

const TOMBSTONE: u8 = 1;
const EXPIRES: u8 = 2;
const IN_LOG: u8 = 4;
const TAKEN_BACK: u8 = 8;
const CHECK_BYTES: usize = 8;
const HEAD_FIXED_BYTES: usize = 8 + 4 + 32 + 8 + 32 + 1;

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

/// Encodes the body of a heads row.
///
/// # Panics
/// Above 2^32 heads, which no memory holds.
pub fn encode_heads(heads: &Heads) -> Vec<u8> {
    let heads = heads.as_slice();
    let mut body = Vec::with_capacity(heads.len() * (HEAD_FIXED_BYTES + 160) + 4 + CHECK_BYTES);
    body.put_u32_le(u32::try_from(heads.len()).expect("heads fit in memory"));
    for head in heads {
        body.put_u64_le(head.hlc.wall_ms);
        body.put_u32_le(head.hlc.counter);
        body.put_slice(&head.author.0);
        body.put_u64_le(head.seq);
        body.put_slice(&head.id.0);
        encode_content(head, &mut body);
    }
    body
}

/// Decodes the body of a heads row; `None` when it is malformed.
pub fn decode_heads(mut body: &[u8]) -> Option<Heads> {
    let count = body.try_get_u32_le().ok()?;
    if count == 1 {
        let head = decode_head(&mut body)?;
        return body.is_empty().then(|| Heads::one(head));
    }
    let mut heads = Vec::with_capacity((count as usize).min(body.len() / HEAD_FIXED_BYTES));
    for _ in 0..count {
        heads.push(decode_head(&mut body)?);
    }
    body.is_empty().then(|| Heads::new(heads))
}

fn decode_head(body: &mut &[u8]) -> Option<Head> {
    let hlc = Hlc::new(body.try_get_u64_le().ok()?, body.try_get_u32_le().ok()?)?;
    let (author, seq) = (Author(take(body)?), body.try_get_u64_le().ok()?);
    let id = EntryId(take(body)?);
    let flags = body.try_get_u8().ok()?;
    Some(Head {
        hlc,
        author,
        seq,
        id,
        content: decode_content(flags & !TAKEN_BACK, body)?,
        taken_back: flags & TAKEN_BACK != 0,
    })
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

fn encode_content(head: &Head, body: &mut Vec<u8>) {
    let flag = |flag, is_set| if is_set { flag } else { 0 };
    let taken_back = flag(TAKEN_BACK, head.taken_back);
    let Content::Value { value, expires_ms } = &head.content else {
        body.put_u8(TOMBSTONE | taken_back);
        return;
    };
    let in_log = flag(IN_LOG, matches!(value, Value::InLog { .. }));
    body.put_u8(flag(EXPIRES, expires_ms.is_some()) | in_log | taken_back);
    if let Some(expires_ms) = expires_ms {
        body.put_u64_le(*expires_ms);
    }
    match value {
        Value::Inline(value) => {
            body.put_u32_le(u32::try_from(value.len()).expect("inline values are short"));
            body.put_slice(value);
        }
        Value::InLog { bytes } => body.put_u32_le(*bytes),
    }
}

fn decode_content(flags: u8, body: &mut &[u8]) -> Option<Content> {
    if flags & TOMBSTONE != 0 {
        return (flags == TOMBSTONE).then_some(Content::Tombstone);
    }
    let expires_ms = match flags & EXPIRES {
        0 => None,
        _set => Some(body.try_get_u64_le().ok()?),
    };
    let bytes = body.try_get_u32_le().ok()?;
    let value = if flags & IN_LOG != 0 {
        Value::InLog { bytes }
    } else {
        let (value, rest) = body.split_at_checked(bytes as usize)?;
        *body = rest;
        Value::Inline(Bytes::copy_from_slice(value))
    };
    Some(Content::Value { value, expires_ms })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A row that counted its heads in 16 bits dropped the heads above 65,535, and the order of
    /// delivery decided which ones. So two nodes with the same entries had different heads.
    #[test]
    fn rows_keep_more_than_65535_heads() {
        let head = |seq: u64| Head {
            hlc: Hlc::new(seq, 0).unwrap(),
            author: Author([7; 32]),
            id: EntryId([9; 32]),
            seq,
            content: Content::Tombstone,
            taken_back: seq.is_multiple_of(2),
        };
        for count in [0, 65_535, 65_536, 70_000] {
            let heads = Heads::new((1..=count).map(head).collect());
            let read = decode_heads(&encode_heads(&heads)).unwrap();
            assert_eq!(read.as_slice().len() as u64, count);
            assert!(read == heads, "{count} heads");
        }
    }

    #[test]
    fn count_above_the_heads_in_a_row_is_malformed() {
        let mut body = encode_heads(&Heads::default());
        body[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode_heads(&body), None);
    }
}
