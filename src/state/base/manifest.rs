//! The manifest of a base: the entries of which it has the rows, and its parts.
//!
//! ```text
//! "LATBMAN", version u8 (2); store 16, number u64, keys u64, entries u64, has taken back u8, collected 32; count of anchors u32; anchors; count of parts u32; parts; BLAKE3 of all before 32
//! anchor  author 32, seq u64, id 32, wall_ms u64, counter u32
//! part    id 32, bytes u64, records u64, length of its first key u16, that key
//! ```
//! Numbers are little-endian. The hash of a manifest with the number 0 names the base: two nodes have the
//! same base exactly when it is equal.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::{
    id::{Author, EntryId, StoreId},
    limits::{BASE_ANCHORS_MAX, BASE_KEY_BYTES_MAX, BASE_PART_BYTES_MAX, BASE_PARTS_MAX, SEQ_MAX},
    protocol::{anchor::Anchor, finality::CollectionsHash, frontier::Frontier, hlc::Hlc},
    state::base::{
        part::{PartId, PartInfo},
        record::RecordKey,
    },
};

/// Why the bytes of a peer are not taken as the manifest of a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// No node sends such bytes.
    #[error("the peer sent something that is not the manifest of a base of this store")]
    Malformed,
    /// The base is larger than this node takes.
    #[error(
        "the base that the peer offers is too large: {count} {what}, at most {count_max} are taken"
    )]
    TooLarge {
        /// The things that were counted.
        what: &'static str,
        /// Their number.
        count: u64,
        /// The greatest number allowed.
        count_max: u64,
    },
}

/// The content of a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseManifest {
    /// The store.
    pub store: StoreId,
    /// Number of the base: each has a greater one than those before it.
    pub number: u64,
    /// Number of keys, deleted ones too.
    pub keys: u64,
    /// Number of entries of which it has the rows.
    pub entries: u64,
    /// The last of these entries of each author, by author and seq.
    pub anchors: Vec<(Author, Anchor)>,
    // Whether an author has taken back one of the entries.
    pub(in crate::state) has_taken_back: bool,
    /// The collections of which it has the effect.
    pub collected: CollectionsHash,
    // By the first key.
    pub(in crate::state) parts: Vec<PartInfo>,
}

impl BaseManifest {
    /// Returns the anchors as tips: the entries from which the rows were computed.
    pub fn frontier(&self) -> Frontier {
        let anchors = self.anchors.iter();
        anchors
            .map(|(author, anchor)| (*author, anchor.tip()))
            .collect()
    }

    /// Returns the length of all parts in bytes.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// Returns the anchor of `author`, if the base has entries of it.
    pub fn anchor(&self, author: &Author) -> Option<&Anchor> {
        let found = self.anchors.binary_search_by_key(author, |(it, _)| *it);
        Some(&self.anchors.get(found.ok()?)?.1)
    }

    /// Returns the bytes that peers get: the file of this base, with the number 0. Their hash, at the
    /// end, is that of the base.
    pub fn encode_for_peers(&self) -> Bytes {
        let numbered = Self {
            number: 0,
            ..self.clone()
        };
        numbered.encode()
    }

    /// Reads what a peer sent, which must be exactly what `encode_for_peers` returns for a base that a node
    /// can have: with one anchor an author and parts in order.
    ///
    /// # Errors
    /// `ManifestError`.
    pub fn of_peer(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest = Self::decode(bytes).ok_or(ManifestError::Malformed)?;
        manifest.check_size()?;
        let mut length = Some(0_u64);
        for part in &manifest.parts {
            length = length.and_then(|sum| sum.checked_add(part.bytes));
        }
        let is_sound = manifest.anchors.is_sorted_by(|(a, _), (b, _)| a < b)
            // So that counting on from them never ends.
            && manifest.anchors.iter().all(|(_, anchor)| (1..=SEQ_MAX).contains(&anchor.seq))
            && manifest.entries <= ENTRIES_MAX
            && length.is_some()
            && manifest.encode_for_peers() == bytes;
        is_sound.then_some(manifest).ok_or(ManifestError::Malformed)
    }

    fn check_size(&self) -> Result<(), ManifestError> {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let longest = self.parts.iter().map(|part| part.bytes).max();
        let key = self.parts.iter().map(|part| part.first.0.len()).max();
        for (what, count, count_max) in [
            ("parts", count(self.parts.len()), count(BASE_PARTS_MAX)),
            (
                "authors",
                count(self.anchors.len()),
                count(BASE_ANCHORS_MAX),
            ),
            ("bytes of a part", longest.unwrap_or(0), BASE_PART_BYTES_MAX),
            (
                "bytes of a key",
                count(key.unwrap_or(0)),
                count(BASE_KEY_BYTES_MAX),
            ),
        ] {
            if count > count_max {
                return Err(ManifestError::TooLarge {
                    what,
                    count,
                    count_max,
                });
            }
        }
        Ok(())
    }

    /// Returns the bytes of the file.
    pub(super) fn encode(&self) -> Bytes {
        let mut file = BytesMut::from(HEAD.as_slice());
        file.put_slice(&self.store.0);
        for number in [self.number, self.keys, self.entries] {
            file.put_u64_le(number);
        }
        file.put_u8(u8::from(self.has_taken_back));
        file.put_slice(&self.collected.0);
        file.put_u32_le(count(self.anchors.len()));
        for (author, anchor) in &self.anchors {
            file.put_slice(&author.0);
            file.put_u64_le(anchor.seq);
            file.put_slice(&anchor.id.0);
            file.put_u64_le(anchor.hlc.wall_ms);
            file.put_u32_le(anchor.hlc.counter);
        }
        file.put_u32_le(count(self.parts.len()));
        for part in &self.parts {
            file.put_slice(&part.id.0);
            file.put_u64_le(part.bytes);
            file.put_u64_le(part.records);
            let first = &part.first.0;
            file.put_u16_le(u16::try_from(first.len()).expect("a key has at most 4 KiB and an id"));
            file.put_slice(first);
        }
        let hash = blake3::hash(&file);
        file.put_slice(hash.as_bytes());
        file.freeze()
    }

    /// Reads a file. `None` when it is of another version, cut, or damaged.
    pub(super) fn decode(file: &[u8]) -> Option<Self> {
        let (body, hash) = file.split_last_chunk::<32>()?;
        if *blake3::hash(body).as_bytes() != *hash {
            return None;
        }
        let mut body = Bytes::copy_from_slice(body.strip_prefix(HEAD.as_slice())?);
        let store = StoreId::from_slice(&take(&mut body, 16)?)?;
        let mut number = || body.try_get_u64_le().ok();
        let (number, keys, entries) = (number()?, number()?, number()?);
        let has_taken_back = body.try_get_u8().ok()? == 1;
        let collected = CollectionsHash(take(&mut body, 32)?.as_ref().try_into().ok()?);
        let (mut anchors, mut parts) = (Vec::new(), Vec::new());
        for _anchor in 0..body.try_get_u32_le().ok()? {
            let author = Author::from_slice(&take(&mut body, 32)?)?;
            let seq = body.try_get_u64_le().ok()?;
            let id = EntryId::from_slice(&take(&mut body, 32)?)?;
            let hlc = Hlc::new(body.try_get_u64_le().ok()?, body.try_get_u32_le().ok()?)?;
            anchors.push((author, Anchor { seq, id, hlc }));
        }
        for _part in 0..body.try_get_u32_le().ok()? {
            let id = PartId(take(&mut body, 32)?.as_ref().try_into().ok()?);
            let bytes = body.try_get_u64_le().ok()?;
            let records = body.try_get_u64_le().ok()?;
            let length = usize::from(body.try_get_u16_le().ok()?);
            let first = RecordKey(take(&mut body, length)?);
            parts.push(PartInfo {
                id,
                bytes,
                records,
                first,
            });
        }
        let is_sorted = parts.is_sorted_by(|a, b| a.first < b.first);
        (body.is_empty() && is_sorted).then_some(Self {
            store,
            number,
            keys,
            entries,
            anchors,
            has_taken_back,
            collected,
            parts,
        })
    }

    /// Returns the hash that names the base: of all but its number, which counts the bases of this node.
    pub fn hash(&self) -> [u8; 32] {
        let file = self.encode_for_peers();
        file.last_chunk::<32>().copied().unwrap_or_default()
    }
}

fn take(bytes: &mut Bytes, count: usize) -> Option<Bytes> {
    (bytes.len() >= count).then(|| bytes.split_to(count))
}

fn count(count: usize) -> u32 {
    u32::try_from(count).expect("fewer than 2^32")
}

const HEAD: &[u8; 8] = b"LATBMAN\x02";
// More entries than all authors of a base can have written.
const ENTRIES_MAX: u64 = u64::MAX / 2;
