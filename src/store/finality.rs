//! Finality: what anchors acts make final in a store, and the base of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    id::{Author, StoreId},
    log::{LogReader, Pruning},
    protocol::{
        anchors_act::{ActBase, BaseHash},
        finality::{Fate, Finality},
        fork::open_tips,
        frontier::{Frontier, FrontierTip},
    },
    state::Base,
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
    /// `anchors` has one tip for each author. No entry is removed, and no answer changes. Durable on
    /// return; a dropped call may still do it.
    ///
    /// # Errors
    /// `PruneError`; the base before is the newest one then.
    pub async fn fold(&self, anchors: Frontier) -> Result<FoldedBase, PruneError> {
        if self.shared.root {
            return Err(PruneError::Root);
        }
        let turn = Arc::clone(&self.shared.folding).lock_owned().await;
        if let Some(folded) = self.folded().filter(|folded| folded.anchors == anchors) {
            return Ok(folded);
        }
        let (shared, queue) = (Arc::clone(&self.shared), self.queue.clone());
        let folding = tokio::spawn(async move {
            let folded = fold_and_take(Arc::clone(&shared), &queue, anchors).await;
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

    /// Removes the entries from the logs of which `folded`, the newest base, has the rows. What is only in
    /// them, such as who wrote a value that was replaced, is gone from this node. Durable on return; a
    /// dropped call may still remove them.
    ///
    /// # Errors
    /// `OtherBase` when the newest base is another one. `PruneError`.
    pub async fn drop_folded(&self, folded: &FoldedBase) -> Result<Pruning, PruneError> {
        let turn = Arc::clone(&self.shared.folding).lock_owned().await;
        if self.folded().as_ref() != Some(folded) {
            return Err(PruneError::OtherBase);
        }
        let anchors = folded.anchors.clone();
        let prune = |reply| Command::Prune(anchors, None, reply);
        let pruned = self.queue.ask(prune).await;
        drop(turn);
        pruned.map_err(|_closed| PruneError::Closed).flatten()
    }
}

async fn fold_and_take(
    shared: Arc<Shared>,
    queue: &Queue,
    anchors: Frontier,
) -> Result<FoldedBase, PruneError> {
    let store = shared.id;
    let folding = tokio::task::spawn_blocking(move || fold(&shared, &anchors));
    let base = Box::new(folding.await.map_err(|_panic| PruneError::Closed)??);
    let folded = FoldedBase::of(store, &base);
    let take = |reply| Command::TakeBase(base, reply);
    let taken = queue.ask(take).await;
    taken.map_err(|_closed| PruneError::Closed).flatten()?;
    Ok(folded)
}

fn fold(shared: &Shared, anchors: &Frontier) -> Result<Base, PruneError> {
    let folding = Folding {
        disk: shared.disk.as_ref(),
        dir: &base_dir(&shared.dir),
        store: shared.id,
        log: &shared.log,
        base: shared.base.newest(),
    };
    folding.fold(anchors)
}
