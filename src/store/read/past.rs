//! The past: keys as they were at a time, from the log.
//!
//! The state at a time follows from the entries stamped up to then by their authors' clocks. An entry
//! is stamped after the entries that it cites, so this is a state that a node can have had. All nodes
//! with the same entries answer alike; entries written before that time count also if they arrived
//! here after it.
//!
//! A key whose heads are all stamped up to then had these heads: whatever they supersede is stamped
//! before them. So only a key that changed since costs more than a list of the keys now.
//!
//! The way back goes from each entry to those that it cites. A node cites what it writes over, also
//! its own; of an author whose program does not, the values that it wrote over are not found.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    mem,
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    id::EntryId,
    limits::{HISTORY_ENTRIES_MAX, PAGE_BYTES, PAST_ENTRIES_BYTES, SCAN_ROWS},
    protocol::{
        change::EntryRef,
        entry::{Entry, Op, Parent, VerifiedEntry, check_key},
        frontier::{Frontier, FrontierTip},
        heads::{Head, Heads},
        membership::Standing,
    },
    state::{Base, View},
    store::{Item, List, ReadError, Shared, Store, item::value_of, taken::check_reach},
};

/// Why the past could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PastError {
    /// The key was written more often since that time than is walked through.
    #[error(
        "{:?} was written more than {entries_max} times since then: too far back",
        String::from_utf8_lossy(key)
    )]
    TooFar {
        /// Key whose past was asked for.
        key: Bytes,
        /// Largest number of entries that are walked through.
        entries_max: usize,
    },
    /// The log or the state could not be read, or an entry is missing in the log.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A key with different values at two times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Key that differs.
    pub key: Bytes,
    /// Value at the first time; `None`: the key had no value.
    pub before: Option<Item>,
    /// Value at the second time; `None`: the key had no value.
    pub after: Option<Item>,
}

/// Keys as they were, page by page. Holds one view of the state as long as it lives.
#[derive(Debug)]
pub struct Past {
    shared: Arc<Shared>,
    view: Arc<View>,
    options: List,
    // Rows that were read from the state and not examined.
    rows: VecDeque<(Bytes, Heads)>,
    // Last key that was read; `None`: no key was read.
    after: Option<Bytes>,
    // True when there are no rows after `rows`.
    done: bool,
    entries: Entries,
}

/// Entries that were read for the last keys. One entry may have a thousand keys, in order.
#[derive(Debug, Default)]
struct Entries {
    // At most PAST_ENTRIES_BYTES of encoded entries; when full, all are dropped.
    read: HashMap<EntryId, ReadEntry>,
    bytes: usize,
}

#[derive(Debug)]
struct ReadEntry {
    entry: VerifiedEntry,
    // Places of its ops by key.
    ops: HashMap<Bytes, usize>,
    is_excluded: bool,
}

impl Store {
    /// Returns the value that `key` had at `ms` (since 1970, inclusive).
    ///
    /// # Errors
    /// `TooFar`; `Read` when the log is damaged, or `Pruned` when the key's value depends on entries that
    /// were removed from it: `ms` is before `Pruned::reach_ms`, and the key was written by then, and again
    /// after `ms`, or acts took what was deleted. From `Pruned::reach_ms` on the answer is exact.
    pub async fn get_at(&self, key: &[u8], ms: u64) -> Result<Option<Item>, PastError> {
        check_key(key).map_err(ReadError::Key)?;
        let key = Bytes::copy_from_slice(key);
        let shared = Arc::clone(&self.shared);
        off_the_loop(move || {
            let view = shared.state.view();
            let heads = view.heads(&key).map_err(ReadError::from)?;
            if !are_all_of(&heads, ms) {
                check_reach(&view, ms)?;
            }
            shared.item_at(&key, &heads, ms, false, &mut Entries::default())
        })
        .await
    }

    /// Returns the keys that had a value at `ms` (since 1970, inclusive), in order.
    ///
    /// # Errors
    /// Like `get_at`.
    pub async fn list_at(&self, options: List, ms: u64) -> Result<Vec<Item>, PastError> {
        let mut left = options.limit.unwrap_or(usize::MAX);
        let mut past = self.past(options);
        let mut items = Vec::new();
        while let Some(page) = past.next_items(ms).await? {
            let page = page.into_iter().take(left);
            items.extend(page);
            left = past
                .options
                .limit
                .map_or(usize::MAX, |limit| limit - items.len());
            if left == 0 {
                break;
            }
        }
        Ok(items)
    }

    /// Returns the keys whose value, or the entry that put this value, was not the same at the two
    /// times (ms since 1970, inclusive), in order.
    ///
    /// # Errors
    /// Like `get_at`.
    pub async fn diff(
        &self,
        prefix: impl Into<Bytes>,
        from_ms: u64,
        to_ms: u64,
    ) -> Result<Vec<Difference>, PastError> {
        let options = List {
            prefix: prefix.into(),
            ..List::default()
        };
        let mut past = self.past(options);
        let mut differences = Vec::new();
        while let Some(page) = past.next_differences(from_ms, to_ms).await? {
            differences.extend(page);
        }
        Ok(differences)
    }

    /// Reads the past page by page: `list_at` and `diff` for results that do not fit in memory. The
    /// limit in `options` is ignored.
    pub fn past(&self, options: List) -> Past {
        Past {
            shared: Arc::clone(&self.shared),
            view: self.shared.state.view(),
            options,
            rows: VecDeque::new(),
            after: None,
            done: false,
            entries: Entries::default(),
        }
    }
}

impl Past {
    /// Returns the next keys that had a value at `ms`; `None` at the end. A page may be empty.
    ///
    /// # Errors
    /// Like `Store::get_at`.
    pub async fn next_items(&mut self, ms: u64) -> Result<Option<Vec<Item>>, PastError> {
        check_reach(&self.view, ms)?;
        let keys_only = self.options.keys_only;
        self.next_page(move |shared, key, heads, entries| {
            let item = shared.item_at(key, heads, ms, keys_only, entries)?;
            let bytes = item.as_ref().map_or(0, |item| item.value.len());
            Ok(item.map(|item| (item, bytes)))
        })
        .await
    }

    /// Returns the next keys that were different at the two times; `None` at the end. A page may be
    /// empty.
    ///
    /// # Errors
    /// Like `Store::get_at`.
    pub async fn next_differences(
        &mut self,
        from_ms: u64,
        to_ms: u64,
    ) -> Result<Option<Vec<Difference>>, PastError> {
        check_reach(&self.view, from_ms.min(to_ms))?;
        let keys_only = self.options.keys_only;
        self.next_page(move |shared, key, heads, entries| {
            let stamps = heads.as_slice().iter().map(|head| head.hlc.wall_ms);
            let is_older = stamps
                .max()
                .is_some_and(|newest| newest <= from_ms.min(to_ms));
            let expires_ms = heads.winner().and_then(Head::expires_ms);
            if is_older && expires_ms.is_none() {
                return Ok(None);
            }
            let before = shared.item_at(key, heads, from_ms, keys_only, entries)?;
            let after = shared.item_at(key, heads, to_ms, keys_only, entries)?;
            let entry = |item: &Option<Item>| item.as_ref().map(|item| item.entry);
            if entry(&before) == entry(&after) {
                return Ok(None);
            }
            let values = before.iter().chain(&after).map(|item| item.value.len());
            let bytes = values.sum();
            let key = key.clone();
            Ok(Some((Difference { key, before, after }, bytes)))
        })
        .await
    }

    // Returns the results of `look` for the next keys, about `PAGE_BYTES`. `look` returns a result with
    // about the bytes that it takes.
    async fn next_page<T: Send + 'static>(
        &mut self,
        look: impl Fn(&Shared, &Bytes, &Heads, &mut Entries) -> Result<Option<(T, usize)>, PastError>
        + Send
        + 'static,
    ) -> Result<Option<Vec<T>>, PastError> {
        if self.rows.is_empty() && !self.done {
            let after = self.after.as_deref();
            let rows = self.view.scan(&self.options.prefix, after, SCAN_ROWS);
            let rows = rows.map_err(ReadError::from)?;
            self.done = rows.len() < SCAN_ROWS;
            self.after = rows.last().map(|(key, _)| key.clone());
            self.rows = rows.into();
        }
        if self.rows.is_empty() {
            return Ok(None);
        }
        let (shared, mut rows) = (Arc::clone(&self.shared), self.rows.clone());
        let mut entries = mem::take(&mut self.entries);
        let (page, rows, entries) = off_the_loop(move || {
            let (mut page, mut page_bytes) = (Vec::new(), 0);
            while page_bytes < PAGE_BYTES
                && let Some((key, heads)) = rows.pop_front()
            {
                if let Some((found, bytes)) = look(&shared, &key, &heads, &mut entries)? {
                    page_bytes += key.len() + bytes;
                    page.push(found);
                }
            }
            Ok((page, rows, entries))
        })
        .await?;
        (self.rows, self.entries) = (rows, entries);
        Ok(Some(page))
    }
}

impl Shared {
    // Returns the winner of `key` at `ms`, if it had a value then; `heads` are its heads now.
    fn item_at(
        &self,
        key: &Bytes,
        heads: &Heads,
        ms: u64,
        keys_only: bool,
        entries: &mut Entries,
    ) -> Result<Option<Item>, PastError> {
        if are_all_of(heads, ms) {
            return Ok(self.item(key, heads, ms, keys_only)?);
        }
        let found = self.heads_at(key, heads, ms, entries)?;
        let heads: Vec<Head> = found.values().map(|(head, _)| head.clone()).collect();
        let count = u32::try_from(heads.len()).unwrap_or(u32::MAX);
        let heads = Heads::new(heads);
        let Some(winner) = heads.winner().filter(|winner| winner.is_live(ms)) else {
            return Ok(None);
        };
        let value = found
            .get(&winner.as_parent())
            .and_then(|(_, op)| value_of(op));
        Ok(Some(Item {
            key: key.clone(),
            value: value.filter(|_| !keys_only).unwrap_or_default(),
            entry: EntryRef::from(winner),
            expires_ms: winner.expires_ms(),
            heads: count,
            other_heads: Item::other_heads(&heads),
        }))
    }

    // Walks down from the heads, newest first, until only superseded entries are left. Returns the
    // heads at `ms`.
    fn heads_at(
        &self,
        key: &Bytes,
        heads: &Heads,
        ms: u64,
        entries: &mut Entries,
    ) -> Result<BTreeMap<Parent, (Head, Op)>, PastError> {
        let mut todo: BTreeSet<Parent> = heads.as_slice().iter().map(Head::as_parent).collect();
        let mut found = BTreeMap::new();
        // Entries that were superseded by an entry stamped up to `ms`.
        let mut superseded: BTreeSet<Parent> = BTreeSet::new();
        let view = self.state.view();
        let base = self.base_at(ms);
        let mut walked = 0;
        // Takes the newest entry first, so that all entries above it are known by then.
        while let Some(at) = todo.pop_last() {
            if superseded.contains(&at) && todo.iter().all(|at| superseded.contains(at)) {
                break;
            }
            if let Some(pruned) = self.log.pruned_at(&at.author, at.seq) {
                if superseded.contains(&at) {
                    continue;
                }
                // A removal may have gone further meanwhile.
                let is_in_base = base.as_ref().is_some_and(|base| {
                    let anchor = base.manifest().anchor(&at.author);
                    anchor.is_some_and(|anchor| anchor.is_final(at.seq))
                });
                let of_base = match &base {
                    Some(base) => base.heads(key).map_err(ReadError::from)?,
                    None => Heads::default(),
                };
                let is_it = |head: &&Head| head.as_parent() == at && head.hlc.wall_ms <= ms;
                let known = heads.as_slice().iter().chain(of_base.as_slice());
                match known.into_iter().find(is_it) {
                    Some(head) => {
                        let op = self.op_of_head(key, head)?;
                        found.insert(at, (head.clone(), op));
                    }
                    // Another entry in the base has superseded it, or it has not written the key.
                    // The base may be newer than the view that the caller has looked at.
                    None if is_in_base => check_reach(&view, ms)?,
                    None => {
                        let all = self.log.pruned().unwrap_or(pruned);
                        return Err(ReadError::Pruned(all).into());
                    }
                }
                continue;
            }
            walked += 1;
            if walked > HISTORY_ENTRIES_MAX {
                return Err(PastError::TooFar {
                    key: key.clone(),
                    entries_max: HISTORY_ENTRIES_MAX,
                });
            }
            let ReadEntry {
                entry,
                ops,
                is_excluded,
            } = entries.read(self, &at)?;
            // A parent belongs to the whole entry, and may have written another of its keys only.
            let is_void = |op: &&Op| view.is_void(entry, op);
            let op = ops.get(key).and_then(|place| entry.ops.get(*place));
            let Some(op) = op.filter(|op| !*is_excluded && !is_void(op)) else {
                continue;
            };
            todo.extend(entry.header.parents.iter().copied());
            if entry.header.hlc.wall_ms > ms {
                continue;
            }
            superseded.extend(entry.header.parents.iter().copied());
            if !superseded.contains(&at) {
                let mut head = Head::of(entry, op);
                head.taken_back = view.is_taken_back(entry).map_err(ReadError::from)?;
                found.insert(at, (head, op.clone()));
            }
        }
        Ok(found)
    }

    // Returns the base that has the heads of all entries that were removed from the logs, if all of them
    // are stamped up to `ms`: then none of these heads was superseded later than that by another one.
    fn base_at(&self, ms: u64) -> Option<Arc<Base>> {
        let begins = self.log.begins();
        let mut stamps = begins.iter().map(|(_, begin)| begin.anchor.hlc.wall_ms);
        if begins.is_empty() || stamps.any(|wall_ms| wall_ms > ms) {
            return None;
        }
        let bases = self.base.all();
        let begins: Frontier = begins
            .into_iter()
            .map(|(author, begin)| (author, begin.anchor.tip()))
            .collect();
        // A newer base has heads that were written after `ms`.
        let mut bases = bases.newest.into_iter().chain(bases.beginning);
        bases.find(|base| base.manifest().frontier() == begins)
    }

    // Returns the op that put `head`, wherever its value is.
    fn op_of_head(&self, key: &Bytes, head: &Head) -> Result<Op, ReadError> {
        let key = key.clone();
        Ok(match self.value(&key, head)? {
            None => Op::Delete { key },
            Some(value) => Op::Put {
                key,
                value,
                expires_ms: head.expires_ms(),
            },
        })
    }

    fn entry_of(&self, at: &Parent) -> Result<VerifiedEntry, ReadError> {
        let found = self.log.entry(&at.author, at.seq, &at.id)?;
        let (entry, _record) = found.ok_or_else(|| ReadError::Damaged {
            what: format!(
                "the log does not reach back to that time: entry {} of {} is missing",
                at.seq,
                at.author.short()
            ),
        })?;
        Ok(entry)
    }

    // Returns whether the entry no longer counts since its author was removed, or its key is spent, or
    // since it is void.
    fn is_excluded(&self, entry: &Entry) -> Result<bool, ReadError> {
        let author = entry.author();
        let standing = self.standing(&author)?;
        if matches!(standing, Standing::Unknown | Standing::Reader) {
            return Ok(false);
        }
        let finality = Arc::clone(&self.finality.borrow());
        let place = FrontierTip::of(entry);
        Ok(!self.log.counts(&finality, &standing, &author, place)?)
    }
}

impl Entries {
    // Returns the entry at a place, from the log if it was not among the last ones.
    fn read(&mut self, shared: &Shared, at: &Parent) -> Result<&ReadEntry, ReadError> {
        if !self.read.contains_key(&at.id) {
            let entry = shared.entry_of(at)?;
            let bytes = entry.signed.header.len() + entry.signed.ops.len();
            if self.bytes.saturating_add(bytes) > PAST_ENTRIES_BYTES {
                *self = Self::default();
            }
            self.bytes = self.bytes.saturating_add(bytes);
            let keys = entry.ops.iter().map(Op::key).cloned();
            let read = ReadEntry {
                ops: keys.zip(0..).collect(),
                is_excluded: shared.is_excluded(&entry)?,
                entry,
            };
            self.read.insert(at.id, read);
        }
        Ok(&self.read[&at.id])
    }
}

// Whether a key that has these heads had the same ones at `ms`. A key without any may have had some.
fn are_all_of(heads: &Heads, ms: u64) -> bool {
    let heads = heads.as_slice();
    !heads.is_empty() && heads.iter().all(|head| head.hlc.wall_ms <= ms)
}

async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PastError> + Send + 'static,
) -> Result<T, PastError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_stopped| ReadError::Closed)?
}
