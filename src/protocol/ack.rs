//! Ack: a member's signed statement of the entries that it has applied and made durable in one
//! store.
//!
//! An ack names these entries by their tips. It is signed by the member, so any node can pass it
//! on. The signature is Ed25519, checked with `verify_strict`, over `"lattice/ack/v1\0"` and the
//! body as it came: the prefix differs from that of entries, so an ack is never valid as an entry,
//! nor an entry as an ack. Of two acks of one member for one store the one with the greater
//! `(incarnation, counter)` is the later, and only the latest is kept. Acks are in no log and may
//! be lost; nothing durable depends on them.

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use prost::Message as _;

use crate::{
    id::{Author, EntryId, StoreId},
    limits::SYNC_ITEMS_MAX,
    protocol::frontier::{Frontier, FrontierTip},
    wire,
};

/// The entries that a member has applied and made durable in one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The member; it signs the ack.
    pub node: Author,
    /// The store that the ack is about.
    pub store: StoreId,
    /// Number of the member's start; greater at each start of one data directory. It is the time of
    /// the start in ms since 1970, or the last start's number plus one if the clock was set back.
    pub incarnation: u64,
    /// Number of the ack since that start; greater for each later ack.
    pub counter: u64,
    /// Tips of all entries that the member has applied and made durable.
    pub frontier: Frontier,
}

/// Why bytes are refused as an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// The bytes do not follow the schema, or name more than `SYNC_ITEMS_MAX` tips.
    #[error("malformed ack: {what}")]
    Malformed {
        /// The fault, for people.
        what: &'static str,
    },
    /// The signature is not by the node that the ack names.
    #[error("the ack is not signed by node {node}")]
    BadSignature {
        /// Node that the ack names.
        node: Author,
    },
}

impl Ack {
    /// Signs the ack and returns the encoded bytes.
    ///
    /// # Panics
    /// Panics if `key` is not the key of `node`.
    pub fn sign(&self, key: &SigningKey) -> Bytes {
        assert_eq!(self.node.0, key.verifying_key().to_bytes(), "one's own ack");
        let body = self.body();
        let signature = key.sign(&signed(&body));
        wire::SignedAck {
            body,
            signature: Bytes::copy_from_slice(&signature.to_bytes()),
            node: Bytes::copy_from_slice(&self.node.0),
        }
        .encode_to_vec()
        .into()
    }

    /// Decodes a signed ack and checks its signature with `verify_strict`.
    ///
    /// Whether the node is a member is for the caller to check.
    ///
    /// # Errors
    /// `Malformed` if the bytes do not follow the schema; `BadSignature` if the node did not sign
    /// them.
    pub fn open(bytes: Bytes) -> Result<Self, AckError> {
        let message =
            wire::SignedAck::decode(bytes).map_err(|_reason| malformed("it does not decode"))?;
        let node =
            Author::from_slice(&message.node).ok_or(malformed("its node is not 32 bytes long"))?;
        let signature: [u8; 64] = message
            .signature
            .as_ref()
            .try_into()
            .map_err(|_length| malformed("its signature is not 64 bytes long"))?;
        let key = VerifyingKey::from_bytes(&node.0)
            .map_err(|_not_a_point| AckError::BadSignature { node })?;
        key.verify_strict(&signed(&message.body), &Signature::from_bytes(&signature))
            .map_err(|_invalid| AckError::BadSignature { node })?;
        Self::read(node, message.body)
    }

    /// Returns whether this ack is later than `other`, an ack of the same node and store.
    ///
    /// False if the two are equal.
    pub fn is_later_than(&self, other: &Self) -> bool {
        (self.incarnation, self.counter) > (other.incarnation, other.counter)
    }

    /// Returns whether the ack shows that the node has the entry of `author` at `tip`.
    ///
    /// True if `tip` is one of the tips that the ack names. Also true if the ack names a single tip
    /// of `author` with a greater seq: this is exact unless `author` forked and the node has only
    /// the other branch. Of several branches the ack shows the tips only.
    pub fn covers(&self, author: &Author, tip: FrontierTip) -> bool {
        let tips = self.frontier.tips(author);
        tips.contains(&tip) || (tips.len() == 1 && self.frontier.seq(author) > tip.seq)
    }

    fn read(node: Author, body: Bytes) -> Result<Self, AckError> {
        let body =
            wire::Ack::decode(body).map_err(|_reason| malformed("its body does not decode"))?;
        if body.tips.len() > SYNC_ITEMS_MAX {
            return Err(malformed("it has too many tips"));
        }
        let tip = |tip: &wire::CursorTip| {
            let author = Author::from_slice(&tip.author)?;
            let id = EntryId::from_slice(&tip.id)?;
            (tip.seq > 0).then_some((author, FrontierTip { seq: tip.seq, id }))
        };
        let frontier: Option<Frontier> = body.tips.iter().map(tip).collect();
        Ok(Self {
            node,
            store: StoreId::from_slice(&body.store_id)
                .ok_or(malformed("its store id is not 16 bytes long"))?,
            incarnation: body.incarnation,
            counter: body.counter,
            frontier: frontier.ok_or(malformed("a tip is malformed"))?,
        })
    }

    fn body(&self) -> Bytes {
        let tip = |(author, tip): (Author, FrontierTip)| wire::CursorTip {
            author: Bytes::copy_from_slice(&author.0),
            seq: tip.seq,
            id: Bytes::copy_from_slice(&tip.id.0),
        };
        wire::Ack {
            store_id: Bytes::copy_from_slice(&self.store.0),
            incarnation: self.incarnation,
            counter: self.counter,
            tips: self.frontier.iter().map(tip).collect(),
        }
        .encode_to_vec()
        .into()
    }
}

// The domain prefix keeps acks and entries apart: one key signs both.
fn signed(body: &[u8]) -> Vec<u8> {
    [DOMAIN, body].concat()
}

const fn malformed(what: &'static str) -> AckError {
    AckError::Malformed { what }
}

const DOMAIN: &[u8] = b"lattice/ack/v1\0";

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHOR: Author = Author([5; 32]);

    fn tip(seq: u64, id: u8) -> FrontierTip {
        FrontierTip {
            seq,
            id: EntryId([id; 32]),
        }
    }

    fn ack(key: &SigningKey, tips: &[FrontierTip]) -> Ack {
        Ack {
            node: Author(key.verifying_key().to_bytes()),
            store: StoreId([7; 16]),
            incarnation: 10,
            counter: 3,
            frontier: tips.iter().map(|tip| (AUTHOR, *tip)).collect(),
        }
    }

    #[test]
    fn changed_or_cut_ack_is_refused() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let ack = ack(&key, &[tip(4, 1), tip(4, 2)]);
        let bytes = ack.sign(&key);
        assert_eq!(Ack::open(bytes.clone()), Ok(ack));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Ack::open(flipped.into()).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Ack::open(bytes.slice(..length)).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn ack_covers_its_tips_and_what_precedes_a_single_one() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let one = ack(&key, &[tip(4, 1)]);
        assert!(one.covers(&AUTHOR, tip(4, 1)));
        assert!(one.covers(&AUTHOR, tip(3, 9)));
        assert!(!one.covers(&AUTHOR, tip(4, 2)));
        assert!(!one.covers(&AUTHOR, tip(5, 1)));
        assert!(!one.covers(&Author([6; 32]), tip(1, 1)));
        // The author forked: an ack shows only the tips of its branches.
        let forked = ack(&key, &[tip(4, 1), tip(4, 2)]);
        assert!(forked.covers(&AUTHOR, tip(4, 2)));
        assert!(!forked.covers(&AUTHOR, tip(3, 9)));
    }

    #[test]
    fn later_start_then_greater_counter_is_later() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let first = ack(&key, &[]);
        let next = Ack {
            counter: 4,
            ..first.clone()
        };
        let reborn = Ack {
            incarnation: 11,
            counter: 0,
            ..first.clone()
        };
        assert!(next.is_later_than(&first) && reborn.is_later_than(&next));
        assert!(!first.is_later_than(&first) && !first.is_later_than(&reborn));
    }
}
