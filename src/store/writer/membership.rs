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

use tokio::sync::watch;

use crate::{
    id::{Author, EntryId, Seq, StoreId},
    log::{LogDamage, LogError, LogReader, Logs, merge::Span},
    protocol::{
        entry::{Entry, Parent},
        frontier::FrontierTip,
        membership::{
            Members, Standing,
            role::{Acts, may_act},
        },
    },
    state::{State, View},
    store::Authority,
};

/// The creator and the acts: everything that the members of a root store follow from.
#[derive(Debug)]
pub(in crate::store) struct Grounds {
    pub(in crate::store) creator: Author,
    /// All entries that have acts, whether they count or not.
    pub(in crate::store) acts: BTreeMap<EntryId, (Parent, Acts)>,
}

/// The writer's side of membership.
#[derive(Debug)]
pub(super) struct Membership {
    creator: Author,
    // True when every author counts: a store without a node.
    anyone: bool,
    store: StoreId,
    // In the root store: all entries that have acts, whether they count or not. Includes `staged`.
    acts: BTreeMap<EntryId, (Parent, Acts)>,
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
            staged: Vec::new(),
            unsaved: Vec::new(),
            members,
            publisher,
            unreadable: RefCell::default(),
        }
    }

    /// Notes an entry that comes after everything that `view` shows. Returns those of its acts that
    /// count then; `None` when it has none.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn note(
        &mut self,
        entry: &Entry,
        view: &View,
        log: &LogReader,
    ) -> Result<Option<Vec<(EntryId, Author)>>, LogError> {
        let (Some(acts), Some(in_place)) = (self.gather(entry), view.acts.as_ref()) else {
            return Ok(None);
        };
        // Most void acts are so at a glance: no authority of their author is here.
        let acts_by = |cited: &EntryId| in_place.contains(&(*cited, acts.author));
        if acts.author != self.creator && !acts.leaves() && !acts.cites.iter().any(acts_by) {
            return Ok(Some(Vec::new()));
        }
        let members = self.evaluate(log)?;
        let acts = acts.acts.iter().map(|(node, _)| (entry.id, *node));
        Ok(Some(
            acts.filter(|(id, node)| members.counts(id, node)).collect(),
        ))
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
            self.acts.remove(&id);
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

    /// Reads the entries at `places`, which are known to have acts.
    ///
    /// # Errors
    /// A log is unreadable.
    pub(super) fn load(
        &mut self,
        logs: &Logs,
        places: &[(Author, Seq, EntryId)],
    ) -> Result<(), LogError> {
        for (author, seq, id) in places {
            if let Some((entry, _)) = logs.reader().entry(author, *seq, id)? {
                self.gather(&entry);
            }
        }
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
        if !state.staged().frontier.is_empty() {
            state.count(self.members().counting().iter().copied());
        }
        let mut found = BTreeSet::new();
        for span in spans {
            let mut walk = span.branch.walk(span.after + 1);
            loop {
                match walk.next_record() {
                    Ok(Some(record)) if record.header.seq <= span.through => {
                        // Few entries have acts, and decoding an entry costs more than all the rest.
                        if may_act(&record.payload)
                            && let Ok(entry) = span.branch.read_entry(&record)
                        {
                            found.extend(self.gather(&entry).map(|acts| acts.entry));
                        }
                    }
                    Ok(_end) => break,
                    // The state meets the damage again when it gets the entries.
                    Err(LogError::Damaged(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.unsaved.append(&mut self.staged);
        self.publish(logs.reader());
        let members = self.members();
        let counting = members.counting().iter().copied();
        state.count(counting.filter(|(entry, _)| found.contains(entry)));
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
                self.leads(log, author, entry, tip)
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

    /// Returns whether `entry` is on the branch of `author` that ends in `tip`; `None` when that tip
    /// is not here, or the answer is unreadable.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn leads(
        &self,
        log: &LogReader,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, LogError> {
        match log.leads(author, entry, tip) {
            Err(LogError::Damaged(found)) => {
                self.unreadable.borrow_mut().push(found);
                Ok(None)
            }
            answer => answer,
        }
    }

    /// Takes out the damage met since the last call. While there is some, members and heads may not
    /// be as they will be once it is mended.
    pub(super) fn take_unreadable(&self) -> Vec<LogDamage> {
        mem::take(&mut self.unreadable.borrow_mut())
    }

    /// Returns whether `view` has all acts that count, and no other.
    pub(super) fn is_in_step(&self, view: &View) -> bool {
        let members = self.members.borrow();
        let acts = view.acts.as_deref();
        acts.is_none_or(|acts| acts == members.counting())
    }

    /// Returns whether acts are noted and neither committed nor rolled back.
    pub(super) fn is_staging(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Returns how many acts are void.
    pub(super) fn void_acts(&self) -> usize {
        let acts: usize = self.acts.values().map(|(_, acts)| acts.acts.len()).sum();
        acts - self.members.borrow().counting().len().min(acts)
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
    pub(super) fn take_unsaved(&mut self) -> Vec<Parent> {
        let unsaved = mem::take(&mut self.unsaved).into_iter();
        unsaved
            .filter_map(|id| self.acts.get(&id).map(|(at, _)| *at))
            .collect()
    }

    /// Marks all acts as unsaved: the state file is a new one.
    pub(super) fn forget_saved(&mut self) {
        self.unsaved = self.acts.keys().copied().collect();
    }

    // True when the acts are in this store.
    fn is_root(&self) -> bool {
        self.publisher.is_some() && !self.anyone
    }

    // Adds the acts of an entry to those that are known, and returns them.
    fn gather(&mut self, entry: &Entry) -> Option<Acts> {
        let acts = Acts::of(entry).filter(|_| self.is_root())?;
        let known = (entry.as_parent(), acts.clone());
        if self.acts.insert(entry.id, known).is_none() {
            self.staged.push(entry.id);
        }
        Some(acts)
    }

    fn evaluate(&self, log: &LogReader) -> Result<Members, LogError> {
        let acts = self.acts.values().map(|(_, acts)| acts);
        Members::evaluate(self.creator, self.store, acts, |author, entry, tip| {
            self.leads(log, author, entry, tip)
        })
    }
}
