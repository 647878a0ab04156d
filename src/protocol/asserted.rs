//! A claim about what an entry did to a key, checked against the entry that its author signed.
//!
//! Needs nothing but bytes: no node, no store. A claim that holds was signed; that nothing newer
//! was, or that nothing was left out, it does not show.

use bytes::Bytes;

use crate::{
    id::StoreId,
    protocol::{
        change::{EntryRef, Kind},
        entry::{EntryError, Op, SignedEntry, VerifiedEntry},
    },
};

/// A change as it is claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssertedChange {
    /// Put or delete: nobody signs the others.
    pub kind: Kind,
    /// The key.
    pub key: Bytes,
    /// The value of a put; of nothing else.
    pub value: Option<Bytes>,
    /// When the value expires, ms since 1970; `None`: never.
    pub expires_ms: Option<u64>,
    /// Author, place and stamp of the entry.
    pub entry: EntryRef,
    /// Index of the op in the entry.
    pub op_index: u32,
    /// Ops of the entry.
    pub op_count: u32,
    /// True for an explicit batch.
    pub atomic: bool,
}

/// Why a claim does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssertedChangeError {
    /// An expiry or a retraction: what a node saw, by its own clock and members.
    #[error("nobody signs that a key expired or was retracted")]
    Unsigned,
    /// The proof is no entry, or its author did not sign it.
    #[error("the proof is no signed entry: {0}")]
    Entry(#[from] EntryError),
    /// The entry was written to another store.
    #[error("the signed entry is of store {store}")]
    Store {
        /// Its store.
        store: StoreId,
    },
    /// The author signed something else.
    #[error("the signed entry has another {field}")]
    Differs {
        /// Field that is not as claimed.
        field: &'static str,
    },
}

impl AssertedChange {
    /// Checks it against `proof`, an encoded `SignedEntry`; of any store where `store` is `None`.
    ///
    /// All fields are compared, and the author's signature is checked strictly.
    ///
    /// # Errors
    /// `AssertedChangeError`.
    pub fn check(
        &self,
        proof: Bytes,
        store: Option<StoreId>,
    ) -> Result<VerifiedEntry, AssertedChangeError> {
        let entry = SignedEntry::decode(proof)?.parse()?;
        let header = &entry.header;
        if store.is_some_and(|store| store != header.store) {
            return Err(AssertedChangeError::Store {
                store: header.store,
            });
        }
        let index = usize::try_from(self.op_index).unwrap_or(usize::MAX);
        let op = entry.ops.get(index);
        let op = op.ok_or(AssertedChangeError::Differs { field: "op_index" })?;
        let (kind, value, expires_ms) = match op {
            Op::Put {
                value, expires_ms, ..
            } => (Kind::Put, Some(value), *expires_ms),
            Op::Delete { .. } => (Kind::Delete, None, None),
        };
        if matches!(self.kind, Kind::Expire | Kind::Retract) {
            return Err(AssertedChangeError::Unsigned);
        }
        let is_same = [
            ("entry", entry.id == self.entry.id),
            ("author", entry.author() == self.entry.author),
            ("seq", header.seq == self.entry.seq),
            ("wall_ms", header.hlc.wall_ms == self.entry.hlc.wall_ms),
            ("counter", header.hlc.counter == self.entry.hlc.counter),
            (
                "op_count",
                u32::try_from(entry.ops.len()) == Ok(self.op_count),
            ),
            ("atomic", header.atomic == self.atomic),
            ("key", *op.key() == self.key),
            ("type", kind == self.kind),
            ("value", value == self.value.as_ref()),
            ("expires_ms", expires_ms == self.expires_ms),
        ];
        match is_same.into_iter().find(|(_, is_same)| !is_same) {
            Some((field, _)) => Err(AssertedChangeError::Differs { field }),
            None => Ok(entry.verify()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::{
        id::{Author, EntryId},
        protocol::{
            entry::{Header, sign},
            hlc::Hlc,
        },
    };

    const STORE: StoreId = StoreId([3; 16]);

    type Change = fn(&mut AssertedChange);

    // Of the second op of an entry, and its proof.
    fn signed() -> (AssertedChange, Bytes) {
        let put = |key: &'static str| Op::Put {
            key: key.into(),
            value: "v".into(),
            expires_ms: Some(7),
        };
        let header = Header {
            store: STORE,
            seq: 1,
            prev: None,
            hlc: Hlc {
                wall_ms: 5,
                counter: 2,
            },
            atomic: true,
            cause: None,
            parents: Vec::new(),
        };
        let key = SigningKey::from_bytes(&[1; 32]);
        let entry = sign(&key, header, vec![put("/a"), put("/b")]).unwrap();
        let claim = AssertedChange {
            kind: Kind::Put,
            key: "/b".into(),
            value: Some("v".into()),
            expires_ms: Some(7),
            entry: EntryRef::from(&*entry),
            op_index: 1,
            op_count: 2,
            atomic: true,
        };
        (claim, entry.signed.encode().into())
    }

    #[test]
    fn what_was_signed_holds_in_its_store() {
        let (claim, proof) = signed();
        assert!(claim.check(proof.clone(), None).is_ok());
        assert!(claim.check(proof.clone(), Some(STORE)).is_ok());
        let other = claim.check(proof, Some(StoreId([4; 16])));
        assert_eq!(other, Err(AssertedChangeError::Store { store: STORE }));
    }

    #[test]
    fn each_field_is_compared() {
        let (claim, proof) = signed();
        let changes: [(&str, Change); 12] = [
            ("type", |claim| claim.kind = Kind::Delete),
            ("key", |claim| claim.key = "/a".into()),
            ("value", |claim| claim.value = None),
            ("expires_ms", |claim| claim.expires_ms = None),
            ("entry", |claim| claim.entry.id = EntryId([9; 32])),
            ("author", |claim| claim.entry.author = Author([9; 32])),
            ("seq", |claim| claim.entry.seq = 2),
            ("wall_ms", |claim| claim.entry.hlc.wall_ms = 6),
            ("counter", |claim| claim.entry.hlc.counter = 3),
            ("op_index", |claim| claim.op_index = 2),
            ("op_count", |claim| claim.op_count = 1),
            ("atomic", |claim| claim.atomic = false),
        ];
        for (field, change) in changes {
            let mut claim = claim.clone();
            change(&mut claim);
            let checked = claim.check(proof.clone(), None);
            assert_eq!(checked, Err(AssertedChangeError::Differs { field }));
        }
    }

    #[test]
    fn a_signature_that_is_not_the_author_s_proves_nothing() {
        let (mut claim, proof) = signed();
        let mut forged = SignedEntry::decode(proof).unwrap();
        forged.signature[40] ^= 1;
        // Consistent in all else.
        claim.entry.id = forged.id();
        let author = claim.entry.author;
        assert_eq!(
            claim.check(forged.encode().into(), None),
            Err(AssertedChangeError::Entry(EntryError::BadSignature {
                author
            }))
        );
    }

    #[test]
    fn what_nobody_signs_cannot_be_claimed() {
        let (claim, proof) = signed();
        for kind in [Kind::Expire, Kind::Retract] {
            let claim = AssertedChange {
                kind,
                ..claim.clone()
            };
            let checked = claim.check(proof.clone(), None);
            assert_eq!(checked, Err(AssertedChangeError::Unsigned));
        }
    }
}
