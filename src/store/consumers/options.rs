//! Options and status of a consumer.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    limits::{
        CONSUMER_BACKOFF_STEPS_MAX, CONSUMER_IN_FLIGHT_DEFAULT, CONSUMER_IN_FLIGHT_MAX,
        CONSUMER_PREFIXES_MAX, KEY_BYTES_MAX,
    },
    protocol::{
        consumer::{ConsumerRow, Counts, OnGap, Rules},
        cursor::Cursor,
        frontier::MissingRange,
    },
    store::{Start, consumers::ConsumerError},
};

/// Options of a consumer. All but its start can be changed later, with `Consumer::set`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// Where the consumer begins. Default: `Now`.
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

/// Where a consumer begins.
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

impl ConsumerOptions {
    /// Returns the row of a new consumer.
    ///
    /// # Errors
    /// `Option`.
    pub(super) fn row(&self, now_ms: u64) -> Result<ConsumerRow, ConsumerError> {
        self.check()?;
        Ok(self.new_row(now_ms))
    }

    /// Like `row`, without checks.
    pub(super) fn new_row(&self, now_ms: u64) -> ConsumerRow {
        let (since_authored_ms, since_arrived_ms) = self.from.since();
        ConsumerRow {
            prefixes: self.prefixes.clone(),
            rules: self.rules(),
            created_ms: now_ms,
            paused: false,
            position: None,
            since_authored_ms,
            since_arrived_ms,
            counts: Counts::default(),
            last_seen_ms: 0,
            stopped: None,
            on_gap: self.on_gap,
            state_of: 0,
        }
    }

    /// Returns the options of a consumer, with `changes` made to them.
    pub(super) fn changed(row: &ConsumerRow, changes: ConsumerChanges) -> Self {
        let duration = |ms: &u64| Duration::from_millis(*ms);
        let rules = &row.rules;
        let old_backoff = || rules.backoff_ms.iter().map(duration).collect();
        Self {
            from: ConsumerStart::Now,
            prefixes: changes.prefixes.unwrap_or_else(|| row.prefixes.clone()),
            ack_wait: changes
                .ack_wait
                .unwrap_or_else(|| duration(&rules.ack_wait_ms)),
            max_deliver: changes.max_deliver.unwrap_or(rules.max_deliver),
            max_in_flight: changes.max_in_flight.unwrap_or(rules.max_in_flight),
            backoff: changes.backoff.unwrap_or_else(old_backoff),
            on_gap: changes.on_gap.unwrap_or(row.on_gap),
        }
    }

    /// Returns the rules of deliveries.
    pub(super) fn rules(&self) -> Rules {
        Rules {
            ack_wait_ms: millis(self.ack_wait),
            max_deliver: self.max_deliver,
            max_in_flight: self.max_in_flight,
            backoff_ms: self.backoff.iter().copied().map(millis).collect(),
        }
    }

    /// Checks the options against the limits.
    ///
    /// # Errors
    /// `Option`.
    pub(super) fn check(&self) -> Result<(), ConsumerError> {
        let at_most = |option, is: usize, max: usize| {
            let must = format!("at most {max}");
            (is <= max).then_some(()).ok_or(ConsumerError::Option {
                option,
                must,
                is: is.to_string(),
            })
        };
        let not_zero = |option, is: bool| {
            is.then_some(()).ok_or(ConsumerError::Option {
                option,
                must: "at least 1".to_owned(),
                is: "0".to_owned(),
            })
        };
        at_most("prefixes", self.prefixes.len(), CONSUMER_PREFIXES_MAX)?;
        let longest = self.prefixes.iter().map(Bytes::len).max().unwrap_or(0);
        at_most("bytes of a prefix", longest, KEY_BYTES_MAX)?;
        at_most("max_in_flight", self.max_in_flight, CONSUMER_IN_FLIGHT_MAX)?;
        at_most(
            "steps of backoff",
            self.backoff.len(),
            CONSUMER_BACKOFF_STEPS_MAX,
        )?;
        not_zero("max_in_flight", self.max_in_flight > 0)?;
        not_zero("max_deliver", self.max_deliver != Some(0))?;
        not_zero("milliseconds of ack_wait", millis(self.ack_wait) > 0)
    }
}

impl ConsumerStart {
    /// Returns the start of a watch that begins in the same place.
    pub(super) fn as_start(&self) -> Start {
        match self {
            Self::Beginning => Start::SinceAuthored { ms: 0 },
            Self::Now => Start::Now,
            Self::After(cursor) => Start::After(cursor.clone()),
            Self::SinceAuthored { ms } => Start::SinceAuthored { ms: *ms },
            Self::SinceArrived { ms } => Start::SinceArrived { ms: *ms },
        }
    }

    /// Returns the times of `SinceAuthored` and `SinceArrived`, ms since 1970; 0 for not given.
    pub(super) fn since(&self) -> (u64, u64) {
        match self {
            Self::Beginning | Self::Now | Self::After(_) => (0, 0),
            // 0 would mean not given.
            Self::SinceAuthored { ms } => ((*ms).max(1), 0),
            Self::SinceArrived { ms } => (0, (*ms).max(1)),
        }
    }
}

/// Returns the name of the first option in which two consumers differ; their start is not compared.
pub(super) fn difference(one: &ConsumerRow, other: &ConsumerRow) -> Option<&'static str> {
    let (a, b) = (&one.rules, &other.rules);
    let same = [
        ("list of prefixes", one.prefixes == other.prefixes),
        ("ack_wait", a.ack_wait_ms == b.ack_wait_ms),
        ("max_deliver", a.max_deliver == b.max_deliver),
        ("max_in_flight", a.max_in_flight == b.max_in_flight),
        ("backoff", a.backoff_ms == b.backoff_ms),
        ("on_gap", one.on_gap == other.on_gap),
    ];
    let found = same.into_iter().find(|(_, same)| !same);
    found.map(|(option, _)| option)
}

/// Returns whole milliseconds, at most `u64::MAX`.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
