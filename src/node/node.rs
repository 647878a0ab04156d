//! A node: an identity, a data directory of its own, and the stores in it.
//!
//! ```text
//! identity.key   the signing key, 0600
//! lock           taken before anything else; holds the process id
//! meta.db        stores, root store, schema version
//! stores/{uuid}/ logs/ and state.db of each store
//! run/sock       the local API, while it is served
//! config.toml    what its owner wants each time it starts, where there is one
//! ```

mod config;
mod error;
mod identity;
mod introduction;
mod invites;
mod join;
mod lock;
mod meta;

#[cfg(feature = "hooks")]
pub(crate) use config::place;
pub use config::{ConfigError, FileConfig, Relay, RelayError};
pub use invites::{MeshError, Redeemed};
pub use join::FormerRoot;

use std::{
    any::Any,
    collections::BTreeMap,
    fs,
    future::poll_fn,
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use ed25519_dalek::SigningKey;
use tokio::runtime::Handle;

pub use error::{OpenError, StoreError};

use crate::{
    clock::Clock,
    disk::{Disk, RealDisk},
    id::{Author, StoreId},
    limits::{BUS_BATCHES_MAX, STORE_NAME_CHARS_MAX},
    node::{introduction::listing, lock::Lock, meta::Meta},
    protocol::membership::genesis::Genesis,
    store::{Authority, Store, StoreConfig, WriteError},
};

/// What a node is opened with.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Make it, with a new identity, where it is missing. Default: no.
    pub create: bool,
    /// What people call it, for `/nodes/{key}/info`. Default: the machine's name.
    pub name: String,
    /// The wall clock. Default: the machine's.
    pub clock: Clock,
    /// The file system of the stores. Default: the machine's.
    pub disk: Arc<dyn Disk>,
    /// Batches a bus channel holds for its slowest watcher; see `BUS_BATCHES_MAX`.
    pub bus_batches: usize,
}

impl NodeConfig {
    /// Opens what is at `data_dir`, with defaults.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            create: false,
            name: machine_name(),
            clock: Clock::system(),
            disk: Arc::new(RealDisk),
            bus_batches: BUS_BATCHES_MAX,
        }
    }

    /// Makes the directory and an identity where they are missing, or not.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// True when there is a node at `data_dir`.
    pub fn exists(&self) -> bool {
        self.data_dir.join(identity::FILE).exists() && self.data_dir.join(meta::FILE).exists()
    }
}

/// A store of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreInfo {
    /// Its id.
    pub id: StoreId,
    /// What it is called here; `root` for the root store.
    pub name: String,
    /// True for the store that holds the node's own keys.
    pub root: bool,
}

/// An open node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Node(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: NodeConfig,
    key: Arc<SigningKey>,
    // Held while an invite is redeemed.
    redeeming: tokio::sync::Mutex<()>,
    // Held while a store of another node is opened: two openers would write one log.
    opening: tokio::sync::Mutex<()>,
    // Another one after a join.
    root: RwLock<Root>,
    // All stores, the root store among them.
    stores: RwLock<BTreeMap<StoreId, (StoreInfo, Store)>>,
    meta: Meta,
    // Where its stores are opened.
    runtime: Handle,
    // Held as long as the node or the writer of a store lives.
    lock: Arc<Lock>,
}

/// The root store, and what proves its id.
#[derive(Debug, Clone)]
struct Root {
    store: Store,
    genesis: Genesis,
}

impl Node {
    /// Opens the node in a data directory, and all its stores. Within a tokio runtime.
    ///
    /// The first time it writes `/nodes/{key}/info` and `/nodes/{key}/status` into the root store.
    ///
    /// # Errors
    /// `OpenError`; nothing that was there has changed then.
    pub async fn open(config: NodeConfig) -> Result<Self, OpenError> {
        let runtime = Handle::current();
        let data_dir = config.data_dir.clone();
        prepare(&data_dir, config.create)?;
        let lock = Arc::new(Lock::take(&data_dir)?);
        let key = Arc::new(identity::load(&data_dir, config.create)?);
        let author = Author(key.verifying_key().to_bytes());
        let meta = Meta::open(&data_dir, &author, config.create)?;
        let mut rows = meta.stores()?;
        // It says who may write in the others.
        rows.sort_by_key(|row| !row.root);
        let mut stores = BTreeMap::new();
        let mut root: Option<Root> = None;
        for row in rows {
            let authority = match &root {
                None => Authority::Root {
                    creator: row.genesis.creator,
                },
                Some(root) => Authority::Of(root.store.members()),
            };
            let store = open_store(&runtime, &config, &key, &lock, row.id, authority).await?;
            if row.root {
                root = Some(Root {
                    store: store.clone(),
                    genesis: row.genesis,
                });
            }
            let info = StoreInfo {
                id: row.id,
                name: row.name,
                root: row.root,
            };
            stores.insert(row.id, (info, store));
        }
        let root = root.ok_or_else(|| OpenError::Unusable {
            path: data_dir.join(meta::FILE),
            what: "it names no root store".to_owned(),
        })?;
        let node = Self(Arc::new(Inner {
            config,
            key,
            redeeming: tokio::sync::Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            root: RwLock::new(root),
            stores: RwLock::new(stores),
            meta,
            runtime,
            lock,
        }));
        node.introduce().await?;
        Ok(node)
    }

    /// Returns the node's key, which is also its name and its author id.
    pub fn id(&self) -> Author {
        Author(self.0.key.verifying_key().to_bytes())
    }

    /// Returns the data directory.
    pub fn data_dir(&self) -> &Path {
        &self.0.config.data_dir
    }

    /// Returns the wall clock.
    pub fn clock(&self) -> &Clock {
        &self.0.config.clock
    }

    /// Returns the root store: the default store, which also holds the node's own keys.
    pub fn root(&self) -> Store {
        self.root_and_genesis().store
    }

    /// Returns a store by name or UUID; the root store for an empty name.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn store(&self, name: &str) -> Result<Store, StoreError> {
        if name.is_empty() {
            return Ok(self.root());
        }
        let id = name.parse::<StoreId>().ok();
        let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
        let found = stores
            .values()
            .find(|(info, _)| Some(info.id) == id || info.name == name);
        found
            .map(|(_, store)| store.clone())
            .ok_or_else(|| StoreError::Unknown {
                name: name.chars().take(80).collect(),
                known: stores
                    .values()
                    .map(|(info, _)| info.name.clone())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// Returns all stores, the root store first, then by name.
    pub fn stores(&self) -> Vec<StoreInfo> {
        let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
        let mut infos: Vec<_> = stores.values().map(|(info, _)| info.clone()).collect();
        infos.sort_by(|a, b| b.root.cmp(&a.root).then_with(|| a.name.cmp(&b.name)));
        infos
    }

    /// Makes a store. On return it is durable, and entered in the root store.
    ///
    /// # Errors
    /// `NameInvalid`, `NameTaken`, `Open`, `Write`.
    pub async fn create_store(&self, name: &str) -> Result<StoreInfo, StoreError> {
        check_name(name)?;
        let genesis = Genesis {
            creator: self.id(),
            nonce: identity::random()?,
        };
        self.check_free(name)?;
        let info = self.add_store(name, genesis).await?;
        self.root().write_own(listing(name, &genesis)).await?;
        Ok(info)
    }

    /// Opens a store that another node founded, which is listed in the root store. Where its name
    /// is taken here, it gets one of its own. Where it is open, nothing happens.
    ///
    /// # Errors
    /// `Open`.
    pub async fn open_shared(&self, name: &str, genesis: Genesis) -> Result<StoreInfo, StoreError> {
        let id = genesis.store();
        let _one = self.0.opening.lock().await;
        if let Some(open) = self.stores().into_iter().find(|store| store.id == id) {
            return Ok(open);
        }
        let own_name = format!("store-{}", &id.to_string()[..8]);
        let free = check_name(name).and_then(|()| self.check_free(name));
        let name = free.map_or(own_name.as_str(), |()| name);
        self.add_store(name, genesis).await
    }

    async fn add_store(&self, name: &str, genesis: Genesis) -> Result<StoreInfo, StoreError> {
        let id = genesis.store();
        let authority = Authority::Of(self.root().members());
        let store = self.0.open_store(id, authority).await?;
        let info = StoreInfo {
            id,
            name: name.to_owned(),
            root: false,
        };
        let mut stores = self
            .0
            .stores
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((taken, _)) = stores.values().find(|(taken, _)| taken.name == name) {
            return Err(StoreError::NameTaken {
                name: name.to_owned(),
                id: taken.id,
            });
        }
        self.0.meta.add(&meta::Row {
            id,
            name: name.to_owned(),
            root: false,
            genesis,
        })?;
        stores.insert(id, (info.clone(), store));
        Ok(info)
    }

    /// Returns all stores, open, the root store first.
    pub fn open_stores(&self) -> Vec<Store> {
        let infos = self.stores();
        let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
        let open = infos.iter().filter_map(|info| stores.get(&info.id));
        open.map(|(_, store)| store.clone()).collect()
    }

    /// Returns the store with `id`, where it is open here.
    pub fn open_store(&self, id: &StoreId) -> Option<Store> {
        let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
        stores.get(id).map(|(_, store)| store.clone())
    }

    fn root_and_genesis(&self) -> Root {
        let root = self.0.root.read().unwrap_or_else(PoisonError::into_inner);
        root.clone()
    }

    /// Closes all stores: everything in memory is written, later calls answer `Closed`. The data
    /// directory is free when the last clone is gone.
    ///
    /// # Errors
    /// The first store's that could not close cleanly; nothing acknowledged is lost.
    pub async fn close(&self) -> Result<(), WriteError> {
        let stores: Vec<Store> = {
            let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
            stores.values().map(|(_, store)| store.clone()).collect()
        };
        let mut closed = Ok(());
        for store in stores {
            closed = closed.and(store.close().await);
        }
        closed
    }

    fn check_free(&self, name: &str) -> Result<(), StoreError> {
        let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
        match stores.values().find(|(taken, _)| taken.name == name) {
            Some((taken, _)) => Err(StoreError::NameTaken {
                name: name.to_owned(),
                id: taken.id,
            }),
            None => Ok(()),
        }
    }
}

// Makes the directory where it may, and checks that it is fit for use.
fn prepare(data_dir: &Path, create: bool) -> Result<(), OpenError> {
    let missing = || OpenError::NoDataDir {
        data_dir: data_dir.to_owned(),
    };
    let io = |source| OpenError::refused(data_dir, source);
    match fs::metadata(data_dir) {
        Ok(there) if !there.is_dir() => Err(OpenError::Unusable {
            path: data_dir.to_owned(),
            what: "it is not a directory".to_owned(),
        }),
        Ok(there) if there.mode() & 0o002 != 0 => Err(OpenError::Exposed {
            path: data_dir.to_owned(),
            mode: there.mode() & 0o777,
            mode_max: 0o775,
        }),
        Ok(_there) if create || data_dir.join(identity::FILE).exists() => Ok(()),
        Ok(_empty) => Err(missing()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && create => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir)
            .map_err(io),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing()),
        Err(error) => Err(io(error)),
    }
}

impl Inner {
    async fn open_store(&self, id: StoreId, authority: Authority) -> Result<Store, OpenError> {
        let (config, key, lock) = (&self.config, &self.key, &self.lock);
        open_store(&self.runtime, config, key, lock, id, authority).await
    }
}

async fn open_store(
    runtime: &Handle,
    config: &NodeConfig,
    key: &Arc<SigningKey>,
    lock: &Arc<Lock>,
    id: StoreId,
    authority: Authority,
) -> Result<Store, OpenError> {
    let opened = Store::open(StoreConfig {
        id,
        dir: config.data_dir.join("stores").join(id.to_string()),
        key: Arc::clone(key),
        clock: config.clock.clone(),
        disk: Arc::clone(&config.disk),
        bus_batches: config.bus_batches,
        lease: Some(Arc::clone(lock) as Arc<dyn Any + Send + Sync>),
        root: matches!(authority, Authority::Root { .. }),
        authority,
    });
    let opened = within(runtime, opened).await;
    opened.map_err(|source| OpenError::Store {
        id,
        source: Box::new(source),
    })
}

/// Does work here that leaves what it spawns to `runtime`, which outlives the caller's own.
pub(crate) async fn within<T>(runtime: &Handle, work: impl Future<Output = T>) -> T {
    let mut work = Box::pin(work);
    poll_fn(|cx| {
        let _there = runtime.enter();
        work.as_mut().poll(cx)
    })
    .await
}

fn check_name(name: &str) -> Result<(), StoreError> {
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let count = name.chars().count();
    let fits = (1..=STORE_NAME_CHARS_MAX).contains(&count) && name.chars().all(letters);
    if fits && name.parse::<StoreId>().is_err() && name != "." && name != ".." {
        return Ok(());
    }
    Err(StoreError::NameInvalid {
        name: name.chars().take(80).collect(),
    })
}

fn machine_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
