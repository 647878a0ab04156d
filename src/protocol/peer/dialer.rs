//! When a peer is dialled: the wait doubles with each failure, and begins again with a connection.

use crate::{
    limits::{DIAL_AGAIN_MAX_MS, DIAL_AGAIN_MIN_MS},
    protocol::peer::jitter::jittered,
};

/// Decides what the task of one peer does next.
///
/// The shell calls [`next`](Self::next) in a loop and does the step that it returns. After a dial
/// that failed it calls [`on_dial_failed`](Self::on_dial_failed) and waits for as long as that
/// returns; if something wakes the shell before (a connection of the peer, an address, a request to
/// sync), it calls [`on_woken`](Self::on_woken). Then it calls `next` again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialer {
    // The wait after the next failed dial, before jitter. Doubles with each failure up to
    // DIAL_AGAIN_MAX_MS; a connection or a wake sets it back.
    wait_ms: u64,
}

/// The next step of a peer's task. `C` is a handle of an open connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialStep<C> {
    /// The task ends: the peer is no longer admitted.
    End,
    /// Waits this many milliseconds: the peer is shut out.
    Wait(u64),
    /// Stays with this connection until it is closed; see [`sync_step`](super::sync_step()).
    Stay(C),
    /// Dials the peer.
    Dial,
}

impl Default for Dialer {
    fn default() -> Self {
        Self {
            wait_ms: DIAL_AGAIN_MIN_MS,
        }
    }
}

impl Dialer {
    /// Returns the next step.
    ///
    /// `is_admitted`: the peer may connect. `shut_out_ms`: milliseconds for which it is still shut
    /// out, `None` when it is not. `connection`: an open connection to the peer, dialled by either
    /// side.
    pub fn next<C>(
        &mut self,
        is_admitted: bool,
        shut_out_ms: Option<u64>,
        connection: Option<C>,
    ) -> DialStep<C> {
        match (is_admitted, shut_out_ms, connection) {
            (false, ..) => DialStep::End,
            (true, Some(wait_ms), _) => DialStep::Wait(wait_ms),
            (true, None, Some(connection)) => {
                self.wait_ms = DIAL_AGAIN_MIN_MS;
                DialStep::Stay(connection)
            }
            (true, None, None) => DialStep::Dial,
        }
    }

    /// Notes that a dial has failed. Returns the milliseconds to wait before the next one: from
    /// half to one and a half times the current wait.
    pub fn on_dial_failed(&mut self, random: u64) -> u64 {
        let wait_ms = jittered(self.wait_ms, random);
        self.wait_ms = self.wait_ms.saturating_mul(2).min(DIAL_AGAIN_MAX_MS);
        wait_ms
    }

    /// Notes that a wait was cut short because the peer may be within reach. The next wait is the
    /// shortest again.
    pub fn on_woken(&mut self) {
        self.wait_ms = DIAL_AGAIN_MIN_MS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Random bits that leave a wait unchanged.
    const EVEN: u64 = 1 << 63;

    fn failures(dialer: &mut Dialer, count: usize) -> Vec<u64> {
        (0..count).map(|_| dialer.on_dial_failed(EVEN)).collect()
    }

    #[test]
    fn wait_doubles_with_each_failure_up_to_its_maximum() {
        let waits = failures(&mut Dialer::default(), 10);
        let doubled = [500, 1000, 2000, 4000, 8000, 16_000, 32_000];
        assert_eq!(waits[..7], doubled);
        assert_eq!(waits[7..], [DIAL_AGAIN_MAX_MS; 3]);
    }

    #[test]
    fn wait_begins_again_after_a_connection_and_a_wake() {
        let mut dialer = Dialer::default();
        failures(&mut dialer, 10);
        assert_eq!(dialer.next(true, None, Some('c')), DialStep::Stay('c'));
        assert_eq!(failures(&mut dialer, 10)[0], DIAL_AGAIN_MIN_MS);
        dialer.on_woken();
        assert_eq!(failures(&mut dialer, 2), [500, 1000]);
        // A dial alone does not change the wait: the dial may fail again.
        assert_eq!(dialer.next::<()>(true, None, None), DialStep::Dial);
        assert_eq!(failures(&mut dialer, 1), [2000]);
    }

    #[test]
    fn removal_ends_before_shut_out_waits_before_connection_stays() {
        let mut dialer = Dialer::default();
        assert_eq!(dialer.next(false, Some(1), Some(())), DialStep::End);
        assert_eq!(dialer.next(false, None, Some(())), DialStep::End);
        assert_eq!(dialer.next(true, Some(1), Some(())), DialStep::Wait(1));
        assert_eq!(dialer.next::<()>(true, Some(1), None), DialStep::Wait(1));
        // A shut-out does not make the next dial earlier.
        failures(&mut dialer, 2);
        dialer.next(true, Some(1), Some(()));
        assert_eq!(failures(&mut dialer, 1), [2000]);
    }
}
