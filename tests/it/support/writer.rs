//! An author elsewhere, whose entries the test signs.

use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use lattice::{
    Store,
    id::{Author, EntryId, Seq, StoreId},
    protocol::{
        entry::{Header, Op, Parent, VerifiedEntry, sign},
        hlc::Hlc,
    },
};

use super::model::key_of;

/// An author elsewhere. Its entries are signed here and ingested by a store.
#[derive(Debug, Clone)]
pub struct Writer {
    key: SigningKey,
    store: StoreId,
    seq: Seq,
    prev: Option<EntryId>,
    hlc: Hlc,
}

impl Writer {
    pub fn new(secret: [u8; 32], store: StoreId) -> Self {
        Self {
            key: key_of(secret),
            store,
            seq: 0,
            prev: None,
            hlc: Hlc::ZERO,
        }
    }

    pub fn author(&self) -> Author {
        Author(self.key.verifying_key().to_bytes())
    }

    pub fn write(
        &mut self,
        now_ms: u64,
        ops: Vec<Op>,
        parents: BTreeSet<Parent>,
        atomic: bool,
    ) -> VerifiedEntry {
        let latest = parents.iter().map(|parent| parent.hlc);
        self.hlc = latest.fold(self.hlc, Ord::max).next(now_ms).unwrap();
        self.seq += 1;
        let header = Header {
            store: self.store,
            seq: self.seq,
            prev: self.prev,
            hlc: self.hlc,
            atomic,
            cause: None,
            parents: parents.into_iter().collect(),
        };
        let entry = sign(&self.key, header, ops).unwrap();
        self.prev = Some(entry.id);
        entry
    }
}

/// Returns the heads of `keys` in `store`, as parents that an entry cites.
pub async fn heads_of(store: &Store, keys: &[&str]) -> BTreeSet<Parent> {
    let mut parents = BTreeSet::new();
    for key in keys {
        for head in store.heads(key.as_bytes()).await.unwrap() {
            parents.insert(Parent {
                hlc: head.entry.hlc,
                author: head.entry.author,
                id: head.entry.id,
                seq: head.entry.seq,
            });
        }
    }
    parents
}
