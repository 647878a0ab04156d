//! Options of a consumer: their limits, and the row that they make.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    limits::{
        CONSUMER_BACKOFF_STEPS_MAX, CONSUMER_IN_FLIGHT_MAX, CONSUMER_PREFIXES_MAX, KEY_BYTES_MAX,
    },
    protocol::consumer::{ConsumerRow, Counts, Rules},
    store::{
        Start,
        consumers::{ConsumerChanges, ConsumerError, ConsumerOptions, ConsumerStart},
    },
};

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
