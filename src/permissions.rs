//! Owner and mode of files and directories that a node obeys or keeps secret, by the rules of ssh.
//!
//! A file that the node obeys (`config.toml`, `hooks.toml`, a list of certificates) belongs to this
//! user or to the superuser, and nobody else may write it: whoever writes `hooks.toml` runs commands
//! as this user. Nobody else may even read a secret. Only regular files are read, and a path is
//! looked at before it is opened: opening a pipe would wait for a writer, and opening some devices
//! does something.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// How much a file or directory is trusted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The node obeys it: others must not write it.
    Obeyed,
    /// It is a secret: others must not read or write it.
    Secret,
}

/// A file or directory that the node does not use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Untrusted {
    /// It belongs to another user than this one and the superuser.
    #[error("{} belongs to user {owner}, and this process runs as user {user}", path.display())]
    WrongOwner {
        /// Path of the file or directory.
        path: PathBuf,
        /// User id of the owner.
        owner: u32,
        /// User id of this process.
        user: u32,
    },
    /// Other users could read or change it.
    #[error("{} has mode {mode:03o}: other users could {}", path.display(), could(*trust))]
    Exposed {
        /// Path of the file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The trust that the mode does not allow.
        trust: Trust,
    },
    /// It is not a regular file, or not a directory where one is expected.
    #[error("{} is {found}, not a {expected}", path.display())]
    WrongKind {
        /// Path of the file or directory.
        path: PathBuf,
        /// The kind that was found, with its article.
        found: &'static str,
        /// The kind that was expected.
        expected: &'static str,
    },
    /// The file system returned an error.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Path of the file or directory.
        path: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
}

impl Untrusted {
    /// True when there is nothing at the path.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Returns the error and its remedy in one line.
    pub fn with_remedy(&self) -> String {
        match self.remedy() {
            Some(remedy) => format!("{self} ({remedy})"),
            None => self.to_string(),
        }
    }

    /// Returns the command or the step that mends it, for people; `None` for an error of the file
    /// system.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::WrongOwner { path, owner, user } => Some(format!(
                "run this as user {owner}, or chown {user} {}",
                path.display()
            )),
            Self::Exposed { path, trust, .. } => {
                let change = match trust {
                    Trust::Obeyed => "go-w",
                    Trust::Secret => "go-rwx",
                };
                Some(format!("chmod {change} {}", path.display()))
            }
            Self::WrongKind { path, expected, .. } => Some(format!(
                "move {} away, or put a {expected} in its place",
                path.display()
            )),
            Self::Io { .. } => None,
        }
    }
}

/// Opens a regular file for reading. Follows a symbolic link of this user or the superuser.
///
/// # Errors
/// `Untrusted`.
pub fn open(path: &Path, trust: Trust) -> Result<File, Untrusted> {
    let link = fs::symlink_metadata(path).map_err(|source| io_error(path, source))?;
    if link.is_symlink() {
        check_owner(path, &link)?;
    }
    open_with(path, trust, OFlags::empty())
}

/// Opens a regular file as `open` does, but refuses every symbolic link.
///
/// # Errors
/// `Untrusted`.
pub fn open_unlinked(path: &Path, trust: Trust) -> Result<File, Untrusted> {
    let link = fs::symlink_metadata(path).map_err(|source| io_error(path, source))?;
    check_kind(path, &link)?;
    open_with(path, trust, OFlags::NOFOLLOW)
}

fn open_with(path: &Path, trust: Trust, flags: OFlags) -> Result<File, Untrusted> {
    let io = |source| io_error(path, source);
    check_kind(path, &fs::metadata(path).map_err(io)?)?;
    // The path may lead elsewhere by now: an opened pipe must not wait, and the file is looked at
    // again.
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).expect("flags of open(2) are an int"))
        .open(path)
        .map_err(io)?;
    let found = file.metadata().map_err(io)?;
    check_kind(path, &found)?;
    check_owner(path, &found)?;
    check_mode(path, &found, trust)?;
    Ok(file)
}

/// Reads a regular file as `open` opens it, but at most `bytes_max` bytes and one more: a longer
/// result means that the file is too long.
///
/// # Errors
/// `Untrusted`.
pub fn read(path: &Path, trust: Trust, bytes_max: usize) -> Result<Vec<u8>, Untrusted> {
    let file = open(path, trust)?;
    let bytes_max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| io_error(path, source))?;
    Ok(bytes)
}

/// Checks a directory in which the node keeps files: only this user and the superuser may write in
/// it. Follows a symbolic link.
///
/// # Errors
/// `Untrusted`.
pub fn check_dir(path: &Path) -> Result<(), Untrusted> {
    let found = fs::metadata(path).map_err(|source| io_error(path, source))?;
    if !found.is_dir() {
        return Err(wrong_kind(path, &found, "directory"));
    }
    check_owner(path, &found)?;
    check_mode(path, &found, Trust::Obeyed)
}

fn check_kind(path: &Path, found: &Metadata) -> Result<(), Untrusted> {
    match found.is_file() {
        true => Ok(()),
        false => Err(wrong_kind(path, found, "regular file")),
    }
}

fn check_owner(path: &Path, found: &Metadata) -> Result<(), Untrusted> {
    let user = rustix::process::geteuid().as_raw();
    match found.uid() {
        0 => Ok(()),
        owner if owner == user => Ok(()),
        owner => Err(Untrusted::WrongOwner {
            path: path.to_owned(),
            owner,
            user,
        }),
    }
}

fn check_mode(path: &Path, found: &Metadata, trust: Trust) -> Result<(), Untrusted> {
    let denied = match trust {
        Trust::Obeyed => 0o022,
        Trust::Secret => 0o077,
    };
    match found.mode() & denied {
        0 => Ok(()),
        _exposed => Err(Untrusted::Exposed {
            path: path.to_owned(),
            mode: found.mode() & 0o777,
            trust,
        }),
    }
}

fn wrong_kind(path: &Path, found: &Metadata, expected: &'static str) -> Untrusted {
    let kind = found.file_type();
    let found = match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_file() => "a file",
        () => "a device",
    };
    Untrusted::WrongKind {
        path: path.to_owned(),
        found,
        expected,
    }
}

fn io_error(path: &Path, source: io::Error) -> Untrusted {
    Untrusted::Io {
        path: path.to_owned(),
        source,
    }
}

fn could(trust: Trust) -> &'static str {
    match trust {
        Trust::Obeyed => "change it",
        Trust::Secret => "read or change it",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use rustix::fs::{CWD, FileType, Mode};

    use super::*;

    fn file(dir: &Path, mode: u32) -> PathBuf {
        let path = dir.join(format!("{mode:o}"));
        fs::write(&path, "text").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    // The superuser may read every file, others need not be able to.
    fn is_exposed(path: &Path, trust: Trust) -> bool {
        match open(path, trust) {
            Err(Untrusted::Exposed { .. }) => true,
            Ok(_) => false,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn others_must_not_write_or_read() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, obeyed, secret) in [
            (0o600, false, false),
            (0o700, false, false),
            (0o644, false, true),
            (0o640, false, true),
            (0o604, false, true),
            (0o610, false, true),
            (0o620, true, true),
            (0o602, true, true),
            (0o666, true, true),
        ] {
            let path = file(dir.path(), mode);
            assert_eq!(is_exposed(&path, Trust::Obeyed), obeyed, "{mode:o}");
            assert_eq!(is_exposed(&path, Trust::Secret), secret, "{mode:o}");
        }
        let open = open(&file(dir.path(), 0o666), Trust::Obeyed).unwrap_err();
        let path = dir.path().join("666");
        assert_eq!(
            open.remedy(),
            Some(format!("chmod go-w {}", path.display()))
        );
    }

    #[test]
    fn directory_that_others_write_in_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, ok) in [(0o700, true), (0o755, true), (0o775, false), (0o707, false)] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check_dir(dir.path()).is_ok(), ok, "{mode:o}");
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let refused = check_dir(&file(dir.path(), 0o600));
        assert!(
            matches!(refused, Err(Untrusted::WrongKind { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::from(0o600), 0).unwrap();
        let link = dir.path().join("link");
        symlink(&pipe, &link).unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let device = Path::new("/dev/zero");
        for path in [&pipe, &link, dir.path(), &socket, device] {
            let refused = open(path, Trust::Obeyed);
            assert!(
                matches!(refused, Err(Untrusted::WrongKind { .. })),
                "{refused:?}"
            );
        }
        let own = dir.path().join("own");
        symlink(file(dir.path(), 0o600), &own).unwrap();
        assert_eq!(read(&own, Trust::Secret, 2).unwrap(), b"tex");
        assert!(
            open(&dir.path().join("none"), Trust::Obeyed)
                .unwrap_err()
                .is_missing()
        );
    }

    // Only the superuser can give files away; for others there is nothing to test.
    #[test]
    fn file_of_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), 0o600);
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
        let is_foreign = |path: &Path| {
            matches!(
                open(path, Trust::Obeyed),
                Err(Untrusted::WrongOwner { owner: 65534, .. })
            )
        };
        assert!(!is_foreign(&path));
        assert!(is_foreign(&link), "a link of another user");
        chown(&path, Some(65534), None).unwrap();
        assert!(is_foreign(&path));
        chown(dir.path(), Some(65534), None).unwrap();
        let refused = check_dir(dir.path()).unwrap_err();
        assert!(
            matches!(refused, Untrusted::WrongOwner { user: 0, .. }),
            "{refused:?}"
        );
    }
}
