//! A disk in memory that records every operation, fails one of them, and shows what a power cut
//! after any of them leaves behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use lattice::{
    disk::{Disk, DiskFile, Open},
    limits::SEGMENT_BYTES,
};

/// Linux error numbers.
pub(crate) const EIO: i32 = 5;
pub(crate) const EMFILE: i32 = 24;
pub(crate) const ENOSPC: i32 = 28;

/// The files by name, as a machine finds them when it starts.
pub(crate) type Image = BTreeMap<PathBuf, Vec<u8>>;

/// An operation on the disk.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Create(PathBuf, usize),
    Write(usize, u64, Vec<u8>),
    SetLen(usize, u64),
    Sync(usize),
    // A hint only: it makes nothing durable.
    WriteBack(usize, u64, u64),
    // The kernel dropped the pages that it could not write: a later sync does not bring them back.
    SyncFailed(usize),
    SyncDir(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

/// Which operations count and may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fail {
    /// Reads, opens and lists too.
    Any,
    /// Only operations that change the disk.
    Changes,
    /// Only those that need a descriptor: opening a file, syncing a directory. From the named one on
    /// all of them fail, until `mend`.
    Opens,
}

/// Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemDisk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    names: BTreeMap<PathBuf, usize>,
    // Files by inode. They are never removed, so an open file outlives its name.
    files: Vec<Vec<u8>>,
    operations: Vec<Operation>,
    seen: u64,
    // Number of the operation that fails, error number, and the operations that count.
    fault: Option<(u64, i32, Fail)>,
    fired: bool,
    quota: Option<u64>,
    free: Option<u64>,
    reads: Reads,
    // Bytes read by inode.
    read: BTreeMap<usize, u64>,
    // Handles by inode.
    open: BTreeMap<usize, usize>,
    open_max: Option<usize>,
    // Bytes of a log's file after which a store on this disk begins the next one.
    segment_bytes: Option<u64>,
    most_open: usize,
    // Inodes with changes since the last sync.
    unsynced: BTreeSet<usize>,
    // Those of which the last handle was dropped meanwhile.
    closed_unsynced: BTreeSet<usize>,
}

/// Reads of files since the disk was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reads {
    pub(crate) calls: u64,
    pub(crate) bytes: u64,
}

impl MemDisk {
    pub(crate) fn new(image: &Image) -> Self {
        let mut inner = Inner::default();
        for (path, bytes) in image {
            inner.names.insert(path.clone(), inner.files.len());
            inner.files.push(bytes.clone());
        }
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Makes stores on it begin another file of a log after `bytes`.
    pub(crate) fn in_segments_of(self, bytes: u64) -> Self {
        self.inner().segment_bytes = Some(bytes);
        self
    }

    pub(crate) fn segment_bytes(&self) -> u64 {
        self.inner().segment_bytes.unwrap_or(SEGMENT_BYTES)
    }

    /// Fails operation `number` (from 1, counted from now) once.
    pub(crate) fn fail(&self, number: u64, errno: i32, which: Fail) {
        let mut inner = self.inner();
        inner.seen = 0;
        inner.fired = false;
        inner.fault = Some((number, errno, which));
    }

    /// Ends what `fail` began.
    pub(crate) fn mend(&self) {
        self.inner().fault = None;
    }

    /// Bounds the open files; `None`: no bound.
    pub(crate) fn set_open_max(&self, files: Option<usize>) {
        self.inner().open_max = files;
    }

    /// Returns how many files were open at once, at most.
    pub(crate) fn most_open(&self) -> usize {
        self.inner().most_open
    }

    /// Returns the logs that were closed while bytes of them were not synced.
    pub(crate) fn logs_closed_unsynced(&self) -> Vec<PathBuf> {
        let inner = self.inner();
        let closed = |inode: &usize| inner.closed_unsynced.contains(inode);
        let names = inner.names.iter().filter(|(_, inode)| closed(inode));
        let names = names.map(|(path, _)| path.clone());
        names
            .filter(|path| path.extension().is_some_and(|it| it == "log"))
            .collect()
    }

    /// Returns how many operations counted since `fail`.
    pub(crate) fn counted(&self) -> u64 {
        self.inner().seen
    }

    /// Returns true if the fault has happened.
    pub(crate) fn has_failed(&self) -> bool {
        self.inner().fired
    }

    /// Bounds the bytes of all files; `None`: no bound.
    pub(crate) fn set_quota(&self, bytes: Option<u64>) {
        self.inner().quota = bytes;
    }

    /// Sets the free bytes that the disk reports; `None`: as many as can be.
    pub(crate) fn set_free(&self, bytes: Option<u64>) {
        self.inner().free = bytes;
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.inner().used()
    }

    /// Returns how often files were read, and how much.
    pub(crate) fn reads(&self) -> Reads {
        self.inner().reads
    }

    /// Bytes that were read of the file that has this name now.
    pub(crate) fn reads_of(&self, path: &Path) -> u64 {
        let inner = self.inner();
        let read = inner.names.get(path).and_then(|file| inner.read.get(file));
        read.copied().unwrap_or(0)
    }

    /// Returns how many operations were recorded.
    pub(crate) fn recorded(&self) -> usize {
        self.inner().operations.len()
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.inner().operations.clone()
    }

    /// Returns the files as a process that starts again finds them, without a power cut.
    pub(crate) fn image(&self) -> Image {
        let inner = self.inner();
        let names = inner.names.iter();
        names
            .map(|(path, inode)| (path.clone(), inner.files[*inode].clone()))
            .collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

impl Inner {
    fn count(&mut self, change: bool) -> io::Result<()> {
        self.count_any(change, false)
    }

    fn count_open(&mut self, change: bool) -> io::Result<()> {
        self.count_any(change, true)
    }

    fn count_any(&mut self, change: bool, opens: bool) -> io::Result<()> {
        let Some((number, errno, which)) = self.fault else {
            return Ok(());
        };
        let counts = match which {
            Fail::Any => true,
            Fail::Changes => change,
            Fail::Opens => opens,
        };
        if !counts {
            return Ok(());
        }
        self.seen += 1;
        if self.seen == number || (which == Fail::Opens && self.seen > number) {
            self.fired = true;
            return Err(io::Error::from_raw_os_error(errno));
        }
        Ok(())
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        let missing = || io::Error::from_raw_os_error(2);
        self.names.get(path).copied().ok_or_else(missing)
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .map(|inode| self.files[*inode].len() as u64)
            .sum()
    }

    fn write(&mut self, inode: usize, bytes: &[u8], offset: usize) {
        self.unsynced.insert(inode);
        let file = &mut self.files[inode];
        let end = offset + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[offset..end].copy_from_slice(bytes);
        self.operations
            .push(Operation::Write(inode, offset as u64, bytes.to_vec()));
    }
}

impl Disk for MemDisk {
    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(self.inner().free.unwrap_or(u64::MAX))
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner();
        inner.count_open(how == Open::New)?;
        let open: usize = inner.open.values().sum();
        if inner.open_max.is_some_and(|most| open >= most) {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        let inode = match (inner.inode(path), how) {
            (found, Open::Existing) => found?,
            (Ok(_there), Open::New) => return Err(io::Error::from_raw_os_error(17)),
            (Err(_missing), Open::New) => {
                let inode = inner.files.len();
                inner.files.push(Vec::new());
                inner.names.insert(path.to_owned(), inode);
                inner
                    .operations
                    .push(Operation::Create(path.to_owned(), inode));
                inode
            }
        };
        inner.most_open = inner.most_open.max(open + 1);
        *inner.open.entry(inode).or_default() += 1;
        Ok(Arc::new(MemFile {
            disk: self.clone(),
            inode,
        }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut inner = self.inner();
        inner.count(false)?;
        let paths = inner.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(paths
            .filter_map(|path| Some(path.file_name()?.to_owned()))
            .collect())
    }

    // A directory is there when a file in it is.
    fn make_dir(&self, _dir: &Path) -> io::Result<bool> {
        self.inner().count(true).map(|()| true)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.make_dir(dir).map(drop)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.count_open(true)?;
        inner.operations.push(Operation::SyncDir(dir.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.count(true)?;
        inner.inode(path)?;
        inner.names.remove(path);
        inner.operations.push(Operation::Remove(path.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.count(true)?;
        let inode = inner.inode(from)?;
        inner.names.remove(from);
        inner.names.insert(to.to_owned(), inode);
        let operation = Operation::Rename(from.to_owned(), to.to_owned());
        inner.operations.push(operation);
        Ok(())
    }
}

#[derive(Debug)]
struct MemFile {
    disk: MemDisk,
    inode: usize,
}

impl Drop for MemFile {
    fn drop(&mut self) {
        let mut inner = self.disk.inner();
        let handles = inner.open.get_mut(&self.inode).unwrap();
        *handles -= 1;
        if *handles == 0 && inner.unsynced.contains(&self.inode) {
            inner.closed_unsynced.insert(self.inode);
        }
    }
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        let mut inner = self.disk.inner();
        inner.count(false)?;
        Ok(inner.files[self.inode].len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.count(false)?;
        inner.reads.calls += 1;
        inner.reads.bytes += buf.len() as u64;
        *inner.read.entry(self.inode).or_default() += buf.len() as u64;
        let from = usize::try_from(offset).unwrap();
        let bytes = inner.files[self.inode].get(from..from + buf.len());
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let offset = usize::try_from(offset).unwrap();
        if let Err(error) = inner.count(true) {
            // A part of the write reaches the file: no byte, some, or all but one.
            let part =
                [0, bytes.len() / 2, bytes.len() - 1][usize::try_from(inner.seen).unwrap() % 3];
            inner.write(self.inode, &bytes[..part], offset);
            return Err(error);
        }
        let grows = (offset + bytes.len()).saturating_sub(inner.files[self.inode].len());
        if let Some(quota) = inner.quota
            && inner.used() + grows as u64 > quota
        {
            let left = usize::try_from(quota.saturating_sub(inner.used())).unwrap();
            let part = (bytes.len() - grows + left).min(bytes.len());
            inner.write(self.inode, &bytes[..part], offset);
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        inner.write(self.inode, bytes, offset);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.count(true)?;
        let grown = usize::try_from(len).unwrap();
        inner.unsynced.insert(self.inode);
        inner.files[self.inode].resize(grown, 0);
        inner.operations.push(Operation::SetLen(self.inode, len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let counted = inner.count(true);
        if counted.is_ok() {
            inner.unsynced.remove(&self.inode);
        }
        inner.operations.push(match &counted {
            Ok(()) => Operation::Sync(self.inode),
            Err(_failed) => Operation::SyncFailed(self.inode),
        });
        counted
    }

    fn write_back(&self, offset: u64, bytes: u64) {
        let mut inner = self.disk.inner();
        let hint = Operation::WriteBack(self.inode, offset, bytes);
        inner.operations.push(hint);
    }
}

/// A disk between two operations: the durable state, and the operations that may be lost.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cut {
    files: Vec<CutFile>,
    names: BTreeMap<PathBuf, usize>,
    // Operations that are not durable yet, in order.
    renames: Vec<Operation>,
    // Bytes that reach the disk whole or not at all.
    page: usize,
}

#[derive(Debug, Clone, Default)]
struct CutFile {
    durable: Vec<u8>,
    // The bytes in the kernel's page cache.
    cached: Vec<u8>,
    // By page number: the page after each write since the last sync.
    pages: BTreeMap<usize, Vec<Vec<u8>>>,
    lens: Vec<usize>,
}

impl Cut {
    pub(crate) fn new(image: &Image, page: usize) -> Self {
        let mut cut = Self {
            page,
            ..Self::default()
        };
        for (path, bytes) in image {
            cut.names.insert(path.clone(), cut.files.len());
            cut.files.push(CutFile {
                durable: bytes.clone(),
                cached: bytes.clone(),
                ..CutFile::default()
            });
        }
        cut
    }

    /// Moves on by one operation.
    pub(crate) fn step(&mut self, operation: &Operation) {
        let page = self.page;
        match operation {
            Operation::Create(_, inode) => {
                assert_eq!(*inode, self.files.len());
                self.files.push(CutFile::default());
                self.renames.push(operation.clone());
            }
            Operation::Write(inode, offset, bytes) => {
                let file = &mut self.files[*inode];
                let from = usize::try_from(*offset).unwrap();
                let end = from + bytes.len();
                if end > file.cached.len() {
                    file.cached.resize(end, 0);
                    file.lens.push(end);
                }
                file.cached[from..end].copy_from_slice(bytes);
                file.touch(page, from, end);
            }
            Operation::SetLen(inode, len) => {
                let file = &mut self.files[*inode];
                let (before, len) = (file.cached.len(), usize::try_from(*len).unwrap());
                file.cached.resize(len, 0);
                if len != before {
                    file.lens.push(len);
                    file.touch(page, len.min(before), len.max(before));
                }
            }
            Operation::Sync(inode) => self.files[*inode].sync(page),
            Operation::WriteBack(..) => {}
            Operation::SyncFailed(inode) => {
                self.files[*inode].pages.clear();
                self.files[*inode].lens.clear();
            }
            Operation::SyncDir(dir) => {
                let (synced, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.renames)
                    .into_iter()
                    .partition(|operation| dir_of(operation) == Some(dir));
                self.renames = rest;
                for operation in synced {
                    rename(&mut self.names, &operation);
                }
            }
            Operation::Remove(_) | Operation::Rename(..) => self.renames.push(operation.clone()),
        }
    }

    /// Returns in how many ways the cut can turn out.
    pub(crate) fn ways(&self) -> u64 {
        let choices = self.choices().into_iter().map(|count| count as u64);
        choices.fold(1, u64::saturating_mul)
    }

    /// Returns the files after the cut. Each choice comes from `choose(count)`, in `0..count`.
    pub(crate) fn image(&self, mut choose: impl FnMut(usize) -> usize) -> Image {
        let mut names = self.names.clone();
        for operation in &self.renames {
            if choose(2) == 1 {
                rename(&mut names, operation);
            }
        }
        let files: Vec<_> = self
            .files
            .iter()
            .map(|file| file.image(self.page, &mut choose))
            .collect();
        names
            .into_iter()
            .map(|(path, inode)| (path, files[inode].clone()))
            .collect()
    }

    // In the order in which `image` asks.
    fn choices(&self) -> Vec<usize> {
        let mut choices = vec![2; self.renames.len()];
        for file in &self.files {
            choices.extend(file.pages.values().map(|versions| versions.len() + 1));
            choices.push(file.lens.len() + 1);
        }
        choices
    }
}

impl CutFile {
    fn touch(&mut self, page: usize, from: usize, end: usize) {
        for number in from / page..end.div_ceil(page) {
            let start = (number * page).min(self.cached.len());
            let bytes = &self.cached[start..(start + page).min(self.cached.len())];
            self.pages.entry(number).or_default().push(bytes.to_vec());
        }
    }

    fn sync(&mut self, page: usize) {
        let len = self.lens.last().copied().unwrap_or(self.durable.len());
        self.durable.resize(len, 0);
        for (number, versions) in std::mem::take(&mut self.pages) {
            put(
                &mut self.durable,
                number * page,
                page,
                versions.last().unwrap(),
            );
        }
        self.lens.clear();
    }

    fn image(&self, page: usize, choose: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
        let picked: Vec<_> = self
            .pages
            .iter()
            .map(|(number, versions)| (*number, choose(versions.len() + 1), versions))
            .collect();
        let len = match choose(self.lens.len() + 1) {
            0 => self.durable.len(),
            n => self.lens[n - 1],
        };
        let mut bytes = self.durable.clone();
        bytes.resize(len, 0);
        for (number, version, versions) in picked {
            if version > 0 {
                put(&mut bytes, number * page, page, &versions[version - 1]);
            }
        }
        bytes
    }
}

// Writes as much of a page as the file has room for, and zeros where the page is shorter.
fn put(bytes: &mut [u8], start: usize, page: usize, content: &[u8]) {
    let end = (start + page).min(bytes.len());
    if let Some(room) = bytes.get_mut(start..end) {
        let content = &content[..content.len().min(room.len())];
        room[..content.len()].copy_from_slice(content);
        room[content.len()..].fill(0);
    }
}

fn rename(names: &mut BTreeMap<PathBuf, usize>, operation: &Operation) {
    match operation {
        Operation::Create(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        Operation::Remove(path) => {
            names.remove(path);
        }
        Operation::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        _no_name => {}
    }
}

fn dir_of(operation: &Operation) -> Option<&Path> {
    match operation {
        Operation::Create(path, _) | Operation::Remove(path) | Operation::Rename(path, _) => {
            path.parent()
        }
        _no_name => None,
    }
}
