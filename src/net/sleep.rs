//! Sleep: a machine that was closed finds out by its clocks, and meets everybody again at once.
//!
//! The wall clock goes on while it sleeps, the other one stands. Peers have hung up long before,
//! and this side would first find each connection dead, then wait as long as the last failure said.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    limits::{CLOCK_JUMP_MIN, CLOCK_LOOK_EVERY},
    net::mesh::Mesh,
};

/// Looks at both clocks now and then, and dials all members when the wall clock has jumped.
pub(super) async fn follow(mesh: Arc<Mesh>) {
    let clock = mesh.node.clock();
    let mut last = (clock.now_ms(), Instant::now());
    loop {
        tokio::time::sleep(CLOCK_LOOK_EVERY).await;
        let now = (clock.now_ms(), Instant::now());
        if let Some(jump_ms) = jump(last.0, now.0, now.1.duration_since(last.1)) {
            tracing::info!(
                jump_ms,
                "the clock has jumped: all members are dialled again"
            );
            mesh.meet_again().await;
        }
        last = now;
    }
}

// What the wall clock has gained on the other one, in ms, where that is no accident.
fn jump(before_ms: u64, now_ms: u64, elapsed: Duration) -> Option<i64> {
    let whole = |ms: u128| i64::try_from(ms).unwrap_or(i64::MAX);
    let walled = whole(now_ms.into()).saturating_sub(whole(before_ms.into()));
    let gained = walled.saturating_sub(whole(elapsed.as_millis()));
    let least = whole(CLOCK_JUMP_MIN.as_millis());
    (gained.saturating_abs() >= least).then_some(gained)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_clock_that_runs_or_is_corrected_by_a_little_has_not_jumped() {
        for now_ms in [91_001, 100_000, 101_000, 102_500, 110_999] {
            assert_eq!(jump(100_000, now_ms, SECOND), None, "{now_ms}");
        }
        // The machine was busy, and both clocks went on.
        assert_eq!(jump(100_000, 700_000, 600 * SECOND), None);
    }

    #[test]
    fn a_sleep_and_a_clock_that_was_set_are_jumps() {
        assert_eq!(jump(100_000, 111_000, SECOND), Some(10_000));
        assert_eq!(jump(100_000, 91_000, SECOND), Some(-10_000));
        assert!(jump(u64::MAX, 0, SECOND).is_some_and(|gained| gained < 0));
    }
}
