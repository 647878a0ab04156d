//! Rebuilds: the state made from the logs, whole or from where a state file ends.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use crate::{
    bus::StateReset,
    limits::{RECENT_BYTES_MAX, REPLAY_CHUNK_BYTES},
    log::{
        LogDamage, LogError, Logs, Mark,
        merge::{Merge, Merged, NotHere, Span, spans, whole},
    },
    protocol::{
        entry::{Entry, VerifiedEntry},
        fork::closed_by,
        frontier::{Frontier, FrontierTip},
        heads::Heads,
        membership::Standing,
    },
    state::{Base, State, StateError},
    store::{
        OpenError, StoreConfig,
        writer::{
            apply::{NotApplied, apply},
            health::Health,
            marks::Marks,
            membership::Membership,
            notes::Note,
            replayed::Replayed,
            writer::Writer,
        },
    },
};

/// Everything that a state is made of.
pub(super) struct Sources<'a> {
    pub(super) config: &'a StoreConfig,
    pub(super) logs: &'a Logs,
    pub(super) marks: &'a mut Marks,
    pub(super) membership: &'a mut Membership,
    /// The rows of the entries that the logs may not have any more.
    pub(super) base: Option<&'a Arc<Base>>,
    /// Damage that is met is added here.
    pub(super) damage: &'a mut Vec<LogDamage>,
}

impl Sources<'_> {
    /// Makes a new state file and fills it from the base and the logs.
    ///
    /// # Errors
    /// `StateLost`, and the state file is as it was, when entries were removed from the logs and there is
    /// no base. The file system refuses; a log is not authentic, or belongs to another store.
    pub(super) fn build(&mut self) -> Result<State, OpenError> {
        // Where entries were removed, the state file goes only when the base is known to be good.
        let checked = self.check_base()?;
        if let Some(pruned) = self.logs.reader().pruned()
            && let Err(what) = checked
        {
            return Err(OpenError::StateLost { what, pruned });
        }
        let (disk, path) = (&self.config.disk, self.config.dir.join("state.db"));
        State::discard(disk.as_ref(), &path)?;
        self.marks.forget_saved();
        self.membership.forget_saved();
        let (mut state, _empty) = State::open(Arc::clone(disk), &path, self.config.id)?;
        self.check_tips(&[])?;
        state.fill();
        let mut from = Frontier::default();
        if let Some(base) = self.base {
            // A part of it is never taken for the whole: the frontier comes last.
            state.load(base, |state| {
                state.show();
                state.finish_flush(true)?;
                state.flush(Vec::new());
                Ok(())
            })?;
            from = base.manifest().frontier();
        }
        match self.replay(&mut state, &from)? {
            Ok(()) => {
                state.filled();
                Ok(state)
            }
            Err(what) => Err(StateError::Damaged { what }.into()),
        }
    }

    // Checks that the base can be read, and that the logs go on from it; one that cannot be used is not.
    // The inner error says why there is none.
    pub(super) fn check_base(&mut self) -> Result<Result<(), String>, OpenError> {
        let Some(base) = self.base else {
            return Ok(Err(
                "it must be built again, and there is no base".to_owned()
            ));
        };
        let checked = match base.check() {
            Ok(_records) => self.spans_after(&base.manifest().frontier(), &all_of(self.logs))?,
            Err(StateError::Damaged { what }) => Err(what),
            Err(error) => return Err(error.into()),
        };
        if checked.is_err() {
            self.base = None;
        }
        Ok(checked.map(drop))
    }

    /// Applies to `state` what the logs have after `from`. The inner error: the state is ahead of the
    /// logs or damaged, and must be built.
    ///
    /// # Errors
    /// The file system refuses; a log belongs to another store.
    pub(super) fn replay(
        &mut self,
        state: &mut State,
        from: &Frontier,
    ) -> Result<Result<(), String>, OpenError> {
        let log = self.logs.reader();
        let all = all_of(self.logs);
        let spans = match self.spans_after(from, &all)? {
            Ok(spans) => spans,
            Err(what) => return Ok(Err(what)),
        };
        self.membership.collect(self.logs, &spans, state)?;
        self.membership.join_anchors(log)?;
        let anchors = self.base.map(|base| base.manifest().frontier());
        let mut replayed = Replayed::after(anchors.unwrap_or_default(), self.membership.finality());
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
                            if let Err(refused) = self.apply(state, &entry, &mut replayed)? {
                                return Ok(Err(refused));
                            }
                        }
                        Merged::Damage(found) => {
                            state.lack(true);
                            lost.insert(found.author);
                            self.note(found);
                        }
                    }
                }
                if state.recent_bytes() >= RECENT_BYTES_MAX / 2 {
                    self.flush_part(state)?;
                }
            }
            // Where an entry is missing at the end of a log, its author's tip is passed all the same:
            // an entry that comes next must not hide that it is missing.
            for author in &lost {
                let tips = all.tips(author);
                let mut counts = true;
                for tip in tips {
                    counts &= self.membership.counts(author, *tip, log)?;
                }
                if counts {
                    state.pass(*author, tips);
                }
            }
            let unreadable = self.membership.take_unreadable();
            // The state lacks nothing where all that is damaged is a mark between entries.
            state.lack((!lost.is_empty() && read < due) || !unreadable.is_empty());
            for found in unreadable {
                self.note(found);
            }
            state.show();
            Ok(Ok(()))
        })
    }

    /// Returns whether the logs have entries after `from`, where a state ends, that may not have counted when
    /// they came: of an author with anchors that is no member any more, or has several branches. They
    /// would be applied after entries that cite them, which the state took for applied.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn counts_again(&self, from: &Frontier) -> Result<bool, LogError> {
        let (finality, log) = (self.membership.finality(), self.logs.reader());
        for branch in log.all() {
            let author = branch.author;
            let is_plain =
                log.of(&author).len() < 2 && self.membership.standing(&author) == Standing::Counts;
            if is_plain || !finality.has_anchors(&author) {
                continue;
            }
            let Some(tip) = branch.tip().map(FrontierTip::from) else {
                continue;
            };
            let mut is_reached = false;
            for stored in from.tips(&author) {
                is_reached |= *stored == tip
                    || self
                        .membership
                        .unless_damaged(log.leads(&author, tip, *stored))?
                        == Some(true);
            }
            if !is_reached {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Checks that the newest entry of each branch is authentic and of this store. Each entry before
    /// it is so through the chain of ids. A tip that a mark names was checked before.
    ///
    /// # Errors
    /// `NotAuthentic`, `ForeignLog`.
    pub(super) fn check_tips(&self, known: &[Mark]) -> Result<(), OpenError> {
        let known: BTreeSet<_> = known.iter().map(|mark| mark.tip.id).collect();
        for branch in self.logs.reader().all() {
            let Some(tip) = branch.tip() else { continue };
            if known.contains(&tip.id) {
                continue;
            }
            let Ok(Some((entry, _record))) = branch.entry(tip.seq) else {
                continue;
            };
            let author = branch.author;
            check_store(self.config, &entry)?;
            Entry::clone(&entry)
                .verify()
                .map_err(|source| OpenError::NotAuthentic {
                    author,
                    file: branch.name.clone(),
                    source,
                })?;
        }
        Ok(())
    }

    // The inner error: the state is ahead of the logs, or damage hides whether it is.
    fn spans_after(
        &self,
        from: &Frontier,
        all: &Frontier,
    ) -> Result<Result<Vec<Span>, String>, OpenError> {
        let log = self.logs.reader();
        if from.is_empty() && log.pruned().is_none() {
            return Ok(Ok(whole(log)));
        }
        let what = match spans(log, from, all) {
            Ok(Ok(spans)) => return Ok(Ok(spans)),
            Ok(Err(NotHere::Ahead(unknown))) => unknown.first().map_or_else(String::new, |tip| {
                let author = tip.author.short();
                format!(
                    "it is ahead of the log of {author}: entry {} against {}",
                    tip.tip.seq, tip.have
                )
            }),
            Ok(Err(NotHere::Pruned(_))) => "it lacks entries that were removed".to_owned(),
            Err(LogError::Damaged(damage)) => damage.to_string(),
            Err(error) => return Err(error.into()),
        };
        tracing::error!(store = %self.config.id, what, "the state does not fit the logs");
        Ok(Err(what))
    }

    // The inner error: the state is damaged.
    fn apply(
        &self,
        state: &mut State,
        entry: &VerifiedEntry,
        replayed: &mut Replayed,
    ) -> Result<Result<(), String>, OpenError> {
        check_store(self.config, entry)?;
        for tip in closed_by(entry) {
            state.close_tip(&entry.author(), &tip);
        }
        replayed.add(entry.id);
        let (author, place) = (entry.author(), FrontierTip::of(entry));
        if !self.membership.counts(&author, place, self.logs.reader())? {
            return Ok(Ok(()));
        }
        if self.membership.makes_admins(entry) && state.staged().is_cited_ahead(entry)? {
            return Ok(Err(
                "acts that came before their grant may count now".to_owned()
            ));
        }
        let unreadable = &mut |found| self.membership.note_unreadable(found);
        let log = self.logs.reader();
        let absent = |heads: &[Heads]| replayed.absent(entry, heads, log);
        match apply(state, entry, log, absent, unreadable) {
            Ok(()) => Ok(Ok(())),
            Err(NotApplied::State(StateError::Damaged { what })) => Ok(Err(what)),
            Err(NotApplied::State(error)) => Err(error.into()),
            Err(NotApplied::Log(error)) => Err(error.into()),
        }
    }

    // The same damage can be met when the logs are opened, and again when they are read.
    fn note(&mut self, found: LogDamage) {
        if !self.damage.iter().any(|known| known.covers(&found)) {
            self.damage.push(found);
        }
    }

    // Marks come with the last flush. Acts come with the frontier that has them: what
    // lies behind a frontier is not read again.
    fn flush_part(&mut self, state: &mut State) -> Result<(), OpenError> {
        state.show();
        if state.finish_flush(true)? {
            self.marks.flushed();
        }
        let notes = self.membership.take_unsaved();
        state.flush(notes.iter().map(Note::encode).collect());
        Ok(())
    }
}

impl Writer {
    /// The state file cannot be used: builds it again from the log.
    pub(super) fn state_damaged(&mut self, error: StateError) {
        tracing::warn!(store = %self.config.id, %error, "building the state again from the log");
        drop(self.health.set(Health::StateFailed(error)));
        self.rebuild();
    }

    /// Builds the state again for a reader that found it damaged at `version`, unless it was built
    /// again since.
    ///
    /// # Errors
    /// It cannot be built.
    pub(super) fn rebuild_unless_newer(&mut self, version: u64) -> Result<(), StateError> {
        if self.rebuilt_at.is_none_or(|rebuilt| rebuilt <= version) {
            self.state_damaged(StateError::Damaged {
                what: "a reader found damage".to_owned(),
            });
        }
        self.health.state_error().cloned().map_or(Ok(()), Err)
    }

    /// Builds the state again from the log. If that fails, `health` has the reason, and the old state
    /// stays.
    pub(super) fn rebuild(&mut self) {
        self.flushed_at = Instant::now();
        let (reader, lacked) = (self.state.reader().clone(), self.state.staged().lacks);
        let mut damage = Vec::new();
        let base = self.base.newest();
        let built = Sources {
            config: &self.config,
            logs: &self.logs,
            marks: &mut self.marks,
            membership: &mut self.membership,
            base: base.as_ref(),
            damage: &mut damage,
        }
        .build();
        self.mending.note(damage);
        match built.map_err(state_error) {
            Ok(mut state) => {
                state.show_through(reader);
                self.rebuilt_at = Some(state.staged().version);
                if let Health::StateFailed(error) = self.health.set(Health::Well) {
                    self.recovered
                        .push(format!("the state was built again: {error}"));
                }
                let is_whole = !state.staged().lacks;
                self.state = state;
                self.collect_again();
                self.find_next_expiry();
                self.publish_gap();
                if lacked && is_whole {
                    self.bus
                        .publish_reset(&StateReset::Restored, self.published());
                }
            }
            Err(error) => {
                tracing::error!(store = %self.config.id, %error, "cannot build the state again");
                drop(self.health.set(Health::StateFailed(error)));
            }
        }
    }
}

fn state_error(error: OpenError) -> StateError {
    match error {
        OpenError::State(error) => error,
        lost @ OpenError::StateLost { .. } => StateError::Damaged {
            what: lost.to_string(),
        },
        other => StateError::Io {
            source: Arc::new(io::Error::other(other.to_string())),
        },
    }
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

// Parts that are decoded ahead of the one that is applied.
const PARTS_AHEAD: usize = 4;
