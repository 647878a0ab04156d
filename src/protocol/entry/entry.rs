//! An entry: the signed unit of a log, from bytes to a verified value.
//!
//! A `SignedEntry` is bytes that arrived or are to be sent, an `Entry` is well formed, and a
//! `VerifiedEntry` is authentic. Each step is a type, so no check is made twice, and none is left out.

use std::{
    ops::Deref,
    sync::{Arc, LazyLock},
};

use blake3::hazmat::{ContextKey, HasherExt as _, hash_derive_key_context};
use bytes::Bytes;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use prost::Message as _;

use crate::{
    id::{Author, EntryId, Seq, StoreId},
    limits::{HEADER_BYTES_MAX, OPS_BYTES_MAX, PARENTS_MAX, STAMP_MS_MAX},
    protocol::{
        entry::{
            cause::Cause,
            error::{EntryError, malformed},
            op::{Op, check_ops, decode_ops, encode_ops},
        },
        hlc::Hlc,
    },
    wire,
};

/// An entry as it is stored and sent: bytes and a signature, not checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedEntry {
    /// An encoded header; the signature covers exactly these bytes.
    pub header: Bytes,
    /// Ed25519 over the domain prefix and `header`.
    pub signature: [u8; 64],
    /// Key that signed.
    pub author: Author,
    /// Encoded ops; the header holds their hash.
    pub ops: Bytes,
}

/// The signed part of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The store the entry belongs to.
    pub store: StoreId,
    /// Place in the author's log, from 1.
    pub seq: Seq,
    /// The entry before on the author's branch; `None` exactly when `seq` is 1.
    pub prev: Option<EntryId>,
    /// Time of writing; greater than that of `prev` and of every parent.
    pub hlc: Hlc,
    /// True for an explicit batch, which is delivered whole.
    pub atomic: bool,
    /// Why a hook wrote the entry; `None` if no hook did.
    pub cause: Option<Cause>,
    /// Heads of this entry's keys on the node where it was written, in ascending order.
    pub parents: Vec<Parent>,
}

impl Header {
    /// Returns the number of hooks between this entry and one that a person wrote; 0 if a person wrote
    /// it.
    pub fn depth(&self) -> u32 {
        self.cause.as_ref().map_or(0, |cause| cause.depth)
    }
}

/// An entry that another one supersedes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parent {
    /// Time of writing.
    pub hlc: Hlc,
    /// Key that signed it.
    pub author: Author,
    /// Id of the entry.
    pub id: EntryId,
    /// Place in its author's log, from 1.
    pub seq: Seq,
}

impl SignedEntry {
    /// Reads an encoded `SignedEntry`.
    ///
    /// # Errors
    /// `Malformed`, also for sizes above the limits.
    pub fn decode(bytes: Bytes) -> Result<Self, EntryError> {
        let bytes_len = bytes.len();
        let message = wire::SignedEntry::decode(bytes)
            .map_err(|_reason| malformed("it is not a SignedEntry message"))?;
        if message.encoded_len() != bytes_len {
            return Err(malformed("its frame is not canonical"));
        }
        if message.header.len() > HEADER_BYTES_MAX || message.ops.len() > OPS_BYTES_MAX {
            return Err(malformed("it is longer than an entry may be"));
        }
        Ok(Self {
            header: message.header,
            signature: message
                .signature
                .as_ref()
                .try_into()
                .map_err(|_length| malformed("its signature has not 64 bytes"))?,
            author: Author::from_slice(&message.author)
                .ok_or(malformed("its author has not 32 bytes"))?,
            ops: message.ops,
        })
    }

    /// Encodes the entry as `decode` reads it.
    pub fn encode(&self) -> Vec<u8> {
        wire::SignedEntry {
            header: self.header.clone(),
            signature: Bytes::copy_from_slice(&self.signature),
            author: Bytes::copy_from_slice(&self.author.0),
            ops: self.ops.clone(),
        }
        .encode_to_vec()
    }

    /// Returns the entry's id. It commits to author, signature and header, and by the header to the
    /// ops.
    pub fn id(&self) -> EntryId {
        let mut hasher = blake3::Hasher::new_from_context_key(&ID_KEY);
        hasher
            .update(&self.author.0)
            .update(&self.signature)
            .update(&self.header);
        EntryId(*hasher.finalize().as_bytes())
    }

    /// Reads header and ops, and makes all checks that need neither a key nor a log.
    ///
    /// # Errors
    /// Every variant of `EntryError` but `BadSignature`.
    pub fn parse(self) -> Result<Entry, EntryError> {
        self.read(true)
    }

    /// Like `parse`, for bytes whose id shows that they were parsed before: the check that they are the
    /// one canonical encoding is left out.
    ///
    /// # Errors
    /// Like `parse`.
    pub fn parse_again(self) -> Result<Entry, EntryError> {
        self.read(false)
    }

    fn read(self, first: bool) -> Result<Entry, EntryError> {
        let message = wire::Header::decode(self.header.clone())
            .map_err(|_reason| malformed("its header is not a Header message"))?;
        if message.version != VERSION {
            return Err(EntryError::NeedsNewer {
                what: "header version",
            });
        }
        if first {
            check_canonical(&message.encode_to_vec(), &self.header, "header field")?;
        } else if message.encoded_len() != self.header.len() {
            return Err(EntryError::NeedsNewer {
                what: "header field",
            });
        }
        if message.ops_len != self.ops.len() as u64
            || message.ops_hash != blake3::hash(&self.ops).as_bytes().as_slice()
        {
            return Err(malformed("its ops are not those the header names"));
        }
        let header = Header::from_wire(message, &self.author)?;
        let ops = decode_ops(&self.ops)?;
        if first {
            check_canonical(&encode_ops(&ops), &self.ops, "op field")?;
        }
        check_ops(&ops)?;
        Ok(Entry {
            id: self.id(),
            header,
            ops,
            signed: self,
        })
    }
}

impl Header {
    fn from_wire(message: wire::Header, author: &Author) -> Result<Self, EntryError> {
        if message.flags & !FLAG_ATOMIC != 0 {
            return Err(EntryError::NeedsNewer {
                what: "header flag",
            });
        }
        let prev = match message.prev.len() {
            0 => None,
            _given => Some(
                EntryId::from_slice(&message.prev).ok_or(malformed("its prev has not 32 bytes"))?,
            ),
        };
        let parents = message
            .parents
            .into_iter()
            .map(|parent| Parent::from_wire(parent, author));
        let header = Self {
            store: StoreId::from_slice(&message.store_id)
                .ok_or(malformed("its store id has not 16 bytes"))?,
            seq: message.seq,
            prev,
            hlc: Hlc {
                wall_ms: message.wall_ms,
                counter: message.counter,
            },
            atomic: message.flags & FLAG_ATOMIC != 0,
            cause: message.cause.map(Cause::from_wire).transpose()?,
            parents: parents.collect::<Result<_, _>>()?,
        };
        header.check()?;
        Ok(header)
    }

    /// Checks a header by itself, both before signing and after reading: no node signs a header that
    /// another refuses.
    fn check(&self) -> Result<(), EntryError> {
        let parents = self.parents.len();
        if parents > PARENTS_MAX {
            return Err(EntryError::TooManyParents {
                parents,
                parents_max: PARENTS_MAX,
            });
        }
        if self.seq == 0 || self.parents.iter().any(|parent| parent.seq == 0) {
            return Err(malformed("a seq is 0"));
        }
        if self.prev.is_none() != (self.seq == 1) {
            return Err(malformed(
                "the first entry, and only the first, has no prev",
            ));
        }
        if self.hlc.wall_ms > STAMP_MS_MAX {
            return Err(malformed("its stamp has more than 47 bits"));
        }
        if self.parents.iter().any(|parent| parent.hlc >= self.hlc) {
            return Err(malformed("a parent is not older than the entry"));
        }
        if !self.parents.is_sorted_by(|before, after| before < after) {
            return Err(malformed(
                "its parents are not in order, or one comes twice",
            ));
        }
        self.cause.as_ref().map_or(Ok(()), Cause::check)
    }

    fn to_wire(&self, author: &Author, ops: &[u8]) -> wire::Header {
        wire::Header {
            version: VERSION,
            store_id: Bytes::copy_from_slice(&self.store.0),
            seq: self.seq,
            prev: self
                .prev
                .map_or(Bytes::new(), |id| Bytes::copy_from_slice(&id.0)),
            wall_ms: self.hlc.wall_ms,
            counter: self.hlc.counter,
            flags: if self.atomic { FLAG_ATOMIC } else { 0 },
            cause: self.cause.as_ref().map(Cause::to_wire),
            parents: self
                .parents
                .iter()
                .map(|parent| parent.to_wire(author))
                .collect(),
            ops_hash: Bytes::copy_from_slice(blake3::hash(ops).as_bytes()),
            ops_len: ops.len() as u64,
        }
    }
}

impl Parent {
    fn from_wire(message: wire::Parent, own: &Author) -> Result<Self, EntryError> {
        let author = if message.author.is_empty() {
            *own
        } else {
            let author = Author::from_slice(&message.author)
                .ok_or(malformed("a parent's author has not 32 bytes"))?;
            if author == *own {
                return Err(malformed("a parent names the entry's own author"));
            }
            author
        };
        Ok(Self {
            hlc: Hlc {
                wall_ms: message.wall_ms,
                counter: message.counter,
            },
            author,
            id: EntryId::from_slice(&message.id)
                .ok_or(malformed("a parent's id has not 32 bytes"))?,
            seq: message.seq,
        })
    }

    fn to_wire(self, own: &Author) -> wire::Parent {
        wire::Parent {
            author: if self.author == *own {
                Bytes::new()
            } else {
                Bytes::copy_from_slice(&self.author.0)
            },
            seq: self.seq,
            wall_ms: self.hlc.wall_ms,
            counter: self.hlc.counter,
            id: Bytes::copy_from_slice(&self.id.0),
        }
    }
}

/// A well-formed entry with a signature that is not checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Id, as `SignedEntry::id` returns it.
    pub id: EntryId,
    /// Header that the author signed.
    pub header: Header,
    /// Changes it makes, in order; each key at most once.
    pub ops: Vec<Op>,
    /// Bytes from which it was read.
    pub signed: SignedEntry,
}

impl Entry {
    /// Returns the author's key.
    pub fn author(&self) -> Author {
        self.signed.author
    }

    /// Returns its place in the order that all nodes share.
    pub fn order(&self) -> Order {
        Order {
            hlc: self.header.hlc,
            author: self.signed.author,
            id: self.id,
        }
    }

    /// Returns the reference by which other entries cite it.
    pub fn as_parent(&self) -> Parent {
        Parent {
            hlc: self.header.hlc,
            author: self.signed.author,
            id: self.id,
            seq: self.header.seq,
        }
    }

    /// Returns the bytes that count for how far a signature vouches back.
    pub fn signed_bytes(&self) -> usize {
        let SignedEntry { header, ops, .. } = &self.signed;
        header.len().saturating_add(ops.len())
    }

    /// Returns about the bytes that it takes in memory: encoded, and read.
    pub fn bytes(&self) -> usize {
        let came = self
            .signed
            .header
            .len()
            .saturating_add(self.signed.ops.len());
        let read = size_of_val(self.ops.as_slice())
            .saturating_add(size_of_val(self.header.parents.as_slice()));
        came.saturating_add(read).saturating_add(512)
    }

    /// Checks the signature, strictly (RFC 8032 with small-order keys and points refused).
    ///
    /// # Errors
    /// `BadSignature`.
    pub fn verify(self) -> Result<VerifiedEntry, EntryError> {
        self.check_signature()?;
        Ok(VerifiedEntry {
            entry: Arc::new(self),
            is_checked: true,
        })
    }

    /// Checks the signature, as `verify`.
    ///
    /// # Errors
    /// `BadSignature`.
    pub fn check_signature(&self) -> Result<(), EntryError> {
        let author = self.signed.author;
        let key = VerifyingKey::from_bytes(&author.0)
            .map_err(|_not_a_point| EntryError::BadSignature { author })?;
        let signature = Signature::from_bytes(&self.signed.signature);
        key.verify_strict(&signed_bytes(&self.signed.header), &signature)
            .map_err(|_refused| EntryError::BadSignature { author })
    }

    /// Accepts the entry as authentic without a check of its signature. The caller knows that something
    /// authentic commits to its id: a later entry of its branch, or this node's own log, where it was
    /// written after a check.
    pub fn vouched(self) -> VerifiedEntry {
        VerifiedEntry {
            entry: Arc::new(self),
            is_checked: false,
        }
    }
}

/// An authentic entry. Cheap to clone.
#[derive(Debug, Clone)]
pub struct VerifiedEntry {
    entry: Arc<Entry>,
    // True when its own signature was checked; false when something authentic commits to its id.
    is_checked: bool,
}

impl VerifiedEntry {
    /// Returns whether its own signature is known to verify, without a check.
    pub fn is_checked(&self) -> bool {
        self.is_checked
    }

    /// Returns whether its own signature verifies. An author can vouch with a later entry for one
    /// whose own signature is wrong: such an entry counts only together with one that vouches for it.
    pub fn verifies(&self) -> bool {
        self.is_checked || self.check_signature().is_ok()
    }
}

impl PartialEq for VerifiedEntry {
    fn eq(&self, other: &Self) -> bool {
        self.entry == other.entry
    }
}

impl Eq for VerifiedEntry {}

impl Deref for VerifiedEntry {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

/// Signs a header over `ops`.
///
/// # Errors
/// The limits of `Op::check`, `TooManyOps`, `OpsTooLong`, `TooManyParents`, `KeyTwice`; `Malformed`
/// for a header that no node would read.
pub fn sign(
    key: &SigningKey,
    mut header: Header,
    ops: Vec<Op>,
) -> Result<VerifiedEntry, EntryError> {
    check_ops(&ops)?;
    header.parents.sort_unstable();
    header.check()?;
    let author = Author(key.verifying_key().to_bytes());
    let ops_bytes = encode_ops(&ops);
    if ops_bytes.len() > OPS_BYTES_MAX {
        return Err(EntryError::OpsTooLong {
            bytes: ops_bytes.len(),
            bytes_max: OPS_BYTES_MAX,
        });
    }
    let header_bytes = Bytes::from(header.to_wire(&author, &ops_bytes).encode_to_vec());
    let signature = key.sign(&signed_bytes(&header_bytes)).to_bytes();
    let signed = SignedEntry {
        header: header_bytes,
        signature,
        author,
        ops: ops_bytes,
    };
    Ok(VerifiedEntry {
        entry: Arc::new(Entry {
            id: signed.id(),
            header,
            ops,
            signed,
        }),
        is_checked: true,
    })
}

/// Place of an entry in the one order of all nodes: a linear extension of the causal order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order {
    /// First by time.
    pub hlc: Hlc,
    /// Then by author.
    pub author: Author,
    /// Then by id (two branches of one author).
    pub id: EntryId,
}

fn signed_bytes(header: &[u8]) -> Vec<u8> {
    [SIGNATURE_DOMAIN, header].concat()
}

fn check_canonical(known: &[u8], came: &[u8], what: &'static str) -> Result<(), EntryError> {
    if known.len() != came.len() {
        return Err(EntryError::NeedsNewer { what });
    }
    if known != came {
        return Err(malformed("its fields are not in order"));
    }
    Ok(())
}

const VERSION: u32 = 1;
const FLAG_ATOMIC: u32 = 1;
// The same key signs iroh's handshakes: the prefix keeps the two apart.
const SIGNATURE_DOMAIN: &[u8] = b"lattice/entry/v1\0";
// Hashing the context again for each entry would cost as much as hashing the entry.
static ID_KEY: LazyLock<ContextKey> =
    LazyLock::new(|| hash_derive_key_context("lattice 2026 entry id v1"));
