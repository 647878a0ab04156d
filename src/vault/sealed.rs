//! A secret that is sealed with a passphrase: Argon2id (RFC 9106) makes a key of it, and AES-256-GCM (NIST SP
//! 800-38D) encrypts with that. Each sealing has a salt of its own, so no key is used twice.

use aes_gcm::{Aes256Gcm, KeyInit as _, aead::Aead as _, aead::Payload};
use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    id::Author,
    limits::{PASSPHRASE_BYTES_MAX, PASSPHRASE_BYTES_MIN},
    vault::{KeyError, Seed},
};

/// A secret that is sealed with a passphrase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    // 32 hex digits.
    salt: String,
    // The encrypted secret and its tag, 96 hex digits.
    sealed: String,
}

impl Sealed {
    /// Seals a secret. Takes some tenths of a second and 64 MiB of memory.
    ///
    /// # Errors
    /// `PassphraseLength`, `Random`, `Seal`.
    pub fn seal(seed: &Seed, passphrase: &[u8]) -> Result<Self, KeyError> {
        let bytes = passphrase.len();
        let allowed = (PASSPHRASE_BYTES_MIN, PASSPHRASE_BYTES_MAX);
        if bytes < allowed.0 || bytes > allowed.1 {
            return Err(KeyError::PassphraseLength { bytes, allowed });
        }
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|error| KeyError::Random {
            what: error.to_string(),
        })?;
        let mut sealed = Self {
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
            salt: HEXLOWER.encode(&salt),
            sealed: String::new(),
        };
        let bound = sealed.bound(&seed.node());
        let payload = Payload {
            msg: seed.bytes(),
            aad: &bound,
        };
        let cipher = sealed.cipher(passphrase, &salt)?;
        let bytes = cipher.encrypt(&NONCE.into(), payload);
        let bytes = bytes.map_err(|_opaque| seal_error("the cipher failed"))?;
        sealed.sealed = HEXLOWER.encode(&bytes);
        Ok(sealed)
    }

    /// Opens the secret of `node`. Takes as long as sealing it.
    ///
    /// # Errors
    /// `WrongPassphrase`, `Malformed`, `Seal`.
    pub fn open(&self, node: &Author, passphrase: &[u8]) -> Result<Seed, KeyError> {
        let (salt, sealed) = self.decoded()?;
        let bound = self.bound(node);
        let payload = Payload {
            msg: &sealed,
            aad: &bound,
        };
        let cipher = self.cipher(passphrase, &salt)?;
        let opened = cipher.decrypt(&NONCE.into(), payload);
        let opened = Zeroizing::new(opened.map_err(|_opaque| KeyError::WrongPassphrase)?);
        let bytes: &[u8; 32] = opened
            .as_slice()
            .try_into()
            .map_err(|_length| KeyError::WrongPassphrase)?;
        Ok(Seed::new(*bytes))
    }

    /// Checks the parameters, so that a file that was changed costs neither all memory nor a day.
    ///
    /// # Errors
    /// `Malformed`.
    pub(super) fn check(&self) -> Result<(), KeyError> {
        self.decoded()?;
        let are_fit = self.memory_kib <= MEMORY_KIB_MAX
            && self.passes <= PASSES_MAX
            && self.lanes <= LANES_MAX
            && self.params().is_ok();
        match are_fit {
            true => Ok(()),
            false => Err(malformed("its Argon2 parameters are out of bounds")),
        }
    }

    fn params(&self) -> Result<Params, KeyError> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32));
        params.map_err(|error| seal_error(&error.to_string()))
    }

    fn decoded(&self) -> Result<(Vec<u8>, Vec<u8>), KeyError> {
        let decode = |text: &str, bytes: usize| {
            let decoded = HEXLOWER.decode(text.as_bytes()).ok();
            decoded.filter(|decoded| decoded.len() == bytes)
        };
        let salt = decode(&self.salt, SALT_BYTES);
        let sealed = decode(&self.sealed, SEALED_BYTES);
        salt.zip(sealed)
            .ok_or_else(|| malformed("its salt or its sealed key is not hex of that length"))
    }

    fn cipher(&self, passphrase: &[u8], salt: &[u8]) -> Result<Aes256Gcm, KeyError> {
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params()?);
        let mut key = Zeroizing::new([0; 32]);
        argon
            .hash_password_into(passphrase, salt, key.as_mut_slice())
            .map_err(|error| seal_error(&error.to_string()))?;
        Aes256Gcm::new_from_slice(key.as_slice())
            .map_err(|_length| seal_error("its key has no 32 bytes"))
    }

    // The rest of the file, which the tag covers, too.
    fn bound(&self, node: &Author) -> Vec<u8> {
        let numbers = [self.memory_kib, self.passes, self.lanes];
        let mut bound = b"lattice identity v2 passphrase".to_vec();
        bound.extend(node.0);
        bound.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        bound.extend(self.salt.as_bytes());
        bound
    }
}

fn malformed(what: &str) -> KeyError {
    KeyError::Malformed {
        what: what.to_owned(),
    }
}

fn seal_error(what: &str) -> KeyError {
    KeyError::Seal {
        what: what.to_owned(),
    }
}

// The second set that RFC 9106 recommends, for machines with less memory.
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 4;
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;
const SALT_BYTES: usize = 16;
const SEALED_BYTES: usize = 32 + 16;
// Each key encrypts one secret.
const NONCE: [u8; 12] = [0; 12];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_secret_opens_with_its_passphrase_alone() {
        let seed = Seed::new([9; 32]);
        let node = seed.node();
        let sealed = Sealed::seal(&seed, b"correct horse").unwrap();
        assert_eq!(sealed.open(&node, b"correct horse").unwrap(), seed);
        let wrong = |sealed: &Sealed, node: &Author, passphrase: &[u8]| {
            let opened = sealed.open(node, passphrase);
            assert!(
                matches!(opened, Err(KeyError::WrongPassphrase)),
                "{opened:?}"
            );
        };
        wrong(&sealed, &node, b"correct horse ");
        wrong(&sealed, &node, b"");
        wrong(&sealed, &Author([1; 32]), b"correct horse");
        for index in [0, 40, 95] {
            let mut changed = sealed.clone();
            let digit = &sealed.sealed[index..=index];
            let other = if digit == "0" { "1" } else { "0" };
            changed.sealed.replace_range(index..=index, other);
            wrong(&changed, &node, b"correct horse");
        }
        let mut changed = sealed.clone();
        changed.passes = 2;
        wrong(&changed, &node, b"correct horse");
        // The same secret and passphrase again look otherwise.
        let again = Sealed::seal(&seed, b"correct horse").unwrap();
        assert_ne!((&again.salt, &again.sealed), (&sealed.salt, &sealed.sealed));
    }

    #[test]
    fn parameters_out_of_bounds_are_refused_before_they_are_used() {
        let sealed = Sealed::seal(&Seed::new([9; 32]), b"correct horse").unwrap();
        sealed.check().unwrap();
        let changes: [fn(&mut Sealed); 7] = [
            |it| it.memory_kib = u32::MAX,
            |it| it.memory_kib = 0,
            |it| it.passes = 17,
            |it| it.passes = 0,
            |it| it.lanes = 17,
            |it| it.salt.push('0'),
            |it| it.sealed.truncate(94),
        ];
        for change in changes {
            let mut changed = sealed.clone();
            change(&mut changed);
            assert!(
                matches!(changed.check(), Err(KeyError::Malformed { .. })),
                "{changed:?}"
            );
        }
        for bytes in [0, PASSPHRASE_BYTES_MIN - 1, PASSPHRASE_BYTES_MAX + 1] {
            let refused = Sealed::seal(&Seed::new([9; 32]), &vec![b'a'; bytes]);
            assert!(matches!(refused, Err(KeyError::PassphraseLength { .. })));
        }
    }
}
