//! Notes: what the state file keeps for the writer, beside its own rows. The one place that knows
//! their bytes.
//!
//! A note is a row: a key, which begins with one byte for the kind, and a body. Numbers in keys are
//! big-endian, so that keys sort; in bodies they are little-endian.
//!
//! | kind | key after the kind | body |
//! |---|---|---|
//! | `b` branch | author 32, number 4 | end 8, first 8, tip: seq 8, id 32, wall_ms 8, counter 4; id of the entry it left 32, if any |
//! | `p` index point | author 32, number 4, seq 8 | offset 8, wall_ms 8, arrived_ms 8 |
//! | `a` entry with acts | author 32, seq 8, id 32 | - |
//! | `g` entry that founds stores | author 32, seq 8, id 32 | count 4, then that many store ids of 16 |
//! | `d` entry about stores that its author founded before | author 32, seq 8, id 32 | as `g` |
//!
//! Notes are written in the transaction that writes the frontier they belong to. If one is
//! malformed, the state is built again from the log.

use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _};

use crate::{
    id::{Author, EntryId, Seq, StoreId},
    log::{IndexPoint, Mark},
    protocol::{chain::Tip, hlc::Hlc},
};

/// A row as the state file keeps it: key and body.
pub(super) type NoteRow = (Vec<u8>, Vec<u8>);

/// One note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Note {
    /// Where a branch ends. Its index is in notes of its own.
    Branch(Mark),
    /// A point of a branch's index.
    Point {
        /// Author and number of the branch.
        branch: (Author, u32),
        point: IndexPoint,
    },
    /// An entry that has acts.
    Act {
        author: Author,
        seq: Seq,
        id: EntryId,
    },
    /// An entry about stores that its author founded. It is not read again at a start.
    Founding(Founding),
}

/// Stores that the author of an entry founded, in it or before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Founding {
    pub(super) author: Author,
    pub(super) seq: Seq,
    pub(super) id: EntryId,
    pub(super) stores: Vec<StoreId>,
    /// True if it is the first on its branch that founds them.
    pub(super) is_first: bool,
}

/// The kinds of notes: first byte of the key. A new kind takes a byte that is not here.
mod kind {
    pub(super) const BRANCH: u8 = b'b';
    pub(super) const POINT: u8 = b'p';
    pub(super) const ACT: u8 = b'a';
    pub(super) const FOUNDING: u8 = b'g';
    pub(super) const DESCRIPTION: u8 = b'd';
}

impl Note {
    /// Returns the note as a row.
    pub(super) fn encode(&self) -> NoteRow {
        let (mut key, mut body) = (Vec::with_capacity(80), Vec::new());
        match self {
            Self::Branch(mark) => {
                key.put_u8(kind::BRANCH);
                key.put_slice(&mark.author.0);
                key.put_u32(mark.number);
                body.put_u64_le(mark.end);
                body.put_u64_le(mark.first);
                body.put_u64_le(mark.tip.seq);
                body.put_slice(&mark.tip.id.0);
                body.put_u64_le(mark.tip.hlc.wall_ms);
                body.put_u32_le(mark.tip.hlc.counter);
                if let Some(forked_from) = &mark.forked_from {
                    body.put_slice(&forked_from.0);
                }
            }
            Self::Point { branch, point } => {
                key.put_u8(kind::POINT);
                key.put_slice(&branch.0.0);
                key.put_u32(branch.1);
                key.put_u64(point.seq);
                body.put_u64_le(point.offset);
                body.put_u64_le(point.wall_ms);
                body.put_u64_le(point.arrived_ms);
            }
            Self::Act { author, seq, id } => {
                key.put_u8(kind::ACT);
                key.put_slice(&author.0);
                key.put_u64(*seq);
                key.put_slice(&id.0);
            }
            Self::Founding(founding) => {
                key.put_u8(if founding.is_first {
                    kind::FOUNDING
                } else {
                    kind::DESCRIPTION
                });
                key.put_slice(&founding.author.0);
                key.put_u64(founding.seq);
                key.put_slice(&founding.id.0);
                let count = u32::try_from(founding.stores.len());
                body.put_u32_le(count.expect("an entry has at most OPS_MAX ops"));
                for store in &founding.stores {
                    body.put_slice(&store.0);
                }
            }
        }
        (key, body)
    }

    /// Reads a row. The outer `None`: it is malformed. The inner one: a kind that this version does
    /// not know.
    fn decode((key, body): &NoteRow) -> Option<Option<Self>> {
        let (kind, mut key) = key.split_first()?;
        let mut body = body.as_slice();
        let note = match *kind {
            kind::BRANCH => {
                let author = take_author(&mut key)?;
                let number = key.try_get_u32().ok()?;
                let end = body.try_get_u64_le().ok()?;
                let first = body.try_get_u64_le().ok()?;
                let seq = body.try_get_u64_le().ok()?;
                let id = take_id(&mut body)?;
                let wall_ms = body.try_get_u64_le().ok()?;
                let hlc = Hlc::new(wall_ms, body.try_get_u32_le().ok()?)?;
                let forked_from = if body.is_empty() {
                    None
                } else {
                    Some(take_id(&mut body)?)
                };
                Self::Branch(Mark {
                    author,
                    number,
                    end,
                    first,
                    forked_from,
                    tip: Tip { seq, id, hlc },
                    index: Vec::new(),
                })
            }
            kind::POINT => {
                let author = take_author(&mut key)?;
                let branch = (author, key.try_get_u32().ok()?);
                let point = IndexPoint {
                    seq: key.try_get_u64().ok()?,
                    offset: body.try_get_u64_le().ok()?,
                    wall_ms: body.try_get_u64_le().ok()?,
                    arrived_ms: body.try_get_u64_le().ok()?,
                };
                Self::Point { branch, point }
            }
            kind::ACT => Self::Act {
                author: take_author(&mut key)?,
                seq: key.try_get_u64().ok()?,
                id: take_id(&mut key)?,
            },
            kind::FOUNDING | kind::DESCRIPTION => {
                let author = take_author(&mut key)?;
                let seq = key.try_get_u64().ok()?;
                let id = take_id(&mut key)?;
                let count = body.try_get_u32_le().ok()?;
                let mut stores = Vec::new();
                for _ in 0..count {
                    let (store, rest) = body.split_first_chunk()?;
                    body = rest;
                    stores.push(StoreId(*store));
                }
                Self::Founding(Founding {
                    author,
                    seq,
                    id,
                    stores,
                    is_first: *kind == kind::FOUNDING,
                })
            }
            _unknown => return Some(None),
        };
        (key.is_empty() && body.is_empty()).then_some(Some(note))
    }
}

fn take_author(bytes: &mut &[u8]) -> Option<Author> {
    let (author, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(Author(*author))
}

fn take_id(bytes: &mut &[u8]) -> Option<EntryId> {
    let (id, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(EntryId(*id))
}

/// All notes of a state file, by kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// Branches with their index points, by author and number.
    pub(super) marks: BTreeMap<(Author, u32), Mark>,
    /// Places of entries that have acts.
    pub(super) acts: Vec<(Author, Seq, EntryId)>,
    /// Entries about stores that their authors founded.
    pub(super) founding: Vec<Founding>,
}

impl Notes {
    /// Reads the notes of a state file; `None` if one is malformed, or is a point of a branch that
    /// has no note.
    pub(super) fn read(rows: &[NoteRow]) -> Option<Self> {
        let mut notes = Self::default();
        let mut points = Vec::new();
        for row in rows {
            match Note::decode(row)? {
                Some(Note::Branch(mark)) => {
                    notes.marks.insert((mark.author, mark.number), mark);
                }
                Some(Note::Point { branch, point }) => points.push((branch, point)),
                Some(Note::Act { author, seq, id }) => notes.acts.push((author, seq, id)),
                Some(Note::Founding(founding)) => notes.founding.push(founding),
                None => {}
            }
        }
        for (branch, point) in points {
            notes.marks.get_mut(&branch)?.index.push(point);
        }
        Some(notes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        limits::STAMP_MS_MAX,
        support::mutator::{Corpus, fuzz},
    };

    const AUTHOR: Author = Author([7; 32]);

    fn all() -> Vec<Note> {
        let mark = Mark {
            author: AUTHOR,
            number: 1,
            end: 500,
            first: 3,
            forked_from: Some(EntryId([2; 32])),
            tip: Tip {
                seq: 9,
                id: EntryId([9; 32]),
                hlc: Hlc {
                    wall_ms: 77,
                    counter: 1,
                },
            },
            index: Vec::new(),
        };
        let point = IndexPoint {
            seq: 4,
            offset: 100,
            wall_ms: 70,
            arrived_ms: 71,
        };
        vec![
            Note::Branch(mark.clone()),
            Note::Branch(Mark {
                number: 0,
                forked_from: None,
                ..mark
            }),
            Note::Point {
                branch: (AUTHOR, 1),
                point,
            },
            Note::Act {
                author: AUTHOR,
                seq: 5,
                id: EntryId([5; 32]),
            },
            Note::Founding(Founding {
                author: AUTHOR,
                seq: 6,
                id: EntryId([4; 32]),
                stores: vec![StoreId([1; 16]), StoreId([2; 16])],
                is_first: true,
            }),
            Note::Founding(Founding {
                author: AUTHOR,
                seq: 7,
                id: EntryId([5; 32]),
                stores: vec![StoreId([1; 16])],
                is_first: false,
            }),
        ]
    }

    #[test]
    fn each_kind_has_a_byte_of_its_own() {
        let kinds: BTreeSet<u8> = all().iter().map(|note| note.encode().0[0]).collect();
        assert_eq!(kinds, BTreeSet::from(*b"bpagd"));
    }

    #[test]
    fn notes_are_read_as_they_were_written() {
        for note in all() {
            assert_eq!(Note::decode(&note.encode()), Some(Some(note)));
        }
        let rows: Vec<_> = all().iter().map(Note::encode).collect();
        let notes = Notes::read(&rows).unwrap();
        assert_eq!(notes.marks.len(), 2);
        assert_eq!(notes.marks[&(AUTHOR, 1)].index.len(), 1);
        assert_eq!(notes.acts, [(AUTHOR, 5, EntryId([5; 32]))]);
    }

    #[test]
    fn a_cut_or_longer_note_is_malformed() {
        for note in all() {
            let (key, body) = note.encode();
            for length in 0..key.len() {
                assert_eq!(Note::decode(&(key[..length].to_vec(), body.clone())), None);
            }
            let forked = matches!(&note, Note::Branch(mark) if mark.forked_from.is_some());
            for length in (0..body.len()).filter(|length| !(forked && *length == body.len() - 32)) {
                assert_eq!(Note::decode(&(key.clone(), body[..length].to_vec())), None);
            }
            let longer = [key.as_slice(), &[0]].concat();
            assert_eq!(Note::decode(&(longer, body)), None);
        }
    }

    #[test]
    fn an_unknown_kind_is_left_alone_and_a_point_without_branch_is_not() {
        let unknown = (b"z1".to_vec(), b"2".to_vec());
        assert_eq!(
            Notes::read(std::slice::from_ref(&unknown)),
            Some(Notes::default())
        );
        let point = all()[2].encode();
        assert_eq!(Notes::read(&[point]), None);
    }

    #[test]
    fn s9_any_rows_are_notes_or_none() {
        let row = |note: Note| {
            let (key, body) = note.encode();
            let length = u8::try_from(key.len()).unwrap();
            [vec![length], key, body].concat()
        };
        let rows = all().into_iter().map(row);
        let Note::Branch(mut mark) = all().swap_remove(0) else {
            panic!("it is a branch")
        };
        mark.tip.hlc.wall_ms = STAMP_MS_MAX + 1;
        let broken = [row(Note::Branch(mark))];
        fuzz(&Corpus::new(rows).broken(broken), |input| {
            let Some((length, rest)) = input.split_first() else {
                return false;
            };
            let (key, body) = rest.split_at(rest.len().min(usize::from(*length)));
            let row = (key.to_vec(), body.to_vec());
            let read = Notes::read(std::slice::from_ref(&row));
            let Some(note) = Note::decode(&row) else {
                assert_eq!(read, None);
                return false;
            };
            if let Some(note) = &note {
                assert_eq!(note.encode(), row, "there is one row");
            }
            note.is_some()
        });
    }
}
