//! Genesis: the creator and the nonce from which a store's id is derived.
//!
//! The store id is a hash of the creator's key and a random nonce ([`StoreId::derive`]). The root
//! store keeps both, in hex, at `/stores/{store}/genesis`. A value there is valid only if the id
//! derived from it is the one in its key, so it shows who founded the store whoever wrote it, and
//! nobody can claim a store that exists.
//!
//! The genesis of the data store follows from that of the root store: whoever knows the one knows
//! the other, and no other store has its id. It needs no line in the root store.

use std::fmt;

use bytes::Bytes;
use data_encoding::HEXLOWER;

use crate::id::{Author, StoreId};

/// The values that a store's id is derived from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Genesis {
    /// Node that founded the store.
    pub creator: Author,
    /// Random bytes, not secret.
    pub nonce: [u8; 32],
}

impl Genesis {
    /// Returns the id of the store, derived from both fields.
    pub fn store(&self) -> StoreId {
        StoreId::derive(&self.creator, &self.nonce)
    }

    /// Returns the genesis of the data store of the mesh whose root store has this genesis.
    pub fn data(&self) -> Self {
        Self::of_data(self.creator, &self.store())
    }

    /// Returns the genesis of the data store of the mesh that `creator` founded with the root store
    /// `root`.
    pub fn of_data(creator: Author, root: &StoreId) -> Self {
        Self {
            creator,
            nonce: blake3::derive_key("lattice 2026 data store v1", &root.0),
        }
    }

    /// Returns the root-store key of the genesis: `/stores/{store}/genesis`.
    pub fn key(&self) -> Bytes {
        Bytes::from(format!("/stores/{}/genesis", self.store()))
    }

    /// Returns the value at that key: creator and nonce, each as 64 lowercase hex digits.
    pub fn encode(&self) -> Bytes {
        Bytes::from(format!("{}{}", self.creator, HEXLOWER.encode(&self.nonce)))
    }

    /// Decodes a root-store key and its value.
    ///
    /// Returns `None` unless the value is exactly the genesis of the store that the key names. The
    /// author of the put does not matter: only the true creator and nonce give that id.
    pub fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        if value.len() != 128 {
            return None;
        }
        let bytes = HEXLOWER.decode(value).ok()?;
        let (creator, nonce) = bytes.split_at_checked(32)?;
        let genesis = Self {
            creator: Author::from_slice(creator)?,
            nonce: nonce.try_into().ok()?,
        };
        (genesis.key() == key).then_some(genesis)
    }
}

impl fmt::Debug for Genesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Genesis({} by {:?})", self.store(), self.creator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENESIS: Genesis = Genesis {
        creator: Author([0xab; 32]),
        nonce: [7; 32],
    };

    #[test]
    fn genesis_gives_the_id_in_its_key() {
        let (key, value) = (GENESIS.key(), GENESIS.encode());
        let store = StoreId::derive(&GENESIS.creator, &GENESIS.nonce);
        assert_eq!(key, format!("/stores/{store}/genesis"));
        assert_eq!(value, format!("{}{}", "ab".repeat(32), "07".repeat(32)));
        assert_eq!(Genesis::decode(&key, &value), Some(GENESIS));
    }

    #[test]
    fn data_store_follows_from_the_root_store() {
        let data = GENESIS.data();
        assert_eq!(data.creator, GENESIS.creator);
        // All nodes of all versions derive this id: a change here splits every mesh.
        assert_eq!(
            data.store().to_string(),
            "a5b1f939-1a67-8ab4-958b-be002bdf6227"
        );
        assert_ne!(data.store(), GENESIS.store());
        assert_ne!(data.data().store(), data.store());
        let other = Genesis {
            nonce: [8; 32],
            ..GENESIS
        };
        assert_ne!(other.data().store(), data.store());
    }

    #[test]
    fn any_other_key_or_value_is_refused() {
        let (key, value) = (GENESIS.key(), GENESIS.encode());
        let other = Genesis {
            creator: Author([0xcd; 32]),
            ..GENESIS
        };
        assert_eq!(Genesis::decode(&key, &other.encode()), None);
        assert_eq!(Genesis::decode(&other.key(), &value), None);
        assert_eq!(Genesis::decode(&key, &value.to_ascii_uppercase()), None);
        for length in 0..value.len() {
            assert_eq!(Genesis::decode(&key, &value[..length]), None);
            assert_eq!(
                Genesis::decode(&key[..length.min(key.len() - 1)], &value),
                None
            );
        }
        assert_eq!(Genesis::decode(&key, &[&value[..], b"00"].concat()), None);
        for bit in 0..value.len() * 8 {
            let mut flipped = value.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Genesis::decode(&key, &flipped), None);
        }
    }
}
