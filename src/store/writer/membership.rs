//! Membership as the writer of a store knows it: the acts in the root store, and what follows.
//!
//! An unreadable frame in the log answers like a tip that has not come: the entry is fetched from a
//! peer, and everything that rested on it is judged again once it is back. `take_unreadable` returns
//! the damage that was met; whoever builds or changes the state meanwhile marks it as lacking.

use std::{cell::RefCell, collections::BTreeSet, mem, sync::Arc};

use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    id::{Author, EntryId, Seq, StoreId},
    log::{
        LogDamage, LogError, LogReader, Logs, NotedChains,
        merge::{Span, whole},
    },
    protocol::{
        entry::{Entry, Op, Parent, VerifiedEntry},
        finality::{Arrival, Fate, Finality},
        frontier::{Frontier, FrontierTip},
        membership::{
            Members, Standing,
            acts::Acts,
            reserved::{Counting, claim},
        },
        standings::Standings,
    },
    state::{State, View},
    store::{
        Authority,
        writer::{
            foundings::Foundings,
            known_acts::{Grounds, KnownActs, acts_in},
            notes::{Founding, Note},
        },
    },
};

/// The writer's side of membership.
#[derive(Debug)]
pub(super) struct Membership {
    // Both are empty in any other store than the root store.
    known: KnownActs,
    foundings: Foundings,
    // True when every author counts: a store without a node.
    anyone: bool,
    pub(super) store: StoreId,
    members: watch::Receiver<Arc<Members>>,
    // The members by which entries are judged, in any other store than the root store. They change between
    // two commands only, together with the state: else an entry that was judged by others than those
    // that the state counts by could stay in it when its author's standing changes.
    followed: Option<Arc<Members>>,
    // Authors with more than `FORKS_MAX` forks above their anchors, as of the last commit, or the anchors
    // that were joined last.
    pub(super) spent: Arc<BTreeSet<Author>>,
    // The entries that anchors acts make final or void here. Sends to all readers of the store.
    finality: watch::Sender<Arc<Finality>>,
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
        let followed = publisher.is_none().then(|| Arc::clone(&members.borrow()));
        Self {
            known: KnownActs::new(creator),
            foundings: Foundings::default(),
            anyone: matches!(authority, Authority::Anyone),
            store,
            members,
            followed,
            spent: Arc::default(),
            finality: watch::Sender::default(),
            publisher,
            unreadable: RefCell::default(),
        }
    }

    /// Notes an entry that comes after everything that `view` shows. `ancestors(places)` returns those
    /// of the author's entries that are on the branch of `entry`. Returns those of its reserved ops
    /// that count then; `None` when none of them needs more than the entry.
    ///
    /// # Errors
    /// That of `ancestors`; the disk fails.
    pub(super) fn note<E: From<LogError>>(
        &mut self,
        entry: &Entry,
        view: &View,
        log: &LogReader,
        ancestors: impl FnOnce(BTreeSet<FrontierTip>) -> Result<BTreeSet<FrontierTip>, E>,
    ) -> Result<Option<Counting>, E> {
        let Some(acts) = self.is_root().then(|| Acts::of(entry)).flatten() else {
            return Ok(None);
        };
        let founded = self.foundings.gather(&acts, ancestors)?;
        let may_count = self.known.gather(&acts);
        let Some(in_place) = &view.counting else {
            return Ok(None);
        };
        let mut counting = Counting::new(self.known.creator());
        if !founded.is_empty() {
            let stores = founded.into_iter().collect();
            counting.founders.insert(acts.place.id, stores);
        }
        if !may_count {
            return Ok(Some(counting));
        }
        // Most void acts are so at a glance: no authority of their author is here.
        let author = acts.place.author;
        let counts = |grant: &Acts| in_place.acts.contains(&(grant.place.id, author));
        let has_ground =
            author == self.known.creator() || self.known.authorities(&acts).any(counts);
        if !has_ground && !acts.leaves() {
            return Ok(Some(counting));
        }
        let members = self.evaluate(log)?;
        let nodes = acts.acts.iter().map(|(node, _)| (acts.place.id, *node));
        counting
            .acts
            .extend(nodes.filter(|(id, node)| members.counts(id, node)));
        if members.authorized().contains(&acts.place.id) {
            counting.authorized.insert(acts.place.id);
        }
        Ok(Some(counting))
    }

    /// Ends a group that is durable: publishes the members that follow from its acts. Returns
    /// whether the state that `view` shows may rest on other members. `has_branched`: whether a branch
    /// began in the group.
    pub(super) fn commit(&mut self, view: &View, log: &LogReader, has_branched: bool) -> bool {
        let is_spent = has_branched && self.find_spent(log);
        self.foundings.commit();
        if !self.known.is_staging() && !is_spent {
            return false;
        }
        self.known.commit();
        self.publish(log) || is_spent || !self.is_in_step(view)
    }

    /// Ends a group that was not written.
    pub(super) fn roll_back(&mut self) {
        self.known.roll_back();
        self.foundings.roll_back();
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
        self.find_spent(logs.reader());
        for founding in founding {
            self.foundings.add(founding);
        }
        let mut entries = Vec::new();
        for (author, seq, id) in places {
            if let Some((entry, _record)) = logs.reader().entry(author, *seq, id)? {
                entries.push(entry);
            }
        }
        self.gather_all(entries, logs.reader())?;
        // They are in the notes already.
        self.known.mark_saved();
        self.foundings.mark_saved();
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
        self.find_spent(logs.reader());
        if !self.is_root() {
            return Ok(());
        }
        let before = self.counting(|_entry| true);
        state.count(if state.staged().frontier.is_empty() {
            Counting::new(self.known.creator())
        } else {
            before
        });
        let found = acts_in(spans)?;
        let ids: BTreeSet<EntryId> = found.iter().map(|entry| entry.id).collect();
        self.gather_all(found, logs.reader())?;
        self.known.commit();
        self.foundings.commit();
        self.publish(logs.reader());
        state.count(self.counting(|entry| ids.contains(entry)));
        Ok(())
    }

    /// Reads all entries that have acts again: those that cite a grant which has come after them were
    /// void by their form, and may count now.
    ///
    /// Takes as long as to read the logs. It happens when somebody was made an admin by an entry that
    /// came late, so only an admin can cause it.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn gather_again(&mut self, log: &LogReader) -> Result<(), LogError> {
        if let Err(error) = self.gather_all(acts_in(&whole(log))?, log) {
            // The next transaction begins with nothing staged.
            self.roll_back();
            return Err(error);
        }
        self.known.commit();
        self.foundings.commit();
        self.publish(log);
        Ok(())
    }

    /// Returns whether others may act by `entry`: it may count, and makes a node an admin.
    pub(super) fn makes_admins(&self, entry: &Entry) -> bool {
        self.known.makes_admins(&entry.id)
    }

    /// Returns the members by which entries are judged.
    pub(super) fn members(&self) -> Arc<Members> {
        let published = || Arc::clone(&self.members.borrow());
        self.followed.clone().unwrap_or_else(published)
    }

    /// Takes over the members that the root store has published. Returns whether there are others than
    /// before: then the state is to be counted again before anything else is done.
    pub(super) fn follow(&mut self) -> bool {
        let published = Arc::clone(&self.members.borrow());
        let followed = self.followed.as_mut();
        let Some(followed) = followed.filter(|known| !Arc::ptr_eq(known, &published)) else {
            return false;
        };
        *followed = published;
        true
    }

    /// Returns the members, the spent keys and the anchors now.
    pub(super) fn standings(&self) -> Standings {
        Standings {
            members: self.members(),
            spent: Arc::clone(&self.spent),
            finality: self.finality(),
        }
    }

    /// Joins the anchors of all acts about this store that count, with those at which logs begin here.
    ///
    /// In the root store nothing is final: members are evaluated from all acts, so all of them must come.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn join_anchors(&mut self, log: &LogReader) -> Result<(), LogError> {
        if self.anyone || self.is_root() {
            return Ok(());
        }
        let begins = log.begins().into_iter();
        let begins: Frontier = begins
            .map(|(author, it)| (author, it.anchor.tip()))
            .collect();
        let members = self.members();
        let acts = members.anchors_acts(&self.store).map(|placed| &placed.act);
        let joined = Finality::join(acts, &begins, &self.chains(log))?;
        if *self.finality() != joined {
            self.finality.send_replace(Arc::new(joined));
            // Forks below an anchor are none.
            self.find_spent(log);
        }
        Ok(())
    }

    /// Returns what anchors make final or void.
    pub(super) fn finality(&self) -> Arc<Finality> {
        Arc::clone(&self.finality.borrow())
    }

    /// Returns a receiver of that.
    pub(super) fn watch_finality(&self) -> watch::Receiver<Arc<Finality>> {
        self.finality.subscribe()
    }

    /// Returns whether the entry of `author` at `place` is an anchor that has not come.
    pub(super) fn is_awaited(&self, author: &Author, place: FrontierTip) -> bool {
        self.finality.borrow().is_awaited(author, place)
    }

    /// Returns what becomes of an entry that comes from elsewhere, by the anchors.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn arrival(
        &self,
        author: &Author,
        entry: FrontierTip,
        prev: Option<FrontierTip>,
        log: &LogReader,
    ) -> Result<Arrival, LogError> {
        self.finality()
            .arrival(author, entry, prev, &self.chains(log))
    }

    /// Returns whether the entry of `author` at `place`, which is here, is void.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn is_void(
        &self,
        author: &Author,
        place: FrontierTip,
        log: &LogReader,
    ) -> Result<bool, LogError> {
        let finality = self.finality();
        let fate = finality.fate(author, place, Some(place), &self.chains(log))?;
        Ok(fate == Fate::Void)
    }

    pub(super) fn chains<'a>(&'a self, log: &'a LogReader) -> NotedChains<'a> {
        NotedChains::new(log, &self.unreadable)
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
        let is_spent = self.spent.contains(author);
        let members = self.members();
        members.standing_with(&self.store, author, is_spent)
    }

    /// Returns whether `author` was removed, has left, or was lowered to reader.
    pub(super) fn is_cut_off(&self, author: &Author) -> bool {
        self.members().is_cut_off(author)
    }

    /// Returns whether `author` is a member, whatever it may do.
    pub(super) fn is_member(&self, author: &Author) -> bool {
        self.members().role(author).is_some()
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
        let standing = self.standing(author);
        let finality = self.finality();
        if standing == Standing::Counts && !finality.has_anchors(author) {
            return Ok(true);
        }
        finality.counts(&standing, author, at, Some(at), &self.chains(log))
    }

    /// Returns whether the entry at `at`, which is here, is not among those that count: its author was
    /// removed, or its key is spent, or the entry is void.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn is_cut(
        &self,
        author: &Author,
        at: FrontierTip,
        log: &LogReader,
    ) -> Result<bool, LogError> {
        let may_be = match self.standing(author) {
            Standing::Through(_) | Standing::Spent => true,
            Standing::Counts => self.finality.borrow().has_anchors(author),
            Standing::Unknown | Standing::Reader => false,
        };
        Ok(may_be && !self.counts(author, at, log)?)
    }

    /// Returns whether a removal of `author` that names `tip` keeps `entry`, which is not final;
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
        self.finality().keeps(author, entry, tip, &self.chains(log))
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
        let members = self.members();
        view.counting.as_ref().is_none_or(|counting| {
            counting.acts == *members.counting() && counting.authorized == *members.authorized()
        })
    }

    /// Returns whether acts are noted and neither committed nor rolled back.
    pub(super) fn is_staging(&self) -> bool {
        self.known.is_staging()
    }

    /// Returns how many acts are void.
    pub(super) fn void_acts(&self) -> usize {
        let acts: usize = self.known.iter().map(|acts| acts.acts.len()).sum();
        let void = acts - self.members().counting().len().min(acts);
        void.saturating_add(self.known.void())
    }

    /// Returns what the members follow from.
    pub(super) fn grounds(&self) -> Grounds {
        self.known.grounds()
    }

    /// Returns the entry by which `author` acts on others: an admin's grant.
    pub(super) fn authority(&self, author: &Author) -> Option<Parent> {
        let rank = self.members().get(author)?.rank?;
        self.known.place(&rank.entry)
    }

    /// Takes out the places of entries with acts that were committed since the last call: they go
    /// into the state's notes.
    pub(super) fn take_unsaved(&mut self) -> Vec<Note> {
        let mut notes = self.known.take_unsaved();
        notes.extend(self.foundings.take_unsaved());
        notes
    }

    /// Marks all acts as unsaved: the state file is a new one.
    pub(super) fn forget_saved(&mut self) {
        self.known.forget_saved();
        self.foundings.forget_saved();
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
        let Some(place) = self.known.place(id) else {
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
        Counting {
            creator: self.known.creator(),
            acts: acts.filter(|(entry, _)| of(entry)).collect(),
            authorized: authorized.filter(&of).collect(),
            founders: self.foundings.founders(&of),
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
            let Some(acts) = Acts::of(&entry) else {
                continue;
            };
            let place = acts.tip();
            let mut unread = Vec::new();
            self.foundings.gather(&acts, |places| {
                let (leading, mut damage) = log.leading(&acts.place.author, &places, place)?;
                unread.append(&mut damage);
                Ok::<_, LogError>(leading)
            })?;
            self.known.gather(&acts);
            self.unreadable.borrow_mut().append(&mut unread);
        }
        Ok(())
    }

    fn evaluate(&self, log: &LogReader) -> Result<Members, LogError> {
        let (creator, acts) = (self.known.creator(), self.known.iter());
        // By the logs alone: anchors follow from the members.
        let members = Members::evaluate(creator, self.store, acts, |author, entry, tip| {
            self.unless_damaged(log.keeps(author, entry, tip))
        })?;
        Ok(members.spend(&self.spent))
    }
}
