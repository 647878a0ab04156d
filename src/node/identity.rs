//! `identity.key`: the secret of the node's key, or the place where it is kept, in a file that only its owner
//! can read.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{
    id::Author,
    limits::KEY_TEXT_BYTES_MAX,
    node::{
        data_dir::{IDENTITY, no_follow},
        error::OpenError,
    },
    permissions::{Trust, open_unlinked},
    vault::{KeyError, KeyFile, KeyPlace, KeySources, Seed},
};

/// Returns the secret, from the place that the file names. Makes a key if the file is missing and `create` is
/// true: in the vault of the caller if it has one, else in the file.
///
/// Waits for a person or a command: not for an event loop.
///
/// # Errors
/// `Io`; `Untrusted` if other users could have it; `Unusable`; `Key`.
pub(super) fn load(data_dir: &Path, create: bool, sources: &KeySources) -> Result<Seed, OpenError> {
    let path = data_dir.join(IDENTITY);
    match read(&path) {
        Err(OpenError::Untrusted(error)) if error.is_missing() && create => {
            make(data_dir, sources).map_err(|error| error.at(&path))
        }
        file => {
            let seed = sources.fetch(&file?);
            seed.map_err(|source| OpenError::key(&path, source))
        }
    }
}

/// Returns the secret that a file anywhere has or names, a copy of `identity.key`.
///
/// # Errors
/// Like `load`.
pub(super) fn load_file(path: &Path, sources: &KeySources) -> Result<Seed, OpenError> {
    let seed = sources.fetch(&read(path)?);
    seed.map_err(|source| OpenError::key(path, source))
}

/// Reads `identity.key` of a directory, and fetches nothing.
///
/// # Errors
/// `Io`, `Untrusted`, `Unusable`.
pub(super) fn read_file(data_dir: &Path) -> Result<KeyFile, OpenError> {
    read(&data_dir.join(IDENTITY))
}

/// Writes `seed` as the identity of a directory that has none. Durable on return.
///
/// # Errors
/// Any error of the file system.
pub(super) fn install(data_dir: &Path, seed: &Seed) -> io::Result<()> {
    put_in_place(data_dir, &KeyFile::plain(seed.clone()))
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

/// Puts a new key in the place of the old one, and keeps the old file under another name. Durable on
/// return; after a crash before, the directory has one of the two.
///
/// # Errors
/// `Untrusted`, `ReadOnly`, `Io`.
pub(super) fn renew(data_dir: &Path) -> Result<NewIdentity, OpenError> {
    let path = data_dir.join(IDENTITY);
    let former = match read(&path) {
        Ok(file) => Some(file.node),
        Err(OpenError::Unusable { .. }) => None,
        Err(_missing) if !exists(data_dir) => None,
        Err(error) => return Err(error),
    };
    let seed = Seed::random().map_err(|source| OpenError::key(&path, source))?;
    let replace = || {
        let new = write(data_dir, &KeyFile::plain(seed.clone()))?;
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
        Ok(kept)
    };
    let kept = replace().map_err(|source| OpenError::refused(&path, source))?;
    let node = seed.node();
    Ok(NewIdentity { node, former, kept })
}

/// Writes `file` beside the one in place, durable on return. It has no effect before `replace`.
///
/// # Errors
/// Any error of the file system.
pub(super) fn prepare_new(data_dir: &Path, file: &KeyFile) -> io::Result<PathBuf> {
    write(data_dir, file)
}

/// Puts the file that `prepare_new` wrote in place of the one that is there, and overwrites the bytes of the
/// latter. The rename is the moment at which the move counts. A file system may keep the old bytes elsewhere
/// all the same. If the old file has another name, in a backup of hard links, it stays as it is.
///
/// # Errors
/// Any error of the file system, and the other name; before the rename, nothing has changed.
pub(super) fn replace(data_dir: &Path, new: &Path) -> io::Result<()> {
    let path = data_dir.join(IDENTITY);
    let mut old = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(no_follow())
        .open(&path)?;
    let found = old.metadata()?;
    std::fs::rename(new, &path)?;
    File::open(data_dir)?.sync_all()?;
    if found.nlink() > 1 {
        let what = "the file has another name, as in a backup of hard links";
        return Err(io::Error::other(what));
    }
    let bytes = found.len();
    old.rewind()?;
    io::copy(&mut io::repeat(0).take(bytes), &mut old)?;
    old.sync_all()
}

/// Removes what a call that was cut has left beside the file in place: it may have the secret.
///
/// # Errors
/// Any error of the file system.
pub(super) fn remove_left_over(data_dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(data_dir.join(NEW)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _removed => Ok(()),
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

fn read(path: &Path) -> Result<KeyFile, OpenError> {
    let file = open_unlinked(path, Trust::Secret)?;
    // Growing would leave a copy of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(KEY_TEXT_BYTES_MAX));
    let mut file = file.take(KEY_TEXT_BYTES_MAX as u64);
    let read = file.read_to_string(&mut text);
    read.map_err(|source| OpenError::Io {
        path: path.to_owned(),
        source,
    })?;
    KeyFile::parse(&text).map_err(|source| OpenError::key(path, source))
}

/// Why no key could be made.
enum MakeError {
    Key(KeyError),
    Io(io::Error),
}

impl MakeError {
    fn at(self, path: &Path) -> OpenError {
        match self {
            Self::Key(source) => OpenError::key(path, source),
            Self::Io(source) => OpenError::Io {
                path: path.to_owned(),
                source,
            },
        }
    }
}

fn make(data_dir: &Path, sources: &KeySources) -> Result<Seed, MakeError> {
    let seed = Seed::random().map_err(MakeError::Key)?;
    let file = match &sources.vault {
        None => KeyFile::plain(seed.clone()),
        Some(vault) => {
            let (node, place) = (seed.node(), KeyPlace::Caller);
            let file = KeyFile { node, place };
            let kept = vault.store(&node, &seed).map_err(|what| KeyError::Vault {
                place: vault.place(),
                what,
            });
            kept.map_err(MakeError::Key)?;
            // Before anything depends on it.
            sources.fetch(&file).map_err(MakeError::Key)?;
            file
        }
    };
    put_in_place(data_dir, &file).map_err(MakeError::Io)?;
    Ok(seed)
}

fn put_in_place(data_dir: &Path, file: &KeyFile) -> io::Result<()> {
    let new = write(data_dir, file)?;
    // A link, not a rename: it fails if another process has made the file meanwhile.
    std::fs::hard_link(&new, data_dir.join(IDENTITY))?;
    std::fs::remove_file(new)?;
    File::open(data_dir)?.sync_all()
}

// Writes a key under another name than its own, so that a crash leaves no half of a key under the right
// one. Returns its path.
fn write(data_dir: &Path, file: &KeyFile) -> io::Result<PathBuf> {
    remove_left_over(data_dir)?;
    let new = data_dir.join(NEW);
    let mut to = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(no_follow())
        .open(&new)?;
    to.write_all(file.to_text().as_bytes())?;
    to.sync_all()?;
    Ok(new)
}

const NEW: &str = "identity.new";
