//! The file operations that log and state are built on. Tests put a disk of their own in their
//! place: it records the operations, fails any one of them, and cuts the power between any two.
//!
//! The disk is trusted for two things. Bytes that were written before a `sync_data` that returned
//! are still there after a power cut. A file that was created, renamed or removed before a
//! `sync_dir` that returned stays created, renamed or removed. Nothing is trusted about bytes and
//! names that were not synced: each 4 KiB page of them may be there or not, in any combination.

use std::{
    ffi::OsString,
    fmt::Debug,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use rustix::{fs::OFlags, io::Errno};
#[cfg(target_os = "linux")]
use {
    rustix::fs::{Advice, fadvise},
    std::num::NonZeroU64,
};

/// How a file is opened: for reading and writing, never through a symlink. Only its owner may read
/// or write a new file (0600).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// The file must exist.
    Existing,
    /// The file must not exist.
    New,
}

/// Returns whether the process or the machine has no file descriptor left. Nothing was changed then.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

/// A file system. All threads share one.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;
    /// Returns the names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;
    /// Creates a directory (0700). Returns false if it exists. Durable with the next `sync_dir` of
    /// its parent.
    fn make_dir(&self, dir: &Path) -> io::Result<bool>;
    /// Creates a directory and its parents, if they do not exist (0700), and makes their names
    /// durable.
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.create_dir(parent)?;
        }
        self.make_dir(dir)?;
        self.sync_dir(parent.unwrap_or(Path::new(".")))
    }
    /// Makes the names that were created, renamed or removed in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Removes a file. Durable with the next `sync_dir`.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Renames a file, and replaces a file of that name. Durable with the next `sync_dir`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Returns the bytes that this user can still write to the file system of `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let _no_limit = dir;
        Ok(u64::MAX)
    }
}

/// An open file. Offsets are absolute, so one handle serves all threads.
#[expect(
    clippy::len_without_is_empty,
    reason = "a file's length, not a collection's"
)]
pub trait DiskFile: Debug + Send + Sync + 'static {
    /// Returns the file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Fills `buf` with the bytes from `offset` on; `UnexpectedEof` when the file ends before.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`. Durable with the next `sync_data`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Shortens the file to `len` bytes, or lengthens it with zeros. Durable with the next
    /// `sync_data`.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the bytes that were written so far durable (`fdatasync`). After an error it is not
    /// known which of them are.
    fn sync_data(&self) -> io::Result<()>;
    /// Begins to write dirty pages of this range to the disk, and returns at once. Only a hint: a
    /// later `sync_data` has less to do, and nothing is durable before it.
    fn write_back(&self, offset: u64, bytes: u64) {
        let _nothing = (offset, bytes);
    }
}

/// The machine's own file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let file = options(how).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok(Arc::new(file))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut names = fs::read_dir(dir)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn make_dir(&self, dir: &Path) -> io::Result<bool> {
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            made => made.map(|()| true),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let system = rustix::fs::statvfs(dir)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }
}

impl DiskFile for fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }

    // `DontNeed` makes the kernel start to write dirty pages of the range. It drops only pages that
    // are clean already.
    #[cfg(target_os = "linux")]
    fn write_back(&self, offset: u64, bytes: u64) {
        let bytes = NonZeroU64::new(bytes);
        let _only_a_hint = fadvise(self, offset, bytes, Advice::DontNeed);
    }
}

fn options(how: Open) -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).expect("a flag of open(2) is an int");
    options.custom_flags(nofollow);
    match how {
        Open::Existing => {}
        Open::New => {
            options.create_new(true);
        }
    }
    options
}
