//! Waits for a node that disconnected, longer after each attempt.

use std::time::Duration;

use crate::cli::{exit::Failure, output::print::Output};

/// The wait before the next attempt to connect; zero while connected.
#[derive(Debug, Default)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    /// Notes that the connection was lost, or that an attempt failed.
    ///
    /// Prints a notice and returns true for the first of them since the node was connected.
    pub(crate) fn lost(&mut self, lost: &Failure, out: &Output) -> bool {
        let is_first = self.failed();
        if is_first {
            let text = format!("{}; waiting for the node", lost.message);
            out.notice("disconnected", &text);
        }
        is_first
    }

    /// Like `lost`, without a notice.
    pub(crate) fn failed(&mut self) -> bool {
        let is_first = self.0.is_zero();
        self.0 = (self.0 * 2).clamp(WAIT_MIN, WAIT_MAX);
        is_first
    }

    /// Waits until the next attempt is due.
    pub(crate) async fn wait(&self) {
        tokio::time::sleep(self.0).await;
    }

    /// Notes that the node is connected; prints a notice if it was not.
    pub(crate) fn connected(&mut self, out: &Output) {
        if self.succeeded() {
            out.notice(
                "reconnected",
                "the node is back; going on from the last position",
            );
        }
    }

    /// Like `connected`, without a notice. Returns true if the node was not connected.
    pub(crate) fn succeeded(&mut self) -> bool {
        !std::mem::take(&mut self.0).is_zero()
    }
}

/// Wait before the first attempt to reconnect; it doubles with each one.
const WAIT_MIN: Duration = Duration::from_millis(50);
/// Longest wait between two attempts.
const WAIT_MAX: Duration = Duration::from_secs(5);
