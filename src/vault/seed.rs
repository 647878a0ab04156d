//! The secret itself.

use std::fmt;

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::{id::Author, vault::KeyError};

/// The 32 secret bytes of a node's key. They are wiped from memory when it is dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed(Zeroizing<[u8; 32]>);

impl Seed {
    /// Takes these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Makes a new one.
    ///
    /// # Errors
    /// `Random`.
    pub fn random() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|error| KeyError::Random {
            what: error.to_string(),
        })?;
        Ok(Self(bytes))
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the key that signs.
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::from_bytes(&self.0)
    }

    /// Returns the node whose key it is.
    pub fn node(&self) -> Author {
        Author(self.signing_key().verifying_key().to_bytes())
    }

    /// Returns the content of an `identity.key` that has it: a line with the version, and 64 hex digits.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut hex = Zeroizing::new([0; 64]);
        HEXLOWER.encode_mut(self.0.as_slice(), hex.as_mut_slice());
        // Long enough: growing would leave a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(FIRST_LINE.len() + hex.len() + 2));
        text.push_str(FIRST_LINE);
        text.push('\n');
        text.extend(hex.iter().map(|digit| char::from(*digit)));
        text.push('\n');
        text
    }

    /// Reads what `to_text` returns, or the hex digits alone, with blanks around them. `None` for any other
    /// text.
    pub fn from_text(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(FIRST_LINE).unwrap_or(text).trim();
        let mut bytes = Zeroizing::new([0; 32]);
        let is_fit = digits.len() == 64
            && HEXLOWER
                .decode_mut(digits.as_bytes(), bytes.as_mut_slice())
                .is_ok();
        is_fit.then_some(Self(bytes))
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// First line of an `identity.key` that has the secret.
pub(super) const FIRST_LINE: &str = "lattice identity v1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_seed_is_read_and_nothing_else_is() {
        let seed = Seed::new([0xab; 32]);
        let text = seed.to_text();
        let digits = "ab".repeat(32);
        assert_eq!(*text, format!("lattice identity v1\n{digits}\n"));
        for same in [&*text, &digits, &format!("  {digits}\n\n")] {
            assert_eq!(Seed::from_text(same), Some(seed.clone()), "{same}");
        }
        let cut = &digits[..62];
        for other in ["", "lattice identity v1\n", cut, &digits.to_uppercase()] {
            assert_eq!(Seed::from_text(other), None, "{other}");
        }
        assert_eq!(Seed::from_text(&format!("{digits}ab")), None);
        assert_eq!(Seed::from_text(&format!("{digits}\n{digits}")), None);
        assert_eq!(format!("{seed:?}"), "Seed(..)");
    }
}
