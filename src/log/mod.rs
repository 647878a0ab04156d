//! The logs of a store: one file of signed entries for each branch of each author.
//!
//! The log is the truth: state and bus follow from it. Entries are appended in groups, one write
//! and one fdatasync for each file (several for what is more than `UNSYNCED_BYTES_MAX`); only then
//! are they visible to readers.
//!
//! What the disk is trusted for: see `disk.rs`. A file grows ahead of its records in zeros, so
//! that an fdatasync need not write the file's size.

mod ancestry;
pub mod branch;
mod chunk;
pub mod frame;
mod hole;
mod lost_tail;
mod mark;
pub(crate) mod merge;
pub mod record;
mod recover;
mod sync_times;
mod writer;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

pub use ancestry::Stretch;
pub use branch::{Branch, BranchWalk, IndexPoint, LogDamage, Shape};
pub use chunk::{Ahead, AtWork, SharedWalk};
pub use hole::Hole;
pub use lost_tail::LogCut;
pub use mark::Mark;
pub use recover::Recovered;
pub use sync_times::{SYNC_BOUNDS, SyncTimes};

use crate::{
    disk::{Disk, DiskFile, Open},
    id::{Author, EntryId, Seq},
    log::{chunk::Chunks, sync_times::Timing, writer::Writer},
    protocol::{chain::Tip, entry::VerifiedEntry},
};

/// Why a log could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Bytes that were durable have changed. Nothing is cut; records behind them are readable.
    #[error("{0}")]
    Damaged(LogDamage),
    /// The file system refused.
    #[error("cannot read or write {file}")]
    Io {
        /// The file's name.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The file system is full; nothing was written.
    #[error("no space left to append to {file}")]
    Full {
        /// The file's name.
        file: String,
        /// What the file system says.
        source: io::Error,
    },
}

/// All branches of a store, by author, then number. Shared by the writer and all readers.
#[derive(Debug, Clone, Default)]
pub struct LogReader {
    // Only the writer inserts, when an author or a fork appears.
    branches: Arc<RwLock<BTreeMap<Author, Vec<Arc<Branch>>>>>,
    timing: Timing,
    chunks: Chunks,
}

impl LogReader {
    /// Returns the branches of `author`, by number.
    pub fn of(&self, author: &Author) -> Vec<Arc<Branch>> {
        let branches = self.branches.read().unwrap_or_else(PoisonError::into_inner);
        branches.get(author).cloned().unwrap_or_default()
    }

    /// Returns all branches, by author and number.
    pub fn all(&self) -> Vec<Arc<Branch>> {
        let branches = self.branches.read().unwrap_or_else(PoisonError::into_inner);
        branches.values().flatten().cloned().collect()
    }

    /// Returns the entry that `author` has with `id` at `seq`, and where it stands.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn entry(
        &self,
        author: &Author,
        seq: Seq,
        id: &EntryId,
    ) -> Result<Option<(VerifiedEntry, record::Record)>, LogError> {
        let mut damage = None;
        for branch in self.of(author) {
            match branch.record(seq) {
                Ok(Some(record)) if record.header.id == *id => {
                    let entry = branch.read_entry(&record)?;
                    return Ok(Some((entry, record)));
                }
                Ok(_other_or_none) => {}
                // It may be on another branch.
                Err(LogError::Damaged(found)) => damage = Some(found),
                Err(error) => return Err(error),
            }
        }
        damage.map_or(Ok(None), |found| Err(LogError::Damaged(found)))
    }

    /// Returns the entry of `author` at `seq` on branch `place`, as a tip.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn tip_at(&self, author: &Author, place: usize, seq: Seq) -> Result<Option<Tip>, LogError> {
        let Some(branch) = self.of(author).get(place).cloned() else {
            return Ok(None);
        };
        let found = branch.entry(seq)?;
        Ok(found.map(|(entry, _record)| Tip {
            seq,
            id: entry.id,
            hlc: entry.header.hlc,
        }))
    }

    /// Walks the entries of `branch` from `from` through the newest, sharing what is read with others
    /// who do.
    pub fn walk_shared(&self, branch: &Arc<Branch>, from: Seq) -> SharedWalk {
        SharedWalk::new(self.chunks.clone(), Arc::clone(branch), from)
    }

    /// Says that somebody reads now, with `walk_shared`.
    pub fn at_work(&self) -> AtWork {
        self.chunks.at_work()
    }

    /// Returns how long the disk took to make entries durable, since the logs were opened.
    pub fn sync_times(&self) -> SyncTimes {
        self.timing.times()
    }

    /// Returns the bytes of all logs.
    pub fn bytes(&self) -> u64 {
        self.all().iter().map(|branch| branch.end()).sum()
    }
}

/// The writing end: owned by the store's writer.
#[derive(Debug)]
pub struct Logs {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    reader: LogReader,
    writers: BTreeMap<(Author, u32), Writer>,
}

impl Logs {
    /// Opens the logs in `dir`, which is made where it is missing.
    ///
    /// `marks` is what the state knows of them: records before a mark's end are not read. Torn
    /// tails are cut, bytes not known to be durable are made so.
    ///
    /// # Errors
    /// `Io`.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        marks: &[Mark],
    ) -> Result<(Self, Recovered), LogError> {
        recover::open(disk, dir, marks)
    }

    /// Returns the reading end.
    pub fn reader(&self) -> &LogReader {
        &self.reader
    }

    /// Returns the tips of `author`'s branches by number, staged records included.
    pub fn tips(&self, author: &Author) -> Vec<Tip> {
        self.of(author).filter_map(|writer| writer.tip).collect()
    }

    /// Begins a branch with `entry` as its first record. Durable with the next `sync`.
    ///
    /// # Errors
    /// `Full`, nothing has changed then; `Io`, after which the logs must not be written until they
    /// are opened again.
    pub fn begin(&mut self, entry: &VerifiedEntry, arrived_ms: u64) -> Result<(), LogError> {
        let author = entry.author();
        let taken = self.of(&author).map(|writer| writer.branch.number + 1);
        let (number, file) = self.new_file(&author, taken.max().unwrap_or(0))?;
        let name = file_name(&author, number);
        // Also of a full disk: whether the name is durable is open, and stays so.
        let synced = self.disk.sync_dir(&self.dir);
        synced.map_err(|source| LogError::Io {
            file: name.clone(),
            source,
        })?;
        let branch = Arc::new(Branch {
            author,
            number,
            first: entry.header.seq,
            forked_from: entry.header.prev,
            name,
            file,
            shape: RwLock::default(),
        });
        let mut writer = Writer::new(branch, 0, false);
        writer.append(entry, arrived_ms);
        self.add(writer);
        Ok(())
    }

    // A file that holds nothing: a new one, or one that a group left which was never
    // acknowledged. What holds bytes is not touched, whoever's they are.
    fn new_file(&self, author: &Author, first: u32) -> Result<(u32, Arc<dyn DiskFile>), LogError> {
        let mut number = first;
        loop {
            let name = file_name(author, number);
            let path = self.dir.join(&name);
            let refused = |source| refused(&name, source);
            match self.disk.open(&path, Open::New) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                opened => return Ok((number, opened.map_err(refused)?)),
            }
            let file = self.disk.open(&path, Open::Existing).map_err(refused)?;
            if file.len().map_err(refused)? == 0 {
                return Ok((number, file));
            }
            number += 1;
        }
    }

    /// Stages `entry` as the next record of its author's branch at `place`, an index into `tips`.
    ///
    /// # Panics
    /// When there is no such branch: chain admission returned it.
    pub fn append(&mut self, place: u32, entry: &VerifiedEntry, arrived_ms: u64) {
        let author = entry.author();
        let mut branches = self.writers.range_mut((author, 0)..=(author, u32::MAX));
        let (_, writer) = branches
            .nth(usize::try_from(place).unwrap_or(usize::MAX))
            .expect("branch exists: admission named it");
        writer.append(entry, arrived_ms);
    }

    /// Writes what is staged and makes it durable; then readers see it.
    ///
    /// # Errors
    /// `Full` after which nothing is staged and all is as before; `Io` after which the logs must
    /// not be written until they are opened again.
    pub fn sync(&mut self) -> Result<(), LogError> {
        for writer in self
            .writers
            .values_mut()
            .filter(|writer| !writer.staged.is_empty())
        {
            if let Err(error) = writer.write(&self.reader.timing) {
                self.roll_back()?;
                return Err(error);
            }
        }
        for writer in self
            .writers
            .values_mut()
            .filter(|writer| !writer.staged.is_empty())
        {
            writer
                .sync(&self.reader.timing)
                .map_err(|source| writer.branch.io(source))?;
        }
        for writer in self
            .writers
            .values_mut()
            .filter(|writer| !writer.staged.is_empty())
        {
            writer.show();
        }
        Ok(())
    }

    /// Forgets what is staged.
    ///
    /// # Errors
    /// `Io` when bytes of it cannot be removed from a file.
    pub fn roll_back(&mut self) -> Result<(), LogError> {
        let empty: Vec<_> = self
            .writers
            .iter()
            .filter(|(_, writer)| writer.branch.tip().is_none())
            .map(|(key, _)| *key)
            .collect();
        for key in empty {
            // What was written of its first record must not be found when the logs are opened.
            if let Some(mut writer) = self.remove(&key) {
                writer.forget()?;
            }
        }
        for writer in self
            .writers
            .values_mut()
            .filter(|writer| !writer.staged.is_empty())
        {
            writer.forget()?;
        }
        Ok(())
    }

    /// Leaves a seal at the end of every file written to, and cuts the room ahead of it.
    ///
    /// # Errors
    /// `Io`, `Full`.
    pub fn seal(&mut self) -> Result<(), LogError> {
        for writer in self.writers.values_mut().filter(|writer| !writer.sealed) {
            writer.seal()?;
        }
        Ok(())
    }

    /// Returns what the state should remember of every branch.
    pub fn marks(&self) -> Vec<Mark> {
        self.reader
            .all()
            .iter()
            .filter_map(|branch| Mark::of(branch))
            .collect()
    }

    fn of<'a>(&'a self, author: &Author) -> impl Iterator<Item = &'a Writer> + use<'a> {
        self.writers
            .range((*author, 0)..=(*author, u32::MAX))
            .map(|(_, writer)| writer)
    }

    // Forgets a branch that has no record.
    fn remove(&mut self, key: &(Author, u32)) -> Option<Writer> {
        let mut branches = self
            .reader
            .branches
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(of_author) = branches.get_mut(&key.0) {
            of_author.retain(|branch| branch.number != key.1);
        }
        branches.retain(|_, of_author| !of_author.is_empty());
        self.writers.remove(key)
    }

    fn add(&mut self, writer: Writer) {
        let branch = Arc::clone(&writer.branch);
        self.writers.insert((branch.author, branch.number), writer);
        let mut branches = self
            .reader
            .branches
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let of_author = branches.entry(branch.author).or_default();
        of_author.push(branch);
        of_author.sort_by_key(|branch| branch.number);
    }
}

fn refused(file: &str, source: io::Error) -> LogError {
    let file = file.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            LogError::Full { file, source }
        }
        _other => LogError::Io { file, source },
    }
}

fn file_name(author: &Author, number: u32) -> String {
    match number {
        0 => format!("{author}.log"),
        _fork => format!("{author}.{number}.log"),
    }
}

fn parse_file_name(name: &str) -> Option<(Author, u32)> {
    let stem = name.strip_suffix(".log")?;
    let (author, number) = match stem.split_once('.') {
        Some((author, number)) => (author, number.parse().ok()?),
        None => (stem, 0),
    };
    let author = author.parse().ok()?;
    (file_name(&author, number) == name).then_some((author, number))
}
