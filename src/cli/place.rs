//! Finds the data directory, and the store that the current directory uses.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use lattice::{
    api::error::ApiError,
    client::place,
    node::NodeConfig,
    permissions::{self, Trust, Untrusted},
};

use crate::cli::{exit::Failure, input::passphrase::Passphrases};

/// The data directory, and in it the choices of `store use`: one store per working directory.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Path of the data directory; it may not exist yet.
    pub(crate) data_dir: PathBuf,
    /// True if a flag or the environment named it; false for the platform's default.
    pub(crate) is_named: bool,
    /// File with the passphrase of the node's key, if it is sealed with one.
    pub(crate) passphrase_file: Option<PathBuf>,
}

impl Place {
    /// Returns the options with which the node here is opened.
    pub(crate) fn node_config(&self) -> NodeConfig {
        let mut config = NodeConfig::new(&self.data_dir);
        let file = self.passphrase_file.clone();
        config.key.passphrase = Some(Arc::new(Passphrases { file }));
        config
    }

    /// Returns the directory `named`, else `lattice` in the platform's data folder.
    pub(crate) fn find(named: Option<&Path>) -> Result<Self, Failure> {
        if let Some(dir) = named {
            if dir.as_os_str().is_empty() {
                return Err(Failure::usage(
                    "no_data_dir",
                    "the data directory's name is empty",
                ));
            }
            // Absolute, so that messages name the full path.
            let data_dir = std::path::absolute(dir).unwrap_or_else(|_unknown| dir.to_owned());
            return Ok(Self {
                data_dir,
                is_named: true,
                passphrase_file: None,
            });
        }
        let Some(data_dir) = place::platform_dir() else {
            return Err(
                Failure::usage("no_home", "no home directory to keep data in")
                    .hint("name a directory with --data-dir or $LATTICE_DATA"),
            );
        };
        Ok(Self {
            data_dir,
            is_named: false,
            passphrase_file: None,
        })
    }

    /// Returns the path of the socket on which the node listens while it runs.
    pub(crate) fn socket(&self) -> PathBuf {
        place::socket(&self.data_dir)
    }

    /// Checks that a node can serve a socket here, before anything is created.
    pub(crate) fn check_socket(&self) -> Result<(), Failure> {
        let checked = lattice::api::socket::checked_path(&self.data_dir);
        checked
            .map(drop)
            .map_err(|error| ApiError::from(error).into())
    }

    /// True if a node was created here; it may be damaged.
    pub(crate) fn exists(&self) -> bool {
        self.data_dir
            .join("identity.key")
            .symlink_metadata()
            .is_ok()
    }

    /// True while a process has the data directory open.
    pub(crate) fn is_locked(&self) -> bool {
        // Held for a moment only. A process that wants the lock meanwhile retries for longer.
        let lock = permissions::open(&self.data_dir.join("lock"), Trust::Obeyed);
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
    }

    /// Returns the store that `store use` chose for the current directory; `None` means no choice.
    pub(crate) fn store_used(&self) -> Result<Option<String>, Failure> {
        let Some(here) = canonical_dir() else {
            return Ok(None);
        };
        Ok(self.read_choices()?.remove(&here))
    }

    /// Chooses `store` for the current directory; `None` removes the choice.
    pub(crate) fn use_store(&self, store: Option<&str>) -> Result<(), Failure> {
        let Some(here) = canonical_dir() else {
            return Err(Failure::failed(
                "no_current_dir",
                "the current directory does not exist any more",
            ));
        };
        let mut choices = self.read_choices()?;
        match store {
            Some(store) => choices.insert(here, store.to_owned()),
            None => choices.remove(&here),
        };
        let path = self.choices_path();
        let text = serde_json::to_vec_pretty(&choices)
            .map_err(|error| choices_error(&path, &error.to_string()))?;
        // Renamed into place, so that two terminals at once cannot leave half a file.
        let new = path.with_extension(format!("{}.new", std::process::id()));
        write_private(&new, &text)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|error| choices_error(&path, &error.to_string()))
    }

    fn read_choices(&self) -> Result<BTreeMap<String, String>, Failure> {
        let path = self.choices_path();
        match permissions::read(&path, Trust::Obeyed, CHOICES_BYTES_MAX) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| choices_error(&path, &error.to_string())),
            // Missing, or the data directory is not a directory or not readable: opening the node
            // gives a better error.
            Err(Untrusted::Io { .. }) => Ok(BTreeMap::new()),
            Err(error) => {
                let remedy = error.remedy().unwrap_or_default();
                Err(Failure::failed("store_use", error.to_string()).hint(remedy))
            }
        }
    }

    // A JSON object: canonical working directory -> UUID of the store.
    fn choices_path(&self) -> PathBuf {
        self.data_dir.join("store-use.json")
    }
}

// Writes a file that only this user can read or write, in place of a file of that name.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _removed => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path)?.write_all(bytes)
}

/// Bytes of the choices of `store use`. A longer file is cut, and is malformed then.
const CHOICES_BYTES_MAX: usize = 4 << 20;

/// Returns the current directory as the process sees it.
pub(crate) fn current_dir() -> Result<PathBuf, Failure> {
    env::current_dir().map_err(|error| {
        let message = format!("cannot find the current directory: {error}");
        Failure::failed("no_current_dir", message)
    })
}

// Returns the current directory without symbolic links.
fn canonical_dir() -> Option<String> {
    let dir = env::current_dir().and_then(|dir| dir.canonicalize()).ok()?;
    Some(dir.to_string_lossy().into_owned())
}

fn choices_error(path: &Path, what: &str) -> Failure {
    Failure::failed(
        "store_use",
        format!("cannot use {}: {what}", path.display()),
    )
    .hint("remove the file, then choose again with `lattice store use NAME`")
}
