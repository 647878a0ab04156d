//! Segments: the files of one log, read and written as if they were one file.
//!
//! ```text
//! {author}.log               bytes 0 to 33,554,432 of the log
//! {author}+33554432.log      from there on; the name has the offset of its first byte
//! {author}.1.log             another branch of the same author, and its next segment
//! {author}.1+33601088.log
//! ```
//! Offsets are those of the log, not of the file, so frames, index points and marks need not know of
//! segments. A segment begins at the end of the log as it was durable then: no record lies in two of
//! them. Bytes of a file that belong to the next segment, such as room that was not used, are never
//! read. So where the log ends, what is torn and what is damaged are found as in one file, and
//! segments that nobody needs are removed from the front. `begin.rs` says which of them are.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    disk::{Disk, DiskFile, Open},
    id::Author,
    log::{LogFiles, files::LazyFile},
};

/// The files of one branch. Offsets are those of the log.
#[derive(Debug)]
pub(super) struct Segments {
    files: LogFiles,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    author: Author,
    number: u32,
    // By their first bytes; never empty. Written by the store's writer only. Held for a clone or an
    // assignment.
    parts: RwLock<Arc<Vec<Segment>>>,
    // True while removed files may come back after a power cut. Set by `set_len`, cleared by
    // `sync_data`.
    has_removed: AtomicBool,
}

#[derive(Debug, Clone)]
struct Segment {
    // Offset of its first byte in the log.
    from: u64,
    file: Arc<LazyFile>,
}

/// A segment that no log has any more.
#[derive(Debug)]
pub(super) struct Dropped {
    pub(super) path: PathBuf,
    pub(super) file: Arc<LazyFile>,
}

/// Takes out of `from`, the offsets at which segments begin, those that lie wholly before `begins_at`.
pub(super) fn take_before(from: &mut BTreeSet<u64>, begins_at: u64) -> BTreeSet<u64> {
    let first = from.range(..=begins_at).next_back().copied();
    let rest = from.split_off(&first.unwrap_or(0));
    std::mem::replace(from, rest)
}

impl Segments {
    /// Opens the segments that begin at the offsets in `from`. Where none has the log's first byte,
    /// which is at `begins_at`, an empty one is made there; its name is durable on return.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(super) fn open(
        files: &LogFiles,
        disk: &Arc<dyn Disk>,
        dir: PathBuf,
        (author, number): (Author, u32),
        (from, begins_at): (&BTreeSet<u64>, u64),
    ) -> io::Result<Self> {
        let open = |from: u64, how| {
            let path = dir.join(name(&author, number, from));
            let file = files.open(disk, &path, how)?;
            Ok::<_, io::Error>(Segment { from, file })
        };
        let mut parts = Vec::new();
        if from.first().is_none_or(|first| *first > begins_at) {
            parts.push(open(begins_at, Open::New)?);
            disk.sync_dir(&dir)?;
        }
        for from in from {
            parts.push(open(*from, Open::Existing)?);
        }
        Ok(Self::of(files, disk, dir, (author, number), parts))
    }

    /// Makes or opens the first file of a log that has no other one.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(super) fn begin(
        files: &LogFiles,
        disk: &Arc<dyn Disk>,
        dir: PathBuf,
        (author, number): (Author, u32),
        how: Open,
    ) -> io::Result<Self> {
        let file = files.open(disk, &dir.join(name(&author, number, 0)), how)?;
        let parts = vec![Segment { from: 0, file }];
        Ok(Self::of(files, disk, dir, (author, number), parts))
    }

    fn of(
        files: &LogFiles,
        disk: &Arc<dyn Disk>,
        dir: PathBuf,
        (author, number): (Author, u32),
        parts: Vec<Segment>,
    ) -> Self {
        Self {
            files: files.clone(),
            disk: Arc::clone(disk),
            dir,
            author,
            number,
            parts: RwLock::new(Arc::new(parts)),
            has_removed: AtomicBool::new(false),
        }
    }

    /// Begins a segment at `end`, where the log's durable records end, if the last one is long
    /// enough. Returns whether it did: its name is durable after the next `sync_dir`, and nothing may
    /// be written to it before that.
    ///
    /// # Errors
    /// Any error of the file system; then nothing has changed that matters.
    pub(super) fn rotate(&self, end: u64) -> io::Result<bool> {
        let parts = self.parts();
        let last = last(&parts);
        if end.saturating_sub(last.from) < self.files.segment_bytes() {
            return Ok(false);
        }
        // Room that it does not need any more.
        if last.file.len()? > end - last.from {
            last.file.set_len(end - last.from)?;
            last.file.sync_data()?;
        }
        let path = self.dir.join(name(&self.author, self.number, end));
        let file = self.files.open(&self.disk, &path, Open::New)?;
        let mut more = parts.to_vec();
        more.push(Segment { from: end, file });
        self.set_parts(more);
        Ok(true)
    }

    /// Returns the bytes from `begins_at` on that files before the last one lack, as offset and number.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(super) fn gaps(&self, begins_at: u64) -> io::Result<Vec<(u64, u64)>> {
        let parts = self.parts();
        let mut gaps = Vec::new();
        for (part, next) in parts.iter().zip(parts.iter().skip(1)) {
            let end = (part.from + part.file.len()?).max(begins_at);
            if end < next.from {
                gaps.push((end, next.from - end));
            }
        }
        Ok(gaps)
    }

    /// Returns the segments that a log has which begins at `begins_at`, and those before them, lowest
    /// first. The last segment stays, whatever it has: its name says how long the log was.
    pub(super) fn split_at(&self, begins_at: u64) -> (Self, Vec<Dropped>) {
        let mut parts = self.parts().to_vec();
        let mut from = parts.iter().map(|part| part.from).collect();
        let before = take_before(&mut from, begins_at).len();
        let dropped = parts.drain(..before);
        let dropped = dropped.map(|part| Dropped {
            path: self.dir.join(name(&self.author, self.number, part.from)),
            file: part.file,
        });
        let dropped = dropped.collect();
        let key = (self.author, self.number);
        let rest = Self::of(&self.files, &self.disk, self.dir.clone(), key, parts);
        let has_removed = self.has_removed.load(Ordering::Acquire);
        rest.has_removed.store(has_removed, Ordering::Release);
        (rest, dropped)
    }

    /// Keeps all files open until they are dropped: their names go.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(super) fn keep_open(&self) -> io::Result<()> {
        let parts = self.parts();
        parts.iter().try_for_each(|part| part.file.keep_open())
    }

    fn parts(&self) -> Arc<Vec<Segment>> {
        Arc::clone(&self.parts.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_parts(&self, parts: Vec<Segment>) {
        *self.parts.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(parts);
    }
}

fn last(parts: &[Segment]) -> &Segment {
    parts.last().expect("a log has a segment")
}

// Bytes before the first segment were removed.
fn check_begins(parts: &[Segment], offset: u64) -> io::Result<()> {
    if parts.first().is_some_and(|first| offset < first.from) {
        let what = "the log begins behind this offset";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(())
}

// Cuts `bytes` bytes from `offset` on at the segments: the index of each, the offset in its file, the
// number of bytes, and whether another segment follows.
fn pieces(
    parts: &[Segment],
    offset: u64,
    bytes: usize,
) -> impl Iterator<Item = (usize, u64, usize, bool)> {
    let mut at = offset;
    let end = offset.saturating_add(bytes as u64);
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let index = parts
            .partition_point(|part| part.from <= at)
            .checked_sub(1)?;
        let next = parts.get(index + 1).map(|next| next.from);
        let until = next.map_or(end, |next| next.min(end));
        let piece = usize::try_from(until - at).ok()?;
        let within = at - parts.get(index)?.from;
        at = until;
        Some((index, within, piece, next.is_some()))
    })
}

impl DiskFile for Segments {
    fn len(&self) -> io::Result<u64> {
        let parts = self.parts();
        let last = last(&parts);
        Ok(last.from + last.file.len()?)
    }

    // Bytes that the file of a segment lacks before the next one are read as zeros: they are lost.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let parts = self.parts();
        check_begins(&parts, offset)?;
        let mut rest = buf;
        let bytes = rest.len();
        for (index, within, piece, is_followed) in pieces(&parts, offset, bytes) {
            let (now, behind) = rest.split_at_mut(piece);
            let file = &parts[index].file;
            match file.read_at(now, within) {
                Err(error) if is_followed && error.kind() == io::ErrorKind::UnexpectedEof => {
                    let here = file.len()?.saturating_sub(within).min(now.len() as u64);
                    let here = usize::try_from(here).unwrap_or(0);
                    if here > 0 {
                        file.read_at(&mut now[..here], within)?;
                    }
                    now[here..].fill(0);
                }
                read => read?,
            }
            rest = behind;
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let parts = self.parts();
        check_begins(&parts, offset)?;
        let mut rest = bytes;
        for (index, within, piece, _) in pieces(&parts, offset, bytes.len()) {
            let (now, behind) = rest.split_at(piece);
            parts[index].file.write_at(now, within)?;
            rest = behind;
        }
        Ok(())
    }

    // Removes segments that begin at `len` or behind it.
    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut parts = self.parts().to_vec();
        while let [.., before, last] = parts.as_slice()
            && last.from >= len
            && before.from < last.from
        {
            // From the end: what a crash leaves is a log that was cut less.
            let path = self.dir.join(name(&self.author, self.number, last.from));
            self.has_removed.store(true, Ordering::Release);
            self.disk.remove(&path)?;
            parts.pop();
            self.set_parts(parts.clone());
        }
        let last = last(&parts);
        last.file.set_len(len - last.from.min(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let parts = self.parts();
        let (last, before) = parts.split_last().expect("a log has a segment");
        for part in before.iter().filter(|part| part.file.is_unsynced()) {
            part.file.sync_data()?;
        }
        last.file.sync_data()?;
        if self.has_removed.load(Ordering::Acquire) {
            self.disk.sync_dir(&self.dir)?;
            self.has_removed.store(false, Ordering::Release);
        }
        Ok(())
    }

    fn write_back(&self, offset: u64, bytes: u64) {
        let parts = self.parts();
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        for (index, within, piece, _) in pieces(&parts, offset, bytes) {
            parts[index].file.write_back(within, piece as u64);
        }
    }
}

/// One segment, used without the others. Offsets are those of the log, and not before the segment.
#[derive(Debug)]
pub(super) struct Alone {
    from: u64,
    file: Arc<dyn DiskFile>,
}

impl Alone {
    pub(super) fn new(from: u64, file: Arc<dyn DiskFile>) -> Self {
        Self { from, file }
    }

    fn within(&self, offset: u64) -> io::Result<u64> {
        let before = || io::Error::from(io::ErrorKind::InvalidInput);
        offset.checked_sub(self.from).ok_or_else(before)
    }
}

impl DiskFile for Alone {
    fn len(&self) -> io::Result<u64> {
        Ok(self.from + self.file.len()?)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buf, self.within(offset)?)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, self.within(offset)?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(self.within(len)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Renames the files of the log of which `first` is the first one, so that they are no log any more.
/// Returns the new name of `first`. Durable on return.
///
/// # Errors
/// Any error of the file system.
pub(crate) fn set_aside(disk: &dyn Disk, dir: &Path, first: &str) -> io::Result<String> {
    let names = disk.list(dir)?;
    let aside = (1..)
        .map(|number: u32| format!("{first}.aside-{number}"))
        .find(|aside| !names.iter().any(|taken| taken == aside.as_str()))
        .unwrap_or_default();
    let branch = |name: &str| parse_name(name).map(|(author, number, _from)| (author, number));
    let mut later: Vec<_> = names
        .iter()
        .filter_map(|name| name.to_str())
        .filter(|name| *name != first && branch(name) == branch(first))
        .filter_map(|name| Some((parse_name(name)?.2, name)))
        .collect();
    later.sort_unstable();
    // From the end: what a crash leaves is a log that was cut.
    for (from, name) in later.into_iter().rev() {
        disk.rename(&dir.join(name), &dir.join(format!("{aside}+{from}")))?;
    }
    // The first file of a log that begins later is gone.
    if names.iter().any(|name| name == first) {
        disk.rename(&dir.join(first), &dir.join(&aside))?;
    }
    disk.sync_dir(dir)?;
    Ok(aside)
}

/// Returns the name of the file of a log whose first byte is at offset `from`.
pub(super) fn name(author: &Author, number: u32, from: u64) -> String {
    let branch = match number {
        0 => author.to_string(),
        _fork => format!("{author}.{number}"),
    };
    match from {
        0 => format!("{branch}.log"),
        _later => format!("{branch}+{from}.log"),
    }
}

/// Reads a name that `name` makes; `None` for any other.
pub(super) fn parse_name(text: &str) -> Option<(Author, u32, u64)> {
    let stem = text.strip_suffix(".log")?;
    let (branch, from) = match stem.split_once('+') {
        Some((branch, from)) => (branch, from.parse().ok()?),
        None => (stem, 0),
    };
    let (author, number) = match branch.split_once('.') {
        Some((author, number)) => (author, number.parse().ok()?),
        None => (branch, 0),
    };
    let author = author.parse().ok()?;
    (name(&author, number, from) == text).then_some((author, number, from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    const AUTHOR: Author = Author([7; 32]);

    fn open(dir: &Path, bytes: u64, from: &[u64]) -> Segments {
        open_from(dir, bytes, from, 0)
    }

    fn open_from(dir: &Path, bytes: u64, from: &[u64], begins_at: u64) -> Segments {
        let files = LogFiles::default().with_segments_of(bytes);
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let from = &from.iter().copied().collect();
        let key = (AUTHOR, 1);
        Segments::open(&files, &disk, dir.to_owned(), key, (from, begins_at)).unwrap()
    }

    fn all(file: &Segments) -> Vec<u8> {
        let mut bytes = vec![9; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn froms(dir: &Path) -> Vec<u64> {
        let names = std::fs::read_dir(dir).unwrap();
        let names = names.map(|name| name.unwrap().file_name().into_string().unwrap());
        let mut from: Vec<_> = names.map(|name| parse_name(&name).unwrap().2).collect();
        from.sort_unstable();
        from
    }

    #[test]
    fn names_are_read_back_and_no_other_is() {
        for (number, from) in [(0, 0), (0, 33_554_432), (7, 0), (7, u64::MAX)] {
            let name = name(&AUTHOR, number, from);
            assert_eq!(parse_name(&name), Some((AUTHOR, number, from)), "{name}");
        }
        for other in [
            format!("{AUTHOR}+0.log"),
            format!("{AUTHOR}+07.log"),
            format!("{AUTHOR}.0.log"),
            format!("{AUTHOR}+1.2.log"),
            format!("{AUTHOR}.log.aside-1"),
            format!("{AUTHOR}+-1.log"),
            "+1.log".to_owned(),
            String::new(),
        ] {
            assert_eq!(parse_name(&other), None, "{other}");
        }
    }

    #[test]
    fn segments_are_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(dir.path(), 100, &[]);
        let mut expected = Vec::new();
        for (number, bytes) in [60_usize, 70, 10, 150, 1, 99, 100].into_iter().enumerate() {
            let end = expected.len() as u64;
            file.rotate(end).unwrap();
            let piece = vec![u8::try_from(number).unwrap() + 1; bytes];
            // Room for more, as the writer makes it.
            file.write_at(&[&piece[..], &[0; 30]].concat(), end)
                .unwrap();
            expected.extend(piece);
            file.sync_data().unwrap();
            file.set_len(expected.len() as u64 + 30).unwrap();
        }
        file.set_len(expected.len() as u64).unwrap();
        assert_eq!(froms(dir.path()), [0, 130, 290, 390]);
        assert_eq!(all(&file), expected);
        let again = open(dir.path(), 100, &froms(dir.path()));
        assert_eq!(all(&again), expected);
        for from in [0, 100, 129, 130, 289, 290] {
            for bytes in [0, 1, 2, 100, 200] {
                let mut read = vec![9; bytes];
                let at = usize::try_from(from).unwrap();
                again.read_at(&mut read, from).unwrap();
                assert_eq!(read, expected[at..at + bytes]);
            }
        }
        let beyond = again.read_at(&mut [0; 2], expected.len() as u64 - 1);
        assert_eq!(beyond.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        // Across a border.
        again.write_at(&[77; 40], 110).unwrap();
        expected[110..150].fill(77);
        assert_eq!(all(&again), expected);
        for len in [291, 290, 200, 130, 5, 0] {
            again.set_len(len).unwrap();
            again.sync_data().unwrap();
            expected.truncate(usize::try_from(len).unwrap());
            assert_eq!(all(&again), expected);
            assert!(froms(dir.path()).iter().all(|from| *from < len.max(1)));
        }
    }

    #[test]
    fn all_files_of_a_log_are_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let other = name(&AUTHOR, 2, 0);
        for file in [
            name(&AUTHOR, 1, 0),
            name(&AUTHOR, 1, 900),
            name(&AUTHOR, 1, 1000),
            other.clone(),
        ] {
            std::fs::write(dir.path().join(file), "x").unwrap();
        }
        let first = name(&AUTHOR, 1, 0);
        let aside = set_aside(&RealDisk, dir.path(), &first).unwrap();
        assert_eq!(aside, format!("{first}.aside-1"));
        let names = || -> Vec<String> {
            let names = RealDisk.list(dir.path()).unwrap().into_iter();
            names.map(|name| name.into_string().unwrap()).collect()
        };
        let logs: Vec<_> = names()
            .into_iter()
            .filter(|it| parse_name(it).is_some())
            .collect();
        assert_eq!(logs, [other]);
        for kept in [
            aside.clone(),
            format!("{aside}+900"),
            format!("{aside}+1000"),
        ] {
            assert!(names().contains(&kept), "{kept}");
        }
        // A second time nothing of the first is lost.
        std::fs::write(dir.path().join(&first), "y").unwrap();
        let again = set_aside(&RealDisk, dir.path(), &first).unwrap();
        assert_eq!(again, format!("{first}.aside-2"));
        assert_eq!(names().len(), 5);
    }

    #[test]
    fn bytes_that_a_segment_lacks_are_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(dir.path(), 100, &[]);
        file.write_at(&[1; 200], 0).unwrap();
        assert!(file.rotate(200).unwrap());
        file.write_at(&[2; 50], 200).unwrap();
        file.sync_data().unwrap();
        let path = |from| dir.path().join(name(&AUTHOR, 1, from));
        let first = std::fs::File::options().write(true).open(path(0)).unwrap();
        first.set_len(150).unwrap();
        let expected = [&[1; 150][..], &[0; 50], &[2; 50]].concat();
        assert_eq!(all(&open(dir.path(), 100, &[0, 200])), expected);
        // They can be written again.
        let file = open(dir.path(), 100, &[0, 200]);
        file.write_at(&[1; 60], 145).unwrap();
        assert_eq!(all(&file)[140..205], [1; 65]);
        // The first file is gone.
        std::fs::remove_file(path(0)).unwrap();
        let file = open(dir.path(), 100, &[200]);
        let expected = [&[0; 200][..], &[1; 5], &[2; 45]].concat();
        assert_eq!(all(&file), expected);
        assert_eq!(froms(dir.path()), [0, 200]);
    }
}
