//! The hash tree over the heads of a view: its root, proofs, and the rows that it is made of.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::mpsc,
    thread,
};

use bytes::Bytes;

use crate::{
    limits::SCAN_ROWS,
    pace::Pace,
    protocol::{
        heads::Heads,
        heads_row::encode_heads,
        merkle::{FreshTree, RowHash, RowProof, Rows, Tree, TreeRoot, prefix_end},
    },
    state::{StateError, shared_tree::Cached, view::View},
};

impl View {
    /// Calls `work` with the tree of this view. Waits while the tree of another view is read.
    ///
    /// # Errors
    /// `Damaged`, `Io`, and the errors of `work`.
    pub fn with_tree<T>(
        &self,
        work: impl FnOnce(&FreshTree<'_, Self>) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        self.tree.with(|cached| {
            self.with_cached(cached, |tree| {
                let fresh = tree.refresh(self)?;
                work(&fresh)
            })
        })
    }

    /// Returns a copy of the tree of this view: a refresh with the rows of this view reads nothing, and
    /// waits for no other view.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn tree(&self) -> Result<Tree, StateError> {
        self.tree
            .with(|cached| self.with_cached(cached, |tree| Ok(tree.clone())))
    }

    // Calls `work` with the tree of this view, which was refreshed.
    fn with_cached<T>(
        &self,
        cached: &mut Cached,
        work: impl FnOnce(&mut Tree) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let mut of_old_view;
        let tree = if cached.version.is_some_and(|version| version > self.version) {
            // The tree has read later rows.
            of_old_view = Tree::new(self.tree.levels.clone());
            &mut of_old_view
        } else {
            if cached.version != Some(self.version) {
                cached.touch(&self.flushing.heads);
                cached.touch(&self.recent.heads);
            }
            cached.version = Some(self.version);
            &mut cached.tree
        };
        let (found, counted) = (tree.refresh(self)?.row_count(), self.keys);
        if found != counted {
            return Err(StateError::Damaged {
                what: format!("{found} rows were read, {counted} were counted"),
            });
        }
        work(tree)
    }

    /// Returns the root of all rows.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn root(&self) -> Result<TreeRoot, StateError> {
        self.with_tree(|tree| Ok(tree.root()))
    }

    /// Returns the root, the row of `key` (`None` without heads), and the proof of it.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn prove(&self, key: &[u8]) -> Result<(TreeRoot, Option<Vec<u8>>, RowProof), StateError> {
        let heads = self.heads(key)?;
        let row = heads.winner().map(|_| encode_heads(&heads));
        self.with_tree(|tree| Ok((tree.root(), row, tree.prove(key)?)))
    }
}

/// The rows of the keys that begin with a prefix, and the proof that these are all.
#[derive(Debug)]
pub struct ProvenRows {
    /// Root of all rows of the view.
    pub root: TreeRoot,
    /// The rows, by key.
    pub rows: Vec<(Bytes, Vec<u8>)>,
    /// The proof.
    pub proof: RowProof,
}

impl View {
    /// Returns the rows of all keys that begin with `prefix`, and the proof that these are all. `None`
    /// if keys and rows have more than `bytes_max` bytes, each row 40 more for its part of the proof.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn prove_prefix(
        &self,
        prefix: &[u8],
        bytes_max: usize,
    ) -> Result<Option<ProvenRows>, StateError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        loop {
            let after: Option<Bytes> = rows.last().map(|(key, _): &(Bytes, _)| key.clone());
            let page = self.scan(prefix, after.as_deref(), SCAN_ROWS)?;
            if page.is_empty() {
                break;
            }
            for (key, heads) in page {
                let row = encode_heads(&heads);
                bytes += key.len() + row.len() + PROVEN_ROW_BYTES;
                if bytes > bytes_max {
                    return Ok(None);
                }
                rows.push((key, row));
            }
        }
        let end = prefix_end(prefix);
        self.with_tree(|tree| {
            Ok(Some(ProvenRows {
                root: tree.root(),
                rows,
                proof: tree.prove_range(prefix, end.as_deref())?,
            }))
        })
    }
}

// Bytes that a row takes in the proof of a range, besides its key.
const PROVEN_ROW_BYTES: usize = 40;

impl Rows for View {
    type Error = StateError;

    fn rows(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        row: &mut dyn FnMut(&[u8], &RowHash) -> bool,
    ) -> Result<(), StateError> {
        let end = to.map_or(Bound::Unbounded, |to| Bound::Excluded(to.max(from)));
        let range = (Bound::Included(from), end);
        // Rows in memory, which replace those in the file.
        let mut newer: BTreeMap<&Bytes, &Heads> = BTreeMap::new();
        newer.extend(self.flushing.heads.range::<_, [u8]>(range));
        newer.extend(self.recent.heads.range::<_, [u8]>(range));
        let mut newer = newer.into_iter().peekable();
        let hash = |heads: &Heads| RowHash::of(&encode_heads(heads));
        // One without heads was removed since the last flush.
        let is_there = |heads: &Heads| heads.winner().is_some();
        let mut pace = Pace::start();
        let (go_on, stop) = (ControlFlow::Continue(()), ControlFlow::Break(()));
        let mut is_stopped = false;
        let each = |key: &[u8], stored: &RowHash| {
            pace.step();
            let mut is_replaced = false;
            while let Some((newer, heads)) = newer.next_if(|(newer, _)| *newer <= key) {
                is_replaced = newer == key;
                if is_there(heads) && !row(newer, &hash(heads)) {
                    is_stopped = true;
                    return Ok(stop);
                }
            }
            if !is_replaced && !row(key, stored) {
                is_stopped = true;
                return Ok(stop);
            }
            Ok(go_on)
        };
        match from.is_empty() && to.is_none() {
            true => self.hashed_ahead(each)?,
            false => self.hashed(range, each)?,
        }
        for (key, heads) in newer.filter(|_| !is_stopped) {
            pace.step();
            if is_there(heads) && !row(key, &hash(heads)) {
                break;
            }
        }
        Ok(())
    }
}

impl View {
    // Calls `each` with the rows of a range of the file.
    fn hashed(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        mut each: impl FnMut(&[u8], &RowHash) -> Result<ControlFlow<()>, StateError>,
    ) -> Result<(), StateError> {
        self.flushed
            .rows(range, |key, row| each(key, &RowHash::of(row)))
    }

    // Calls `each` with all rows of the file. Another thread reads and hashes those to come.
    fn hashed_ahead(
        &self,
        mut each: impl FnMut(&[u8], &RowHash) -> Result<ControlFlow<()>, StateError>,
    ) -> Result<(), StateError> {
        let (batches, coming) = mpsc::sync_channel(BATCHES_AHEAD);
        thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let (mut batch, mut pace) = (HashedRows::default(), Pace::start());
                let all = (Bound::Unbounded, Bound::Unbounded);
                let read = self.hashed(all, |key, hash| {
                    pace.step();
                    batch.push(key, *hash);
                    let is_full = batch.rows.len() >= BATCH_ROWS;
                    let is_over = is_full && batches.send(std::mem::take(&mut batch)).is_err();
                    Ok(match is_over {
                        true => ControlFlow::Break(()),
                        false => ControlFlow::Continue(()),
                    })
                });
                // Nobody waits for it if `each` has ended.
                drop(batches.send(batch));
                read
            });
            for batch in coming {
                for (key, hash) in batch.iter() {
                    if each(key, hash)?.is_break() {
                        return Ok(());
                    }
                }
            }
            reader
                .join()
                .unwrap_or_else(|_panic| Err(StateError::damaged("its reader has panicked")))
        })
    }
}

// Rows in order: the keys one behind the other, and the end and hash of each.
#[derive(Debug, Default)]
struct HashedRows {
    keys: Vec<u8>,
    rows: Vec<(usize, RowHash)>,
}

impl HashedRows {
    fn push(&mut self, key: &[u8], hash: RowHash) {
        self.keys.extend_from_slice(key);
        self.rows.push((self.keys.len(), hash));
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &RowHash)> {
        let mut begin = 0;
        self.rows.iter().map(move |(end, hash)| {
            let key = &self.keys[begin..*end];
            begin = *end;
            (key, hash)
        })
    }
}

const BATCH_ROWS: usize = 1024;
const BATCHES_AHEAD: usize = 4;

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        thread,
    };

    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::{
        disk::RealDisk,
        id::{Author, EntryId, StoreId},
        protocol::{
            anchors_act::{ActCollection, AnchorsAct},
            entry::{Header, Op, VerifiedEntry, sign, tests::AUTHOR_A},
            finality::Collections,
            frontier::FrontierTip,
            heads::Content,
            hlc::Hlc,
            merkle::{Levels, StreamRoot, verify},
            placed_act::PlacedAct,
        },
        state::State,
        support::{
            mutator::soaked,
            random::{Random, for_each_seed},
        },
    };

    const STORE: StoreId = StoreId([5; 16]);
    const KEYS: usize = 2000;

    // The root of a view by reading all of its rows, as readers get them.
    fn scanned(view: &View) -> TreeRoot {
        let mut root = StreamRoot::new(Levels::new(STORE));
        for (key, heads) in view.scan(&[], None, usize::MAX).unwrap() {
            root.push(&key, &RowHash::of(&encode_heads(&heads)));
        }
        root.finish()
    }

    fn key(number: usize) -> Bytes {
        format!("/key/{number:04}").into()
    }

    struct Writer {
        last: Option<VerifiedEntry>,
    }

    impl Writer {
        // The next entry: puts and deletes of some keys, values in the log among them.
        fn next(&self, random: &mut Random) -> VerifiedEntry {
            let last = self.last.as_ref();
            let seq = last.map_or(1, |last| last.header.seq + 1);
            let header = Header {
                store: STORE,
                seq,
                prev: last.map(|last| last.id),
                hlc: Hlc::new(seq, 0).unwrap(),
                atomic: false,
                cause: None,
                parents: Vec::new(),
            };
            let keys: BTreeSet<_> = (0..=random.below(60)).map(|_| random.below(KEYS)).collect();
            let op = |number| match random.below(8) {
                0 => Op::Delete { key: key(number) },
                1 => Op::Put {
                    key: key(number),
                    value: vec![7; 1025 + random.below(3)].into(),
                    expires_ms: None,
                },
                _small => Op::Put {
                    key: key(number),
                    value: random.bytes(20).into(),
                    expires_ms: None,
                },
            };
            let ops = keys.into_iter().map(op).collect();
            let signer = SigningKey::from_bytes(&AUTHOR_A);
            sign(&signer, header, ops).unwrap()
        }
    }

    fn open(dir: &tempfile::TempDir) -> State {
        let path = dir.path().join("state.db");
        State::open(Arc::new(RealDisk), &path, STORE).unwrap().0
    }

    // Takes the tombstones through some entry from all rows, some pages at a time.
    fn sweep(state: &mut State, random: &mut Random, last: u64) {
        let act = |seq, ordered| {
            let author = Author(SigningKey::from_bytes(&AUTHOR_A).verifying_key().to_bytes());
            let id = EntryId([1; 32]);
            let anchors = [(author, FrontierTip { seq, id })].into_iter();
            AnchorsAct::new(1, None, 0, anchors.collect(), ordered).unwrap()
        };
        if last == 0 {
            return;
        }
        let earlier = 1 + random.bits() % last;
        let placed = |id, act| PlacedAct {
            by: Author([0; 32]),
            at: FrontierTip {
                seq: 1,
                id: EntryId([id; 32]),
            },
            store: STORE,
            cites: Vec::new(),
            act,
        };
        let before = Some(ActCollection {
            before: EntryId([1; 32]),
            own: BTreeMap::new(),
        });
        let acts = [placed(1, act(earlier, None)), placed(2, act(last, before))];
        let Ok(collections) =
            Collections::join(&acts, |_act, _collection| Ok::<_, Infallible>(true));
        let before = state.staged().scan(&[], None, usize::MAX).unwrap();
        state.set_collections(collections);
        let mut after: Option<Bytes> = None;
        while !state.staged().is_swept {
            after = state
                .sweep(after.as_deref(), 1 + random.below(300))
                .unwrap();
            state.show();
        }
        let is_over = |heads: &Heads| {
            let mut heads = heads.as_slice().iter();
            heads.all(|head| head.content == Content::Tombstone && head.seq <= earlier)
        };
        let left = before.into_iter().filter(|(_, heads)| !is_over(heads));
        let view = state.reader().view();
        assert_eq!(
            view.scan(&[], None, usize::MAX).unwrap(),
            left.collect::<Vec<_>>()
        );
    }

    #[test]
    fn root_of_each_view_is_that_of_its_rows() {
        for_each_seed(1..=soaked(8), |random| {
            let dir = tempfile::tempdir().unwrap();
            let mut state = open(&dir);
            let mut writer = Writer { last: None };
            let mut kept = Vec::new();
            for _ in 0..100 {
                match random.below(10) {
                    0..5 => {
                        let entry = writer.next(random);
                        state.stage(&entry).unwrap();
                        if random.once_in(5) {
                            state.forget();
                        } else {
                            state.show();
                            writer.last = Some(entry);
                        }
                    }
                    5 if !state.is_flushing() => state.flush(Vec::new()),
                    6 => drop(state.finish_flush(random.once_in(2)).unwrap()),
                    7 => kept.push(state.reader().view()),
                    9 => {
                        let through = writer.last.as_ref().map_or(0, |last| last.header.seq);
                        sweep(&mut state, random, through);
                    }
                    8 if !kept.is_empty() => {
                        let view = kept.swap_remove(random.below(kept.len()));
                        assert_eq!(view.root().unwrap(), scanned(&view));
                    }
                    _root => {
                        let view = state.reader().view();
                        assert_eq!(view.root().unwrap(), scanned(&view));
                    }
                }
            }
            state.finish_flush(true).unwrap();
            let view = state.reader().view();
            let root = view.root().unwrap();
            assert_eq!(root, scanned(&view));
            state.flush(Vec::new());
            state.finish_flush(true).unwrap();
            assert_eq!(state.reader().view().root().unwrap(), root);
            drop((view, kept));
            state.close().unwrap();
            let state = open(&dir);
            let view = state.reader().view();
            assert_eq!(view.root().unwrap(), root, "opened again");
            assert_eq!(
                view.keys,
                view.scan(&[], None, usize::MAX).unwrap().len() as u64
            );
        });
    }

    #[test]
    fn proofs_of_a_view_hold_for_its_root() {
        let dir = tempfile::tempdir().unwrap();
        let (mut state, mut writer) = (open(&dir), Writer { last: None });
        let mut random = Random::new(1);
        for number in 0..60 {
            let entry = writer.next(&mut random);
            state.stage(&entry).unwrap();
            state.show();
            writer.last = Some(entry);
            if number == 40 {
                state.flush(Vec::new());
                state.finish_flush(true).unwrap();
            }
        }
        let view = state.reader().view();
        let (mut there, levels) = (0, Levels::new(STORE));
        for number in (0..KEYS).step_by(7) {
            let key = key(number);
            let (root, row, proof) = view.prove(&key).unwrap();
            assert_eq!(root, scanned(&view));
            assert_eq!(row.is_some(), view.heads(&key).unwrap().winner().is_some());
            there += usize::from(row.is_some());
            verify(&levels, &root, &key, row.as_deref(), &proof).unwrap();
        }
        assert!(
            (50..KEYS / 7 - 50).contains(&there),
            "{there} keys are there"
        );
    }

    /// The flusher does not wait for a reader of the tree, and its rows are noted all the same.
    #[test]
    fn flush_while_a_tree_is_read_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let (mut state, mut writer) = (open(&dir), Writer { last: None });
        let mut random = Random::new(1);
        for _ in 0..10 {
            let view = state.reader().view();
            view.root().unwrap();
            view.with_tree(|_tree| {
                let entry = writer.next(&mut random);
                state.stage(&entry)?;
                state.show();
                writer.last = Some(entry);
                state.flush(Vec::new());
                state.finish_flush(true)
            })
            .unwrap();
            let view = state.reader().view();
            assert_eq!(view.root().unwrap(), scanned(&view));
        }
    }

    #[test]
    fn roots_and_flushes_go_on_beside_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let (mut state, mut writer) = (open(&dir), Writer { last: None });
        let mut random = Random::new(1);
        let (reader, done) = (state.reader().clone(), AtomicBool::new(false));
        let roots = thread::scope(|scope| {
            let readers = [(); 2].map(|()| {
                scope.spawn(|| {
                    let mut roots = 0;
                    while !done.load(Ordering::Relaxed) {
                        let view = reader.view();
                        assert_eq!(view.root().unwrap(), scanned(&view));
                        roots += 1;
                    }
                    roots
                })
            });
            for number in 0..200 {
                let entry = writer.next(&mut random);
                state.stage(&entry).unwrap();
                state.show();
                writer.last = Some(entry);
                if number % 3 == 0 {
                    state.finish_flush(false).unwrap();
                }
                if !state.is_flushing() {
                    state.flush(Vec::new());
                }
            }
            done.store(true, Ordering::Relaxed);
            readers.map(|reader| reader.join().unwrap())
        });
        assert!(roots.iter().all(|roots| *roots > 0), "{roots:?}");
        state.finish_flush(true).unwrap();
        let view = state.reader().view();
        assert_eq!(view.root().unwrap(), scanned(&view));
    }
}
