//! The times at which a connection is synced: on request, and periodically.

use crate::{
    limits::{SYNC_BUSY_LOOK_MS, SYNC_EVERY_MS, SYNC_RETRY_MS, SYNC_WORK_MS_MAX},
    protocol::peer::jitter::jittered,
};

/// An event on the connection to a peer; see [`sync_step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncEvent {
    /// The connection has just been made.
    Connected {
        /// True on the side that dialled, which opens the first sync.
        dialled: bool,
    },
    /// A sync of all stores succeeded.
    Synced,
    /// A sync failed, and the connection is still open.
    Failed,
    /// The wait of [`SyncStep::Rest`] has ended.
    Rested,
    /// Something asked for a sync while the shell listened.
    Wanted,
    /// The time of [`SyncStep::Listen`] ran out, or the acks of both sides differ for too long.
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
        // After a failure the connection rests, whatever asks for a sync.
        SyncEvent::Failed => SyncStep::Rest(SYNC_RETRY_MS),
        SyncEvent::Connected { dialled: false } | SyncEvent::Synced | SyncEvent::Rested => {
            SyncStep::Listen(jittered(SYNC_EVERY_MS, random))
        }
        SyncEvent::Due => SyncStep::Exchange,
    }
}

/// Returns the milliseconds after which a sync is opened again, if the peer refused it because of a
/// session of its own; `None` when the sync has been refused for `waited_ms`, and that is too long.
pub fn busy_wait_ms(waited_ms: u64) -> Option<u64> {
    (waited_ms < SYNC_WORK_MS_MAX).then_some(SYNC_BUSY_LOOK_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Random bits that make a wait shortest, and that leave it unchanged.
    const SHORTEST: u64 = 0;
    const EVEN: u64 = 1 << 63;

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
}
