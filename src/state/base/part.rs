//! Parts: the files of a base. A part has neighbouring records, and its name is a hash of all of them.
//!
//! ```text
//! file    "LATBASE", version u8 (1); chunks; index; trailer
//! index   for each chunk: offset u64, bytes u32, records u32, BLAKE3 of the chunk 32,
//!           length of its first key u16, that key
//! trailer offset of the index u64, bytes of the index u32, BLAKE3 of the index 32
//! ```
//! Numbers are little-endian. The hash of the index is the name of the part. So a chunk is checked when
//! it is read, against a hash that its name covers.

use std::{io, path::Path, sync::Arc};

use bytes::{Buf as _, BufMut as _, Bytes};
use data_encoding::HEXLOWER;

use crate::{
    disk::{Disk, DiskFile, Open},
    limits::{BASE_CHUNK_BYTES_MAX, BASE_INDEX_BYTES_MAX, BASE_KEY_BYTES_MAX},
    state::{
        StateError,
        base::{
            chunk::{self, CHUNK_BYTES},
            record::RecordKey,
        },
    },
};

/// Hash of a part's index, which is its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartId(pub(super) [u8; 32]);

impl PartId {
    /// Returns the name of the file.
    pub(super) fn file_name(&self) -> String {
        format!("{}{SUFFIX}", HEXLOWER.encode(&self.0))
    }

    /// Returns whether a file of this name is a part.
    pub(super) fn is_name(name: &str) -> bool {
        name.ends_with(SUFFIX) || name == NEW
    }
}

/// The line of a manifest about a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::state) struct PartInfo {
    pub(super) id: PartId,
    /// Length of the file in bytes.
    pub(super) bytes: u64,
    pub(super) records: u64,
    pub(super) first: RecordKey,
}

/// An open part.
#[derive(Debug)]
pub(super) struct Part {
    file: Arc<dyn DiskFile>,
    name: String,
    chunks: Vec<ChunkInfo>,
}

/// A line of the index of a part.
#[derive(Debug)]
pub(super) struct ChunkInfo {
    pub(super) offset: u64,
    pub(super) bytes: u32,
    records: u32,
    pub(super) hash: [u8; 32],
    first: RecordKey,
}

impl Part {
    /// Opens the part, and checks its index. The file at `path` need not have the name of the part yet.
    ///
    /// # Errors
    /// `Damaged`, also when the file is missing. `Io`.
    pub(super) fn open(disk: &dyn Disk, path: &Path, info: &PartInfo) -> Result<Self, StateError> {
        let name = info.id.file_name();
        let file = match disk.open(path, Open::Existing) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged(&name, "it is missing"));
            }
            opened => opened?,
        };
        let at = (file.len()? == info.bytes)
            .then(|| info.bytes.checked_sub(TRAILER_BYTES as u64))
            .flatten()
            .ok_or_else(|| damaged(&name, "it has another length"))?;
        let mut trailer = [0; TRAILER_BYTES];
        file.read_at(&mut trailer, at)?;
        let mut trailer = trailer.as_slice();
        let (offset, bytes) = (trailer.get_u64_le(), u64::from(trailer.get_u32_le()));
        if trailer != info.id.0 || offset.checked_add(bytes) != Some(at) {
            return Err(damaged(&name, "its trailer is another one"));
        }
        let index = read(file.as_ref(), offset, bytes)?;
        if *blake3::hash(&index).as_bytes() != info.id.0 {
            return Err(damaged(&name, "its index fails its check"));
        }
        let chunks = decode_index(index).ok_or_else(|| damaged(&name, "its index is malformed"))?;
        Ok(Self { file, name, chunks })
    }

    /// Returns how many chunks the part has.
    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Returns the index of the chunk that has `key`, if the part has it; 0 if `key` is before all.
    pub(super) fn chunk_of(&self, key: &RecordKey) -> usize {
        let after = self.chunks.partition_point(|chunk| chunk.first <= *key);
        after.saturating_sub(1)
    }

    /// Reads a chunk and checks it.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn read(&self, chunk: usize) -> Result<Vec<(RecordKey, Bytes)>, StateError> {
        let Some(info) = self.chunks.get(chunk) else {
            return Ok(Vec::new());
        };
        let bytes = self.bytes_of(info)?;
        let damaged = |what: &str| self.damaged(info, what);
        let records = chunk::records(bytes).ok_or_else(|| damaged("a chunk is malformed"))?;
        let is_whole = records.len() == info.records as usize
            && records.first().is_some_and(|(key, _)| *key == info.first);
        if !is_whole {
            return Err(damaged("a chunk has other records than its index says"));
        }
        Ok(records)
    }

    /// Returns the bytes of a chunk, checked; `None` behind the last one.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn chunk_bytes(&self, chunk: usize) -> Result<Option<Bytes>, StateError> {
        let info = self.chunks.get(chunk);
        info.map(|info| self.bytes_of(info)).transpose()
    }

    /// Returns the trailer and then the index, as peers get them.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn tail(&self, info: &PartInfo) -> Result<Bytes, StateError> {
        let end = self.chunks.last().map(|it| it.offset + u64::from(it.bytes));
        let offset = end.unwrap_or(HEAD.len() as u64);
        let end = read(self.file.as_ref(), offset, info.bytes - offset)?;
        let index = end.len().saturating_sub(TRAILER_BYTES);
        let (index, trailer) = (end.slice(..index), end.slice(index..));
        if *blake3::hash(&index).as_bytes() != info.id.0 {
            return Err(damaged(&self.name, "its index fails its check"));
        }
        Ok([trailer, index].concat().into())
    }

    fn bytes_of(&self, info: &ChunkInfo) -> Result<Bytes, StateError> {
        let bytes = read(self.file.as_ref(), info.offset, u64::from(info.bytes))?;
        if *blake3::hash(&bytes).as_bytes() != info.hash {
            return Err(self.damaged(info, "a chunk fails its check"));
        }
        Ok(bytes)
    }

    fn damaged(&self, info: &ChunkInfo, what: &str) -> StateError {
        let what = format!("{what} ({} bytes at {})", info.bytes, info.offset);
        damaged(&self.name, &what)
    }
}

/// Returns the length of the index of a part of `info` with this trailer; `None` when it is not a trailer
/// of that part.
pub(super) fn index_bytes(trailer: &[u8; TRAILER_BYTES], info: &PartInfo) -> Option<u32> {
    let mut trailer = trailer.as_slice();
    let (offset, bytes) = (trailer.get_u64_le(), trailer.get_u32_le());
    let end = offset
        .checked_add(u64::from(bytes))?
        .checked_add(TRAILER_BYTES as u64)?;
    (*trailer == info.id.0 && end == info.bytes && bytes <= BASE_INDEX_BYTES_MAX).then_some(bytes)
}

/// Returns whether `index` is the index that the name of the part covers.
pub(super) fn is_index(index: &[u8], info: &PartInfo) -> bool {
    *blake3::hash(index).as_bytes() == info.id.0
}

/// Reads the index of a part of `info`. `None` unless its chunks follow one another from the head of the
/// file to the index, each as long as a node makes it, and it has the first record and the number of
/// records of `info`.
pub(super) fn index_of(index: Bytes, info: &PartInfo) -> Option<Vec<ChunkInfo>> {
    let end = info
        .bytes
        .checked_sub(TRAILER_BYTES as u64 + index.len() as u64)?;
    let chunks = decode_index(index)?;
    let (mut offset, mut records) = (HEAD.len() as u64, 0_u64);
    for (number, chunk) in chunks.iter().enumerate() {
        // So many short ones would take more memory than the part has bytes.
        let is_last = number + 1 == chunks.len();
        let bytes_min = if is_last { 1 } else { CHUNK_BYTES };
        let is_sound = (bytes_min as u64..=u64::from(BASE_CHUNK_BYTES_MAX))
            .contains(&u64::from(chunk.bytes))
            && chunk.first.0.len() <= BASE_KEY_BYTES_MAX;
        if chunk.offset != offset || !is_sound {
            return None;
        }
        offset = offset.checked_add(u64::from(chunk.bytes))?;
        records = records.checked_add(u64::from(chunk.records))?;
    }
    let is_of = chunks.first().is_some_and(|it| it.first == info.first);
    (is_of && offset == end && records == info.records).then_some(chunks)
}

/// Writes a part.
#[derive(Debug)]
pub(super) struct PartWriter {
    file: Arc<dyn DiskFile>,
    // Bytes of the file so far, without `chunk`.
    offset: u64,
    chunk: Vec<u8>,
    chunk_first: Option<RecordKey>,
    chunk_records: u32,
    index: Vec<u8>,
    first: RecordKey,
    records: u64,
    // Bytes of the file that were not written back yet begin here.
    written_back: u64,
}

impl PartWriter {
    /// Begins a part whose first record has the key `first`.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn begin(disk: &dyn Disk, dir: &Path, first: RecordKey) -> Result<Self, StateError> {
        let path = dir.join(NEW);
        match disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _removed => {}
        }
        let file = disk.open(&path, Open::New)?;
        file.write_at(HEAD, 0)?;
        Ok(Self {
            file,
            offset: HEAD.len() as u64,
            chunk: Vec::with_capacity(CHUNK_BYTES),
            chunk_first: None,
            chunk_records: 0,
            index: Vec::new(),
            first,
            records: 0,
            written_back: 0,
        })
    }

    /// Returns the bytes of the part so far, without its index.
    pub(super) fn bytes(&self) -> u64 {
        self.offset + self.chunk.len() as u64
    }

    /// Adds the next record.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn push(&mut self, key: &RecordKey, body: &[u8]) -> Result<(), StateError> {
        if self.chunk.len() >= CHUNK_BYTES {
            self.end_chunk()?;
        }
        self.chunk_first.get_or_insert_with(|| key.clone());
        chunk::push(&mut self.chunk, key, body);
        self.chunk_records += 1;
        self.records += 1;
        Ok(())
    }

    /// Ends the part. Its file is durable on return; its name is with the next `sync_dir`.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn finish(mut self, disk: &dyn Disk, dir: &Path) -> Result<PartInfo, StateError> {
        self.end_chunk()?;
        let id = PartId(*blake3::hash(&self.index).as_bytes());
        let mut end = std::mem::take(&mut self.index);
        let bytes = u32::try_from(end.len()).expect("an index is short");
        end.put_u64_le(self.offset);
        end.put_u32_le(bytes);
        end.put_slice(&id.0);
        self.file.write_at(&end, self.offset)?;
        self.offset += end.len() as u64;
        self.file.sync_data()?;
        disk.rename(&dir.join(NEW), &dir.join(id.file_name()))?;
        Ok(PartInfo {
            id,
            bytes: self.offset,
            records: self.records,
            first: self.first,
        })
    }

    fn end_chunk(&mut self) -> Result<(), StateError> {
        let Some(first) = self.chunk_first.take() else {
            return Ok(());
        };
        let bytes = u32::try_from(self.chunk.len()).expect("a chunk has less than 4 GiB");
        self.file.write_at(&self.chunk, self.offset)?;
        self.index.put_u64_le(self.offset);
        self.index.put_u32_le(bytes);
        self.index.put_u32_le(self.chunk_records);
        self.index.put_slice(blake3::hash(&self.chunk).as_bytes());
        let length = u16::try_from(first.0.len()).expect("a key has at most 4 KiB and an id");
        self.index.put_u16_le(length);
        self.index.put_slice(&first.0);
        self.offset += u64::from(bytes);
        self.chunk.clear();
        self.chunk_records = 0;
        // A sync of a whole part at once would hold up the fsyncs of the log.
        let waiting = self.offset - self.written_back;
        if waiting >= WRITE_BACK_BYTES {
            self.file.write_back(self.written_back, waiting);
            self.written_back = self.offset;
        }
        Ok(())
    }
}

fn read(file: &dyn DiskFile, offset: u64, bytes: u64) -> Result<Bytes, StateError> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut buf = vec![0; bytes];
    file.read_at(&mut buf, offset)?;
    Ok(buf.into())
}

fn decode_index(mut index: Bytes) -> Option<Vec<ChunkInfo>> {
    let mut chunks = Vec::new();
    while index.has_remaining() {
        let offset = index.try_get_u64_le().ok()?;
        let bytes = index.try_get_u32_le().ok()?;
        let records = index.try_get_u32_le().ok()?;
        if index.remaining() < 34 {
            return None;
        }
        let hash = index.split_to(32).as_ref().try_into().ok()?;
        let length = usize::from(index.get_u16_le());
        if index.remaining() < length {
            return None;
        }
        chunks.push(ChunkInfo {
            offset,
            bytes,
            records,
            hash,
            first: RecordKey(index.split_to(length)),
        });
    }
    chunks
        .is_sorted_by(|a, b| a.first < b.first)
        .then_some(chunks)
}

/// Returns the error of a damaged part.
pub(super) fn damaged(name: &str, what: &str) -> StateError {
    StateError::damaged(&format!("{name} of the base: {what}"))
}

/// The first bytes of a part.
pub(super) const HEAD: &[u8; 8] = b"LATBASE\x01";
/// Bytes of the end of a part, which says where its index is.
pub(super) const TRAILER_BYTES: usize = 8 + 4 + 32;
const SUFFIX: &str = ".part";
const NEW: &str = "part.new";
const WRITE_BACK_BYTES: u64 = 512 << 10;
