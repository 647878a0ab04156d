//! The lock on a data directory: one process at a time.

use std::{
    fs::{File, TryLockError},
    io::{Read as _, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use crate::node::{data_dir::open_private, error::OpenError};

/// The lock is held until it is dropped. The operating system releases it when the process dies.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Like `take`, after the last use in this process has ended: a node that was closed has reads
    /// on other threads for a moment longer.
    ///
    /// # Errors
    /// Like `take`. Another process is not waited for.
    pub(super) async fn take_after_close(data_dir: &Path) -> Result<Self, OpenError> {
        let held_until = Instant::now() + CLOSED_NODE_WAIT;
        loop {
            match Self::take(data_dir) {
                Err(OpenError::AlreadyRunning { pid, .. })
                    if pid == Some(std::process::id()) && Instant::now() < held_until =>
                {
                    tokio::time::sleep(CLOSED_NODE_RETRY).await;
                }
                taken => return taken,
            }
        }
    }

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

// A read of one part of a log takes a few milliseconds; of a large one on a slow disk, some hundred.
const CLOSED_NODE_WAIT: Duration = Duration::from_secs(1);
const CLOSED_NODE_RETRY: Duration = Duration::from_millis(5);

impl Drop for Lock {
    /// Closing the file is not enough: a program that another thread starts at this moment has a
    /// copy of every open file until it runs, and the lock lasts as long as one copy.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the lock on the data directory was not released");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_lock_is_free_while_a_copy_of_the_file_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let copy = lock.0.try_clone().unwrap();
        drop(lock);
        Lock::take(dir.path()).unwrap();
        drop(copy);
    }

    #[tokio::test]
    async fn node_that_closes_in_this_process_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let reading = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(lock);
        });
        Lock::take_after_close(dir.path()).await.unwrap();
        reading.join().unwrap();
    }
}
