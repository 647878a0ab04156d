//! One node's view of one peer: where its task is, its turn, its strikes.

use std::collections::BTreeSet;

use lattice::{
    limits::{SHUT_OUT_MIN_MS, STRIKES_MAX},
    protocol::{
        peer::{Dialer, ShutOut, Strikes, SyncEvent},
        sync::Turn,
    },
};

/// All that a node keeps about a peer in memory. A restart begins with a new one.
#[derive(Debug, Default)]
pub struct Peer {
    pub dialer: Dialer,
    pub step: Step,
    /// Set by a connection that comes or goes and by a wish to sync. Taken by a task that waits
    /// after a failed dial.
    pub is_woken: bool,
    /// Set by a wish to sync. Taken by a task that listens.
    pub is_wanted: bool,
    pub turn: Turn,
    /// The sessions of the peer that the turn has decided to serve.
    pub served: BTreeSet<u64>,
    pub strikes: Strikes,
    pub shut_out: Option<ShutOut>,
    // When each strike was.
    struck_ms: Vec<u64>,
}

/// Where the task of a peer is. Times are on the clock of the world.
#[derive(Debug, Clone, Copy, Default)]
pub enum Step {
    /// The dialer is asked next.
    #[default]
    Next,
    /// The peer is shut out.
    ShutOut { until_ms: u64 },
    /// A dial is under way: it reaches the peer from `due_ms` on, and fails at `fails_ms`.
    Dialling { due_ms: u64, fails_ms: u64 },
    /// A dial has failed.
    Failed { until_ms: u64 },
    /// There is a connection.
    Staying { connection: u64, stay: Stay },
}

/// Where the task of a connected peer is.
#[derive(Debug, Clone, Copy)]
pub enum Stay {
    /// `sync_step` is asked next.
    After(SyncEvent),
    /// An own session waits until the turn allows it. `began_ms`: when the sync began.
    Opening {
        began_ms: u64,
    },
    /// An own session goes on.
    Syncing {
        began_ms: u64,
        link: u64,
    },
    /// The peer has refused it as busy.
    Busy {
        began_ms: u64,
        until_ms: u64,
    },
    Resting {
        until_ms: u64,
    },
    Listening {
        until_ms: u64,
    },
    Exchanging {
        until_ms: u64,
    },
}

impl Peer {
    /// Notes a wish to sync.
    pub fn want(&mut self) {
        self.is_woken = true;
        self.is_wanted = true;
    }

    /// Returns the milliseconds for which the peer is still shut out.
    pub fn shut_out_ms(&self, now_ms: u64) -> Option<u64> {
        self.shut_out.and_then(|shut_out| shut_out.left_ms(now_ms))
    }

    /// Counts a strike. True when the peer is shut out because of it.
    pub fn strike(&mut self, now_ms: u64) -> bool {
        self.struck_ms.push(now_ms);
        let wait_ms = self.strikes.strike(now_ms);
        self.shut_out = wait_ms
            .map(|wait_ms| ShutOut::new(now_ms, wait_ms))
            .or(self.shut_out);
        wait_ms.is_some()
    }

    /// True while the session `link` is this node's own and goes on.
    pub fn has_opened(&self, link: u64) -> bool {
        matches!(self.step, Step::Staying { stay: Stay::Syncing { link: own, .. }, .. } if own == link)
    }

    /// Notes in the turn that `link` has ended, if it was served.
    pub fn end_served(&mut self, link: u64) {
        if self.served.remove(&link) {
            self.turn.served();
        }
    }

    /// Returns when its task goes on by itself, `u64::MAX` when it waits for something else.
    pub fn due_ms(&self, now_ms: u64) -> u64 {
        match self.step {
            Step::Next => now_ms,
            Step::Failed { .. } if self.is_woken => now_ms,
            Step::ShutOut { until_ms } | Step::Failed { until_ms } => until_ms,
            Step::Dialling { due_ms, .. } => due_ms,
            Step::Staying { stay, .. } => match stay {
                Stay::After(_) => now_ms,
                Stay::Opening { .. } if self.turn.may_open() => now_ms,
                Stay::Listening { .. } if self.is_wanted => now_ms,
                Stay::Opening { .. } | Stay::Syncing { .. } => u64::MAX,
                Stay::Busy { until_ms, .. }
                | Stay::Resting { until_ms }
                | Stay::Listening { until_ms }
                | Stay::Exchanging { until_ms } => until_ms,
            },
        }
    }

    /// Panics unless the peer had peace after every `STRIKES_MAX`th strike, each time twice as
    /// long.
    pub fn assert_was_shut_out(&self) {
        let rounds = self.struck_ms.chunks(STRIKES_MAX as usize);
        let firsts = rounds.clone().skip(1).map(|round| round[0]);
        let lasts = rounds.map(|round| *round.last().expect("a chunk is not empty"));
        for (times, (last, first)) in lasts.zip(firsts).enumerate() {
            assert!(
                first - last >= SHUT_OUT_MIN_MS << times,
                "{} ms after strike {} the peer was let in",
                first - last,
                (times + 1) * STRIKES_MAX as usize
            );
        }
    }
}
