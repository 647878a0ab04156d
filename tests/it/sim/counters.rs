//! How often each rare thing happened: a simulation that never gets there proves nothing.

/// Events of one or more runs.
#[derive(Debug, Default)]
pub struct Counters {
    /// Entries written.
    pub writes: usize,
    /// Entries that began a second branch on a node.
    pub forks: usize,
    /// Entries that closed a fork.
    pub repairs: usize,
    /// Sessions of equal frontiers.
    pub same: usize,
    /// Sessions that were complete, equal ones left out.
    pub complete: usize,
    /// Sides of sessions that asked more than once.
    pub asked_again: usize,
    /// Sessions that were cut, those among them that had begun to send entries.
    pub cut: usize,
    pub cut_midway: usize,
    /// Entries that came again.
    pub duplicates: usize,
    /// Entries that were released when what they waited for came; that had to make room.
    pub released: usize,
    pub evicted: usize,
    /// Entries that were held and became due.
    pub due: usize,
    /// Crashes, and those that lost the end of a log.
    pub crashes: usize,
    pub tails_lost: usize,
    /// Backups that were put back and lacked something.
    pub restores: usize,
    /// Partitions, and gossip that got lost.
    pub partitions: usize,
    pub gossip_lost: usize,
    /// Clocks set forward and back, by an hour or more.
    pub clocks_forward: usize,
    pub clocks_back: usize,
    /// Dials that failed and waited; connections to a peer that had been connected before.
    pub dials_failed: usize,
    pub reconnects: usize,
    /// Hellos that came while the acceptor had a session of its own open, and waits for the answer
    /// to it that ran out.
    pub ties: usize,
    pub waits_run_out: usize,
    /// Sessions that were refused because of the acceptor's own.
    pub refused_busy: usize,
    /// Syncs that followed because the time of a listening connection ran out.
    pub exchanges: usize,
    /// Messages that no honest peer sends, times that their sender was shut out for them, its dials
    /// that were refused meanwhile, and times that it came back.
    pub strikes: usize,
    pub shut_outs: usize,
    pub shut_out_dials: usize,
    pub shut_outs_ended: usize,
    /// Parts of bases that came, and bases that were installed. None in a world.
    pub parts: usize,
    pub bases: usize,
    /// Longest time after the end of all faults until all nodes were equal.
    pub heal_ms_max: u64,
}

impl Counters {
    /// Panics when something never happened.
    pub fn assert_all_happened(&self) {
        let counts = [
            ("writes", self.writes),
            ("forks", self.forks),
            ("repairs", self.repairs),
            ("same", self.same),
            ("complete", self.complete),
            ("asked again", self.asked_again),
            ("cut", self.cut),
            ("cut midway", self.cut_midway),
            ("duplicates", self.duplicates),
            ("released", self.released),
            ("evicted", self.evicted),
            ("due", self.due),
            ("crashes", self.crashes),
            ("tails lost", self.tails_lost),
            ("restores", self.restores),
            ("partitions", self.partitions),
            ("gossip lost", self.gossip_lost),
            ("clocks forward", self.clocks_forward),
            ("clocks back", self.clocks_back),
            ("dials failed", self.dials_failed),
            ("reconnects", self.reconnects),
            ("ties", self.ties),
            ("waits run out", self.waits_run_out),
            ("refused busy", self.refused_busy),
            ("strikes", self.strikes),
            ("shut outs", self.shut_outs),
            ("shut out dials", self.shut_out_dials),
            ("shut outs ended", self.shut_outs_ended),
        ];
        let never: Vec<_> = counts.iter().filter(|(_, count)| *count == 0).collect();
        assert!(never.is_empty(), "never happened: {never:?}");
    }
}
