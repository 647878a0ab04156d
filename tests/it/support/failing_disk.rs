//! The machine's disk, of which one change fails, or all from one on.

use std::{
    ffi::OsString,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use lattice::disk::{Disk, DiskFile, Open, RealDisk};

/// The disk. Clones are one disk.
#[derive(Debug, Clone)]
pub struct FailingDisk(Arc<Failing>);

#[derive(Debug)]
struct Failing {
    // Changes until the one that fails; below 0 from then on.
    left: AtomicI64,
    // True: all later ones fail, too, as after a crash.
    ends: bool,
}

impl FailingDisk {
    /// A disk of which the change after `left` others fails.
    pub fn once(left: i64) -> Self {
        Self::new(left, false)
    }

    /// A disk of which the change after `left` others fails, and all later ones.
    pub fn from_then_on(left: i64) -> Self {
        Self::new(left, true)
    }

    fn new(left: i64, ends: bool) -> Self {
        let left = AtomicI64::new(left);
        Self(Arc::new(Failing { left, ends }))
    }

    /// Counts again: the change after `left` others fails.
    pub fn set(&self, left: i64) {
        self.0.left.store(left, Ordering::SeqCst);
    }

    /// True while no change has failed.
    pub fn is_whole(&self) -> bool {
        self.0.left.load(Ordering::SeqCst) >= 0
    }
}

impl Failing {
    fn step(&self) -> io::Result<()> {
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            left if left == 0 || (left < 0 && self.ends) => {
                Err(io::Error::other("this change fails"))
            }
            _other => Ok(()),
        }
    }
}

#[derive(Debug)]
struct FailingFile(Arc<dyn DiskFile>, Arc<Failing>);

impl Disk for FailingDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        if how == Open::New {
            self.0.step()?;
        }
        let file = RealDisk.open(path, how)?;
        Ok(Arc::new(FailingFile(file, Arc::clone(&self.0))))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        RealDisk.list(dir)
    }
    fn make_dir(&self, dir: &Path) -> io::Result<bool> {
        self.0.step()?;
        RealDisk.make_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.step()?;
        RealDisk.sync_dir(dir)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.step()?;
        RealDisk.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.step()?;
        RealDisk.rename(from, to)
    }
}

impl DiskFile for FailingFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buf, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.1.step()?;
        self.0.write_at(bytes, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.step()?;
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.step()?;
        self.0.sync_data()
    }
}
