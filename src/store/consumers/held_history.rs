//! History that consumers of this node may still need.

use std::sync::Arc;

use crate::{
    log::{
        LogError,
        merge::{Span, spans},
    },
    protocol::{
        change::EntryRef,
        finality::ConsumerHold,
        frontier::{Frontier, FrontierTip},
    },
    store::{ReadError, Shared, consumers::live::Live, watch::log_source::LogSource},
};

/// History that a consumer may still need: changes that it has not read, and entries of changes that
/// are outstanding or dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldHistory {
    /// Name of the consumer.
    pub consumer: String,
    /// The consumer needs no entry that this leads back to.
    pub place: Frontier,
    /// When the first entry after `place` arrived here, ms since 1970.
    pub since_ms: u64,
    /// Bytes of the logs from the first entries after `place` on.
    pub bytes: u64,
    /// Number of the given points, from the first one on, at and before which it needs nothing.
    pub done: usize,
}

impl HeldHistory {
    /// Returns it as the rules of retention take it.
    pub fn as_rule(&self) -> ConsumerHold {
        ConsumerHold {
            done: self.done,
            since_ms: self.since_ms,
            bytes: self.bytes,
        }
    }

    /// Returns the history that a consumer holds; `None` if it needs nothing that is here. Reads files: not
    /// for the event loop.
    ///
    /// `points`: places through which entries may be removed, the first one first. A consumer that has
    /// stopped holds nothing, nor does one that is behind what was removed already.
    pub(super) fn of(
        live: &Live,
        shared: &Shared,
        points: &[Frontier],
    ) -> Result<Option<Self>, ReadError> {
        let Some(needs) = live.lock().needs() else {
            return Ok(None);
        };
        let view = shared.state.view();
        let position = match needs.position {
            Some(position) => position.frontier,
            None => match LogSource::since(shared, Arc::clone(&view), &needs.start.as_start()) {
                Ok(source) => Arc::new(source.frontier().clone()),
                Err(_gap_or_unreadable) => return Ok(None),
            },
        };
        let place = place(shared, Frontier::clone(&position), needs.entries)?;
        let Ok(missing) = spans(&shared.log, &place, &view.frontier)? else {
            return Ok(None);
        };
        let (mut since_ms, mut bytes) = (None, 0);
        for Span { branch, after, .. } in missing {
            let Some(first) = branch.header(after.saturating_add(1))? else {
                continue;
            };
            let arrived_ms = first.header.arrived_ms;
            since_ms = Some(since_ms.map_or(arrived_ms, |ms: u64| ms.min(arrived_ms)));
            bytes += branch.end().saturating_sub(first.offset);
        }
        let Some(since_ms) = since_ms else {
            return Ok(None);
        };
        let mut done = 0;
        for point in points {
            if !leads_to(shared, &place, point)? {
                break;
            }
            done += 1;
        }
        Ok(Some(Self {
            consumer: live.name.clone(),
            place,
            since_ms,
            bytes,
            done,
        }))
    }
}

// Returns whether all entries of `point` are here, and `place` leads back to them.
fn leads_to(shared: &Shared, place: &Frontier, point: &Frontier) -> Result<bool, LogError> {
    for (author, anchor) in point.iter() {
        let mut is_done = false;
        for tip in place.tips(&author) {
            is_done |= *tip == anchor || shared.log.leads(&author, anchor, *tip)? == Some(true);
        }
        if !is_done {
            return Ok(false);
        }
    }
    Ok(true)
}

// Returns `place` without the entries and all that come after them. An entry that is no longer in the
// log holds nothing.
fn place(
    shared: &Shared,
    mut place: Frontier,
    mut entries: Vec<EntryRef>,
) -> Result<Frontier, LogError> {
    entries.sort_unstable_by_key(|entry| (entry.author, entry.seq, entry.id));
    entries.dedup();
    for entry in entries {
        let EntryRef {
            author, seq, id, ..
        } = entry;
        let tip = FrontierTip { seq, id };
        let mut tips = Vec::new();
        for other in place.tips(&author) {
            if shared.log.leads(&author, tip, *other)? != Some(true) {
                tips.push(*other);
            }
        }
        if tips.len() == place.tips(&author).len() {
            continue;
        }
        let Some((found, _record)) = shared.log.entry(&author, seq, &id)? else {
            continue;
        };
        if let Some(prev) = found.header.prev {
            let before = FrontierTip {
                seq: seq.saturating_sub(1),
                id: prev,
            };
            if !tips.contains(&before) {
                tips.push(before);
            }
        }
        place.set_tips(author, tips);
    }
    Ok(place)
}
