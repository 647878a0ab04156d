//! A base that is open for reading.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use crate::{
    disk::{Disk, Open},
    id::{EntryId, StoreId},
    limits::BASE_MANIFEST_BYTES_MAX,
    pace::Pace,
    protocol::{heads::Heads, heads_row::decode_heads, sync::PartName},
    state::{
        StateError,
        base::{
            BaseManifest, RecordKey, RecordKind,
            part::{Part, PartId, PartInfo},
        },
    },
};

/// The rows of a state as of its anchors. Never changes.
#[derive(Debug)]
pub struct Base {
    manifest: BaseManifest,
    parts: Vec<Part>,
    // The chunks that were read last, newest last. Never held while a file is read.
    recent: Mutex<Vec<(Place, Arc<Records>)>>,
}

// Numbers of a part and of a chunk in it.
type Place = (usize, usize);
type Records = Vec<(RecordKey, Bytes)>;

/// The bases of a store that are in place.
#[derive(Debug, Clone, Default)]
pub struct Bases {
    /// The newest one: a state is built from it and later entries. `None`: the logs have all entries.
    pub newest: Option<Arc<Base>>,
    /// An older one, of the entries before those that are in the logs; `None` if the newest one is that, or
    /// if it was not kept. Only reads of the past need it.
    pub beginning: Option<Arc<Base>>,
}

impl Bases {
    /// Opens the bases in `dir`. Files that no newer base could need are removed: those of a base that was
    /// not finished, and those of older ones. An older base that is damaged is removed, too.
    ///
    /// # Errors
    /// `Damaged`: a file of the newest base is missing, cut or changed. `Io`.
    pub fn open(disk: &dyn Disk, dir: &Path, store: StoreId) -> Result<Self, StateError> {
        let names = match disk.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            names => texts(names?),
        };
        let numbers = names.iter().filter_map(|name| number_of(name));
        let Some(newest) = numbers.max() else {
            remove_others(disk, dir, &names, &[], None)?;
            return Ok(Self::default());
        };
        let newest = Base::open_one(disk, dir, &path_of(dir, newest), store, Some(newest))?;
        let beginning = match names.iter().any(|name| name == BEGINNING) {
            true => Base::open_one(disk, dir, &dir.join(BEGINNING), store, None),
            false => Err(StateError::damaged("there is none")),
        };
        let beginning = match beginning {
            Ok(beginning) => Some(beginning),
            Err(error) => {
                if names.iter().any(|name| name == BEGINNING) {
                    tracing::warn!(%error, "the past is read from a later time on");
                }
                None
            }
        };
        remove_others(disk, dir, &names, &[&newest], beginning.as_ref())?;
        Ok(Self {
            newest: Some(Arc::new(newest)),
            beginning: beginning.map(Arc::new),
        })
    }

    // Files that stay are removed at the next opening.
    fn without_others(self, disk: &dyn Disk, dir: &Path) -> Self {
        if let Err(error) = self.discard_others(disk, dir, None) {
            tracing::warn!(%error, "files of an earlier base are removed at the next opening");
        }
        self
    }

    /// Removes the files that neither these bases need nor `made`, one that is not in place.
    ///
    /// # Errors
    /// `Io`: they are removed at the next opening.
    pub fn discard_others(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        made: Option<&Base>,
    ) -> Result<(), StateError> {
        let names = match disk.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            names => texts(names?),
        };
        let kept: Vec<&Base> = self.newest.as_deref().into_iter().chain(made).collect();
        remove_others(disk, dir, &names, &kept, self.beginning.as_deref())
    }
}

impl Base {
    fn open_one(
        disk: &dyn Disk,
        dir: &Path,
        path: &Path,
        store: StoreId,
        number: Option<u64>,
    ) -> Result<Self, StateError> {
        let file = disk.open(path, Open::Existing)?;
        let bytes = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        let damaged = || StateError::damaged("the manifest of the base fails its check");
        if bytes > BASE_MANIFEST_BYTES_MAX {
            return Err(damaged());
        }
        let mut bytes = vec![0; bytes];
        file.read_at(&mut bytes, 0)?;
        let manifest = BaseManifest::decode(&bytes).ok_or_else(damaged)?;
        let is_other = number.is_some_and(|number| manifest.number != number);
        if manifest.store != store || is_other {
            return Err(StateError::damaged("the base is that of another store"));
        }
        Self::of(disk, dir, manifest)
    }

    /// Makes this base, which a builder has written, the newest one. Durable on return: from then on it
    /// is the one that opens. The files that only the one before needs are removed, but those of
    /// `beginning`, which is in place; who reads them has them open.
    ///
    /// # Errors
    /// `Io`; the one before is still there then.
    pub(crate) fn commit(
        self,
        disk: &dyn Disk,
        dir: &Path,
        beginning: Option<Arc<Self>>,
    ) -> Result<Bases, StateError> {
        disk.rename(&dir.join(NEW), &path_of(dir, self.manifest.number))?;
        disk.sync_dir(dir)?;
        let newest = Some(Arc::new(self));
        Ok(Bases { newest, beginning }.without_others(disk, dir))
    }

    /// Makes this base, which a builder has written, the older one beside `newest`. Durable on return.
    ///
    /// # Errors
    /// `Io`; the one before is still there then.
    pub(crate) fn commit_beginning(
        self,
        disk: &dyn Disk,
        dir: &Path,
        newest: Arc<Self>,
    ) -> Result<Bases, StateError> {
        disk.rename(&dir.join(NEW), &dir.join(BEGINNING))?;
        disk.sync_dir(dir)?;
        let bases = Bases {
            newest: Some(newest),
            beginning: Some(Arc::new(self)),
        };
        Ok(bases.without_others(disk, dir))
    }

    /// Keeps this base, the newest one, as the older one for when another one becomes the newest. Durable on
    /// return.
    ///
    /// # Errors
    /// `Io`; it is not kept then.
    pub(crate) fn keep(&self, disk: &dyn Disk, dir: &Path) -> Result<(), StateError> {
        let unfinished = dir.join(BEGINNING_NEW);
        match disk.remove(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _removed => {}
        }
        let file = disk.open(&unfinished, Open::New)?;
        file.write_at(&self.manifest.encode(), 0)?;
        file.sync_data()?;
        drop(file);
        disk.rename(&unfinished, &dir.join(BEGINNING))?;
        disk.sync_dir(dir)?;
        Ok(())
    }

    /// Returns whether the base with this number is in place, durable or not.
    ///
    /// # Errors
    /// `Io`.
    pub fn is_there(disk: &dyn Disk, dir: &Path, number: u64) -> Result<bool, StateError> {
        let names = texts(disk.list(dir)?);
        Ok(names.iter().any(|name| number_of(name) == Some(number)))
    }

    /// Opens the base with this manifest.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn of(
        disk: &dyn Disk,
        dir: &Path,
        manifest: BaseManifest,
    ) -> Result<Self, StateError> {
        Self::at(disk, manifest, |info| dir.join(info.id.file_name()))
    }

    /// Opens the base with this manifest, whose parts are at these paths.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn at(
        disk: &dyn Disk,
        manifest: BaseManifest,
        path: impl Fn(&PartInfo) -> PathBuf,
    ) -> Result<Self, StateError> {
        let parts = manifest.parts.iter();
        let parts = parts.map(|info| Part::open(disk, &path(info), info));
        Ok(Self {
            parts: parts.collect::<Result<_, _>>()?,
            manifest,
            recent: Mutex::default(),
        })
    }

    /// Returns what the base has in it.
    pub fn manifest(&self) -> &BaseManifest {
        &self.manifest
    }

    /// Returns the body of the record at `key`; `None` when there is none.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(crate) fn get(&self, key: &RecordKey) -> Result<Option<Bytes>, StateError> {
        let Some((part, _info)) = self.part_of(key) else {
            return Ok(None);
        };
        let Some(opened) = self.parts.get(part) else {
            return Ok(None);
        };
        let records = self.read((part, opened.chunk_of(key)))?;
        let found = records.binary_search_by(|(it, _)| it.cmp(key));
        Ok(found.ok().map(|at| records[at].1.clone()))
    }

    /// Returns the heads of `key`; none when it has no row.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn heads(&self, key: &[u8]) -> Result<Heads, StateError> {
        let row = self.get(&RecordKey::new(RecordKind::Heads, key))?;
        let damaged = || StateError::damaged("the heads of a key in the base are malformed");
        row.map_or(Ok(Heads::default()), |row| {
            decode_heads(&row).ok_or_else(damaged)
        })
    }

    /// Returns the value that `entry` puts at `key`, if it is in a record of its own.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn value(&self, key: &[u8], entry: &EntryId) -> Result<Option<Bytes>, StateError> {
        self.get(&RecordKey::value(key, entry))
    }

    /// Calls `each` with the records from `from` (inclusive) on, in order, until it returns false.
    ///
    /// # Errors
    /// `Damaged`, `Io`, and the errors of `each`.
    pub(crate) fn each_from(
        &self,
        from: &RecordKey,
        mut each: impl FnMut(&RecordKey, &Bytes) -> Result<bool, StateError>,
    ) -> Result<(), StateError> {
        let first = self.part_of(from).map_or(0, |(part, _info)| part);
        for (number, part) in self.parts.iter().enumerate().skip(first) {
            let first_chunk = if number == first {
                part.chunk_of(from)
            } else {
                0
            };
            for chunk in first_chunk..part.len() {
                // Many walks begin at the same place and end at once.
                let records = match number == first && chunk == first_chunk {
                    true => self.read((number, chunk))?,
                    false => Arc::new(part.read(chunk)?),
                };
                for (key, body) in records.iter() {
                    if key >= from && !each(key, body)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads all of it and checks each chunk. Returns the number of records.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn check(&self) -> Result<u64, StateError> {
        let (mut records, mut pace) = (0, Pace::start());
        for (part, info) in self.parts.iter().zip(&self.manifest.parts) {
            let mut of_part = 0;
            for chunk in 0..part.len() {
                pace.step();
                of_part += part.read(chunk)?.len() as u64;
            }
            if of_part != info.records {
                return Err(StateError::damaged("a part of the base lacks records"));
            }
            records += of_part;
        }
        Ok(records)
    }

    /// Returns the names of its parts.
    pub fn part_names(&self) -> Vec<PartName> {
        let parts = self.manifest.parts.iter();
        parts.map(|part| PartName(part.id.0)).collect()
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = (&Part, &PartInfo)> {
        self.parts.iter().zip(&self.manifest.parts)
    }

    // The last part that begins at `key` or before it.
    fn part_of(&self, key: &RecordKey) -> Option<(usize, &PartInfo)> {
        let parts = &self.manifest.parts;
        let after = parts.partition_point(|part| part.first <= *key);
        let part = after.checked_sub(1)?;
        Some((part, parts.get(part)?))
    }

    fn read(&self, place: Place) -> Result<Arc<Records>, StateError> {
        let recent = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |(it, _): &(Place, Arc<Records>)| *it == place;
        {
            let mut recent = recent();
            if let Some(at) = recent.iter().position(known) {
                let found = recent.remove(at);
                let records = Arc::clone(&found.1);
                recent.push(found);
                return Ok(records);
            }
        }
        let (part, chunk) = place;
        let records = match self.parts.get(part) {
            Some(part) => Arc::new(part.read(chunk)?),
            None => Arc::default(),
        };
        let mut recent = recent();
        if recent.len() >= RECENT_CHUNKS {
            recent.remove(0);
        }
        recent.push((place, Arc::clone(&records)));
        Ok(records)
    }
}

/// Returns the path of the manifest of a base.
pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}{SUFFIX}"))
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(SUFFIX)?.parse().ok()
}

pub(super) fn texts(names: Vec<OsString>) -> Vec<String> {
    let names = names.into_iter();
    names.filter_map(|name| name.into_string().ok()).collect()
}

// Removes the files that none of `kept` and `beginning` needs: manifests first, so that none is left without
// its parts.
fn remove_others(
    disk: &dyn Disk,
    dir: &Path,
    names: &[String],
    kept: &[&Base],
    beginning: Option<&Base>,
) -> Result<(), StateError> {
    let parts = kept.iter().chain(beginning.as_slice());
    let parts = parts.flat_map(|base| &base.manifest.parts);
    let parts: BTreeSet<String> = parts.map(|part| part.id.file_name()).collect();
    let is_kept = |number| kept.iter().any(|base| base.manifest.number == number);
    let is_old = |name: &str| match name {
        NEW | BEGINNING_NEW => true,
        BEGINNING => beginning.is_none(),
        _ => number_of(name).is_some_and(|number| !is_kept(number)),
    };
    remove(disk, dir, names.iter().filter(|name| is_old(name)))?;
    let is_old = |name: &str| PartId::is_name(name) && !parts.contains(name);
    remove(disk, dir, names.iter().filter(|name| is_old(name)))
}

fn remove<'a>(
    disk: &dyn Disk,
    dir: &Path,
    names: impl Iterator<Item = &'a String>,
) -> Result<(), StateError> {
    let mut removed = false;
    for name in names {
        match disk.remove(&dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _removed => removed = true,
        }
    }
    if removed {
        disk.sync_dir(dir)?;
    }
    Ok(())
}

/// Name of a manifest that is not in place yet.
pub(super) const NEW: &str = "manifest.new";
// Names of the manifest of an older base, and of one that is not in place yet.
const BEGINNING: &str = "beginning.manifest";
const BEGINNING_NEW: &str = "beginning.new";
const SUFFIX: &str = ".manifest";
const RECENT_CHUNKS: usize = 32;
