//! The node's Unix socket: private from the moment it is created, for this user, and for a group if one
//! is set.
//!
//! Two checks, either of which would be enough: the directory belongs to this user with mode 0700 (with
//! a group: 0710), and the user of each peer is compared (with a group: looked up in it). The caller of `bind` holds the lock of the data directory,
//! so an existing socket file was left by a node that was killed. `bind` removes it, unless a
//! process still answers on it.

use std::{
    fs, io,
    os::unix::fs::{
        DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};

pub use crate::client::place::socket as path;
use crate::{
    api::{
        error::{ApiError, EXIT_FAILED, HINT_SHORTER},
        socket_access::{SocketAccess, SocketGroup, SocketGroupError},
    },
    limits::SOCKET_PATH_BYTES_MAX,
};

/// Returns the path of the socket of the node in `data_dir`, which need not exist.
///
/// # Errors
/// `PathTooLong`.
pub fn checked_path(data_dir: &Path) -> Result<PathBuf, SocketError> {
    let path = path(data_dir);
    let bytes = path.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        return Err(SocketError::PathTooLong {
            path,
            bytes,
            bytes_max: SOCKET_PATH_BYTES_MAX,
        });
    }
    Ok(path)
}

/// A socket that could not be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The path is too long: systems allow about a hundred bytes for a socket.
    #[error(
        "the path of the socket has {bytes} bytes; the system allows {bytes_max}: {}",
        path.display()
    )]
    PathTooLong {
        /// Path that was asked for.
        path: PathBuf,
        /// Length of that path.
        bytes: usize,
        /// Longest path that the system allows.
        bytes_max: usize,
    },
    /// Users other than this one may be able to write to the directory of the socket.
    #[error("{} cannot hold the socket: {what}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Reason for the refusal, for people.
        what: String,
    },
    /// A file that no node makes is at the path of the socket. The file is left as it is.
    #[error("{} is in the way: it is not a socket", path.display())]
    NotASocket {
        /// Path of the file.
        path: PathBuf,
    },
    /// Another process answers on the socket.
    #[error("{} is in use: another process answers on it", path.display())]
    InUse {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The group of the settings was not found.
    #[error(transparent)]
    Group(#[from] SocketGroupError),
    /// This process may not give a file to the group: it is not a member.
    #[error("cannot give {} to the group {group}: this user is not a member of it", path.display())]
    NotInGroup {
        /// Path of the file.
        path: PathBuf,
        /// Name of the group, or its id in digits.
        group: String,
    },
    /// The system refused an operation.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// Operation that failed, as a verb.
        doing: &'static str,
        /// Path of the operation.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
}

/// A bound socket. Dropping it removes its file.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    // Device and inode of the file that `bind` made: the drop removes no other file.
    file: (u64, u64),
    uid: u32,
    access: SocketAccess,
}

impl Socket {
    /// Binds the socket of `data_dir` for the users that `access` names. The caller must hold the lock
    /// of the directory.
    ///
    /// A group gets the socket, and may pass through the directory of the socket and the data directory.
    ///
    /// The umask of the process is stricter during the bind: a file that another thread creates
    /// meanwhile becomes private, never more open.
    ///
    /// # Errors
    /// Every variant of `SocketError`.
    pub fn bind(data_dir: &Path, access: &SocketAccess) -> Result<Self, SocketError> {
        let path = checked_path(data_dir)?;
        let uid = rustix::process::geteuid().as_raw();
        let run = data_dir.join("run");
        private_directory(&run, uid, access)?;
        remove_stale(&path)?;
        let umask = rustix::process::umask(Mode::RWXG | Mode::RWXO);
        let bound = UnixListener::bind(&path);
        rustix::process::umask(umask);
        let listener = bound.map_err(io_error("bind", &path))?;
        let made = fs::symlink_metadata(&path).map_err(io_error("look at", &path))?;
        let socket = Self {
            listener,
            path,
            file: (made.dev(), made.ino()),
            uid,
            access: access.clone(),
        };
        if let Some(group) = access.group() {
            // The directory of the socket last: it is private until the socket has its group.
            give(&socket.path, group, 0o660)?;
            let_pass(data_dir, group)?;
            give(&run, group, 0o710)?;
        }
        Ok(socket)
    }

    /// Returns the path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the next connection of a user who may use the socket; connections of other users are
    /// closed with a warning.
    ///
    /// Cancel-safe: dropping the call loses no connection.
    pub async fn accept(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _unnamed)) => match stream.peer_cred() {
                    Ok(peer) if self.access.admits(self.uid, &peer) => return stream,
                    Ok(peer) => {
                        tracing::warn!(uid = peer.uid(), "refused a connection of another user");
                    }
                    Err(error) => {
                        tracing::warn!(%error, "refused a connection whose user is unknown");
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.file);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

fn private_directory(path: &Path, uid: u32, access: &SocketAccess) -> Result<(), SocketError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(io_error("create", path)(source)),
    }
    let refused = |what: &str| SocketError::Directory {
        path: path.into(),
        what: what.into(),
    };
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => {
            refused("it is a link or a file, not a directory")
        }
        other => io_error("open", path)(other.into()),
    })?;
    let found =
        rustix::fs::fstat(&directory).map_err(|error| io_error("look at", path)(error.into()))?;
    if found.st_uid != uid {
        return Err(refused(&format!(
            "it belongs to user {}, and this process runs as user {uid}",
            found.st_uid
        )));
    }
    if found.st_mode & 0o077 != 0 {
        // A group passed through it in the last run.
        let expected = access.group().is_some() && found.st_mode & 0o077 == 0o010;
        if !expected {
            tracing::warn!(
                path = %path.display(),
                "other users could open the directory of the socket; made it private"
            );
        }
        rustix::fs::fchmod(&directory, Mode::RWXU)
            .map_err(|error| io_error("make private", path)(error.into()))?;
    }
    Ok(())
}

// Lets the group pass through the data directory to the socket, without reading the directory.
fn let_pass(data_dir: &Path, group: &SocketGroup) -> Result<(), SocketError> {
    let found = fs::metadata(data_dir).map_err(io_error("look at", data_dir))?;
    let passes_group = found.gid() == group.gid && found.mode() & 0o010 != 0;
    match found.mode() & 0o001 != 0 || passes_group {
        true => Ok(()),
        false => give(data_dir, group, found.mode() & 0o700 | 0o010),
    }
}

fn give(path: &Path, group: &SocketGroup, mode: u32) -> Result<(), SocketError> {
    chown(path, None, Some(group.gid)).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => SocketError::NotInGroup {
            path: path.into(),
            group: group.name.clone(),
        },
        _other => io_error("change the group of", path)(source),
    })?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(io_error("change the mode of", path))
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error("look at", path)(source)),
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.into() });
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(SocketError::InUse { path: path.into() });
    }
    tracing::info!(path = %path.display(), "removed the socket of a node that was killed");
    fs::remove_file(path).map_err(io_error("remove", path))
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError {
    move |source| SocketError::Io {
        doing,
        path: path.into(),
        source,
    }
}

impl From<SocketError> for ApiError {
    fn from(error: SocketError) -> Self {
        let message = error.to_string();
        match error {
            SocketError::PathTooLong { .. } => {
                Self::usage("socket_path_too_long", message).hint(HINT_SHORTER)
            }
            SocketError::Directory { .. } => Self::new("socket_directory", EXIT_FAILED, message)
                .hint("move it away; the node then creates a private directory"),
            SocketError::NotASocket { .. } => Self::new("socket_in_the_way", EXIT_FAILED, message)
                .hint("a node creates nothing but a socket there; check the file and move it away"),
            SocketError::InUse { .. } => Self::new("socket_in_use", EXIT_FAILED, message),
            SocketError::Group(error) => error.into(),
            SocketError::NotInGroup { .. } => Self::new("not_in_group", EXIT_FAILED, message).hint(
                "add the user who runs the node to the group and start the node from a new login, or \
                 set another socket_group in config.toml",
            ),
            SocketError::Io { .. } => Self::new("socket", EXIT_FAILED, message),
        }
    }
}

/// Wait after a failed accept. The usual cause is that the process has run out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::node::{FileConfig, SocketMode};

    fn bind(data_dir: &Path) -> Result<Socket, SocketError> {
        Socket::bind(data_dir, &SocketAccess::default())
    }

    fn data_dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[tokio::test]
    async fn directory_and_socket_are_private() {
        let dir = data_dir();
        let socket = bind(dir.path()).unwrap();
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&dir.path().join("run")), 0o700);
        assert_eq!(mode(socket.path()) & 0o077, 0);
        let path = socket.path().to_owned();
        drop(socket);
        assert!(!path.exists());
    }

    // The group of this process is one that it may give its files to.
    #[tokio::test]
    async fn group_reaches_the_socket_and_nothing_else() {
        let dir = data_dir();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
        let access = SocketAccess::of(&FileConfig {
            socket_mode: Some(SocketMode::Group),
            ..FileConfig::default()
        });
        let socket = Socket::bind(dir.path(), &access.unwrap()).unwrap();
        let run = dir.path().join("run");
        assert_eq!(mode(socket.path()), 0o660);
        assert_eq!((mode(&run), mode(dir.path())), (0o710, 0o710));
        drop(socket);
        // Private again without the setting.
        let socket = bind(dir.path()).unwrap();
        assert_eq!((mode(socket.path()) & 0o077, mode(&run)), (0, 0o700));
    }

    #[tokio::test]
    async fn open_directory_is_made_private() {
        let dir = data_dir();
        let run = dir.path().join("run");
        fs::create_dir(&run).unwrap();
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
        let _socket = bind(dir.path()).unwrap();
        assert_eq!(fs::metadata(&run).unwrap().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn linked_directory_is_refused() {
        let dir = data_dir();
        symlink(data_dir().keep(), dir.path().join("run")).unwrap();
        let error = bind(dir.path()).unwrap_err();
        assert!(matches!(error, SocketError::Directory { .. }), "{error}");
    }

    #[tokio::test]
    async fn link_or_file_in_the_way_is_kept() {
        let dir = data_dir();
        let target = dir.path().join("target");
        fs::write(&target, "kept").unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        symlink(&target, path(dir.path())).unwrap();
        assert!(matches!(
            bind(dir.path()),
            Err(SocketError::NotASocket { .. })
        ));
        fs::remove_file(path(dir.path())).unwrap();
        fs::write(path(dir.path()), "kept").unwrap();
        assert!(matches!(
            bind(dir.path()),
            Err(SocketError::NotASocket { .. })
        ));
        assert_eq!(fs::read(&target).unwrap(), b"kept");
    }

    #[tokio::test]
    async fn stale_socket_is_replaced() {
        let dir = data_dir();
        fs::create_dir(dir.path().join("run")).unwrap();
        // A dropped listener leaves its file, as a killed process does.
        drop(std::os::unix::net::UnixListener::bind(path(dir.path())).unwrap());
        let _socket = bind(dir.path()).unwrap();
        assert!(matches!(bind(dir.path()), Err(SocketError::InUse { .. })));
    }

    #[tokio::test]
    async fn too_long_path_is_refused() {
        let dir = data_dir();
        let deep = dir.path().join("d".repeat(SOCKET_PATH_BYTES_MAX));
        fs::create_dir(&deep).unwrap();
        let Err(SocketError::PathTooLong {
            bytes, bytes_max, ..
        }) = bind(&deep)
        else {
            panic!("bound");
        };
        assert_eq!(bytes, path(&deep).as_os_str().len());
        assert_eq!(bytes_max, SOCKET_PATH_BYTES_MAX);
    }
}
