//! Collecting: heads that acts take leave the state, some rows at a time between other work.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    protocol::{finality::Collections, placed_act::PlacedAct},
    store::{
        PruneError,
        writer::{sweep::Sweep, writer::Writer},
    },
};

impl Writer {
    /// Finds which heads acts take, if that may have changed.
    pub(super) fn find_collections(&mut self) {
        if self.config.root || self.membership.is_anyone() {
            return;
        }
        let (members, finality) = (self.membership.members(), self.membership.finality());
        let known = &self.sweep;
        let is_same = known
            .members
            .as_ref()
            .is_some_and(|it| Arc::ptr_eq(it, &members))
            && known
                .finality
                .as_ref()
                .is_some_and(|it| Arc::ptr_eq(it, &finality));
        let is_due = known
            .waits_since
            .is_some_and(|at| at.elapsed() > LOOK_EVERY);
        if is_same && !is_due {
            return;
        }
        let mut waits = false;
        let acts = members.anchors_acts(&self.config.id);
        let before = Arc::clone(self.state.collections());
        let (now_ms, next_ms) = (self.clock.now_ms(), self.next_expiry_ms);
        let is_reported = |ms: u64| ms <= now_ms && next_ms.is_none_or(|next_ms| next_ms > ms);
        let found = Collections::join(acts.map(Arc::as_ref), |act, collection| {
            let has_applied = || {
                self.has_applied(act).unwrap_or_else(|error| {
                    tracing::debug!(store = %self.config.id, %error, "an act is looked at later");
                    false
                })
            };
            // Watches hear of an expiry before the value goes. Once all of an act is here, it stays.
            let is_whole =
                before.has(&act.at.id) || (is_reported(collection.expired_ms()) && has_applied());
            waits |= !is_whole;
            Ok::<_, Infallible>(is_whole)
        });
        let Ok(found) = found;
        // A sweep goes on unless other heads are taken.
        let after = self.sweep.after.take().filter(|_| found == *before);
        self.sweep = Sweep {
            members: Some(members),
            finality: Some(finality),
            waits_since: waits.then(Instant::now),
            after,
        };
        if found == *before {
            return;
        }
        // Heads that were taken by an act that does not count any more are in the logs, or gone.
        let takes_less = !found.have(&before);
        // Watches that are up to date have seen these expiries; see `check_seen`.
        self.state.expire_through(found.expired_ms());
        self.state.set_collections(found);
        self.state.show();
        self.publish(&[]);
        if takes_less {
            self.rebuild();
        }
    }

    // Whether everything that the act makes final is in the state.
    fn has_applied(&self, act: &PlacedAct) -> Result<bool, PruneError> {
        if self.state.staged().lacks {
            return Ok(false);
        }
        for (author, anchor) in act.act.anchors().iter() {
            match self.check_applied(&author, anchor) {
                Err(PruneError::NotApplied { .. }) => return Ok(false),
                applied => applied?,
            }
        }
        Ok(true)
    }

    /// Takes heads from some more rows, until none are left.
    pub(super) fn sweep_some(&mut self) {
        if self.state.staged().is_swept {
            return;
        }
        let after = self.sweep.after.take();
        match self.state.sweep(after.as_deref(), ROWS_AT_ONCE) {
            Ok(after) => {
                self.sweep.after = after;
                self.state.show();
            }
            Err(error) => self.state_damaged(error),
        }
    }

    /// Returns how long there is nothing to collect, as far as is known.
    pub(super) fn collecting_idle_for(&self) -> Duration {
        if !self.state.staged().is_swept {
            return Duration::ZERO;
        }
        let waits = self.sweep.waits_since;
        waits.map_or(Duration::MAX, |at| LOOK_EVERY.saturating_sub(at.elapsed()))
    }

    /// Forgets how far it has come: the state is a new one.
    pub(super) fn collect_again(&mut self) {
        self.sweep = Sweep::default();
        self.find_collections();
    }
}

// Rows that are looked at while writes wait: about 0.1 ms.
const ROWS_AT_ONCE: usize = 256;
// While entries are missing, it is looked this often whether they have come.
const LOOK_EVERY: Duration = Duration::from_millis(200);
