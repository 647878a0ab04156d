//! Asserted change: what somebody asserts that an entry did to a key, checked against the entry
//! that the author signed.
//!
//! The assertion holds if the signed entry decodes, belongs to the expected store, has the asserted
//! op at `op_index` with every field equal, and carries a strictly valid signature of its author.
//! The check needs bytes only: no node and no store. It does not show that the author was a member,
//! that nothing newer was written, or that no change was left out. Only puts and deletes can be
//! asserted: expiries and retractions are observations of a node and are not signed by anybody.

use bytes::Bytes;

use crate::{
    id::StoreId,
    protocol::{
        change::{EntryRef, Kind},
        entry::{EntryError, Op, SignedEntry, VerifiedEntry},
    },
};

/// One change, as somebody asserts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssertedChange {
    /// Put or delete; any other kind is refused.
    pub kind: Kind,
    /// Key of the op.
    pub key: Bytes,
    /// Value of a put; `None` for a delete.
    pub value: Option<Bytes>,
    /// Time at which the value expires, in ms since 1970; `None` if it never does, and for a
    /// delete.
    pub expires_ms: Option<u64>,
    /// Entry of the op: its id, author, seq and stamp.
    pub entry: EntryRef,
    /// Index of the op in the entry, from 0.
    pub op_index: u32,
    /// Number of ops in the entry.
    pub op_count: u32,
    /// Whether the entry is an explicit batch.
    pub atomic: bool,
}

/// Why an asserted change does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AssertedChangeError {
    /// An expiry or a retraction: a node observed it by its own clock and members, and did not sign
    /// it.
    #[error("expiries and retractions are not signed, so they cannot be checked")]
    Unsigned,
    /// The signed entry does not decode, or its signature is wrong.
    #[error("the signed entry is not valid: {0}")]
    Entry(#[from] EntryError),
    /// The signed entry belongs to another store.
    #[error("the signed entry belongs to store {store}")]
    Store {
        /// Store that the signed entry names.
        store: StoreId,
    },
    /// A field of the signed entry has another value.
    #[error("the signed entry has another {field}")]
    Differs {
        /// Name of the first field that differs, as in the JSON of a change.
        field: &'static str,
    },
}

impl AssertedChange {
    /// Checks the assertion against `signed`, an encoded `SignedEntry`, and returns that entry.
    ///
    /// The entry may belong to any store if `store` is `None`. All fields are compared first; the
    /// signature is checked last.
    ///
    /// # Errors
    /// `Entry` if `signed` does not decode or is not authentic; `Store` if it belongs to another
    /// store; `Unsigned` for an expiry or a retraction; `Differs` if a field has another value.
    pub fn check(
        &self,
        signed: Bytes,
        store: Option<StoreId>,
    ) -> Result<VerifiedEntry, AssertedChangeError> {
        let entry = SignedEntry::decode(signed)?.parse()?;
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
        if matches!(self.kind, Kind::Expire | Kind::Retract | Kind::Gap) {
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

    // Returns the second op of an entry as an asserted change, and the signed entry.
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
        let asserted = AssertedChange {
            kind: Kind::Put,
            key: "/b".into(),
            value: Some("v".into()),
            expires_ms: Some(7),
            entry: EntryRef::from(&*entry),
            op_index: 1,
            op_count: 2,
            atomic: true,
        };
        (asserted, entry.signed.encode().into())
    }

    #[test]
    fn signed_change_holds_in_its_store_only() {
        let (asserted, bytes) = signed();
        assert!(asserted.check(bytes.clone(), None).is_ok());
        assert!(asserted.check(bytes.clone(), Some(STORE)).is_ok());
        let other = asserted.check(bytes, Some(StoreId([4; 16])));
        assert_eq!(other, Err(AssertedChangeError::Store { store: STORE }));
    }

    #[test]
    fn any_changed_field_is_reported() {
        let (asserted, bytes) = signed();
        let changes: [(&str, Change); 12] = [
            ("type", |asserted| asserted.kind = Kind::Delete),
            ("key", |asserted| asserted.key = "/a".into()),
            ("value", |asserted| asserted.value = None),
            ("expires_ms", |asserted| asserted.expires_ms = None),
            ("entry", |asserted| asserted.entry.id = EntryId([9; 32])),
            ("author", |asserted| asserted.entry.author = Author([9; 32])),
            ("seq", |asserted| asserted.entry.seq = 2),
            ("wall_ms", |asserted| asserted.entry.hlc.wall_ms = 6),
            ("counter", |asserted| asserted.entry.hlc.counter = 3),
            ("op_index", |asserted| asserted.op_index = 2),
            ("op_count", |asserted| asserted.op_count = 1),
            ("atomic", |asserted| asserted.atomic = false),
        ];
        for (field, change) in changes {
            let mut asserted = asserted.clone();
            change(&mut asserted);
            let checked = asserted.check(bytes.clone(), None);
            assert_eq!(checked, Err(AssertedChangeError::Differs { field }));
        }
    }

    #[test]
    fn forged_signature_is_refused() {
        let (mut asserted, bytes) = signed();
        let mut forged = SignedEntry::decode(bytes).unwrap();
        forged.signature[40] ^= 1;
        // Everything else agrees with the forged entry.
        asserted.entry.id = forged.id();
        let author = asserted.entry.author;
        assert_eq!(
            asserted.check(forged.encode().into(), None),
            Err(AssertedChangeError::Entry(EntryError::BadSignature {
                author
            }))
        );
    }

    #[test]
    fn expiry_and_retraction_are_refused() {
        let (asserted, bytes) = signed();
        for kind in [Kind::Expire, Kind::Retract] {
            let asserted = AssertedChange {
                kind,
                ..asserted.clone()
            };
            let checked = asserted.check(bytes.clone(), None);
            assert_eq!(checked, Err(AssertedChangeError::Unsigned));
        }
    }
}
