//! Waits for a node that went away, longer each time.

use std::time::Duration;

use crate::cli::{exit::Failure, output::print::Output};

/// How long the next attempt to connect waits; zero while there is a connection.
#[derive(Debug, Default)]
pub(crate) struct Pause(Duration);

impl Pause {
    /// The connection was lost, or not made again. True the first time, which is told.
    pub(crate) fn begin(&mut self, lost: &Failure, out: &Output) -> bool {
        let is_first = self.0.is_zero();
        if is_first {
            let text = format!("{}; waiting for the node", lost.message);
            out.notice("disconnected", &text);
        }
        self.0 = (self.0 * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        is_first
    }

    /// Waits until it is time for the next attempt.
    pub(crate) async fn pass(&self) {
        tokio::time::sleep(self.0).await;
    }

    /// There is a connection: tells so if there was none.
    pub(crate) fn end(&mut self, out: &Output) {
        if !self.0.is_zero() {
            out.notice("reconnected", "the node is back; going on where it was");
            self.0 = Duration::ZERO;
        }
    }
}

/// Between two attempts to connect, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
