//! `consumers.db`: consumers and their unfinished changes, in a redb file of their own.
//!
//! No other file has the position of a consumer, so this file is never rebuilt: every row and every
//! block carries a check, and damage is an error. One transaction moves positions and outstanding
//! changes together; it is durable when `commit` returns.

use std::{
    collections::BTreeMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
};

use crate::{
    disk::{Disk, DiskFile, Open},
    limits::CONSUMERS_CACHE_BYTES,
    protocol::consumer::{
        ConsumerRow, Place, decode_change, decode_consumer, encode_change, encode_consumer,
    },
    state::{
        pages::Pages,
        row::{seal, unseal},
    },
    store::consumers::ConsumerError,
};

// Table names carry the version of their rows.
const CONSUMERS: &str = "consumers-v1";
const CHANGES: &str = "changes-v1";
const CONSUMERS_TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(CONSUMERS);
const CHANGES_TABLE: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new(CHANGES);

/// The open file. Only the saver's thread uses it.
#[derive(Debug)]
pub(super) struct File {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    pages: Pages,
    db: Database,
}

/// A consumer as it was read from the file.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) row: ConsumerRow,
    /// By number.
    pub(super) changes: Vec<(u64, Place)>,
}

/// Consumers by name; for a damaged consumer, a description of the damage.
pub(super) type AllStored = BTreeMap<String, Result<Stored, String>>;

/// The writes of one transaction.
#[derive(Debug, Default)]
pub(super) struct Commit {
    /// Consumers to remove first, with their changes.
    pub(super) deleted: Vec<String>,
    /// Consumers to write.
    pub(super) changed: Vec<Changed>,
}

/// The rows of one consumer that have changed.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) name: String,
    pub(super) row: ConsumerRow,
    /// Changes by number; the rows of `Finished` changes are removed.
    pub(super) places: Vec<(u64, Place)>,
}

impl File {
    /// Opens the file, or makes an empty one, and reads all of it.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
    ) -> Result<(Self, AllStored), ConsumerError> {
        let (file, new) = match disk.open(path, Open::Existing) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (new_file(disk.as_ref(), path)?, true)
            }
            opened => (opened?, false),
        };
        let bytes = file.len()?;
        let sums = Pages::take_sums(&disk, path, bytes);
        let unclean = sums.is_none() && bytes > 0;
        let pages = Pages::new(file, sums.unwrap_or_default());
        let backend = pages.clone();
        let (db, stored) = guarded(move || {
            let mut db = redb::Builder::new()
                .set_cache_size(CONSUMERS_CACHE_BYTES)
                .create_with_backend(backend)
                .map_err(ConsumerError::of_file)?;
            if unclean && !db.check_integrity().map_err(ConsumerError::of_file)? {
                return Err(ConsumerError::damaged("its own check fails"));
            }
            let stored = read_all(&db)?;
            Ok((db, stored))
        })?;
        if new {
            // The new file is a complete database now, so it gets its name.
            disk.rename(&unfinished(path), path)?;
            disk.sync_dir(path.parent().unwrap_or(Path::new(".")))?;
        }
        let file = Self {
            disk,
            path: path.to_owned(),
            pages,
            db,
        };
        Ok((file, stored))
    }

    /// Writes `commit`, all or nothing; it is durable on return.
    ///
    /// # Errors
    /// `Damaged`, `Io`: the commit may be durable or not. Abandon the file, and open it again.
    pub(super) fn commit(&self, commit: &Commit) -> Result<(), ConsumerError> {
        guarded(|| {
            let write = begin(&self.db)?;
            write_all(&write, commit)?;
            write.commit().map_err(ConsumerError::of_file)
        })
    }

    /// Drops a file that has failed; its content is checked when it is opened again.
    pub(super) fn abandon(self) {
        let db = self.db;
        let dropped = guarded(move || {
            drop(db);
            Ok(())
        });
        // An error changes nothing: the file has failed already.
        dropped.unwrap_or_default();
    }

    /// Closes the file and leaves the sums of its blocks beside it.
    ///
    /// # Errors
    /// `Damaged`, `Io`: the next open takes longer; nothing is lost.
    pub(super) fn close(self) -> Result<(), ConsumerError> {
        let db = self.db;
        guarded(move || db.close().map_err(ConsumerError::of_file))?;
        Ok(self.pages.leave_sums(&self.disk, &self.path)?)
    }
}

// Makes the file under another name until it is a complete database: a power cut must not leave
// half a database.
fn new_file(disk: &dyn Disk, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
    match disk.remove(&unfinished(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    disk.open(&unfinished(path), Open::New)
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("new")
}

// Commits have two phases. With one phase, redb would treat damage of the newest commit as an
// interrupted commit and silently return to the one before.
fn begin(db: &Database) -> Result<WriteTransaction, ConsumerError> {
    let mut write = db.begin_write().map_err(ConsumerError::of_file)?;
    write.set_two_phase_commit(true);
    Ok(write)
}

fn read_all(db: &Database) -> Result<AllStored, ConsumerError> {
    let write = begin(db)?;
    write
        .open_table(CONSUMERS_TABLE)
        .map_err(ConsumerError::of_file)?;
    write
        .open_table(CHANGES_TABLE)
        .map_err(ConsumerError::of_file)?;
    write.commit().map_err(ConsumerError::of_file)?;
    let read = db.begin_read().map_err(ConsumerError::of_file)?;
    let table = read
        .open_table(CONSUMERS_TABLE)
        .map_err(ConsumerError::of_file)?;
    let mut all = AllStored::new();
    for row in table.iter().map_err(ConsumerError::of_file)? {
        let (name, row) = row.map_err(ConsumerError::of_file)?;
        let body = unseal(CONSUMERS, name.value().as_bytes(), row.value());
        let row = body.and_then(decode_consumer);
        let stored = row.map(|row| Stored {
            row,
            changes: Vec::new(),
        });
        let stored = stored.ok_or_else(|| "its row fails its check".to_owned());
        all.insert(name.value().to_owned(), stored);
    }
    let table = read
        .open_table(CHANGES_TABLE)
        .map_err(ConsumerError::of_file)?;
    for row in table.iter().map_err(ConsumerError::of_file)? {
        let (key, row) = row.map_err(ConsumerError::of_file)?;
        let (name, number) = key.value();
        let body = unseal(CHANGES, &change_key(name, number), row.value());
        let place = body.and_then(|body| decode_change(number, body));
        let stored = all
            .entry(name.to_owned())
            .or_insert_with(|| Err("its row is missing".to_owned()));
        match (stored.as_mut(), place) {
            (Ok(stored), Some(place)) => stored.changes.push((number, place)),
            (Ok(_), None) => *stored = Err(format!("its change {number} fails its check")),
            (Err(_), _) => {}
        }
    }
    Ok(all)
}

fn write_all(write: &WriteTransaction, commit: &Commit) -> Result<(), ConsumerError> {
    let mut consumers = write
        .open_table(CONSUMERS_TABLE)
        .map_err(ConsumerError::of_file)?;
    let mut changes = write
        .open_table(CHANGES_TABLE)
        .map_err(ConsumerError::of_file)?;
    for name in &commit.deleted {
        consumers
            .remove(name.as_str())
            .map_err(ConsumerError::of_file)?;
        let all = (name.as_str(), 0)..=(name.as_str(), u64::MAX);
        changes
            .retain_in(all, |_key, _row| false)
            .map_err(ConsumerError::of_file)?;
    }
    for Changed { name, row, places } in &commit.changed {
        let row = seal(CONSUMERS, name.as_bytes(), encode_consumer(row));
        consumers
            .insert(name.as_str(), row.as_slice())
            .map_err(ConsumerError::of_file)?;
        for (number, place) in places {
            let key = (name.as_str(), *number);
            match encode_change(place) {
                Some(body) => {
                    let row = seal(CHANGES, &change_key(name, *number), body);
                    changes
                        .insert(key, row.as_slice())
                        .map_err(ConsumerError::of_file)?;
                }
                None => drop(changes.remove(key).map_err(ConsumerError::of_file)?),
            }
        }
    }
    Ok(())
}

// Returns the bytes that the check of a change's row covers besides the row.
fn change_key(name: &str, number: u64) -> Vec<u8> {
    let mut key = number.to_le_bytes().to_vec();
    key.extend_from_slice(name.as_bytes());
    key
}

// redb panics on some damage.
fn guarded<T>(work: impl FnOnce() -> Result<T, ConsumerError>) -> Result<T, ConsumerError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_panic| Err(ConsumerError::damaged("it cannot be read")))
}
