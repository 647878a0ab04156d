//! Sleep: a node that did not run for a while notices it by its clocks, and dials all members at once:
//! its machine was suspended, or its process was stopped. So does one whose wall clock was set while
//! it ran, which is reported.
//!
//! Peers have hung up meanwhile. Without this check, this node would first find each connection dead,
//! then wait for as long as its dial backoff is.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    clock::about,
    limits::{CLOCK_JUMP_MIN, CLOCK_LOOK_EVERY, PEER_PATH_IDLE_MAX},
    net::{members_clock, mesh::Mesh},
};

/// Looks at the clocks every `CLOCK_LOOK_EVERY`, and dials all members when the node stood still or the
/// wall clock has jumped. Never returns.
pub(super) async fn follow(mesh: Arc<Mesh>) {
    let clock = mesh.node.clock();
    let mut last = (clock.now_ms(), Instant::now());
    let mut steady_ms = clock.steady_ms();
    loop {
        tokio::time::sleep(CLOCK_LOOK_EVERY).await;
        let now = (clock.now_ms(), Instant::now());
        let elapsed_ms = clock.steady_ms().saturating_sub(steady_ms);
        steady_ms = steady_ms.saturating_add(elapsed_ms);
        if let Some(set_ms) = jump(last.0, now.0, Duration::from_millis(elapsed_ms)) {
            let direction = if set_ms > 0 { "forward" } else { "back" };
            let by = about(set_ms.unsigned_abs());
            tracing::warn!("the clock of this machine was set {direction} by {by}");
        }
        let jump_ms = jump(last.0, now.0, now.1.duration_since(last.1));
        if jump_ms.is_some() || stood_still(elapsed_ms) {
            tracing::info!(
                elapsed_ms,
                jump_ms,
                "the node stood still or its clock has jumped: all members are dialled again"
            );
            mesh.meet_again().await;
            members_clock::compare_again(&mesh).await;
        }
        last = now;
    }
}

// Milliseconds that the wall clock has gained on another one; negative when it lost some.
// `None` below CLOCK_JUMP_MIN: that is a correction, not a jump.
fn jump(before_ms: u64, now_ms: u64, elapsed: Duration) -> Option<i64> {
    let whole = |ms: u128| i64::try_from(ms).unwrap_or(i64::MAX);
    let walled = whole(now_ms.into()).saturating_sub(whole(before_ms.into()));
    let gained = walled.saturating_sub(whole(elapsed.as_millis()));
    let least = whole(CLOCK_JUMP_MIN.as_millis());
    (gained.saturating_abs() >= least).then_some(gained)
}

// True when a look that was due after CLOCK_LOOK_EVERY came so late that paths have died.
fn stood_still(elapsed_ms: u64) -> bool {
    Duration::from_millis(elapsed_ms) >= CLOCK_LOOK_EVERY + PEER_PATH_IDLE_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn small_correction_is_no_jump() {
        for now_ms in [91_001, 100_000, 101_000, 102_500, 110_999] {
            assert_eq!(jump(100_000, now_ms, SECOND), None, "{now_ms}");
        }
        // The machine was busy; both clocks went on.
        assert_eq!(jump(100_000, 700_000, 600 * SECOND), None);
    }

    #[test]
    fn late_look_shows_that_the_node_stood_still() {
        let late = |late: Duration| {
            let elapsed = CLOCK_LOOK_EVERY + late;
            stood_still(u64::try_from(elapsed.as_millis()).unwrap())
        };
        assert!(!late(Duration::ZERO) && !late(PEER_PATH_IDLE_MAX - Duration::from_millis(1)));
        assert!(late(PEER_PATH_IDLE_MAX) && late(8 * SECOND));
    }

    #[test]
    fn sleep_and_clock_set_back_are_jumps() {
        assert_eq!(jump(100_000, 111_000, SECOND), Some(10_000));
        assert_eq!(jump(100_000, 91_000, SECOND), Some(-10_000));
        assert!(jump(u64::MAX, 0, SECOND).is_some_and(|gained| gained < 0));
    }
}
