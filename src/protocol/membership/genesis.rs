//! A genesis: who founded a store, and the proof of it.

use std::fmt;

use bytes::Bytes;
use data_encoding::HEXLOWER;

use crate::id::{Author, StoreId};

/// Creator and nonce from which a store's id is derived. Kept in the root store at
/// `/stores/{store}/genesis`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Genesis {
    /// The node that founded the store.
    pub creator: Author,
    /// Random bytes, not secret.
    pub nonce: [u8; 32],
}

impl Genesis {
    /// Returns the id of the store.
    pub fn store(&self) -> StoreId {
        StoreId::derive(&self.creator, &self.nonce)
    }

    /// Returns where the root store keeps it.
    pub fn key(&self) -> Bytes {
        Bytes::from(format!("/stores/{}/genesis", self.store()))
    }

    /// Returns the value at its key: creator and nonce, in hex.
    pub fn encode(&self) -> Bytes {
        Bytes::from(format!("{}{}", self.creator, HEXLOWER.encode(&self.nonce)))
    }

    /// Reads a root-store key and its value; `None` unless it is the genesis of the store that the
    /// key names. Whoever wrote it, it is true: only the creator's key and nonce give that id.
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
    fn genesis_proves_the_id_that_its_key_names() {
        let (key, value) = (GENESIS.key(), GENESIS.encode());
        let store = StoreId::derive(&GENESIS.creator, &GENESIS.nonce);
        assert_eq!(key, format!("/stores/{store}/genesis"));
        assert_eq!(value, format!("{}{}", "ab".repeat(32), "07".repeat(32)));
        assert_eq!(Genesis::decode(&key, &value), Some(GENESIS));
    }

    #[test]
    fn nobody_else_is_the_creator_and_no_other_text_is_a_genesis() {
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
