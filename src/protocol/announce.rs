//! Announcement: a node's signed statement that it has entries that it has not sent as gossip, and
//! where it is found.
//!
//! It makes other nodes sync with its node and dial it, so it counts for the node that signed it
//! only, and once: of two announcements of one node for one store the one with the greater
//! `(incarnation, counter)` is the later, and an earlier one is passed over. Signed
//! ([`signed`](mod@super::signed)) under `"lattice/announce/v1\0"`.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use prost::Message as _;

use crate::{
    id::{Author, StoreId},
    limits::{ADDRESS_CHARS_MAX, ADDRESSES_MAX},
    protocol::{
        frontier::FrontierHash,
        signed::{self, count_items},
    },
    wire,
};

/// A node's frontier of one store, and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announce {
    /// The node; it signs the announcement.
    pub node: Author,
    /// The store that it is about.
    pub store: StoreId,
    /// Number of the node's start, as in an [`Ack`](super::ack::Ack).
    pub incarnation: u64,
    /// Number of the announcement since that start.
    pub counter: u64,
    /// Hash of the node's frontier.
    pub frontier: FrontierHash,
    /// IP addresses and ports of the node, as text: at most `ADDRESSES_MAX`.
    pub direct: Vec<String>,
    /// URL of its relay; empty without one.
    pub relay: String,
}

/// An announcement whose signature has not been checked: only a claim that a node has signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedAnnounce {
    announce: Announce,
    // The bytes as they came, which the signature covers.
    body: Bytes,
    signature: [u8; 64],
}

/// Why bytes are refused as an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// The bytes do not follow the schema, or have more or longer addresses than a node may have.
    #[error("malformed announcement: {what}")]
    Malformed {
        /// The fault, for people.
        what: &'static str,
    },
    /// The signature is not by the node that the announcement names.
    #[error("the announcement is not signed by node {node}")]
    BadSignature {
        /// Node that the announcement names.
        node: Author,
    },
}

impl Announce {
    /// Signs the announcement and returns the encoded bytes.
    ///
    /// # Panics
    /// Panics if `key` is not the key of `node`.
    pub fn sign(&self, key: &SigningKey) -> Bytes {
        assert_eq!(self.node.0, key.verifying_key().to_bytes(), "one's own");
        let body: Bytes = wire::Announce {
            store_id: Bytes::copy_from_slice(&self.store.0),
            incarnation: self.incarnation,
            counter: self.counter,
            frontier_hash: Bytes::copy_from_slice(&self.frontier.0),
            direct: self.direct.clone(),
            relay: self.relay.clone(),
        }
        .encode_to_vec()
        .into();
        wire::SignedAnnounce {
            signature: signed::sign(DOMAIN, key, &body),
            body,
            node: Bytes::copy_from_slice(&self.node.0),
        }
        .encode_to_vec()
        .into()
    }

    /// Decodes a signed announcement. Its signature is checked by [`ClaimedAnnounce::verify`], so
    /// that the caller can find out for less whether it is of use.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn decode(bytes: Bytes) -> Result<ClaimedAnnounce, AnnounceError> {
        let message = wire::SignedAnnounce::decode(bytes)
            .map_err(|_reason| malformed("it does not decode"))?;
        let node =
            Author::from_slice(&message.node).ok_or(malformed("its node is not 32 bytes long"))?;
        let signature: [u8; 64] = message
            .signature
            .as_ref()
            .try_into()
            .map_err(|_length| malformed("its signature is not 64 bytes long"))?;
        Ok(ClaimedAnnounce {
            announce: Self::read(node, message.body.clone())?,
            body: message.body,
            signature,
        })
    }

    /// Returns the order of the announcements of one node for one store.
    pub fn place(&self) -> (u64, u64) {
        (self.incarnation, self.counter)
    }

    fn read(node: Author, body: Bytes) -> Result<Self, AnnounceError> {
        let direct = count_items(&body, DIRECT_FIELD, 1);
        if direct.ok_or(malformed("its body does not decode"))? > ADDRESSES_MAX {
            return Err(malformed("it has too many addresses"));
        }
        let body = wire::Announce::decode(body)
            .map_err(|_reason| malformed("its body does not decode"))?;
        let is_too_long = |text: &String| text.len() > ADDRESS_CHARS_MAX;
        if body.direct.iter().any(is_too_long) || is_too_long(&body.relay) {
            return Err(malformed("an address is too long"));
        }
        let hash: [u8; 32] = body
            .frontier_hash
            .as_ref()
            .try_into()
            .map_err(|_length| malformed("its frontier hash is not 32 bytes long"))?;
        Ok(Self {
            node,
            store: StoreId::from_slice(&body.store_id)
                .ok_or(malformed("its store id is not 16 bytes long"))?,
            incarnation: body.incarnation,
            counter: body.counter,
            frontier: FrontierHash(hash),
            direct: body.direct,
            relay: body.relay,
        })
    }
}

impl ClaimedAnnounce {
    /// Returns the announcement as it claims to be.
    pub fn claim(&self) -> &Announce {
        &self.announce
    }

    /// Checks the signature with `verify_strict`.
    ///
    /// # Errors
    /// `BadSignature`.
    pub fn verify(self) -> Result<Announce, AnnounceError> {
        let node = self.announce.node;
        if signed::is_by(&node, DOMAIN, &self.body, &self.signature) {
            Ok(self.announce)
        } else {
            Err(AnnounceError::BadSignature { node })
        }
    }
}

const fn malformed(what: &'static str) -> AnnounceError {
    AnnounceError::Malformed { what }
}

const DOMAIN: &[u8] = b"lattice/announce/v1\0";
// The list of addresses in the body.
const DIRECT_FIELD: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn announce(key: &SigningKey) -> Announce {
        Announce {
            node: Author(key.verifying_key().to_bytes()),
            store: StoreId([7; 16]),
            incarnation: 10,
            counter: 3,
            frontier: FrontierHash([4; 32]),
            direct: vec!["192.0.2.1:4711".to_owned(), "[2001:db8::1]:1".to_owned()],
            relay: String::new(),
        }
    }

    fn open(bytes: Bytes) -> Result<Announce, AnnounceError> {
        Announce::decode(bytes)?.verify()
    }

    #[test]
    fn n2_changed_or_cut_announcement_is_refused() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let announce = announce(&key);
        let bytes = announce.sign(&key);
        assert_eq!(open(bytes.clone()), Ok(announce));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(flipped.into()).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(open(bytes.slice(..length)).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn n2_announcement_for_another_node_is_refused() {
        let [liar, victim] = [1, 2].map(|byte| SigningKey::from_bytes(&[byte; 32]));
        let mut message = wire::SignedAnnounce::decode(announce(&liar).sign(&liar)).unwrap();
        let victim = Author(victim.verifying_key().to_bytes());
        message.node = Bytes::copy_from_slice(&victim.0);
        let claimed = Announce::decode(message.encode_to_vec().into()).unwrap();
        assert_eq!(claimed.claim().node, victim);
        let refused = AnnounceError::BadSignature { node: victim };
        assert_eq!(claimed.verify(), Err(refused));
        // An ack of the victim with the same bytes would not do either: the domain differs.
        let ack = crate::protocol::ack::Ack::decode(announce(&liar).sign(&liar));
        assert!(ack.and_then(|ack| ack.verify()).is_err());
    }

    #[test]
    fn n1_more_or_longer_addresses_than_a_node_has_are_refused() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let with = |direct: Vec<String>| {
            let announce = Announce {
                direct,
                ..announce(&key)
            };
            open(announce.sign(&key)).map(|announce| announce.direct.len())
        };
        let one = || "192.0.2.1:4711".to_owned();
        assert_eq!(with(vec![one(); ADDRESSES_MAX]), Ok(ADDRESSES_MAX));
        let what = "it has too many addresses";
        let refused = Err(AnnounceError::Malformed { what });
        assert_eq!(with(vec![one(); ADDRESSES_MAX + 1]), refused);
        assert!(with(vec!["1".repeat(ADDRESS_CHARS_MAX + 1)]).is_err());
        assert!(with(vec![String::new(); 2000]).is_err());
    }
}
