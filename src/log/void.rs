//! Void branches: they left a log before the anchor at which it begins from now on, so none of their entries
//! counts. Their files are set aside when a base is installed, and when entries are removed.
//!
//! The list of them is a file named `void-` and the hash of the base, written before that base is the newest
//! one. So an installation that was interrupted is ended by the next opening. The list of a pruning is
//! named `left-` and the hash of the new beginnings, and is written before these are in place.
//!
//! ```text
//! magic "LVOD" 4, version 1, count of branches u32; author 32 and number u32 of each; BLAKE3 of all before 32
//! ```
//! Numbers are little-endian.

use std::{io, path::Path};

use data_encoding::HEXLOWER;

use crate::{
    disk::{Disk, Open},
    id::Author,
    log::{LogError, error::file_error, files::remove_if_there, segments},
};

/// Author and number of each void branch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Voids(pub(super) Vec<(Author, u32)>);

impl Voids {
    /// Writes the list for `base`, also an empty one: while it is there, the state file may be that of before
    /// the installation. Durable on return.
    ///
    /// # Errors
    /// `Io`, `Full`, `NoDescriptor`.
    pub(super) fn prepare(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        base: &[u8; 32],
    ) -> Result<(), LogError> {
        Self::put(disk, dir, &name(base), &self.encode())
    }

    /// Writes the list for a pruning after which the logs begin at `begins`; nothing if it is empty.
    /// Durable on return.
    ///
    /// # Errors
    /// `Io`, `Full`, `NoDescriptor`.
    pub(super) fn prepare_prune(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        begins: &[u8; 32],
    ) -> Result<(), LogError> {
        self.write(disk, dir, &name_of_prune(begins))
    }

    fn write(&self, disk: &dyn Disk, dir: &Path, name: &str) -> Result<(), LogError> {
        if self.0.is_empty() {
            return Ok(());
        }
        Self::put(disk, dir, name, &self.encode())
    }

    // A list that was cut is none.
    fn put(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> Result<(), LogError> {
        let unfinished = dir.join(format!("{name}.new"));
        let write = || {
            remove_if_there(disk, &unfinished)?;
            let file = disk.open(&unfinished, Open::New)?;
            file.write_at(bytes, 0)?;
            file.sync_data()?;
            drop(file);
            disk.rename(&unfinished, &dir.join(name))?;
            disk.sync_dir(dir)
        };
        write().map_err(|source| file_error(name, source))
    }

    /// Sets the files of the branches aside: they are no log any more. Durable on return.
    ///
    /// # Errors
    /// `Io`, `NoDescriptor`.
    pub(super) fn set_aside(&self, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        for (author, number) in &self.0 {
            let first = segments::name(author, *number, 0);
            let aside = segments::set_aside(disk, dir, &first);
            let aside = aside.map_err(|source| file_error(&first, source))?;
            tracing::warn!(
                author = %author.short(),
                file = aside,
                "a branch that left its log before the base is void: its file is set aside"
            );
        }
        Ok(())
    }

    /// Does `set_aside` with the list that was prepared for `base`, if there is one.
    ///
    /// # Errors
    /// `Begins` when the list is damaged; `Io`, `NoDescriptor`.
    pub(super) fn set_prepared_aside(
        disk: &dyn Disk,
        dir: &Path,
        base: &[u8; 32],
    ) -> Result<(), LogError> {
        match Self::read(disk, dir, &name(base))? {
            Some(voids) => voids.set_aside(disk, dir),
            None => Ok(()),
        }
    }

    /// Does `set_aside` with the list of the pruning that has put `begins` in place. Returns whether there
    /// is one.
    ///
    /// # Errors
    /// `Begins` when the list is damaged; `Io`, `NoDescriptor`.
    pub(super) fn set_aside_of_prune(
        disk: &dyn Disk,
        dir: &Path,
        begins: &[u8; 32],
    ) -> Result<bool, LogError> {
        let Some(voids) = Self::read(disk, dir, &name_of_prune(begins))? else {
            return Ok(false);
        };
        voids.set_aside(disk, dir)?;
        Ok(true)
    }

    // Returns `None` if there is no file of this name.
    fn read(disk: &dyn Disk, dir: &Path, name: &str) -> Result<Option<Self>, LogError> {
        let failed = |source| file_error(name, source);
        let file = match disk.open(&dir.join(name), Open::Existing) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let len = usize::try_from(file.len().map_err(failed)?).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(BYTES_MAX)];
        file.read_at(&mut bytes, 0).map_err(failed)?;
        drop(file);
        let what = format!("{name} is damaged");
        let voids = Self::decode(&bytes).ok_or(LogError::Begins { what })?;
        Ok(Some(voids))
    }

    /// Returns the names of all lists of prunings in `dir`.
    ///
    /// # Errors
    /// `Io`, `NoDescriptor`.
    pub(super) fn lists_of_prunes(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, LogError> {
        let names = match disk.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            names => names.map_err(|source| file_error(&dir.display().to_string(), source))?,
        };
        let names = names.iter().filter_map(|name| name.to_str());
        let lists = names.filter(|name| name.starts_with(OF_PRUNE));
        Ok(lists.map(str::to_owned).collect())
    }

    /// Removes these lists. Durable on return.
    ///
    /// # Errors
    /// `Io`, `NoDescriptor`.
    pub(super) fn remove_lists(
        disk: &dyn Disk,
        dir: &Path,
        names: &[String],
    ) -> Result<(), LogError> {
        for name in names {
            let removed = remove_if_there(disk, &dir.join(name));
            removed.map_err(|source| file_error(name, source))?;
        }
        let synced = disk.sync_dir(dir);
        synced.map_err(|source| file_error(&dir.display().to_string(), source))
    }

    /// Removes the list of the pruning that has put `begins` in place. Durable on return.
    ///
    /// # Errors
    /// `Io`, `NoDescriptor`.
    pub(super) fn remove_of_prune(
        disk: &dyn Disk,
        dir: &Path,
        begins: &[u8; 32],
    ) -> Result<(), LogError> {
        Self::remove_lists(disk, dir, &[name_of_prune(begins)])
    }

    /// Removes the list for `base`, if there is one. Not durable before the next `sync_dir`.
    ///
    /// # Errors
    /// `Io`, `NoDescriptor`.
    pub(super) fn remove_prepared(
        disk: &dyn Disk,
        dir: &Path,
        base: &[u8; 32],
    ) -> Result<(), LogError> {
        let name = name(base);
        remove_if_there(disk, &dir.join(&name)).map_err(|source| file_error(&name, source))
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        let count = u32::try_from(self.0.len()).expect("a branch needs a file of its own");
        bytes.extend(count.to_le_bytes());
        for (author, number) in &self.0 {
            bytes.extend(author.0);
            bytes.extend(number.to_le_bytes());
        }
        let hash = blake3::hash(&bytes);
        bytes.extend(hash.as_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, hash) = bytes.split_last_chunk::<32>()?;
        if blake3::hash(body).as_bytes() != hash {
            return None;
        }
        let (version, rest) = body.strip_prefix(&MAGIC)?.split_first()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let branch = |bytes: &[u8]| {
            let (author, number) = bytes.split_first_chunk::<32>()?;
            Some((Author(*author), u32::from_le_bytes(number.try_into().ok()?)))
        };
        let branches: Option<Vec<_>> = rest.chunks(36).map(branch).collect();
        let branches = branches?;
        let is_whole = branches.len() as u64 == u64::from(u32::from_le_bytes(*count));
        (*version == VERSION && is_whole).then_some(Self(branches))
    }
}

/// Returns the name of the list for `base`.
pub(super) fn name(base: &[u8; 32]) -> String {
    format!("{PREPARED}{}", HEXLOWER.encode(base))
}

// `begins`: the hash of the new beginnings.
fn name_of_prune(begins: &[u8; 32]) -> String {
    format!("{OF_PRUNE}{}", HEXLOWER.encode(begins))
}

/// Returns whether a file of this name is the list of an installation.
pub(super) fn is_list(name: &str) -> bool {
    name.starts_with(PREPARED)
}

const PREPARED: &str = "void-";
const OF_PRUNE: &str = "left-";
const MAGIC: [u8; 4] = *b"LVOD";
const VERSION: u8 = 1;
// A list of more than four hundred thousand branches: each has a file.
const BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::mutator::{Corpus, fuzz};

    #[test]
    fn s9_list_with_a_right_hash() {
        let body = |voids: Vec<(Author, u32)>| {
            let mut bytes = Voids(voids).encode();
            bytes.truncate(bytes.len() - 32);
            bytes
        };
        let two = vec![(Author([1; 32]), 0), (Author([2; 32]), 77)];
        fuzz(&Corpus::new([body(two), body(Vec::new())]), |input| {
            let bytes = [input, blake3::hash(input).as_bytes()].concat();
            let Some(voids) = Voids::decode(&bytes) else {
                return false;
            };
            assert_eq!(voids.encode(), bytes, "there is one file");
            true
        });
    }

    #[test]
    fn list_is_read_as_it_was_written_and_any_other_byte_is_found() {
        let voids = Voids(vec![(Author([1; 32]), 0), (Author([2; 32]), 77)]);
        let bytes = voids.encode();
        assert_eq!(Voids::decode(&bytes), Some(voids));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(Voids::decode(&bad), None, "byte {at}");
            assert_eq!(Voids::decode(&bytes[..at]), None, "cut to {at}");
        }
    }
}
