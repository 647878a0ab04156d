//! Retry backoff of a hook: how long a run that has failed waits before the next attempt.

use std::time::Duration;

use crate::hooks::{RunId, hook::Span};

/// Returns the wait after attempt number `attempt`, from 1, of `run` has failed: the step of that
/// number in the hook's `backoff`, or the last step, varied between four and six fifths so that
/// retries of several hooks spread. The wait is the same at every call.
pub(super) fn backoff(steps: &[Span], attempt: u32, run: RunId) -> Duration {
    let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    let step = steps.get(index).or(steps.last());
    let wait = step.map_or(Duration::ZERO, |step| step.0);
    wait.mul_f64(0.8 + 0.4 * jitter(run, attempt))
}

// Returns a number from 0 to 1.
fn jitter(run: RunId, attempt: u32) -> f64 {
    let hash = blake3::hash(&[&run.0[..], &attempt.to_be_bytes()].concat());
    f64::from(hash.as_bytes()[0]) / 255.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_takes_its_step_and_later_ones_the_last() {
        let steps = [1, 5].map(|seconds| Span(Duration::from_secs(seconds)));
        let run = RunId([7; 16]);
        for (attempt, seconds) in [(1, 1.0), (2, 5.0), (3, 5.0), (u32::MAX, 5.0)] {
            let wait = backoff(&steps, attempt, run).as_secs_f64();
            assert!((0.8 * seconds..=1.2 * seconds).contains(&wait), "{wait}");
            assert_eq!(wait, backoff(&steps, attempt, run).as_secs_f64());
        }
        assert_eq!(backoff(&[], 1, run), Duration::ZERO);
    }
}
