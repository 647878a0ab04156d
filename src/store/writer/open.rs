//! Opening a store: state and log brought together, whatever state they are in.

use std::{
    collections::BTreeSet,
    io,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::{
    bus::Bus,
    id::{Author, StoreId},
    limits::{RECENT_BYTES_MAX, REPLAY_CHUNK_BYTES},
    log::{
        LogDamage, LogError, Logs, Mark, Recovered,
        merge::{Merge, Merged, Span, spans},
    },
    protocol::{
        entry::{EntryError, VerifiedEntry},
        frontier::{Frontier, FrontierTip},
        hlc::Hlc,
        membership::Members,
    },
    state::{State, StateError},
    store::{
        Shared, StoreConfig,
        watch::position::published,
        writer::{
            actor::Actor,
            marks::Marks,
            membership::{self, Membership},
            mend::Mending,
            outbox,
            parents::{Absent, Reach},
            waiting::Waiting,
        },
    },
};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory could not be made or read.
    #[error("cannot open {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A log could not be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state could neither be read nor built again.
    #[error(transparent)]
    State(#[from] StateError),
    /// A tip's signature does not verify: somebody wrote into the log.
    #[error("the log of {} is not authentic", author.short())]
    NotAuthentic {
        /// Whose.
        author: Author,
        /// Why.
        source: EntryError,
    },
    /// A log whose entries belong to another store: a file was put in the wrong place.
    #[error("the log of {} belongs to store {theirs}, this is {ours}", author.short())]
    ForeignLog {
        /// Whose log.
        author: Author,
        /// What its entries say.
        theirs: StoreId,
        /// This store.
        ours: StoreId,
    },
    /// A bug: the opening thread panicked.
    #[error("opening the store ended in a panic")]
    Panicked,
}

impl OpenError {
    /// True when bytes on the disk are not what was written, or not where they belong.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Log(LogError::Damaged(_))
            | Self::State(StateError::Damaged { .. })
            | Self::NotAuthentic { .. }
            | Self::ForeignLog { .. } => true,
            Self::Io { .. }
            | Self::Log(LogError::Io { .. } | LogError::Full { .. })
            | Self::State(StateError::Io { .. })
            | Self::Panicked => false,
        }
    }
}

pub(in crate::store) fn open(
    config: StoreConfig,
    runtime: tokio::runtime::Handle,
) -> Result<(Shared, Actor), OpenError> {
    let io = |source| OpenError::Io {
        path: config.dir.clone(),
        source,
    };
    config.disk.create_dir(&config.dir).map_err(io)?;
    let mut recovered = Vec::new();
    let mut membership = Membership::new(&config.authority, config.id);
    let (logs, found, mut state, marks, counted_by) =
        open_both(&config, &mut membership, &mut recovered)?;
    for (file, bytes) in &found.torn {
        let line =
            format!("{bytes} bytes at the end of {file} were never acknowledged and are cut");
        tracing::warn!(store = %config.id, line);
        recovered.push(line);
    }
    for damage in &found.damage {
        tracing::error!(store = %config.id, %damage);
    }
    state.expire_through(config.clock.now_ms());
    state.show();
    let branches = logs.reader().all();
    let tips = branches.iter().filter_map(|branch| branch.tip());
    let hlc = tips.map(|tip| tip.hlc).fold(Hlc::ZERO, Ord::max);
    let points = branches
        .iter()
        .filter_map(|branch| branch.index_from(0).last().copied());
    let arrived_ms = points.map(|point| point.arrived_ms).max().unwrap_or(0);
    let published = published(&state.reader().view());
    let shared = Shared {
        id: config.id,
        author: Author(config.key.verifying_key().to_bytes()),
        root: config.root,
        clock: config.clock.clone(),
        log: logs.reader().clone(),
        state: state.reader().clone(),
        bus: Bus::new(config.bus_batches, published),
        fresh: outbox::channel(),
        members: membership.watch(),
        anyone: membership.is_anyone(),
        holds: tokio::sync::watch::Sender::new(0),
        dir: config.dir.clone(),
        runtime: runtime.clone(),
    };
    let mut cuts = found.lost_tails;
    cuts.retain(|cut| cut.author == shared.author);
    let mut actor = Actor {
        clock: config.clock.clone(),
        bus: shared.bus.clone(),
        fresh: shared.fresh.clone(),
        applying: Vec::new(),
        config,
        logs,
        state: Some(state),
        hlc,
        arrived_ms,
        waiting: Waiting::new(),
        marks,
        membership,
        counted_by,
        poisoned: None,
        state_failed: None,
        recovered,
        damage: found.damage,
        mending: Mending::default(),
        cuts,
        next_expiry_ms: None,
        flushed_at: Instant::now(),
        grouped: 0,
        grouped_at: None,
        committed_in: Duration::ZERO,
        staged: Vec::new(),
        runtime,
    };
    actor.recount();
    actor.find_next_expiry();
    Ok((shared, actor))
}

// Last, the members that the state goes by.
type Opened = (Logs, Recovered, State, Marks, Arc<Members>);

fn open_both(
    config: &StoreConfig,
    membership: &mut Membership,
    recovered: &mut Vec<String>,
) -> Result<Opened, OpenError> {
    let reason = match open_with_state(config, membership, recovered)? {
        Ok(opened) => return Ok(opened),
        Err(reason) => reason,
    };
    let (logs, mut found) = Logs::open(Arc::clone(&config.disk), &config.dir.join("logs"), &[])?;
    if !logs.reader().all().is_empty() {
        tracing::warn!(store = %config.id, reason, "building the state from the log");
        recovered.push(format!("the state was built again from the log: {reason}"));
    }
    let mut marks = Marks::default();
    let state = build(config, &logs, &mut marks, membership, &mut found.damage)?;
    let members = membership.members();
    Ok((logs, found, state, marks, members))
}

// The inner error says why the state is of no use.
fn open_with_state(
    config: &StoreConfig,
    membership: &mut Membership,
    recovered: &mut Vec<String>,
) -> Result<Result<Opened, String>, OpenError> {
    let (mut state, stored) = match State::open(Arc::clone(&config.disk), &config.state_path()) {
        Ok(opened) => opened,
        Err(StateError::Damaged { what }) => return Ok(Err(what)),
        Err(error) => return Err(error.into()),
    };
    let (Some((mut marks, known)), Some(acts), Some(absent)) = (
        Marks::read(&stored.notes),
        membership::read_notes(&stored.notes),
        Absent::read(&stored.notes),
    ) else {
        return Ok(Err("its notes are not readable".to_owned()));
    };
    let (logs, mut found) = Logs::open(Arc::clone(&config.disk), &config.dir.join("logs"), &known)?;
    // Empty and there already: the node died before its first flush.
    let fills = stored.frontier.is_empty() && !logs.reader().all().is_empty();
    if fills && stored.created {
        tracing::warn!(store = %config.id, "state.db is missing: building it from the log");
        recovered.push("the state was built again from the log: its file was missing".to_owned());
    }
    check_tips(config, &logs, &known)?;
    membership.absent = absent;
    membership::load(membership, &logs, &acts)?;
    // A removal that this store had not heard of when it was closed, or died.
    let cut = |(author, tip)| membership.is_cut(&author, tip, logs.reader());
    if stored.frontier.iter().any(cut) {
        return Ok(Err(
            "it has entries of a removed node that do not count".to_owned()
        ));
    }
    let counted_by = membership.members();
    if stored.lacks {
        // What it lacks may be there by now; if not, it is met again, and its place known.
        let what = "it lacks entries that could not be read";
        tracing::warn!(store = %config.id, what, "building the state from the log");
        recovered.push(format!("the state was built again from the log: {what}"));
        drop(state);
        let state = build(config, &logs, &mut marks, membership, &mut found.damage)?;
        let members = membership.members();
        return Ok(Ok((logs, found, state, marks, members)));
    }
    if fills {
        state.fill();
    }
    match replay(
        config,
        &logs,
        &mut state,
        &stored.frontier,
        &mut marks,
        membership,
        &mut found.damage,
    )? {
        Ok(()) => {
            state.filled();
            Ok(Ok((logs, found, state, marks, counted_by)))
        }
        Err(what) => Ok(Err(what)),
    }
}

/// Makes a new state file and fills it from the logs. Adds to `damage` what could not be read.
pub(super) fn build_state(
    config: &StoreConfig,
    logs: &Logs,
    marks: &mut Marks,
    membership: &mut Membership,
    damage: &mut Vec<LogDamage>,
) -> Result<State, StateError> {
    build(config, logs, marks, membership, damage).map_err(|error| match error {
        OpenError::State(error) => error,
        other => StateError::Io {
            source: Arc::new(io::Error::other(other.to_string())),
        },
    })
}

fn build(
    config: &StoreConfig,
    logs: &Logs,
    marks: &mut Marks,
    membership: &mut Membership,
    damage: &mut Vec<LogDamage>,
) -> Result<State, OpenError> {
    State::discard(config.disk.as_ref(), &config.state_path())?;
    marks.forget();
    membership.forget_saved();
    let (mut state, _empty) = State::open(Arc::clone(&config.disk), &config.state_path())?;
    check_tips(config, logs, &[])?;
    let none = Frontier::default();
    state.fill();
    match replay(config, logs, &mut state, &none, marks, membership, damage)? {
        Ok(()) => {
            state.filled();
            Ok(state)
        }
        Err(what) => Err(StateError::Damaged { what }.into()),
    }
}

// Applies what the logs have after `from`. The inner error: the state is ahead of the logs, or
// damaged.
fn replay(
    config: &StoreConfig,
    logs: &Logs,
    state: &mut State,
    from: &Frontier,
    marks: &mut Marks,
    membership: &mut Membership,
    damage: &mut Vec<LogDamage>,
) -> Result<Result<(), String>, OpenError> {
    let all = all_of(logs);
    let spans = match spans(logs.reader(), from, &all)? {
        Ok(spans) => spans,
        Err(unknown) => {
            let what = unknown.first().map_or_else(String::new, |tip| {
                let author = tip.author.short();
                format!(
                    "it is ahead of the log of {author}: {} against {}",
                    tip.tip.seq, tip.have
                )
            });
            tracing::error!(store = %config.id, what, "the state is ahead of the log");
            return Ok(Err(what));
        }
    };
    membership::collect(membership, logs, &spans, state)?;
    let reach = Reach::of(logs.reader());
    let due: u64 = spans.iter().map(|span| span.through - span.after).sum();
    let (mut read, mut lost) = (0, BTreeSet::new());
    // One thread reads and decodes, this one applies, the flusher writes.
    let (parts, decoded) = mpsc::sync_channel(PARTS_AHEAD);
    thread::scope(|scope| {
        scope.spawn(move || decode(spans, &parts));
        for part in decoded {
            for next in part? {
                match next {
                    Merged::Entry { entry, .. } => {
                        read += 1;
                        check_store(config, &entry)?;
                        marks.forks.note(&entry);
                        if !membership.counts(&entry, logs.reader()) {
                            continue;
                        }
                        for absent in reach.absent(&entry) {
                            membership.absent.add(absent);
                        }
                        match state.stage(&entry) {
                            Ok(_changes) => {}
                            Err(StateError::Damaged { what }) => return Ok(Err(what)),
                            Err(error) => return Err(error.into()),
                        }
                    }
                    Merged::Damage(found) => {
                        state.lack(true);
                        lost.insert(found.author);
                        note(damage, found);
                    }
                }
            }
            if state.recent_bytes() >= RECENT_BYTES_MAX / 2 {
                flush_part(state, marks, membership)?;
            }
        }
        marks.forks.commit();
        // Not where all that is damaged is a mark between entries.
        state.lack(!lost.is_empty() && read < due);
        // Also where nothing readable follows: what comes next must not hide that it is missing.
        for author in lost {
            let tips = all.tips(&author);
            let counts = |tip: &FrontierTip| membership.counts_at(&author, *tip, logs.reader());
            if tips.iter().all(counts) {
                state.pass(author, tips);
            }
        }
        state.show();
        Ok(Ok(()))
    })
}

// Sends the entries of `spans` in order, in parts; ends early when nobody takes them.
fn decode(spans: Vec<Span>, parts: &mpsc::SyncSender<Result<Vec<Merged>, LogError>>) {
    let mut merge = match Merge::new(spans) {
        Ok(merge) => merge,
        Err(error) => return drop(parts.send(Err(error))),
    };
    loop {
        let (mut part, mut bytes_read) = (Vec::new(), 0);
        while bytes_read < REPLAY_CHUNK_BYTES {
            match merge.next() {
                Ok(Some(next)) => {
                    if let Merged::Entry { bytes, .. } = &next {
                        bytes_read += bytes;
                    }
                    part.push(next);
                }
                Ok(None) => return drop(parts.send(Ok(part))),
                Err(error) => return drop(parts.send(Err(error))),
            }
        }
        if parts.send(Ok(part)).is_err() {
            return;
        }
    }
}

// The same damage can be met when the logs are opened, and again when they are read.
fn note(damage: &mut Vec<LogDamage>, found: LogDamage) {
    if !damage.iter().any(|known| known.covers(&found)) {
        damage.push(found);
    }
}

// Where the branches end comes with the last flush. Who is a member, and what is closed, comes with
// the frontier that has it: what is behind a frontier is not read again.
fn flush_part(
    state: &mut State,
    marks: &mut Marks,
    membership: &mut Membership,
) -> Result<(), OpenError> {
    state.show();
    if state.finish_flush(true)? {
        marks.flushed();
    }
    marks.forks.commit();
    let notes = membership.notes().into_iter().chain(marks.forks.notes());
    state.flush(notes.collect());
    Ok(())
}

fn all_of(logs: &Logs) -> Frontier {
    let tips = logs.reader().all();
    let tips = tips
        .iter()
        .filter_map(|branch| Some((branch.author, branch.tip()?)));
    tips.map(|(author, tip)| {
        (
            author,
            FrontierTip {
                seq: tip.seq,
                id: tip.id,
            },
        )
    })
    .collect()
}

// Everything before an authentic tip is authentic through its chain of ids; what a mark names was
// looked at before.
fn check_tips(config: &StoreConfig, logs: &Logs, known: &[Mark]) -> Result<(), OpenError> {
    for branch in logs.reader().all() {
        let Some(tip) = branch.tip() else { continue };
        if known.iter().any(|mark| mark.tip.id == tip.id) {
            continue;
        }
        let Ok(Some((entry, _record))) = branch.entry(tip.seq) else {
            continue;
        };
        let author = branch.author;
        check_store(config, &entry)?;
        crate::protocol::entry::Entry::clone(&entry)
            .verify()
            .map_err(|source| OpenError::NotAuthentic { author, source })?;
    }
    Ok(())
}

fn check_store(config: &StoreConfig, entry: &VerifiedEntry) -> Result<(), OpenError> {
    if entry.header.store == config.id {
        return Ok(());
    }
    Err(OpenError::ForeignLog {
        author: entry.author(),
        theirs: entry.header.store,
        ours: config.id,
    })
}

impl StoreConfig {
    pub(super) fn state_path(&self) -> PathBuf {
        self.dir.join("state.db")
    }
}

// Parts that are decoded ahead of the one being applied.
const PARTS_AHEAD: usize = 4;
