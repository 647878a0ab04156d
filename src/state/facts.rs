//! Facts: what the state knows of entries by their ids, whether they are here or not. They take no
//! memory but for what was not flushed yet.
//!
//! A fact is a row: a key, which begins with one byte for its kind, and a body.
//!
//! | kind | key after the kind | body |
//! |---|---|---|
//! | `r`, `k` | as in `cited.rs` | |
//! | `t` an entry that its author has taken back | author 32, id 32 | - |
//! | `c` a tip that its author has closed | author 32, id 32 | - |

use bytes::Bytes;

use crate::{
    id::{Author, EntryId},
    protocol::entry::Entry,
    state::{
        StateError, row,
        tables::FACTS,
        view::{Flushed, View, guarded},
    },
};

pub(super) const REFERENCE: u8 = b'r';
pub(super) const KEYS: u8 = b'k';
const TAKEN_BACK: u8 = b't';
const CLOSED: u8 = b'c';

impl View {
    /// Returns whether the author of `entry` has taken it back.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn is_taken_back(&self, entry: &Entry) -> Result<bool, StateError> {
        let key = || of_entry(TAKEN_BACK, &entry.author(), &entry.id);
        Ok(self.has_taken_back && self.fact(&key())?.is_some())
    }

    /// Returns whether `author` has closed its tip `id`.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn is_closed(&self, author: &Author, id: &EntryId) -> Result<bool, StateError> {
        Ok(self.fact(&of_entry(CLOSED, author, id))?.is_some())
    }

    /// Notes that `author` has taken back its entry `id`. False when that was known.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn take_back(&mut self, author: &Author, id: &EntryId) -> Result<bool, StateError> {
        let key = of_entry(TAKEN_BACK, author, id);
        if self.has_taken_back && self.fact(&key)?.is_some() {
            return Ok(false);
        }
        self.has_taken_back = true;
        self.note_fact(key, Bytes::new());
        Ok(true)
    }

    /// Notes that `author` has closed its tip `id`.
    pub(super) fn close_tip(&mut self, author: &Author, id: &EntryId) {
        self.note_fact(of_entry(CLOSED, author, id), Bytes::new());
    }

    pub(super) fn note_fact(&mut self, key: Vec<u8>, body: Bytes) {
        self.recent.bytes += key.len() + body.len() + FACT_OVERHEAD_BYTES;
        self.recent.facts.insert(key, body);
    }

    /// Returns the body of a fact; `None` when it is not known.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn fact(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        for layer in [&self.recent, &self.flushing] {
            if let Some(body) = layer.facts.get(key) {
                return Ok(Some(body.clone()));
            }
        }
        guarded(|| {
            let Some(row) = self.flushed.facts.get(key)? else {
                return Ok(None);
            };
            let body = row::unseal(FACTS, key, row.value()).ok_or_else(damaged)?;
            Ok(Some(Bytes::copy_from_slice(body)))
        })
    }
}

impl Flushed {
    /// Calls `found` with the rest of the key of each fact in the file whose key begins with `prefix`;
    /// it returns `None` for a rest that is malformed.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn each_fact(
        &self,
        prefix: &[u8],
        mut found: impl FnMut(&[u8]) -> Option<()>,
    ) -> Result<(), StateError> {
        guarded(|| {
            for row in self.facts.range(prefix..)? {
                let (key, row) = row?;
                let Some(rest) = key.value().strip_prefix(prefix) else {
                    break;
                };
                row::unseal(FACTS, key.value(), row.value()).ok_or_else(damaged)?;
                found(rest).ok_or_else(damaged)?;
            }
            Ok(())
        })
    }

    /// Returns the greatest key of a kind of facts; `None` when there is none.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn last_fact(&self, kind: u8) -> Result<Option<Vec<u8>>, StateError> {
        let (from, to) = ([kind], [kind + 1]);
        let last = self
            .facts
            .range(from.as_slice()..to.as_slice())?
            .next_back()
            .transpose()?;
        Ok(last.map(|(key, _row)| key.value().to_vec()))
    }

    /// Returns whether an entry was taken back, of all in the file.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn has_taken_back(&self) -> Result<bool, StateError> {
        Ok(self.last_fact(TAKEN_BACK)?.is_some())
    }
}

fn of_entry(kind: u8, author: &Author, id: &EntryId) -> Vec<u8> {
    [&[kind], author.0.as_slice(), &id.0].concat()
}

fn damaged() -> StateError {
    StateError::damaged("a fact fails its check")
}

// Rough number of bytes of memory that a fact takes besides its key and body.
const FACT_OVERHEAD_BYTES: usize = 80;
