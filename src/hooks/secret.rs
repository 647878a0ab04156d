//! The secret that signs posts.

use std::{
    env, fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::limits::HOOK_SECRET_BYTES_MAX;

/// The place of the secret that signs posts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// Path of a file.
    File(PathBuf),
    /// Name of an environment variable of the node.
    Env(String),
}

impl Secret {
    /// Reads the secret: base64 after `whsec_`, otherwise the bytes of the trimmed text. Never
    /// empty.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        let text = match self {
            Self::File(path) => bounded(path, HOOK_SECRET_BYTES_MAX)?,
            Self::Env(name) => env::var_os(name)
                .ok_or_else(|| invalid("it is not set in the environment of the node"))?
                .into_encoded_bytes(),
        };
        if text.len() > HOOK_SECRET_BYTES_MAX {
            return Err(invalid("the secret is too long"));
        }
        let text = text.trim_ascii();
        let secret = match text.strip_prefix(b"whsec_") {
            Some(base64) => BASE64_STANDARD
                .decode(base64)
                .map_err(|_not_base64| invalid("the text after whsec_ is not base64"))?,
            None => text.to_vec(),
        };
        match secret.is_empty() {
            true => Err(invalid("the secret is empty")),
            false => Ok(secret),
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Env(name) => write!(f, "the variable {name}"),
        }
    }
}

/// Reads a file, but at most `bytes_max` and one byte more: a longer result means that the file is
/// too long.
pub(super) fn bounded(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let bytes_max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    File::open(path)?
        .take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_text_or_base64_and_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            let path = dir.path().join("secret");
            std::fs::write(&path, text).unwrap();
            Secret::File(path).read()
        };
        assert_eq!(read("open sesame\n").unwrap(), b"open sesame");
        assert_eq!(read("whsec_AAEC\n").unwrap(), [0, 1, 2]);
        assert!(read("whsec_?").is_err());
        assert!(read(" \n").is_err());
        assert!(read(&"x".repeat(5000)).is_err());
        assert!(Secret::File(dir.path().join("none")).read().is_err());
    }
}
