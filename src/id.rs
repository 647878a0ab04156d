//! Ids of authors, entries and stores, and places in a log.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER_PERMISSIVE as HEX;

/// Place of an entry in its author's log; 1 for the first.
pub type Seq = u64;

/// A text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct IdError {
    /// The text, shortened to 80 characters.
    pub text: String,
    /// The id that was expected, with its form: "an author (64 hex digits)".
    pub expected: &'static str,
}

impl IdError {
    pub(crate) fn new(text: &str, expected: &'static str) -> Self {
        Self {
            text: text.chars().take(80).collect(),
            expected,
        }
    }
}

/// True for 8 to 64 hex digits: a person could take the text for the id of a node or an entry, or
/// for the beginning of one.
pub fn looks_like_id(text: &str) -> bool {
    (8..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

macro_rules! bytes_32 {
    ($(#[$doc:meta])* $name:ident, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// Returns the first eight hex digits, for logs and narrow tables.
            pub fn short(&self) -> String {
                HEX.encode(&self.0[..4])
            }

            /// Returns the id of 32 bytes; `None` for any other length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEX.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                HEX.decode(text.as_bytes())
                    .ok()
                    .and_then(|bytes| Self::from_slice(&bytes))
                    .ok_or_else(|| IdError::new(text, $expected))
            }
        }
    };
}

bytes_32!(
    /// An author: a node's Ed25519 public key, which is also the name of its log. Printed as 64 hex
    /// digits.
    Author,
    "an author (64 hex digits)"
);

bytes_32!(
    /// The id of an entry: BLAKE3 over its author, signature and header. Printed as 64 hex digits.
    EntryId,
    "an entry id (64 hex digits)"
);

/// The id of a store: a UUID of version 8, derived from the store's genesis, so that nobody can
/// found another store with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub [u8; 16]);

impl StoreId {
    /// Derives the id of the store that `creator` founded with `nonce`.
    ///
    /// UUID version 8 (RFC 9562, section 5.8) over a BLAKE3 derived key.
    pub fn derive(creator: &Author, nonce: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("lattice 2026 store id v1");
        hasher.update(&creator.0).update(nonce);
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        Self(
            uuid::Builder::from_custom_bytes(bytes)
                .into_uuid()
                .into_bytes(),
        )
    }

    /// Returns the id of 16 bytes; `None` for any other length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

impl FromStr for StoreId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        uuid::Uuid::try_parse(text)
            .map(|id| Self(id.into_bytes()))
            .map_err(|_not_a_uuid| IdError::new(text, "a store id (a UUID)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse() {
        let author = Author([0xab; 32]);
        assert_eq!(author.to_string().parse(), Ok(author));
        assert_eq!(author.to_string().to_uppercase().parse(), Ok(author));
        assert!("ab".parse::<Author>().is_err());
        assert!("zz".repeat(32).parse::<EntryId>().is_err());
        let store = StoreId::derive(&author, &[7; 32]);
        assert_eq!(store.to_string().parse(), Ok(store));
        assert_eq!(uuid::Uuid::from_bytes(store.0).get_version_num(), 8);
        assert_ne!(store, StoreId::derive(&author, &[8; 32]));
    }
}
