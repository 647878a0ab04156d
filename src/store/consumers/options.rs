//! What a consumer is made with, and how it is.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    limits::{
        CONSUMER_BACKOFF_STEPS_MAX, CONSUMER_IN_FLIGHT_DEFAULT, CONSUMER_IN_FLIGHT_MAX,
        CONSUMER_PREFIXES_MAX, KEY_BYTES_MAX,
    },
    protocol::{
        consumer::{ConsumerRow, Counts, Rules},
        cursor::Cursor,
        frontier::MissingRange,
    },
    store::consumers::ConsumerError,
};

/// What a consumer is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// Where it begins. Default: `Now`.
    pub from: ConsumerStart,
    /// Keys must begin with one of these; none: all keys.
    pub prefixes: Vec<Bytes>,
    /// Time that a taker has to acknowledge a change, unless it asks for more. Default: 30 s.
    pub ack_wait: Duration,
    /// Times a change is given out before it is a dead letter; `None`: no end. Default: 10.
    pub max_deliver: Option<u32>,
    /// Changes that are outstanding at a time: given out, or read ahead and kept for later. With 1
    /// the order of the log is kept whatever happens. Default: 1000.
    pub max_in_flight: usize,
    /// Waits before the 2nd, 3rd ... attempt; the last one is for all that follow. None: at once.
    /// Default: 0.1 s, 1 s, 5 s, 30 s, 2 min.
    pub backoff: Vec<Duration>,
}

/// Where a consumer begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerStart {
    /// With the first entry of every log.
    Beginning,
    /// With what happens from now on.
    Now,
    /// Behind a position that a watch of this store reached, here or on another node.
    After(Cursor),
    /// With entries stamped since `ms` (1970, inclusive), by their authors' clocks.
    SinceAuthored {
        /// Inclusive.
        ms: u64,
    },
    /// With entries that arrived in this node's logs since `ms` (1970).
    SinceArrived {
        /// Inclusive.
        ms: u64,
    },
}

/// What a consumer is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerState {
    /// It gives out changes as they come.
    Running,
    /// It gives out nothing until it is resumed.
    Paused,
    /// This node lacks some of what was fed to it before: its logs are older than consumers.db. It
    /// goes on when peers have sent it.
    Waiting {
        /// What is missing.
        missing: Vec<MissingRange>,
    },
    /// It gives out nothing until it is reset.
    Stopped {
        /// Why.
        reason: String,
    },
}

/// How a consumer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerStatus {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: ConsumerState,
    /// Its prefixes; none: all keys.
    pub prefixes: Vec<Bytes>,
    /// How it gives out changes.
    pub rules: Rules,
    /// When it was made, ms since 1970.
    pub created_ms: u64,
    /// Everything up to here was fed to it. `None`: nothing yet.
    pub position: Option<Cursor>,
    /// Entries of the store behind its position, matching or not; at most, where an author forked.
    pub backlog_entries: u64,
    /// Changes fed and not finished, at most `max_in_flight`.
    pub outstanding: usize,
    /// Those of them that are with takers now.
    pub in_flight: usize,
    /// Changes acknowledged, ever.
    pub acked: u64,
    /// Attempts after the first one of a change, ever.
    pub redelivered: u64,
    /// Dead letters.
    pub dead: usize,
    /// When somebody last took or answered a change, ms since 1970; `None`: never.
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
        }
    }
}

impl ConsumerOptions {
    /// Returns the row of a consumer that nothing was fed to.
    pub(super) fn row(&self, now_ms: u64) -> Result<ConsumerRow, ConsumerError> {
        self.check()?;
        Ok(self.new_row(now_ms))
    }

    /// As `row`, unchecked.
    pub(super) fn new_row(&self, now_ms: u64) -> ConsumerRow {
        let (since_authored_ms, since_arrived_ms) = self.from.since();
        ConsumerRow {
            prefixes: self.prefixes.clone(),
            rules: Rules {
                ack_wait_ms: millis(self.ack_wait),
                max_deliver: self.max_deliver,
                max_in_flight: self.max_in_flight,
                backoff_ms: self.backoff.iter().copied().map(millis).collect(),
            },
            created_ms: now_ms,
            paused: false,
            position: None,
            since_authored_ms,
            since_arrived_ms,
            counts: Counts::default(),
            last_seen_ms: 0,
            stopped: None,
        }
    }

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
    /// Returns since when, authored and arrived; 0 where that is not asked for.
    pub(super) fn since(&self) -> (u64, u64) {
        match self {
            Self::Beginning | Self::Now | Self::After(_) => (0, 0),
            // 0 would mean that it is not asked for.
            Self::SinceAuthored { ms } => ((*ms).max(1), 0),
            Self::SinceArrived { ms } => (0, (*ms).max(1)),
        }
    }
}

/// Returns the first option in which two consumers differ, but for where they begin.
pub(super) fn difference(one: &ConsumerRow, other: &ConsumerRow) -> Option<&'static str> {
    let (a, b) = (&one.rules, &other.rules);
    let same = [
        ("list of prefixes", one.prefixes == other.prefixes),
        ("ack_wait", a.ack_wait_ms == b.ack_wait_ms),
        ("max_deliver", a.max_deliver == b.max_deliver),
        ("max_in_flight", a.max_in_flight == b.max_in_flight),
        ("backoff", a.backoff_ms == b.backoff_ms),
    ];
    let found = same.into_iter().find(|(_, same)| !same);
    found.map(|(option, _)| option)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
