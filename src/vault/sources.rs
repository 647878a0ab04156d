//! The sources from which a secret is fetched.

use std::{fmt, io, path::PathBuf, sync::Arc};

use zeroize::Zeroizing;

use crate::{
    id::Author,
    vault::{KeyError, KeyFile, KeyPlace, Seed, credential, helper},
};

/// Asks for the passphrase of a sealed key. The call may wait for a person.
pub trait AskPassphrase: fmt::Debug + Send + Sync {
    /// Returns the passphrase of the key of `node`; `None` if there is nobody to ask. `attempt` counts from
    /// 1: the passphrases before were wrong.
    ///
    /// # Errors
    /// It could not be read.
    fn ask(&self, node: &Author, attempt: u32) -> io::Result<Option<Zeroizing<Vec<u8>>>>;

    /// Returns whether a wrong passphrase is asked for again.
    fn asks_again(&self) -> bool {
        false
    }
}

/// A store of keys of the program that embeds a node: a keychain of the system, a hardware store.
pub trait KeyVault: fmt::Debug + Send + Sync {
    /// Returns the place as a noun, for errors: "the keychain of macOS".
    fn place(&self) -> String;

    /// Returns the secret of `node`.
    ///
    /// # Errors
    /// The reason for which there is none, for people.
    fn load(&self, node: &Author) -> Result<Seed, String>;

    /// Keeps the secret of `node`, durable on return.
    ///
    /// # Errors
    /// The reason for which it cannot be kept, for people.
    fn store(&self, node: &Author, seed: &Seed) -> Result<(), String>;

    /// Removes the secret of `node`, if it is there.
    ///
    /// # Errors
    /// The reason for which it may still be there, for people.
    fn remove(&self, node: &Author) -> Result<(), String>;
}

/// The sources from which a node may fetch the secret of its key. `identity.key` says which one it is.
#[derive(Debug, Clone, Default)]
pub struct KeySources {
    /// Asks for a passphrase. `None`: a sealed key cannot be opened.
    pub passphrase: Option<Arc<dyn AskPassphrase>>,
    /// Directory of the credentials that systemd gave this process.
    pub credentials: Option<PathBuf>,
    /// The store of keys of the program that opens the node. A new node keeps its key there.
    pub vault: Option<Arc<dyn KeyVault>>,
}

impl KeySources {
    /// Returns the sources of this process: the credentials that it was given, and nobody to ask.
    pub fn of_process() -> Self {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
        Self {
            credentials: credentials.map(PathBuf::from),
            ..Self::default()
        }
    }

    /// Fetches the secret from the place that `file` names, and from no other.
    ///
    /// Runs a command, waits for a person, or works for some tenths of a second: not for an event loop.
    ///
    /// # Errors
    /// `KeyError`.
    pub fn fetch(&self, file: &KeyFile) -> Result<Seed, KeyError> {
        let node = file.node;
        let place = file.place.to_string();
        let of_text = |text: Zeroizing<String>| {
            let bytes = text.len();
            let place = place.clone();
            Seed::from_text(&text).ok_or(KeyError::NotAKey { place, bytes })
        };
        let seed = match &file.place {
            KeyPlace::File(seed) => seed.clone(),
            KeyPlace::Passphrase(sealed) => {
                self.open(&node, |passphrase| sealed.open(&node, passphrase))?
            }
            KeyPlace::Credential { name } => {
                of_text(credential::read(self.credentials.as_deref(), name)?)?
            }
            KeyPlace::Command { argv } => of_text(helper::run(argv)?)?,
            KeyPlace::Caller => {
                let vault = self.vault.as_ref().ok_or(KeyError::NoVault { node })?;
                let place = vault.place();
                let loaded = vault.load(&node);
                loaded.map_err(|what| KeyError::Vault { place, what })?
            }
        };
        let found = seed.node();
        match found == node {
            true => Ok(seed),
            false => Err(KeyError::OtherNode { place, node, found }),
        }
    }

    fn open(
        &self,
        node: &Author,
        open: impl Fn(&[u8]) -> Result<Seed, KeyError>,
    ) -> Result<Seed, KeyError> {
        let nobody = || KeyError::NoPassphrase { node: *node };
        let asking = self.passphrase.as_ref().ok_or_else(nobody)?;
        for attempt in 1.. {
            let passphrase = asking.ask(node, attempt);
            let passphrase = passphrase.map_err(|source| KeyError::Passphrase { source })?;
            match open(&passphrase.ok_or_else(nobody)?) {
                Err(KeyError::WrongPassphrase) if asking.asks_again() && attempt < ATTEMPTS => {}
                opened => return opened,
            }
        }
        Err(KeyError::WrongPassphrase)
    }
}

const ATTEMPTS: u32 = 3;
