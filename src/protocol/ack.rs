//! An ack: what a member says it has on disk, signed, so that others can pass it on.
//!
//! Acks are not entries: they are in no log, and only the latest of each member is kept. They say
//! who has what; nothing that must not be lost rests on them.

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use prost::Message as _;

use crate::{
    id::{Author, EntryId, StoreId},
    limits::SYNC_ITEMS_MAX,
    protocol::frontier::{Frontier, FrontierTip},
    wire,
};

/// Entries of one store that a member has applied and made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Which member.
    pub node: Author,
    /// Which store.
    pub store: StoreId,
    /// Of its data directory's life: one for each start, the time of it in ms since 1970, or greater
    /// where the clock was set back. The greater is the later.
    pub incarnation: u64,
    /// Of acks within it. The greater is the later.
    pub counter: u64,
    /// All that it has.
    pub frontier: Frontier,
}

/// Why bytes are no ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// Not the shape that the schema says.
    #[error("malformed ack: {what}")]
    Malformed {
        /// The fault.
        what: &'static str,
    },
    /// Not signed by the node that it names.
    #[error("the ack is not signed by node {node}")]
    BadSignature {
        /// The node.
        node: Author,
    },
}

impl Ack {
    /// Signs it.
    ///
    /// # Panics
    /// When `key` is not the node's.
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

    /// Reads an ack and checks its signature, strictly.
    ///
    /// # Errors
    /// `Malformed`, `BadSignature`.
    pub fn open(bytes: Bytes) -> Result<Self, AckError> {
        let message =
            wire::SignedAck::decode(bytes).map_err(|_reason| malformed("it does not decode"))?;
        let node =
            Author::from_slice(&message.node).ok_or(malformed("its node has not 32 bytes"))?;
        let signature: [u8; 64] = message
            .signature
            .as_ref()
            .try_into()
            .map_err(|_length| malformed("its signature has not 64 bytes"))?;
        let key = VerifyingKey::from_bytes(&node.0)
            .map_err(|_not_a_point| AckError::BadSignature { node })?;
        key.verify_strict(&signed(&message.body), &Signature::from_bytes(&signature))
            .map_err(|_invalid| AckError::BadSignature { node })?;
        Self::read(node, message.body)
    }

    /// True when it is the later of two acks of one node in one store.
    pub fn is_later_than(&self, other: &Self) -> bool {
        (self.incarnation, self.counter) > (other.incarnation, other.counter)
    }

    /// Returns whether the node has the entry at `tip`, as far as places show.
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
                .ok_or(malformed("its store id has not 16 bytes"))?,
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

// Of its own domain: no ack is an entry, and no entry an ack.
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
    fn what_is_signed_is_read_and_no_bit_of_it_can_be_changed() {
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
    fn an_ack_covers_its_tips_and_what_lies_before_an_only_one() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let one = ack(&key, &[tip(4, 1)]);
        assert!(one.covers(&AUTHOR, tip(4, 1)));
        assert!(one.covers(&AUTHOR, tip(3, 9)));
        assert!(!one.covers(&AUTHOR, tip(4, 2)));
        assert!(!one.covers(&AUTHOR, tip(5, 1)));
        assert!(!one.covers(&Author([6; 32]), tip(1, 1)));
        // Of a forked author only the tips are known for sure.
        let forked = ack(&key, &[tip(4, 1), tip(4, 2)]);
        assert!(forked.covers(&AUTHOR, tip(4, 2)));
        assert!(!forked.covers(&AUTHOR, tip(3, 9)));
    }

    #[test]
    fn the_later_ack_is_the_one_of_the_later_life_then_of_the_greater_counter() {
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
