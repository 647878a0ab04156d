//! Bases of the simulator: the entries at and before some anchors, in parts. Real bases have their rows;
//! what a session does with either is the same.

use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _, Bytes};
use lattice::{
    id::{Author, EntryId},
    protocol::{
        entry::{SignedEntry, VerifiedEntry},
        frontier::{Frontier, FrontierTip},
        sync::PartName,
    },
};

const PART_ENTRIES: usize = 3;

#[derive(Debug, Clone, Default)]
pub struct Base {
    pub anchors: Frontier,
    pub parts: Vec<(PartName, Bytes)>,
}

impl Base {
    /// Makes a base of `entries`, which are sorted.
    pub fn of(anchors: Frontier, entries: &[&VerifiedEntry]) -> Self {
        let part = |entries: &[&VerifiedEntry]| {
            let mut bytes = Vec::new();
            for entry in entries {
                let encoded = entry.signed.encode();
                bytes.put_u32(u32::try_from(encoded.len()).unwrap());
                bytes.put_slice(&encoded);
            }
            (PartName(*blake3::hash(&bytes).as_bytes()), bytes.into())
        };
        let parts = entries.chunks(PART_ENTRIES).map(part).collect();
        Self { anchors, parts }
    }

    pub fn names(&self) -> Vec<PartName> {
        self.parts.iter().map(|(name, _)| *name).collect()
    }

    pub fn manifest(&self) -> Bytes {
        let mut bytes = Vec::new();
        bytes.put_u32(u32::try_from(self.anchors.len()).unwrap());
        for (author, tip) in self.anchors.iter() {
            bytes.put_slice(&author.0);
            bytes.put_u64(tip.seq);
            bytes.put_slice(&tip.id.0);
        }
        self.names()
            .iter()
            .for_each(|name| bytes.put_slice(&name.0));
        bytes.into()
    }

    /// Reads a manifest: the anchors, and the names of the parts.
    pub fn read(mut bytes: Bytes) -> (Frontier, Vec<PartName>) {
        let take = |bytes: &mut Bytes| -> [u8; 32] {
            let taken = bytes.split_to(32);
            taken.as_ref().try_into().unwrap()
        };
        let count = bytes.get_u32();
        let anchor = |bytes: &mut Bytes| {
            let author = Author(take(bytes));
            let seq = bytes.get_u64();
            let id = EntryId(take(bytes));
            (author, FrontierTip { seq, id })
        };
        let anchors: Frontier = (0..count).map(|_| anchor(&mut bytes)).collect();
        let mut names = Vec::new();
        while !bytes.is_empty() {
            let name = bytes.split_to(32);
            names.push(PartName(name.as_ref().try_into().unwrap()));
        }
        (anchors, names)
    }

    /// Returns the entries of these parts.
    pub fn entries(names: &[PartName], come: &BTreeMap<PartName, Bytes>) -> Vec<VerifiedEntry> {
        let mut entries = Vec::new();
        for name in names {
            let mut part = come[name].clone();
            while !part.is_empty() {
                let length = part.get_u32() as usize;
                let signed = SignedEntry::decode(part.split_to(length)).unwrap();
                entries.push(signed.parse().unwrap().verify().unwrap());
            }
        }
        entries
    }
}
