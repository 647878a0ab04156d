//! The log of a hook, `hooks/NAME.log`: one JSON line for each run, for people who look for a
//! failure. The log is bounded by two files, and nothing depends on it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::fs::OFlags;

use crate::{
    hooks::record::RunRecord,
    limits::HOOK_LOG_BYTES_MAX,
    permissions::{self, Trust},
};

/// A place in a hook's log, directly after a run. The place stays valid when the file becomes the
/// older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogPlace {
    // Hash of the first line of the file. The line holds a time and a run id, so no two files have
    // the same first line.
    file: [u8; 8],
    // Bytes of the file up to this place.
    end: u64,
}

impl LogPlace {
    /// Returns the place as bytes, for a later [`LogPlace::from_bytes`].
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.file);
        bytes[8..].copy_from_slice(&self.end.to_be_bytes());
        bytes
    }

    /// Reads a place from the bytes of `to_bytes`. `None`: the length is not 16 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (file, end) = bytes.split_first_chunk()?;
        Some(Self {
            file: *file,
            end: u64::from_be_bytes(end.try_into().ok()?),
        })
    }
}

/// The log of one hook.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    path: PathBuf,
    // Held while a line is appended and the files are rotated: two runs may end at the same time.
    // Only blocking threads take it, and no other lock is taken under it.
    adding: Arc<Mutex<()>>,
}

impl Journal {
    pub(super) fn of(data_dir: &Path, hook: &str) -> Self {
        Self {
            path: data_dir.join(DIR).join(format!("{hook}.log")),
            adding: Arc::default(),
        }
    }

    /// Appends the line of a run. A line that cannot be written is lost with a warning, and the run
    /// still counts.
    pub(super) async fn add(&self, record: RunRecord) {
        let journal = self.clone();
        let writing = tokio::task::spawn_blocking(move || journal.append(&record));
        if let Ok(Err(error)) = writing.await {
            tracing::warn!(path = %self.path.display(), %error, "cannot log a run of a hook");
        }
    }

    /// Returns runs, the oldest first, and the place after the last of them.
    ///
    /// Without `after`, returns the last `count` runs; with it, the first `count` runs after that
    /// place. If the log no longer has the place, it counts as the beginning of the log.
    pub(super) fn runs(
        &self,
        after: Option<LogPlace>,
        count: usize,
    ) -> io::Result<(Vec<RunRecord>, LogPlace)> {
        // Reads the newer file first: if it is rotated between the two reads, its lines are found
        // twice and no line is missed.
        let newer = read_or_empty(&self.path)?;
        let older = read_or_empty(&self.older())?;
        let twice = older == newer;
        let files = [older.as_slice(), if twice { &[] } else { &newer }];
        let lines: Vec<_> = files.into_iter().flat_map(lines).collect();
        let from = after.and_then(|after| lines.iter().position(|(place, _)| *place == after));
        let lines = lines.get(from.map_or(0, |at| at + 1)..).unwrap_or_default();
        let end = lines.last().map(|(place, _)| *place).or(after);
        // A line that a crash cut short is skipped.
        let run = |(place, line): &(LogPlace, &[u8])| {
            let record = serde_json::from_slice(line).ok()?;
            Some((record, *place))
        };
        let mut found: Vec<(RunRecord, LogPlace)> = match after {
            Some(_) => lines.iter().filter_map(run).take(count).collect(),
            None => lines.iter().rev().filter_map(run).take(count).collect(),
        };
        let mut end = end.unwrap_or_default();
        match after {
            Some(_) if found.len() == count => {
                end = found.last().map_or(end, |(_, place)| *place);
            }
            Some(_) => {}
            None => found.reverse(),
        }
        Ok((found.into_iter().map(|(record, _)| record).collect(), end))
    }

    /// Removes both files of the log.
    pub(super) fn remove(&self) {
        for path in [self.older(), self.path.clone()] {
            // The hook may never have run.
            fs::remove_file(path).unwrap_or_default();
        }
    }

    fn append(&self, record: &RunRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let _one = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        let length = fs::metadata(&self.path).map_or(0, |found| found.len());
        if length >= HOOK_LOG_BYTES_MAX {
            fs::rename(&self.path, self.older())?;
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(no_wait())
            .open(&self.path)?;
        file.write_all(&line)
    }

    fn older(&self) -> PathBuf {
        self.path.with_extension("log.1")
    }
}

/// Returns the complete lines of a file, each with the place after it.
fn lines(file: &[u8]) -> impl Iterator<Item = (LogPlace, &[u8])> {
    let mut lines = file.split_inclusive(|byte| *byte == b'\n');
    let first = lines.clone().next().unwrap_or_default();
    let hash = blake3::hash(first);
    let mut place = LogPlace::default();
    place.file.copy_from_slice(&hash.as_bytes()[..8]);
    std::iter::from_fn(move || {
        let line = lines.next().filter(|line| line.ends_with(b"\n"))?;
        place.end += line.len() as u64;
        Some((place, line))
    })
}

// Returns the whole file, which has at most `HOOK_LOG_BYTES_MAX` bytes and one line. A missing file
// is empty.
fn read_or_empty(path: &Path) -> io::Result<Vec<u8>> {
    match permissions::open(path, Trust::Obeyed) {
        Err(error) if error.is_missing() => Ok(Vec::new()),
        opened => {
            let mut bytes = Vec::new();
            opened.map_err(io::Error::other)?.read_to_end(&mut bytes)?;
            Ok(bytes)
        }
    }
}

// Returns the open flag by which a pipe without a reader is an error.
fn no_wait() -> i32 {
    i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag of open(2) is an int")
}

const DIR: &str = "hooks";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn log_is_bounded_and_keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of(dir.path(), "a.b");
        let last = |count| journal.runs(None, count).unwrap().0;
        assert_eq!(last(5), []);
        for attempt in 1..=300 {
            let record = RunRecord {
                attempt,
                stdout: "x".repeat(10 << 10),
                ..RunRecord::default()
            };
            journal.add(record).await;
        }
        let newest: Vec<u32> = last(3).iter().map(|run| run.attempt).collect();
        assert_eq!(newest, [298, 299, 300]);
        let all = last(1000);
        assert!(all.len() < 300 && all.len() > 100, "{}", all.len());
        let bytes: u64 = fs::read_dir(dir.path().join(DIR))
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes < 2 * HOOK_LOG_BYTES_MAX + (32 << 10), "{bytes}");
        journal.remove();
        assert_eq!(last(5), []);
    }

    #[test]
    fn follower_sees_each_run_once_across_rotations() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of(dir.path(), "h");
        let (first, mut place) = journal.runs(None, 5).unwrap();
        assert_eq!((first, place), (vec![], LogPlace::default()));
        let (mut seen, mut attempt) = (Vec::new(), 0);
        for round in 0..300 {
            for _ in 0..round % 4 {
                attempt += 1;
                let record = RunRecord {
                    attempt,
                    stdout: "x".repeat(10 << 10),
                    ..RunRecord::default()
                };
                journal.append(&record).unwrap();
            }
            // Half a line, whose writer has not finished.
            let half = round == 100;
            let whole = fs::read(&journal.path).unwrap_or_default();
            if half {
                fs::write(&journal.path, [&whole[..], b"{\"attempt\":7"].concat()).unwrap();
            }
            loop {
                let (runs, next) = journal.runs(Some(place), 2).unwrap();
                place = LogPlace::from_bytes(&next.to_bytes()).unwrap();
                if runs.is_empty() {
                    break;
                }
                seen.extend(runs.iter().map(|run| run.attempt));
            }
            if half {
                fs::write(&journal.path, whole).unwrap();
            }
        }
        assert!(journal.older().exists(), "the file was rotated");
        assert_eq!(seen, (1..=attempt).collect::<Vec<_>>());
        // A place that the log no longer has counts as the beginning of the log.
        let gone = LogPlace { end: 1, ..place };
        let (runs, _) = journal.runs(Some(gone), 1000).unwrap();
        let (all, _) = journal.runs(None, 1000).unwrap();
        assert_eq!(runs, all);
    }
}
