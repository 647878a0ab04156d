//! Finality: what anchors acts make final in a store, and the base of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    id::{Author, StoreId},
    log::{LogReader, Pruning},
    protocol::{
        anchors_act::{ActBase, BaseHash},
        finality::{CollectionsHash, Fate, Finality, Taking, has_room},
        fork::open_tips,
        frontier::{Frontier, FrontierTip},
    },
    state::{Base, StateError},
    store::{
        PruneError, ReadError, Shared, Store,
        shared::base_dir,
        writer::{command::Command, fold::Folding, queue::Queue},
    },
};

/// A base: the rows of all entries at and before some anchors, on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldedBase {
    /// The store.
    pub store: StoreId,
    /// The anchors.
    pub anchors: Frontier,
    /// Its hash and the number of its keys, as an anchors act names them.
    pub base: ActBase,
    /// The collections of which it has the effect.
    pub collected: CollectionsHash,
    /// Its length on disk in bytes.
    pub bytes: u64,
}

impl FoldedBase {
    fn of(store: StoreId, base: &Base) -> Self {
        let manifest = base.manifest();
        Self {
            store,
            anchors: manifest.frontier(),
            base: ActBase {
                hash: BaseHash(manifest.hash()),
                keys: manifest.keys,
            },
            collected: manifest.collected,
            bytes: manifest.bytes(),
        }
    }
}

/// The branches of forked authors that matter to what becomes final.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenBranches {
    /// Authors with a fork that is not closed, and their open tips.
    pub open: BTreeMap<Author, Vec<FrontierTip>>,
    /// Authors with an open tip that is void.
    pub void: BTreeSet<Author>,
}

impl Store {
    /// Returns what anchors acts make final or void here.
    pub fn finality(&self) -> Arc<Finality> {
        Arc::clone(&self.shared.finality.borrow())
    }

    /// Returns the logs of the store. They show what is durable.
    pub(crate) fn log(&self) -> &LogReader {
        &self.shared.log
    }

    /// Returns the newest base; `None` before the first one.
    pub fn folded(&self) -> Option<FoldedBase> {
        let base = self.shared.base.newest()?;
        Some(FoldedBase::of(self.id(), &base))
    }

    /// Returns the collections of which the bases here have the effect.
    pub fn collected(&self) -> BTreeSet<CollectionsHash> {
        let bases = self.shared.base.all();
        let bases = bases.newest.into_iter().chain(bases.beginning);
        bases.map(|base| base.manifest().collected).collect()
    }

    /// Returns the branches that are open, and the void ones among them. Reads the state and the logs.
    ///
    /// # Errors
    /// `State`, `Log`.
    pub fn open_branches(&self) -> Result<OpenBranches, ReadError> {
        let (log, view, finality) = (&self.shared.log, self.shared.state.view(), self.finality());
        let mut branches = OpenBranches::default();
        for author in log
            .all()
            .iter()
            .map(|branch| branch.author)
            .collect::<BTreeSet<_>>()
        {
            let tips = log
                .of(&author)
                .into_iter()
                .filter_map(|branch| branch.tip());
            let tips: Vec<_> = tips.collect();
            if tips.len() < 2 {
                continue;
            }
            let mut open = Vec::new();
            for tip in open_tips(&tips, |id| view.is_closed(&author, id))? {
                let tip = FrontierTip::from(tip);
                if finality.fate(&author, tip, Some(tip), log)? == Fate::Void {
                    branches.void.insert(author);
                } else {
                    open.push(tip);
                }
            }
            if open.len() > 1 {
                branches.open.insert(author, open);
            }
        }
        Ok(branches)
    }

    /// Returns the bytes of the logs here.
    pub fn log_bytes(&self) -> u64 {
        self.shared.log.bytes()
    }

    /// Returns about how many bytes of the logs come after `anchors`: entries of authors that it does not
    /// name, too.
    pub fn bytes_after(&self, anchors: &Frontier) -> u64 {
        self.shared.log.bytes_after(anchors)
    }

    /// Makes the rows of all entries at and before `anchors` the newest base, unless it is that already.
    /// `anchors` has one tip for each author. `taking`: the heads that go from the rows, by the act that
    /// names the base. No entry is removed, and no answer changes. Durable on return; a dropped call may
    /// still do it.
    ///
    /// # Errors
    /// `PruneError`; the base before is the newest one then.
    pub async fn fold(&self, anchors: Frontier, taking: Taking) -> Result<FoldedBase, PruneError> {
        if self.shared.root {
            return Err(PruneError::Root);
        }
        let turn = Arc::clone(&self.shared.folding).lock_owned().await;
        let newest = self.shared.base.newest();
        let is_same = |base: &Arc<Base>| {
            let manifest = base.manifest();
            manifest.frontier() == anchors && manifest.collected == taking.collections().hash()
        };
        if let Some(base) = newest.filter(is_same) {
            return Ok(FoldedBase::of(self.id(), &base));
        }
        let (shared, queue) = (Arc::clone(&self.shared), self.queue.clone());
        let folding = tokio::spawn(async move {
            let folded = fold_and_take(Arc::clone(&shared), &queue, anchors, taking).await;
            // Once the store is closed, the files may be those of the next opening.
            if folded.is_err() && queue.ask(Command::Missing).await.is_ok() {
                let discarding = tokio::task::spawn_blocking(move || shared.discard_bases());
                if let Ok(Err(error)) = discarding.await {
                    tracing::warn!(%error, "files of a base are removed at the next opening");
                }
            }
            drop(turn);
            folded
        });
        folding.await.map_err(|_panic| PruneError::Closed).flatten()
    }

    /// Removes the entries at and before `anchors` from the logs. `folded`, the newest base, must have their
    /// rows. What is only in the entries, such as who wrote a value that was replaced, is gone from this
    /// node. Durable on return; a dropped call may still remove them.
    ///
    /// # Errors
    /// `OtherBase` when the newest base is another one, or lacks entries. `PruneError`.
    pub async fn drop_through(
        &self,
        folded: &FoldedBase,
        anchors: Frontier,
    ) -> Result<Pruning, PruneError> {
        let (store, folded) = (self.clone(), folded.clone());
        // It goes on without its caller: the turn ends when the files are in place or removed.
        let dropping = tokio::spawn(async move { store.drop_now(&folded, anchors).await });
        dropping
            .await
            .map_err(|_panic| PruneError::Closed)
            .flatten()
    }

    async fn drop_now(
        &self,
        folded: &FoldedBase,
        anchors: Frontier,
    ) -> Result<Pruning, PruneError> {
        let turn = Arc::clone(&self.shared.folding).lock_owned().await;
        let is_in_base =
            |(author, tip): (Author, FrontierTip)| folded.anchors.seq(&author) >= tip.seq;
        let has_all = anchors.iter().all(is_in_base);
        if !has_all || self.folded().as_ref() != Some(folded) {
            return Err(PruneError::OtherBase);
        }
        if anchors != folded.anchors
            && let Err(error) = self.keep_beginning(anchors.clone()).await
        {
            tracing::warn!(store = %self.id(), %error, "the past is read from a later time on");
        }
        // Then the writer has less to wait for.
        let began = Instant::now();
        while began.elapsed() < FLUSH_WAIT_MAX {
            let through = anchors.clone();
            let flush = |reply| Command::FlushThrough(through, reply);
            let flushed = self.queue.ask(flush).await;
            if flushed.map_err(|_closed| PruneError::Closed)?? {
                break;
            }
            tokio::time::sleep(FLUSH_LOOK).await;
        }
        let prune = |reply| Command::Prune(anchors, reply);
        let pruned = self.queue.ask(prune).await;
        drop(turn);
        pruned.map_err(|_closed| PruneError::Closed).flatten()
    }
}

impl Store {
    // Makes a base with the rows of all entries at and before `anchors`, beside the newest one, which has
    // more: from it the past is read.
    async fn keep_beginning(&self, anchors: Frontier) -> Result<(), PruneError> {
        let bases = self.shared.base.all();
        let is_there = |base: &Arc<Base>| base.manifest().frontier() == anchors;
        if bases.beginning.as_ref().is_some_and(is_there) {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let folding = tokio::task::spawn_blocking(move || {
            fold(&shared, bases.beginning, &anchors, Taking::default())
        });
        let base = folding.await.map_err(|_panic| PruneError::Closed)?;
        let taken = match base {
            Ok(base) => {
                let take = |reply| Command::TakeBeginning(Box::new(base), reply);
                self.queue
                    .ask(take)
                    .await
                    .map_err(|_closed| PruneError::Closed)
                    .flatten()
            }
            Err(error) => Err(error),
        };
        if taken.is_err() && self.queue.ask(Command::Missing).await.is_ok() {
            let shared = Arc::clone(&self.shared);
            let discarding = tokio::task::spawn_blocking(move || shared.discard_bases());
            discarding.await.map_err(|_panic| PruneError::Closed)??;
        }
        taken
    }
}

async fn fold_and_take(
    shared: Arc<Shared>,
    queue: &Queue,
    anchors: Frontier,
    taking: Taking,
) -> Result<FoldedBase, PruneError> {
    let store = shared.id;
    let from = beginning_of(&shared, &taking)?;
    let folding = tokio::task::spawn_blocking(move || fold(&shared, from, &anchors, taking));
    let base = Box::new(folding.await.map_err(|_panic| PruneError::Closed)??);
    let folded = FoldedBase::of(store, &base);
    let take = |reply| Command::TakeBase(base, reply);
    let taken = queue.ask(take).await;
    taken.map_err(|_closed| PruneError::Closed).flatten()?;
    Ok(folded)
}

// The base from which one is made; `None` if it is made of the logs alone. One with the effect of an act that
// does not count any more, or that was never published, is left out.
fn beginning_of(shared: &Shared, taking: &Taking) -> Result<Option<Arc<Base>>, PruneError> {
    let bases = shared.base.all();
    let has_any = bases.newest.is_some();
    let mut bases = bases.newest.into_iter().chain(bases.beginning);
    let found = bases.find(|base| taking.may_begin_with(base.manifest().collected));
    if found.is_none() && has_any && shared.log.pruned().is_some() {
        let what =
            "the base here has the effect of an act that does not count any more; `lattice repair \
                    --state-from` takes that of a member"
                .to_owned();
        return Err(PruneError::Lacks { what });
    }
    Ok(found)
}

// Makes a base of the rows of `before` and of the entries from there to `anchors`.
fn fold(
    shared: &Shared,
    before: Option<Arc<Base>>,
    anchors: &Frontier,
    taking: Taking,
) -> Result<Base, PruneError> {
    let dir = base_dir(&shared.dir);
    check_room(shared, before.as_deref(), anchors)?;
    let folding = Folding {
        disk: shared.disk.as_ref(),
        dir: &dir,
        store: shared.id,
        log: &shared.log,
        base: before,
        bases: shared.base.all(),
        taking,
    };
    folding.fold(anchors)
}

// A base that finds no room halfway would leave less of it, and the next one is tried soon.
fn check_room(
    shared: &Shared,
    before: Option<&Base>,
    anchors: &Frontier,
) -> Result<(), PruneError> {
    let from = before.map_or_else(Frontier::default, |before| before.manifest().frontier());
    let base_bytes = before.map_or(0, |before| before.manifest().bytes());
    let log = &shared.log;
    let new_bytes = log
        .bytes_after(&from)
        .saturating_sub(log.bytes_after(anchors));
    let free_bytes = shared.disk.free_bytes(&shared.dir);
    let free_bytes = free_bytes.map_err(StateError::from)?;
    Ok(has_room(free_bytes, base_bytes, new_bytes)?)
}

// Time for which a pruning waits for a flush beside the writer.
const FLUSH_WAIT_MAX: Duration = Duration::from_secs(3);
const FLUSH_LOOK: Duration = Duration::from_millis(10);
