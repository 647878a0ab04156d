//! The writer: one thread that owns logs and state, and does one thing at a time.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{broadcast, mpsc, oneshot};

use crate::{
    bus::{Published, StateReset},
    clock::Clock,
    id::Author,
    limits::{FLUSH_EVERY, GROUP_BYTES_MAX, GROUP_WRITES_MAX, RECENT_BYTES_MAX},
    log::{LogDamage, Logs, LostTail},
    protocol::{
        change::{Change, Origin},
        entry::VerifiedEntry,
        frontier::FrontierTip,
        hlc::Hlc,
        membership::Members,
    },
    state::{State, StateError},
    store::{
        Fresh, IngestError, Ingested, RefusedEntry, Repaired, StoreConfig, WriteError,
        watch::position::published,
        writer::{
            grounds::Grounds,
            group::{Group, Writes},
            marks::Marks,
            membership::Membership,
            mend::Mending,
            open,
            queue::{Inbox, Next, Queue},
            status::{HeldEntry, WriterStatus},
            waiting::Waiting,
        },
    },
};

/// What the writer can be asked, besides writes.
#[derive(Debug)]
pub(in crate::store) enum Command {
    Ingest(
        Vec<Result<VerifiedEntry, RefusedEntry>>,
        oneshot::Sender<Result<Vec<Ingested>, IngestError>>,
    ),
    /// A reader found the state damaged while it had this version.
    Rebuild {
        version: u64,
        reply: oneshot::Sender<Result<(), StateError>>,
    },
    /// The members have changed.
    Reconsider(oneshot::Sender<()>),
    /// A sync has ended: what waits for entries that do not count goes on.
    Settle(oneshot::Sender<()>),
    Lacks(
        Vec<(Author, FrontierTip)>,
        oneshot::Sender<Vec<(Author, FrontierTip)>>,
    ),
    /// Damage of a log that a reader met.
    Damaged(Vec<LogDamage>),
    Missing(oneshot::Sender<Vec<(Author, FrontierTip)>>),
    Grounds(oneshot::Sender<Grounds>),
    Status(oneshot::Sender<WriterStatus>),
    Repair(oneshot::Sender<Result<Repaired, WriteError>>),
    Close(oneshot::Sender<Result<(), WriteError>>),
}

type Closed = (
    oneshot::Sender<Result<(), WriteError>>,
    Result<(), WriteError>,
);

// Why the writer goes on.
enum Wake {
    Next(Next),
    Idle,
    Gone,
}

/// The writer's own state. Lives on its thread.
#[derive(Debug)]
pub(in crate::store) struct Actor {
    pub(super) config: StoreConfig,
    pub(super) clock: Clock,
    pub(super) logs: Logs,
    // None only while it is being built again or closed.
    pub(super) state: Option<State>,
    pub(super) bus: crate::bus::Bus,
    pub(super) fresh: broadcast::Sender<Fresh>,
    // Entries of the current group that `fresh` tells after the fsync.
    pub(super) applying: Vec<Fresh>,
    // Greater than or equal to every stamp applied or issued.
    pub(super) hlc: Hlc,
    // When the newest entry arrived: does not go back with the wall clock.
    pub(super) arrived_ms: u64,
    pub(super) waiting: Waiting,
    pub(super) marks: Marks,
    pub(super) membership: Membership,
    // The members that the state goes by.
    pub(super) counted_by: std::sync::Arc<Members>,
    // Set by a failed fsync, never cleared: opening the store again is the way on.
    pub(super) poisoned: Option<String>,
    // Set when the state file cannot be written; cleared when it was built again.
    pub(super) state_failed: Option<StateError>,
    pub(super) recovered: Vec<String>,
    pub(super) damage: Vec<LogDamage>,
    pub(super) mending: Mending,
    // What is gone of this node's own log; own writes wait for `Repair`.
    pub(super) cuts: Vec<LostTail>,
    // The next time an expiry is due, as far as known; None: nothing is.
    pub(super) next_expiry_ms: Option<u64>,
    pub(super) flushed_at: Instant,
    // Writes of the last group, and when it was written.
    pub(super) grouped: usize,
    pub(super) grouped_at: Option<Instant>,
    // What the last group from elsewhere took to become durable and known.
    pub(super) committed_in: Duration,
    // Changes staged by the current group, told after the fsync.
    pub(super) staged: Vec<std::sync::Arc<Change>>,
    pub(super) runtime: tokio::runtime::Handle,
}

impl Actor {
    /// Starts the thread. It ends when all senders are gone, or after `Close`.
    pub(in crate::store) fn start(self) -> Queue {
        let (queue, inbox) = Queue::new();
        thread::spawn(move || {
            let (bus, lease) = (self.bus.clone(), self.config.lease.clone());
            // The panic was printed; callers find their answers gone, watches end.
            let ended = catch_unwind(AssertUnwindSafe(|| self.run(inbox)));
            if ended.is_err() {
                tracing::error!("the writer of a store has panicked: open the store again");
            }
            bus.close();
            // Before the answer: who is told that the store is closed may open it again at once.
            drop(lease);
            if let Ok(Some((reply, closed))) = ended {
                drop(reply.send(closed));
            }
        });
        queue
    }

    // Returns who asked for the end, and how it went.
    fn run(mut self, mut inbox: Inbox) -> Option<Closed> {
        loop {
            let command = match self.await_next(&mut inbox) {
                Wake::Next(Next::Command(command)) => Some(command),
                Wake::Next(Next::Writes(first)) => {
                    self.write_group(first, &mut inbox);
                    None
                }
                Wake::Idle => None,
                Wake::Gone => break,
            };
            // Who has gone away does not want to know.
            match command {
                None => {}
                Some(Command::Close(reply)) => {
                    // What comes later is answered with `Closed`: its channel is dropped.
                    inbox.close();
                    while inbox.has_writes() {
                        self.write_waiting(&mut inbox);
                    }
                    return Some((reply, self.close()));
                }
                Some(Command::Ingest(entries, reply)) => {
                    drop(reply.send(self.ingest(&entries, &mut inbox)));
                }
                Some(Command::Rebuild { version, reply }) => {
                    drop(reply.send(self.rebuild_unless_newer(version)));
                }
                Some(Command::Reconsider(reply)) => {
                    self.reconsider();
                    reply.send(()).unwrap_or_default();
                }
                Some(Command::Settle(reply)) => {
                    self.settle();
                    reply.send(()).unwrap_or_default();
                }
                Some(Command::Lacks(tips, reply)) => drop(reply.send(self.lacks(tips))),
                Some(Command::Damaged(found)) => self.note_damage(found),
                Some(Command::Missing(reply)) => drop(reply.send(self.missing())),
                Some(Command::Grounds(reply)) => {
                    drop(reply.send(self.membership.grounds()));
                }
                Some(Command::Status(reply)) => drop(reply.send(self.status())),
                Some(Command::Repair(reply)) => drop(reply.send(self.repair())),
            }
            self.maintain();
        }
        if let Err(error) = self.close() {
            tracing::error!(store = %self.config.id, %error, "store did not close cleanly");
        }
        None
    }

    fn await_next(&mut self, inbox: &mut Inbox) -> Wake {
        // A lone caller that writes one after the other comes back within moments: looking a
        // little longer spares both sides a sleep and a wake, which cost more than a signature.
        // Where many write, the processor is better left to them.
        let look_for = if self.grouped == 1 {
            LOOK_FOR
        } else {
            Duration::ZERO
        };
        let look_until = Instant::now() + look_for;
        loop {
            match inbox.try_next() {
                Ok(next) => return Wake::Next(next),
                Err(mpsc::error::TryRecvError::Disconnected) => return Wake::Gone,
                Err(mpsc::error::TryRecvError::Empty) if Instant::now() < look_until => {
                    thread::yield_now();
                }
                Err(mpsc::error::TryRecvError::Empty) => break,
            }
        }
        self.maintain();
        let wait = self.idle_for();
        let waited = async { tokio::time::timeout(wait, inbox.next()).await };
        match self.runtime.block_on(waited) {
            Ok(Some(next)) => Wake::Next(next),
            Ok(None) => Wake::Gone,
            Err(_elapsed) => Wake::Idle,
        }
    }

    /// Writes a group of what waits, if something does.
    pub(super) fn write_waiting(&mut self, inbox: &mut Inbox) {
        if let Some(first) = inbox.next_writes() {
            self.write_group(first, inbox);
        }
    }

    // Gathers what waits, up to a group's size, and writes it.
    fn write_group(&mut self, first: Writes, inbox: &mut Inbox) {
        let mut group = Group::default();
        group.add(first, self.config.root);
        while group.writes() < GROUP_WRITES_MAX
            && group.bytes() < GROUP_BYTES_MAX
            && let Some(writes) = inbox.next_writes()
        {
            group.add(writes, self.config.root);
        }
        self.grouped = group.writes();
        self.grouped_at = Some(Instant::now());
        self.run_group(group);
    }

    /// Does what is due besides commands: expiries, held entries, the flush.
    pub(super) fn maintain(&mut self) {
        if self.state_failed.is_some() {
            if self.flushed_at.elapsed() >= RETRY_EVERY {
                self.rebuild();
            }
            return;
        }
        let now_ms = self.clock.now_ms();
        if self.next_expiry_ms.is_some_and(|due| due <= now_ms) {
            self.expire(now_ms);
        }
        if self.waiting.is_due(now_ms) && self.poisoned.is_none() {
            self.release_held(now_ms);
        }
        if let Err(error) = self.flush_if_due() {
            self.state_damaged(error);
        }
    }

    fn idle_for(&self) -> Duration {
        let Some(state) = &self.state else {
            return RETRY_EVERY;
        };
        if self.state_failed.is_some() {
            return RETRY_EVERY;
        }
        if state.is_flushing() {
            return Duration::from_millis(20);
        }
        let flush = if state.recent_bytes() > 0 {
            FLUSH_EVERY.saturating_sub(self.flushed_at.elapsed())
        } else {
            Duration::from_secs(3600)
        };
        // Wall clocks jump, so a wait for one is short.
        let due = [self.next_expiry_ms, self.waiting.next_due_ms()]
            .into_iter()
            .flatten()
            .min();
        let clock = due.map_or(Duration::from_secs(3600), |due| {
            Duration::from_millis(due.saturating_sub(self.clock.now_ms()).clamp(1, 200))
        });
        flush.min(clock)
    }

    /// Tells the expiries that the clock has passed.
    fn expire(&mut self, now_ms: u64) {
        let Some(state) = &mut self.state else { return };
        let mut changes = Vec::new();
        let view = state.staged();
        let due = view.expiring_whole(view.expired_through_ms, now_ms, EXPIRIES_AT_ONCE);
        let (due, through_ms) = match due {
            Ok(due) => due,
            Err(error) => return self.state_damaged(error),
        };
        for (ms, key) in due {
            let heads = match state.heads(&key) {
                Ok(heads) => heads,
                Err(error) => return self.state_damaged(error),
            };
            let expiry = Change::expiry(key, ms, heads, Origin::Local, now_ms);
            changes.extend(expiry.map(std::sync::Arc::new));
        }
        state.expire_through(through_ms);
        state.show();
        self.publish(&changes);
        self.find_next_expiry();
    }

    /// Looks up when the next expiry is due.
    pub(super) fn find_next_expiry(&mut self) {
        let Some(state) = &self.state else { return };
        match state.expiring(u64::MAX - 1, 1) {
            Ok(due) => self.next_expiry_ms = due.first().map(|(ms, _)| *ms),
            Err(error) => self.state_damaged(error),
        }
    }

    /// Tells watchers `changes`, which the newest view shows.
    pub(super) fn publish(&self, changes: &[std::sync::Arc<Change>]) {
        self.bus.publish(changes, self.published());
    }

    /// Returns where the newest view stands.
    pub(super) fn published(&self) -> Published {
        let state = self.state.as_ref().expect("the store is open");
        published(state.staged())
    }

    fn flush_if_due(&mut self) -> Result<(), StateError> {
        let Some(state) = &mut self.state else {
            return Ok(());
        };
        let full = state.recent_bytes() >= RECENT_BYTES_MAX;
        if state.finish_flush(full)? {
            self.marks.flushed();
        }
        let due = state.recent_bytes() > 0 && self.flushed_at.elapsed() >= FLUSH_EVERY;
        if (full || due) && !state.is_flushing() {
            state.flush(notes(&mut self.marks, &mut self.membership, &self.logs));
            self.flushed_at = Instant::now();
        }
        Ok(())
    }

    /// Writes everything in memory to the state file and waits for it.
    pub(super) fn flush_all(&mut self) -> Result<(), StateError> {
        let Some(state) = &mut self.state else {
            return Ok(());
        };
        if state.finish_flush(true)? {
            self.marks.flushed();
        }
        state.flush(notes(&mut self.marks, &mut self.membership, &self.logs));
        state.finish_flush(true)?;
        self.marks.flushed();
        Ok(())
    }

    /// The state file cannot be used: builds it again from the log.
    pub(super) fn state_damaged(&mut self, error: StateError) {
        tracing::warn!(store = %self.config.id, %error, "building the state again from the log");
        self.state_failed = Some(error);
        self.rebuild();
    }

    fn rebuild_unless_newer(&mut self, version: u64) -> Result<(), StateError> {
        let newer = self
            .marks
            .rebuilt_at
            .is_some_and(|rebuilt| rebuilt > version);
        if !newer {
            self.state_damaged(StateError::Damaged {
                what: "a read found it so".to_owned(),
            });
        }
        self.state_failed.clone().map_or(Ok(()), Err)
    }

    /// Builds the state again from the log. `state_failed` says where that failed.
    pub(super) fn rebuild(&mut self) {
        self.flushed_at = Instant::now();
        let Some(old) = &self.state else { return };
        let (reader, lacked) = (old.reader().clone(), old.staged().lacks);
        let mut damage = Vec::new();
        let built = open::build_state(
            &self.config,
            &self.logs,
            &mut self.marks,
            &mut self.membership,
            &mut damage,
        );
        self.note_damage(damage);
        match built {
            Ok(mut state) => {
                state.show_through(reader);
                self.marks.rebuilt_at = Some(state.staged().version);
                if let Some(error) = self.state_failed.take() {
                    self.recovered
                        .push(format!("the state was built again: {error}"));
                }
                let is_whole = !state.staged().lacks;
                self.state = Some(state);
                self.find_next_expiry();
                if lacked && is_whole {
                    self.bus
                        .publish_reset(&StateReset::Restored, self.published());
                }
            }
            Err(error) => {
                tracing::error!(store = %self.config.id, %error, "cannot build the state again");
                self.state_failed = Some(error);
            }
        }
    }

    fn close(&mut self) -> Result<(), WriteError> {
        self.bus.close();
        if self.poisoned.is_none() {
            self.logs.seal().map_err(WriteError::from)?;
        }
        if self.state_failed.is_none() && self.poisoned.is_none() {
            self.flush_all().map_err(WriteError::from)?;
        }
        match self.state.take() {
            Some(state) => state.close().map_err(WriteError::from),
            None => Ok(()),
        }
    }

    fn status(&self) -> WriterStatus {
        let failed = self
            .state_failed
            .as_ref()
            .map(|error| format!("the state: {error}"));
        let refused = self.check_own_log().and(self.own_tip().map(drop)).err();
        WriterStatus {
            pending_entries: self.waiting.pending.len(),
            pending_bytes: self.waiting.pending.bytes(),
            held: self
                .waiting
                .held()
                .map(|(due_ms, entry)| HeldEntry {
                    author: entry.author(),
                    id: entry.id,
                    due_ms,
                })
                .collect(),
            void_acts: self.membership.void_acts(),
            forks: self.marks.forks.known(self.logs.reader()),
            damage: self.damage.iter().map(ToString::to_string).collect(),
            lost: self.lost(),
            poisoned: self
                .poisoned
                .clone()
                .or(failed)
                .or(refused.map(|why| why.to_string())),
            recovered: self.recovered.clone(),
        }
    }
}

// What the state keeps for the store, beside its rows.
fn notes(marks: &mut Marks, membership: &mut Membership, logs: &Logs) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut notes = marks.notes(logs);
    notes.append(&mut membership.notes());
    notes
}

const LOOK_FOR: Duration = Duration::from_micros(100);
const RETRY_EVERY: Duration = Duration::from_secs(1);
const EXPIRIES_AT_ONCE: usize = 1024;
