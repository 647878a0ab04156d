//! The history of a key: the entries that wrote it, and the entries that each superseded.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    id::EntryId,
    limits::HISTORY_ENTRIES_MAX,
    log::Pruned,
    protocol::{
        change::EntryRef,
        entry::{Op, Parent, VerifiedEntry, cause::Cause, check_key},
        heads::Head,
    },
    state::View,
    store::{
        ReadError, Shared, Store,
        item::{op_of, value_of},
        taken::taken,
    },
};

/// Entries that wrote a key, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Entries in descending order.
    pub entries: Vec<HistoryEntry>,
    /// True when there are older entries.
    pub truncated: bool,
    /// Older entries that were removed from the log, if the walk has met some; `truncated` is true then.
    /// The list has all entries down to the newest one that is gone, and below that only heads: those
    /// of which the entry is gone without parents and cause. It is empty if acts took what was deleted.
    pub pruned: Option<Pruned>,
}

/// One entry in the history of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Entry that wrote the key.
    pub entry: EntryRef,
    /// Value that it put; `None` for a delete.
    pub value: Option<Bytes>,
    /// When it expires, ms since 1970; `None`: never.
    pub expires_ms: Option<u64>,
    /// Entries of this key that it superseded.
    pub parents: Vec<EntryId>,
    /// Why a hook wrote it; `None` if no hook did.
    pub cause: Option<Cause>,
    /// True for a head: no entry supersedes it.
    pub head: bool,
    /// True for the winner, which reads return.
    pub wins: bool,
}

impl Store {
    /// Returns the newest entries that wrote `key`, at most `limit` and at most `HISTORY_ENTRIES_MAX`.
    ///
    /// Walks back from the heads through the entries that each superseded.
    ///
    /// # Errors
    /// `ReadError`.
    pub async fn history(&self, key: &[u8], limit: usize) -> Result<History, ReadError> {
        check_key(key).map_err(ReadError::Key)?;
        let key = Bytes::copy_from_slice(key);
        let limit = limit.min(HISTORY_ENTRIES_MAX);
        self.read(move |shared, view| shared.history(view, &key, limit))
            .await
    }
}

impl Shared {
    fn history(&self, view: &View, key: &[u8], limit: usize) -> Result<History, ReadError> {
        let heads = view.heads(key)?;
        let wins = heads.winner().map(|winner| winner.id);
        let mut todo: BTreeSet<Parent> = heads.as_slice().iter().map(Head::as_parent).collect();
        let kept: BTreeMap<Parent, &Head> = heads
            .as_slice()
            .iter()
            .map(|head| (head.as_parent(), head))
            .collect();
        let heads: BTreeSet<EntryId> = todo.iter().map(|head| head.id).collect();
        let mut found: BTreeMap<Parent, Option<Found>> = BTreeMap::new();
        let mut pruned = None;
        // Takes the newest entry first, so that all entries above it are known by then.
        while let Some(next) = todo.pop_last() {
            if found.values().flatten().count() > limit {
                break;
            }
            if pruned.is_some() && !kept.contains_key(&next) {
                continue;
            }
            if let Some(gone) = self.log.pruned_at(&next.author, next.seq) {
                // The state has its value if it is a head.
                let head = kept.get(&next).copied();
                let head = head.map(|head| Ok::<_, ReadError>((head, self.value(key, head)?)));
                let head = head.transpose()?;
                pruned = pruned.or(Some(gone));
                found.insert(
                    next,
                    head.map(|(head, value)| Found::Head(head.clone(), value)),
                );
                continue;
            }
            let entry = self.log.entry(&next.author, next.seq, &next.id)?;
            let op = entry.and_then(|(entry, _)| op_of(&entry, key).cloned().map(|op| (entry, op)));
            if let (Some((entry, _)), None) = (&op, pruned) {
                let parents = entry
                    .header
                    .parents
                    .iter()
                    .filter(|at| !found.contains_key(at));
                todo.extend(parents.copied());
            }
            found.insert(next, op.map(|(entry, op)| Found::Entry(entry, op)));
        }
        let of_key: BTreeSet<EntryId> = found
            .iter()
            .filter(|(_, op)| op.is_some())
            .map(|(at, _)| at.id)
            .collect();
        let mut entries: Vec<_> = found
            .values()
            .rev()
            .flatten()
            .map(|found| {
                let mut entry = found.listed(&of_key);
                entry.head = heads.contains(&entry.entry.id);
                entry.wins = Some(entry.entry.id) == wins;
                entry
            })
            .collect();
        if entries.is_empty() {
            pruned = pruned.or_else(|| taken(view));
        }
        let truncated = entries.len() > limit || !todo.is_empty() || pruned.is_some();
        entries.truncate(limit);
        Ok(History {
            entries,
            truncated,
            pruned,
        })
    }
}

/// An entry that wrote the key: as the log has it, or a head and its value.
enum Found {
    Entry(VerifiedEntry, Op),
    Head(Head, Option<Bytes>),
}

impl Found {
    // `of_key`: the entries that are listed.
    fn listed(&self, of_key: &BTreeSet<EntryId>) -> HistoryEntry {
        match self {
            Self::Entry(entry, op) => HistoryEntry {
                entry: EntryRef::from(&**entry),
                value: value_of(op),
                expires_ms: match op {
                    Op::Put { expires_ms, .. } => *expires_ms,
                    Op::Delete { .. } => None,
                },
                parents: entry
                    .header
                    .parents
                    .iter()
                    .map(|parent| parent.id)
                    .filter(|id| of_key.contains(id))
                    .collect(),
                cause: entry.header.cause.clone(),
                head: false,
                wins: false,
            },
            Self::Head(head, value) => HistoryEntry {
                entry: EntryRef::from(head),
                value: value.clone(),
                expires_ms: head.expires_ms(),
                parents: Vec::new(),
                cause: None,
                head: false,
                wins: false,
            },
        }
    }
}
