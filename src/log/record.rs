//! Records of a log file, and the walk that reads them whatever state the bytes are in.

use std::{io, sync::Arc};

use bytes::Bytes;

use crate::{
    disk::DiskFile,
    log::frame::{FRAME_HEADER_BYTES, Found, FrameHeader, look, resync},
    protocol::entry::{Entry, SignedEntry},
};

/// A frame and its payload, as they are in a file.
#[derive(Debug, Clone)]
pub struct Record {
    /// Offset of the frame in the file.
    pub offset: u64,
    /// Header of the frame.
    pub header: FrameHeader,
    /// An encoded `SignedEntry`; meaningless for a seal. Empty if the walk reads headers only.
    pub payload: Bytes,
}

impl Record {
    /// Returns the offset where the payload ends.
    pub fn end(&self) -> u64 {
        self.offset + self.header.frame_bytes() as u64
    }

    /// Decodes the entry and checks that it is the one the frame names. The id covers every byte.
    ///
    /// # Errors
    /// The check that failed, for people.
    pub fn entry(&self) -> Result<Entry, String> {
        let signed =
            SignedEntry::decode(self.payload.clone()).map_err(|error| error.to_string())?;
        if signed.author != self.header.author {
            return Err("its author is not the frame's".to_owned());
        }
        let entry = signed.parse_again().map_err(|error| error.to_string())?;
        if entry.id != self.header.id {
            return Err(format!(
                "its id is {}, the frame says {}",
                entry.id, self.header.id
            ));
        }
        if entry.header.seq != self.header.seq {
            return Err(format!(
                "its seq is {}, the frame says {}",
                entry.header.seq, self.header.seq
            ));
        }
        if entry.header.hlc != self.header.hlc {
            return Err(format!(
                "it is stamped {}, the frame says {}",
                entry.header.hlc, self.header.hlc
            ));
        }
        Ok(entry)
    }
}

/// One step of a walk.
#[derive(Debug, Clone)]
pub enum Step {
    /// A record whose frame is sound.
    Record(Record),
    /// Bytes that are no frame, up to the next sound frame or the end.
    Bad {
        /// Offset of the first of them.
        offset: u64,
        /// Number of bytes, at least 1.
        bytes: u64,
        /// True when all of them are zero: room that is not used yet.
        zeros: bool,
    },
}

/// Reads a file forward, frame by frame, in chunks.
#[derive(Debug)]
pub struct Walk {
    // True if payloads are skipped. Those that a chunk does not reach are not read.
    headers_only: bool,
    file: Arc<dyn DiskFile>,
    // Offset of the next byte to look at.
    at: u64,
    // Exclusive; nothing at or behind it is read.
    end: u64,
    // Bytes of the file from `at` on, as far as they were read.
    buf: Bytes,
    // Bytes that one read takes; more only for a longer record.
    chunk_bytes: usize,
}

impl Walk {
    /// Begins at offset `at`, which must be a frame's start, and ends before `end`.
    pub fn new(file: Arc<dyn DiskFile>, at: u64, end: u64, chunk_bytes: usize) -> Self {
        Self {
            headers_only: false,
            file,
            at,
            end,
            buf: Bytes::new(),
            chunk_bytes,
        }
    }

    /// Like `new`, but skips the payloads. A read takes `HEADERS_BYTES` at the start and behind a
    /// skipped payload, and `HEADERS_BYTES_MAX` where records are short.
    pub fn headers(file: Arc<dyn DiskFile>, at: u64, end: u64) -> Self {
        Self {
            headers_only: true,
            ..Self::new(file, at, end, HEADERS_BYTES)
        }
    }

    /// Returns the offset of the next byte to look at.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Returns the next record or run of bad bytes; `None` at the end.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn step(&mut self) -> io::Result<Option<Step>> {
        if self.at >= self.end {
            return Ok(None);
        }
        self.fill(FRAME_HEADER_BYTES)?;
        let mut found = look(&self.buf, self.at);
        if let Found::Cut { bytes } = found {
            if let Some(header) = self.skippable() {
                return Ok(Some(Step::Record(self.take(header))));
            }
            self.fill(bytes)?;
            found = look(&self.buf, self.at);
        }
        match found {
            Found::Frame(header) => Ok(Some(Step::Record(self.take(header)))),
            Found::Cut { .. } | Found::Zeros | Found::Bad => self.skip_bad().map(Some),
        }
    }

    // Returns the header at hand if its payload need not be read and ends before `end`.
    fn skippable(&self) -> Option<FrameHeader> {
        let header = FrameHeader::decode(&self.buf, self.at).filter(|_| self.headers_only)?;
        (header.frame_bytes() as u64 <= self.end - self.at).then_some(header)
    }

    fn take(&mut self, header: FrameHeader) -> Record {
        let (at, bytes) = (self.at, header.frame_bytes());
        self.at += bytes as u64;
        if bytes > self.buf.len() {
            self.chunk_bytes = HEADERS_BYTES;
        }
        let frame = self.buf.split_to(bytes.min(self.buf.len()));
        let payload = if self.headers_only {
            Bytes::new()
        } else {
            frame.slice(FRAME_HEADER_BYTES..)
        };
        Record {
            offset: at,
            header,
            payload,
        }
    }

    // Goes on chunk by chunk to the next sound frame header, or to the end.
    fn skip_bad(&mut self) -> io::Result<Step> {
        let offset = self.at;
        let mut zeros = true;
        loop {
            self.fill(FRAME_HEADER_BYTES * 2)?;
            let next = resync(&self.buf, self.at);
            // Without a frame in sight, the last bytes may still be the beginning of one: keep
            // them.
            let skip = match next {
                Some(skip) => skip,
                None if self.at + self.buf.len() as u64 >= self.end => self.buf.len(),
                None => self.buf.len() - (FRAME_HEADER_BYTES - 1),
            };
            zeros &= self.buf[..skip].iter().all(|byte| *byte == 0);
            self.buf = self.buf.slice(skip..);
            self.at += skip as u64;
            if next.is_some() || self.at >= self.end {
                return Ok(Step::Bad {
                    offset,
                    bytes: self.at - offset,
                    zeros,
                });
            }
        }
    }

    // Reads until `buf` has `bytes`, or everything before `end`.
    fn fill(&mut self, bytes: usize) -> io::Result<()> {
        let left = self.end - self.at;
        let limited = |bytes: usize| {
            usize::try_from(left.min(bytes as u64)).expect("at most `bytes`, which is a usize")
        };
        let want = limited(bytes);
        if self.buf.len() >= want {
            return Ok(());
        }
        let mut chunk = vec![0; limited(want.max(self.chunk_bytes))];
        let have = self.buf.len();
        chunk[..have].copy_from_slice(&self.buf);
        self.file
            .read_at(&mut chunk[have..], self.at + have as u64)?;
        self.buf = chunk.into();
        if self.headers_only {
            self.chunk_bytes = HEADERS_BYTES_MAX;
        }
        Ok(())
    }
}

// Bytes that a walk over headers reads at first.
const HEADERS_BYTES: usize = 8 << 10;
// Bytes that it reads once it has met short records: about as many as lie between two points of an
// index, so that a look-up takes two reads.
const HEADERS_BYTES_MAX: usize = 64 << 10;
