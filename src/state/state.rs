//! The writing end of a store's state, and the handle that gives its newest view to readers.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use redb::Durability;

use crate::{
    disk::{Disk, Open},
    id::{Author, EntryId, Seq},
    limits::STATE_CACHE_BYTES,
    protocol::{
        entry::{Op, VerifiedEntry, cause::CauseId},
        frontier::FrontierTip,
        heads::{Content, Head, Heads, Value},
    },
    state::{
        StateError, Stored, View,
        filter::KeyFilter,
        flush::Flusher,
        pages::Pages,
        stored::read_stored,
        tables::{CAUSES_TABLE, EXPIRY_TABLE, HEADS_TABLE, META_TABLE, NOTES_TABLE},
        view::{Flushed, Layer, guarded},
    },
};

/// What a write changed at a key.
#[derive(Debug, Clone)]
pub struct Staged {
    /// The heads before.
    pub before: Heads,
    /// The heads after.
    pub after: Heads,
}

/// The writing end: owned by the store's writer.
#[derive(Debug)]
pub struct State {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    pages: Pages,
    flusher: Flusher,
    // The view that the staged entries lead to; equals `shown` when nothing is staged.
    staged: View,
    shown: StateReader,
    // Only while the file, which was empty, is filled.
    filling: Option<Filling>,
}

#[derive(Debug)]
struct Filling {
    // Every key that was staged.
    keys: KeyFilter,
    // Transactions begun.
    flushes: u64,
}

/// Gives the newest view to readers.
#[derive(Debug, Clone)]
pub struct StateReader(Arc<RwLock<Arc<View>>>);

impl StateReader {
    /// Returns the newest view.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn show(&self, view: Arc<View>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = view;
    }
}

impl State {
    /// Opens the state file, or makes an empty one where there is none.
    ///
    /// # Errors
    /// `Damaged`: remove it with `discard` and build it again. `Io`.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<(Self, Stored), StateError> {
        let (file, new) = match disk.open(path, Open::Existing) {
            Ok(file) => (file, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (disk.open(path, Open::New)?, true)
            }
            Err(error) => return Err(error.into()),
        };
        let bytes = file.len()?;
        let sums = Pages::take_sums(disk.as_ref(), path, bytes);
        let unclean = sums.is_none() && bytes > 0;
        let pages = Pages::new(file, sums.unwrap_or_default());
        let backend = pages.clone();
        let (db, stored, flushed, counts) = guarded(move || {
            let mut db = redb::Builder::new()
                .set_cache_size(STATE_CACHE_BYTES)
                .create_with_backend(backend)?;
            if unclean && !db.check_integrity()? {
                return Err(StateError::damaged(
                    "its own check fails after an unclean stop",
                ));
            }
            let write = db.begin_write()?;
            write.open_table(HEADS_TABLE)?;
            write.open_table(EXPIRY_TABLE)?;
            write.open_table(NOTES_TABLE)?;
            write.open_table(CAUSES_TABLE)?;
            write.open_table(META_TABLE)?;
            write.commit()?;
            let (stored, counts) = read_stored(&db)?;
            let flushed = Flushed::of(&db)?;
            Ok((db, stored, flushed, counts))
        })?;
        if new && let Some(dir) = path.parent() {
            disk.sync_dir(dir)?;
        }
        let view = View {
            recent: Layer::default(),
            flushing: Layer::default(),
            flushed: Arc::new(flushed),
            frontier: Arc::new(stored.frontier.clone()),
            lacks: stored.lacks,
            version: 0,
            keys: counts.keys,
            entries: counts.entries,
            expired_through_ms: counts.expired_through_ms,
            acts: None,
        };
        let shown = StateReader(Arc::new(RwLock::new(Arc::new(view.clone()))));
        let state = Self {
            disk,
            path: path.to_owned(),
            pages,
            flusher: Flusher::start(db),
            staged: view,
            shown,
            filling: None,
        };
        Ok((
            state,
            Stored {
                created: new,
                ..stored
            },
        ))
    }

    /// Removes a state file that is to be built again.
    ///
    /// # Errors
    /// `Io`.
    pub fn discard(disk: &dyn Disk, path: &Path) -> Result<(), StateError> {
        match disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _gone => Ok(()),
        }
    }

    /// Returns the reading end.
    pub fn reader(&self) -> &StateReader {
        &self.shown
    }

    /// Gives readers of `reader` what this state shows, now and later: after building it again.
    pub fn show_through(&mut self, reader: StateReader) {
        let before = reader.view();
        self.staged.version = self.staged.version.max(before.version);
        self.expire_through(before.expired_through_ms);
        self.shown = reader;
        self.show();
    }

    /// Returns the heads of `key`, staged entries included.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn heads(&self, key: &[u8]) -> Result<Heads, StateError> {
        match &self.filling {
            Some(filling) if filling.keys.lacks(key) => Ok(Heads::default()),
            _may_be_there => self.staged.heads(key),
        }
    }

    /// Returns the entry that its author has written because of `cause`, staged ones included.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn caused(&self, cause: &CauseId) -> Result<Option<(Seq, EntryId)>, StateError> {
        self.staged.caused(cause)
    }

    /// Says that the file is empty and gets a whole log: until `filled`, keys that come for the
    /// first time are not looked up, and few flushes wait for the disk. After a crash it is filled
    /// again.
    pub fn fill(&mut self) {
        self.pages.set_at_once(true);
        self.filling = Some(Filling {
            keys: KeyFilter::new(),
            flushes: 0,
        });
    }

    /// Says that the log is in.
    pub fn filled(&mut self) {
        self.pages.set_at_once(false);
        self.filling = None;
    }

    /// Says whether it lacks an entry that could not be read: what is staged later may cite that.
    pub fn lack(&mut self, lacks: bool) {
        self.staged.lacks = lacks;
    }

    /// Moves on through `tips`, the newest entries of `author`, of which some could not be read.
    pub fn pass(&mut self, author: Author, tips: &[FrontierTip]) {
        let frontier = Arc::make_mut(&mut self.staged.frontier);
        for (number, tip) in tips.iter().enumerate() {
            match number {
                0 => frontier.replace(author, *tip),
                _ => frontier.insert(author, *tip),
            }
        }
    }

    /// Says that members are kept here, and adds to the acts that count. An act must be added
    /// before its entry is staged: else it keeps no place.
    pub fn count(&mut self, acts: impl IntoIterator<Item = (EntryId, Author)>) {
        let counting = self.staged.acts.get_or_insert_default();
        let mut acts = acts.into_iter().peekable();
        if acts.peek().is_some() {
            Arc::make_mut(counting).extend(acts);
        }
    }

    /// Changes the heads of an entry's keys; nobody sees it before `show`.
    ///
    /// Returns what changed, for each op; `None` for an op that is void. On an error nothing of the
    /// entry is staged.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn stage(&mut self, entry: &VerifiedEntry) -> Result<Vec<Option<Staged>>, StateError> {
        let keys = entry.ops.iter().map(Op::key);
        let before = keys.map(|key| self.heads(key)).collect::<Result<_, _>>()?;
        self.stage_over(entry, before)
    }

    /// As `stage`, for who has read the heads of the entry's keys, staged entries included:
    /// `before`, one for each op.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn stage_over(
        &mut self,
        entry: &VerifiedEntry,
        before: Vec<Heads>,
    ) -> Result<Vec<Option<Staged>>, StateError> {
        debug_assert_eq!(before.len(), entry.ops.len(), "heads for each op");
        let mut changes = Vec::with_capacity(entry.ops.len());
        for (op, before) in entry.ops.iter().zip(before) {
            changes.push((!self.staged.is_void(&entry.id, op)).then(|| {
                let after = before.apply(entry, op);
                Staged { before, after }
            }));
        }
        let mut caused = None;
        if let Some(cause) = &entry.header.cause {
            let cause = CauseId::of(&entry.author(), cause);
            // Of a fork's branches the first counts, whichever came first.
            let this = (entry.header.seq, entry.id);
            let first = self.caused(&cause)?.map_or(this, |before| before.min(this));
            caused = Some((cause, first));
        }
        for (op, change) in entry.ops.iter().zip(&changes) {
            let Some(change) = change else { continue };
            self.staged.put(op, change);
            if let Some(filling) = &mut self.filling {
                filling.keys.insert(op.key());
            }
        }
        if let Some((cause, caused)) = caused {
            self.staged.recent.causes.insert(cause, caused);
            self.staged.recent.bytes += ROW_OVERHEAD_BYTES;
        }
        let tip = FrontierTip {
            seq: entry.header.seq,
            id: entry.id,
        };
        Arc::make_mut(&mut self.staged.frontier).advance(entry.author(), entry.header.prev, tip);
        self.staged.entries += 1;
        Ok(changes)
    }

    /// Moves the time through which expiries were told.
    pub fn expire_through(&mut self, ms: u64) {
        self.staged.expired_through_ms = self.staged.expired_through_ms.max(ms);
    }

    /// Returns up to `limit` winners that expire after what was told, and through `through_ms`.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn expiring(&self, through_ms: u64, limit: usize) -> Result<Vec<(u64, Bytes)>, StateError> {
        self.staged
            .expiring(self.staged.expired_through_ms, through_ms, limit)
    }

    /// Returns the view that the staged entries lead to.
    pub fn staged(&self) -> &View {
        &self.staged
    }

    /// Lets readers see what is staged.
    pub fn show(&mut self) {
        self.staged.version += 1;
        self.shown.show(Arc::new(self.staged.clone()));
    }

    /// Forgets what is staged.
    pub fn forget(&mut self) {
        self.staged = View::clone(&self.shown.view());
    }

    /// Returns the bytes of rows that are in memory only and not on their way to the file.
    pub fn recent_bytes(&self) -> usize {
        self.staged.recent.bytes
    }

    /// True while a flush is on its way.
    pub fn is_flushing(&self) -> bool {
        self.flusher.is_busy()
    }

    /// Begins to write the rows in memory to the file, together with `notes`. Nothing may be
    /// staged, and the logs must be durable up to the frontier.
    pub fn flush(&mut self, notes: Vec<(Vec<u8>, Vec<u8>)>) {
        debug_assert!(!self.is_flushing(), "one flush at a time");
        self.staged.flushing = std::mem::take(&mut self.staged.recent);
        self.shown.show(Arc::new(self.staged.clone()));
        let durability = match &mut self.filling {
            Some(filling) => filling.durability(),
            None => Durability::Immediate,
        };
        self.flusher.begin(&self.staged, notes, durability);
    }

    /// Takes in a flush that has ended; waits for it where `wait` says so. True when one did.
    ///
    /// # Errors
    /// `Damaged`, `Io`: the state must be opened again.
    pub fn finish_flush(&mut self, wait: bool) -> Result<bool, StateError> {
        let Some(flushed) = self.flusher.finish(wait)? else {
            return Ok(false);
        };
        self.staged.flushed = Arc::new(flushed);
        self.staged.flushing = Layer::default();
        // Rows staged meanwhile are not shown: only the layers below them move.
        let mut shown = View::clone(&self.shown.view());
        shown.flushed = Arc::clone(&self.staged.flushed);
        shown.flushing = Layer::default();
        self.shown.show(Arc::new(shown));
        self.flusher.forget();
        Ok(true)
    }

    /// Closes the file so that it opens fast. Everything shown must be flushed.
    ///
    /// # Errors
    /// `Damaged`, `Io`; the file is as safe as after a crash then.
    pub fn close(self) -> Result<(), StateError> {
        let Self {
            disk,
            path,
            pages,
            flusher,
            staged,
            shown,
            filling: _,
        } = self;
        drop((staged, shown));
        flusher.stop()?;
        pages.leave_sums(disk.as_ref(), &path)?;
        Ok(())
    }
}

impl Filling {
    // redb remembers every page that is not durable yet: now and then they become so.
    fn durability(&mut self) -> Durability {
        self.flushes += 1;
        if self.flushes.is_multiple_of(FLUSHES_UNTIL_DURABLE) {
            Durability::Immediate
        } else {
            Durability::None
        }
    }
}

impl View {
    fn put(&mut self, op: &Op, change: &Staged) {
        let key = Bytes::copy_from_slice(op.key());
        let due = |heads: &Heads| heads.winner().and_then(Head::expires_ms);
        let (old, new) = (due(&change.before), due(&change.after));
        if old != new {
            for (ms, there) in [(old, false), (new, true)] {
                if let Some(ms) = ms {
                    self.recent.expiry.insert((ms, key.clone()), there);
                    self.recent.bytes += key.len() + ROW_OVERHEAD_BYTES;
                }
            }
        }
        if change.before.as_slice().is_empty() {
            self.keys += 1;
        }
        let heads = change.after.clone();
        let bytes: usize = heads.as_slice().iter().map(head_bytes).sum();
        self.recent.bytes += key.len() + bytes + ROW_OVERHEAD_BYTES;
        if let Some(replaced) = self.recent.heads.insert(key, heads) {
            let bytes: usize = replaced.as_slice().iter().map(head_bytes).sum();
            self.recent.bytes -= op.key().len() + bytes + ROW_OVERHEAD_BYTES;
        }
    }
}

fn head_bytes(head: &Head) -> usize {
    let value = match &head.content {
        Content::Value {
            value: Value::Inline(value),
            ..
        } => value.len(),
        Content::Value {
            value: Value::InLog { .. },
            ..
        }
        | Content::Tombstone => 0,
    };
    size_of::<Head>() + value
}

// While the file is filled; each is of `RECENT_BYTES_MAX / 2`.
const FLUSHES_UNTIL_DURABLE: u64 = 32;
// What a row takes in memory besides its bytes, about.
const ROW_OVERHEAD_BYTES: usize = 120;
