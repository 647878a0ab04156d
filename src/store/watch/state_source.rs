//! The state at the start of a watch: the live keys of one view.

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
        watch::log_source::{Piece, Read},
    },
};

/// The live keys of one view.
#[derive(Debug)]
pub(super) struct StateSource {
    view: Arc<View>,
    // What had expired by then is not live.
    told_ms: u64,
    // Prefixes that are not read to their end, in order.
    scopes: VecDeque<Bytes>,
    // Read and not handed out; of the first scope those after `after` are not read.
    rows: VecDeque<(Bytes, Heads)>,
    after: Option<Bytes>,
}

impl StateSource {
    /// Reads what begins with one of `scopes`, which are in order and do not overlap, for who was
    /// told the expiries through `told_ms`.
    pub(super) fn new(view: Arc<View>, scopes: Vec<Bytes>, told_ms: u64) -> Self {
        Self {
            told_ms: view.expired_through_ms.max(told_ms),
            view,
            scopes: scopes.into(),
            rows: VecDeque::new(),
            after: None,
        }
    }

    /// Returns where a watch stands that has read all of it.
    pub(super) fn position(&self) -> Published {
        published(&self.view)
    }

    /// True where entries are missing in it that could not be read.
    pub(super) fn lacks(&self) -> bool {
        self.view.lacks
    }

    /// Returns what comes next.
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
            let told_ms = self.told_ms;
            if !options.selects(&key) {
                continue;
            }
            let item = match shared.item(&key, &heads, told_ms, options.keys_only) {
                Ok(Some(item)) => item,
                Ok(None) => continue,
                Err(ReadError::Damaged { .. }) if !changes.is_empty() => {
                    // Its turn comes when those before it are told.
                    self.rows.push_front((key, heads));
                    break;
                }
                Err(ReadError::Damaged { what }) => {
                    let Some(item) = shared.item(&key, &heads, told_ms, true)? else {
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

// A live key, as a change.
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
    }
}
