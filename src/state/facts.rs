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

use std::ops::Bound;

use bytes::Bytes;

use crate::{
    id::{Author, EntryId},
    protocol::entry::Entry,
    state::{
        StateError,
        flushed::{Flushed, damaged_fact},
        view::View,
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
        self.flushed.fact(key)
    }

    /// Calls `found` with the rest of the key of each fact whose key begins with `prefix`; it returns
    /// `None` for a rest that is malformed.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn each_fact(
        &self,
        prefix: &[u8],
        mut found: impl FnMut(&[u8]) -> Option<()>,
    ) -> Result<(), StateError> {
        for layer in [&self.recent, &self.flushing] {
            let from = (Bound::Included(prefix), Bound::Unbounded);
            let keys = layer.facts.range::<_, [u8]>(from).map(|(key, _)| key);
            for rest in keys.map_while(|key| key.strip_prefix(prefix)) {
                found(rest).ok_or_else(damaged_fact)?;
            }
        }
        self.flushed.each_fact(prefix, found)
    }
}

impl Flushed {
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

// Rough number of bytes of memory that a fact takes besides its key and body.
const FACT_OVERHEAD_BYTES: usize = 80;
