//! Reading a snapshot file.

use std::{
    fs::File,
    io::{self, BufReader, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use bytes::Bytes;

use crate::{
    id::StoreId,
    node::snapshot::FileError,
    protocol::snapshot::{
        Block, BlockHead, Checked, Manifest, SnapshotChecker, SnapshotError,
        block::{BLOCK_HEAD_BYTES, HEAD_BYTES, Kind, TRAILER_BYTES, check_head, last_block},
    },
    state::{BaseManifest, IncomingError, PartsCheck},
};

/// Reads a whole file and checks all of it: each block, each signature, each link between entries, the
/// state of entries that were removed, and the manifest. Hands out what it has, in order; nothing that was handed out is sure to be wanted
/// before the manifest is returned. `progress` gets the number of bytes read and of all bytes.
///
/// Takes a few MiB of memory. Reads files: not for an event loop.
///
/// # Errors
/// `FileError`, and those of `each`.
pub fn read_snapshot<E: From<FileError>>(
    path: &Path,
    mut progress: impl FnMut(u64, u64),
    mut each: impl FnMut(Checked) -> Result<(), E>,
) -> Result<Manifest, E> {
    let mut reader = Reader::open(path)?;
    let (mut checker, mut base) = (SnapshotChecker::default(), BaseCheck::default());
    loop {
        let hash = reader.hasher.clone();
        let block = reader.block()?;
        let hash = || *hash.finalize().as_bytes();
        let checked = checker.next(&block, &hash);
        for checked in checked.map_err(|source| reader.unusable(source))? {
            base.next(&checked).map_err(|what| {
                let offset = block.offset;
                reader.unusable(SnapshotError::Damaged { offset, what })
            })?;
            if let Checked::Manifest(manifest) = checked {
                reader.end(block.offset)?;
                return Ok(manifest);
            }
            each(checked)?;
        }
        progress(reader.offset, reader.bytes);
    }
}

/// Reads the manifest of a file, and nothing else: what the file should have in it. Only the signature of
/// the manifest is checked.
///
/// # Errors
/// `FileError`.
pub fn read_manifest(path: &Path) -> Result<Manifest, FileError> {
    let mut reader = Reader::open(path)?;
    let (bytes, trailer_bytes) = (reader.bytes, TRAILER_BYTES as u64);
    let cut = SnapshotError::Cut { bytes };
    let at = bytes.checked_sub(trailer_bytes);
    let at = at.ok_or_else(|| reader.unusable(cut.clone()))?;
    reader.seek(at)?;
    let trailer = reader.exactly::<TRAILER_BYTES>()?;
    let last = last_block(trailer).filter(|last| *last < at);
    let last = last.ok_or_else(|| reader.unusable(cut))?;
    reader.seek(last)?;
    let block = reader.block()?;
    let manifest = Manifest::decode(&block.body).filter(|_| block.kind == Kind::Manifest);
    manifest.ok_or_else(|| {
        let what = "the manifest is not signed by its node".to_owned();
        let offset = block.offset;
        reader.unusable(SnapshotError::Damaged { offset, what })
    })
}

// Checks the state of removed entries that a store may have.
#[derive(Default)]
struct BaseCheck {
    store: Option<StoreId>,
    parts: Option<PartsCheck>,
}

impl BaseCheck {
    // The error says what is wrong.
    fn next(&mut self, checked: &Checked) -> Result<(), String> {
        let text = |error: &IncomingError| match error {
            IncomingError::Cut => "the state of removed entries is incomplete".to_owned(),
            IncomingError::Forged { what } | IncomingError::Unsound { what } => {
                format!("a part of the state of removed entries fails its check: {what}")
            }
            IncomingError::Disk(error) => error.to_string(),
        };
        match checked {
            Checked::Base(manifest) => {
                let manifest = BaseManifest::of_peer(manifest).map_err(|_malformed| {
                    "the description of the state of removed entries is malformed".to_owned()
                })?;
                if Some(manifest.store) != self.store {
                    return Err("the state of removed entries is of another store".to_owned());
                }
                self.parts = Some(PartsCheck::new(manifest));
                return Ok(());
            }
            Checked::Piece(piece, last) => {
                let parts = self.parts.as_mut().ok_or("a piece without a state")?;
                return parts.next(piece, *last).map_err(|error| text(&error));
            }
            Checked::Entries(_) | Checked::Key(_) => return Ok(()),
            Checked::Store(_) | Checked::Branch(..) | Checked::Manifest(_) => {}
        }
        if let Some(parts) = &self.parts {
            parts.end().map_err(|error| text(&error))?;
        }
        match checked {
            Checked::Store(store) => {
                (self.store, self.parts) = (Some(store.genesis.store()), None);
            }
            Checked::Branch(author, Some(begin)) => {
                let anchor = self
                    .parts
                    .as_ref()
                    .and_then(|it| it.manifest().anchor(author));
                let has = anchor
                    .is_some_and(|anchor| anchor.seq > begin.anchor.seq || *anchor == begin.anchor);
                if !has {
                    let author = author.short();
                    return Err(format!(
                        "the log of {author} begins after entries that the state does not have"
                    ));
                }
            }
            _other => {}
        }
        Ok(())
    }
}

// A file from which bytes are read in order.
struct Reader<'a> {
    path: &'a Path,
    file: BufReader<File>,
    bytes: u64,
    offset: u64,
    hasher: blake3::Hasher,
}

impl<'a> Reader<'a> {
    // Reads the head.
    fn open(path: &'a Path) -> Result<Self, FileError> {
        let io = |source| FileError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        let about = file.metadata().map_err(io)?;
        if !about.is_file() {
            return Err(io(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            )));
        }
        let mut reader = Self {
            path,
            file: BufReader::with_capacity(READ_BYTES, file),
            bytes: about.len(),
            offset: 0,
            hasher: blake3::Hasher::new(),
        };
        let head = reader.exactly::<HEAD_BYTES>()?;
        check_head(head).map_err(|source| reader.unusable(source))?;
        Ok(reader)
    }

    fn block(&mut self) -> Result<Block, FileError> {
        let offset = self.offset;
        let head = self.exactly::<BLOCK_HEAD_BYTES>()?;
        let head = BlockHead::decode(offset, head).map_err(|source| self.unusable(source))?;
        // No memory for bytes that are not there.
        if self.offset.saturating_add(head.rest as u64) > self.bytes {
            return Err(self.cut());
        }
        let mut rest = vec![0; head.rest];
        self.fill(&mut rest)?;
        let block = head.block(offset, Bytes::from(rest));
        block.map_err(|source| self.unusable(source))
    }

    // The last block, at `offset`, was read: only the trailer may follow.
    fn end(&mut self, offset: u64) -> Result<(), FileError> {
        let at = self.offset;
        let trailer = self.exactly::<TRAILER_BYTES>()?;
        if last_block(trailer) == Some(offset) && self.offset == self.bytes {
            return Ok(());
        }
        Err(self.unusable(SnapshotError::Damaged {
            offset: at,
            what: "the file does not end after its manifest".to_owned(),
        }))
    }

    fn exactly<const BYTES: usize>(&mut self) -> Result<[u8; BYTES], FileError> {
        let mut bytes = [0; BYTES];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), FileError> {
        match self.file.read_exact(bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(self.cut()),
            read => read.map_err(|source| self.io(source))?,
        }
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn seek(&mut self, offset: u64) -> Result<(), FileError> {
        let sought = self.file.seek(SeekFrom::Start(offset));
        self.offset = sought.map_err(|source| self.io(source))?;
        Ok(())
    }

    fn cut(&self) -> FileError {
        self.unusable(SnapshotError::Cut { bytes: self.bytes })
    }

    fn unusable(&self, source: SnapshotError) -> FileError {
        FileError::Unusable {
            path: self.path.to_owned(),
            source,
        }
    }

    fn io(&self, source: io::Error) -> FileError {
        FileError::Io {
            path: self.path.to_owned(),
            source,
        }
    }
}

const READ_BYTES: usize = 256 << 10;
