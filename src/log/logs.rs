//! The writing end of a store's logs.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

use crate::{
    disk::{Disk, DiskFile, Open},
    id::Author,
    log::{Branch, LogError, LogReader, Mark, error::refused, writer::Writer},
    protocol::{chain::Tip, entry::VerifiedEntry},
};

/// The writing end: owned by the store's writer.
#[derive(Debug)]
pub struct Logs {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    reader: LogReader,
    pub(super) writers: BTreeMap<(Author, u32), Writer>,
}

impl Logs {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self {
            disk,
            dir: dir.to_owned(),
            reader: LogReader::default(),
            writers: BTreeMap::new(),
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
    pub(super) fn remove(&mut self, key: &(Author, u32)) -> Option<Writer> {
        self.reader.remove(&key.0, key.1);
        self.writers.remove(key)
    }

    pub(super) fn add(&mut self, writer: Writer) {
        let branch = Arc::clone(&writer.branch);
        self.writers.insert((branch.author, branch.number), writer);
        self.reader.add(branch);
    }
}

pub(super) fn file_name(author: &Author, number: u32) -> String {
    match number {
        0 => format!("{author}.log"),
        _fork => format!("{author}.{number}.log"),
    }
}

pub(super) fn parse_file_name(name: &str) -> Option<(Author, u32)> {
    let stem = name.strip_suffix(".log")?;
    let (author, number) = match stem.split_once('.') {
        Some((author, number)) => (author, number.parse().ok()?),
        None => (stem, 0),
    };
    let author = author.parse().ok()?;
    (file_name(&author, number) == name).then_some((author, number))
}
