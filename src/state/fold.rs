//! A fold: the rows of a base, to which entries are applied, and which become the next base.
//!
//! Entries change the rows by the same code as those of the state (`stage.rs`). The lowest layer is the
//! base before; only what changes is in memory.

use std::{collections::BTreeMap, mem, path::Path, sync::Arc};

use bytes::Bytes;

use crate::{
    disk::Disk,
    id::{Author, EntryId, StoreId},
    limits::SCAN_ROWS,
    pace::Pace,
    protocol::{
        anchor::Anchor,
        entry::{Entry, VerifiedEntry},
        finality::{Collections, CollectionsHash},
        frontier::Frontier,
        heads::{Before, Content, Head, Heads, Value},
        heads_row::encode_heads,
        merkle::Levels,
    },
    state::{
        Staged, State, StateError, View,
        ahead::Outlived,
        base::{Base, BaseBuilder, BaseManifest, Body, RecordKey, RecordKind},
        flushed::Flushed,
        row::encode_cause,
        shared_tree::SharedTree,
        view::Layer,
    },
};

/// Rows that entries are applied to.
pub(crate) trait Staging {
    /// Returns the heads of `key`, staged entries included.
    fn heads(&self, key: &[u8]) -> Result<Heads, StateError>;
    /// Changes the heads of an entry's keys, as `State::stage_over`.
    fn stage_over(
        &mut self,
        entry: &VerifiedEntry,
        before: Before,
    ) -> Result<Vec<Option<Staged>>, StateError>;
    /// Notes that `author` has taken back its entry `id`, as `State::take_back`.
    fn take_back(&mut self, author: &Author, id: &EntryId) -> Result<bool, StateError>;
    /// Lowers the heads of an entry that was taken back, as `State::lower`.
    fn lower(&mut self, entry: &EntryId, keys: &[Bytes]) -> Result<(), StateError>;
}

impl Staging for State {
    fn heads(&self, key: &[u8]) -> Result<Heads, StateError> {
        Self::heads(self, key)
    }

    fn stage_over(
        &mut self,
        entry: &VerifiedEntry,
        before: Before,
    ) -> Result<Vec<Option<Staged>>, StateError> {
        Self::stage_over(self, entry, before)
    }

    fn take_back(&mut self, author: &Author, id: &EntryId) -> Result<bool, StateError> {
        Self::take_back(self, author, id)
    }

    fn lower(&mut self, entry: &EntryId, keys: &[Bytes]) -> Result<(), StateError> {
        Self::lower(self, entry, keys).map(drop)
    }
}

/// The rows of a base, and of entries that are applied to them.
#[derive(Debug)]
pub(crate) struct Fold {
    store: StoreId,
    base: Option<Arc<Base>>,
    // The collections of which the rows have the effect.
    collected: CollectionsHash,
    view: View,
}

impl Fold {
    /// Begins with the rows of `base`; with none for a store that has no base.
    pub(crate) fn new(store: StoreId, base: Option<Arc<Base>>) -> Self {
        let manifest = base.as_ref().map(|base| base.manifest());
        let view = View {
            recent: Layer::default(),
            flushing: Layer::default(),
            flushed: Arc::new(match &base {
                Some(base) => Flushed::Base(Arc::clone(base)),
                None => Flushed::None,
            }),
            frontier: Arc::new(manifest.map_or_else(Frontier::default, BaseManifest::frontier)),
            lacks: false,
            version: 0,
            keys: manifest.map_or(0, |manifest| manifest.keys),
            entries: manifest.map_or(0, |manifest| manifest.entries),
            expired_through_ms: 0,
            counting: None,
            collections: Arc::default(),
            is_swept: true,
            has_taken_back: manifest.is_some_and(|manifest| manifest.has_taken_back),
            // Those of a base are not numbered: see `ahead.rs`.
            citers: 0,
            tree: Arc::new(SharedTree::new(store)),
        };
        let collected = manifest.map_or(CollectionsHash::NONE, |manifest| manifest.collected);
        Self {
            store,
            base,
            collected,
            view,
        }
    }

    /// Returns for each op of `entry` whether an entry of the base that wrote its key has cited `entry`.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(crate) fn cited_ahead(&self, entry: &Entry) -> Result<Vec<bool>, StateError> {
        self.view.is_ahead_of(entry)
    }

    /// Notes that `author` has closed its tip `id`.
    pub(crate) fn close_tip(&mut self, author: &Author, id: &EntryId) {
        self.view.close_tip(author, id);
    }

    /// Takes the heads that `collections` name from up to `limit` rows after the key `after`. Returns the last
    /// key; `None` at the end of all rows.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(crate) fn sweep(
        &mut self,
        collections: &Collections,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Option<Bytes>, StateError> {
        self.collected = collections.hash();
        let rows = self.view.scan(&[], after, limit)?;
        let mut last = None;
        for (key, heads) in rows {
            if let Some(left) = collections.take_from(&heads) {
                self.view.replace(&key, heads, left);
            }
            last = Some(key);
        }
        Ok(last)
    }

    /// Calls `each` with the rows, in order.
    ///
    /// # Errors
    /// `Damaged`, `Io`, and the errors of `each`.
    pub(crate) fn each_row(
        &self,
        mut each: impl FnMut(&Bytes, &Heads) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let mut after: Option<Bytes> = None;
        loop {
            let rows = self.view.scan(&[], after.as_deref(), SCAN_ROWS)?;
            for (key, heads) in &rows {
                each(key, heads)?;
            }
            match rows.last() {
                Some((key, _)) if rows.len() == SCAN_ROWS => after = Some(key.clone()),
                _end => return Ok(()),
            }
        }
    }

    /// Returns roughly the bytes of memory that the changed rows take.
    pub(crate) fn bytes(&self) -> usize {
        self.view.recent.bytes
    }

    /// Writes the rows as a base with these anchors, the last entries of each author that were applied.
    /// `is_last`: all entries through the anchors were applied; if not, the base is only good to be gone on
    /// with. `value` reads a value that is not in the row of its head. The files are durable on return; the
    /// base is the newest one after `Base::commit`.
    ///
    /// # Errors
    /// `Damaged`, `Io`, and the errors of `value`.
    pub(crate) fn build(
        self,
        disk: &dyn Disk,
        dir: &Path,
        number: u64,
        anchors: Vec<(Author, Anchor)>,
        is_last: bool,
        value: &Values<'_>,
    ) -> Result<Base, StateError> {
        let mut changes: BTreeMap<RecordKey, Change> = BTreeMap::new();
        let (layer, mut outlived) = (&self.view.recent, Outlived::default());
        let mut pace = Pace::start();
        for (key, heads) in &layer.heads {
            pace.step();
            let before = self.view.flushed.heads(key)?;
            for head in long(&before) {
                changes.insert(RecordKey::value(key, &head.id), Change::None);
            }
            for head in long(heads) {
                let record = RecordKey::value(key, &head.id);
                if changes.remove(&record).is_none() {
                    changes.insert(record, Change::Value(key.clone(), head.clone()));
                }
            }
            let row = match heads.winner() {
                Some(_) => Change::Is(encode_heads(heads)),
                None => Change::None,
            };
            changes.insert(RecordKey::new(RecordKind::Heads, key), row);
        }
        for (cause, (seq, entry)) in &layer.causes {
            let body = encode_cause(entry, *seq);
            changes.insert(
                RecordKey::new(RecordKind::Cause, &cause.0),
                Change::Is(body),
            );
        }
        if is_last {
            let frontier = anchors
                .iter()
                .map(|(author, anchor)| (*author, anchor.tip()));
            outlived = self.view.outlived(&frontier.collect())?;
        }
        for (key, body) in layer
            .facts
            .iter()
            .chain(outlived.changed.iter().map(|(k, b)| (k, b)))
        {
            let body = Change::Is(body.to_vec());
            changes.insert(RecordKey::new(RecordKind::Fact, key), body);
        }
        for key in &outlived.gone {
            changes.insert(RecordKey::new(RecordKind::Fact, key), Change::None);
        }
        let mut builder = BaseBuilder::begin(disk, dir, Levels::new(self.store))?;
        let changes = changes.into_iter().map(|(key, change)| {
            let body = match change {
                Change::None => Body::None,
                Change::Is(body) => Body::Is(body.into()),
                Change::Value(key, head) => Body::Later(Box::new(move || value(&key, &head))),
            };
            (key, body)
        });
        builder.merge(self.base.as_deref(), changes)?;
        builder.finish(BaseManifest {
            store: self.store,
            number,
            keys: self.view.keys,
            entries: self.view.entries,
            anchors,
            has_taken_back: self.view.has_taken_back,
            collected: self.collected,
            parts: Vec::new(),
        })
    }
}

/// Reads the value of a head at a key.
pub(crate) type Values<'a> = dyn Fn(&[u8], &Head) -> Result<Bytes, StateError> + 'a;

enum Change {
    None,
    Is(Vec<u8>),
    // The value of this head at this key.
    Value(Bytes, Head),
}

// The heads whose values are not in their row.
fn long(heads: &Heads) -> impl Iterator<Item = &Head> {
    heads.as_slice().iter().filter(|head| {
        matches!(
            head.content,
            Content::Value {
                value: Value::InLog { .. },
                ..
            }
        )
    })
}

impl Staging for Fold {
    fn heads(&self, key: &[u8]) -> Result<Heads, StateError> {
        self.view.heads(key)
    }

    fn stage_over(
        &mut self,
        entry: &VerifiedEntry,
        mut before: Before,
    ) -> Result<Vec<Option<Staged>>, StateError> {
        self.view.put_ahead(entry, mem::take(&mut before.absent));
        let cited = self.view.is_ahead_of(entry)?;
        let changes = self.view.stage_over(entry, before)?;
        for (op, _cited) in entry.ops.iter().zip(cited).filter(|(_op, cited)| *cited) {
            self.view.supersede(op.key(), &entry.id)?;
        }
        Ok(changes)
    }

    fn take_back(&mut self, author: &Author, id: &EntryId) -> Result<bool, StateError> {
        self.view.take_back(author, id)
    }

    fn lower(&mut self, entry: &EntryId, keys: &[Bytes]) -> Result<(), StateError> {
        self.view.lower(entry, keys).map(drop)
    }
}
