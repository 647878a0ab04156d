//! A cursor: the position a watcher has reached, as one opaque text that any replica can use.

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
    /// The store.
    pub store: StoreId,
    /// Everything this names has been delivered.
    pub frontier: Frontier,
    /// An entry past the frontier of which only the first ops were delivered.
    pub partial: Option<Partial>,
    /// Expiries through this time (inclusive, ms since 1970) have been delivered.
    pub expired_through_ms: u64,
}

/// An entry that was delivered in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// Author of the entry.
    pub author: Author,
    /// Which entry.
    pub tip: FrontierTip,
    /// How many of its ops were delivered, at least 1.
    pub ops: u32,
}

/// A text that is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Not written by any node, or cut or mistyped on the way.
    #[error("this is not a cursor: {what}")]
    Garbage {
        /// The fault.
        what: &'static str,
    },
    /// Written by a version this one does not know.
    #[error("the cursor has format {version}; this version reads format {VERSION}")]
    Version {
        /// Version that the cursor names.
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
            .map_err(|_letters| garbage("it has letters that no cursor has, or was cut"))?;
        let (body, sum) = bytes
            .split_last_chunk::<4>()
            .ok_or(garbage("it is too short"))?;
        let (version, message) = body.split_first().ok_or(garbage("it is too short"))?;
        if check(body) != *sum {
            return Err(garbage("its check sum is wrong"));
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
    fn white_space_around_a_cursor_is_no_harm() {
        assert_eq!(format!(" {}\n", cursor()).parse(), Ok(cursor()));
        assert_eq!(read_changed(|_| {}), Ok(cursor()));
    }

    #[test]
    fn every_cut_of_a_cursor_is_garbage() {
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
    fn s19_another_version_is_told_apart_from_garbage() {
        let result = text(2, &message()).parse::<Cursor>();
        assert_eq!(result, Err(CursorError::Version { version: 2 }));
    }

    #[test]
    fn a_cursor_with_a_right_sum_and_wrong_parts_is_garbage() {
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
