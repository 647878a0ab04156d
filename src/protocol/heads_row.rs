//! The canonical bytes of a key's heads: the row that nodes store, hash and prove.
//!
//! ```text
//! row   count u32, then for each head, least first:
//!         wall_ms u64, counter u32, author 32, seq u64, id 32, flags u8
//!         (1 tombstone, 2 expires, 4 value in log, 8 taken back)
//!         [expires_ms u64] [value length u32, then the value, or its hash if it is in the log]
//! ```
//! Numbers are little-endian. A value above `VALUE_INLINE_BYTES_MAX` is in the log only; the row
//! has its BLAKE3 hash, so that the hash of a row speaks of every value of its key.
//!
//! Equal heads have equal bytes on every node, and only the bytes that [`encode_heads`] makes are
//! decoded. So two rows are equal exactly when their heads are.

use bytes::{Buf as _, BufMut as _, Bytes};

use crate::{
    id::{Author, EntryId},
    limits::VALUE_INLINE_BYTES_MAX,
    protocol::{
        heads::{Content, Head, Heads, Value},
        hlc::Hlc,
    },
};

const TOMBSTONE: u8 = 1;
const EXPIRES: u8 = 2;
const IN_LOG: u8 = 4;
const TAKEN_BACK: u8 = 8;
const HEAD_FIXED_BYTES: usize = 8 + 4 + 32 + 8 + 32 + 1;
// Bytes for which an encoded head is first given room, besides the fixed ones.
const HEAD_ROOM_BYTES: usize = 160;

/// Returns the row of `heads`.
///
/// # Panics
/// Above 2^32 heads, which no memory holds.
pub fn encode_heads(heads: &Heads) -> Vec<u8> {
    let heads = heads.as_slice();
    let room = HEAD_FIXED_BYTES.saturating_add(HEAD_ROOM_BYTES);
    let mut row = Vec::with_capacity(heads.len().saturating_mul(room).saturating_add(16));
    row.put_u32_le(u32::try_from(heads.len()).expect("heads fit in memory"));
    for head in heads {
        row.put_u64_le(head.hlc.wall_ms);
        row.put_u32_le(head.hlc.counter);
        row.put_slice(&head.author.0);
        row.put_u64_le(head.seq);
        row.put_slice(&head.id.0);
        encode_content(head, &mut row);
    }
    row
}

/// Returns the heads of a row; `None` when [`encode_heads`] does not make it.
pub fn decode_heads(mut row: &[u8]) -> Option<Heads> {
    let count = row.try_get_u32_le().ok()?;
    if count == 1 {
        let head = decode_head(&mut row)?;
        return row.is_empty().then(|| Heads::one(head));
    }
    let heads_max = row.len().checked_div(HEAD_FIXED_BYTES)?;
    let mut heads = Vec::with_capacity((count as usize).min(heads_max));
    for _ in 0..count {
        heads.push(decode_head(&mut row)?);
    }
    let is_sorted = heads.is_sorted_by(|low: &Head, high| low.rank() < high.rank());
    (row.is_empty() && is_sorted).then(|| Heads::new(heads))
}

fn decode_head(row: &mut &[u8]) -> Option<Head> {
    let hlc = Hlc::new(row.try_get_u64_le().ok()?, row.try_get_u32_le().ok()?)?;
    let (author, seq) = (Author(take(row)?), row.try_get_u64_le().ok()?);
    let id = EntryId(take(row)?);
    let flags = row.try_get_u8().ok()?;
    Some(Head {
        hlc,
        author,
        seq,
        id,
        content: decode_content(flags & !TAKEN_BACK, row)?,
        taken_back: flags & TAKEN_BACK != 0,
    })
}

fn encode_content(head: &Head, row: &mut Vec<u8>) {
    let flag = |flag, is_set| if is_set { flag } else { 0 };
    let taken_back = flag(TAKEN_BACK, head.taken_back);
    let Content::Value { value, expires_ms } = &head.content else {
        row.put_u8(TOMBSTONE | taken_back);
        return;
    };
    let in_log = flag(IN_LOG, matches!(value, Value::InLog { .. }));
    row.put_u8(flag(EXPIRES, expires_ms.is_some()) | in_log | taken_back);
    if let Some(expires_ms) = expires_ms {
        row.put_u64_le(*expires_ms);
    }
    match value {
        Value::Inline(value) => {
            row.put_u32_le(u32::try_from(value.len()).expect("inline values are short"));
            row.put_slice(value);
        }
        Value::InLog { bytes, hash } => {
            row.put_u32_le(*bytes);
            row.put_slice(hash);
        }
    }
}

fn decode_content(flags: u8, row: &mut &[u8]) -> Option<Content> {
    if flags & TOMBSTONE != 0 {
        return (flags == TOMBSTONE).then_some(Content::Tombstone);
    }
    if flags & !(EXPIRES | IN_LOG) != 0 {
        return None;
    }
    let expires_ms = match flags & EXPIRES {
        0 => None,
        _set => Some(row.try_get_u64_le().ok()?),
    };
    let bytes = row.try_get_u32_le().ok()?;
    let is_inline = bytes as usize <= VALUE_INLINE_BYTES_MAX;
    let value = match (flags & IN_LOG != 0, is_inline) {
        (false, true) => {
            let (value, rest) = row.split_at_checked(bytes as usize)?;
            *row = rest;
            Value::Inline(Bytes::copy_from_slice(value))
        }
        (true, false) => Value::InLog {
            bytes,
            hash: take(row)?,
        },
        (true, true) | (false, false) => return None,
    };
    Some(Content::Value { value, expires_ms })
}

fn take<const N: usize>(row: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = row.split_first_chunk::<N>()?;
    *row = rest;
    Some(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(seq: u64, content: Content) -> Head {
        Head {
            hlc: Hlc::new(seq, 0).unwrap(),
            author: Author([7; 32]),
            id: EntryId([9; 32]),
            seq,
            content,
            taken_back: false,
        }
    }

    fn value(value: Value) -> Content {
        Content::Value {
            value,
            expires_ms: None,
        }
    }

    fn in_log(bytes: usize, byte: u8) -> Content {
        value(Value::InLog {
            bytes: u32::try_from(bytes).unwrap(),
            hash: [byte; 32],
        })
    }

    /// A row that counted its heads in 16 bits dropped the heads above 65,535, and the order of
    /// delivery decided which ones. So two nodes with the same entries had different heads.
    #[test]
    fn rows_keep_more_than_65535_heads() {
        let tombstone = |seq: u64| Head {
            taken_back: seq.is_multiple_of(2),
            ..head(seq, Content::Tombstone)
        };
        for count in [0, 65_535, 65_536, 70_000] {
            let heads = Heads::new((1..=count).map(tombstone).collect());
            let read = decode_heads(&encode_heads(&heads)).unwrap();
            assert_eq!(read.as_slice().len() as u64, count);
            assert!(read == heads, "{count} heads");
        }
    }

    #[test]
    fn count_above_the_heads_in_a_row_is_malformed() {
        let mut row = encode_heads(&Heads::default());
        row[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode_heads(&row), None);
    }

    #[test]
    fn rows_of_two_big_values_differ() {
        let bytes = VALUE_INLINE_BYTES_MAX + 1;
        let row = |byte| encode_heads(&Heads::one(head(1, in_log(bytes, byte))));
        assert_ne!(row(1), row(2), "they have one length");
        let read = decode_heads(&row(1)).unwrap();
        assert_eq!(read, Heads::one(head(1, in_log(bytes, 1))));
    }

    #[test]
    fn row_has_one_form() {
        let inline = |bytes| value(Value::Inline(vec![7; bytes].into()));
        let refused = |heads: &Heads| decode_heads(&encode_heads(heads)).is_none();
        let most = VALUE_INLINE_BYTES_MAX;
        assert!(!refused(&Heads::one(head(1, inline(most)))));
        assert!(refused(&Heads::one(head(1, inline(most + 1)))));
        assert!(!refused(&Heads::one(head(1, in_log(most + 1, 1)))));
        assert!(refused(&Heads::one(head(1, in_log(most, 1)))));
        let (low, high) = (head(1, Content::Tombstone), head(2, Content::Tombstone));
        let both = encode_heads(&Heads::new(vec![low.clone(), high.clone()]));
        let one = |head: &Head| encode_heads(&Heads::one(head.clone()))[4..].to_vec();
        let count = 2_u32.to_le_bytes().to_vec();
        let row = |heads: [&Head; 2]| [count.clone(), one(heads[0]), one(heads[1])].concat();
        assert_eq!(row([&low, &high]), both);
        assert_eq!(decode_heads(&row([&high, &low])), None, "out of order");
        assert_eq!(decode_heads(&row([&low, &low])), None, "twice the same");
        for head in [low, head(1, inline(3)), head(1, in_log(most + 1, 1))] {
            let row = encode_heads(&Heads::one(head));
            for flag in 4..8 {
                let mut row = row.clone();
                row[4 + HEAD_FIXED_BYTES - 1] |= 1 << flag;
                assert_eq!(decode_heads(&row), None, "flag {flag}");
            }
        }
    }
}
