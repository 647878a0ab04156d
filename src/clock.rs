//! The wall clock: the one place that reads it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// A wall clock: the machine's, or one that a test sets. Clones share the time.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    // None: the machine's.
    manual_ms: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// Returns the machine's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// Returns a clock that stands at `ms` until it is set.
    pub fn manual(ms: u64) -> Self {
        Self {
            manual_ms: Some(Arc::new(AtomicU64::new(ms))),
        }
    }

    /// Returns milliseconds since 1970; 0 for a clock set before that. May go back.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn now_ms(&self) -> u64 {
        match &self.manual_ms {
            Some(ms) => ms.load(Ordering::SeqCst),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| {
                    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                }),
        }
    }

    /// Sets a manual clock, also backwards. Without effect on the machine's.
    pub fn set(&self, ms: u64) {
        if let Some(manual) = &self.manual_ms {
            manual.store(ms, Ordering::SeqCst);
        }
    }

    /// Moves a manual clock forward. Without effect on the machine's.
    pub fn advance(&self, ms: u64) {
        if let Some(manual) = &self.manual_ms {
            manual.fetch_add(ms, Ordering::SeqCst);
        }
    }
}
