//! The lowest layer of a view: rows that are not in memory. They are in the state file, as of one
//! commit, or in a base.

use std::{
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use bytes::Bytes;
use redb::{Database, ReadOnlyTable, ReadableDatabase as _, ReadableTableMetadata as _};

use crate::{
    id::{EntryId, Seq},
    protocol::{entry::cause::CauseId, heads::Heads, heads_row::decode_heads},
    state::{
        StateError,
        base::{Base, RecordKey, RecordKind},
        guarded::guarded,
        row,
        tables::{CAUSES, CAUSES_TABLE, EXPIRY_TABLE, FACTS, FACTS_TABLE, HEADS, HEADS_TABLE},
    },
};

/// Rows that are not in memory.
#[derive(Debug)]
pub(super) enum Flushed {
    /// They are in the state file.
    File(Box<Tables>),
    /// They are in a base. It has no rows by expiry.
    Base(Arc<Base>),
    /// There are none.
    None,
}

/// The tables of the file as of one commit.
pub(super) struct Tables {
    heads: ReadOnlyTable<&'static [u8], &'static [u8]>,
    expiry: ReadOnlyTable<(u64, &'static [u8]), ()>,
    causes: ReadOnlyTable<&'static [u8], &'static [u8]>,
    facts: ReadOnlyTable<&'static [u8], &'static [u8]>,
    // True while the file has no heads, so that look-ups need not read it.
    empty: bool,
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

impl Flushed {
    /// Opens the tables as of the last commit.
    pub(super) fn of(db: &Database) -> Result<Self, StateError> {
        let read = db.begin_read()?;
        let heads = read.open_table(HEADS_TABLE)?;
        let empty = heads.is_empty()?;
        Ok(Self::File(Box::new(Tables {
            heads,
            expiry: read.open_table(EXPIRY_TABLE)?,
            causes: read.open_table(CAUSES_TABLE)?,
            facts: read.open_table(FACTS_TABLE)?,
            empty,
        })))
    }

    /// Returns the heads of `key`; none when it has no row.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn heads(&self, key: &[u8]) -> Result<Heads, StateError> {
        match self {
            Self::None => Ok(Heads::default()),
            Self::File(tables) if tables.empty => Ok(Heads::default()),
            Self::File(tables) => guarded(|| match tables.heads.get(key)? {
                Some(row) => decode(key, unsealed(key, row.value())?),
                None => Ok(Heads::default()),
            }),
            Self::Base(base) => base.heads(key),
        }
    }

    /// Calls `each` with key and row of each key in the range, in order, until it breaks.
    ///
    /// # Errors
    /// `Damaged`, `Io`, and the errors of `each`.
    pub(super) fn rows(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        mut each: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StateError>,
    ) -> Result<(), StateError> {
        match self {
            Self::None => Ok(()),
            Self::File(tables) if tables.empty => Ok(()),
            Self::File(tables) => guarded(|| {
                for row in tables.heads.range::<&[u8]>(range)? {
                    let (key, row) = row?;
                    let key = key.value();
                    if each(key, unsealed(key, row.value())?)?.is_break() {
                        break;
                    }
                }
                Ok(())
            }),
            Self::Base(base) => {
                let start = match range.0 {
                    Bound::Included(start) | Bound::Excluded(start) => start,
                    Bound::Unbounded => &[],
                };
                let from = RecordKey::new(RecordKind::Heads, start);
                base.each_from(&from, |key, row| {
                    let Some(key) = key.of(RecordKind::Heads) else {
                        return Ok(false);
                    };
                    let is_past = match range.1 {
                        Bound::Included(end) => *key > *end,
                        Bound::Excluded(end) => *key >= *end,
                        Bound::Unbounded => false,
                    };
                    if is_past {
                        return Ok(false);
                    }
                    if range.0 == Bound::Excluded(&*key) {
                        return Ok(true);
                    }
                    Ok(each(&key, row)?.is_continue())
                })
            }
        }
    }

    /// Returns the entry that was written because of `cause`; `None` when there is none.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn caused(&self, cause: &CauseId) -> Result<Option<(Seq, EntryId)>, StateError> {
        let damaged = || StateError::damaged("the row of a cause fails its check");
        match self {
            Self::None => Ok(None),
            Self::File(tables) => guarded(|| {
                let Some(row) = tables.causes.get(cause.0.as_slice())? else {
                    return Ok(None);
                };
                let body = row::unseal(CAUSES, &cause.0, row.value()).and_then(row::decode_cause);
                body.map(Some).ok_or_else(damaged)
            }),
            Self::Base(base) => {
                let body = base.get(&RecordKey::new(RecordKind::Cause, &cause.0))?;
                body.map(|body| row::decode_cause(&body).ok_or_else(damaged))
                    .transpose()
            }
        }
    }

    /// Returns the body of a fact; `None` when it is not known.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn fact(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        match self {
            Self::None => Ok(None),
            Self::File(tables) => guarded(|| {
                let Some(row) = tables.facts.get(key)? else {
                    return Ok(None);
                };
                let body = row::unseal(FACTS, key, row.value()).ok_or_else(damaged_fact)?;
                Ok(Some(Bytes::copy_from_slice(body)))
            }),
            Self::Base(base) => base.get(&RecordKey::new(RecordKind::Fact, key)),
        }
    }

    /// Calls `found` with the rest of the key of each fact whose key begins with `prefix`; it returns
    /// `None` for a rest that is malformed.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn each_fact(
        &self,
        prefix: &[u8],
        mut found: impl FnMut(&[u8]) -> Option<()>,
    ) -> Result<(), StateError> {
        match self {
            Self::None => Ok(()),
            Self::File(tables) => guarded(|| {
                for row in tables.facts.range(prefix..)? {
                    let (key, row) = row?;
                    let Some(rest) = key.value().strip_prefix(prefix) else {
                        break;
                    };
                    row::unseal(FACTS, key.value(), row.value()).ok_or_else(damaged_fact)?;
                    found(rest).ok_or_else(damaged_fact)?;
                }
                Ok(())
            }),
            Self::Base(base) => {
                let from = RecordKey::new(RecordKind::Fact, prefix);
                base.each_from(&from, |key, _body| {
                    let key = key.of(RecordKind::Fact);
                    let rest = key.as_ref().and_then(|key| key.strip_prefix(prefix));
                    let Some(rest) = rest else {
                        return Ok(false);
                    };
                    found(rest).ok_or_else(damaged_fact)?;
                    Ok(true)
                })
            }
        }
    }

    /// Calls `each` with the winners that expire from `from_ms` (inclusive) to `to_ms` (exclusive), as
    /// (time, key), by time, then key, until it breaks.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn expiring(
        &self,
        from_ms: u64,
        to_ms: u64,
        mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let Self::File(tables) = self else {
            return Ok(());
        };
        let empty: &[u8] = &[];
        guarded(|| {
            for row in tables.expiry.range((from_ms, empty)..(to_ms, empty))? {
                let (at, _nothing) = row?;
                let (ms, key) = at.value();
                if each(ms, key).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Returns the greatest key of a kind of facts in the file; `None` when there is none.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn last_fact(&self, kind: u8) -> Result<Option<Vec<u8>>, StateError> {
        let Self::File(tables) = self else {
            return Ok(None);
        };
        let (from, to) = ([kind], [kind + 1]);
        let last = tables
            .facts
            .range(from.as_slice()..to.as_slice())?
            .next_back()
            .transpose()?;
        Ok(last.map(|(key, _row)| key.value().to_vec()))
    }
}

fn unsealed<'a>(key: &[u8], row: &'a [u8]) -> Result<&'a [u8], StateError> {
    row::unseal(HEADS, key, row).ok_or_else(|| damaged_row(key))
}

/// Decodes a row of heads.
///
/// # Errors
/// `Damaged`.
pub(super) fn decode(key: &[u8], row: &[u8]) -> Result<Heads, StateError> {
    decode_heads(row).ok_or_else(|| damaged_row(key))
}

/// Returns the error of a row that fails its check.
pub(super) fn damaged_row(key: &[u8]) -> StateError {
    StateError::Damaged {
        what: format!("the row of key {} fails its check", key.escape_ascii()),
    }
}

/// Returns the error of a fact that fails its check.
pub(super) fn damaged_fact() -> StateError {
    StateError::damaged("a fact fails its check")
}
