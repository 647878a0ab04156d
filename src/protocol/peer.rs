//! The life of a peer: when it is dialled, when it is synced with, and when it is shut out.
//!
//! Four rules, each a value or a function of its own. None reads a clock or a random source: times
//! are milliseconds on a clock of the caller that never goes back, `random` is any 64 random bits.
//!
//! ```text
//! Dialer      for each peer: dial, wait twice as long after each failure, stay with a connection
//! sync_step   for each connection: sync when asked to, and now and then
//! Strikes     for each peer: counts its violations, and how long it is shut out for them
//! ShutOut     for each peer that was shut out: until when
//! ```

use crate::limits::{
    DIAL_AGAIN_MAX_MS, DIAL_AGAIN_MIN_MS, SHUT_OUT_MAX_MS, SHUT_OUT_MIN_MS, STRIKES_MAX,
    SYNC_BUSY_LOOK_MS, SYNC_EVERY_MS, SYNC_RETRY_MS, SYNC_WORK_MS_MAX,
};

/// Decides what the task of one peer does next.
///
/// The shell calls [`next`](Self::next) in a loop and does the step that it returns. After a dial
/// that failed it calls [`on_dial_failed`](Self::on_dial_failed) and waits for as long as that
/// returns; if something wakes it before (a connection of the peer, an address, a wish to sync), it
/// calls [`on_woken`](Self::on_woken). Then it calls `next` again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialer {
    // The wait after the next failed dial, before jitter. Doubles with each failure up to
    // DIAL_AGAIN_MAX_MS; set back by a connection and by a wake.
    wait_ms: u64,
}

/// The next step of a peer's task. `C` is a handle of an open connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialStep<C> {
    /// The task ends: the peer is not let in any more.
    End,
    /// Waits this many milliseconds: the peer is shut out.
    Wait(u64),
    /// Stays with this connection until it is closed; see [`sync_step`].
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
    /// `is_admitted`: the peer is let in. `shut_out_ms`: milliseconds for which it is still shut
    /// out, `None` when it is not. `connection`: an open connection to it, dialled by either
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

    /// Notes that a dial has failed. Returns the milliseconds to wait before the next one: half of
    /// the wait that is due to one and a half of it.
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

/// An event on the connection to a peer; see [`sync_step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncEvent {
    /// The connection has just come.
    Connected {
        /// This side dialled. That side opens the first sync.
        dialled: bool,
    },
    /// A sync of all stores went well.
    Synced,
    /// A sync failed, and the connection is still open.
    Failed,
    /// The wait of [`SyncStep::Rest`] has ended.
    Rested,
    /// Something asked for a sync while the shell listened.
    Wanted,
    /// The time of [`SyncStep::Listen`] ran out.
    Due,
    /// Statuses were exchanged, or the exchange failed.
    Exchanged,
}

/// The next step on the connection to a peer; see [`sync_step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncStep {
    /// Syncs all stores, then returns `Synced` or `Failed`.
    Sync,
    /// Waits this many milliseconds whatever happens, then returns `Rested`.
    Rest(u64),
    /// Waits until something asks for a sync (`Wanted`), for at most this many milliseconds
    /// (`Due`).
    Listen(u64),
    /// Exchanges statuses with the peer, then returns `Exchanged`.
    Exchange,
}

/// Returns the step that follows from `event` on a connection.
///
/// The first event of a connection is `Connected`; each step names the events that end it. The
/// shell leaves the loop when the connection is closed.
pub fn sync_step(event: SyncEvent, random: u64) -> SyncStep {
    match event {
        SyncEvent::Connected { dialled: true } | SyncEvent::Wanted | SyncEvent::Exchanged => {
            SyncStep::Sync
        }
        // After a failure: not at once again, and not before something asks for it.
        SyncEvent::Failed => SyncStep::Rest(SYNC_RETRY_MS),
        SyncEvent::Connected { dialled: false } | SyncEvent::Synced | SyncEvent::Rested => {
            SyncStep::Listen(jittered(SYNC_EVERY_MS, random))
        }
        SyncEvent::Due => SyncStep::Exchange,
    }
}

/// Returns the milliseconds after which a sync is opened again that the peer refused because of a
/// session of its own; `None` when it has been refused for `waited_ms` and that is too long.
pub fn busy_wait_ms(waited_ms: u64) -> Option<u64> {
    (waited_ms < SYNC_WORK_MS_MAX).then_some(SYNC_BUSY_LOOK_MS)
}

/// Counts the messages of a peer that no honest peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strikes {
    // Since the start of this node. Never goes down.
    count: u32,
}

impl Strikes {
    /// Counts one more. Returns the milliseconds for which the peer is shut out because of it:
    /// `None` but for each `STRIKES_MAX`th strike. Each time is twice as long as the one before, up
    /// to `SHUT_OUT_MAX_MS`.
    #[must_use]
    pub fn strike(&mut self) -> Option<u64> {
        self.count = self.count.saturating_add(1);
        if !self.count.is_multiple_of(STRIKES_MAX) {
            return None;
        }
        let times = self.count / STRIKES_MAX;
        let doubled = 2_u64.saturating_pow(times.saturating_sub(1));
        Some(SHUT_OUT_MIN_MS.saturating_mul(doubled).min(SHUT_OUT_MAX_MS))
    }

    /// Returns how many there were.
    pub fn count(&self) -> u32 {
        self.count
    }
}

/// Until when a peer is shut out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutOut {
    until_ms: u64,
}

impl ShutOut {
    /// Shuts a peer out from `now_ms` on for `wait_ms`.
    pub fn new(now_ms: u64, wait_ms: u64) -> Self {
        Self {
            until_ms: now_ms.saturating_add(wait_ms),
        }
    }

    /// Returns the milliseconds that are left; `None` when the peer may come again.
    pub fn left_ms(&self, now_ms: u64) -> Option<u64> {
        Some(self.until_ms.saturating_sub(now_ms)).filter(|left_ms| *left_ms > 0)
    }
}

// Half of `wait_ms` to one and a half of it, exclusive: whole fleets come back at once, and each
// node waits a time of its own.
fn jittered(wait_ms: u64, random: u64) -> u64 {
    let share = wait_ms.saturating_mul(random >> 32) >> 32;
    (wait_ms / 2).saturating_add(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The random bits that make a wait shortest, as long as it is due, and longest.
    const SHORTEST: u64 = 0;
    const EVEN: u64 = 1 << 63;
    const LONGEST: u64 = u64::MAX;

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
        // A dial alone changes nothing: it may fail again.
        assert_eq!(dialer.next::<()>(true, None, None), DialStep::Dial);
        assert_eq!(failures(&mut dialer, 1), [2000]);
    }

    #[test]
    fn jitter_is_half_to_one_and_a_half() {
        for (wait_ms, shortest, longest) in [(500, 250, 749), (60_000, 30_000, 89_999)] {
            assert_eq!(jittered(wait_ms, SHORTEST), shortest);
            assert_eq!(jittered(wait_ms, EVEN), wait_ms);
            assert_eq!(jittered(wait_ms, LONGEST), longest);
        }
        let waits: Vec<_> = (0..8).map(|part| jittered(800, part << 61)).collect();
        assert_eq!(waits, [400, 500, 600, 700, 800, 900, 1000, 1100]);
    }

    #[test]
    fn removal_ends_before_shut_out_waits_before_connection_stays() {
        let mut dialer = Dialer::default();
        assert_eq!(dialer.next(false, Some(1), Some(())), DialStep::End);
        assert_eq!(dialer.next(false, None, Some(())), DialStep::End);
        assert_eq!(dialer.next(true, Some(1), Some(())), DialStep::Wait(1));
        assert_eq!(dialer.next::<()>(true, Some(1), None), DialStep::Wait(1));
        // A peer that was shut out is not dialled sooner because of it.
        failures(&mut dialer, 2);
        dialer.next(true, Some(1), Some(()));
        assert_eq!(failures(&mut dialer, 1), [2000]);
    }

    #[test]
    fn dialling_side_begins_and_both_sync_now_and_then() {
        let listen = SyncStep::Listen(SYNC_EVERY_MS);
        let steps = [
            (SyncEvent::Connected { dialled: true }, SyncStep::Sync),
            (SyncEvent::Connected { dialled: false }, listen),
            (SyncEvent::Synced, listen),
            (SyncEvent::Wanted, SyncStep::Sync),
            (SyncEvent::Due, SyncStep::Exchange),
            (SyncEvent::Exchanged, SyncStep::Sync),
        ];
        for (event, step) in steps {
            assert_eq!(sync_step(event, EVEN), step, "{event:?}");
        }
        let shortest = SyncStep::Listen(SYNC_EVERY_MS / 2);
        assert_eq!(sync_step(SyncEvent::Synced, SHORTEST), shortest);
    }

    #[test]
    fn failed_sync_rests_then_waits_to_be_asked() {
        let rest = sync_step(SyncEvent::Failed, EVEN);
        assert_eq!(rest, SyncStep::Rest(SYNC_RETRY_MS));
        let listen = SyncStep::Listen(SYNC_EVERY_MS);
        assert_eq!(sync_step(SyncEvent::Rested, EVEN), listen);
    }

    #[test]
    fn busy_peer_is_asked_again_until_it_takes_too_long() {
        for waited_ms in [0, SYNC_BUSY_LOOK_MS, SYNC_WORK_MS_MAX - 1] {
            assert_eq!(busy_wait_ms(waited_ms), Some(SYNC_BUSY_LOOK_MS));
        }
        assert_eq!(busy_wait_ms(SYNC_WORK_MS_MAX), None);
    }

    #[test]
    fn n2_each_shut_out_is_twice_as_long() {
        let mut strikes = Strikes::default();
        let waits: Vec<_> = (1..=12 * STRIKES_MAX)
            .map(|count| {
                let wait_ms = strikes.strike();
                assert_eq!(strikes.count(), count);
                assert_eq!(wait_ms.is_some(), count.is_multiple_of(STRIKES_MAX));
                wait_ms
            })
            .collect();
        let waits: Vec<_> = waits.into_iter().flatten().collect();
        let doubling = [1, 2, 4, 8, 16, 32, 64, 128, 256].map(|times| SHUT_OUT_MIN_MS * times);
        assert_eq!(waits[..9], doubling);
        assert_eq!(waits[9..], [SHUT_OUT_MAX_MS; 3]);
        strikes.count = u32::MAX - 1;
        assert_eq!(strikes.strike(), None);
        assert_eq!(strikes.count(), u32::MAX, "the count does not wrap");
    }

    #[test]
    fn n2_shut_out_ends_at_its_time() {
        let shut_out = ShutOut::new(100, SHUT_OUT_MIN_MS);
        assert_eq!(shut_out.left_ms(100), Some(SHUT_OUT_MIN_MS));
        assert_eq!(shut_out.left_ms(99 + SHUT_OUT_MIN_MS), Some(1));
        assert_eq!(shut_out.left_ms(100 + SHUT_OUT_MIN_MS), None);
        assert_eq!(shut_out.left_ms(u64::MAX), None);
        assert_eq!(ShutOut::new(u64::MAX, 1).left_ms(u64::MAX), None);
    }
}
