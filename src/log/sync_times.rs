//! How long the disk takes to make a log durable: the number that rises before callers notice a
//! slow disk.

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
    // By bound of `SYNC_BOUNDS`; the last counts those above all bounds.
    counts: [AtomicU64; SYNC_BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

/// Counts and total time of the fdatasyncs of a store's logs, since the store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncTimes {
    /// Number of fdatasyncs by duration: at most the bound of `SYNC_BOUNDS` with the same index,
    /// and more than the bound before. The last counts those above all bounds.
    pub counts: [u64; SYNC_BOUNDS.len() + 1],
    /// Total time of all fdatasyncs.
    pub sum: Duration,
}

impl Timing {
    /// Counts an fdatasync that took `time`.
    pub(super) fn note(&self, time: Duration) {
        let bound = SYNC_BOUNDS.iter().position(|bound| time <= *bound);
        self.0.counts[bound.unwrap_or(SYNC_BOUNDS.len())].fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(time.as_micros()).expect("an fdatasync ends within 500,000 years");
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

/// Upper bounds, inclusive, by which the durations of fdatasyncs are counted.
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
