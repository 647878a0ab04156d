//! The load of a bench: keys, values, and callers that put them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use lattice::store::{Store, WriteError};
use tokio::task::JoinSet;

use crate::cli::{
    bench::{error::failed, samples::Samples},
    exit::Failure,
};

/// The endless keys of one caller.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    next: u64,
    // `Some`: random keys out of this many; `None`: new keys, in order.
    among: Option<u64>,
}

impl Keys {
    /// Makes the keys of caller number `caller`: its own new keys, or random keys out of `among`
    /// keys that all callers share.
    pub(super) fn new(caller: usize, among: Option<u64>) -> Self {
        Self {
            prefix: match among {
                None => format!("{PREFIX}{caller:04}/"),
                Some(_) => PREFIX.to_owned(),
            },
            next: match among {
                None => 0,
                Some(_) => scatter(caller as u64),
            },
            among,
        }
    }

    /// Returns the new key `number` of caller number `caller`, from 0.
    pub(super) fn key(caller: usize, number: u64) -> Bytes {
        Bytes::from(format!("{PREFIX}{caller:04}/{number:010}"))
    }
}

impl Iterator for Keys {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let number = match self.among {
            None => self.next,
            Some(among) => scatter(self.next) % among.max(1),
        };
        self.next = self.next.wrapping_add(1);
        Some(Bytes::from(format!("{}{number:010}", self.prefix)))
    }
}

/// Makes a value of this many bytes.
pub(super) fn value(bytes: usize) -> Bytes {
    Bytes::from(vec![b'v'; bytes])
}

/// Callers in this process. Each caller puts one key after the other, without a pause unless `every` says
/// when it begins the next one.
#[derive(Debug)]
pub(super) struct Callers {
    keys: Vec<Keys>,
    value: Bytes,
    every: Option<Duration>,
}

impl Callers {
    /// Makes `callers` callers; for `among` see [`Keys::new`].
    pub(super) fn new(callers: usize, among: Option<u64>, value: Bytes) -> Self {
        let keys = (0..callers).map(|caller| Keys::new(caller, among));
        Self {
            keys: keys.collect(),
            value,
            every: None,
        }
    }

    /// Lets each caller begin a put so often. One that is late is measured from when it was to begin.
    pub(super) fn every(self, every: Option<Duration>) -> Self {
        Self { every, ..self }
    }

    /// Lets the callers put for `time`. The next turn continues with the next keys.
    pub(super) async fn turn(&mut self, store: &Store, time: Duration) -> Result<Samples, Failure> {
        let start = Instant::now();
        // A single caller runs on this task, as in a program that does nothing else.
        if self.keys.len() == 1
            && let Some(keys) = self.keys.pop()
        {
            let turn = Turn {
                start,
                time,
                every: self.every,
            };
            let called = call(store.clone(), keys, self.value.clone(), turn).await;
            let (keys, samples) = called.map_err(|error| failed("a put failed", &error))?;
            self.keys.push(keys);
            return Ok(samples);
        }
        let mut callers = JoinSet::new();
        for keys in self.keys.drain(..) {
            let turn = Turn {
                start,
                time,
                every: self.every,
            };
            callers.spawn(call(store.clone(), keys, self.value.clone(), turn));
        }
        let mut all = Samples::default();
        while let Some(called) = callers.join_next().await {
            let called = called.map_err(|panic| failed("a caller panicked", &panic))?;
            let (keys, samples) = called.map_err(|error| failed("a put failed", &error))?;
            self.keys.push(keys);
            all.merge(samples);
        }
        Ok(all)
    }
}

// The time in which a caller puts.
#[derive(Debug, Clone, Copy)]
struct Turn {
    start: Instant,
    time: Duration,
    every: Option<Duration>,
}

async fn call(
    store: Store,
    mut keys: Keys,
    value: Bytes,
    turn: Turn,
) -> Result<(Keys, Samples), WriteError> {
    let mut samples = Samples::default();
    let mut before = Instant::now();
    while before - turn.start < turn.time
        && let Some(key) = keys.next()
    {
        store.put(key, value.clone()).await?;
        let now = Instant::now();
        samples.push(now - before);
        before = match turn.every {
            None => now,
            // The one before took too long.
            Some(every) if before + every <= now => before + every,
            Some(every) => {
                tokio::time::sleep_until((before + every).into()).await;
                Instant::now()
            }
        };
    }
    samples.span = turn.start.elapsed();
    Ok((keys, samples))
}

/// Scatters consecutive numbers, with the finaliser of splitmix64.
pub(super) fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Prefix of the keys of every bench.
pub(super) const PREFIX: &str = "/bench/";
