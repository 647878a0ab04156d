//! What is written: keys, values, and callers that put them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use lattice::store::{Store, WriteError};
use tokio::task::JoinSet;

use crate::cli::{
    bench::{error::failed, samples::Samples},
    exit::Failure,
};

/// Keys of one caller, without an end.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    next: u64,
    // Some: of this many keys, in no order; None: each once, in order.
    among: Option<u64>,
}

impl Keys {
    /// Makes the keys of caller number `caller`: its own, or random ones `among` all callers'.
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

/// Makes a value.
pub(super) fn value(bytes: usize) -> Bytes {
    Bytes::from(vec![b'v'; bytes])
}

/// Callers that each put one key after the other, as fast as they are answered.
#[derive(Debug)]
pub(super) struct Callers {
    keys: Vec<Keys>,
    value: Bytes,
}

impl Callers {
    /// Makes `callers` of them; `among`: see [`Keys`].
    pub(super) fn new(callers: usize, among: Option<u64>, value: Bytes) -> Self {
        let keys = (0..callers).map(|caller| Keys::new(caller, among));
        Self {
            keys: keys.collect(),
            value,
        }
    }

    /// Lets them put for `time`; a later turn goes on where this one ends.
    pub(super) async fn turn(&mut self, store: &Store, time: Duration) -> Result<Samples, Failure> {
        let start = Instant::now();
        // A lone one is the program's main task, as in a program that does nothing else.
        if self.keys.len() == 1
            && let Some(keys) = self.keys.pop()
        {
            let called = call(store.clone(), keys, self.value.clone(), start, time).await;
            let (keys, samples) = called.map_err(|error| failed("a put failed", &error))?;
            self.keys.push(keys);
            return Ok(samples);
        }
        let mut callers = JoinSet::new();
        for keys in self.keys.drain(..) {
            callers.spawn(call(store.clone(), keys, self.value.clone(), start, time));
        }
        let mut all = Samples::default();
        while let Some(called) = callers.join_next().await {
            let called = called.map_err(|panic| failed("a caller died", &panic))?;
            let (keys, samples) = called.map_err(|error| failed("a put failed", &error))?;
            self.keys.push(keys);
            all.beside(samples);
        }
        Ok(all)
    }
}

async fn call(
    store: Store,
    mut keys: Keys,
    value: Bytes,
    start: Instant,
    time: Duration,
) -> Result<(Keys, Samples), WriteError> {
    let mut samples = Samples::default();
    let mut before = Instant::now();
    while before - start < time
        && let Some(key) = keys.next()
    {
        store.put(key, value.clone()).await?;
        let now = Instant::now();
        samples.push(now - before);
        before = now;
    }
    samples.span = start.elapsed();
    Ok((keys, samples))
}

// The finaliser of splitmix64: numbers in a row, scattered.
fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What the keys of every bench begin with.
pub(super) const PREFIX: &str = "/bench/";
