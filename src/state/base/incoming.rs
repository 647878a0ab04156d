//! A base that comes from a peer: its parts are written as their bytes come, each chunk is checked by its
//! hash, and what is on the disk already is not asked for again.
//!
//! A part on its way is a file named by its hash, too, with another ending. Its index is written first, at
//! the end, where it belongs. So after an interruption the chunks that are there are found by the index.
//! Once all of it has come it is durable and gets a third ending, so that the next attempt need not read
//! it: a peer waits meanwhile. Everything is read and checked once more before parts get their last names: the
//! next opening removes those of a base that is not in place.

use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc};

use bytes::{Bytes, BytesMut};

use crate::{
    disk::{Disk, DiskFile, Open},
    protocol::sync::{PartName, PartWant},
    state::{
        StateError,
        base::{
            Base, BaseManifest,
            base::{NEW, texts},
            part::{
                ChunkInfo, HEAD, Part, PartId, PartInfo, TRAILER_BYTES, index_bytes, index_of,
                is_index,
            },
        },
    },
};

/// Why a base that comes from a peer is not taken.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum IncomingError {
    /// The peer sent other bytes than those that the manifest names.
    #[error("the peer sent a part of a base that is not what its name says: {what}")]
    Forged {
        /// The check that failed, as a clause.
        what: &'static str,
    },
    /// The bytes are those that the manifest names, and no node makes such a part: the peer only passes it on.
    #[error("a part of the base is malformed or too large, though its hash is right: {what}")]
    Unsound {
        /// The check that failed, as a clause.
        what: &'static str,
    },
    /// The peer ended a part too early.
    #[error("the peer ended a part of a base before all of it had come")]
    Cut,
    /// The disk refused, or gave back other bytes. What has come is kept.
    #[error("cannot keep a base: {0}")]
    Disk(StateError),
}

impl<E: Into<StateError>> From<E> for IncomingError {
    fn from(error: E) -> Self {
        Self::Disk(error.into())
    }
}

/// How much of a base is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes of the parts that are here.
    pub bytes: u64,
    /// Bytes of all parts.
    pub bytes_max: u64,
    /// Number of parts that are here.
    pub parts: usize,
    /// Number of all parts.
    pub parts_max: usize,
}

/// A base on its way.
#[derive(Debug)]
pub struct Incoming {
    disk: Arc<dyn Disk>,
    // The directory of the bases.
    dir: PathBuf,
    // With the number 0.
    manifest: BaseManifest,
    // Numbers of the parts that are not here yet, the next one last.
    missing: Vec<usize>,
    // Parts that turned out to be damaged when all of the base was here. Set by `finish`.
    damaged: BTreeSet<PartName>,
    // The part that was asked for.
    coming: Option<Coming>,
    progress: Progress,
}

/// A part on its way.
#[derive(Debug)]
pub(super) struct Coming {
    number: usize,
    file: Arc<dyn DiskFile>,
    // The trailer and the index as far as they have come. Empty once both have.
    tail: BytesMut,
    chunks: Option<Vec<ChunkInfo>>,
    // Chunks that were here already.
    from: usize,
    // The chunk that comes, and how much of it has.
    chunk: usize,
    come: u64,
    hasher: blake3::Hasher,
    // Bytes of the file that were not written back yet begin here.
    written_back: u64,
}

impl Incoming {
    /// Begins with the base of `manifest`, which a peer sent. Parts that `own` shares, and whole ones of an
    /// earlier attempt, are here: they are read and checked by `finish`. Of `damaged`, parts that earlier
    /// attempts found damaged, only the latter. Files of another base on its way are removed.
    ///
    /// # Errors
    /// `Io`.
    pub fn begin(
        disk: &Arc<dyn Disk>,
        dir: PathBuf,
        own: Option<&Base>,
        manifest: BaseManifest,
        damaged: &BTreeSet<PartName>,
    ) -> Result<Self, StateError> {
        disk.create_dir(&dir)?;
        let mut incoming = Self {
            disk: Arc::clone(disk),
            dir,
            missing: Vec::new(),
            damaged: BTreeSet::new(),
            coming: None,
            progress: Progress {
                bytes_max: manifest.bytes(),
                parts_max: manifest.parts.len(),
                ..Progress::default()
            },
            manifest,
        };
        incoming.remove_others()?;
        let mut shared = parts_of(own);
        shared.retain(|part| !damaged.contains(&PartName(part.0)));
        let names: BTreeSet<_> = texts(disk.list(&incoming.dir)?).into_iter().collect();
        for (number, info) in incoming.manifest.parts.iter().enumerate().rev() {
            if shared.contains(&info.id) || names.contains(&file_name(info, COME)) {
                incoming.progress.bytes += info.bytes;
                incoming.progress.parts += 1;
            } else {
                incoming.missing.push(number);
            }
        }
        Ok(incoming)
    }

    /// Returns the part to ask for next; `None` when all are here.
    ///
    /// # Errors
    /// `Disk`.
    pub fn next_part(&mut self) -> Result<Option<PartWant>, IncomingError> {
        let Some(number) = self.missing.last().copied() else {
            return Ok(None);
        };
        let Some(info) = self.manifest.parts.get(number).cloned() else {
            return Ok(None);
        };
        let come = match self.come_of(&info)? {
            Some(come) => come,
            None => Coming::new(self.begin_file(&info)?),
        };
        let want = PartWant {
            part: PartName(info.id.0),
            from_chunk: u32::try_from(come.chunk).unwrap_or(u32::MAX),
            bytes_max: info.bytes,
        };
        // The index comes again, before the chunks.
        self.coming = Some(Coming {
            number,
            from: come.chunk,
            chunk: 0,
            chunks: None,
            ..come
        });
        Ok(Some(want))
    }

    /// Keeps the next bytes of the part that was asked for last. `last`: no more come; the part is durable
    /// on return.
    ///
    /// # Errors
    /// `Forged`, `Cut`, `Disk`. Chunks that were checked are kept for the next attempt.
    pub fn keep(&mut self, piece: &[u8], last: bool) -> Result<(), IncomingError> {
        let Some(coming) = &mut self.coming else {
            let what = "no part was asked for";
            return Err(IncomingError::Forged { what });
        };
        let info = self.manifest.parts.get(coming.number);
        let info = info.ok_or(IncomingError::Cut)?.clone();
        coming.keep(piece, &info)?;
        if !last {
            return Ok(());
        }
        if !coming.is_whole() {
            return Err(IncomingError::Cut);
        }
        if let Err(error) = coming.file.sync_data() {
            // The disk may have none of it, whatever is read from now on.
            self.coming = None;
            remove_if_there(self.disk.as_ref(), &self.path(&info))?;
            return Err(error.into());
        }
        self.coming = None;
        self.disk
            .rename(&self.path(&info), &self.come_path(&info))?;
        self.disk.sync_dir(&self.dir)?;
        self.missing.pop();
        self.progress.bytes += info.bytes;
        self.progress.parts += 1;
        Ok(())
    }

    /// Returns how much is here.
    pub fn progress(&self) -> Progress {
        let coming = self.coming.as_ref().map_or(0, Coming::bytes);
        Progress {
            bytes: self.progress.bytes + coming,
            ..self.progress
        }
    }

    /// Returns the manifest, with the number 0.
    pub fn manifest(&self) -> &BaseManifest {
        &self.manifest
    }

    /// Makes a base of the parts, all of which are here, and reads and checks all of it. Its files are
    /// durable on return; nothing opens it before `commit`. `own`: the newest base. `check`: what else must
    /// be right about it. No other base may be made meanwhile.
    ///
    /// # Errors
    /// `Damaged`: the disk gave back other bytes, or the parts do not make a base. `damaged_parts` names the
    /// parts that are not as they came; they are removed, and the others stay. `Io`.
    pub fn finish(
        &mut self,
        number: u64,
        own: Option<&Base>,
        check: impl FnOnce(&Base) -> Result<(), StateError>,
    ) -> Result<Base, StateError> {
        let manifest = BaseManifest {
            number,
            ..self.manifest.clone()
        };
        let come = self.come()?;
        let base = Base::at(self.disk.as_ref(), manifest, |info| self.place(info, &come));
        let checked = base.and_then(|base| {
            base.check()?;
            check(&base)?;
            Ok(base)
        });
        if matches!(checked, Err(StateError::Damaged { .. })) {
            self.remove_damaged(own)?;
        }
        let base = checked?;
        for info in self
            .manifest
            .parts
            .iter()
            .filter(|it| come.contains(&it.id))
        {
            let part = self.dir.join(info.id.file_name());
            self.disk.rename(&self.come_path(info), &part)?;
        }
        let path = self.dir.join(NEW);
        remove_if_there(self.disk.as_ref(), &path)?;
        let file = self.disk.open(&path, Open::New)?;
        file.write_at(&base.manifest().encode(), 0)?;
        file.sync_data()?;
        self.disk.sync_dir(&self.dir)?;
        Ok(base)
    }

    /// Returns the parts that `finish` found damaged.
    pub fn damaged_parts(&self) -> &BTreeSet<PartName> {
        &self.damaged
    }

    // Removes the parts that are not as they came, but none of `own`.
    fn remove_damaged(&mut self, own: Option<&Base>) -> Result<(), StateError> {
        let (own, come) = (parts_of(own), self.come()?);
        for info in &self.manifest.parts {
            let path = self.place(info, &come);
            if self.is_whole(info, &path)? {
                continue;
            }
            self.damaged.insert(PartName(info.id.0));
            if come.contains(&info.id) || !own.contains(&info.id) {
                remove_if_there(self.disk.as_ref(), &path)?;
            }
        }
        Ok(())
    }

    // Returns the parts that have come and do not have their last names.
    fn come(&self) -> Result<BTreeSet<PartId>, StateError> {
        let names: BTreeSet<_> = texts(self.disk.list(&self.dir)?).into_iter().collect();
        let parts = self.manifest.parts.iter();
        let come = parts.filter(|info| names.contains(&file_name(info, COME)));
        Ok(come.map(|info| info.id).collect())
    }

    fn place(&self, info: &PartInfo, come: &BTreeSet<PartId>) -> PathBuf {
        match come.contains(&info.id) {
            true => self.come_path(info),
            false => self.dir.join(info.id.file_name()),
        }
    }

    /// Returns whether there are files in `dir` of parts that another base than that of `manifest` has, on
    /// their way or whole.
    ///
    /// # Errors
    /// `Io`.
    pub fn has_others(
        disk: &dyn Disk,
        dir: &std::path::Path,
        manifest: &BaseManifest,
    ) -> Result<bool, StateError> {
        let own = names_of(manifest);
        let names = match disk.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            names => texts(names?),
        };
        Ok(names
            .iter()
            .any(|name| is_on_its_way(name) && !own.contains(name)))
    }

    /// Ends it: the base is in place. What is left of parts on their way is removed.
    ///
    /// # Errors
    /// `Io`.
    pub fn end(&self) -> Result<(), StateError> {
        remove_incoming(self.disk.as_ref(), &self.dir, |_any| true)
    }

    /// Takes back what `finish` did: parts that `own`, the newest base, does not have are on their way
    /// again.
    ///
    /// # Errors
    /// `Io`.
    pub fn put_back(&self, own: Option<&Base>) -> Result<(), StateError> {
        let own_parts = parts_of(own);
        remove_if_there(self.disk.as_ref(), &self.dir.join(NEW))?;
        for info in &self.manifest.parts {
            if own_parts.contains(&info.id) {
                continue;
            }
            let part = self.dir.join(info.id.file_name());
            match self.disk.rename(&part, &self.come_path(info)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _renamed => {}
            }
        }
        Ok(self.disk.sync_dir(&self.dir)?)
    }

    // Whether the part is at `path`, and as its name says.
    fn is_whole(&self, info: &PartInfo, path: &std::path::Path) -> Result<bool, StateError> {
        let checked = Part::open(self.disk.as_ref(), path, info).and_then(|part| {
            (0..part.len()).try_for_each(|chunk| part.chunk_bytes(chunk).map(drop))
        });
        match checked {
            Ok(()) => Ok(true),
            Err(StateError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    // Returns the part as an earlier attempt has left it: its index, and its chunks from the first one on.
    // `None` when there is no file of it.
    fn come_of(&self, info: &PartInfo) -> Result<Option<Coming>, StateError> {
        let file = match self.disk.open(&self.path(info), Open::Existing) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut coming = Coming::new(file);
        let at = info.bytes.checked_sub(TRAILER_BYTES as u64);
        let Some(at) = at.filter(|_| coming.file.len().is_ok_and(|len| len == info.bytes)) else {
            return Ok(Some(coming));
        };
        let mut trailer = [0; TRAILER_BYTES];
        coming.file.read_at(&mut trailer, at)?;
        let Some(bytes) = index_bytes(&trailer, info) else {
            return Ok(Some(coming));
        };
        let mut index = vec![0; bytes as usize];
        coming.file.read_at(&mut index, at - u64::from(bytes))?;
        if !is_index(&index, info) {
            return Ok(Some(coming));
        }
        let Some(chunks) = index_of(index.into(), info) else {
            return Ok(Some(coming));
        };
        for chunk in &chunks {
            let mut bytes = vec![0; chunk.bytes as usize];
            coming.file.read_at(&mut bytes, chunk.offset)?;
            if *blake3::hash(&bytes).as_bytes() != chunk.hash {
                break;
            }
            coming.chunk += 1;
        }
        let mut head = [0; HEAD.len()];
        coming.file.read_at(&mut head, 0)?;
        if head != *HEAD {
            coming.chunk = 0;
        }
        coming.chunks = Some(chunks);
        Ok(Some(coming))
    }

    fn begin_file(&self, info: &PartInfo) -> Result<Arc<dyn DiskFile>, StateError> {
        Ok(self.disk.open(&self.path(info), Open::New)?)
    }

    // Removes parts on their way that this base does not have.
    fn remove_others(&self) -> Result<(), StateError> {
        let own = names_of(&self.manifest);
        remove_incoming(self.disk.as_ref(), &self.dir, |name| !own.contains(name))
    }

    // Where a part is while it comes.
    fn path(&self, info: &PartInfo) -> PathBuf {
        self.dir.join(file_name(info, INCOMING))
    }

    // Where it is once all of it has come.
    fn come_path(&self, info: &PartInfo) -> PathBuf {
        self.dir.join(file_name(info, COME))
    }
}

impl Coming {
    pub(super) fn new(file: Arc<dyn DiskFile>) -> Self {
        Self {
            number: 0,
            file,
            tail: BytesMut::new(),
            chunks: None,
            from: 0,
            chunk: 0,
            come: 0,
            hasher: blake3::Hasher::new(),
            written_back: 0,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        let chunks = self.chunks.as_ref();
        chunks.is_some_and(|chunks| self.chunk == chunks.len())
    }

    // Bytes of the part that are here.
    fn bytes(&self) -> u64 {
        let chunks = self.chunks.as_deref().unwrap_or_default();
        let come = chunks.get(..self.chunk).unwrap_or_default();
        let come: u64 = come.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        come + self.come
    }

    pub(super) fn keep(&mut self, mut piece: &[u8], info: &PartInfo) -> Result<(), IncomingError> {
        if self.chunks.is_none() {
            piece = self.keep_tail(piece, info)?;
        }
        let Some(chunks) = &self.chunks else {
            return Ok(());
        };
        while !piece.is_empty() {
            let Some(chunk) = chunks.get(self.chunk) else {
                let what = "it goes on after its last chunk";
                return Err(IncomingError::Forged { what });
            };
            let left = u64::from(chunk.bytes).saturating_sub(self.come);
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            let (bytes, rest) = piece.split_at(now);
            self.file.write_at(bytes, chunk.offset + self.come)?;
            self.hasher.update(bytes);
            self.come += bytes.len() as u64;
            piece = rest;
            if self.come < u64::from(chunk.bytes) {
                continue;
            }
            if *self.hasher.finalize().as_bytes() != chunk.hash {
                let what = "a chunk fails its check";
                return Err(IncomingError::Forged { what });
            }
            self.hasher.reset();
            self.come = 0;
            self.chunk += 1;
            // A sync of a whole part at once would hold up the fsyncs of the log.
            let end = chunk.offset + u64::from(chunk.bytes);
            if end - self.written_back >= WRITE_BACK_BYTES {
                self.file
                    .write_back(self.written_back, end - self.written_back);
                self.written_back = end;
            }
        }
        Ok(())
    }

    // Gathers the trailer and the index, and writes both to their place. Returns the rest of `piece`.
    fn keep_tail<'a>(
        &mut self,
        mut piece: &'a [u8],
        info: &PartInfo,
    ) -> Result<&'a [u8], IncomingError> {
        let forged = |what| IncomingError::Forged { what };
        let mut gather = |tail: &mut BytesMut, bytes: usize| {
            let now = bytes.saturating_sub(tail.len()).min(piece.len());
            let (bytes, rest) = piece.split_at(now);
            tail.extend_from_slice(bytes);
            piece = rest;
        };
        gather(&mut self.tail, TRAILER_BYTES);
        let Some(trailer) = self.tail.first_chunk::<TRAILER_BYTES>().copied() else {
            return Ok(piece);
        };
        let bytes = index_bytes(&trailer, info).ok_or(forged("its trailer is another one"))?;
        gather(&mut self.tail, TRAILER_BYTES + bytes as usize);
        if self.tail.len() < TRAILER_BYTES + bytes as usize {
            return Ok(piece);
        }
        let tail = std::mem::take(&mut self.tail).freeze();
        let index = tail.slice(TRAILER_BYTES..);
        if !is_index(&index, info) {
            return Err(forged("its index is another one"));
        }
        let what = "its chunks are not such as a node makes";
        let chunks = index_of(index.clone(), info).ok_or(IncomingError::Unsound { what })?;
        let end = [index, Bytes::copy_from_slice(&trailer)].concat();
        self.file.write_at(&end, info.bytes - end.len() as u64)?;
        self.file.write_at(HEAD, 0)?;
        self.chunk = self.from;
        self.chunks = Some(chunks);
        Ok(piece)
    }
}

/// Removes parts on their way for whose names `is_old` is true.
///
/// # Errors
/// `Io`.
pub(super) fn remove_incoming(
    disk: &dyn Disk,
    dir: &std::path::Path,
    is_old: impl Fn(&str) -> bool,
) -> Result<(), StateError> {
    let names = texts(disk.list(dir)?);
    let old = names
        .iter()
        .filter(|name| is_on_its_way(name) && is_old(name));
    let mut has_removed = false;
    for name in old {
        remove_if_there(disk, &dir.join(name))?;
        has_removed = true;
    }
    if has_removed {
        disk.sync_dir(dir)?;
    }
    Ok(())
}

fn parts_of(base: Option<&Base>) -> BTreeSet<PartId> {
    let parts = base.into_iter().flat_map(Base::parts);
    parts.map(|(_, info)| info.id).collect()
}

fn file_name(info: &PartInfo, suffix: &str) -> String {
    let name = info.id.file_name();
    let name = name.split_once('.').map_or(name.as_str(), |(hash, _)| hash);
    format!("{name}{suffix}")
}

// The names of the files of its parts before they are in place.
fn names_of(manifest: &BaseManifest) -> BTreeSet<String> {
    let parts = manifest.parts.iter();
    parts
        .flat_map(|info| [INCOMING, COME].map(|suffix| file_name(info, suffix)))
        .collect()
}

fn is_on_its_way(name: &str) -> bool {
    name.ends_with(INCOMING) || name.ends_with(COME)
}

fn remove_if_there(disk: &dyn Disk, path: &std::path::Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

const INCOMING: &str = ".incoming";
const COME: &str = ".come";
const WRITE_BACK_BYTES: u64 = 512 << 10;
