//! A secret that systemd gives a service as a credential: a file in a directory that only this service can
//! read. It may be encrypted on the disk, with a key of the machine or of its TPM.

use std::{fs::File, io::Read as _, path::Path};

use zeroize::Zeroizing;

use crate::{limits::KEY_TEXT_BYTES_MAX, vault::KeyError};

/// Name of the credential with the key of a node.
pub const CREDENTIAL_NAME: &str = "lattice.key";

/// Reads the credential `name` in the directory of credentials.
///
/// # Errors
/// `NoCredentials`, `Credential`.
pub(super) fn read(dir: Option<&Path>, name: &str) -> Result<Zeroizing<String>, KeyError> {
    let name = name.to_owned();
    let Some(dir) = dir else {
        return Err(KeyError::NoCredentials { name });
    };
    let path = dir.join(&name);
    let mut text = Zeroizing::new(String::with_capacity(KEY_TEXT_BYTES_MAX));
    let read = File::open(&path).and_then(|file| {
        let mut file = file.take(KEY_TEXT_BYTES_MAX as u64);
        file.read_to_string(&mut text)
    });
    match read {
        Ok(_bytes) => Ok(text),
        Err(source) => Err(KeyError::Credential { path, source }),
    }
}
