//! The flusher: a thread that writes rows to the state file, one transaction at a time.

use std::{
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use redb::{Database, Durability, ReadableDatabase as _, ReadableTableMetadata as _};

use crate::{
    pace::Pace,
    state::{
        StateError, row,
        stored::encode_frontier,
        tables::{
            CAUSES, CAUSES_TABLE, EXPIRY_TABLE, FRONTIER, HEADS, HEADS_TABLE, LACKS, META_TABLE,
            NOTES, NOTES_TABLE,
        },
        view::{Flushed, Layer, View, guarded},
    },
};

enum Job {
    /// Rows to write, and what they are true of.
    Write {
        layer: Layer,
        frontier: Vec<u8>,
        lacks: bool,
        notes: Vec<(Vec<u8>, Vec<u8>)>,
        durability: Durability,
    },
    /// Nobody needs the rows last written any more. To free them takes as long as hundreds of
    /// puts: it is done here and not by the writer.
    Forget,
}

/// Owns the database's writing end and the thread that uses it.
#[derive(Debug)]
pub(super) struct Flusher {
    // Dropped by `stop`: the thread ends then.
    jobs: mpsc::SyncSender<Job>,
    results: mpsc::Receiver<Result<Flushed, StateError>>,
    thread: JoinHandle<Database>,
    busy: bool,
}

impl Flusher {
    pub(super) fn start(db: Database) -> Self {
        // A write, and the word to forget the one before it.
        let (jobs, jobs_in) = mpsc::sync_channel::<Job>(2);
        let (results_out, results) = mpsc::sync_channel(1);
        let thread = thread::spawn(move || {
            let mut written = Layer::default();
            for job in jobs_in {
                let Job::Write {
                    layer,
                    frontier,
                    lacks,
                    notes,
                    durability,
                } = job
                else {
                    free(std::mem::take(&mut written));
                    continue;
                };
                let result = guarded(|| write(&db, &layer, (&frontier, lacks), notes, durability));
                written = layer;
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

    pub(super) fn begin(
        &mut self,
        view: &View,
        notes: Vec<(Vec<u8>, Vec<u8>)>,
        durability: Durability,
    ) {
        let job = Job::Write {
            layer: view.flushing.clone(),
            frontier: encode_frontier(view),
            lacks: view.lacks,
            notes,
            durability,
        };
        // A thread that has died says so in `finish`.
        self.busy = true;
        drop(self.jobs.send(job));
    }

    pub(super) fn finish(&mut self, wait: bool) -> Result<Option<Flushed>, StateError> {
        if !self.busy {
            return Ok(None);
        }
        let result = if wait {
            self.results
                .recv()
                .map_err(|_gone| mpsc::TryRecvError::Disconnected)
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

    /// The writer has let go of the rows last written.
    pub(super) fn forget(&self) {
        drop(self.jobs.send(Job::Forget));
    }

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

impl Flushed {
    pub(super) fn of(db: &Database) -> Result<Self, StateError> {
        let read = db.begin_read()?;
        let heads = read.open_table(HEADS_TABLE)?;
        let empty = heads.is_empty()?;
        Ok(Self {
            heads,
            expiry: read.open_table(EXPIRY_TABLE)?,
            causes: read.open_table(CAUSES_TABLE)?,
            empty,
        })
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
}

fn write(
    db: &Database,
    layer: &Layer,
    (frontier, lacks): (&[u8], bool),
    notes: Vec<(Vec<u8>, Vec<u8>)>,
    durability: Durability,
) -> Result<Flushed, StateError> {
    let mut write = db.begin_write()?;
    write.set_durability(durability)?;
    let mut pace = Pace::start();
    {
        let mut heads = write.open_table(HEADS_TABLE)?;
        for (key, value) in &layer.heads {
            pace.step();
            let row = row::seal(HEADS, key, row::encode_heads(value));
            heads.insert(key.as_ref(), row.as_slice())?;
        }
        let mut expiry = write.open_table(EXPIRY_TABLE)?;
        for ((ms, key), there) in &layer.expiry {
            if *there {
                expiry.insert((*ms, key.as_ref()), ())?;
            } else {
                expiry.remove((*ms, key.as_ref()))?;
            }
        }
        let mut causes = write.open_table(CAUSES_TABLE)?;
        for (cause, (seq, entry)) in &layer.causes {
            let row = row::seal(CAUSES, &cause.0, row::encode_cause(entry, *seq));
            causes.insert(cause.0.as_slice(), row.as_slice())?;
        }
        let mut notes_table = write.open_table(NOTES_TABLE)?;
        for (key, body) in notes {
            let row = row::seal(NOTES, &key, body);
            notes_table.insert(key.as_slice(), row.as_slice())?;
        }
        let mut meta = write.open_table(META_TABLE)?;
        meta.insert(FRONTIER, frontier)?;
        if lacks {
            meta.insert(LACKS, [].as_slice())?;
        } else {
            meta.remove(LACKS)?;
        }
    }
    write.commit()?;
    Flushed::of(db)
}

fn thread_died() -> StateError {
    StateError::Io {
        source: Arc::new(io::Error::other("the flusher thread has ended")),
    }
}
