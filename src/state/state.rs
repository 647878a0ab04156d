//! The writing end of a store's state, and the handle through which readers get its newest view.

use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use redb::Durability;

use crate::{
    disk::{Disk, Open},
    id::{Author, EntryId, Seq, StoreId},
    limits::STATE_CACHE_BYTES,
    protocol::{
        entry::{Op, VerifiedEntry, cause::CauseId},
        finality::Collections,
        frontier::{Frontier, FrontierTip},
        heads::{Before, Heads},
        membership::reserved::Counting,
    },
    state::{
        StateError, Stored, View,
        filter::KeyFilter,
        flush::Flusher,
        flushed::Flushed,
        guarded::guarded,
        pages::{Known, Pages},
        shared_tree::SharedTree,
        stage::Staged,
        stored::read_stored,
        tables::{CAUSES_TABLE, EXPIRY_TABLE, FACTS_TABLE, HEADS_TABLE, META_TABLE, NOTES_TABLE},
        view::Layer,
    },
};

/// The writing end of the state, owned by the store's writer.
///
/// `stage` adds an entry to the staged view, `show` lets readers see it, `forget` drops it. `flush`
/// begins to write the shown rows to the file, `finish_flush` takes the result.
///
/// Invariants, asserted where they could break. Invariant 2, and the order of log sync before
/// `show`, keep the file from being ahead of the logs; invariants 3 and 4 keep every staged row
/// readable.
///
/// 1. Views are shown in order: each has a higher version than the one before, and the time through
///    which expiries were reported does not go back.
/// 2. Only shown rows are flushed.
/// 3. One flush at a time: a row is in `recent` until a flush takes it, in `flushing` until the
///    file has it, and in `flushed` from then on. No step leaves a row out.
/// 4. An entry is staged with one list of heads for each op.
/// 5. A flush adds as many heads rows, less those it removes, as keys were counted since the flush before.
#[derive(Debug)]
pub struct State {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    pages: Pages,
    flusher: Flusher,
    // The view with the staged entries; equals the shown one when nothing is staged.
    staged: View,
    // Written by this end only.
    shown: StateReader,
    // Number of keys when the last flush began, or when the file was opened.
    keys_flushed: u64,
    // Set by `fill`, cleared by `filled`.
    filling: Option<Filling>,
    // The frontier of the flush that was begun last, and of the one that was finished last. `None` before
    // the first one, and for one that is not durable.
    flushing_through: Option<Arc<Frontier>>,
    flushed_through: Option<Arc<Frontier>>,
}

#[derive(Debug)]
struct Filling {
    // Every key that was staged since `fill`.
    keys: KeyFilter,
    // Flushes begun since `fill`.
    flushes: u64,
}

/// Gives readers the newest view. A clone gives the same views.
//
// The lock is written by `State::show` and its like, on the writer's thread, and read by everybody.
// The lock is held to exchange or clone the `Arc`; no other lock is taken and nothing awaited under
// it.
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
    /// Opens the state file of `store`, or makes an empty one when there is none.
    ///
    /// # Errors
    /// `Damaged`: remove the file with `discard` and build it again. `Io`.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        store: StoreId,
    ) -> Result<(Self, Stored), StateError> {
        let (file, new) = match disk.open(path, Open::Existing) {
            Ok(file) => (file, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (disk.open(path, Open::New)?, true)
            }
            Err(error) => return Err(error.into()),
        };
        let is_empty = file.len()? == 0;
        let (pages, known) = Pages::keeping_sums(Arc::clone(&disk), path, file)?;
        let (backend, checked) = (pages.clone(), pages.clone());
        let (db, stored, flushed, counts, (citers, has_taken_back)) = guarded(move || {
            let mut db = redb::Builder::new()
                .set_cache_size(STATE_CACHE_BYTES)
                .create_with_backend(backend)?;
            if known == Known::None && !is_empty && !db.check_integrity()? {
                return Err(StateError::damaged(
                    "its own check fails after an unclean stop",
                ));
            }
            checked.set_checked();
            let mut write = db.begin_write()?;
            write.set_quick_repair(true);
            write.open_table(HEADS_TABLE)?;
            write.open_table(EXPIRY_TABLE)?;
            write.open_table(NOTES_TABLE)?;
            write.open_table(CAUSES_TABLE)?;
            write.open_table(FACTS_TABLE)?;
            write.open_table(META_TABLE)?;
            write.commit()?;
            let (stored, counts) = read_stored(&db)?;
            let flushed = Flushed::of(&db)?;
            let facts = (flushed.citers()?, flushed.has_taken_back()?);
            Ok((db, stored, flushed, counts, facts))
        })?;
        if new && let Some(dir) = path.parent() {
            disk.sync_dir(dir)?;
        }
        let keys_flushed = counts.keys;
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
            counting: None,
            collections: Arc::default(),
            is_swept: true,
            has_taken_back,
            citers,
            tree: Arc::new(SharedTree::new(store)),
        };
        let shown = StateReader(Arc::new(RwLock::new(Arc::new(view.clone()))));
        let state = Self {
            disk,
            path: path.to_owned(),
            pages,
            flusher: Flusher::start(db, Arc::clone(&view.tree)),
            staged: view,
            shown,
            keys_flushed,
            filling: None,
            flushing_through: None,
            flushed_through: None,
        };
        Ok((
            state,
            Stored {
                created: new,
                ..stored
            },
        ))
    }

    /// Removes the state file, if there is one, so that `open` makes an empty one.
    ///
    /// # Errors
    /// `Io`.
    pub fn discard(disk: &dyn Disk, path: &Path) -> Result<(), StateError> {
        match disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _removed => Ok(()),
        }
    }

    /// Returns the reading end.
    pub fn reader(&self) -> &StateReader {
        &self.shown
    }

    /// Shows the views of this state through `reader` from now on: the reader of the state that
    /// this one replaces after a rebuild.
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
            Some(filling) if filling.keys.is_new(key) => Ok(Heads::default()),
            _may_be_there => self.staged.heads(key),
        }
    }

    /// Returns the entry that was written because of `cause`, staged entries included; `None` when
    /// there is none.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn caused(&self, cause: &CauseId) -> Result<Option<(Seq, EntryId)>, StateError> {
        self.staged.caused(cause)
    }

    /// Prepares an empty file for a whole log: until `filled`, keys that are staged for the first
    /// time are not looked up, and few flushes wait for the disk. After a crash the file is filled
    /// from the start.
    pub fn fill(&mut self) {
        self.pages.set_at_once(true);
        self.filling = Some(Filling {
            keys: KeyFilter::new(),
            flushes: 0,
        });
    }

    /// Ends the mode that `fill` began: the whole log is staged.
    pub fn filled(&mut self) {
        self.pages.set_at_once(false);
        self.filling = None;
    }

    /// Sets whether entries are missing from the state because they could not be read. Entries that
    /// are staged later may cite a missing entry.
    pub fn lack(&mut self, lacks: bool) {
        self.staged.lacks = lacks;
    }

    /// Moves the frontier of `author` to `tips`, the author's newest entries, though some entries
    /// up to them could not be read.
    pub fn pass(&mut self, author: Author, tips: &[FrontierTip]) {
        let frontier = Arc::make_mut(&mut self.staged.frontier);
        for (number, tip) in tips.iter().enumerate() {
            match number {
                0 => frontier.replace(author, *tip),
                _ => frontier.insert(author, *tip),
            }
        }
    }

    /// Adds to the reserved ops that count; the first call makes this the state of a store that
    /// keeps members. They must be added before their entry is staged, or they are void.
    ///
    /// # Panics
    /// When `more` has another creator than what was added before.
    pub fn count(&mut self, more: Counting) {
        match &mut self.staged.counting {
            None => self.staged.counting = Some(Arc::new(more)),
            Some(counting) => {
                assert_eq!(
                    counting.creator, more.creator,
                    "(5) a store has one creator"
                );
                if more != Counting::new(more.creator) {
                    let counting = Arc::make_mut(counting);
                    counting.acts.extend(more.acts);
                    counting.authorized.extend(more.authorized);
                    counting.founders.extend(more.founders);
                }
            }
        }
    }

    /// Notes that `author` has taken back its entry `id`, in the staged view: what it writes has the
    /// lowest rank among the heads of its keys. False when that was known.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn take_back(&mut self, author: &Author, id: &EntryId) -> Result<bool, StateError> {
        self.staged.take_back(author, id)
    }

    /// Notes that `author` has closed its tip `id`, in the staged view.
    pub fn close_tip(&mut self, author: &Author, id: &EntryId) {
        self.staged.close_tip(author, id);
    }

    /// Lowers the heads that `entry`, which was taken back, has at `keys`. Returns the heads of each
    /// key that this changes.
    ///
    /// # Errors
    /// `Damaged`, `Io`. Some of the keys may be changed then.
    pub fn lower<'a>(
        &mut self,
        entry: &EntryId,
        keys: impl IntoIterator<Item = &'a Bytes>,
    ) -> Result<Vec<(Bytes, Staged)>, StateError> {
        self.staged.lower(entry, keys)
    }

    /// Changes the heads of an entry's keys in the staged view. The author has not forked.
    ///
    /// Returns the change of each op; `None` for an op that is void. On an error no op of the entry
    /// is staged.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn stage(&mut self, entry: &VerifiedEntry) -> Result<Vec<Option<Staged>>, StateError> {
        let keys = entry.ops.iter().map(Op::key);
        let heads = keys.map(|key| self.heads(key)).collect::<Result<_, _>>()?;
        let Ok(before) = Before::new(entry, heads, |_head| Ok::<_, Infallible>(true));
        self.stage_over(entry, before)
    }

    /// Like `stage`, for a caller that has read the heads of the entry's keys, staged entries
    /// included: `before` has them.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    ///
    /// # Panics
    /// When `before` has another number of heads.
    pub fn stage_over(
        &mut self,
        entry: &VerifiedEntry,
        before: Before,
    ) -> Result<Vec<Option<Staged>>, StateError> {
        let changes = self.staged.stage_over(entry, before)?;
        if let Some(filling) = &mut self.filling {
            let changed = entry.ops.iter().zip(&changes);
            for (op, _change) in changed.filter(|(_op, change)| change.is_some()) {
                filling.keys.insert(op.key());
            }
        }
        Ok(changes)
    }

    /// Sets which heads acts take, in the staged view. They are taken from entries that come from now on, and
    /// from the rows that are there by `sweep`.
    pub fn set_collections(&mut self, collections: Collections) {
        self.staged.is_swept = collections.is_empty();
        self.staged.collections = Arc::new(collections);
    }

    /// Returns which heads acts take, in the staged view.
    pub fn collections(&self) -> &Arc<Collections> {
        &self.staged.collections
    }

    /// Takes heads from up to `limit` rows after the key `after`, in the staged view. Returns the last key;
    /// `None` at the end of all rows: then the view is swept.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn sweep(
        &mut self,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Option<Bytes>, StateError> {
        let rows = self.staged.scan(&[], after, limit)?;
        let is_last = rows.len() < limit;
        let mut last = None;
        for (key, heads) in rows {
            if let Some(left) = self.staged.collections.take_from(&heads) {
                self.staged.replace(&key, heads, left);
            }
            last = Some(key);
        }
        self.staged.is_swept = is_last;
        Ok(last.filter(|_| !is_last))
    }

    /// Moves the time through which expiries were reported forward to `ms`, ms since 1970; an
    /// earlier time changes nothing.
    pub fn expire_through(&mut self, ms: u64) {
        self.staged.expired_through_ms = self.staged.expired_through_ms.max(ms);
    }

    /// Sets the time through which expiries were reported, also back: the clock was wrong.
    pub fn set_expired_through(&mut self, ms: u64) {
        self.staged.expired_through_ms = ms;
    }

    /// Returns up to `limit` winners, as (time, key), that expire at or before `through_ms` and
    /// whose expiry was not reported yet.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn expiring(&self, through_ms: u64, limit: usize) -> Result<Vec<(u64, Bytes)>, StateError> {
        self.staged
            .expiring(self.staged.expired_through_ms, through_ms, limit)
    }

    /// Returns the view with the staged entries, to be changed.
    pub(super) fn staging(&mut self) -> &mut View {
        &mut self.staged
    }

    /// Notes that `key` has a row, while the file is filled.
    pub(super) fn note_filled(&mut self, key: &[u8]) {
        if let Some(filling) = &mut self.filling {
            filling.keys.insert(key);
        }
    }

    /// Returns the view with the staged entries.
    pub fn staged(&self) -> &View {
        &self.staged
    }

    /// Lets readers see the staged entries. The logs must have synced these entries, unless they
    /// were durable before.
    ///
    /// # Panics
    /// When the view would be older than the one that is shown.
    pub fn show(&mut self) {
        self.staged.version += 1;
        let before = self.shown.view();
        assert!(
            self.staged.version > before.version,
            "(1) views are shown in order"
        );
        self.shown.show(Arc::new(self.staged.clone()));
    }

    /// Drops the staged entries.
    pub fn forget(&mut self) {
        self.staged = View::clone(&self.shown.view());
    }

    /// Returns roughly the bytes of the rows that are in memory only and in no flush.
    pub fn recent_bytes(&self) -> usize {
        self.staged.recent.bytes
    }

    /// Returns true from `flush` until `finish_flush` took its result.
    pub fn is_flushing(&self) -> bool {
        self.flusher.is_busy()
    }

    /// Begins to write the rows in memory to the file, together with `notes`.
    ///
    /// # Panics
    /// When entries are staged, or a flush was not finished.
    pub fn flush(&mut self, notes: Vec<(Vec<u8>, Vec<u8>)>) {
        assert!(!self.is_flushing(), "(3) one flush at a time");
        // `stage` and `pass` exchange the frontier's `Arc`.
        assert!(
            Arc::ptr_eq(&self.staged.frontier, &self.shown.view().frontier),
            "(2) only shown rows are flushed"
        );
        let new_keys = self.staged.keys.cast_signed() - self.keys_flushed.cast_signed();
        self.keys_flushed = self.staged.keys;
        self.staged.flushing = std::mem::take(&mut self.staged.recent);
        self.shown.show(Arc::new(self.staged.clone()));
        let is_durable = self.filling.is_none();
        self.flushing_through = is_durable.then(|| Arc::clone(&self.staged.frontier));
        let durability = match &mut self.filling {
            Some(filling) => filling.durability(),
            None => Durability::Immediate,
        };
        self.flusher
            .begin(&self.staged, new_keys, notes, durability);
    }

    /// Returns the frontier that the file has durably, as far as that is known.
    pub fn flushed_through(&self) -> Option<&Frontier> {
        self.flushed_through.as_deref()
    }

    /// Takes the result of the flush, and waits for it if `wait` is true. Returns false when there
    /// is no flush, or when it is still running.
    ///
    /// # Errors
    /// `Damaged`, `Io`: the state must be opened again.
    pub fn finish_flush(&mut self, wait: bool) -> Result<bool, StateError> {
        let Some(flushed) = self.flusher.finish(wait)? else {
            return Ok(false);
        };
        self.flushed_through = self.flushing_through.take();
        self.staged.flushed = Arc::new(flushed);
        self.staged.flushing = Layer::default();
        // Entries staged meanwhile stay hidden: only the lower layers of the shown view change.
        let mut shown = View::clone(&self.shown.view());
        shown.flushed = Arc::clone(&self.staged.flushed);
        shown.flushing = Layer::default();
        self.shown.show(Arc::new(shown));
        self.flusher.forget();
        Ok(true)
    }

    /// Closes the file so that it opens fast. Shown rows that were not flushed are not in the file;
    /// the next start reads them from the logs.
    ///
    /// # Errors
    /// `Damaged`, `Io`; after an error the file is as safe as after a crash.
    pub fn close(self) -> Result<(), StateError> {
        let Self {
            disk,
            path,
            pages,
            flusher,
            staged,
            shown,
            keys_flushed: _,
            filling: _,
            flushing_through: _,
            flushed_through: _,
        } = self;
        drop((staged, shown));
        flusher.stop()?;
        pages.leave_sums(&disk, &path)?;
        Ok(())
    }
}

impl Filling {
    // redb keeps every page that is not durable yet in memory, so some flushes make the pages
    // durable.
    fn durability(&mut self) -> Durability {
        self.flushes += 1;
        if self.flushes.is_multiple_of(FLUSHES_UNTIL_DURABLE) {
            Durability::Immediate
        } else {
            Durability::None
        }
    }
}

// Number of flushes, while a file is filled, of which one is durable. Each flush has
// `RECENT_BYTES_MAX / 2`.
const FLUSHES_UNTIL_DURABLE: u64 = 32;
