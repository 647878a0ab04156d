//! The frame of one record in a log file, and the scan that finds frames in damaged bytes.
//!
//! ```text
//!   0  magic        4  f1 'L' 'T' 'E'
//!   4  version      1  1
//!   5  flags        1  bit 0: seal (no payload; written at a clean close)
//!   6  zero         2
//!   8  length       4  bytes of payload that follow
//!  12  seq          8  place in the author's log; of a seal: of the newest entry
//!  20  synced       8  bytes of this file that were durable when the frame was written
//!  28  arrived_ms   8  local wall time of the append; of a seal: wall time of the newest entry's stamp
//!  36  wall_ms      8  wall time of the entry's stamp; of a seal: of the newest entry's
//!  44  counter      4  counter of the same stamp
//!  48  author      32
//!  80  id          32  of the entry; of a seal: of the newest entry
//! 112  check        8  first bytes of BLAKE3 of the file offset and bytes 0..112
//! 120  payload         an encoded `SignedEntry`; the id above covers it
//! ```
//! So a header alone answers which entry is at a place and how it is stamped, however long its
//! values are, and also when they are damaged.
//!
//! Numbers are little-endian; times are ms since 1970. Zeros where a frame should begin are room
//! that is not used yet. A seal that fills a hole has a payload of zeros, which is skipped.

use crate::{
    id::{Author, EntryId, Seq},
    protocol::hlc::Hlc,
};

/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 120;

const CHECK_AT: usize = FRAME_HEADER_BYTES - 8;
const MAGIC: [u8; 4] = [0xf1, b'L', b'T', b'E'];
const VERSION: u8 = 1;
const FLAG_SEAL: u8 = 1;

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of payload.
    pub length: u32,
    /// Place of the entry; for a seal, of the newest entry before it.
    pub seq: Seq,
    /// Bytes of the file that were durable when the frame was written.
    pub synced: u64,
    /// Local wall time of the append, ms since 1970; for a seal, the wall time of the newest
    /// entry's stamp.
    pub arrived_ms: u64,
    /// Stamp of the entry; for a seal, of the newest one before it.
    pub hlc: Hlc,
    /// Author of the log.
    pub author: Author,
    /// The entry; for a seal, the newest one before it.
    pub id: EntryId,
    /// True for a seal: a frame without an entry, left by a clean close or a filled hole.
    pub seal: bool,
}

/// The kind of bytes that `look` found at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A frame; its payload is the `length` bytes after its header.
    Frame(FrameHeader),
    /// A frame that ends beyond the given bytes, or may.
    Cut {
        /// Bytes that are needed, counted from the frame's start.
        bytes: usize,
    },
    /// Nothing but zeros in the given bytes.
    Zeros,
    /// Bytes that are no frame.
    Bad,
}

impl FrameHeader {
    /// Returns the bytes of header and payload.
    pub fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.length as usize
    }

    /// Encodes the header for `offset` of a file. It can be read only there.
    pub fn encode(&self, offset: u64) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = if self.seal { FLAG_SEAL } else { 0 };
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.seq.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.synced.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.arrived_ms.to_le_bytes());
        bytes[36..44].copy_from_slice(&self.hlc.wall_ms.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.hlc.counter.to_le_bytes());
        bytes[48..80].copy_from_slice(&self.author.0);
        bytes[80..112].copy_from_slice(&self.id.0);
        let check = check(offset, &bytes);
        bytes[CHECK_AT..].copy_from_slice(&check);
        bytes
    }

    /// Decodes the header at the start of `bytes`, which are at `offset` of a file. Returns `None`
    /// when the check fails, or the version or a flag is unknown.
    pub fn decode(bytes: &[u8], offset: u64) -> Option<Self> {
        let bytes: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk()?;
        if bytes[0..4] != MAGIC || bytes[CHECK_AT..] != check(offset, bytes) {
            return None;
        }
        if bytes[4] != VERSION || bytes[5] & !FLAG_SEAL != 0 || bytes[6..8] != [0, 0] {
            return None;
        }
        Some(Self {
            length: u32::from_le_bytes(field(bytes, 8)),
            seq: u64::from_le_bytes(field(bytes, 12)),
            synced: u64::from_le_bytes(field(bytes, 20)),
            arrived_ms: u64::from_le_bytes(field(bytes, 28)),
            hlc: Hlc {
                wall_ms: u64::from_le_bytes(field(bytes, 36)),
                counter: u32::from_le_bytes(field(bytes, 44)),
            },
            author: Author(field(bytes, 48)),
            id: EntryId(field(bytes, 80)),
            seal: bytes[5] & FLAG_SEAL != 0,
        })
    }
}

/// Returns what is at the start of `bytes`, which are at `offset` of a file.
pub fn look(bytes: &[u8], offset: u64) -> Found {
    let Some(header) = FrameHeader::decode(bytes, offset) else {
        if bytes.iter().all(|byte| *byte == 0) {
            return Found::Zeros;
        }
        let may_begin =
            bytes.len() < FRAME_HEADER_BYTES && MAGIC.starts_with(&bytes[..bytes.len().min(4)]);
        return if may_begin {
            Found::Cut {
                bytes: FRAME_HEADER_BYTES,
            }
        } else {
            Found::Bad
        };
    };
    if header.frame_bytes() > bytes.len() {
        return Found::Cut {
            bytes: header.frame_bytes(),
        };
    }
    Found::Frame(header)
}

/// Returns the position of the first frame header in `bytes` after position 0; `None` without one.
///
/// The check of a header covers its offset. So neither a payload that holds a copy of a frame nor a
/// sector that was written to the wrong place is taken for a frame.
pub fn resync(bytes: &[u8], offset: u64) -> Option<usize> {
    (1..bytes.len()).find(|at| {
        bytes[*at] == MAGIC[0] && FrameHeader::decode(&bytes[*at..], offset + *at as u64).is_some()
    })
}

fn check(offset: u64, bytes: &[u8; FRAME_HEADER_BYTES]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&offset.to_le_bytes())
        .update(&bytes[..CHECK_AT]);
    field(hasher.finalize().as_bytes(), 0)
}

fn field<const N: usize, const M: usize>(bytes: &[u8; M], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}
