//! Options and status of a consumer.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    limits::CONSUMER_IN_FLIGHT_DEFAULT,
    protocol::{
        consumer::{OnGap, Rules},
        cursor::Cursor,
        frontier::MissingRange,
    },
};

/// Options of a consumer. All but its start can be changed later, with `Consumer::set`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// The position at which the consumer begins. Default: `Now`.
    pub from: ConsumerStart,
    /// Selects keys that begin with one of these; empty: all keys.
    pub prefixes: Vec<Bytes>,
    /// Time in which a taker must answer a change, unless it extends it. Default: 30 s.
    pub ack_wait: Duration,
    /// Attempts at a change before it becomes a dead letter; `None`: no limit. Default: 10.
    pub max_deliver: Option<u32>,
    /// Outstanding changes (with takers, or read ahead) at which the consumer reads no further. An
    /// atomic batch is read whole, so it may exceed this number. With 1, changes are always
    /// finished in the order of the log. Default: 1000.
    pub max_in_flight: usize,
    /// Pauses before the 2nd, 3rd ... attempt; the last pause applies to all later attempts. Empty:
    /// no pause. Default: 0.1 s, 1 s, 5 s, 30 s, 2 min.
    pub backoff: Vec<Duration>,
    /// The step at a gap: where the log no longer has the next changes. Default: `Stop`. A taker of a
    /// consumer with `State` must handle changes of the kind `Gap`.
    pub on_gap: OnGap,
}

/// The position at which a consumer begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerStart {
    /// With the first entry of every log.
    Beginning,
    /// With the changes published from now on.
    Now,
    /// After a position that a watch of this store has reached, on this node or another.
    After(Cursor),
    /// With entries stamped since a time, by their authors' clocks.
    SinceAuthored {
        /// Inclusive, ms since 1970.
        ms: u64,
    },
    /// With entries that arrived in this node's logs since a time.
    SinceArrived {
        /// Inclusive, ms since 1970.
        ms: u64,
    },
}

/// Options of a consumer to change; `None` leaves one as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsumerChanges {
    /// Like the field of `ConsumerOptions`. It applies to changes that are taken from now on.
    pub ack_wait: Option<Duration>,
    /// Like the field of `ConsumerOptions`, also for changes that were tried before.
    pub max_deliver: Option<Option<u32>>,
    /// Like the field of `ConsumerOptions`. If more changes are outstanding, no further ones are read until
    /// fewer are.
    pub max_in_flight: Option<usize>,
    /// Like the field of `ConsumerOptions`. It applies to attempts that fail from now on.
    pub backoff: Option<Vec<Duration>>,
    /// Like the field of `ConsumerOptions`, from the current position on: changes that were read before are still
    /// delivered.
    pub prefixes: Option<Vec<Bytes>>,
    /// Like the field of `ConsumerOptions`. `State` also makes a consumer go on that has stopped; if what
    /// it needs is still missing, it delivers a gap.
    pub on_gap: Option<OnGap>,
}

/// The reason why a taker gets no change now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// The consumer is paused.
    Paused,
    /// `max_in_flight` changes are outstanding, and each is with a taker or comes again later.
    Full,
    /// Each outstanding change is with a taker or comes again later, and nothing else was written.
    Busy,
    /// Nothing is outstanding, and nothing matching was written.
    Empty,
}

/// Activity of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerState {
    /// It delivers changes as they are published.
    Running,
    /// It delivers nothing until it is resumed.
    Paused,
    /// Entries that its position names are missing on this node: the logs are older than
    /// consumers.db. It continues when peers have sent these entries.
    Waiting {
        /// The missing entries.
        missing: Vec<MissingRange>,
    },
    /// It delivers nothing until it is reset.
    Stopped {
        /// The changes that cannot be read, and why.
        reason: String,
    },
}

/// Status of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerStatus {
    /// Name, unique in the store.
    pub name: String,
    /// Activity now.
    pub state: ConsumerState,
    /// Prefixes of selected keys; empty: all keys.
    pub prefixes: Vec<Bytes>,
    /// Times, attempts and bounds of its deliveries.
    pub rules: Rules,
    /// The step that it takes at a gap.
    pub on_gap: OnGap,
    /// Time when it was made, ms since 1970.
    pub created_ms: u64,
    /// Position through which changes were read. `None`: no change was read yet.
    pub position: Option<Cursor>,
    /// Published entries after its position, matching or not; an upper bound if an author has forked.
    pub backlog_entries: u64,
    /// Changes read and not finished: about `max_in_flight` at most, more for a large atomic batch.
    pub outstanding: usize,
    /// Outstanding changes that are with takers now.
    pub in_flight: usize,
    /// Changes acknowledged since the consumer was made.
    pub acked: u64,
    /// Attempts after the first one of each change, since the consumer was made.
    pub redelivered: u64,
    /// Number of dead letters.
    pub dead: usize,
    /// Gaps since the consumer was made.
    pub gaps: u64,
    /// Reason why a taker gets no change now. `None`: it gets one, or `state` has the reason.
    pub idle: Option<Idle>,
    /// Next time at which an outstanding change comes again or is taken back, ms since 1970; `None`:
    /// no change waits for a time.
    pub next_due_ms: Option<u64>,
    /// Time when a taker last took or answered a change, ms since 1970; `None`: never.
    pub last_seen_ms: Option<u64>,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            from: ConsumerStart::Now,
            prefixes: Vec::new(),
            ack_wait: Duration::from_secs(30),
            max_deliver: Some(10),
            max_in_flight: CONSUMER_IN_FLIGHT_DEFAULT,
            backoff: [100, 1000, 5000, 30_000, 120_000]
                .map(Duration::from_millis)
                .to_vec(),
            on_gap: OnGap::Stop,
        }
    }
}
