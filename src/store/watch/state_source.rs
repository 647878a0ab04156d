//! The state as the source of a watch: the live keys of one view, in order.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use crate::{
    bus::Published,
    limits::{REPLAY_CHUNK_BYTES, SCAN_ROWS},
    protocol::{
        change::{Change, Kind, Origin},
        heads::Heads,
    },
    state::View,
    store::{
        Item, ReadError, Shared, WatchOptions,
        shared::published,
        watch::piece::{Piece, Read},
    },
};

/// The live keys of one view that begin with one of some prefixes.
#[derive(Debug)]
pub(super) struct StateSource {
    view: Arc<View>,
    // A value that expires through this time (ms since 1970) is not live.
    expired_through_ms: u64,
    // Prefixes that are not read to their end, in order.
    scopes: VecDeque<Bytes>,
    // Rows that were read and not handed out.
    rows: VecDeque<(Bytes, Heads)>,
    // Key after which the first scope is still to be read; `None`: from its start.
    after: Option<Bytes>,
}

impl StateSource {
    /// Reads the keys that begin with one of `scopes`, which are in order and do not overlap.
    /// `expired_through_ms` is the time through which the watch has delivered expiries.
    pub(super) fn new(view: Arc<View>, scopes: Vec<Bytes>, expired_through_ms: u64) -> Self {
        Self {
            expired_through_ms: view.expired_through_ms.max(expired_through_ms),
            view,
            scopes: scopes.into(),
            rows: VecDeque::new(),
            after: None,
        }
    }

    /// Returns the position after the whole state.
    pub(super) fn position(&self) -> Published {
        published(&self.view)
    }

    /// True when entries are missing in the view, because they could not be read when it was built.
    pub(super) fn lacks_entries(&self) -> bool {
        self.view.lacks
    }

    /// Reads the next piece. Reads files: not for the event loop.
    pub(super) fn next(
        &mut self,
        shared: &Shared,
        options: &WatchOptions,
    ) -> Result<Read, ReadError> {
        let (mut changes, mut bytes) = (Vec::new(), 0);
        while bytes < REPLAY_CHUNK_BYTES {
            if self.rows.is_empty() {
                let Some(prefix) = self.scopes.front().filter(|_| changes.is_empty()) else {
                    break;
                };
                let rows = self.view.scan(prefix, self.after.as_deref(), SCAN_ROWS)?;
                self.after = rows.last().map(|(key, _)| key.clone());
                if rows.len() < SCAN_ROWS {
                    self.scopes.pop_front();
                    self.after = None;
                }
                self.rows = rows.into();
            }
            let Some((key, heads)) = self.rows.pop_front() else {
                continue;
            };
            if !options.selects(&key) {
                continue;
            }
            let now_ms = self.expired_through_ms;
            let item = match shared.item(&key, &heads, now_ms, options.keys_only) {
                Ok(Some(item)) => item,
                Ok(None) => continue,
                Err(ReadError::Damaged { .. }) if !changes.is_empty() => {
                    // Delivers the changes before the damaged key first; the next call reports the
                    // damage.
                    self.rows.push_front((key, heads));
                    break;
                }
                Err(ReadError::Damaged { what }) => {
                    let Some(item) = shared.item(&key, &heads, now_ms, true)? else {
                        continue;
                    };
                    let change = Box::new(initial(key, heads, item, true));
                    return Ok(Read::Damaged { change, what });
                }
                Err(error) => return Err(error),
            };
            bytes += key.len() + item.value.len();
            changes.push(Arc::new(initial(key, heads, item, options.keys_only)));
        }
        if changes.is_empty() {
            return Ok(Read::End);
        }
        Ok(Read::Piece(Piece {
            changes: changes.into(),
            then: None,
        }))
    }
}

// Returns the change that delivers a live key.
fn initial(key: Bytes, heads: Heads, item: Item, keys_only: bool) -> Change {
    Change {
        key,
        kind: Kind::Put,
        value: (!keys_only).then_some(item.value),
        expires_ms: item.expires_ms,
        entry: item.entry,
        prev: None,
        op_index: 0,
        op_count: 1,
        atomic: false,
        depth: 0,
        heads,
        previous: None,
        origin: Origin::Initial,
        arrived_ms: 0,
        late: false,
        gap: None,
        gap_number: 0,
    }
}
