//! Blocks: the form of a snapshot file.
//!
//! ```text
//! file    "LATSNAP", version u8 (2); blocks; trailer
//! block   kind u8, length of the body u32, body, check 16
//! trailer offset of the last block u64, "LATSEND", version u8
//! ```
//! Numbers are little-endian. `check` is the beginning of the BLAKE3 hash of offset, kind and body: a
//! block that is damaged, or in another place, is found before it is used. Kinds:
//!
//! | kind | body | |
//! |---|---|---|
//! | `s` | `Store` | a store begins |
//! | `h` | `Base` | first entries of the store were removed: the state that they made |
//! | `p` | `Piece` | the next bytes of that state |
//! | `b` | `Branch` | a branch of the store begins |
//! | `e` | `Entries` | the next entries of the branch |
//! | `k` | 32 bytes | the node's secret key; once at most, before all stores |
//! | `m` | `SignedManifest` | the end |
//!
//! `proto/snapshot.proto` has the bodies. The trailer leads to the manifest without a look at the rest.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::{
    limits::{BASE_MANIFEST_BYTES_MAX, ENTRY_BYTES_MAX},
    protocol::snapshot::SnapshotError,
};

/// Bytes at the beginning of a file.
pub const HEAD_BYTES: usize = 8;
/// Bytes before the body of a block.
pub const BLOCK_HEAD_BYTES: usize = 5;
/// Bytes after the body of a block.
pub const CHECK_BYTES: usize = 16;
/// Bytes at the end of a file.
pub const TRAILER_BYTES: usize = 16;
/// Bytes of a body: an entry of any size, and more of the usual size. A block with a longer one is
/// damaged, unless it is of kind `h`: those have a limit of their own.
pub const BODY_BYTES_MAX: usize = ENTRY_BYTES_MAX + (1 << 20);
/// Bytes of entries after which the next block begins.
pub const ENTRIES_BYTES: usize = 256 << 10;

/// Kind of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A store begins.
    Store,
    /// First entries of the store were removed. The state that they made follows.
    Base,
    /// The next bytes of that state.
    Piece,
    /// A branch begins.
    Branch,
    /// The next entries of a branch.
    Entries,
    /// The node's secret key.
    Key,
    /// The manifest.
    Manifest,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Store,
        Self::Base,
        Self::Piece,
        Self::Branch,
        Self::Entries,
        Self::Key,
        Self::Manifest,
    ];

    fn byte(self) -> u8 {
        match self {
            Self::Store => b's',
            Self::Base => b'h',
            Self::Piece => b'p',
            Self::Branch => b'b',
            Self::Entries => b'e',
            Self::Key => b'k',
            Self::Manifest => b'm',
        }
    }

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == byte)
    }
}

/// The first bytes of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHead {
    kind: Kind,
    /// Bytes that follow: the body and its check.
    pub rest: usize,
}

/// A block that passed its check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its kind.
    pub kind: Kind,
    /// Its body.
    pub body: Bytes,
    /// Where it begins in the file.
    pub offset: u64,
}

impl BlockHead {
    /// Reads the head of the block at `offset`.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn decode(offset: u64, head: [u8; BLOCK_HEAD_BYTES]) -> Result<Self, SnapshotError> {
        let [kind, length @ ..] = head;
        let damaged = |what: &str| SnapshotError::Damaged {
            offset,
            what: what.to_owned(),
        };
        let kind = Kind::of(kind).ok_or_else(|| damaged("no block begins there"))?;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        let length_max = if kind == Kind::Base {
            BASE_MANIFEST_BYTES_MAX + 16
        } else {
            BODY_BYTES_MAX
        };
        if length > length_max {
            return Err(damaged("the block is longer than any"));
        }
        let rest = length.saturating_add(CHECK_BYTES);
        Ok(Self { kind, rest })
    }

    /// Reads the rest of the block at `offset`: `rest` bytes.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn block(self, offset: u64, mut rest: Bytes) -> Result<Block, SnapshotError> {
        let check = rest.split_off(rest.len().saturating_sub(CHECK_BYTES));
        if check != check_of(offset, self.kind, &rest).as_slice() {
            return Err(SnapshotError::Damaged {
                offset,
                what: "its check fails".to_owned(),
            });
        }
        let (kind, body) = (self.kind, rest);
        Ok(Block { kind, body, offset })
    }
}

/// Makes the bytes of a file, in order.
#[derive(Debug)]
pub struct SnapshotWriter {
    // All bytes so far.
    hasher: blake3::Hasher,
    offset: u64,
}

impl SnapshotWriter {
    /// Returns a writer, and the first bytes of the file.
    pub fn begin() -> (Self, Bytes) {
        let head = Bytes::copy_from_slice(&[HEAD.as_slice(), &[VERSION]].concat());
        let mut writer = Self {
            hasher: blake3::Hasher::new(),
            offset: 0,
        };
        writer.add(&head);
        (writer, head)
    }

    /// Returns the bytes of the next block.
    pub fn block(&mut self, kind: Kind, body: &[u8]) -> Bytes {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let rest = body.len().saturating_add(CHECK_BYTES);
        let mut block = BytesMut::with_capacity(rest.saturating_add(BLOCK_HEAD_BYTES));
        block.put_u8(kind.byte());
        block.put_u32_le(length);
        block.put_slice(body);
        block.put_slice(&check_of(self.offset, kind, body));
        self.add(&block);
        block.freeze()
    }

    /// Returns the hash of all bytes so far.
    pub fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    /// Returns the last bytes of the file: the block with this signed manifest, and the trailer.
    pub fn finish(mut self, manifest: &[u8]) -> Bytes {
        let offset = self.offset;
        let mut end = BytesMut::from(self.block(Kind::Manifest, manifest));
        end.put_u64_le(offset);
        end.put_slice(TRAILER);
        end.put_u8(VERSION);
        end.freeze()
    }

    fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.offset = self.offset.saturating_add(bytes.len() as u64);
    }
}

/// Checks the first bytes of a file.
///
/// # Errors
/// `NotASnapshot`, `Version`.
pub fn check_head(head: [u8; HEAD_BYTES]) -> Result<(), SnapshotError> {
    let [magic @ .., version] = head;
    if magic != *HEAD {
        return Err(SnapshotError::NotASnapshot);
    }
    if version != VERSION {
        return Err(SnapshotError::Version {
            version,
            expected: VERSION,
        });
    }
    Ok(())
}

/// Returns the offset of the last block, which the last bytes of a file name; `None` if they are no
/// trailer.
pub fn last_block(trailer: [u8; TRAILER_BYTES]) -> Option<u64> {
    let (offset, end) = trailer.split_first_chunk::<8>()?;
    let end = end.strip_prefix(TRAILER)?;
    (end == [VERSION]).then(|| u64::from_le_bytes(*offset))
}

fn check_of(offset: u64, kind: Kind, body: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&offset.to_le_bytes()).update(&[kind.byte()]);
    hasher.update(body);
    let mut check = [0; CHECK_BYTES];
    hasher.finalize_xof().fill(&mut check);
    check
}

const HEAD: &[u8; 7] = b"LATSNAP";
const TRAILER: &[u8; 7] = b"LATSEND";
const VERSION: u8 = 2;
