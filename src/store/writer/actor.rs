//! The writer's thread: it does one thing at a time.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use crate::{
    limits::{BASES_STEPS_MAX, GROUP_BYTES_MAX, GROUP_WRITES_MAX, HELD_SHOWN_MAX, INGEST_OPS_MIN},
    store::{
        IngestError, Ingested, WriteError,
        writer::{
            command::{Command, Writes},
            group::Group,
            health::Health,
            intake::{Checked, PartLimit},
            queue::{Inbox, Next, Queue},
            status::{HeldEntry, WriterStatus},
            writer::Writer,
        },
    },
};

type Closed = (
    oneshot::Sender<Result<(), WriteError>>,
    Result<(), WriteError>,
);

// Why the thread goes on.
enum Wake {
    Next(Next),
    Idle,
    Disconnected,
}

/// The writer and what its thread keeps between two commands.
#[derive(Debug)]
pub(in crate::store) struct Actor {
    writer: Writer,
    inbox: Inbox,
    // How many writes the last group had, and when it was written; 0 and `None` before the first.
    grouped: usize,
    grouped_at: Option<Instant>,
    // Where the thread waits for the inbox.
    runtime: Handle,
}

impl Actor {
    /// Starts the thread. It ends after `Close`, or when the last `Queue` is dropped.
    pub(in crate::store) fn start(writer: Writer, runtime: Handle) -> Queue {
        let (queue, inbox) = Queue::new();
        thread::spawn(move || {
            let (bus, lease) = (writer.bus.clone(), writer.config.lease.clone());
            let actor = Self {
                writer,
                inbox,
                grouped: 0,
                grouped_at: None,
                runtime,
            };
            // The panic was printed. Callers get `Closed`, watches end.
            let ended = catch_unwind(AssertUnwindSafe(|| actor.run()));
            if ended.is_err() {
                tracing::error!("the writer of a store has panicked: open the store again");
            }
            bus.close();
            // Before the reply: the caller may open the store again at once.
            drop(lease);
            if let Ok(Some((reply, closed))) = ended {
                drop(reply.send(closed));
            }
        });
        queue
    }

    // Returns the caller that asked for the end, and how it went.
    fn run(mut self) -> Option<Closed> {
        loop {
            let wake = self.await_next();
            if self.writer.membership.follow() {
                self.writer.reconsider();
                self.offer_waiting();
            }
            match wake {
                Wake::Next(Next::Writes(first)) => self.write_group(first),
                Wake::Next(Next::Command(Command::Close(reply))) => {
                    // Later commands and writes get `Closed`: their channels are dropped.
                    self.inbox.close();
                    while let Some(first) = self.inbox.next_writes() {
                        self.write_group(first);
                    }
                    return Some((reply, self.writer.close()));
                }
                Wake::Next(Next::Command(command)) => self.perform(command),
                Wake::Idle => {}
                Wake::Disconnected => break,
            }
            self.catch_up();
        }
        let store = self.writer.config.id;
        if let Err(error) = self.writer.close() {
            tracing::error!(%store, %error, "the store did not close cleanly");
        }
        None
    }

    // A reply is dropped when its caller has gone away.
    fn perform(&mut self, command: Command) {
        let writer = &mut self.writer;
        match command {
            Command::Ingest(entries, reply) => drop(reply.send(self.ingest(&entries))),
            Command::Rebuild { version, reply } => {
                drop(reply.send(writer.rebuild_unless_newer(version)));
            }
            Command::Reconsider(reply) => {
                writer.reconsider();
                self.offer_waiting();
                reply.send(()).unwrap_or_default();
            }
            Command::Settle(reply) => {
                self.settle();
                reply.send(()).unwrap_or_default();
            }
            Command::Bases(mut bases, reply) => {
                let done = writer.intake.find_bases(&mut bases, BASES_STEPS_MAX);
                drop(reply.send((bases, done)));
            }
            Command::Damaged(found) => writer.mending.note(found),
            Command::Moment(reply) => drop(reply.send(writer.moment())),
            Command::Missing(reply) => {
                // A root of before is that of other members.
                writer.find_collections();
                drop(reply.send(writer.missing()));
            }
            Command::Grounds(reply) => drop(reply.send(writer.membership.grounds())),
            Command::Status(reply) => drop(reply.send(writer.status())),
            Command::TakeBase(base, reply) => drop(reply.send(writer.fold_into(*base))),
            Command::TakeBeginning(base, reply) => drop(reply.send(writer.begin_at(*base))),
            Command::FlushThrough(anchors, reply) => {
                drop(reply.send(writer.flush_through(&anchors)));
            }
            Command::Prune(anchors, reply) => {
                let pruned = writer.prune(&anchors);
                self.offer_waiting();
                drop(reply.send(pruned));
            }
            Command::CheckInstall(anchors, terms, reply) => {
                drop(reply.send(writer.check_install(&anchors, terms)));
            }
            Command::Install(base, terms, reply) => {
                let installed = writer.install(*base, terms);
                // Entries that waited for those before the anchors.
                self.settle();
                drop(reply.send(installed));
            }
            Command::Repair(reply) => {
                let repaired = writer.repair();
                self.offer_waiting();
                drop(reply.send(repaired));
            }
            Command::Close(_) => unreachable!("`run` ends with it"),
        }
    }

    fn await_next(&mut self) -> Wake {
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
            match self.inbox.try_next() {
                Ok(next) => return Wake::Next(next),
                Err(mpsc::error::TryRecvError::Disconnected) => return Wake::Disconnected,
                Err(mpsc::error::TryRecvError::Empty) if Instant::now() < look_until => {
                    thread::yield_now();
                }
                Err(mpsc::error::TryRecvError::Empty) => break,
            }
        }
        self.catch_up();
        let wait = self.writer.idle_for();
        let inbox = &mut self.inbox;
        let waited = async { tokio::time::timeout(wait, inbox.next()).await };
        match self.runtime.block_on(waited) {
            Ok(Some(next)) => Wake::Next(next),
            Ok(None) => Wake::Disconnected,
            Err(_elapsed) => Wake::Idle,
        }
    }

    // Gathers the writes that wait, up to a group's size, and writes them.
    fn write_group(&mut self, first: Writes) {
        let reserves_keys = self.writer.reserves_keys.load(Ordering::Relaxed);
        let mut group = Group::default();
        group.add(first, reserves_keys);
        while group.writes().len() < GROUP_WRITES_MAX
            && group.bytes() < GROUP_BYTES_MAX
            && let Some(writes) = self.inbox.next_writes()
        {
            group.add(writes, reserves_keys);
        }
        self.grouped = group.writes().len();
        self.grouped_at = Some(Instant::now());
        self.writer.write_group(group);
    }

    // Takes in entries from elsewhere, and what waited for them. Local writes do not wait for all of
    // them: the part that is staged is committed, and the writes go first.
    fn ingest(&mut self, entries: &[Checked]) -> Result<Vec<Ingested>, IngestError> {
        let own_entries = self.writer.own_entries_in(entries);
        let mut outcomes = Vec::with_capacity(entries.len());
        let done = loop {
            let before = outcomes.len();
            let own_entries = own_entries.saturating_sub(before);
            let part = |writer: &mut Writer, limit: &PartLimit<'_>| {
                writer.ingest_part(&entries[before..], Some(limit))
            };
            match self.with_limit(own_entries, part) {
                Ok(mut part) => outcomes.append(&mut part),
                Err(error) => break Err(error.into()),
            }
            if outcomes.len() == entries.len() {
                break Ok(outcomes);
            }
            self.let_writes_go();
        };
        self.offer_waiting();
        self.writer.mend();
        done
    }

    // A sync has ended: pending entries are offered again, and do not wait for parents that do not
    // count.
    fn settle(&mut self) {
        let pending = self.writer.intake.settle();
        self.writer.offer_again(pending);
        self.offer_waiting();
        self.writer.intake.settled();
    }

    // Offers entries again that waited, in parts, until there are no more.
    fn offer_waiting(&mut self) {
        let mut parts = 0;
        while self.with_limit(0, |writer, limit| writer.offer_part_again(limit)) {
            parts += 1;
            self.let_writes_go();
        }
        if parts > 0 {
            self.writer.mend();
        }
    }

    fn let_writes_go(&mut self) {
        if let Some(first) = self.inbox.next_writes() {
            self.write_group(first);
        }
        self.maintain();
    }

    // Does what is due, until nothing is.
    fn catch_up(&mut self) {
        self.maintain();
        self.offer_waiting();
    }

    // Does what is due besides commands.
    fn maintain(&mut self) {
        self.with_limit(0, |writer, limit| writer.maintain(limit));
    }

    // Calls `work` with the limit of a part. `entries_min`: entries that are committed together.
    fn with_limit<T>(
        &mut self,
        entries_min: usize,
        work: impl FnOnce(&mut Writer, &PartLimit<'_>) -> T,
    ) -> T {
        let time_max = self.part_time();
        let inbox = &self.inbox;
        let limit = PartLimit {
            ops_min: INGEST_OPS_MIN.max(self.grouped),
            entries_min,
            time_max,
            branches_max: if time_max == Duration::MAX {
                usize::MAX
            } else {
                BRANCHES_PART_MAX
            },
            writes_wait: &|| inbox.has_writes(),
        };
        work(&mut self.writer, &limit)
    }

    // Local writes wait while a part is committed. So while there are local writers, staging a part
    // takes no longer than the last commit did. Otherwise there is one part: fewer fsyncs.
    fn part_time(&self) -> Duration {
        let is_now = |at: Instant| at.elapsed() < WRITES_REMEMBERED;
        if self.grouped_at.is_some_and(is_now) {
            self.writer.committed_in
        } else {
            Duration::MAX
        }
    }
}

impl Writer {
    /// Does what is due besides commands: expiries, held entries, collecting, the flush.
    fn maintain(&mut self, limit: &PartLimit<'_>) {
        if self.health.state_error().is_some() {
            if self.flushed_at.elapsed() >= RETRY_EVERY {
                self.rebuild();
            }
            return;
        }
        let now_ms = self.clock.now_ms();
        self.expire_if_due(now_ms);
        let is_due = |due_ms| due_ms <= now_ms;
        if self.intake.next_due_ms().is_some_and(is_due) && !self.health.is_poisoned() {
            self.release_held(now_ms, limit);
        }
        self.find_collections();
        self.sweep_some();
        if let Err(error) = self.flush_if_due() {
            self.state_damaged(error);
        }
    }

    // Returns how long `maintain` has nothing to do.
    fn idle_for(&self) -> Duration {
        if self.health.state_error().is_some() {
            return RETRY_EVERY;
        }
        let due_ms = [self.next_expiry_ms, self.intake.next_due_ms()];
        let due_ms = due_ms.into_iter().flatten().min();
        let clock = due_ms.map_or(IDLE_MAX, |due_ms| {
            // Wall clocks jump, so a wait for one is short.
            Duration::from_millis(due_ms.saturating_sub(self.clock.now_ms()).clamp(1, 200))
        });
        self.flush_due_in()
            .min(clock)
            .min(self.collecting_idle_for())
    }

    // Writes what is in memory, seals the logs, and closes the files.
    fn close(mut self) -> Result<(), WriteError> {
        self.bus.close();
        if !self.health.is_poisoned() {
            self.logs.seal()?;
        }
        if self.health.check_writable().is_ok() {
            self.flush_all()?;
        }
        Ok(self.state.close()?)
    }

    fn status(&self) -> WriterStatus {
        let failed = match &self.health {
            Health::Well => None,
            Health::StateFailed(error) => Some(format!("the state: {error}")),
            Health::Poisoned { reason } => Some(reason.clone()),
        };
        let refused = self.check_own_log().and(self.check_clock());
        let refused = refused.and(self.own_tip().map(drop)).err();
        // Those that are due last.
        let held = self.intake.held().iter().rev().take(HELD_SHOWN_MAX);
        let damage = self.mending.damage().iter();
        WriterStatus {
            pending_entries: self.intake.pending().len(),
            pending_bytes: self.intake.pending().bytes(),
            held_entries: self.intake.held().len(),
            held: held
                .map(|(due_ms, entry)| HeldEntry {
                    author: entry.author(),
                    id: entry.id,
                    due_ms,
                })
                .collect(),
            void_acts: self.membership.void_acts(),
            // A state that cannot be read is built again; its forks are listed then.
            forks: self.known_forks().unwrap_or_default(),
            damage: damage.map(ToString::to_string).collect(),
            lost: self.lost(),
            poisoned: failed.or(refused.map(|why| why.to_string())),
            recovered: self.recovered.clone(),
        }
    }
}

const LOOK_FOR: Duration = Duration::from_micros(100);
const RETRY_EVERY: Duration = Duration::from_secs(1);
const IDLE_MAX: Duration = Duration::from_secs(3600);
// New branches of a part while there are local writers.
const BRANCHES_PART_MAX: usize = 4;
// A write this recent counts as "somebody is writing", so occasional and steady writers are treated
// alike.
const WRITES_REMEMBERED: Duration = Duration::from_secs(1);
