//! The node's signing key, in a file that only its owner can read.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::{
    id::Author,
    node::{
        data_dir::{IDENTITY, no_follow},
        error::OpenError,
    },
    permissions::{Trust, open_unlinked},
};

const FIRST_LINE: &str = "lattice identity v1";

/// Reads the key. Makes one if the file is missing and `create` is true.
///
/// # Errors
/// `Io`; `Untrusted` if other users could have it; `Unusable`.
pub(super) fn load(data_dir: &Path, create: bool) -> Result<SigningKey, OpenError> {
    let path = data_dir.join(IDENTITY);
    let io = |source| OpenError::Io {
        path: path.clone(),
        source,
    };
    match open_unlinked(&path, Trust::Secret) {
        Ok(file) => read(file, &path),
        Err(error) if error.is_missing() && create => make(data_dir, &path).map_err(io),
        Err(error) => Err(error.into()),
    }
}

/// Reads the key in a file anywhere, a copy of `identity.key`.
///
/// # Errors
/// `Io`; `Untrusted` if other users could have it; `Unusable`.
pub(super) fn load_file(path: &Path) -> Result<SigningKey, OpenError> {
    read(open_unlinked(path, Trust::Secret)?, path)
}

/// Makes a key.
///
/// # Errors
/// `Io`.
pub(super) fn new_key() -> Result<SigningKey, OpenError> {
    Ok(SigningKey::from_bytes(&Zeroizing::new(random()?)))
}

/// Writes `key` as the identity of a directory that has none. Durable on return.
///
/// # Errors
/// Any error of the file system.
pub(super) fn install(data_dir: &Path, key: &SigningKey) -> io::Result<()> {
    put_in_place(data_dir, &write(data_dir, key)?, &data_dir.join(IDENTITY))
}

/// A new identity for a directory that has data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewIdentity {
    /// The new node.
    pub node: Author,
    /// The node whose key was replaced. `None` if there was no key, or it could not be read.
    pub former: Option<Author>,
    /// Where the old file is kept. `None` if there was none.
    pub kept: Option<PathBuf>,
}

/// True when the directory has a key, which need not be readable.
pub(super) fn exists(data_dir: &Path) -> bool {
    data_dir.join(IDENTITY).symlink_metadata().is_ok()
}

/// Puts a new key in the place of the old one, and keeps the old one under another name. Durable on
/// return; after a crash before, the directory has one of the two.
///
/// # Errors
/// `Untrusted`, `ReadOnly`, `Io`.
pub(super) fn renew(data_dir: &Path) -> Result<NewIdentity, OpenError> {
    let path = data_dir.join(IDENTITY);
    let author = |key: &SigningKey| Author(key.verifying_key().to_bytes());
    let former = match load(data_dir, false) {
        Ok(key) => Some(author(&key)),
        Err(OpenError::Unusable { .. }) => None,
        Err(_missing) if !exists(data_dir) => None,
        Err(error) => return Err(error),
    };
    let replace = || {
        let (new, key) = write_new(data_dir)?;
        let kept = exists(data_dir).then(|| {
            let name = former.map_or("unreadable".to_owned(), |former| former.short());
            data_dir.join(format!("identity.{name}.key"))
        });
        if let Some(kept) = &kept {
            match std::fs::hard_link(&path, kept) {
                // It was kept before, and put back since.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && former.is_some() => {}
                linked => linked?,
            }
        }
        std::fs::rename(&new, &path)?;
        File::open(data_dir)?.sync_all()?;
        Ok((author(&key), kept))
    };
    let (node, kept) = replace().map_err(|source| OpenError::refused(&path, source))?;
    Ok(NewIdentity { node, former, kept })
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
    let (new, key) = write_new(data_dir)?;
    put_in_place(data_dir, &new, path)?;
    Ok(key)
}

fn put_in_place(data_dir: &Path, new: &Path, path: &Path) -> io::Result<()> {
    // A link, not a rename: it fails if another process has made the file meanwhile.
    std::fs::hard_link(new, path)?;
    std::fs::remove_file(new)?;
    File::open(data_dir)?.sync_all()
}

fn write_new(data_dir: &Path) -> io::Result<(PathBuf, SigningKey)> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|error| io::Error::other(error.to_string()))?;
    let key = SigningKey::from_bytes(&seed);
    Ok((write(data_dir, &key)?, key))
}

// Writes a key under another name than its own, so that a crash leaves no half of a key under the right
// one. Returns its path.
fn write(data_dir: &Path, key: &SigningKey) -> io::Result<PathBuf> {
    let seed = Zeroizing::new(key.to_bytes());
    let text = Zeroizing::new(format!(
        "{FIRST_LINE}\n{}\n",
        HEXLOWER.encode(seed.as_slice())
    ));
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
    Ok(new)
}
