//! Finds the data directory of a node, and its socket, as the command line does.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Returns the data directory that is meant where none is named: `$LATTICE_DATA`, else [`platform_dir`].
/// `None`: there is neither that nor a home directory. It may not exist.
pub fn data_dir() -> Option<PathBuf> {
    let named = env::var_os("LATTICE_DATA").filter(|dir| !dir.is_empty());
    named.map(PathBuf::from).or_else(platform_dir)
}

/// Returns `lattice` in the platform's data folder: `$XDG_DATA_HOME` or `~/.local/share`, on macOS
/// `~/Library/Application Support`. `None`: there is no home directory.
pub fn platform_dir() -> Option<PathBuf> {
    let home = env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let data = if cfg!(target_os = "macos") {
        home.map(|home| home.join("Library/Application Support"))
    } else {
        // The XDG specification says to ignore a relative path.
        env::var_os("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
            .or_else(|| home.map(|home| home.join(".local/share")))
    };
    data.map(|data| data.join("lattice"))
}

/// Returns the path of the socket of the node in `data_dir`.
pub fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("run").join("sock")
}
