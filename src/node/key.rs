//! The secret of the node's key: shown, and moved to another place.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use zeroize::Zeroizing;

use crate::{
    id::Author,
    node::{
        Node, NodeConfig, OpenError,
        data_dir::{IDENTITY, prepare},
        identity,
        lock::Lock,
    },
    store::WriteError,
    vault::{KeyError, KeyFile, KeyPlace, Sealed, Seed},
};

/// The place to which the secret of a key is moved.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyMove {
    /// Into `identity.key`, as it is.
    File,
    /// Into `identity.key`, sealed with this passphrase.
    Passphrase(Zeroizing<Vec<u8>>),
    /// To a credential of systemd, which has it already.
    Credential {
        /// Name of the credential.
        name: String,
        /// The secret, as it was read back from the credential.
        read_back: Seed,
    },
    /// To a place that a command reads, which has it already.
    Command {
        /// The program that prints it, and its arguments.
        argv: Vec<String>,
    },
    /// Into the store of keys of the program that opens the node (`KeySources::vault`).
    Caller,
}

/// A secret that was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyMoved {
    /// The node whose key it is.
    pub node: Author,
    /// Where the secret was.
    pub from: KeyPlace,
    /// Where it is now.
    pub to: KeyPlace,
    /// Why it could not be wiped where it was. `None`: it was, or that place is not this program's to wipe.
    pub not_wiped: Option<String>,
}

impl KeyMoved {
    /// Returns whether the secret is still where it was, because that place is not this program's to wipe.
    pub fn is_left_behind(&self) -> bool {
        matches!(
            self.from,
            KeyPlace::Credential { .. } | KeyPlace::Command { .. }
        ) && self.from != self.to
    }
}

/// Why the secret was not moved. It is where it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyMoveError {
    /// It cannot be had from where it is, or the node does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be had from the new place.
    #[error("the key was not moved: from the new place it cannot be had: {0}")]
    New(#[source] KeyError),
    /// The node does not start with it.
    #[error("the key was not moved: the node does not close with it")]
    Close(#[source] WriteError),
    /// The file could not be written.
    #[error("the key was not moved: {} cannot be written", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
}

impl Node {
    /// Returns where the secret of the key of the node in `data_dir` is kept. Fetches nothing; the node may be
    /// open.
    ///
    /// # Errors
    /// `OpenError`.
    pub fn key_file(data_dir: &Path) -> Result<KeyFile, OpenError> {
        prepare(&crate::disk::RealDisk, data_dir, false)?;
        identity::read_file(data_dir)
    }

    /// Moves the secret of the node's key to another place. It is put there, read back, the node is opened
    /// with that and closed, then `identity.key` names the new place, and the secret is wiped where it was.
    /// After a crash it is in one of the two places, and `identity.key` says in which, or still in both.
    ///
    /// Durable on return. The directory must not be open. Goes on when its future is dropped, or has no
    /// effect.
    ///
    /// # Errors
    /// `KeyMoveError`; then `identity.key` is as before.
    pub async fn move_key(config: NodeConfig, to: KeyMove) -> Result<KeyMoved, KeyMoveError> {
        let moving = tokio::spawn(move_key(config, to));
        moving.await.map_err(|_panic| OpenError::Panicked)?
    }

    /// Fetches the secret of the key of the node in a directory. The node may be open.
    ///
    /// # Errors
    /// `OpenError`.
    pub async fn fetch_key(config: NodeConfig) -> Result<Seed, OpenError> {
        prepare(config.disk.as_ref(), &config.data_dir, false)?;
        let fetching = move || identity::load(&config.data_dir, false, &config.key);
        let fetched = tokio::task::spawn_blocking(fetching).await;
        fetched.map_err(|_panic| OpenError::Panicked)?
    }
}

async fn move_key(config: NodeConfig, to: KeyMove) -> Result<KeyMoved, KeyMoveError> {
    let data_dir = config.data_dir.clone();
    prepare(config.disk.as_ref(), &data_dir, false)?;
    let lock = Arc::new(Lock::take_after_close(&data_dir).await?);
    let old = identity::read_file(&data_dir)?;
    let (sources, from) = (config.key.clone(), old.clone());
    let dir = data_dir.clone();
    let putting = tokio::task::spawn_blocking(move || {
        let seed = sources.fetch(&from);
        let seed = seed.map_err(|source| OpenError::key(&dir.join(IDENTITY), source))?;
        put(&sources, &seed, to).map_err(KeyMoveError::New)
    });
    let (new, read_back) = putting.await.map_err(|_panic| OpenError::Panicked)??;
    let node = Node::open_with(config.clone(), Arc::clone(&lock), &read_back).await?;
    node.close().await.map_err(KeyMoveError::Close)?;
    drop(node);
    let io = |source| KeyMoveError::Io {
        path: data_dir.join(IDENTITY),
        source,
    };
    let file = identity::prepare_new(&data_dir, &new).map_err(io)?;
    let mut not_wiped = None;
    if let Err(source) = identity::replace(&data_dir, &file) {
        if identity::read_file(&data_dir).ok().as_ref() != Some(&new) {
            return Err(io(source));
        }
        not_wiped = Some(source.to_string());
    }
    let had_vault = old.place == KeyPlace::Caller && new.place != KeyPlace::Caller;
    if let Some(vault) = config.key.vault.filter(|_| had_vault) {
        let of = old.node;
        let removing = tokio::task::spawn_blocking(move || vault.remove(&of)).await;
        not_wiped = removing.map_err(|_panic| OpenError::Panicked)?.err();
    }
    drop(lock);
    Ok(KeyMoved {
        node: old.node,
        from: old.place,
        to: new.place,
        not_wiped,
    })
}

// Puts the secret into its new place and reads it back.
fn put(
    sources: &crate::vault::KeySources,
    seed: &Seed,
    to: KeyMove,
) -> Result<(KeyFile, Seed), KeyError> {
    let node = seed.node();
    let file = |place| KeyFile { node, place };
    let (file, read_back) = match to {
        KeyMove::File => {
            let file = KeyFile::plain(seed.clone());
            let read = KeyFile::parse(&file.to_text())?;
            let read_back = sources.fetch(&read)?;
            (file, read_back)
        }
        KeyMove::Passphrase(passphrase) => {
            let sealed = Sealed::seal(seed, &passphrase)?;
            let read_back = sealed.open(&node, &passphrase)?;
            (file(KeyPlace::Passphrase(sealed)), read_back)
        }
        KeyMove::Credential { name, read_back } => (file(KeyPlace::Credential { name }), read_back),
        KeyMove::Command { argv } => {
            let file = file(KeyPlace::Command { argv });
            let read_back = sources.fetch(&file)?;
            (file, read_back)
        }
        KeyMove::Caller => {
            let file = file(KeyPlace::Caller);
            let vault = sources.vault.as_ref().ok_or(KeyError::NoVault { node })?;
            vault.store(&node, seed).map_err(|what| KeyError::Vault {
                place: vault.place(),
                what,
            })?;
            let read_back = sources.fetch(&file)?;
            (file, read_back)
        }
    };
    let found = read_back.node();
    let place = file.place.to_string();
    match found == node {
        true => Ok((file, read_back)),
        false => Err(KeyError::OtherNode { place, node, found }),
    }
}
