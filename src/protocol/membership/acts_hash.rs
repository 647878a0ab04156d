//! Acts hash: names the acts that count. The state of a root store follows from its entries and from
//! these acts, so nodes compare their states only where their acts hashes are equal.

use std::{collections::BTreeSet, fmt};

use crate::id::{Author, EntryId};

/// BLAKE3 hash of the acts that count: equal if, and only if, the same acts count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ActsHash(pub [u8; 32]);

impl ActsHash {
    /// Returns the hash of the counting acts (the entry, and the node that it acts on) and of the
    /// other entries that need authority and have it.
    pub fn of(acts: &BTreeSet<(EntryId, Author)>, authorized: &BTreeSet<EntryId>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("lattice 2026 acts v1");
        // The number of acts separates the two lists, whose items have 64 and 32 bytes.
        hasher.update(&(acts.len() as u64).to_be_bytes());
        for (entry, node) in acts {
            hasher.update(&entry.0).update(&node.0);
        }
        for entry in authorized {
            hasher.update(&entry.0);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for ActsHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "ActsHash({a:02x}{b:02x}{c:02x}{d:02x})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_names_acts_and_authorized_entries_apart() {
        let id = |byte| EntryId([byte; 32]);
        let act = |byte| (id(byte), Author([byte; 32]));
        let all = [
            (BTreeSet::new(), BTreeSet::new()),
            (BTreeSet::from([act(1)]), BTreeSet::new()),
            (BTreeSet::from([act(2)]), BTreeSet::new()),
            (BTreeSet::new(), BTreeSet::from([id(1)])),
            // The bytes of an act are those of two entries here.
            (BTreeSet::from([act(1)]), BTreeSet::from([id(1)])),
            (BTreeSet::from([act(1), act(2)]), BTreeSet::new()),
        ];
        let hashes = all.map(|(acts, authorized)| ActsHash::of(&acts, &authorized));
        for (index, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(hash), "{index}");
        }
    }
}
