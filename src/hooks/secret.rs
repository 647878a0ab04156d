//! The secret that signs posts.

use std::{env, fmt, io, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::{
    limits::HOOK_SECRET_BYTES_MAX,
    permissions::{self, Trust},
};

/// The place of the secret that signs posts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// Path of a file that only this user can read.
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
            Self::File(path) => permissions::read(path, Trust::Secret, HOOK_SECRET_BYTES_MAX)
                .map_err(|error| io::Error::other(error.with_remedy()))?,
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn secret_is_text_or_base64_and_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "").unwrap();
        let set_mode = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, mode).unwrap();
        };
        set_mode(0o600);
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Secret::File(path.clone()).read()
        };
        assert_eq!(read("open sesame\n").unwrap(), b"open sesame");
        assert_eq!(read("whsec_AAEC\n").unwrap(), [0, 1, 2]);
        assert!(read("whsec_?").is_err());
        assert!(read(" \n").is_err());
        assert!(read(&"x".repeat(5000)).is_err());
        assert!(Secret::File(dir.path().join("none")).read().is_err());
        set_mode(0o640);
        let error = read("open sesame\n").unwrap_err().to_string();
        assert!(error.contains("has mode 640"), "{error}");
        assert!(error.contains("(chmod go-rwx "), "{error}");
    }
}
