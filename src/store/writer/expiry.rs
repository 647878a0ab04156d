//! Expiries: published when the clock passes them. Heads never change because time has passed.

use std::sync::Arc;

use crate::{
    bus::StateReset,
    limits::DRIFT_MS_MAX,
    protocol::change::{Change, Origin},
    state::Expiring,
    store::writer::writer::Writer,
};

impl Writer {
    /// Publishes the expiries that are due at `now_ms`, some at a time, if there are any.
    pub(super) fn expire_if_due(&mut self, now_ms: u64) {
        self.follow_clock_back();
        if self.next_expiry_ms.is_none_or(|due_ms| due_ms > now_ms) {
            return self.pass_time(now_ms);
        }
        let mut changes = Vec::new();
        let view = self.state.staged();
        let due = view.expiring_whole(view.expired_through_ms, now_ms, EXPIRIES_AT_ONCE);
        let Expiring {
            due,
            through_ms,
            too_many,
        } = match due {
            Ok(due) => due,
            Err(error) => return self.state_damaged(error),
        };
        for (ms, key) in due {
            let heads = match self.state.heads(&key) {
                Ok(heads) => heads,
                Err(error) => return self.state_damaged(error),
            };
            let expiry = Change::expiry(key, ms, heads, Origin::Local, now_ms);
            changes.extend(expiry.map(Arc::new));
        }
        self.state.expire_through(through_ms);
        self.state.show();
        if too_many {
            let reset = StateReset::Lost(Expiring::TOO_MANY.into());
            self.bus.publish_reset(&reset, self.published());
        } else {
            self.publish(&changes);
        }
        self.find_next_expiry();
    }

    // Nothing expires for long: positions that are published from now on say so. They stay behind by as much
    // as clocks may differ, so that on no other node an expiry which is still to come is taken for an old one.
    fn pass_time(&mut self, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(DRIFT_MS_MAX);
        let before_ms = self.state.staged().expired_through_ms;
        if passed_ms.saturating_sub(before_ms) > DRIFT_MS_MAX {
            self.state.expire_through(passed_ms);
            self.state.show();
            self.publish(&[]);
        }
    }

    /// Does nothing unless the clock was set back behind expiries that were published. Leases end by
    /// the clock, so the ends of those that were renewed meanwhile must be published when it comes to
    /// them. Others are published a second time.
    pub(super) fn follow_clock_back(&mut self) {
        let now_ms = self.clock.now_ms();
        if self.state.staged().expired_through_ms <= now_ms {
            return;
        }
        self.state.set_expired_through(now_ms);
        self.state.show();
        self.publish(&[]);
        self.find_next_expiry();
    }

    /// Looks up when the next expiry is due.
    pub(super) fn find_next_expiry(&mut self) {
        match self.state.expiring(u64::MAX - 1, 1) {
            Ok(due) => self.next_expiry_ms = due.first().map(|(ms, _)| *ms),
            Err(error) => self.state_damaged(error),
        }
    }
}

const EXPIRIES_AT_ONCE: usize = 1024;
