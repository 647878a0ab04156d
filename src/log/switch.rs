//! Logs that begin later from now on: readers are shown them, and files that no log needs are removed.

use std::sync::{Arc, RwLock};

use crate::{
    id::Author,
    log::{
        Begin, Begins, Branch, LogError, Logs, error::file_error, files::remove_if_there,
        segments::Dropped,
    },
};

/// The result of a pruning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruning {
    /// Number of files that were removed.
    pub files: usize,
    /// Number of branches that begin later than before.
    pub branches: usize,
    /// Number of void branches that were set aside.
    pub voids: usize,
}

impl Logs {
    /// Makes the logs begin at `begins`, rows that are durable, and removes the files that hold nothing
    /// else. The inner error: a file could not be removed; the next opening does that.
    pub(super) fn switch(&mut self, begins: Begins) -> (Pruning, Result<(), LogError>) {
        let changed = begins.0.iter().filter(|(key, row)| {
            let before = self.begins.0.get(*key);
            before.is_none_or(|before| before.begin != row.begin)
        });
        let changed: Vec<_> = changed.map(|(key, row)| (*key, row.begin)).collect();
        self.begins = begins;
        let mut pruning = Pruning::default();
        let mut dropped = Vec::new();
        for (key, begin) in changed {
            pruning.branches += 1;
            // Those of a log that is new have been begun.
            if self.writers.contains_key(&key) {
                dropped.push(self.begin_at(key, begin));
            }
        }
        let removed = self.remove_dropped(dropped, &mut pruning);
        (pruning, removed)
    }

    fn remove_dropped(
        &self,
        dropped: Vec<(Arc<Branch>, Vec<Dropped>)>,
        pruning: &mut Pruning,
    ) -> Result<(), LogError> {
        for (before, files) in dropped {
            // Nobody can get hold of that branch any more, so a count of one stays.
            let is_read = Arc::strong_count(&before) > 1;
            for Dropped { path, file } in files {
                let name = || path.display().to_string();
                if is_read {
                    file.keep_open()
                        .map_err(|source| file_error(&name(), source))?;
                }
                remove_if_there(self.disk.as_ref(), &path)
                    .map_err(|source| file_error(&name(), source))?;
                pruning.files += 1;
            }
        }
        if pruning.files > 0 {
            let name = self.dir.display().to_string();
            let synced = self.disk.sync_dir(&self.dir);
            synced.map_err(|source| file_error(&name, source))?;
        }
        Ok(())
    }

    // Shows readers a branch that begins at `begin`. Returns the one before, and the files that only
    // that one has.
    fn begin_at(&mut self, key: (Author, u32), begin: Begin) -> (Arc<Branch>, Vec<Dropped>) {
        let writer = self.writers.get_mut(&key).expect("the branch was found");
        let before = Arc::clone(&writer.branch);
        let (segments, dropped) = writer.segments.split_at(begin.offset);
        let segments = Arc::new(segments);
        let mut shape = before.shape().clone();
        shape.index.retain(|point| point.offset >= begin.offset);
        // Nothing is left of a log that does not have the anchor: it goes on at it.
        if begin.offset >= shape.end {
            shape.tip = Some(begin.anchor.into());
        }
        let branch = Arc::new(Branch {
            author: before.author,
            number: before.number,
            first: before.first,
            forked_from: before.forked_from,
            begin: Some(begin),
            name: before.name.clone(),
            file: segments.clone(),
            shape: RwLock::new(shape),
        });
        writer.go_on(Arc::clone(&branch), segments);
        self.reader().replace(branch);
        (before, dropped)
    }
}
