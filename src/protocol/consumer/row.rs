//! The rows of a consumer in its file, as bytes.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use crate::{
    id::{Author, EntryId},
    protocol::{
        change::{EntryRef, Kind},
        consumer::{
            change_ref::ChangeRef,
            on_gap::OnGap,
            place::{Counts, DeadLetter, DeathReason, Place, State},
            rules::Rules,
        },
        cursor::Cursor,
        gap::Gap,
        hlc::Hlc,
    },
    wire::{
        ConsumerChange, ConsumerDead, ConsumerGap, ConsumerRow as Row, ConsumerTaken,
        ConsumerWaiting, consumer_change::State as WireState,
    },
};

/// A consumer without its changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerRow {
    /// Prefixes of selected keys; empty: all keys.
    pub prefixes: Vec<Bytes>,
    /// Rules of its deliveries.
    pub rules: Rules,
    /// Time when the consumer was made, ms since 1970.
    pub created_ms: u64,
    /// True while nothing is delivered.
    pub paused: bool,
    /// Position through which changes were fed. `None`: no change was fed yet, and the consumer
    /// begins at one of the two times below.
    pub position: Option<Cursor>,
    /// The consumer begins with entries stamped since this time, ms since 1970; 0: not given.
    pub since_authored_ms: u64,
    /// Entries that arrived in this node's log before this time are left out, ms since 1970; 0: no
    /// entry is left out.
    pub since_arrived_ms: u64,
    /// Counts since the consumer was made.
    pub counts: Counts,
    /// Time when a taker last took or answered a change, ms since 1970; 0: never.
    pub last_seen_ms: u64,
    /// Reason why the consumer has stopped; `None`: it has not stopped.
    pub stopped: Option<String>,
    /// The step that the consumer takes at a gap.
    pub on_gap: OnGap,
    /// Number of the gap whose state is being fed, until it was fed whole. Then the changes after
    /// `position` follow, which that state may already have. 0: no state is being fed.
    pub state_of: u64,
}

/// Encodes a consumer.
pub fn encode_consumer(consumer: &ConsumerRow) -> Vec<u8> {
    let row = Row {
        prefixes: consumer.prefixes.clone(),
        ack_wait_ms: consumer.rules.ack_wait_ms,
        max_deliver: consumer.rules.max_deliver.unwrap_or(0),
        max_in_flight: consumer.rules.max_in_flight as u64,
        backoff_ms: consumer.rules.backoff_ms.clone(),
        created_ms: consumer.created_ms,
        paused: consumer.paused,
        position: consumer
            .position
            .as_ref()
            .map(Cursor::to_string)
            .unwrap_or_default(),
        since_authored_ms: consumer.since_authored_ms,
        since_arrived_ms: consumer.since_arrived_ms,
        acked: consumer.counts.acked,
        redelivered: consumer.counts.redelivered,
        last_seen_ms: consumer.last_seen_ms,
        stopped: consumer.stopped.clone().unwrap_or_default(),
        on_gap: match consumer.on_gap {
            OnGap::Stop => 0,
            OnGap::State => 1,
        },
        gaps: consumer.counts.gaps,
        state_of: consumer.state_of,
    };
    row.encode_to_vec()
}

/// Decodes a consumer; `None` if the bytes are malformed.
pub fn decode_consumer(bytes: &[u8]) -> Option<ConsumerRow> {
    let row = Row::decode(bytes).ok()?;
    let position = match row.position.as_str() {
        "" => None,
        text => Some(text.parse().ok()?),
    };
    Some(ConsumerRow {
        prefixes: row.prefixes,
        rules: Rules {
            ack_wait_ms: row.ack_wait_ms,
            max_deliver: (row.max_deliver > 0).then_some(row.max_deliver),
            max_in_flight: usize::try_from(row.max_in_flight).ok()?,
            backoff_ms: row.backoff_ms,
        },
        created_ms: row.created_ms,
        paused: row.paused,
        position,
        since_authored_ms: row.since_authored_ms,
        since_arrived_ms: row.since_arrived_ms,
        counts: Counts {
            acked: row.acked,
            redelivered: row.redelivered,
            gaps: row.gaps,
        },
        last_seen_ms: row.last_seen_ms,
        stopped: Some(row.stopped).filter(|stopped| !stopped.is_empty()),
        // Rows of versions without this field have 0.
        on_gap: match row.on_gap {
            0 => OnGap::Stop,
            1 => OnGap::State,
            _unknown => return None,
        },
        state_of: row.state_of,
    })
}

/// Encodes a change; `None` for a finished one, which has no row.
pub fn encode_change(place: &Place) -> Option<Vec<u8>> {
    let (change, attempts, state) = match place {
        Place::Finished => return None,
        Place::Outstanding {
            change,
            attempts,
            state,
        } => (change, *attempts, encode_state(*state)),
        Place::Dead(letter) => {
            let dead = ConsumerDead {
                reason: match letter.reason {
                    DeathReason::MaxDeliver => 1,
                    DeathReason::Terminated => 2,
                    DeathReason::Unreadable => 3,
                    DeathReason::Pruned => 4,
                },
                died_ms: letter.died_ms,
            };
            (&letter.change, letter.attempts, WireState::Dead(dead))
        }
    };
    let row = ConsumerChange {
        key: change.key.clone(),
        kind: match change.kind {
            Kind::Put => 1,
            Kind::Delete => 2,
            Kind::Expire => 3,
            Kind::Retract => 4,
            Kind::Gap => 5,
        },
        entry: Bytes::copy_from_slice(&change.entry.id.0),
        author: Bytes::copy_from_slice(&change.entry.author.0),
        seq: change.entry.seq,
        wall_ms: change.entry.hlc.wall_ms,
        counter: change.entry.hlc.counter,
        op_index: change.op_index,
        expires_ms: change.expires_ms,
        arrived_ms: change.arrived_ms,
        gap_number: change.gap_number,
        gap: change.gap.as_ref().map(|gap| ConsumerGap {
            reason: gap.reason.clone(),
            reach_ms: gap.reach_ms,
        }),
        attempts,
        state: Some(state),
    };
    Some(row.encode_to_vec())
}

/// Decodes change `number`; `None` if the bytes are malformed.
pub fn decode_change(number: u64, bytes: &[u8]) -> Option<Place> {
    let row = ConsumerChange::decode(bytes).ok()?;
    let change = ChangeRef {
        key: row.key,
        kind: match row.kind {
            1 => Kind::Put,
            2 => Kind::Delete,
            3 => Kind::Expire,
            4 => Kind::Retract,
            5 => Kind::Gap,
            _unknown => return None,
        },
        entry: EntryRef {
            id: EntryId::from_slice(&row.entry)?,
            author: Author::from_slice(&row.author)?,
            seq: row.seq,
            hlc: Hlc::new(row.wall_ms, row.counter)?,
        },
        op_index: row.op_index,
        expires_ms: row.expires_ms,
        arrived_ms: row.arrived_ms,
        gap_number: row.gap_number,
        gap: row.gap.map(|gap| {
            Arc::new(Gap {
                reason: gap.reason,
                reach_ms: gap.reach_ms,
            })
        }),
    };
    let is_gap = change.kind == Kind::Gap;
    if change.gap.is_some() != is_gap || (is_gap && change.gap_number == 0) {
        return None;
    }
    let state = match row.state? {
        WireState::Waiting(ConsumerWaiting { due_ms, late }) => State::Waiting { due_ms, late },
        WireState::Taken(ConsumerTaken {
            deadline_ms,
            detached,
        }) => State::Taken {
            deadline_ms,
            detached,
        },
        WireState::Dead(dead) => {
            return Some(Place::Dead(DeadLetter {
                number,
                change,
                attempts: row.attempts,
                reason: match dead.reason {
                    1 => DeathReason::MaxDeliver,
                    2 => DeathReason::Terminated,
                    3 => DeathReason::Unreadable,
                    4 => DeathReason::Pruned,
                    _unknown => return None,
                },
                died_ms: dead.died_ms,
            }));
        }
    };
    Some(Place::Outstanding {
        change,
        attempts: row.attempts,
        state,
    })
}

fn encode_state(state: State) -> WireState {
    match state {
        State::Waiting { due_ms, late } => WireState::Waiting(ConsumerWaiting { due_ms, late }),
        State::Taken {
            deadline_ms,
            detached,
        } => WireState::Taken(ConsumerTaken {
            deadline_ms,
            detached,
        }),
    }
}
