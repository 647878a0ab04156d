//! Ack: a member's signed statement of the entries that it has applied and made durable in one
//! store.
//!
//! An ack names these entries by their tips. It is signed by the member ([`signed`](mod@super::signed)),
//! under `"lattice/ack/v1\0"`, so any node can pass it on. A *whole* ack names all tips, and may have
//! the root of the state after exactly these entries; an ack without one is understood as well. A *part*
//! names all tips of some authors and says nothing about the others: gossip carries small messages
//! only. [`Acked`](super::acked::Acked) joins the acks of one member. Acks are in no log and may be
//! lost: each node keeps the latest ones it heard, and what is missing is signed again.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use prost::Message as _;

use crate::{
    id::{Author, EntryId, StoreId},
    limits::{ACK_BRANCHES_MAX, SEQ_MAX, SYNC_ITEMS_MAX},
    protocol::{
        agreement::StateClaim,
        frontier::{Frontier, FrontierHash, FrontierTip},
        membership::ActsHash,
        merkle::TreeRoot,
        signed::{self, count_items},
    },
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
    /// True if `frontier` has only some of the authors: of each all its tips.
    pub is_part: bool,
    /// Tips of all entries that the member has applied and made durable, of these authors.
    pub frontier: Frontier,
    /// The state after exactly these entries. `None` in a part, and while the member has not computed
    /// it.
    pub state: Option<AckedState>,
    /// Hash of the tips of the root store that the member had applied and made durable when it signed
    /// this; taken after `frontier`. `None` in an ack of the root store.
    pub root_frontier: Option<FrontierHash>,
}

/// The state that a member has after the entries of an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckedState {
    /// The root over the rows of all keys.
    pub root: TreeRoot,
    /// The acts that count on the member.
    pub acts: ActsHash,
}

/// An ack whose signature has not been checked: only a claim that a node has signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedAck {
    ack: Ack,
    // The bytes as they came, which the signature covers.
    body: Bytes,
    signature: [u8; 64],
}

/// Why bytes are refused as an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// The bytes do not follow the schema, name more than `SYNC_ITEMS_MAX` tips, or name a place
    /// past `SEQ_MAX`.
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

/// Start of the node and counter of an ack: the greater one is later.
pub type AckPlace = (u64, u64);

impl Ack {
    /// Returns the ack without the tips that are of no use: those of authors of whom nothing is known, and of
    /// others those after the first `ACK_BRANCHES_MAX`. Also returns whether authors were left out.
    #[must_use]
    pub fn known_part(mut self, is_known: impl Fn(&Author) -> bool) -> (Self, bool) {
        let (mut frontier, mut is_cut) = (Frontier::default(), false);
        for (author, tips) in self.frontier.by_author() {
            if is_known(&author) {
                let kept = tips.iter().take(ACK_BRANCHES_MAX);
                frontier.set_tips(author, kept.copied().collect());
            } else {
                is_cut = true;
            }
        }
        self.frontier = frontier;
        (self, is_cut)
    }

    /// Signs the ack and returns the encoded bytes.
    ///
    /// # Panics
    /// Panics if `key` is not the key of `node`.
    pub fn sign(&self, key: &SigningKey) -> Bytes {
        assert_eq!(self.node.0, key.verifying_key().to_bytes(), "one's own ack");
        let body = self.body();
        wire::SignedAck {
            signature: signed::sign(DOMAIN, key, &body),
            body,
            node: Bytes::copy_from_slice(&self.node.0),
        }
        .encode_to_vec()
        .into()
    }

    /// Decodes a signed ack. Its signature is checked by [`ClaimedAck::verify`], so that the caller
    /// can find out for less whether the ack is of use.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn decode(bytes: Bytes) -> Result<ClaimedAck, AckError> {
        let message =
            wire::SignedAck::decode(bytes).map_err(|_reason| malformed("it does not decode"))?;
        let node =
            Author::from_slice(&message.node).ok_or(malformed("its node is not 32 bytes long"))?;
        let signature: [u8; 64] = message
            .signature
            .as_ref()
            .try_into()
            .map_err(|_length| malformed("its signature is not 64 bytes long"))?;
        Ok(ClaimedAck {
            ack: Self::read(node, message.body.clone())?,
            body: message.body,
            signature,
        })
    }

    /// Decodes a signed ack and checks its signature with `verify_strict`.
    ///
    /// Whether the node is a member is for the caller to check.
    ///
    /// # Errors
    /// `Malformed` if the bytes do not follow the schema; `BadSignature` if the node did not sign
    /// them.
    pub fn open(bytes: Bytes) -> Result<Self, AckError> {
        Self::decode(bytes)?.verify()
    }

    /// Returns the place of the ack among those of its node.
    pub fn place(&self) -> AckPlace {
        (self.incarnation, self.counter)
    }

    /// Returns what the ack claims about the state; `None` if it claims nothing.
    pub fn state_claim(&self) -> Option<StateClaim> {
        self.state.map(|AckedState { root, acts }| StateClaim {
            frontier: self.frontier.hash(),
            acts,
            root,
        })
    }

    /// Returns the part of this ack that has the next authors whose tips are not those in `sent`:
    /// those after `after`, then from the first author on, up to `tips_max` tips. An author with
    /// more tips is left out. `None` if no author is left.
    #[must_use]
    pub fn part(&self, sent: &Frontier, after: Option<Author>, tips_max: usize) -> Option<Self> {
        let is_later = |author: &Author| after.is_none_or(|after| *author > after);
        let changed = |(author, tips): &(Author, &[FrontierTip])| {
            sent.tips(author) != *tips && tips.len() <= tips_max
        };
        let of = |later: bool| {
            let authors = self.frontier.by_author();
            authors.filter(move |(author, _)| is_later(author) == later)
        };
        let mut frontier = Frontier::default();
        let mut room = tips_max;
        for (author, tips) in of(true).chain(of(false)).filter(changed) {
            let Some(left) = room.checked_sub(tips.len()) else {
                break;
            };
            room = left;
            frontier.set_tips(author, tips.to_vec());
        }
        (!frontier.is_empty()).then_some(Self {
            is_part: true,
            frontier,
            state: None,
            root_frontier: None,
            ..*self
        })
    }

    /// Returns whether this ack, of a store, can be used together with `root`, one of the root store by
    /// the same member: what that one names it had when it signed this one, or later. One ack of the
    /// root store is both.
    pub fn pairs_with(&self, root: &Self) -> bool {
        let is_same_start = self.node == root.node && self.incarnation == root.incarnation;
        let is_whole = !self.is_part && !root.is_part;
        let is_later =
            || root.counter >= self.counter || self.root_frontier == Some(root.frontier.hash());
        is_same_start && is_whole && is_later()
    }

    fn read(node: Author, body: Bytes) -> Result<Self, AckError> {
        let count = count_items(&body, TIPS_FIELD, TIP_BYTES_MIN);
        if count.ok_or(malformed("its body does not decode"))? > SYNC_ITEMS_MAX {
            return Err(malformed("it has too many tips"));
        }
        let body =
            wire::Ack::decode(body).map_err(|_reason| malformed("its body does not decode"))?;
        if body.tips.iter().any(|tip| tip.seq > SEQ_MAX) {
            return Err(malformed("it names a place that no log can have"));
        }
        let tip = |tip: &wire::CursorTip| {
            let author = Author::from_slice(&tip.author)?;
            let id = EntryId::from_slice(&tip.id)?;
            (tip.seq > 0).then_some((author, FrontierTip { seq: tip.seq, id }))
        };
        let frontier: Option<Frontier> = body.tips.iter().map(tip).collect();
        let state = match body.state {
            None => None,
            Some(_) if body.is_part => return Err(malformed("a part of an ack has a state")),
            // The root of other rows, or of another tree: it is no use here.
            Some(state) if state.version != STATE_VERSION => None,
            Some(state) => Some(AckedState::read(&state)?),
        };
        Ok(Self {
            node,
            store: StoreId::from_slice(&body.store_id)
                .ok_or(malformed("its store id is not 16 bytes long"))?,
            incarnation: body.incarnation,
            counter: body.counter,
            is_part: body.is_part,
            frontier: frontier.ok_or(malformed("a tip is malformed"))?,
            state,
            root_frontier: match body.root_frontier.len() {
                0 => None,
                _any => {
                    let hash = body.root_frontier.as_ref().try_into();
                    let malformed = |_length| malformed("a hash of its tips is not 32 bytes long");
                    Some(FrontierHash(hash.map_err(malformed)?))
                }
            },
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
            is_part: self.is_part,
            state: self.state.map(|state| wire::AckedState {
                root: Bytes::copy_from_slice(&state.root.0),
                acts: Bytes::copy_from_slice(&state.acts.0),
                version: STATE_VERSION,
            }),
            root_frontier: self
                .root_frontier
                .map_or_else(Bytes::new, |hash| Bytes::copy_from_slice(&hash.0)),
        }
        .encode_to_vec()
        .into()
    }
}

impl AckedState {
    fn read(state: &wire::AckedState) -> Result<Self, AckError> {
        let hash = |bytes: &Bytes| <[u8; 32]>::try_from(bytes.as_ref());
        match (hash(&state.root), hash(&state.acts)) {
            (Ok(root), Ok(acts)) => Ok(Self {
                root: TreeRoot(root),
                acts: ActsHash(acts),
            }),
            _other => Err(malformed("a hash of its state is not 32 bytes long")),
        }
    }
}

impl ClaimedAck {
    /// Returns the ack as it claims to be.
    pub fn claim(&self) -> &Ack {
        &self.ack
    }

    /// Returns the signed ack, encoded.
    pub fn encode(&self) -> Bytes {
        wire::SignedAck {
            body: self.body.clone(),
            signature: Bytes::copy_from_slice(&self.signature),
            node: Bytes::copy_from_slice(&self.ack.node.0),
        }
        .encode_to_vec()
        .into()
    }

    /// Checks the signature with `verify_strict`.
    ///
    /// # Errors
    /// `BadSignature`.
    pub fn verify(self) -> Result<Ack, AckError> {
        let node = self.ack.node;
        if signed::is_by(&node, DOMAIN, &self.body, &self.signature) {
            Ok(self.ack)
        } else {
            Err(AckError::BadSignature { node })
        }
    }
}

const fn malformed(what: &'static str) -> AckError {
    AckError::Malformed { what }
}

const DOMAIN: &[u8] = b"lattice/ack/v1\0";
// Version of the rows of a state and of the tree over them: other rows give other roots.
const STATE_VERSION: u32 = 1;
// The list of tips in the body, and the bytes of a tip at least: two ids.
const TIPS_FIELD: u32 = 4;
const TIP_BYTES_MIN: usize = 64;

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
            is_part: false,
            frontier: tips.iter().map(|tip| (AUTHOR, *tip)).collect(),
            state: None,
            root_frontier: None,
        }
    }

    fn state(byte: u8) -> Option<AckedState> {
        Some(AckedState {
            root: TreeRoot([byte; 32]),
            acts: ActsHash([7; 32]),
        })
    }

    #[test]
    fn changed_or_cut_ack_is_refused() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let mut ack = ack(&key, &[tip(4, 1), tip(4, 2)]);
        ack.state = state(3);
        let bytes = ack.sign(&key);
        assert_eq!(Ack::decode(bytes.clone()).unwrap().encode(), bytes);
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

    /// Nodes of an earlier version sign no state, and read acks that have one.
    #[test]
    fn ack_without_a_state_claims_nothing_about_it() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let mut ack = ack(&key, &[tip(4, 1)]);
        let old = Ack::open(ack.sign(&key)).unwrap();
        assert_eq!((old.state, old.state_claim()), (None, None));
        ack.state = state(3);
        let new = Ack::open(ack.sign(&key)).unwrap();
        let claim = new.state_claim().unwrap();
        assert_eq!(claim.root, TreeRoot([3; 32]));
        assert_eq!(claim.frontier, old.frontier.hash());
        assert_eq!(new.part(&Frontier::default(), None, 4).unwrap().state, None);
    }

    #[test]
    fn ack_with_a_malformed_state_is_refused() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let open = |body: wire::Ack| {
            let body: Bytes = body.encode_to_vec().into();
            let signed = wire::SignedAck {
                signature: signed::sign(DOMAIN, &key, &body),
                body,
                node: Bytes::copy_from_slice(&key.verifying_key().to_bytes()),
            };
            Ack::open(signed.encode_to_vec().into())
        };
        let refused = |body| open(body).is_err();
        let body = |is_part, root: usize, acts: usize| wire::Ack {
            store_id: Bytes::from_static(&[7; 16]),
            is_part,
            state: Some(wire::AckedState {
                root: vec![1; root].into(),
                acts: vec![1; acts].into(),
                version: STATE_VERSION,
            }),
            ..wire::Ack::default()
        };
        assert!(!refused(body(false, 32, 32)));
        assert!(refused(body(true, 32, 32)), "a part has no state");
        for (root, acts) in [(0, 32), (31, 32), (33, 32), (32, 0), (32, 33)] {
            assert!(refused(body(false, root, acts)), "{root} and {acts} bytes");
        }
        // A later version may have other hashes; it claims nothing here.
        let mut newer = body(false, 31, 7);
        newer.state.as_mut().unwrap().version = 2;
        assert_eq!(open(newer).unwrap().state, None);
    }

    #[test]
    fn ack_of_a_place_that_no_log_can_have_is_refused() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let last = ack(&key, &[tip(SEQ_MAX, 1)]);
        assert_eq!(Ack::open(last.sign(&key)), Ok(last));
        for seq in [SEQ_MAX + 1, u64::MAX - 1, u64::MAX] {
            let opened = Ack::open(ack(&key, &[tip(4, 1), tip(seq, 2)]).sign(&key));
            let what = "it names a place that no log can have";
            assert_eq!(opened, Err(AckError::Malformed { what }));
        }
    }

    #[test]
    fn parts_name_each_change_and_take_turns() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let author = |byte| Author([byte; 32]);
        let mut whole = ack(&key, &[]);
        for byte in 0..10 {
            whole.frontier.insert(author(byte), tip(1, byte));
        }
        // Author 3 has forked: its tips go together.
        whole.frontier.insert(author(3), tip(2, 99));
        let (mut sent, mut after) = (Frontier::default(), None);
        let mut parts = Vec::new();
        while let Some(part) = whole.part(&sent, after, 4) {
            assert!(part.is_part && part.frontier.len() <= 4);
            for (author, tips) in part.frontier.by_author() {
                sent.set_tips(author, tips.to_vec());
                after = Some(author);
            }
            parts.push(part.frontier.authors());
        }
        assert_eq!((sent, parts), (whole.frontier.clone(), vec![3, 3, 4]));
        // One that changes all the time does not keep the others from their turn.
        let mut sent = Frontier::default();
        let first = whole.part(&sent, Some(author(8)), 2).unwrap();
        let authors: Vec<_> = first
            .frontier
            .by_author()
            .map(|(author, _)| author)
            .collect();
        assert_eq!(authors, [author(0), author(9)]);
        sent.set_tips(author(0), vec![tip(7, 7)]);
        assert!(
            whole
                .part(&sent, Some(author(0)), 1)
                .is_some_and(|part| { part.frontier.tips(&author(1)) == [tip(1, 1)] })
        );
        // An author with more tips than fit is left out.
        whole.frontier = [(AUTHOR, tip(1, 1)), (AUTHOR, tip(1, 2))]
            .into_iter()
            .collect();
        assert_eq!(whole.part(&Frontier::default(), None, 1), None);
    }
}
