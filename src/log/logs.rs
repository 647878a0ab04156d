//! The writing end of a store's logs.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

use crate::{
    disk::{Disk, DiskFile as _, Open, is_out_of_descriptors},
    id::Author,
    log::{
        Begin, Begins, Branch, LogError, LogFiles, LogReader, Mark,
        begin::BeginRow,
        error::file_error,
        segments::{self, Segments},
        writer::Writer,
    },
    protocol::{chain::Tip, entry::VerifiedEntry, snapshot::BranchBegin},
};

/// The writing end of all logs, owned by the store's writer.
///
/// `begin` and `append` stage records, `sync` makes them durable and shows them to readers,
/// `roll_back` forgets them. After an `Io` error the logs must not be written until they are opened
/// again: what reached the disk is not known.
///
/// Invariants, asserted where they could break (those of one branch are at `Writer`):
///
/// 1. `writers` and the reader have the same branches.
/// 2. Every branch has a tip, staged or shown: so an index into `tips` names a branch.
/// 3. Only a branch that shows no record is removed.
#[derive(Debug)]
pub struct Logs {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) files: LogFiles,
    pub(super) dir: PathBuf,
    reader: LogReader,
    // The contents of the file `begins`. The branches of `writers` begin at the same places.
    pub(super) begins: Begins,
    pub(super) writers: BTreeMap<(Author, u32), Writer>,
    // True while names of new files may not be durable. Set by `begin` and `rotate`, and when there are
    // segments whose names an earlier run may not have made durable; cleared by `sync`.
    pub(super) has_new_names: bool,
    // Branches that were removed before a record of them was durable, whose files could not be
    // emptied for want of a descriptor. Emptied before the next group is written.
    removed: Vec<Writer>,
}

impl Logs {
    pub(super) fn new(disk: Arc<dyn Disk>, files: LogFiles, dir: &Path) -> Self {
        Self {
            disk,
            files,
            dir: dir.to_owned(),
            reader: LogReader::default(),
            begins: Begins::default(),
            writers: BTreeMap::new(),
            has_new_names: false,
            removed: Vec::new(),
        }
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
    /// `Full`, `NoDescriptor`, and nothing has changed; `Io`.
    pub fn begin(&mut self, entry: &VerifiedEntry, arrived_ms: u64) -> Result<(), LogError> {
        let author = entry.author();
        let taken = self.of(&author).map(|writer| writer.branch.number + 1);
        let (number, segments) = self.new_file(&author, taken.max().unwrap_or(0))?;
        let name = segments::name(&author, number, 0);
        self.has_new_names = true;
        let branch = Arc::new(Branch {
            author,
            number,
            first: entry.header.seq,
            forked_from: entry.header.prev,
            begin: None,
            name,
            file: segments.clone(),
            shape: RwLock::default(),
        });
        let mut writer = Writer::new(branch, segments, 0, false);
        writer.append(entry, arrived_ms);
        self.add(writer);
        Ok(())
    }

    /// Begins a branch of `author` without its first entries, as its author's first one. Durable once
    /// `write_begins` and the next `sync` have returned; before that the logs must not be used otherwise.
    ///
    /// # Errors
    /// `Full`, `NoDescriptor`, `Io`.
    pub fn begin_late(&mut self, author: Author, late: &BranchBegin) -> Result<(), LogError> {
        let (number, _empty) = self.new_file(&author, 0)?;
        let row = BeginRow {
            first: late.first,
            forked_from: late.forked_from,
            begin: Begin {
                anchor: late.anchor,
                arrived_ms: late.arrived_ms,
                offset: 0,
            },
        };
        let writer = self.begin_empty(author, number, &row)?;
        self.begins.0.insert((author, number), row);
        self.has_new_names = true;
        self.add(writer);
        Ok(())
    }

    /// Writes where branches begin, if any begins late. Durable on return.
    ///
    /// # Errors
    /// `Full`, `NoDescriptor`, `Io`.
    pub fn write_begins(&self) -> Result<(), LogError> {
        match self.begins.is_empty() {
            true => Ok(()),
            false => self.begins.write(self.disk.as_ref(), &self.dir),
        }
    }

    /// Returns an empty file, and the number in its name, `first` or higher: a new file, or one that
    /// a group left which was never acknowledged. A file that holds bytes is not touched, whoever
    /// wrote them.
    ///
    /// # Errors
    /// `Io`, `Full`, `NoDescriptor`.
    pub(super) fn new_file(
        &self,
        author: &Author,
        first: u32,
    ) -> Result<(u32, Arc<Segments>), LogError> {
        let mut number = first;
        loop {
            // The first file of a log that begins later is gone.
            if self.writers.contains_key(&(*author, number)) {
                number += 1;
                continue;
            }
            let name = segments::name(author, number, 0);
            let failed = |source| file_error(&name, source);
            let begin = |how| {
                let dir = self.dir.clone();
                Segments::begin(&self.files, &self.disk, dir, (*author, number), how)
            };
            match begin(Open::New) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                opened => return Ok((number, Arc::new(opened.map_err(failed)?))),
            }
            let file = begin(Open::Existing).map_err(failed)?;
            if file.len().map_err(failed)? == 0 {
                return Ok((number, Arc::new(file)));
            }
            number += 1;
        }
    }

    /// Stages `entry` as the next record of its author's branch at `place`, an index into `tips`.
    ///
    /// # Panics
    /// When there is no such branch, or `entry` does not continue it: chain admission checked both.
    pub fn append(&mut self, place: u32, entry: &VerifiedEntry, arrived_ms: u64) {
        let author = entry.author();
        let mut branches = self.writers.range_mut((author, 0)..=(author, u32::MAX));
        let (_, writer) = branches
            .nth(place as usize)
            .expect("branch exists: admission named it");
        writer.append(entry, arrived_ms);
    }

    /// Writes the staged records and makes them durable; then readers see them.
    ///
    /// # Errors
    /// `Full`, `NoDescriptor`, and nothing is staged any more; `Io`.
    pub fn sync(&mut self) -> Result<(), LogError> {
        if let Err(error) = self.write_all()? {
            self.roll_back()?;
            return Err(error);
        }
        for writer in self.staged() {
            writer.show();
        }
        Ok(())
    }

    // Makes the staged records durable, some files at a time: those with unsynced bytes stay open.
    // The inner error: they cannot be written, and can be taken back. The outer one: what is durable
    // cannot be known any more.
    fn write_all(&mut self) -> Result<Result<(), LogError>, LogError> {
        if let Err(error) = self.empty_removed() {
            return Ok(Err(error));
        }
        if let Err(error) = self.rotate() {
            return Ok(Err(error));
        }
        if let Err(error) = self.sync_names()? {
            return Ok(Err(error));
        }
        let (timing, files) = (self.reader.timing().clone(), self.files.unsynced_max());
        let mut staged: Vec<&mut Writer> = self.staged().collect();
        for part in staged.chunks_mut(files) {
            for writer in &mut *part {
                if let Err(error) = writer.write(&timing) {
                    return Ok(Err(error));
                }
            }
            for writer in part {
                let synced = writer.sync(&timing);
                synced.map_err(|source| writer.branch.io(source))?;
            }
        }
        Ok(Ok(()))
    }

    // Begins a new file of each log that has staged records and whose last file is long enough.
    fn rotate(&mut self) -> Result<(), LogError> {
        let mut has_rotated = false;
        let rotated = self.staged().try_for_each(|writer| {
            has_rotated |= writer.rotate()?;
            Ok(())
        });
        self.has_new_names |= has_rotated;
        rotated
    }

    // The errors are as for `write_all`.
    fn sync_names(&mut self) -> Result<Result<(), LogError>, LogError> {
        if !self.has_new_names {
            return Ok(Ok(()));
        }
        let file = self.dir.display().to_string();
        match self.disk.sync_dir(&self.dir) {
            Ok(()) => {}
            Err(source) if is_out_of_descriptors(&source) => {
                return Ok(Err(file_error(&file, source)));
            }
            // `Io` even if the disk is full.
            Err(source) => return Err(LogError::Io { file, source }),
        }
        self.has_new_names = false;
        Ok(Ok(()))
    }

    fn empty_removed(&mut self) -> Result<(), LogError> {
        while let Some(writer) = self.removed.last_mut() {
            writer.forget()?;
            self.removed.pop();
        }
        Ok(())
    }

    /// Forgets the staged records.
    ///
    /// Where no descriptor is left to remove bytes of them from a file, that is done before the file
    /// is written to again.
    ///
    /// # Errors
    /// `Io` when bytes of them cannot be removed from a file.
    pub fn roll_back(&mut self) -> Result<(), LogError> {
        let empty: Vec<_> = self
            .writers
            .iter()
            .filter(|(_, writer)| writer.branch.tip().is_none())
            .map(|(key, _)| *key)
            .collect();
        for key in empty {
            // The next start must not find what was written of the branch's first record.
            if let Some(mut writer) = self.remove(&key)
                && !is_done(writer.forget())?
            {
                self.removed.push(writer);
            }
        }
        for writer in self.staged() {
            is_done(writer.forget())?;
        }
        Ok(())
    }

    /// Writes a seal to the end of each file that was written to since its last seal, and gives up
    /// the file's unused room. Nothing may be staged.
    ///
    /// # Errors
    /// `Io`, `Full`, `NoDescriptor`.
    pub fn seal(&mut self) -> Result<(), LogError> {
        self.empty_removed()?;
        for writer in self.writers.values_mut().filter(|writer| !writer.sealed) {
            writer.seal()?;
        }
        Ok(())
    }

    /// Returns what the state should remember of each branch. Index points are not included.
    pub fn marks(&self) -> Vec<Mark> {
        self.reader
            .all()
            .iter()
            .filter_map(|branch| Mark::of(branch))
            .collect()
    }

    pub(super) fn remove(&mut self, key: &(Author, u32)) -> Option<Writer> {
        let writer = self.writers.remove(key)?;
        assert!(
            writer.branch.tip().is_none(),
            "(3) a branch whose records are shown stays"
        );
        self.reader.remove(&key.0, key.1);
        Some(writer)
    }

    pub(super) fn add(&mut self, writer: Writer) {
        assert!(writer.tip.is_some(), "(2) every branch has a tip");
        let branch = Arc::clone(&writer.branch);
        self.writers.insert((branch.author, branch.number), writer);
        self.reader.add(branch);
    }

    fn of<'a>(&'a self, author: &Author) -> impl Iterator<Item = &'a Writer> + use<'a> {
        self.writers
            .range((*author, 0)..=(*author, u32::MAX))
            .map(|(_, writer)| writer)
    }

    fn staged(&mut self) -> impl Iterator<Item = &mut Writer> {
        let writers = self.writers.values_mut();
        writers.filter(|writer| writer.has_staged())
    }
}

// False when there was no descriptor.
fn is_done(forgotten: Result<(), LogError>) -> Result<bool, LogError> {
    match forgotten {
        Ok(()) => Ok(true),
        Err(LogError::NoDescriptor { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        disk::RealDisk,
        protocol::entry::tests::{AUTHOR_A, entry},
    };

    fn open(dir: &Path) -> Logs {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let (logs, found) = Logs::open(&disk, &LogFiles::default(), dir, &[]).unwrap();
        assert!(found.damage.is_empty() && found.lost_tails.is_empty());
        logs
    }

    // The writer of the only branch.
    fn writer(logs: &mut Logs) -> &mut Writer {
        logs.writers.values_mut().next().unwrap()
    }

    #[test]
    fn records_are_shown_when_they_are_durable_and_read_after_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let first = entry(AUTHOR_A, 1, None, 10, "/1");
        let second = entry(AUTHOR_A, 2, Some(first.id), 20, "/2");
        let third = entry(AUTHOR_A, 3, Some(second.id), 30, "/3");
        let author = first.author();
        let mut logs = open(dir.path());
        logs.begin(&first, 1).unwrap();
        logs.append(0, &second, 2);
        assert_eq!(logs.tips(&author)[0].seq, 2);
        assert_eq!(logs.reader().of(&author)[0].tip(), None, "only staged");
        logs.sync().unwrap();
        let shown = |logs: &Logs| logs.reader().of(&author)[0].tip().unwrap().seq;
        assert_eq!(shown(&logs), 2);
        logs.append(0, &third, 3);
        logs.roll_back().unwrap();
        assert_eq!((logs.tips(&author)[0].seq, shown(&logs)), (2, 2));
        logs.append(0, &third, 3);
        logs.sync().unwrap();
        logs.seal().unwrap();
        drop(logs);
        let logs = open(dir.path());
        assert_eq!(shown(&logs), 3);
        let (read, _record) = logs.reader().of(&author)[0].entry(3).unwrap().unwrap();
        assert_eq!(read.id, third.id);
    }

    #[test]
    #[should_panic(expected = "(1) a record continues its branch")]
    fn record_that_skips_a_place_is_a_bug() {
        let dir = tempfile::tempdir().unwrap();
        let first = entry(AUTHOR_A, 1, None, 10, "/1");
        let mut logs = open(dir.path());
        logs.begin(&first, 1).unwrap();
        logs.append(0, &entry(AUTHOR_A, 3, Some(first.id), 20, "/3"), 2);
    }

    #[test]
    #[should_panic(expected = "(2) a seal would move staged frames")]
    fn seal_over_staged_frames_is_a_bug() {
        let dir = tempfile::tempdir().unwrap();
        let mut logs = open(dir.path());
        logs.begin(&entry(AUTHOR_A, 1, None, 10, "/1"), 1).unwrap();
        logs.seal().unwrap();
    }

    #[test]
    #[should_panic(expected = "(3) a record is durable before it is shown")]
    fn record_shown_before_its_sync_is_a_bug() {
        let dir = tempfile::tempdir().unwrap();
        let mut logs = open(dir.path());
        logs.begin(&entry(AUTHOR_A, 1, None, 10, "/1"), 1).unwrap();
        let timing = logs.reader().timing().clone();
        writer(&mut logs).write(&timing).unwrap();
        writer(&mut logs).show();
    }
}
