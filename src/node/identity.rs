//! The node's signing key, in a file that only its owner can read.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::node::{
    data_dir::{IDENTITY, no_follow},
    error::OpenError,
};

const FIRST_LINE: &str = "lattice identity v1";

/// Reads the key. Makes one if the file is missing and `create` is true.
///
/// # Errors
/// `Io`; `WrongOwner` and `Exposed` if other users could have it; `Unusable`.
pub(super) fn load(data_dir: &Path, create: bool) -> Result<SigningKey, OpenError> {
    let path = data_dir.join(IDENTITY);
    let io = |source| OpenError::Io {
        path: path.clone(),
        source,
    };
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(no_follow())
        .open(&path);
    match opened {
        Ok(file) => read(file, &path),
        Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
            make(data_dir, &path).map_err(io)
        }
        Err(error) => Err(io(error)),
    }
}

/// Returns 32 random bytes from the operating system.
pub(super) fn random() -> Result<[u8; 32], OpenError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| OpenError::Io {
        path: "the system's random source".into(),
        source: io::Error::other(error.to_string()),
    })?;
    Ok(bytes)
}

fn read(file: File, path: &Path) -> Result<SigningKey, OpenError> {
    let io = |source| OpenError::Io {
        path: path.to_owned(),
        source,
    };
    let meta = file.metadata().map_err(io)?;
    let user = rustix::process::geteuid().as_raw();
    if meta.uid() != user {
        return Err(OpenError::WrongOwner {
            path: path.to_owned(),
            owner: meta.uid(),
            user,
        });
    }
    if meta.mode() & 0o077 != 0 {
        let mode = meta.mode() & 0o777;
        return Err(OpenError::Exposed {
            path: path.to_owned(),
            mode,
            mode_max: 0o600,
        });
    }
    let mut text = Zeroizing::new(String::new());
    let unusable = |what: &str| OpenError::Unusable {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    file.take(1024).read_to_string(&mut text).map_err(io)?;
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err(unusable("it is not an identity of this version"));
    }
    let bytes = Zeroizing::new(
        HEXLOWER
            .decode(lines.next().unwrap_or_default().as_bytes())
            .map_err(|_letters| unusable("its key is not 64 hex digits"))?,
    );
    let seed: &[u8; 32] = bytes
        .as_slice()
        .try_into()
        .map_err(|_length| unusable("its key is not 64 hex digits"))?;
    Ok(SigningKey::from_bytes(seed))
}

fn make(data_dir: &Path, path: &Path) -> io::Result<SigningKey> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|error| io::Error::other(error.to_string()))?;
    let text = Zeroizing::new(format!(
        "{FIRST_LINE}\n{}\n",
        HEXLOWER.encode(seed.as_slice())
    ));
    // Written under another name first, so that a crash leaves no half of a key under the right
    // one.
    let new = data_dir.join("identity.new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _removed => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(no_follow())
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // A link, not a rename: it fails if another process has made the file meanwhile.
    std::fs::hard_link(&new, path)?;
    std::fs::remove_file(&new)?;
    File::open(data_dir)?.sync_all()?;
    Ok(SigningKey::from_bytes(&seed))
}
