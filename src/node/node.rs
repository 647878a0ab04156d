//! A node: its identity, its data directory and its open stores.

use std::{
    any::Any,
    collections::BTreeMap,
    future::poll_fn,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use ed25519_dalek::SigningKey;
use tokio::{
    runtime::Handle,
    sync::OwnedMutexGuard,
    task::{JoinError, JoinSet},
};

use crate::{
    clock::Clock,
    disk::{Disk, RealDisk},
    id::{Author, StoreId},
    limits::{BUS_BATCHES_MAX, STORES_CLOSED_AT_ONCE},
    log::LogFiles,
    node::{
        data_dir::{
            IDENTITY, META, STORES_DIR, holds_data, is_restored, is_restoring, prepare,
            unmark_restored,
        },
        error::OpenError,
        heard_acks::HeardAcks,
        history_summary::HistorySummary,
        identity::{self, NewIdentity},
        info::check_node_name,
        lock::Lock,
        meta::{Meta, Row},
        private,
        store_name::DATA,
        unopened::Unopened,
    },
    protocol::{finality::Stability, membership::genesis::Genesis},
    store::{Authority, Store, StoreConfig, WriteError},
    vault::{KeySources, Seed},
};

/// The options of [`Node::open`].
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Makes the directory, with a new identity, if it is missing. Default: false.
    pub create: bool,
    /// Name of the node for people, at `/nodes/{key}/info`; a node that has another is renamed.
    /// Default: the name that the node has, the machine's name for a new one.
    pub name: Option<String>,
    /// The wall clock. Default: the machine's.
    pub clock: Clock,
    /// The file system of the stores. Default: the machine's.
    pub disk: Arc<dyn Disk>,
    /// Bound on the log files that all stores have open at a time. Default: what the process may
    /// have open when the configuration is made.
    pub files: LogFiles,
    /// The sources from which the secret of the node's key may be fetched; `identity.key` says which one it
    /// is. Default: the file itself, a command, and the credentials that this process was given.
    pub key: KeySources,
    /// Batches that a channel of the bus holds for its slowest watcher. Default: `BUS_BATCHES_MAX`.
    pub bus_batches: usize,
}

impl NodeConfig {
    /// Returns the defaults for the node in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            create: false,
            name: None,
            clock: Clock::system(),
            disk: Arc::new(RealDisk),
            files: LogFiles::of_process(),
            key: KeySources::of_process(),
            bus_batches: BUS_BATCHES_MAX,
        }
    }

    /// Sets whether a missing directory and identity are made.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// True when there is a node in `data_dir`.
    pub fn exists(&self) -> bool {
        self.data_dir.join(IDENTITY).exists() && self.data_dir.join(META).exists()
    }
}

/// A store of a node, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreInfo {
    /// Id of the store.
    pub id: StoreId,
    /// Name of the store on this node. `root` for the root store.
    pub name: String,
    /// True for the root store, which names members and stores.
    pub root: bool,
    /// True for the data store: the one that is meant where none is named. Its name is `data`.
    pub data: bool,
    /// True for a store that the node had before it joined its mesh, and keeps to itself.
    pub private: bool,
}

/// An open node. Cheap to clone; all clones are one node.
///
/// [`open`](Self::open) comes first and [`close`](Self::close) last; in between, methods are called
/// in any order. They are in one file for each noun: stores in `stores.rs`, members in
/// `members.rs`, invites in `invites.rs`, the change to another mesh in `join.rs`.
#[derive(Debug, Clone)]
pub struct Node(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: NodeConfig,
    pub(super) key: Arc<SigningKey>,
    // Held while an invite is redeemed, across awaits. Taken before `root` and `stores`.
    pub(super) redeeming: tokio::sync::Mutex<()>,
    // Held while a store is made, or one of another node is opened, across awaits: two openers would
    // write one log.
    // Taken before `root` and `stores`.
    pub(super) opening: tokio::sync::Mutex<()>,
    // Replaced by `adopt_root`. Never held across an await. `adopt_root` takes it before `stores`;
    // nothing else holds both.
    pub(super) root: RwLock<Root>,
    // All stores, the root store among them. Never held across an await.
    pub(super) stores: RwLock<BTreeMap<StoreId, (StoreInfo, Store)>>,
    // Replaced by each look at the list of stores. Never held across an await; no other lock is
    // taken meanwhile.
    pub(super) unopened: Mutex<Unopened>,
    // Name by which the node introduces itself; `None` for the one that it has. Set by `open` and
    // `adopt_root`. Never held across an await; no other lock is taken meanwhile.
    pub(super) name: Mutex<Option<String>>,
    pub(super) meta: Meta,
    // The acks of other members.
    pub(super) heard: HeardAcks,
    // The history of stores, as of the last look. Never held across an await; `stores` may be taken
    // meanwhile.
    pub(super) histories: Mutex<BTreeMap<StoreId, HistorySummary>>,
    // By store: held while its entries are made final, or removed, across awaits: what the one has found would
    // not hold for the other. No other lock of the node is taken before it. The map is held for a look.
    pub(super) history_turns: Mutex<BTreeMap<StoreId, Arc<tokio::sync::Mutex<()>>>>,
    // By store: the writers that have everything that the last act about it made final. Logs are read while
    // it is held, so never on an event loop.
    pub(super) stability: Mutex<BTreeMap<StoreId, Stability>>,
    // True while own writes are refused because the node was restored from a snapshot: as long as the
    // directory has the mark. Shared by the stores of the mesh; set by `open`, cleared by
    // `own_log_is_back`.
    restored: Arc<AtomicBool>,
    // Things that were mended when the directory was opened, a line each.
    mended: Vec<String>,
    // The runtime on which the tasks of its stores run. It outlives the runtimes of callers.
    runtime: Handle,
    // Released when the node and the writers of all its stores are dropped.
    lock: Arc<Lock>,
}

/// The root store, the genesis that proves its id, and the data store that belongs to it.
#[derive(Debug, Clone)]
pub(super) struct Root {
    pub(super) store: Store,
    pub(super) data: Store,
    pub(super) genesis: Genesis,
}

impl Node {
    /// Opens the node in a data directory, and all its stores.
    ///
    /// Writes `/nodes/{key}/info` and `/nodes/{key}/status` into the root store if they are
    /// missing. Another name or version is written here only by a node without other members; for the
    /// others the net does it, once it has compared the clock with theirs.
    ///
    /// # Errors
    /// `OpenError`. Existing data is unchanged then.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn open(config: NodeConfig) -> Result<Self, OpenError> {
        let data_dir = config.data_dir.clone();
        if is_restoring(&data_dir) {
            return Err(OpenError::Restoring { data_dir });
        }
        if let Some(name) = &config.name {
            check_node_name(name)?;
        }
        prepare(config.disk.as_ref(), &data_dir, config.create)?;
        let lock = Arc::new(Lock::take_after_close(&data_dir).await?);
        // It may have begun before this process had the lock.
        if is_restoring(&data_dir) {
            return Err(OpenError::Restoring { data_dir });
        }
        Self::open_locked(config, lock).await
    }

    /// Like `open`, for a caller that holds the lock of the directory; also where a restore has not ended.
    ///
    /// # Errors
    /// Like `open`.
    pub(super) async fn open_locked(
        config: NodeConfig,
        lock: Arc<Lock>,
    ) -> Result<Self, OpenError> {
        let data_dir = config.data_dir.clone();
        if holds_data(&data_dir) && !identity::exists(&data_dir) {
            let owner = Meta::author_in(&config.disk, &data_dir);
            return Err(OpenError::IdentityMissing { data_dir, owner });
        }
        if let Err(source) = identity::remove_left_over(&data_dir) {
            tracing::warn!(%source, "what a move of the key has left cannot be removed");
        }
        let (create, sources) = (config.create, config.key.clone());
        let fetching = move || identity::load(&data_dir, create, &sources);
        let fetching = tokio::task::spawn_blocking(fetching).await;
        let seed = fetching.map_err(|_panic| OpenError::Panicked)??;
        Self::open_with(config, lock, &seed).await
    }

    /// Like `open_locked`, with this key.
    ///
    /// # Errors
    /// Like `open`.
    pub(super) async fn open_with(
        config: NodeConfig,
        lock: Arc<Lock>,
        seed: &Seed,
    ) -> Result<Self, OpenError> {
        let runtime = Handle::current();
        let data_dir = config.data_dir.clone();
        let key = Arc::new(seed.signing_key());
        let author = Author(key.verifying_key().to_bytes());
        let (meta, mended) = Meta::open(&config.disk, &data_dir, &author, config.create)?;
        let rows = meta.stores_with_data()?;
        let root = rows.iter().find(|row| row.root);
        let root = root.ok_or_else(|| OpenError::Unusable {
            path: data_dir.join(META),
            what: "it names no root store".to_owned(),
        })?;
        let genesis = root.genesis;
        let authority = Authority::Root {
            creator: genesis.creator,
        };
        let restored = Arc::new(AtomicBool::new(is_restored(&data_dir)));
        let opener = Opener {
            runtime: &runtime,
            config: &config,
            key: &key,
            lock: &lock,
            restored: &restored,
        };
        let store = opener.open_shared(root.id, authority).await?;
        let info = StoreInfo {
            id: root.id,
            name: root.name.clone(),
            root: true,
            data: false,
            private: false,
        };
        let mut stores = BTreeMap::from([(root.id, (info, store.clone()))]);
        let others: Vec<Row> = rows.into_iter().filter(|row| !row.root).collect();
        opener.open_others(others, &store, &mut stores).await?;
        let root = Root::of(store, genesis, &stores);
        let root = root.expect("the data store has a row, and all stores with one are open");
        let heard = HeardAcks::default();
        match meta.acks() {
            Ok(acks) => heard.read(acks),
            Err(error) => tracing::warn!(%error, "the acks of other members cannot be read"),
        }
        let node = Self(Arc::new(Inner {
            name: Mutex::new(config.name.clone()),
            config,
            key,
            redeeming: tokio::sync::Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            root: RwLock::new(root),
            stores: RwLock::new(stores),
            unopened: Mutex::default(),
            meta,
            heard,
            histories: Mutex::default(),
            history_turns: Mutex::default(),
            stability: Mutex::default(),
            mended,
            restored,
            runtime,
            lock,
        }));
        node.introduce_at_start().await?;
        Ok(node)
    }

    /// Gives the data in a directory to a new node, for a copy of another node's directory or one
    /// whose `identity.key` is lost. The old key is kept beside the new one; the entries that it
    /// signed are those of another node from now on. The new node belongs to no mesh until it
    /// joins one.
    ///
    /// Durable on return. The directory must not be open.
    ///
    /// # Errors
    /// `NoDataDir`: there is no data. `AlreadyRunning`, `Untrusted`, `ReadOnly`, `Io`.
    pub fn renew_identity(data_dir: &Path) -> Result<NewIdentity, OpenError> {
        prepare(&RealDisk, data_dir, false)?;
        let _lock = Lock::take(data_dir)?;
        if !holds_data(data_dir) {
            return Err(OpenError::NoDataDir {
                data_dir: data_dir.to_owned(),
            });
        }
        let renewed = identity::renew(data_dir)?;
        // The new key has signed nothing.
        let unmarked = unmark_restored(&RealDisk, data_dir);
        unmarked.map_err(|source| OpenError::refused(data_dir, source))?;
        Ok(renewed)
    }

    /// Returns the node's public key, which is also its author id.
    pub fn id(&self) -> Author {
        Author(self.0.key.verifying_key().to_bytes())
    }

    /// Returns the data directory.
    pub fn data_dir(&self) -> &Path {
        &self.0.config.data_dir
    }

    /// Returns a line for each thing that was mended when the directory was opened. The repairs of
    /// the stores are in the status of each.
    pub fn mended(&self) -> &[String] {
        &self.0.mended
    }

    /// Returns the wall clock.
    pub fn clock(&self) -> &Clock {
        &self.0.config.clock
    }

    /// Returns whether own writes are refused because the node was restored from a snapshot: members may
    /// have entries that it signed after that, and that it does not have.
    pub fn is_restored(&self) -> bool {
        self.0.restored.load(Ordering::Acquire)
    }

    /// Lets a node that was restored from a snapshot write: it has what it signed after that, or gives it
    /// up. What a member still has of it makes a fork then. Durable on return.
    ///
    /// # Errors
    /// `Io`, `ReadOnly`: the mark in the data directory cannot be removed.
    pub fn own_log_is_back(&self) -> Result<(), OpenError> {
        let data_dir = &self.0.config.data_dir;
        let removed = unmark_restored(self.0.config.disk.as_ref(), data_dir);
        removed.map_err(|source| OpenError::refused(data_dir, source))?;
        self.0.restored.store(false, Ordering::Release);
        Ok(())
    }

    /// Waits until nobody makes entries of `store` final or removes them. Others wait until the guard is dropped.
    pub(super) async fn history_turn(&self, store: &StoreId) -> OwnedMutexGuard<()> {
        let turn = {
            let turns = self.0.history_turns.lock();
            let mut turns = turns.unwrap_or_else(PoisonError::into_inner);
            turns.retain(|other, turn| other == store || Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(*store).or_default())
        };
        turn.lock_owned().await
    }

    /// Returns the data store: the default store, for the keys of people and programs. Every node of
    /// a mesh has it. It keeps as much history as the policy says.
    pub fn data(&self) -> Store {
        self.root_and_genesis().data
    }

    /// Returns the root store, which lists members, invites and stores. It keeps its history for ever,
    /// because the members follow from it: use [`data`](Self::data) for anything that changes often.
    pub fn root(&self) -> Store {
        self.root_and_genesis().store
    }

    pub(super) fn root_and_genesis(&self) -> Root {
        let root = self.0.root.read().unwrap_or_else(PoisonError::into_inner);
        root.clone()
    }

    /// Writes the acks of other members that have come since the last time to disk. If that fails they are
    /// kept in memory. Writes a file: not for an event loop.
    pub(crate) fn keep_acks(&self) {
        let is_open = |store: &StoreId| {
            let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
            stores.contains_key(store)
        };
        let acks = self.0.heard.take_unwritten(&self.members(), is_open);
        if acks.is_empty() {
            return;
        }
        if let Err(error) = self.0.meta.keep_acks(&acks) {
            tracing::warn!(%error, "the acks of other members were not written to disk");
            self.0.heard.not_written(&acks);
        }
    }

    /// Closes all stores: their memory is written to disk, and later calls return `Closed`. The
    /// lock on the data directory is released when the last clone of the node and its stores is
    /// dropped, and their last read has ended; `open` in this process waits a second for that.
    ///
    /// # Errors
    /// The error of the first store that did not close cleanly. No acknowledged write is lost.
    pub async fn close(&self) -> Result<(), WriteError> {
        self.keep_acks();
        let stores: Vec<Store> = {
            let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
            stores.values().map(|(_, store)| store.clone()).collect()
        };
        // Closing a store waits for its disk: many take no longer than their number requires.
        let (mut closed, mut closing) = (Ok(()), JoinSet::new());
        for store in stores {
            if closing.len() >= STORES_CLOSED_AT_ONCE {
                closed = closed.and(ended(closing.join_next().await));
            }
            closing.spawn_on(async move { store.close().await }, &self.0.runtime);
        }
        while let Some(store) = closing.join_next().await {
            closed = closed.and(ended(Some(store)));
        }
        closed
    }
}

impl Root {
    /// Returns the root store with the data store that belongs to it; `None` if `stores` lacks that.
    pub(super) fn of(
        store: Store,
        genesis: Genesis,
        stores: &BTreeMap<StoreId, (StoreInfo, Store)>,
    ) -> Option<Self> {
        let (_info, data) = stores.get(&genesis.data().store())?;
        Some(Self {
            data: data.clone(),
            store,
            genesis,
        })
    }
}

impl Inner {
    /// Returns what it takes to open the stores of this node.
    pub(super) fn opener(&self) -> Opener<'_> {
        Opener {
            runtime: &self.runtime,
            config: &self.config,
            key: &self.key,
            lock: &self.lock,
            restored: &self.restored,
        }
    }
}

/// All that it takes to open the stores of a node.
pub(super) struct Opener<'a> {
    runtime: &'a Handle,
    config: &'a NodeConfig,
    key: &'a Arc<SigningKey>,
    lock: &'a Arc<Lock>,
    restored: &'a Arc<AtomicBool>,
}

impl Opener<'_> {
    /// Opens a store, and makes it if there is none.
    ///
    /// # Errors
    /// `Store`.
    pub(super) async fn open(&self, id: StoreId, authority: Authority) -> Result<Store, OpenError> {
        let config = self.config;
        let opened = Store::open(StoreConfig {
            id,
            dir: self.dir(&id),
            key: Arc::clone(self.key),
            clock: config.clock.clone(),
            disk: Arc::clone(&config.disk),
            files: config.files.clone(),
            bus_batches: config.bus_batches,
            lease: Some(Arc::clone(self.lock) as Arc<dyn Any + Send + Sync>),
            root: matches!(authority, Authority::Root { .. }),
            authority,
        });
        let opened = within(self.runtime, opened).await;
        let store = opened.map_err(|source| OpenError::Store {
            id,
            source: Box::new(source),
        })?;
        Ok(store)
    }

    /// Like `open`, for a store that other members have: they may have entries in it that this node signed,
    /// also if it is new here.
    ///
    /// # Errors
    /// `Store`.
    pub(super) async fn open_shared(
        &self,
        id: StoreId,
        authority: Authority,
    ) -> Result<Store, OpenError> {
        let store = self.open(id, authority).await?;
        store.refuse_while(Arc::clone(self.restored));
        Ok(store)
    }

    /// Opens the stores of `rows`, which are all but the root store `root`, and adds them to `stores`.
    /// The root store names the writers of a store; of a private one, the root store that it belonged
    /// to does.
    ///
    /// # Errors
    /// `Store`, `Io`.
    pub(super) async fn open_others(
        &self,
        rows: Vec<Row>,
        root: &Store,
        stores: &mut BTreeMap<StoreId, (StoreInfo, Store)>,
    ) -> Result<(), OpenError> {
        let mut marked = Vec::new();
        for row in rows {
            let disk = self.config.disk.as_ref();
            let under = private::root_of(disk, &self.dir(&row.id), &row.id)?;
            marked.push((row, under.filter(|under| *under != root.id())));
        }
        // The data store first: a node is of no use without it. Former root stores before the stores
        // that belonged to them.
        marked.sort_by_key(|(row, under)| (row.name != DATA, *under != Some(row.id)));
        for (row, under) in marked {
            let by_itself = Authority::Root {
                creator: row.genesis.creator,
            };
            let authority = match under {
                None => Authority::Of(root.members()),
                Some(under) if under == row.id => by_itself,
                Some(under) => match stores.get(&under) {
                    Some((_info, former)) => Authority::Of(former.members()),
                    None => by_itself,
                },
            };
            let store = match under {
                None => self.open_shared(row.id, authority).await?,
                Some(_private) => self.open(row.id, authority).await?,
            };
            let data = row.name == DATA;
            if data {
                store.reserve_keys();
            }
            let info = StoreInfo {
                id: row.id,
                name: row.name,
                root: false,
                data,
                private: under.is_some(),
            };
            stores.insert(row.id, (info, store));
        }
        Ok(())
    }

    /// Returns the directory of a store.
    pub(super) fn dir(&self, id: &StoreId) -> PathBuf {
        self.config.data_dir.join(STORES_DIR).join(id.to_string())
    }
}

// The result of the task that has closed a store. A store whose task was cut is not closed.
fn ended(task: Option<Result<Result<(), WriteError>, JoinError>>) -> Result<(), WriteError> {
    match task {
        Some(ended) => ended.unwrap_or(Err(WriteError::Closed)),
        None => Ok(()),
    }
}

/// Runs `work` on the caller's task, with `runtime` entered: tasks that it spawns run there and
/// outlive the caller's runtime.
async fn within<T>(runtime: &Handle, work: impl Future<Output = T>) -> T {
    let mut work = Box::pin(work);
    poll_fn(|cx| {
        let _entered = runtime.enter();
        work.as_mut().poll(cx)
    })
    .await
}
