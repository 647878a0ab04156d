//! The flusher: a thread that writes rows to the state file, one transaction at a time.

use std::{
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use redb::{Database, Durability};

use crate::{
    pace::Pace,
    protocol::heads_row::{decode_heads, encode_heads},
    state::{
        StateError, cited,
        flushed::Flushed,
        guarded::guarded,
        row,
        shared_tree::SharedTree,
        stored::encode_frontier,
        tables::{
            CAUSES, CAUSES_TABLE, EXPIRY_TABLE, FACTS, FACTS_TABLE, FRONTIER, HEADS, HEADS_TABLE,
            LACKS, META_TABLE, NOTES, NOTES_TABLE,
        },
        view::{Layer, View},
    },
};

enum Job {
    Write(Write),
    /// The views no longer have the rows last written. Freeing the rows takes as long as hundreds
    /// of puts, so this thread frees them and not the writer.
    Forget,
}

// One transaction.
struct Write {
    layer: Layer,
    // Number of keys in the layer that the file does not have yet.
    // Rows that are added, less those that are removed.
    new_keys: i64,
    // The encoded row of `FRONTIER`.
    frontier: Vec<u8>,
    lacks: bool,
    notes: Vec<(Vec<u8>, Vec<u8>)>,
    durability: Durability,
}

/// Owns the database's writing end and the thread that uses it.
#[derive(Debug)]
pub(super) struct Flusher {
    // Sent by the store's writer. Room for a write and the `Forget` of the write before it, so
    // sending never waits. Dropped by `stop`: the thread ends after the queued jobs.
    jobs: mpsc::SyncSender<Job>,
    // Sent by the thread, one for each `Write`. Closed when the thread has panicked.
    results: mpsc::Receiver<Result<Flushed, StateError>>,
    thread: JoinHandle<Database>,
    // True from `begin` until `finish` took the result.
    busy: bool,
}

impl Flusher {
    /// `tree` is of the views of this database.
    pub(super) fn start(db: Database, tree: Arc<SharedTree>) -> Self {
        let (jobs, jobs_in) = mpsc::sync_channel::<Job>(2);
        let (results_out, results) = mpsc::sync_channel(1);
        let thread = thread::spawn(move || {
            let mut written = Layer::default();
            for job in jobs_in {
                let Job::Write(job) = job else {
                    free(std::mem::take(&mut written));
                    continue;
                };
                let result = guarded(|| job.run(&db));
                written = job.layer;
                tree.note_flushed(&written.heads);
                if results_out.send(result).is_err() {
                    break;
                }
            }
            drop(written);
            db
        });
        Self {
            jobs,
            results,
            thread,
            busy: false,
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Begins to write the layer that `view` has as `flushing`. The result must be taken before the
    /// next write begins.
    pub(super) fn begin(
        &mut self,
        view: &View,
        new_keys: i64,
        notes: Vec<(Vec<u8>, Vec<u8>)>,
        durability: Durability,
    ) {
        let job = Write {
            layer: view.flushing.clone(),
            new_keys,
            frontier: encode_frontier(view),
            lacks: view.lacks,
            notes,
            durability,
        };
        self.busy = true;
        // If the thread has died, `finish` returns the error.
        drop(self.jobs.send(Job::Write(job)));
    }

    /// Returns the result of the write that `begin` began; `None` when there is none, or when it is
    /// still running and `wait` is false.
    pub(super) fn finish(&mut self, wait: bool) -> Result<Option<Flushed>, StateError> {
        if !self.busy {
            return Ok(None);
        }
        let result = if wait {
            self.results
                .recv()
                .map_err(|_ended| mpsc::TryRecvError::Disconnected)
        } else {
            self.results.try_recv()
        };
        match result {
            Ok(flushed) => {
                self.busy = false;
                flushed.map(Some)
            }
            Err(mpsc::TryRecvError::Empty) => Ok(None),
            Err(mpsc::TryRecvError::Disconnected) => Err(thread_died()),
        }
    }

    /// Frees the rows last written. Call it once no new view can contain them.
    pub(super) fn forget(&self) {
        drop(self.jobs.send(Job::Forget));
    }

    /// Ends the thread and closes the database.
    pub(super) fn stop(self) -> Result<(), StateError> {
        let Self {
            jobs,
            results,
            thread,
            ..
        } = self;
        drop((jobs, results));
        let db = thread.join().map_err(|_panic| thread_died())?;
        guarded(move || Ok(db.close()?))
    }
}

fn free(layer: Layer) {
    let mut pace = Pace::start();
    for _row in layer.heads {
        pace.step();
    }
    for _row in layer.expiry {
        pace.step();
    }
    for _row in layer.causes {
        pace.step();
    }
    for _row in layer.facts {
        pace.step();
    }
    for _row in layer.references {
        pace.step();
    }
}

impl Write {
    // Writes everything in one transaction and returns the tables as of its commit.
    fn run(&self, db: &Database) -> Result<Flushed, StateError> {
        let mut write = db.begin_write()?;
        write.set_durability(self.durability)?;
        // After a crash the file is opened without a walk through all of it. `Pages` has the sums of its
        // blocks, and compares them as they are read.
        write.set_quick_repair(true);
        let mut pace = Pace::start();
        {
            let mut heads = write.open_table(HEADS_TABLE)?;
            let mut added: i64 = 0;
            for (key, value) in &self.layer.heads {
                pace.step();
                if value.winner().is_none() {
                    added -= i64::from(heads.remove(key.as_ref())?.is_some());
                    continue;
                }
                let body = encode_heads(value);
                debug_assert_eq!(
                    decode_heads(&body).as_ref(),
                    Some(value),
                    "a row reads as what was written"
                );
                let row = row::seal(HEADS, key, body);
                added += i64::from(heads.insert(key.as_ref(), row.as_slice())?.is_none());
            }
            // Invariant 5 of `State`. An error and not an assertion: a file that has changed on
            // disk can cause the difference, too.
            if added != self.new_keys {
                let expected = self.new_keys;
                return Err(StateError::Damaged {
                    what: format!("{added} new keys were written, {expected} were counted"),
                });
            }
            let mut expiry = write.open_table(EXPIRY_TABLE)?;
            for ((ms, key), there) in &self.layer.expiry {
                if *there {
                    expiry.insert((*ms, key.as_ref()), ())?;
                } else {
                    expiry.remove((*ms, key.as_ref()))?;
                }
            }
            let mut causes = write.open_table(CAUSES_TABLE)?;
            for (cause, (seq, entry)) in &self.layer.causes {
                let row = row::seal(CAUSES, &cause.0, row::encode_cause(entry, *seq));
                causes.insert(cause.0.as_slice(), row.as_slice())?;
            }
            let mut facts = write.open_table(FACTS_TABLE)?;
            for (key, body) in &self.layer.facts {
                pace.step();
                let row = row::seal(FACTS, key, body.to_vec());
                facts.insert(key.as_slice(), row.as_slice())?;
            }
            for reference in &self.layer.references {
                pace.step();
                let key = cited::reference_fact(reference);
                let row = row::seal(FACTS, &key, Vec::new());
                facts.insert(key.as_slice(), row.as_slice())?;
            }
            let mut notes_table = write.open_table(NOTES_TABLE)?;
            for (key, body) in &self.notes {
                let row = row::seal(NOTES, key, body.clone());
                notes_table.insert(key.as_slice(), row.as_slice())?;
            }
            let mut meta = write.open_table(META_TABLE)?;
            meta.insert(FRONTIER, self.frontier.as_slice())?;
            if self.lacks {
                meta.insert(LACKS, [].as_slice())?;
            } else {
                meta.remove(LACKS)?;
            }
        }
        write.commit()?;
        Flushed::of(db)
    }
}

fn thread_died() -> StateError {
    StateError::Io {
        source: Arc::new(io::Error::other("the flusher thread has ended")),
    }
}
