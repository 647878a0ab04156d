//! The beginnings of logs. A log need not have its first entries any more: files with entries that are
//! in the state can be removed.
//!
//! A file named `begins` in the log directory has a row for each author whose log no longer begins with
//! its first entry, and names the branch that does not: every other branch left that one later. It is
//! made as `begins.new`, synced, read back and renamed: once the new name is durable
//! the rows hold, and files below them can be removed. So a file that is missing below such a row was
//! removed, and one that is missing anywhere else is damage.
//!
//! ```text
//! magic "LBEG" 4, version 1, count of rows u32; rows by author; BLAKE3 of all before, 32
//! row: author 32, number u32, first u64, has left another branch 0 or 1, forked_from 32,
//!      anchor: seq u64, id 32, wall_ms u64, counter u32; arrived_ms u64, offset u64
//! ```
//! Numbers are little-endian. A file of another version, or one that fails its check, is an error: what
//! was removed cannot be known any more. A directory without the file has whole logs.
//!
//! Before a base of a peer is installed, the new rows are written to a file of their own, named `begins-`
//! and the hash of the base. It is renamed to `begins` once that base is the newest one.

use std::{collections::BTreeMap, fmt, io, path::Path};

use data_encoding::HEXLOWER;

use crate::{
    disk::{Disk, Open},
    id::{Author, EntryId, Seq},
    log::{
        LogError,
        error::file_error,
        files::remove_if_there,
        void::{self, Voids},
    },
    protocol::{anchor::Anchor, frontier::Frontier, hlc::Hlc},
};

/// The beginning of a branch of which the first records were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// The entry before the first record.
    pub anchor: Anchor,
    /// When that entry arrived here, ms since 1970: later than all entries before it.
    pub arrived_ms: u64,
    /// Offset in the log where the first record begins.
    pub offset: u64,
}

/// Entries that were removed, and that a reader asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// An author of such entries; of several, the first.
    pub author: Author,
    /// Seq of the author's last entry that was removed, inclusive.
    pub through: Seq,
    /// Number of authors of such entries.
    pub authors: usize,
    /// The greatest stamp of an entry that was removed, ms since 1970: the logs have all entries
    /// stamped later.
    pub reach_ms: u64,
    /// True if only the state lacks them, because acts took what was deleted from it: the logs may have them.
    pub only_state: bool,
}

impl Pruned {
    /// Joins the beginnings of several logs; `None` when there are none, so all logs are whole.
    pub(crate) fn of(begins: impl IntoIterator<Item = (Author, Begin)>) -> Option<Self> {
        let begins = begins.into_iter().map(|(author, begin)| Self {
            author,
            through: begin.anchor.seq,
            authors: 1,
            reach_ms: begin.anchor.hlc.wall_ms,
            only_state: false,
        });
        begins.reduce(|pruned, other| Self {
            authors: pruned.authors + 1,
            reach_ms: pruned.reach_ms.max(other.reach_ms),
            ..pruned
        })
    }
}

impl fmt::Display for Pruned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (author, through) = (self.author.short(), self.through);
        match self.only_state {
            false => write!(
                f,
                "the log of {author} begins after entry {through}: earlier entries were removed"
            )?,
            true => write!(
                f,
                "deletes through entry {through} of {author} are known no more, so neither is the time before"
            )?,
        }
        match self.authors {
            0 | 1 => Ok(()),
            authors => write!(f, ", and so were those of {} more", authors - 1),
        }
    }
}

/// A row of the file: a branch, and its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BeginRow {
    /// Place of the branch's first entry, which may be gone.
    pub(super) first: Seq,
    /// The entry before that one, on another branch; `None` when `first` is 1.
    pub(super) forked_from: Option<EntryId>,
    pub(super) begin: Begin,
}

/// The beginnings of a store's logs, by author and number of the branch: one branch of an author at
/// most, and none for a whole log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Begins(pub(super) BTreeMap<(Author, u32), BeginRow>);

impl Begins {
    /// Reads the file in `dir`, the directory of the logs; empty when there is none.
    ///
    /// # Errors
    /// `Begins` when it is damaged or of another version, `Io`, `NoDescriptor`.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Self, LogError> {
        Self::read_from(disk, dir, NAME)
    }

    fn read_from(disk: &dyn Disk, dir: &Path, name: &str) -> Result<Self, LogError> {
        let bytes = match read_file(disk, &dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let what = error.to_string();
                return Err(LogError::Begins { what });
            }
            read => read.map_err(|source| file_error(name, source))?,
        };
        Self::decode(&bytes).map_err(|what| LogError::Begins { what })
    }

    /// Returns whether all logs are whole.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the entries that were removed; `None` when all logs are whole.
    pub fn pruned(&self) -> Option<Pruned> {
        let rows = self.0.iter();
        Pruned::of(rows.map(|((author, _number), row)| (*author, row.begin)))
    }

    /// Returns the anchors at which logs begin: whoever has delivered less than these must get the
    /// state.
    pub fn anchors(&self) -> Frontier {
        let rows = self.0.iter();
        rows.map(|((author, _), row)| (*author, row.begin.anchor.tip()))
            .collect()
    }

    /// Returns where a branch begins; `None` for a whole branch.
    pub fn of(&self, author: &Author, number: u32) -> Option<Begin> {
        Some(self.0.get(&(*author, number))?.begin)
    }

    /// Writes the rows in place of those that were there. Durable on return.
    ///
    /// # Errors
    /// `Io`, `Full`, `NoDescriptor`: the old rows hold, or the new ones.
    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        self.try_write(disk, dir, NAME)
            .map_err(|source| file_error(NAME, source))
    }

    /// Writes the rows to a file of their own, named after `base`: they hold once that base is the newest
    /// one, see [`adopt`](Self::adopt). Durable on return.
    ///
    /// # Errors
    /// `Io`, `Full`, `NoDescriptor`.
    pub(super) fn prepare(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        base: &[u8; 32],
    ) -> Result<(), LogError> {
        let name = prepared_name(base);
        self.try_write(disk, dir, &name)
            .map_err(|source| file_error(&name, source))
    }

    /// Puts the rows that were prepared for `base` in place. Durable on return.
    ///
    /// # Errors
    /// `Io`, `Full`, `NoDescriptor`.
    pub(super) fn put_prepared(
        disk: &dyn Disk,
        dir: &Path,
        base: &[u8; 32],
    ) -> Result<(), LogError> {
        let name = prepared_name(base);
        let renamed = disk.rename(&dir.join(&name), &dir.join(NAME));
        let synced = renamed.and_then(|()| disk.sync_dir(dir));
        synced.map_err(|source| file_error(&name, source))
    }

    /// Removes rows that were prepared.
    ///
    /// # Errors
    /// `Io`, `NoDescriptor`.
    pub(super) fn remove_prepared(
        disk: &dyn Disk,
        dir: &Path,
        base: &[u8; 32],
    ) -> Result<(), LogError> {
        let name = prepared_name(base);
        let removed = remove_if_there(disk, &dir.join(&name));
        let synced = removed.and_then(|()| disk.sync_dir(dir));
        synced.map_err(|source| file_error(&name, source))
    }

    /// Ends installations of bases that were interrupted: rows that were prepared for `newest`, the newest
    /// base, are put in place, others are removed. `discard` is called before that if the state file may be
    /// that of before. Returns whether it was. Called before the logs are opened.
    ///
    /// # Errors
    /// `Begins` when the rows are damaged; `Io`, `NoDescriptor`; those of `discard`.
    pub fn adopt<E: From<LogError>>(
        disk: &dyn Disk,
        dir: &Path,
        newest: Option<&[u8; 32]>,
        discard: impl FnOnce() -> Result<(), E>,
    ) -> Result<bool, E> {
        let failed = |source| file_error(NAME, source);
        let names = match disk.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            names => names.map_err(failed)?,
        };
        let names: Vec<_> = names.iter().filter_map(|name| name.to_str()).collect();
        let prepared = newest.map(prepared_name);
        let prepared = prepared.filter(|name| names.contains(&name.as_str()));
        // Without prepared rows these are in place, and the state file may be that of before.
        let has_list = newest.is_some_and(|base| names.contains(&void::name(base).as_str()));
        let is_left = prepared.is_some() || has_list;
        if is_left {
            if let Some(base) = newest {
                Voids::set_prepared_aside(disk, dir, base)?;
            }
            discard()?;
        }
        if let Some(name) = prepared {
            disk.rename(&dir.join(name), &dir.join(NAME))
                .map_err(failed)?;
        }
        let is_old = |name: &&&str| name.starts_with(PREPARED) || void::is_list(name);
        let old: Vec<_> = names.iter().filter(is_old).collect();
        for name in &old {
            remove_if_there(disk, &dir.join(name)).map_err(failed)?;
        }
        if !old.is_empty() {
            disk.sync_dir(dir).map_err(failed)?;
        }
        Ok(is_left)
    }

    fn try_write(&self, disk: &dyn Disk, dir: &Path, name: &str) -> io::Result<()> {
        let unfinished = dir.join(NEW_NAME);
        remove_if_there(disk, &unfinished)?;
        let bytes = self.encode();
        let file = disk.open(&unfinished, Open::New)?;
        file.write_at(&bytes, 0)?;
        file.sync_data()?;
        drop(file);
        if read_file(disk, &unfinished)? != bytes {
            return Err(io::Error::other(
                "begins.new does not read as it was written",
            ));
        }
        disk.rename(&unfinished, &dir.join(name))?;
        disk.sync_dir(dir)
    }

    /// Returns the hash of the rows, the last bytes of the file.
    pub(super) fn hash(&self) -> [u8; 32] {
        let bytes = self.encode();
        *bytes.last_chunk().expect("a file ends with its hash")
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        let count = u32::try_from(self.0.len()).expect("a row needs a file of its own");
        bytes.extend(count.to_le_bytes());
        for ((author, number), row) in &self.0 {
            let Begin {
                anchor,
                arrived_ms,
                offset,
            } = row.begin;
            bytes.extend(author.0);
            bytes.extend(number.to_le_bytes());
            bytes.extend(row.first.to_le_bytes());
            bytes.push(u8::from(row.forked_from.is_some()));
            bytes.extend(row.forked_from.map_or([0; 32], |id| id.0));
            bytes.extend(anchor.seq.to_le_bytes());
            bytes.extend(anchor.id.0);
            bytes.extend(anchor.hlc.wall_ms.to_le_bytes());
            bytes.extend(anchor.hlc.counter.to_le_bytes());
            bytes.extend(arrived_ms.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        let hash = blake3::hash(&bytes);
        bytes.extend(hash.as_bytes());
        bytes
    }

    // The error says what is wrong, for people.
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let damaged = || "it is damaged".to_owned();
        let (body, hash) = bytes.split_last_chunk::<32>().ok_or_else(damaged)?;
        let rest = body.strip_prefix(&MAGIC).ok_or_else(damaged)?;
        let (version, mut rest) = rest.split_first().ok_or_else(damaged)?;
        if *version != VERSION {
            return Err(format!(
                "it has format {version}; this version reads format {VERSION}"
            ));
        }
        if blake3::hash(body).as_bytes() != hash {
            return Err(damaged());
        }
        let count = u32::from_le_bytes(take(&mut rest).ok_or_else(damaged)?);
        let mut rows: BTreeMap<(Author, u32), BeginRow> = BTreeMap::new();
        for _row in 0..count {
            let (key, row) = decode_row(&mut rest).ok_or_else(damaged)?;
            let before = rows.last_key_value().map(|((author, _), _)| *author);
            if before.is_some_and(|author| author >= key.0) {
                return Err(damaged());
            }
            rows.insert(key, row);
        }
        if !rest.is_empty() {
            return Err(damaged());
        }
        Ok(Self(rows))
    }
}

fn decode_row(rest: &mut &[u8]) -> Option<((Author, u32), BeginRow)> {
    let author = Author(take(rest)?);
    let number = u32::from_le_bytes(take(rest)?);
    let first = u64::from_le_bytes(take(rest)?);
    let [has_left] = take(rest)?;
    let left = EntryId(take(rest)?);
    let seq = u64::from_le_bytes(take(rest)?);
    let id = EntryId(take(rest)?);
    let hlc = Hlc {
        wall_ms: u64::from_le_bytes(take(rest)?),
        counter: u32::from_le_bytes(take(rest)?),
    };
    let begin = Begin {
        anchor: Anchor { seq, id, hlc },
        arrived_ms: u64::from_le_bytes(take(rest)?),
        offset: u64::from_le_bytes(take(rest)?),
    };
    let forked_from = match has_left {
        0 => None,
        1 => Some(left),
        _other => return None,
    };
    let row = BeginRow {
        first,
        forked_from,
        begin,
    };
    (first > 0 && seq >= first).then_some(((author, number), row))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (field, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*field)
}

fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Existing)?;
    let len = file.len()?;
    if len > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long"));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn prepared_name(base: &[u8; 32]) -> String {
    format!("{PREPARED}{}", HEXLOWER.encode(base))
}

const NAME: &str = "begins";
// Before the hash of a base that is to be the newest one.
const PREPARED: &str = "begins-";
const NEW_NAME: &str = "begins.new";
const MAGIC: [u8; 4] = *b"LBEG";
const VERSION: u8 = 1;
// Rows of more than four hundred thousand branches. A longer file is not read: this version never
// writes one, because a row needs a log file of its own.
const BYTES_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        disk::RealDisk,
        support::mutator::{Corpus, fuzz},
    };

    fn begins() -> Begins {
        let row = |n: u8, forked_from| BeginRow {
            first: 3,
            forked_from,
            begin: Begin {
                anchor: Anchor {
                    seq: 7 + u64::from(n),
                    id: EntryId([n; 32]),
                    hlc: Hlc {
                        wall_ms: 1000,
                        counter: n.into(),
                    },
                },
                arrived_ms: 2000,
                offset: 3000,
            },
        };
        let left = EntryId([9; 32]);
        Begins(BTreeMap::from([
            ((Author([1; 32]), 0), row(1, None)),
            ((Author([2; 32]), 2), row(2, Some(left))),
            ((Author([3; 32]), 0), row(3, None)),
        ]))
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let read = || Begins::read(&RealDisk, dir.path()).unwrap();
        assert_eq!(read(), Begins::default());
        for begins in [begins(), Begins::default(), begins()] {
            begins.write(&RealDisk, dir.path()).unwrap();
            assert_eq!(read(), begins);
        }
        assert_eq!(RealDisk.list(dir.path()).unwrap(), [NAME]);
        assert_eq!(begins().anchors().seq(&Author([2; 32])), 9);
        let begin = begins().of(&Author([2; 32]), 2).unwrap();
        assert_eq!((begin.anchor.seq, begin.offset), (9, 3000));
        assert_eq!(begins().of(&Author([2; 32]), 0), None);
        let file = std::fs::File::create(dir.path().join(NAME)).unwrap();
        file.set_len(BYTES_MAX + 1).unwrap();
        let long = Begins::read(&RealDisk, dir.path());
        assert!(matches!(long, Err(LogError::Begins { .. })), "{long:?}");
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let bytes = begins().encode();
        assert_eq!(bytes.len(), 9 + 3 * 145 + 32);
        assert_eq!(&bytes[..9], b"LBEG\x01\x03\0\0\0");
        let hash = blake3::hash(&bytes).to_hex();
        assert_eq!(&hash[..16], "6e3b2f6ad750810b");
    }

    #[test]
    fn s9_rows_with_a_right_hash() {
        let sealed = |body: &[u8]| [body, blake3::hash(body).as_bytes()].concat();
        let body = |begins: Begins| {
            let mut bytes = begins.encode();
            bytes.truncate(bytes.len() - 32);
            bytes
        };
        let mut twice = body(begins());
        twice.copy_within(9..154, 154);
        let corpus = Corpus::new([body(begins()), body(Begins::default())]).broken([twice]);
        fuzz(&corpus, |input| {
            let bytes = sealed(input);
            let Ok(begins) = Begins::decode(&bytes) else {
                return false;
            };
            assert!(begins.0.len() * 145 <= bytes.len());
            let mut again = begins.encode();
            again.truncate(again.len() - 32);
            assert_eq!(again.len(), input.len());
            assert_eq!(Begins::decode(&sealed(&again)), Ok(begins));
            true
        });
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_an_error() {
        let bytes = begins().encode();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Begins::decode(&bytes).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Begins::decode(&bytes[..len]).is_err(), "cut to {len}");
        }
        let sealed = |mut body: Vec<u8>| {
            let hash = blake3::hash(&body);
            body.extend(hash.as_bytes());
            Begins::decode(&body)
        };
        let body = &bytes[..bytes.len() - 32];
        assert!(sealed(body.to_vec()).is_ok());
        let mut other = body.to_vec();
        other[4] = 2;
        let error = sealed(other).unwrap_err();
        assert_eq!(error, "it has format 2; this version reads format 1");
        // Sound sums over rows that make no sense: more of them, fewer, twice the same, an anchor
        // before the first entry.
        assert!(sealed([body, &body[9..154]].concat()).is_err());
        assert!(sealed(body[..body.len() - 1].to_vec()).is_err());
        let mut twice = body.to_vec();
        twice.copy_within(9..154, 154);
        assert!(sealed(twice).is_err());
        // Two branches of an author, out of order or not.
        for number in [0, 1] {
            let mut both = body.to_vec();
            both.copy_within(9..41, 154);
            both[154 + 32] = number;
            assert!(sealed(both).is_err());
        }
        let mut early = body.to_vec();
        early[9 + 36] = 99;
        assert!(sealed(early).is_err());
    }
}
