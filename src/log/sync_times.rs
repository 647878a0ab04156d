//! How long the disk takes: what an operator watches before callers notice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Counts and times the fdatasyncs of a store's logs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Timing(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    // One more than there are bounds: those above all of them.
    counts: [AtomicU64; SYNC_BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

/// The fdatasyncs of a store's logs since it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncTimes {
    /// How many took at most as long as each of `SYNC_BOUNDS`, and no less than the bound before;
    /// the last: longer than all of them.
    pub counts: [u64; SYNC_BOUNDS.len() + 1],
    /// How long all took.
    pub sum: Duration,
}

impl Timing {
    /// Notes one that took `time`.
    pub(super) fn note(&self, time: Duration) {
        let bound = SYNC_BOUNDS.iter().position(|bound| time <= *bound);
        self.0.counts[bound.unwrap_or(SYNC_BOUNDS.len())].fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(super) fn times(&self) -> SyncTimes {
        let mut times = SyncTimes {
            sum: Duration::from_micros(self.0.sum_us.load(Ordering::Relaxed)),
            ..SyncTimes::default()
        };
        for (count, counted) in times.counts.iter_mut().zip(&self.0.counts) {
            *count = counted.load(Ordering::Relaxed);
        }
        times
    }
}

/// The bounds by which fdatasyncs are counted.
pub const SYNC_BOUNDS: [Duration; 12] = [
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(200),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(1000),
];
