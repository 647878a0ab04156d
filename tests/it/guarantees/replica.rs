//! A replica: a real store over a disk in memory, which is closed, killed, or loses its power.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::Duration,
};

use bytes::Bytes;
use lattice::{
    Store,
    clock::Clock,
    id::{Author, EntryId, StoreId},
    protocol::entry::VerifiedEntry,
    store::{Fresh, Ingested, ReadError},
};
use tokio::sync::broadcast;

use crate::support::{
    disk::{Cut, Image, MemDisk},
    random::Random,
    store,
};

pub const STORE: StoreId = StoreId([0x67; 16]);
pub const START_MS: u64 = 1_700_000_000_000;
/// Nothing here takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Closed,
    /// All its writes are on disk, also those that were not synced.
    Killed,
    /// Its writes that were not synced are on disk or not.
    PowerCut,
}

#[derive(Debug)]
pub struct Replica {
    pub store: Store,
    pub clock: Clock,
    /// Entries written here, for the other replicas.
    pub fresh: broadcast::Receiver<Fresh>,
    secret: [u8; 32],
    // The image of the disk at the last open.
    found: Image,
    disk: MemDisk,
}

impl Replica {
    pub async fn open(secret: [u8; 32], clock: Clock, found: Image) -> Self {
        let disk = MemDisk::new(&found);
        let config = store::config(STORE, secret, &clock, disk.clone());
        let store = soon(Store::open(config)).await.unwrap();
        Self {
            fresh: store.fresh(),
            store,
            clock,
            secret,
            found,
            disk,
        }
    }

    /// Returns the disk that the process leaves behind. Handles and watches of the store may still
    /// exist.
    pub async fn end(&self, end: End, random: &mut Random) -> Image {
        match end {
            End::Closed => {
                soon(self.store.close()).await.unwrap();
                self.disk.image()
            }
            End::Killed => self.disk.image(),
            End::PowerCut => {
                let mut cut = Cut::new(&self.found, 4096);
                for operation in self.disk.operations() {
                    cut.step(&operation);
                }
                cut.image(|count| random.below(count))
            }
        }
    }

    pub async fn reopen(self, image: Image) -> Self {
        let Self { clock, secret, .. } = self;
        Self::open(secret, clock, image).await
    }

    /// Returns all entries of this replica.
    pub async fn log(&self) -> Result<Vec<VerifiedEntry>, ReadError> {
        let frontier = self.store.frontier();
        let authors: BTreeSet<Author> = frontier.iter().map(|(author, _)| author).collect();
        let mut log = Vec::new();
        for author in authors {
            let records = soon(self.store.entries(author, 0, usize::MAX)).await?;
            log.extend(records.into_iter().map(|record| record.entry));
        }
        Ok(log)
    }

    /// Ingests entries from other replicas.
    pub async fn take_in(&self, entries: Vec<Bytes>) -> Vec<Ingested> {
        let taken = soon(self.store.ingest(entries)).await.unwrap();
        let fits = |outcome: &Ingested| {
            use Ingested::{Applied, Duplicate, Pending};
            matches!(outcome, Applied(_) | Duplicate(_) | Pending { .. })
        };
        assert!(taken.iter().all(fits), "{taken:?}");
        taken
    }

    /// Brings the entries of `other` that are missing here, in order; with `some`, only a part of
    /// them.
    pub async fn sync(&self, other: &Self, some: Option<&mut Random>) {
        let mut missing = Vec::new();
        for range in other.store.frontier().missing_from(&self.store.frontier()) {
            let read = other.store.entries(range.author, range.after, usize::MAX);
            // Entries that are damaged there come from other replicas.
            let Ok(records) = soon(read).await else {
                return;
            };
            missing.extend(records.into_iter().map(|record| record.entry));
        }
        missing.sort_by_key(|entry| entry.order());
        if let Some(random) = some {
            missing.truncate(random.below(missing.len() + 1));
        }
        if !missing.is_empty() {
            let encoded = missing.iter().map(|entry| entry.signed.encode().into());
            self.take_in(encoded.collect()).await;
        }
    }

    /// Mends damaged entries here with the copies that `others` have.
    pub async fn mend(&self, others: &[Self]) {
        // `verify` reads every record, so it finds damage that no read has met.
        soon(self.store.verify()).await.unwrap();
        for _hole in 0..5 {
            for other in others {
                if soon(self.store.missing()).await.unwrap().is_empty() {
                    return;
                }
                let log = other.log().await.unwrap();
                let encoded = log.iter().map(|entry| entry.signed.encode().into());
                self.take_in(encoded.collect()).await;
            }
        }
        panic!("it is still damaged");
    }

    /// Returns the heads of these keys.
    pub async fn heads(&self, keys: impl Iterator<Item = Bytes>) -> BTreeMap<Bytes, Vec<EntryId>> {
        let mut state = BTreeMap::new();
        for key in keys {
            let heads = soon(self.store.heads(&key)).await.unwrap();
            state.insert(key, heads.iter().map(|head| head.entry.id).collect());
        }
        state
    }
}

/// Nothing may hang.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(3 * PATIENCE, work).await;
    done.expect("an answer in time")
}
