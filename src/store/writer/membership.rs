//! Membership as the writer of a store knows it: the acts in the root store, and what follows.
//!
//! An unreadable frame in the log answers like a tip that has not come: the entry is fetched from a
//! peer, and everything that rested on it is judged again once it is back. `take_unreadable` returns
//! the damage that was met; whoever builds or changes the state meanwhile marks it as lacking.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    id::{Author, EntryId, Seq, StoreId},
    log::{LogDamage, LogError, LogReader, Logs, merge::Span},
    protocol::{
        entry::{Entry, Op, Parent, VerifiedEntry},
        frontier::FrontierTip,
        hlc::Hlc,
        membership::{
            Members, Standing,
            acts::Acts,
            reserved::{Counting, claim, may_claim},
        },
    },
    state::{State, View},
    store::{
        Authority,
        writer::notes::{Founding, Note},
    },
};

/// The creator and the acts: everything that the members of a root store follow from.
#[derive(Debug)]
pub(in crate::store) struct Grounds {
    pub(in crate::store) creator: Author,
    /// All entries that have acts which may count.
    pub(in crate::store) acts: BTreeMap<EntryId, (Parent, Acts)>,
}

/// The writer's side of membership.
#[derive(Debug)]
pub(super) struct Membership {
    creator: Author,
    // True when every author counts: a store without a node.
    anyone: bool,
    store: StoreId,
    // In the root store: all entries that have acts, or other reserved ops that need more than the
    // entry to count, and that may count some day; see `may_count`. Includes `staged`.
    acts: BTreeMap<EntryId, (Parent, Acts)>,
    // Entries of `acts` that describe a store which their author has founded before.
    founders: BTreeSet<(EntryId, StoreId)>,
    // Acts that are void for ever, and not kept, among those that were read since the start.
    void: usize,
    // Acts of the current group. Moved to `unsaved` by `commit`, removed by `roll_back`.
    staged: Vec<EntryId>,
    // Committed, and not in the state's notes yet.
    unsaved: Vec<EntryId>,
    members: watch::Receiver<Arc<Members>>,
    // Sends to `members` and to all stores of the node. Only in the root store.
    publisher: Option<watch::Sender<Arc<Members>>>,
    // Damage met while ancestry was looked up.
    unreadable: RefCell<Vec<LogDamage>>,
}

impl Membership {
    pub(super) fn new(authority: &Authority, store: StoreId) -> Self {
        let creator = match authority {
            Authority::Root { creator } => *creator,
            Authority::Of(_) | Authority::Anyone => Author([0; 32]),
        };
        let (publisher, members) = match authority {
            Authority::Of(members) => (None, members.clone()),
            Authority::Root { .. } | Authority::Anyone => {
                let founded = Members::founded(creator, store);
                let (publisher, members) = watch::channel(Arc::new(founded));
                (Some(publisher), members)
            }
        };
        Self {
            creator,
            anyone: matches!(authority, Authority::Anyone),
            store,
            acts: BTreeMap::new(),
            founders: BTreeSet::new(),
            void: 0,
            staged: Vec::new(),
            unsaved: Vec::new(),
            members,
            publisher,
            unreadable: RefCell::default(),
        }
    }

    /// Notes an entry that comes after everything that `view` shows. `is_ancestor(before)` returns
    /// whether the author's entry at `before` is on the branch of `entry`. Returns those of its
    /// reserved ops that count then; `None` when none of them needs more than the entry.
    ///
    /// # Errors
    /// That of `is_ancestor`; the disk fails.
    pub(super) fn note<E: From<LogError>>(
        &mut self,
        entry: &Entry,
        view: &View,
        log: &LogReader,
        is_ancestor: impl FnMut(FrontierTip) -> Result<bool, E>,
    ) -> Result<Option<Counting>, E> {
        let (Some(acts), Some(in_place)) = (self.gather(entry, is_ancestor)?, &view.counting)
        else {
            return Ok(None);
        };
        let mut counting = Counting::new(self.creator);
        let founders = acts.describes.iter().map(|store| (acts.entry, *store));
        counting
            .founders
            .extend(founders.filter(|founder| self.founders.contains(founder)));
        // Most void acts are so at a glance: no authority of their author is here.
        let acts_by = |cited: &EntryId| in_place.acts.contains(&(*cited, acts.author));
        let has_ground = acts.author == self.creator || acts.cites.iter().any(acts_by);
        if !has_ground && !acts.leaves() {
            return Ok(Some(counting));
        }
        let members = self.evaluate(log)?;
        let nodes = acts.acts.iter().map(|(node, _)| (acts.entry, *node));
        counting
            .acts
            .extend(nodes.filter(|(id, node)| members.counts(id, node)));
        if members.authorized().contains(&acts.entry) {
            counting.authorized.insert(acts.entry);
        }
        Ok(Some(counting))
    }

    /// Ends a group that is durable: publishes the members that follow from its acts. Returns
    /// whether the state that `view` shows may rest on other members.
    pub(super) fn commit(&mut self, view: &View, log: &LogReader) -> bool {
        if self.staged.is_empty() {
            return false;
        }
        self.unsaved.append(&mut self.staged);
        self.publish(log) || !self.is_in_step(view)
    }

    /// Ends a group that was not written.
    pub(super) fn roll_back(&mut self) {
        for id in self.staged.drain(..) {
            if let Some((_, acts)) = self.acts.remove(&id) {
                for store in acts.describes {
                    self.founders.remove(&(id, store));
                }
            }
        }
    }

    /// Publishes the members as they follow from the acts now. Returns whether they changed.
    pub(super) fn publish(&self, log: &LogReader) -> bool {
        let Some(publisher) = &self.publisher else {
            return false;
        };
        let members = match self.evaluate(log) {
            Ok(members) => members,
            Err(error) => {
                // They stay as they were; the next act, or the next start, tries again.
                tracing::error!(store = %self.store, %error, "members cannot be evaluated");
                return false;
            }
        };
        publisher.send_if_modified(|known| {
            let changed = **known != members;
            if changed {
                *known = Arc::new(members);
            }
            changed
        })
    }

    /// Reads the entries at `places`, which are known to have acts, and takes over `founding`.
    ///
    /// # Errors
    /// A log is unreadable: who is a member would be a guess.
    pub(super) fn load(
        &mut self,
        logs: &Logs,
        places: &[(Author, Seq, EntryId)],
        founding: &[Founding],
    ) -> Result<(), LogError> {
        for founding in founding {
            self.found(founding);
        }
        let mut entries = Vec::new();
        for (author, seq, id) in places {
            if let Some((entry, _record)) = logs.reader().entry(author, *seq, id)? {
                entries.push(entry);
            }
        }
        self.gather_all(entries, logs.reader())?;
        // They are in the notes already.
        self.staged.clear();
        self.publish(logs.reader());
        Ok(())
    }

    /// Reads the entries of `spans` that have acts, and marks in `state`, which ends where the spans
    /// begin, the acts that count. This comes before the state gets the entries themselves.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn collect(
        &mut self,
        logs: &Logs,
        spans: &[Span],
        state: &mut State,
    ) -> Result<(), LogError> {
        if !self.is_root() {
            return Ok(());
        }
        let before = self.counting(|_entry| true);
        state.count(if state.staged().frontier.is_empty() {
            Counting::new(self.creator)
        } else {
            before
        });
        let mut found = Vec::new();
        for span in spans {
            let mut walk = span.branch.walk(span.after + 1);
            loop {
                match walk.next_record() {
                    Ok(Some(record)) if record.header.seq <= span.through => {
                        // Few entries have acts, and decoding an entry costs more than all the rest.
                        if may_claim(&record.payload)
                            && let Ok(entry) = span.branch.read_entry(&record)
                            && Acts::of(&entry).is_some()
                        {
                            found.push(entry);
                        }
                    }
                    Ok(_end) => break,
                    // The state meets the damage again when it gets the entries.
                    Err(LogError::Damaged(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let ids: BTreeSet<EntryId> = found.iter().map(|entry| entry.id).collect();
        self.gather_all(found, logs.reader())?;
        self.unsaved.append(&mut self.staged);
        self.publish(logs.reader());
        state.count(self.counting(|entry| ids.contains(entry)));
        Ok(())
    }

    /// Returns the members now.
    pub(super) fn members(&self) -> Arc<Members> {
        Arc::clone(&self.members.borrow())
    }

    /// Returns a receiver of the members.
    pub(super) fn watch(&self) -> watch::Receiver<Arc<Members>> {
        self.members.clone()
    }

    /// Returns whether every author counts.
    pub(super) fn is_anyone(&self) -> bool {
        self.anyone
    }

    /// Returns what becomes of entries of `author` in this store.
    pub(super) fn standing(&self, author: &Author) -> Standing {
        if self.anyone {
            return Standing::Counts;
        }
        self.members.borrow().standing(&self.store, author)
    }

    /// Returns whether `author` was removed, or has left.
    pub(super) fn is_removed(&self, author: &Author) -> bool {
        self.members.borrow().is_removed(author)
    }

    /// Returns whether the entry of `author` at `at` counts, if it is there.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn counts(
        &self,
        author: &Author,
        at: FrontierTip,
        log: &LogReader,
    ) -> Result<bool, LogError> {
        match self.standing(author) {
            Standing::Counts => Ok(true),
            Standing::Unknown | Standing::Reader => Ok(false),
            Standing::Through(cut) => cut.covers(author, at, |author, entry, tip| {
                self.keeps(log, author, entry, tip)
            }),
        }
    }

    /// Returns whether `author` was removed, and the entry at `at` is not among those that count.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn is_cut(
        &self,
        author: &Author,
        at: FrontierTip,
        log: &LogReader,
    ) -> Result<bool, LogError> {
        Ok(self.is_removed(author) && !self.counts(author, at, log)?)
    }

    /// Returns whether a removal of `author` that names `tip` keeps `entry`, as `LogReader::keeps`;
    /// `None` also when the answer is unreadable.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn keeps(
        &self,
        log: &LogReader,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, LogError> {
        self.unless_damaged(log.keeps(author, entry, tip))
    }

    /// Returns an answer about ancestry; `None`, and noted, when damage hides it.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn unless_damaged(
        &self,
        answer: Result<Option<bool>, LogError>,
    ) -> Result<Option<bool>, LogError> {
        match answer {
            Err(LogError::Damaged(found)) => {
                self.note_unreadable(found);
                Ok(None)
            }
            answer => answer,
        }
    }

    /// Notes damage that hides who is a member, or what counts.
    pub(super) fn note_unreadable(&self, found: LogDamage) {
        self.unreadable.borrow_mut().push(found);
    }

    /// Takes out the damage met since the last call. While there is some, members and heads may not
    /// be as they will be once it is mended.
    pub(super) fn take_unreadable(&self) -> Vec<LogDamage> {
        mem::take(&mut self.unreadable.borrow_mut())
    }

    /// Returns whether `view` has all acts that count, and no other.
    pub(super) fn is_in_step(&self, view: &View) -> bool {
        let members = self.members.borrow();
        view.counting.as_ref().is_none_or(|counting| {
            counting.acts == *members.counting() && counting.authorized == *members.authorized()
        })
    }

    /// Returns whether acts are noted and neither committed nor rolled back.
    pub(super) fn is_staging(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Returns how many acts are void.
    pub(super) fn void_acts(&self) -> usize {
        let acts: usize = self.acts.values().map(|(_, acts)| acts.acts.len()).sum();
        let void = acts - self.members.borrow().counting().len().min(acts);
        void.saturating_add(self.void)
    }

    /// Returns what the members follow from.
    pub(super) fn grounds(&self) -> Grounds {
        Grounds {
            creator: self.creator,
            acts: self.acts.clone(),
        }
    }

    /// Returns the entry by which `author` acts on others: an admin's grant.
    pub(super) fn authority(&self, author: &Author) -> Option<Parent> {
        let rank = self.members.borrow().get(author)?.rank?;
        self.acts.get(&rank.entry).map(|(parent, _)| *parent)
    }

    /// Takes out the places of entries with acts that were committed since the last call: they go
    /// into the state's notes.
    pub(super) fn take_unsaved(&mut self) -> Vec<Note> {
        let unsaved = mem::take(&mut self.unsaved).into_iter();
        let noted = unsaved.filter_map(|id| self.acts.get(&id));
        noted.map(|(at, acts)| note_of(at, acts)).collect()
    }

    /// Marks all acts as unsaved: the state file is a new one.
    pub(super) fn forget_saved(&mut self) {
        self.unsaved = self.acts.keys().copied().collect();
        self.void = 0;
    }

    // True when the acts are in this store.
    fn is_root(&self) -> bool {
        self.publisher.is_some() && !self.anyone
    }

    /// Returns the reserved keys of an entry that may count, but for those of its acts.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn keys_of(&self, id: &EntryId, log: &LogReader) -> Result<Vec<Bytes>, LogError> {
        let Some((place, _)) = self.acts.get(id) else {
            return Ok(Vec::new());
        };
        let read = match log.entry(&place.author, place.seq, id) {
            Err(LogError::Damaged(found)) => {
                self.note_unreadable(found);
                None
            }
            read => read?,
        };
        let reserved = |op: &&Op| claim(op).is_some();
        Ok(read.map_or(Vec::new(), |(entry, _)| {
            let ops = entry.ops.iter().filter(reserved);
            ops.map(Op::key).cloned().collect()
        }))
    }

    // Returns the reserved ops that count, of the entries for which `of` is true.
    fn counting(&self, of: impl Fn(&EntryId) -> bool) -> Counting {
        let members = self.members();
        let acts = members.counting().iter().copied();
        let authorized = members.authorized().iter().copied();
        let founders = self.founders.iter().copied();
        Counting {
            creator: self.creator,
            acts: acts.filter(|(entry, _)| of(entry)).collect(),
            authorized: authorized.filter(&of).collect(),
            founders: founders.filter(|(entry, _)| of(entry)).collect(),
        }
    }

    // Gathers the acts of entries of a log that is whole.
    fn gather_all(
        &mut self,
        mut entries: Vec<VerifiedEntry>,
        log: &LogReader,
    ) -> Result<(), LogError> {
        // Causes before effects: `may_count` asks for what an entry cites.
        entries.sort_by_key(|entry| entry.order());
        for entry in entries {
            let (author, place) = (entry.author(), FrontierTip::of(&entry));
            let unread = RefCell::new(Vec::new());
            self.gather(&entry, |before| match log.leads(&author, before, place) {
                Err(LogError::Damaged(found)) => {
                    unread.borrow_mut().push(found);
                    Ok(false)
                }
                answer => answer.map(|leads| leads == Some(true)),
            })?;
            self.unreadable.borrow_mut().append(&mut unread.take());
        }
        Ok(())
    }

    // Adds the acts of an entry to those that are known, and returns them. `None` when it has none
    // that may ever count.
    fn gather<E>(
        &mut self,
        entry: &Entry,
        mut is_ancestor: impl FnMut(FrontierTip) -> Result<bool, E>,
    ) -> Result<Option<Acts>, E> {
        let Some(acts) = Acts::of(entry).filter(|_| self.is_root()) else {
            return Ok(None);
        };
        let mut founders = BTreeSet::new();
        for store in &acts.describes {
            let mut is_founder = acts.founds.contains(store);
            for (place, founding) in self.acts.values() {
                let earlier = place.author == acts.author && place.seq < acts.seq;
                if !is_founder && earlier && founding.founds.contains(store) {
                    is_founder = is_ancestor(FrontierTip {
                        seq: place.seq,
                        id: place.id,
                    })?;
                }
            }
            if is_founder {
                founders.insert((acts.entry, *store));
            }
        }
        if !self.may_count(&acts) && founders.is_empty() && acts.founds.is_empty() {
            self.void = self.void.saturating_add(acts.acts.len());
            return Ok(None);
        }
        self.founders.extend(founders);
        let known = (entry.as_parent(), acts.clone());
        if self.acts.insert(entry.id, known).is_none() {
            self.staged.push(entry.id);
        }
        Ok(Some(acts))
    }

    // Takes over an entry that founds stores, without reading it: a damaged log of a founder opens.
    fn found(&mut self, founding: &Founding) {
        let Founding {
            author,
            seq,
            id,
            stores,
        } = founding;
        self.founders
            .extend(stores.iter().map(|store| (*id, *store)));
        let place = Parent {
            // Nothing asks for it: the entry is no grant.
            hlc: Hlc::ZERO,
            author: *author,
            id: *id,
            seq: *seq,
        };
        let acts = Acts {
            entry: *id,
            author: *author,
            seq: *seq,
            cites: Vec::new(),
            acts: Vec::new(),
            needs_authority: false,
            founds: stores.clone(),
            describes: stores.clone(),
        };
        self.acts.insert(*id, (place, acts));
    }

    // True for acts that may count some day: by the creator, of the author on itself, or citing acts
    // that may count and make the author an admin. Only acts that may are kept, so this is an answer
    // for ever, by the form of what came before: a writer's void acts cost no memory. Acts whose
    // grant has not come, because it did not count, are gathered again when it comes: its keys are
    // counted again then, which reads the logs.
    fn may_count(&self, acts: &Acts) -> bool {
        let makes_admin = |cited: &EntryId| {
            let cited = self.acts.get(cited);
            cited.is_some_and(|(_, cited)| cited.makes_admin(&acts.author))
        };
        acts.author == self.creator || acts.leaves() || acts.cites.iter().any(makes_admin)
    }

    fn evaluate(&self, log: &LogReader) -> Result<Members, LogError> {
        let acts = self.acts.values().map(|(_, acts)| acts);
        Members::evaluate(self.creator, self.store, acts, |author, entry, tip| {
            self.keeps(log, author, entry, tip)
        })
    }
}

fn note_of(at: &Parent, acts: &Acts) -> Note {
    let Parent {
        author, seq, id, ..
    } = *at;
    if acts.acts.is_empty() && !acts.needs_authority && !acts.founds.is_empty() {
        return Note::Founding(Founding {
            author,
            seq,
            id,
            stores: acts.founds.clone(),
        });
    }
    Note::Act { author, seq, id }
}
