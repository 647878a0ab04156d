//! The parts that handles, watches and the writer of a store share.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::broadcast;

use crate::{
    bus::{Bus, Published},
    clock::Clock,
    disk::Disk,
    id::{Author, StoreId},
    log::{LogReader, NotedChains},
    protocol::{
        anchors_act::BaseHash,
        finality::Finality,
        membership::{Members, Standing},
        sync::{BaseChoice, PartName},
    },
    state::{Base, Bases, Progress, StateError, StateReader, View},
    store::{Fresh, ReadError, state_root::SettledRoot},
};

/// The parts that handles, watches and the writer share. Only the writer changes `log`, `state`,
/// `members` and `finality`; all others read them.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: StoreId,
    // The key this node signs with.
    pub(super) author: Author,
    pub(super) root: bool,
    // True in a store in which clients may not write keys of the node: the root store and the data
    // store. Set at the opening, or right after it.
    pub(super) reserves_keys: Arc<AtomicBool>,
    pub(super) clock: Clock,
    // Shows entries that are durable.
    pub(super) log: LogReader,
    // Shows the newest committed view. Readers keep a view as long as they like.
    pub(super) state: StateReader,
    // Shows the newest base.
    pub(super) base: BaseReader,
    // Held while a base is made and committed.
    pub(super) folding: Arc<tokio::sync::Mutex<()>>,
    // Held while a base is taken from a peer: one at a time. Taken before `folding`.
    pub(super) taking: Arc<tokio::sync::Mutex<()>>,
    // Bases that tests have named, each with a number that is greater than those of acts. Held for a look
    // or an insertion.
    pub(super) named: Mutex<BTreeMap<BaseHash, u64>>,
    // The member whose state the user has chosen. Held for a look or an assignment.
    pub(super) chosen: Mutex<Option<Author>>,
    // The base that is being taken, and those that have failed. Held for a look or a change.
    pub(super) choice: Mutex<BaseChoice>,
    // Parts that were damaged when the last base was to be installed. Held for a copy or an assignment.
    pub(super) damaged_parts: Mutex<BTreeSet<PartName>>,
    // How much has come of the base that was taken last. Held for a copy or an assignment.
    pub(super) come: Mutex<Option<Progress>>,
    // The writer closes it when it ends; watches end then.
    pub(super) bus: Bus,
    // The writer sends, the net receives. Dropped with the last handle.
    pub(super) fresh: broadcast::Sender<Fresh>,
    // The root store's writer sends; all stores of a node share the receiver.
    pub(super) members: tokio::sync::watch::Receiver<Arc<Members>>,
    // The entries that anchors make final or void.
    pub(super) finality: tokio::sync::watch::Receiver<Arc<Finality>>,
    // True when every author counts: a store without a node.
    pub(super) anyone: bool,
    // How many `WritePause`s there are; own writes wait until it is 0.
    pub(super) pauses: tokio::sync::watch::Sender<usize>,
    // Node that has removed this one, as another member has proven; `members` does not show it yet.
    // Own writes are refused meanwhile.
    pub(super) turned_away: tokio::sync::watch::Sender<Option<Author>>,
    // True while own writes are refused because the node was restored from a snapshot; all stores of the
    // mesh share the flag of the node. Empty in stores without it. Set once, after the opening.
    pub(super) restored: OnceLock<Arc<AtomicBool>>,
    // Held while a root or a proof is computed, so that callers that wait for one hold no thread.
    pub(super) tree_turn: Arc<tokio::sync::Mutex<()>>,
    // The root that was computed last for a peer. Never held across an await; no other lock is taken
    // meanwhile.
    pub(super) settled: Mutex<Option<SettledRoot>>,
    pub(super) disk: Arc<dyn Disk>,
    // The store's directory.
    pub(super) dir: PathBuf,
    // Where watches read files.
    pub(super) runtime: tokio::runtime::Handle,
}

impl Shared {
    /// Removes the files of a base that is not to be the newest one.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn discard_bases(&self) -> Result<(), StateError> {
        let dir = base_dir(&self.dir);
        let bases = self.base.all();
        bases.discard_others(self.disk.as_ref(), &dir, None)
    }

    /// Returns the wall clock, ms since 1970.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Returns whether own writes are refused because the node was restored from a snapshot.
    pub(super) fn is_restored(&self) -> bool {
        let flag = self.restored.get();
        flag.is_some_and(|flag| flag.load(Ordering::Acquire))
    }

    /// Returns a node that has removed this one, as the root store or a peer has shown.
    pub(super) fn removed_by(&self) -> Option<Author> {
        let by_members = {
            let members = self.members.borrow();
            let member = members.get(&self.author);
            member.and_then(|member| Some(member.removals.values().next()?.by))
        };
        by_members.or_else(|| *self.turned_away.borrow())
    }

    /// Waits until `removed_by` returns a node. Cancel-safe.
    pub(super) async fn until_removed(&self) {
        let (mut members, mut shown) = (self.members.clone(), self.turned_away.subscribe());
        loop {
            members.mark_unchanged();
            shown.mark_unchanged();
            if self.removed_by().is_some() {
                return;
            }
            tokio::select! {
                changed = members.changed() => if changed.is_err() {
                    // The root store was closed: no act comes any more.
                    return std::future::pending().await;
                },
                // `self` keeps the sender.
                changed = shown.changed() => changed.unwrap_or_default(),
            }
        }
    }
}

// Spent keys, as readers and the net see them.
impl Shared {
    /// Returns whether the entries of `author` count in this store.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn standing(&self, author: &Author) -> Result<Standing, ReadError> {
        let finality = Arc::clone(&self.finality.borrow());
        let hidden = RefCell::default();
        let chains = NotedChains::new(&self.log, &hidden);
        let is_spent = self.log.has_spent(author, &finality, &chains)?;
        let members = self.members.borrow();
        Ok(members.standing_with(&self.id, author, is_spent))
    }

    /// Returns the authors whose keys are spent in this store or in the root store, and no anchor of whom
    /// has still to come.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn spent(&self) -> Result<BTreeSet<Author>, ReadError> {
        if self.anyone {
            return Ok(BTreeSet::new());
        }
        let members = Arc::clone(&self.members.borrow());
        let finality = Arc::clone(&self.finality.borrow());
        let hidden = RefCell::default();
        let chains = NotedChains::new(&self.log, &hidden);
        let here = self.log.spent(&finality, &chains)?;
        let in_root = members.iter().filter(|(_, member)| member.spent);
        let mut spent: BTreeSet<Author> = in_root.map(|(author, _)| *author).collect();
        for author in here {
            if members.standing_with(&self.id, &author, true) == Standing::Spent {
                spent.insert(author);
            }
        }
        spent.retain(|author| !finality.awaits(author));
        Ok(spent)
    }
}

/// Gives readers the bases. A clone gives the same ones.
//
// The writer replaces them. Held to exchange or clone them; no other lock is taken meanwhile.
#[derive(Debug, Clone, Default)]
pub(super) struct BaseReader(Arc<RwLock<Bases>>);

impl BaseReader {
    /// Returns the newest base; `None` when there is none: the logs have all entries then.
    pub(super) fn newest(&self) -> Option<Arc<Base>> {
        self.all().newest
    }

    /// Returns the bases that are in place.
    pub(super) fn all(&self) -> Bases {
        let bases = self.0.read().unwrap_or_else(PoisonError::into_inner);
        bases.clone()
    }

    /// Shows `bases` from now on.
    pub(super) fn show(&self, bases: Bases) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = bases;
    }
}

/// Returns the directory of the bases of a store.
pub(crate) fn base_dir(dir: &Path) -> PathBuf {
    dir.join("base")
}

/// Returns the position of a watch that has delivered everything in `view`.
pub(super) fn published(view: &View) -> Published {
    Published {
        frontier: Arc::clone(&view.frontier),
        version: view.version,
        expired_through_ms: view.expired_through_ms,
    }
}
