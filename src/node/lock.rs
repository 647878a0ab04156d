//! The lock on a data directory: one process at a time.

use std::{
    fs::{File, TryLockError},
    io::{Read as _, Write as _},
    path::Path,
};

use crate::node::{data_dir::open_private, error::OpenError};

/// The lock is held until it is dropped. The operating system releases it when the process dies.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "the lock is on the open file")] File);

impl Lock {
    /// Takes the lock, and writes the id of this process into the file.
    ///
    /// # Errors
    /// `AlreadyRunning` if another process has it; `ReadOnly`, `Io`.
    pub(super) fn take(data_dir: &Path) -> Result<Self, OpenError> {
        let path = data_dir.join("lock");
        let io = |source| OpenError::refused(&path, source);
        let mut file = open_private(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = (&file).take(32).read_to_string(&mut text);
                let pid = read.ok().and_then(|_bytes| text.trim().parse().ok());
                return Err(OpenError::AlreadyRunning {
                    pid,
                    data_dir: data_dir.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        file.set_len(0).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self(file))
    }
}
