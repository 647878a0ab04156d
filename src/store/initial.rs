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
        Item, ReadError, Shared,
        options::Scope,
        position::published,
        replay::{Piece, Read},
    },
};

/// The live keys of one view.
#[derive(Debug)]
pub(super) struct StateSource {
    view: Arc<View>,
    // Read and not handed out; those after `after` are not read.
    rows: VecDeque<(Bytes, Heads)>,
    after: Option<Bytes>,
    done: bool,
}

impl StateSource {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self {
            view,
            rows: VecDeque::new(),
            after: None,
            done: false,
        }
    }

    /// A source that has nothing.
    pub(super) fn ended(view: Arc<View>) -> Self {
        Self {
            view,
            rows: VecDeque::new(),
            after: None,
            done: true,
        }
    }

    /// Returns where a watch stands that has read all of it.
    pub(super) fn position(&self) -> Published {
        published(&self.view)
    }

    /// Returns what comes next.
    pub(super) fn next(&mut self, shared: &Shared, scope: &Scope) -> Result<Read, ReadError> {
        let (mut changes, mut bytes) = (Vec::new(), 0);
        while bytes < REPLAY_CHUNK_BYTES {
            if self.rows.is_empty() {
                if self.done || !changes.is_empty() {
                    break;
                }
                let after = self.after.as_deref();
                let rows = self.view.scan(&scope.prefix, after, SCAN_ROWS)?;
                self.done = rows.len() < SCAN_ROWS;
                if let Some((key, _)) = rows.last() {
                    self.after = Some(key.clone());
                }
                self.rows = rows.into();
            }
            let Some((key, heads)) = self.rows.pop_front() else {
                continue;
            };
            let told_ms = self.view.expired_through_ms;
            if !scope.matches_key(&key) {
                continue;
            }
            let item = match shared.item(&key, &heads, told_ms, scope.keys_only) {
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
            changes.push(Arc::new(initial(key, heads, item, scope.keys_only)));
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
