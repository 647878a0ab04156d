//! Who may write here: what the root store says of nodes, and how the writer goes by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::watch;

use crate::{
    id::{Author, EntryId, Seq, StoreId},
    limits::STRANGERS_BYTES_MAX,
    log::{LogError, LogReader, Logs, merge::Span},
    protocol::{
        entry::{Entry, Parent, VerifiedEntry},
        frontier::FrontierTip,
        membership::{
            Members, Standing,
            role::{Acts, may_act},
        },
        pending::Pending,
    },
    state::{State, View},
    store::{
        Authority, RefusedEntry, WriteError,
        writer::{actor::Actor, parents::Absent},
    },
};

/// What the members of a root store follow from.
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
    anyone: bool,
    store: StoreId,
    // In the root store: all entries that have acts, whether they count or not.
    acts: BTreeMap<EntryId, (Parent, Acts)>,
    // Of the current group: not durable yet.
    staged: Vec<EntryId>,
    // Not in the state's notes yet.
    unsaved: Vec<EntryId>,
    members: watch::Receiver<Arc<Members>>,
    // In the root store.
    told: Option<watch::Sender<Arc<Members>>>,
    // What was applied without them goes by that they do not count.
    pub(super) absent: Absent,
    // Entries of authors whom nobody has let in yet, by author.
    pub(super) strangers: Pending,
}

impl Membership {
    pub(super) fn new(authority: &Authority, store: StoreId) -> Self {
        let creator = match authority {
            Authority::Root { creator } => *creator,
            Authority::Of(_) | Authority::Anyone => Author([0; 32]),
        };
        let founded = Members::evaluate(creator, store, [], |_, _, _| None);
        let (told, members) = match authority {
            Authority::Of(members) => (None, members.clone()),
            Authority::Root { .. } | Authority::Anyone => {
                let (told, members) = watch::channel(Arc::new(founded));
                (Some(told), members)
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
            told,
            absent: Absent::default(),
            strangers: Pending::new(STRANGERS_BYTES_MAX),
        }
    }

    fn standing(&self, author: &Author) -> Standing {
        if self.anyone {
            return Standing::Counts;
        }
        self.members.borrow().standing(&self.store, author)
    }

    // True when the acts are in this store.
    fn is_root(&self) -> bool {
        self.told.is_some() && !self.anyone
    }

    /// True when nobody says who may write.
    pub(super) fn is_anyone(&self) -> bool {
        self.anyone
    }

    /// True when `entry`, which is in the log, counts.
    pub(super) fn counts(&self, entry: &Entry, log: &LogReader) -> bool {
        let at = FrontierTip {
            seq: entry.header.seq,
            id: entry.id,
        };
        self.counts_at(&entry.author(), at, log)
    }

    /// True when the entry of `author` at `at` counts, if there is one.
    pub(super) fn counts_at(&self, author: &Author, at: FrontierTip, log: &LogReader) -> bool {
        let members = self.members.borrow();
        self.anyone || counts(&members, &self.store, log, author, at)
    }

    /// True when `author` was removed before writing the entry at `at`.
    pub(super) fn is_cut(&self, author: &Author, at: FrontierTip, log: &LogReader) -> bool {
        let members = self.members.borrow();
        members.is_removed(author) && !counts(&members, &self.store, log, author, at)
    }

    /// Returns who is a member now.
    pub(super) fn members(&self) -> Arc<Members> {
        Arc::clone(&self.members.borrow())
    }

    /// Returns how many acts are void.
    pub(super) fn void_acts(&self) -> usize {
        let acts: usize = self.acts.values().map(|(_, acts)| acts.acts.len()).sum();
        acts - self.members.borrow().counting().len().min(acts)
    }

    /// Returns what tells of changes.
    pub(super) fn watch(&self) -> watch::Receiver<Arc<Members>> {
        self.members.clone()
    }

    /// Returns what the members follow from.
    pub(super) fn grounds(&self) -> Grounds {
        Grounds {
            creator: self.creator,
            acts: self.acts.clone(),
        }
    }

    /// Notes an entry that comes after all that `view` shows. Returns those of its acts that count
    /// then; `None` when it has none.
    pub(super) fn note(
        &mut self,
        entry: &Entry,
        view: &View,
        log: &LogReader,
    ) -> Option<Vec<(EntryId, Author)>> {
        let acts = self.gather(entry)?;
        let in_place = view.acts.as_ref()?;
        // Most of what is void is so at a glance: nothing by which its author acts is here.
        let acts_by = |cited: &EntryId| in_place.contains(&(*cited, acts.author));
        if acts.author != self.creator && !acts.leaves() && !acts.cites.iter().any(acts_by) {
            return Some(Vec::new());
        }
        let members = self.evaluate(log);
        let acts = acts.acts.iter().map(|(node, _)| (entry.id, *node));
        Some(acts.filter(|(id, node)| members.counts(id, node)).collect())
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

    /// What was noted is durable: who is a member now follows from it. True when the state that
    /// `view` shows may not go by that.
    pub(super) fn commit(&mut self, view: &View, log: &LogReader) -> bool {
        if self.staged.is_empty() {
            return false;
        }
        self.unsaved.append(&mut self.staged);
        self.tell(log) || !self.is_in_step(view)
    }

    /// True when `view` has all acts that count, and no other.
    pub(super) fn is_in_step(&self, view: &View) -> bool {
        let members = self.members.borrow();
        let acts = view.acts.as_deref();
        acts.is_none_or(|acts| acts == members.counting())
    }

    /// What was noted last is not in the log.
    pub(super) fn roll_back(&mut self) {
        for id in self.staged.drain(..) {
            self.acts.remove(&id);
        }
    }

    fn evaluate(&self, log: &LogReader) -> Members {
        let acts = self.acts.values().map(|(_, acts)| acts);
        Members::evaluate(self.creator, self.store, acts, |author, entry, tip| {
            leads(log, author, entry, tip)
        })
    }

    // True when it is news.
    fn tell(&self, log: &LogReader) -> bool {
        let Some(told) = &self.told else {
            return false;
        };
        let members = self.evaluate(log);
        told.send_if_modified(|known| {
            let news = **known != members;
            if news {
                *known = Arc::new(members);
            }
            news
        })
    }

    /// Returns the entry by which `author` acts on others: an admin's grant.
    pub(super) fn authority(&self, author: &Author) -> Option<Parent> {
        let rank = self.members.borrow().get(author)?.rank?;
        self.acts.get(&rank.entry).map(|(parent, _)| *parent)
    }

    /// Returns notes of what came since the last flush.
    pub(super) fn notes(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let absent = self.absent.notes();
        let unsaved = std::mem::take(&mut self.unsaved);
        unsaved
            .iter()
            .filter_map(|id| self.acts.get(id))
            .map(|(at, _)| (encode_key(at), Vec::new()))
            .chain(absent)
            .collect()
    }

    /// The state file is a new one: all notes are written again.
    pub(super) fn forget_saved(&mut self) {
        self.unsaved = self.acts.keys().copied().collect();
        self.absent.forget_saved();
    }
}

/// True when `entry` is on the branch of `author` that ends in `tip`; `None`: `tip` is not here.
pub(in crate::store) fn leads(
    log: &LogReader,
    author: &Author,
    entry: FrontierTip,
    tip: FrontierTip,
) -> Option<bool> {
    let branches = log.of(author);
    let has = |seq: Seq, id: &EntryId| {
        branches.iter().find(
            |branch| matches!(branch.record(seq), Ok(Some(record)) if record.header.id == *id),
        )
    };
    let mut place = tip;
    let mut branch = has(tip.seq, &tip.id)?;
    loop {
        if entry.seq > place.seq {
            return Some(false);
        }
        if entry.seq >= branch.first {
            let on = branch.record(entry.seq).ok().flatten();
            return Some(on.is_some_and(|record| record.header.id == entry.id));
        }
        place = FrontierTip {
            seq: branch.first.checked_sub(1)?,
            id: branch.forked_from?,
        };
        branch = has(place.seq, &place.id)?;
    }
}

/// True when the entry of `author` at `at` counts in `store`.
pub(in crate::store) fn counts(
    members: &Members,
    store: &StoreId,
    log: &LogReader,
    author: &Author,
    at: FrontierTip,
) -> bool {
    match members.standing(store, author) {
        Standing::Counts => true,
        Standing::Unknown | Standing::Reader => false,
        Standing::Through(cut) => cut.covers(author, at, |author, entry, tip| {
            leads(log, author, entry, tip)
        }),
    }
}

impl Actor {
    /// Says what becomes of an entry by who wrote it: `Ok(false)`, it waits until somebody lets its
    /// author in.
    pub(super) fn check_standing(&self, entry: &VerifiedEntry) -> Result<bool, RefusedEntry> {
        let author = entry.author();
        match self.membership.standing(&author) {
            Standing::Counts => Ok(true),
            Standing::Unknown => Ok(false),
            Standing::Reader => Err(RefusedEntry::Reader { author }),
            Standing::Through(cut) => {
                let tip = FrontierTip {
                    seq: entry.header.seq,
                    id: entry.id,
                };
                let log = self.logs.reader();
                let covered = cut.covers(&author, tip, |author, entry, tip| {
                    leads(log, author, entry, tip)
                });
                if covered {
                    Ok(true)
                } else {
                    Err(RefusedEntry::Removed { author })
                }
            }
        }
    }

    /// Says why this node may not write here, if so.
    pub(super) fn check_own_standing(&self) -> Result<(), WriteError> {
        let own = self.author();
        match self.membership.standing(&own) {
            Standing::Counts => Ok(()),
            Standing::Unknown => Err(WriteError::NotAdmitted),
            Standing::Reader => Err(WriteError::Reader),
            Standing::Through(_) => Err(WriteError::Removed),
        }
    }

    /// The members have changed: counts again, and takes in what waited for its author to be let in.
    pub(super) fn reconsider(&mut self) {
        self.recount();
        let members = self.membership.members();
        let mut admitted = Vec::new();
        for (author, _) in members.iter() {
            admitted.extend(self.membership.strangers.release(&EntryId(author.0)));
        }
        admitted.sort_by_key(|entry| entry.order());
        if !admitted.is_empty() {
            self.ingest_again(admitted);
        }
    }
}

/// Reads which entries have acts from a state's notes.
pub(super) fn read_notes(notes: &[(Vec<u8>, Vec<u8>)]) -> Option<Vec<(Author, Seq, EntryId)>> {
    let acts = notes.iter().filter(|(key, _)| key.first() == Some(&ACT));
    acts.map(|(key, _)| decode_key(key)).collect()
}

/// Reads the entries that notes name.
pub(super) fn load(
    membership: &mut Membership,
    logs: &Logs,
    places: &[(Author, Seq, EntryId)],
) -> Result<(), LogError> {
    for (author, seq, id) in places {
        if let Some((entry, _)) = logs.reader().entry(author, *seq, id)? {
            membership.gather(&entry);
        }
    }
    // They are in the notes.
    membership.staged.clear();
    membership.tell(logs.reader());
    Ok(())
}

/// Reads which entries of `spans` have acts: before `state`, which ends where they begin, gets
/// those entries, it must be known what counts.
pub(super) fn collect(
    membership: &mut Membership,
    logs: &Logs,
    spans: &[Span],
    state: &mut State,
) -> Result<(), LogError> {
    if !membership.is_root() {
        return Ok(());
    }
    if !state.staged().frontier.is_empty() {
        state.count(membership.members().counting().iter().copied());
    }
    let mut found = BTreeSet::new();
    for span in spans {
        let mut walk = span.branch.walk(span.after + 1);
        loop {
            match walk.next_record() {
                Ok(Some(record)) if record.header.seq <= span.through => {
                    // Few do, and to read an entry costs more than all the rest.
                    if may_act(&record.payload)
                        && let Ok(entry) = span.branch.read_entry(&record)
                    {
                        found.extend(membership.gather(&entry).map(|acts| acts.entry));
                    }
                }
                Ok(_end) => break,
                // Located when the state is built.
                Err(LogError::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    membership.unsaved.append(&mut membership.staged);
    membership.tell(logs.reader());
    let members = membership.members();
    let counting = members.counting().iter().copied();
    state.count(counting.filter(|(entry, _)| found.contains(entry)));
    Ok(())
}

fn encode_key(at: &Parent) -> Vec<u8> {
    let mut key = vec![ACT];
    key.extend_from_slice(&at.author.0);
    key.extend_from_slice(&at.seq.to_be_bytes());
    key.extend_from_slice(&at.id.0);
    key
}

fn decode_key(key: &[u8]) -> Option<(Author, Seq, EntryId)> {
    let (_kind, rest) = key.split_first()?;
    let (author, rest) = rest.split_first_chunk::<32>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    Some((
        Author(*author),
        Seq::from_be_bytes(*seq),
        EntryId::from_slice(rest)?,
    ))
}

const ACT: u8 = b'a';
