//! Cursor: a position in the changes of a store, as one opaque text that any replica can use.
//!
//! The frontier names the entries delivered whole. At most one further entry is delivered in part:
//! it is named together with the number of its first ops that were delivered. Expiries are
//! delivered through a time. A replica that has all entries of the frontier can continue from a
//! cursor.
//!
//! The text is base64url without padding (RFC 4648, section 5) over a version byte, the encoded
//! `Cursor` of `lattice.proto`, and the first 4 bytes of the BLAKE3 hash of both. The check sum
//! finds typing errors and truncated text; it does not authenticate.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use prost::Message as _;

use crate::{
    id::{Author, EntryId, StoreId},
    protocol::frontier::{Frontier, FrontierTip},
    wire,
};

/// A position in the changes of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Store that the position is in.
    pub store: StoreId,
    /// Tips of all entries that have been delivered whole.
    pub frontier: Frontier,
    /// Entry past the frontier that was delivered in part; `None` if no entry was.
    pub partial: Option<Partial>,
    /// Time through which expiries have been delivered, inclusive, in ms since 1970.
    pub expired_through_ms: u64,
}

/// An entry of which only the first ops were delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// Author of the entry.
    pub author: Author,
    /// Seq and id of the entry.
    pub tip: FrontierTip,
    /// Number of its ops that were delivered, counted from the first; at least 1.
    pub ops: u32,
}

/// Why a text is refused as a cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CursorError {
    /// No node wrote the text, or the text was truncated or mistyped.
    #[error("this is not a cursor: {what}")]
    Garbage {
        /// The fault, for people.
        what: &'static str,
    },
    /// The text has a format that this version does not read.
    #[error("the cursor has format {version}; this version reads format {VERSION}")]
    Version {
        /// Version byte of the text.
        version: u8,
    },
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tip = |author: Author, tip: FrontierTip| wire::CursorTip {
            author: Bytes::copy_from_slice(&author.0),
            seq: tip.seq,
            id: Bytes::copy_from_slice(&tip.id.0),
        };
        let message = wire::Cursor {
            store_id: Bytes::copy_from_slice(&self.store.0),
            tips: self
                .frontier
                .iter()
                .map(|(author, at)| tip(author, at))
                .collect(),
            partial: self.partial.map(|partial| tip(partial.author, partial.tip)),
            partial_ops: self.partial.map_or(0, |partial| partial.ops),
            expired_through_ms: self.expired_through_ms,
        };
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&message.encode_to_vec());
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        f.write_str(&BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let bytes = BASE64URL_NOPAD
            .decode(text.trim().as_bytes())
            .map_err(|_letters| {
                garbage("it has a character that cursors do not have, or it was truncated")
            })?;
        let (body, sum) = bytes
            .split_last_chunk::<4>()
            .ok_or(garbage("it is too short"))?;
        let (version, message) = body.split_first().ok_or(garbage("it is too short"))?;
        if check(body) != *sum {
            return Err(garbage("its check sum is wrong: mistyped or truncated"));
        }
        if *version != VERSION {
            return Err(CursorError::Version { version: *version });
        }
        let message =
            wire::Cursor::decode(message).map_err(|_reason| garbage("it does not decode"))?;
        let tip = |tip: &wire::CursorTip| {
            let author = Author::from_slice(&tip.author).filter(|_| tip.seq > 0)?;
            Some((
                author,
                FrontierTip {
                    seq: tip.seq,
                    id: EntryId::from_slice(&tip.id)?,
                },
            ))
        };
        let partial = match &message.partial {
            None if message.partial_ops == 0 => None,
            Some(partial) if message.partial_ops > 0 => {
                let (author, tip) = tip(partial).ok_or(garbage("a tip is malformed"))?;
                Some(Partial {
                    author,
                    tip,
                    ops: message.partial_ops,
                })
            }
            _one_without_the_other => return Err(garbage("its partial entry is malformed")),
        };
        Ok(Self {
            store: StoreId::from_slice(&message.store_id)
                .ok_or(garbage("its store id is malformed"))?,
            frontier: message
                .tips
                .iter()
                .map(tip)
                .collect::<Option<_>>()
                .ok_or(garbage("a tip is malformed"))?,
            partial,
            expired_through_ms: message.expired_through_ms,
        })
    }
}

fn check(bytes: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = *blake3::hash(bytes).as_bytes();
    [a, b, c, d]
}

fn garbage(what: &'static str) -> CursorError {
    CursorError::Garbage { what }
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        let tip = FrontierTip {
            seq: 3,
            id: EntryId([2; 32]),
        };
        Cursor {
            store: StoreId([5; 16]),
            frontier: [(Author([1; 32]), tip)].into_iter().collect(),
            partial: Some(Partial {
                author: Author([4; 32]),
                tip,
                ops: 2,
            }),
            expired_through_ms: 77,
        }
    }

    fn text(version: u8, message: &wire::Cursor) -> String {
        let mut bytes = vec![version];
        bytes.extend(message.encode_to_vec());
        bytes.extend(check(&bytes));
        BASE64URL_NOPAD.encode(&bytes)
    }

    fn message() -> wire::Cursor {
        let bytes = BASE64URL_NOPAD
            .decode(cursor().to_string().as_bytes())
            .unwrap();
        wire::Cursor::decode(&bytes[1..bytes.len() - 4]).unwrap()
    }

    fn read_changed(change: impl FnOnce(&mut wire::Cursor)) -> Result<Cursor, CursorError> {
        let mut message = message();
        change(&mut message);
        text(VERSION, &message).parse()
    }

    #[test]
    fn surrounding_white_space_is_ignored() {
        assert_eq!(format!(" {}\n", cursor()).parse(), Ok(cursor()));
        assert_eq!(read_changed(|_| {}), Ok(cursor()));
    }

    #[test]
    fn cut_cursor_is_garbage() {
        let text = cursor().to_string();
        for length in 0..text.len() {
            let result = text[..length].parse::<Cursor>();
            assert!(
                matches!(result, Err(CursorError::Garbage { .. })),
                "{length}: {result:?}"
            );
        }
        for other in ["x", "hello", "====", "\u{1f980}", &text.repeat(2)] {
            assert!(matches!(
                other.parse::<Cursor>(),
                Err(CursorError::Garbage { .. })
            ));
        }
    }

    #[test]
    fn s19_other_version_is_not_garbage() {
        let result = text(2, &message()).parse::<Cursor>();
        assert_eq!(result, Err(CursorError::Version { version: 2 }));
    }

    #[test]
    fn malformed_parts_under_a_valid_sum_are_garbage() {
        let garbage = |result: Result<Cursor, CursorError>| {
            assert!(
                matches!(result, Err(CursorError::Garbage { .. })),
                "{result:?}"
            );
        };
        garbage(read_changed(|message| {
            message.store_id = Bytes::from_static(&[5; 15])
        }));
        garbage(read_changed(|message| message.tips[0].id = Bytes::new()));
        garbage(read_changed(|message| {
            message.tips[0].author = Bytes::from_static(&[1; 33])
        }));
        garbage(read_changed(|message| message.tips[0].seq = 0));
        garbage(read_changed(|message| message.partial_ops = 0));
        garbage(read_changed(|message| message.partial = None));
        assert!(read_changed(|message| (message.partial, message.partial_ops) = (None, 0)).is_ok());
    }
}
