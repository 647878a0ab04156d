//! Anchors act: an admin's statement of the places in one store up to which all is final, as text
//! that people can read.
//!
//! ```text
//! /stores/{store}/anchors   anchors {number}
//!                           base {hash} {keys}          or left out
//!                           through {ms since 1970}
//!                           collect {entry}             or left out
//!                           {author} {seq} {entry}      one line for each anchor
//!                           own {author} {seq} {entry}  one line for each author at most
//! ```
//!
//! Every entry that an anchor leads back to is final. Lines are sorted by author, seq and entry, and
//! no line stands twice. An author has one anchor for each of its branches, of which each act repeats
//! the last ones. `number` counts the acts of a store for people; two admins may use one twice, so
//! nothing follows from it.
//!
//! `collect` names the entry of an earlier act, whose tombstones are taken from rows that have nothing
//! else ([`finality`](super::finality)). Then the `own` lines are the evidence: of each writer the
//! last own entry that it had when it had all entries of that earlier act. Each must be at or below
//! an anchor of the same act, by place; so `own` lines stand only beside `collect`.
//!
//! `through` is the clock of the admin. [`PlacedAct`](super::placed_act::PlacedAct) has the rules for the
//! entry that makes an act.

use std::{collections::BTreeMap, fmt::Write as _};

use bytes::Bytes;
use data_encoding::HEXLOWER;

use crate::{
    id::{Author, EntryId, Seq},
    limits::{SEQ_MAX, STAMP_MS_MAX, VALUE_BYTES_MAX},
    protocol::frontier::{Frontier, FrontierTip},
};

/// Hash over a base: its rows and everything else that a node keeps of the entries below its anchors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseHash(pub [u8; 32]);

/// The base that follows from the anchors of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActBase {
    /// Hash of the base.
    pub hash: BaseHash,
    /// Number of its rows.
    pub keys: u64,
}

/// The collection of tombstones that an act orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActCollection {
    /// Entry of the earlier act, whose tombstones go.
    pub before: EntryId,
    /// The last own entry of each writer that has written, as its ack named it.
    pub own: BTreeMap<Author, FrontierTip>,
}

/// An act that makes entries of one store final. Created by [`AnchorsAct::new`] only, so it can
/// always be encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorsAct {
    number: u64,
    base: Option<ActBase>,
    through_ms: u64,
    anchors: Frontier,
    collection: Option<ActCollection>,
}

/// Why there is no such act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnchorsActError {
    /// The text is longer than a value.
    #[error(
        "an anchors act of {lines} lines takes {bytes} bytes; a value has at most {bytes_max} bytes, \
         so one of these authors must be left out"
    )]
    TooLarge {
        /// Number of anchors and own lines.
        lines: usize,
        /// Length of the text in bytes.
        bytes: usize,
        /// Greatest length allowed.
        bytes_max: usize,
    },
    /// A number is out of range.
    #[error("{what} of an anchors act is {value}: expected {min} to {max}")]
    OutOfRange {
        /// Name of the number.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The least value allowed.
        min: u64,
        /// The greatest value allowed.
        max: u64,
    },
    /// A writer's own entry is above all anchors of that writer, so entries that were written without
    /// knowing a delete may be missing.
    #[error(
        "entry {seq} of {author} is above its anchors: nothing can be collected before it is final"
    )]
    OwnAbove {
        /// The writer.
        author: Author,
        /// Seq of its own entry.
        seq: Seq,
    },
}

impl AnchorsAct {
    /// Creates an act.
    ///
    /// # Errors
    /// `OutOfRange` for a number or seq 0, a seq above `SEQ_MAX`, and a time above `STAMP_MS_MAX`;
    /// `OwnAbove`; `TooLarge`.
    pub fn new(
        number: u64,
        base: Option<ActBase>,
        through_ms: u64,
        anchors: Frontier,
        collection: Option<ActCollection>,
    ) -> Result<Self, AnchorsActError> {
        in_range("number", number, 1, u64::MAX)?;
        in_range("through", through_ms, 0, STAMP_MS_MAX)?;
        let own = collection.iter().flat_map(|it| it.own.values().copied());
        for tip in anchors.iter().map(|(_, tip)| tip).chain(own) {
            in_range("seq", tip.seq, 1, SEQ_MAX)?;
        }
        for (author, own) in collection.iter().flat_map(|it| &it.own) {
            let covers = |tip: &FrontierTip| *own == *tip || own.seq < tip.seq;
            if !anchors.tips(author).iter().any(covers) {
                return Err(AnchorsActError::OwnAbove {
                    author: *author,
                    seq: own.seq,
                });
            }
        }
        let act = Self {
            number,
            base,
            through_ms,
            anchors,
            collection,
        };
        let bytes = act.text().len();
        if bytes > VALUE_BYTES_MAX {
            let own = act.collection.map_or(0, |it| it.own.len());
            return Err(AnchorsActError::TooLarge {
                lines: act.anchors.len().saturating_add(own),
                bytes,
                bytes_max: VALUE_BYTES_MAX,
            });
        }
        Ok(act)
    }

    /// Returns the number of the act, from 1; for people only.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the base as of the anchors; `None` where the admin did not compute it: nothing can be
    /// removed from a log by such an act.
    pub fn base(&self) -> Option<ActBase> {
        self.base
    }

    /// Returns the admin's clock, in ms since 1970, not after the stamp of the entry. Values that
    /// expired before it can be collected.
    pub fn through_ms(&self) -> u64 {
        self.through_ms
    }

    /// Returns the anchors, at least the last ones of each author.
    pub fn anchors(&self) -> &Frontier {
        &self.anchors
    }

    /// Returns the collection of tombstones that the act orders, if it does.
    pub fn collection(&self) -> Option<&ActCollection> {
        self.collection.as_ref()
    }

    /// Returns the value by which a put at the store's anchors key makes this act.
    pub fn encode(&self) -> Bytes {
        Bytes::from(self.text())
    }

    /// Decodes a value; `None` unless it is exactly as `encode` writes it.
    pub fn decode(value: &[u8]) -> Option<Self> {
        if value.len() > VALUE_BYTES_MAX {
            return None;
        }
        let mut lines = str::from_utf8(value).ok()?.split('\n').peekable();
        let number = lines.next()?.strip_prefix(ANCHORS)?.parse().ok()?;
        let base = match lines.peek()?.strip_prefix(BASE) {
            Some(base) => {
                lines.next();
                let (hash, keys) = base.split_once(' ')?;
                let hash = HEXLOWER.decode(hash.as_bytes()).ok()?;
                Some(ActBase {
                    hash: BaseHash(hash.try_into().ok()?),
                    keys: keys.parse().ok()?,
                })
            }
            None => None,
        };
        let through_ms = lines.next()?.strip_prefix(THROUGH)?.parse().ok()?;
        let before = lines.peek().and_then(|line| line.strip_prefix(COLLECT));
        let before: Option<EntryId> = match before {
            Some(before) => {
                lines.next();
                Some(before.parse().ok()?)
            }
            None => None,
        };
        let (mut anchors, mut own) = (Vec::new(), BTreeMap::new());
        for line in lines {
            match line.strip_prefix(OWN) {
                Some(line) => {
                    let (author, tip) = place(line)?;
                    own.insert(author, tip);
                }
                None => anchors.push(place(line)?),
            }
        }
        // A line that stands twice, or in another order, does not encode to the same. Nor does an own
        // line without a collection.
        let collection = before.map(|before| ActCollection { before, own });
        let anchors = anchors.into_iter().collect();
        let act = Self::new(number, base, through_ms, anchors, collection).ok()?;
        (act.text().as_bytes() == value).then_some(act)
    }

    fn text(&self) -> String {
        let mut text = format!("{ANCHORS}{}", self.number);
        let mut line = |line: std::fmt::Arguments<'_>| {
            let written = text.write_char('\n').and_then(|()| text.write_fmt(line));
            written.expect("a string takes everything");
        };
        if let Some(ActBase { hash, keys }) = self.base {
            line(format_args!("{BASE}{} {keys}", HEXLOWER.encode(&hash.0)));
        }
        line(format_args!("{THROUGH}{}", self.through_ms));
        if let Some(collection) = &self.collection {
            line(format_args!("{COLLECT}{}", collection.before));
        }
        for (author, FrontierTip { seq, id }) in self.anchors.iter() {
            line(format_args!("{author} {seq} {id}"));
        }
        let own = self.collection.iter().flat_map(|it| &it.own);
        for (author, FrontierTip { seq, id }) in own {
            line(format_args!("{OWN}{author} {seq} {id}"));
        }
        text
    }
}

fn place(line: &str) -> Option<(Author, FrontierTip)> {
    let mut parts = line.splitn(3, ' ');
    let author = parts.next()?.parse().ok()?;
    let seq = parts.next()?.parse().ok()?;
    let id = parts.next()?.parse().ok()?;
    Some((author, FrontierTip { seq, id }))
}

fn in_range(what: &'static str, value: u64, min: u64, max: u64) -> Result<(), AnchorsActError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(AnchorsActError::OutOfRange {
        what,
        value,
        min,
        max,
    })
}

const ANCHORS: &str = "anchors ";
const BASE: &str = "base ";
const THROUGH: &str = "through ";
const COLLECT: &str = "collect ";
const OWN: &str = "own ";

#[cfg(test)]
mod tests {
    use super::*;

    const NODE_1: Author = Author([0x11; 32]);
    const NODE_2: Author = Author([0x22; 32]);

    fn tip(seq: Seq, id: u8) -> FrontierTip {
        FrontierTip {
            seq,
            id: EntryId([id; 32]),
        }
    }

    fn anchors() -> Frontier {
        let anchors = [
            (NODE_2, tip(30, 3)),
            (NODE_1, tip(9, 2)),
            (NODE_1, tip(10, 1)),
        ];
        anchors.into_iter().collect()
    }

    fn collection() -> ActCollection {
        ActCollection {
            before: EntryId([0xee; 32]),
            own: BTreeMap::from([(NODE_2, tip(30, 3)), (NODE_1, tip(5, 7))]),
        }
    }

    fn full() -> AnchorsAct {
        let base = ActBase {
            hash: BaseHash([0xbb; 32]),
            keys: 4,
        };
        AnchorsAct::new(17, Some(base), 1000, anchors(), Some(collection())).unwrap()
    }

    fn plain() -> AnchorsAct {
        AnchorsAct::new(1, None, 0, Frontier::default(), None).unwrap()
    }

    // Each line of the text of `full`.
    fn lines() -> [String; 9] {
        let hex = |byte: &str| byte.repeat(32);
        [
            "anchors 17".to_owned(),
            format!("base {} 4", hex("bb")),
            "through 1000".to_owned(),
            format!("collect {}", hex("ee")),
            format!("{NODE_1} 9 {}", hex("02")),
            format!("{NODE_1} 10 {}", hex("01")),
            format!("{NODE_2} 30 {}", hex("03")),
            format!("own {NODE_1} 5 {}", hex("07")),
            format!("own {NODE_2} 30 {}", hex("03")),
        ]
    }

    #[test]
    fn act_is_readable_text_and_decodes_to_itself() {
        assert_eq!(full().encode(), lines().join("\n"));
        assert_eq!(plain().encode(), "anchors 1\nthrough 0");
        let [number, _, through, _, anchor, ..] = lines();
        let least = [number, through, anchor].join("\n");
        let read = AnchorsAct::decode(least.as_bytes()).unwrap();
        assert_eq!((read.base(), read.collection()), (None, None));
        assert_eq!(
            read.anchors().iter().collect::<Vec<_>>(),
            [(NODE_1, tip(9, 2))]
        );
        for act in [plain(), full(), read] {
            assert_eq!(AnchorsAct::decode(&act.encode()), Some(act));
        }
    }

    #[test]
    fn any_other_form_is_not_an_act() {
        let line = lines();
        let replaced = |at: usize, with: &str| {
            let mut changed = lines();
            changed[at] = with.to_owned();
            changed.join("\n")
        };
        let swapped = |one: usize, other: usize| {
            let mut changed = lines();
            changed.swap(one, other);
            changed.join("\n")
        };
        let without = |at: usize| {
            let mut changed = lines().to_vec();
            changed.remove(at);
            changed.join("\n")
        };
        let twice = |at: usize| {
            let mut changed = lines().to_vec();
            changed.insert(at, changed[at].clone());
            changed.join("\n")
        };
        let mut hostile = vec![
            String::new(),
            "anchors".to_owned(),
            "anchors 1".to_owned(),
            "anchors 1\n".to_owned(),
            "anchors 1\nthrough 0\n".to_owned(),
            line.join("\r\n"),
            format!("\n{}", line.join("\n")),
            format!("{}\n", line.join("\n")),
            line.join("\n").to_uppercase(),
            replaced(0, "anchors 0"),
            replaced(0, "anchors 017"),
            replaced(0, "anchors +17"),
            replaced(0, "anchors 18446744073709551616"),
            replaced(1, &format!("{} 04", &line[1][..69])),
            replaced(1, &line[1][..69]),
            replaced(1, &line[1].replace("bb 4", "bbbb 4")),
            replaced(1, &line[1].replace("bb 4", " 4")),
            replaced(2, "through -1"),
            replaced(2, "through 140737488355328"),
            replaced(3, "collect 15"),
            replaced(4, &line[4].replace(" 9 ", " 0 ")),
            replaced(4, &line[4].replace(" 9 ", "  9 ")),
            replaced(4, &line[4].replace(" 9 ", " 09 ")),
            replaced(4, &format!("{} ", line[4])),
            replaced(6, &line[6].replace(" 30 ", " 281474976710657 ")),
            // The own entry is above the anchors of its author, or there is none.
            replaced(8, &line[8].replace(" 30 ", " 31 ")),
            replaced(8, &line[8].replace("03", "04")),
            replaced(
                8,
                &format!("own {} 1 {}", Author([0x33; 32]), "01".repeat(32)),
            ),
            replaced(8, &line[8].replace("own ", "own  ")),
            // A second own line of one author.
            replaced(8, &format!("own {NODE_1} 6 {}", "07".repeat(32))),
            // Own lines without a collection.
            without(3),
            without(0),
            without(2),
            swapped(1, 2),
            swapped(2, 3),
            swapped(4, 5),
            swapped(5, 6),
            swapped(6, 7),
            swapped(7, 8),
        ];
        hostile.extend((0..lines().len()).map(twice));
        for text in hostile {
            assert_eq!(AnchorsAct::decode(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(AnchorsAct::decode(&[0xff, 0xfe]), None);
    }

    #[test]
    fn changed_value_is_another_act_or_none() {
        let value = full().encode();
        for length in 0..value.len() {
            // A value that ends with a line is an act, too, with fewer lines.
            let read = AnchorsAct::decode(&value[..length]);
            assert!(read.is_none_or(|read| read.encode() == value[..length]));
        }
        for bit in 0..value.len() * 8 {
            let mut flipped = value.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = AnchorsAct::decode(&flipped);
            assert!(read.is_none_or(|read| read != full() && read.encode() == flipped));
        }
    }

    #[test]
    fn act_fits_one_value() {
        let many = |count: u64| -> Frontier {
            let place = |seq| (NODE_1, tip(SEQ_MAX - seq, 1));
            (0..count).map(place).collect()
        };
        // 146 bytes a line.
        let most = AnchorsAct::new(1, None, 0, many(7180), None).unwrap();
        let value = most.encode();
        assert!((VALUE_BYTES_MAX - 300..=VALUE_BYTES_MAX).contains(&value.len()));
        assert_eq!(AnchorsAct::decode(&value), Some(most));
        let refused = AnchorsAct::new(1, None, 0, many(7200), None).unwrap_err();
        let AnchorsActError::TooLarge { lines, bytes, .. } = refused else {
            panic!("{refused}")
        };
        assert_eq!((lines, bytes > VALUE_BYTES_MAX), (7200, true));
        let long = [&value[..], &b"\n".repeat(VALUE_BYTES_MAX)].concat();
        assert_eq!(AnchorsAct::decode(&long), None);
    }

    #[test]
    fn numbers_and_own_lines_are_checked() {
        let of = |number, through_ms, seq| {
            let anchors = [(NODE_1, tip(seq, 1))].into_iter().collect();
            AnchorsAct::new(number, None, through_ms, anchors, None).map(|_act| ())
        };
        assert_eq!(of(u64::MAX, STAMP_MS_MAX, SEQ_MAX), Ok(()));
        for refused in [
            of(0, 0, 1),
            of(1, STAMP_MS_MAX + 1, 1),
            of(1, 0, 0),
            of(1, 0, SEQ_MAX + 1),
        ] {
            assert!(matches!(refused, Err(AnchorsActError::OutOfRange { .. })));
        }
        let above = ActCollection {
            before: EntryId([1; 32]),
            own: BTreeMap::from([(NODE_1, tip(11, 1))]),
        };
        assert_eq!(
            AnchorsAct::new(1, None, 0, anchors(), Some(above)),
            Err(AnchorsActError::OwnAbove {
                author: NODE_1,
                seq: 11
            })
        );
    }
}
