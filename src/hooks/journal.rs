//! `hooks/NAME.log`: what the runs of a hook did, one JSON line each, for people who look for what
//! went wrong. Bounded; nothing depends on it.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::limits::HOOK_LOG_BYTES_MAX;

/// A run, as its line in the log has it. New fields may come, none changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRecord {
    /// When it began, ms since 1970.
    pub at_ms: u64,
    /// Its id, the same for all attempts.
    pub run: String,
    /// 1 the first time.
    pub attempt: u32,
    /// Changes of the run: 1, but for batches.
    pub changes: usize,
    /// Of the first change: `put`, `delete`, `expire`, `retract`.
    pub kind: String,
    /// The key of the first change, where it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The same, where it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The entry of the first change.
    pub entry: String,
    /// How it went: `done`, `failed`, `dead` (failed, and it was the last attempt); in a rehearsal
    /// `would_run`.
    pub outcome: String,
    /// What happened, in words; empty when there is nothing to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub what: String,
    /// How long it took.
    pub took_ms: u64,
    /// Failed: how long the next attempt waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
    /// The beginning of its stdout.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stdout: String,
    /// Bytes of stdout in all.
    pub stdout_bytes: u64,
    /// The beginning of its stderr.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// Bytes of stderr in all.
    pub stderr_bytes: u64,
    /// The entry that holds what it wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrote: Option<String>,
    /// Puts and deletes in that entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<usize>,
}

/// The log of one hook.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    path: PathBuf,
    // Held while a line is added: two runs may end at once.
    adding: Arc<Mutex<()>>,
}

impl Journal {
    pub(super) fn of(data_dir: &Path, hook: &str) -> Self {
        Self {
            path: data_dir.join(DIR).join(format!("{hook}.log")),
            adding: Arc::default(),
        }
    }

    /// Adds a line. What cannot be written is lost: the run counts all the same.
    pub(super) async fn add(&self, record: RunRecord) {
        let journal = self.clone();
        let writing = tokio::task::spawn_blocking(move || journal.append(&record));
        if let Ok(Err(error)) = writing.await {
            tracing::warn!(path = %self.path.display(), %error, "a run is not in its hook's log");
        }
    }

    /// Returns the last `count` runs, the oldest first.
    pub(super) fn last(&self, count: usize) -> io::Result<Vec<RunRecord>> {
        let mut lines = VecDeque::new();
        for path in [self.older(), self.path.clone()] {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for line in BufReader::new(file).split(b'\n') {
                lines.push_back(line?);
                // Few of many are wanted; of each file one may be cut.
                if lines.len() > count.saturating_add(2) {
                    lines.pop_front();
                }
            }
        }
        // A line that was cut by a crash is no run.
        let runs = lines.iter().rev();
        let runs = runs.filter_map(|line| serde_json::from_slice(line).ok());
        let mut records: Vec<_> = runs.take(count).collect();
        records.reverse();
        Ok(records)
    }

    /// Removes it.
    pub(super) fn remove(&self) {
        for path in [self.older(), self.path.clone()] {
            // It may never have run.
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
            .open(&self.path)?;
        file.write_all(&line)
    }

    fn older(&self) -> PathBuf {
        self.path.with_extension("log.1")
    }
}

const DIR: &str = "hooks";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_log_is_bounded_and_keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of(dir.path(), "a.b");
        assert_eq!(journal.last(5).unwrap(), []);
        for attempt in 1..=300 {
            let record = RunRecord {
                attempt,
                stdout: "x".repeat(10 << 10),
                ..RunRecord::default()
            };
            journal.add(record).await;
        }
        let last: Vec<u32> = journal
            .last(3)
            .unwrap()
            .iter()
            .map(|run| run.attempt)
            .collect();
        assert_eq!(last, [298, 299, 300]);
        let all = journal.last(1000).unwrap();
        assert!(all.len() < 300 && all.len() > 100, "{}", all.len());
        let bytes: u64 = fs::read_dir(dir.path().join(DIR))
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes < 2 * HOOK_LOG_BYTES_MAX + (32 << 10), "{bytes}");
        journal.remove();
        assert_eq!(journal.last(5).unwrap(), []);
    }
}
