//! Replication: the calls of the net. They take in entries of peers, and compare with peers.
//!
//! Call order in a sync session: `missing`, `frontier` and `spent_keys` before it begins, `lacks` for the tips that
//! the peer names, `outgoing` for what the peer asks for, `ingest_verified` for each message of
//! entries, `settle` when it has ended. `fresh` feeds gossip.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::{broadcast, watch};

use crate::{
    id::{Author, EntryId},
    log::{LogError, LogReader, NotedChains},
    pace::Pace,
    protocol::{
        entry::VerifiedEntry,
        frontier::{Frontier, FrontierTip},
        intake::Bases,
        membership::{Members, spent::SpentKeys},
    },
    store::{
        Fresh, IngestError, Ingested, ReadError, Shared, Store, WriteError,
        write_pause::WritePause,
        writer::{
            command::Command,
            intake::{self, RefusedEntry},
        },
    },
};

impl Store {
    /// Returns a receiver of each entry written here from now on, in order, once it is durable.
    ///
    /// A receiver that lags by more than `FRESH_ENTRIES_MAX` entries loses the oldest and gets
    /// `Lagged`; the log still has them.
    pub fn fresh(&self) -> broadcast::Receiver<Fresh> {
        self.shared.fresh.subscribe()
    }

    /// Returns a receiver of the mesh's members. All stores of a node share it.
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.shared.members.clone()
    }

    /// Returns the tips of the logs of authors whose keys are spent in this store: nothing of them
    /// counts, but for entries that are final. The other tips are those of `frontier`.
    ///
    /// # Errors
    /// `Io`.
    pub fn spent(&self) -> Result<Frontier, ReadError> {
        let log = &self.shared.log;
        let spent = self.shared.spent()?;
        let tips = spent.iter().flat_map(|author| {
            let tips = log.of(author).into_iter().filter_map(|branch| branch.tip());
            tips.map(|tip| (*author, FrontierTip::from(tip)))
        });
        Ok(tips.collect())
    }

    /// Returns the spent keys as a sync session offers them.
    ///
    /// Reads files if there are any: not for an event loop.
    ///
    /// # Errors
    /// `Io`.
    pub fn spent_keys(&self) -> Result<SpentKeys, ReadError> {
        let Shared { log, members, .. } = &*self.shared;
        let mut keys = SpentKeys {
            authors: self.shared.spent()?,
            proof: Frontier::default(),
        };
        let members = Arc::clone(&members.borrow());
        let finality = Arc::clone(&self.shared.finality.borrow());
        let hidden = RefCell::default();
        let chains = NotedChains::new(log, &hidden);
        for author in &keys.authors {
            // The root store comes first in a sync.
            if !self.shared.root && members.is_spent(author) {
                continue;
            }
            for tip in log.fork_proof(author, &finality, &chains)? {
                keys.proof.insert(*author, tip);
            }
        }
        Ok(keys)
    }

    /// Makes own writes wait until the returned guard is dropped. Reads and entries of other nodes
    /// go on.
    pub fn pause_writes(&self) -> WritePause {
        WritePause::new(Arc::clone(&self.shared))
    }

    /// Refuses own writes because `by` has removed this node, as a peer has proven; `None` takes that
    /// back. Not kept: after a restart a peer proves it again.
    pub fn turn_away(&self, by: Option<Author>) {
        self.shared.turned_away.send_replace(by);
    }

    /// Refuses own writes as long as `restored` is true: the node was restored from a snapshot. Only the
    /// first call counts.
    pub(crate) fn refuse_while(&self, restored: Arc<AtomicBool>) {
        drop(self.shared.restored.set(restored));
    }

    /// Refuses writes of clients under the node's own prefixes from now on, as the root store does.
    pub(crate) fn reserve_keys(&self) {
        self.shared.reserves_keys.store(true, Ordering::Relaxed);
    }

    /// Returns a node that has removed this one; `None` while it is not known to be removed.
    pub fn removed_by(&self) -> Option<Author> {
        self.shared.removed_by()
    }

    /// Waits until a node is known to have removed this one. The future keeps no handle of the store.
    pub fn until_removed(&self) -> impl Future<Output = ()> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move { shared.until_removed().await }
    }

    /// Takes in encoded entries from elsewhere, in any order.
    ///
    /// Each entry is checked, then applied, or kept until what it needs has come. Entries reported as
    /// `Applied` are durable on return. Whether an author may write here is decided by the members;
    /// see `Ingested::Stranger` and `RefusedEntry`.
    ///
    /// # Errors
    /// `Write` when the store takes no writes, or stopped taking them in the middle of the call:
    /// some entries may have been applied then. One bad entry is an outcome, not an error.
    pub async fn ingest(&self, entries: Vec<Bytes>) -> Result<Vec<Ingested>, IngestError> {
        let bytes = entries.iter().map(Bytes::len).sum();
        let id = self.shared.id;
        let checking = tokio::task::spawn_blocking(move || intake::check(entries, &id));
        let entries = checking.await.map_err(|_panic| WriteError::Closed)?;
        self.ingest_checked(entries, bytes).await
    }

    /// Takes in entries from elsewhere that are known to be authentic and of this store; otherwise
    /// like `ingest`.
    ///
    /// # Errors
    /// Like `ingest`.
    pub async fn ingest_verified(
        &self,
        entries: Vec<VerifiedEntry>,
    ) -> Result<Vec<Ingested>, IngestError> {
        let bytes = entries.iter().map(|entry| entry.bytes()).sum();
        let entries = entries.into_iter().map(Ok).collect();
        self.ingest_checked(entries, bytes).await
    }

    async fn ingest_checked(
        &self,
        entries: Vec<Result<VerifiedEntry, RefusedEntry>>,
        bytes: usize,
    ) -> Result<Vec<Ingested>, IngestError> {
        let ingest = |reply| Command::Ingest(entries, reply);
        self.queue.ask_with_bytes(bytes, ingest).await?
    }

    /// Returns which of `tips` this store does not have, so that a peer is asked for them. A held
    /// entry, and one of an author who is not admitted yet, counts as here if everything before it
    /// is, and so does one before the place where its author's log begins here; a pending entry does
    /// not, nor does an unreadable one. The writer looks into its pools
    /// only, in steps; the logs are read on another thread.
    ///
    /// # Errors
    /// `Closed`; `Poisoned` when the disk fails.
    pub async fn lacks(
        &self,
        tips: Vec<(Author, FrontierTip)>,
    ) -> Result<Vec<(Author, FrontierTip)>, WriteError> {
        // The pools first: an entry that leaves them meanwhile is in the log then.
        let mut bases = Box::new(Bases::new(tips));
        loop {
            let (walked, done) = self.queue.ask(|reply| Command::Bases(bases, reply)).await?;
            bases = walked;
            if done {
                break;
            }
        }
        let log = self.shared.log.clone();
        let looking = tokio::task::spawn_blocking(move || absent(&log, *bases));
        let absent = looking.await.map_err(|_panic| WriteError::Closed)?;
        Ok(absent?)
    }

    /// Returns whether `id` is the newest entry of a branch of `author` here.
    pub fn is_tip(&self, author: &Author, id: &EntryId) -> bool {
        let view = self.shared.state.view();
        let mut tips = view.frontier.tips(author).iter();
        tips.any(|tip| tip.id == *id)
    }

    /// Returns whether the entry of `author` at `entry` is on the branch that ends in `tip`; `None`
    /// when `tip` is not here, or what lies between the two.
    ///
    /// Reads files: cheap for a few questions, not for many on an event loop.
    ///
    /// # Errors
    /// `Damaged` when an unreadable frame hides the answer; `Io`.
    pub fn leads(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, ReadError> {
        Ok(self.shared.log.leads(author, entry, tip)?)
    }

    /// Returns the last entry of each hole in the logs: entries that were here and cannot be read
    /// any more. What a peer sends of them is written back into the hole.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn missing(&self) -> Result<Vec<(Author, FrontierTip)>, WriteError> {
        self.queue.ask(Command::Missing).await
    }

    /// Looks again at entries of authors who were not admitted when the entries came. Returns when
    /// those of new members are applied.
    pub async fn reconsider(&self) {
        // A closed store has no such entries.
        self.queue
            .ask(Command::Reconsider)
            .await
            .unwrap_or_default();
    }

    /// Applies entries that still wait for parents which do not count: after a whole sync those
    /// parents will hardly come. Returns when it is done.
    pub async fn settle(&self) {
        // In a closed store nothing waits.
        self.queue.ask(Command::Settle).await.unwrap_or_default();
    }
}

// Returns the tips whose base is not in the logs.
fn absent(log: &LogReader, bases: Bases) -> Result<Vec<(Author, FrontierTip)>, LogError> {
    let mut pace = Pace::start();
    let mut absent = Vec::new();
    for (tip, base) in bases.into_found() {
        pace.step();
        let is_here = match base {
            None => true,
            Some(base) if log.is_final(&tip.0, base.seq) => true,
            Some(base) => match log.entry(&tip.0, base.seq, &base.id) {
                Ok(found) => found.is_some(),
                // A peer gives it back. It is noted as damage when that comes.
                Err(LogError::Damaged(_)) => false,
                Err(error) => return Err(error),
            },
        };
        if !is_here {
            absent.push(tip);
        }
    }
    Ok(absent)
}
