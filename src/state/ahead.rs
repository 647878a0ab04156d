//! Cited ahead, in a base: parents that come after the anchors, and that entries before them cite.
//!
//! Such a parent must find the rows as if it had come first (`cited.rs`). In a base the facts about it
//! name whole references and entries, not hashes and numbers: so they are the same on every node, and
//! those about parents that the anchors have reached are gone from the next base.
//!
//! ```text
//! citer      `y`, id of the citing entry 32 -> count of references u32, references, hashes of its keys
//! reference  `x`, reference, id of the citing entry 32 -> nothing
//! ```
//! A reference has author 32, seq u64 big-endian, wall_ms u64, counter u32, id 32. Keys are hashed by
//! BLAKE3; references and hashes are sorted.

use std::collections::BTreeSet;

use bytes::{Buf as _, BufMut as _, Bytes};

use crate::{
    id::{Author, EntryId},
    protocol::{
        entry::{Entry, Parent},
        frontier::Frontier,
        hlc::Hlc,
    },
    state::{StateError, cited::hash_of_key, flushed::damaged_fact, view::View},
};

/// An entry of a base that cites parents which come after the anchors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Citer {
    /// The parents, sorted.
    pub(super) absent: Vec<Parent>,
    /// Hashes of the keys that the entry writes, sorted.
    pub(super) keys: Vec<[u8; 32]>,
}

impl Citer {
    /// Reads the body of a fact if `key` is that of a citing entry; `None` for other facts.
    ///
    /// # Errors
    /// `Damaged`.
    pub(super) fn of(key: &[u8], body: &Bytes) -> Result<Option<Self>, StateError> {
        match key.first() {
            Some(&CITER) => Self::decode(body).ok_or_else(damaged_fact).map(Some),
            _other => Ok(None),
        }
    }

    /// Returns whether `key` is that of a fact about a reference, which follows from those about citing
    /// entries.
    pub(super) fn is_reference(key: &[u8]) -> bool {
        key.first() == Some(&REFERENCE)
    }

    fn encode(&self) -> Bytes {
        let mut body = Vec::new();
        body.put_u32_le(u32::try_from(self.absent.len()).expect("at most PARENTS_MAX"));
        for parent in &self.absent {
            put_reference(&mut body, parent);
        }
        self.keys.iter().for_each(|key| body.put_slice(key));
        body.into()
    }

    fn decode(body: &Bytes) -> Option<Self> {
        let mut body = body.clone();
        let count = body.try_get_u32_le().ok()?;
        let mut absent = Vec::new();
        for _reference in 0..count {
            absent.push(take_reference(&mut body)?);
        }
        let (keys, rest) = body.as_chunks::<32>();
        rest.is_empty().then(|| Self {
            absent,
            keys: keys.to_vec(),
        })
    }
}

impl View {
    /// Returns for each op of `entry` whether an entry of the base, or of those that were applied to it,
    /// has cited `entry` and written its key.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn is_ahead_of(&self, entry: &Entry) -> Result<Vec<bool>, StateError> {
        let mut prefix = vec![REFERENCE];
        put_reference(&mut prefix, &entry.as_parent());
        let mut citers: Vec<Vec<u8>> = Vec::new();
        self.each_fact(&prefix, |citer| {
            citers.push(citer_key(citer));
            Some(())
        })?;
        let mut cited = vec![false; entry.ops.len()];
        for citer in citers {
            let body = self.fact(&citer)?.ok_or_else(damaged_fact)?;
            let keys = Citer::decode(&body).ok_or_else(damaged_fact)?.keys;
            for (cited, op) in cited.iter_mut().zip(&entry.ops) {
                *cited |= keys.binary_search(&hash_of_key(op.key())).is_ok();
            }
        }
        Ok(cited)
    }

    /// Notes that `entry` cites `absent`, which come after the anchors.
    pub(super) fn put_ahead(&mut self, entry: &Entry, mut absent: Vec<Parent>) {
        if absent.is_empty() || entry.ops.is_empty() {
            return;
        }
        absent.sort_unstable_by_key(|parent| (parent.author, parent.seq, parent.hlc, parent.id));
        let mut keys: Vec<[u8; 32]> = entry.ops.iter().map(|op| hash_of_key(op.key())).collect();
        keys.sort_unstable();
        for parent in &absent {
            self.note_fact(reference_key(parent, &entry.id), Bytes::new());
        }
        let citer = Citer { absent, keys };
        self.note_fact(citer_key(&entry.id.0), citer.encode());
    }

    /// Returns the keys of the facts that say nothing more once the anchors are at `anchors`, and citing
    /// entries with what is left of them.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn outlived(&self, anchors: &Frontier) -> Result<Outlived, StateError> {
        let mut outlived = Outlived::default();
        let mut citers: BTreeSet<Vec<u8>> = BTreeSet::new();
        for (author, tip) in anchors.iter() {
            let prefix = [[REFERENCE].as_slice(), &author.0].concat();
            self.each_fact(&prefix, |rest| {
                let (seq, _) = rest.split_first_chunk::<8>()?;
                let citer = rest.last_chunk::<32>()?;
                // They are sorted by seq within a layer only, so none ends the walk.
                if u64::from_be_bytes(*seq) <= tip.seq {
                    outlived.gone.push([&prefix, rest].concat());
                    citers.insert(citer_key(citer));
                }
                Some(())
            })?;
        }
        for key in citers {
            let body = self.fact(&key)?.ok_or_else(damaged_fact)?;
            let mut citer = Citer::decode(&body).ok_or_else(damaged_fact)?;
            citer
                .absent
                .retain(|parent| parent.seq > anchors.seq(&parent.author));
            match citer.absent.is_empty() {
                true => outlived.gone.push(key),
                false => outlived.changed.push((key, citer.encode())),
            }
        }
        Ok(outlived)
    }
}

/// Facts that say nothing more.
#[derive(Debug, Default)]
pub(super) struct Outlived {
    pub(super) gone: Vec<Vec<u8>>,
    pub(super) changed: Vec<(Vec<u8>, Bytes)>,
}

fn reference_key(parent: &Parent, citer: &EntryId) -> Vec<u8> {
    let mut key = vec![REFERENCE];
    put_reference(&mut key, parent);
    key.put_slice(&citer.0);
    key
}

fn citer_key(citer: &[u8]) -> Vec<u8> {
    [[CITER].as_slice(), citer].concat()
}

fn put_reference(bytes: &mut Vec<u8>, parent: &Parent) {
    bytes.put_slice(&parent.author.0);
    bytes.put_u64(parent.seq);
    bytes.put_u64(parent.hlc.wall_ms);
    bytes.put_u32(parent.hlc.counter);
    bytes.put_slice(&parent.id.0);
}

fn take_reference(bytes: &mut Bytes) -> Option<Parent> {
    if bytes.len() < REFERENCE_BYTES {
        return None;
    }
    let author = Author::from_slice(&bytes.split_to(32))?;
    let seq = bytes.get_u64();
    let hlc = Hlc::new(bytes.get_u64(), bytes.get_u32())?;
    let id = EntryId::from_slice(&bytes.split_to(32))?;
    Some(Parent {
        author,
        seq,
        hlc,
        id,
    })
}

const CITER: u8 = b'y';
const REFERENCE: u8 = b'x';
const REFERENCE_BYTES: usize = 32 + 8 + 8 + 4 + 32;
