//! Restoring a snapshot: a new data directory with the stores of the file.
//!
//! A restore makes an empty file named `restoring` in the directory first, and removes it last. While that
//! file is there, no node opens the directory, and another restore removes what is there and begins anew.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::task::JoinError;

use crate::{
    disk::{Disk, Open},
    id::{Author, StoreId},
    log::{LogFiles, Logs},
    node::{
        data_dir::{
            IDENTITY, META, RESTORED, RESTORING, STORES_DIR, holds_node, is_restoring,
            mark_restored, prepare,
        },
        error::OpenError,
        identity,
        lock::Lock,
        meta::{Meta, Row},
        node::{Node, NodeConfig},
        private,
        snapshot::{RestoreError, file::read_snapshot},
        store_name::{check_name, name_of_id},
    },
    protocol::{
        entry::VerifiedEntry,
        frontier::FrontierTip,
        snapshot::{BranchBegin, Checked, Manifest, SnapshotStore},
    },
    state::{BaseManifest, Incoming, IncomingError, State, check_rows},
    store::{ReadError, base_dir},
    vault::{KeySources, Seed},
};

/// The key of the node that is made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Identity {
    /// The key in the snapshot: the node goes on as the one that made it.
    #[default]
    InSnapshot,
    /// The key in this file, a copy of `identity.key` of the node that made the snapshot.
    File(PathBuf),
    /// A new key. The node has the data and belongs to no mesh until it joins one.
    New,
}

/// The options of [`Node::restore`].
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The snapshot.
    pub file: PathBuf,
    /// Key of the new node. Default: the one in the snapshot.
    pub identity: Identity,
}

/// A node that was made of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The new node.
    pub node: Author,
    /// The content of the snapshot.
    pub manifest: Manifest,
    /// True if the node takes no own writes before it has met another member, or before
    /// `Node::own_log_is_back`: what it wrote after the snapshot may be there.
    pub waits: bool,
    /// Names of the stores that have another state than the snapshot names. Their entries are all there:
    /// either state may be wrong.
    pub differing: Vec<String>,
}

impl Node {
    /// Makes a node of a snapshot, in a directory that has none. All of the file is checked, and the
    /// state that its entries make is compared with the state that the snapshot names.
    ///
    /// Durable on return. If it fails, the directory has no node, as before; if it is cut off, the node
    /// cannot be opened, and another restore begins anew. `progress` gets the number of bytes of the
    /// file that are read and of all its bytes.
    ///
    /// A node with the key of the one that made the snapshot could fork from what that one wrote since. So
    /// it takes no own writes until it has met another member, or until `Node::own_log_is_back`.
    ///
    /// # Errors
    /// `RestoreError`.
    pub async fn restore(
        config: NodeConfig,
        options: RestoreOptions,
        progress: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<Restored, RestoreError> {
        let (disk, data_dir) = (Arc::clone(&config.disk), config.data_dir.clone());
        prepare(disk.as_ref(), &data_dir, true)?;
        // Held to the end: two restores would write one directory.
        let lock = Arc::new(Lock::take_after_close(&data_dir).await?);
        if holds_node(&data_dir) && !is_restoring(&data_dir) {
            return Err(RestoreError::NotEmpty { data_dir });
        }
        begin(disk.as_ref(), &data_dir)?;
        let restored = restore(config, options, &lock, progress).await;
        let restored = restored.and_then(|done| {
            end(disk.as_ref(), &data_dir)?;
            Ok(done)
        });
        if restored.is_err() {
            // Its error does not hide the other one: the next restore removes the files.
            drop(remove_all(disk.as_ref(), &data_dir));
        }
        restored
    }
}

async fn restore(
    config: NodeConfig,
    options: RestoreOptions,
    lock: &Arc<Lock>,
    progress: impl FnMut(u64, u64) + Send + 'static,
) -> Result<Restored, RestoreError> {
    let (disk, data_dir) = (Arc::clone(&config.disk), config.data_dir.clone());
    let identity = options.identity;
    let mut stores = Stores::new(&config);
    let (file, held) = (options.file, Arc::clone(lock));
    let writing = tokio::task::spawn_blocking(move || {
        // Also if the caller goes away.
        let _held = held;
        let manifest = read_snapshot(&file, progress, |checked| stores.add(checked))?;
        stores.end_store()?;
        Ok::<_, RestoreError>((manifest, stores))
    });
    let (manifest, stores) = joined(writing.await)?;
    let sources = config.key.clone();
    let fetching = tokio::task::spawn_blocking(move || {
        let key = stores.key(identity, &manifest, &sources)?;
        Ok::<_, RestoreError>((key, manifest, stores))
    });
    let (key, manifest, stores) = joined(fetching.await)?;
    let node = key.node();
    identity::install(&data_dir, &key).map_err(|source| io_error(&data_dir, source))?;
    let is_same = node == manifest.node;
    if is_same {
        let marked = mark_restored(disk.as_ref(), &data_dir);
        marked.map_err(|source| io_error(&data_dir, source))?;
    }
    let meta = Meta::make(&disk, &data_dir, &stores.rows, &node)?;
    for (peer, note) in manifest.peers.iter().filter(|_| is_same) {
        meta.keep_peer(peer, note)?;
    }
    drop(meta);
    let open = Node::open_locked(config, Arc::clone(lock)).await?;
    let differing = differing(&open, &manifest).await;
    open.close().await?;
    Ok(Restored {
        node,
        manifest,
        waits: is_same,
        differing: differing?,
    })
}

// A panic is one of this program: it goes on in the caller.
fn joined<T>(ended: Result<T, JoinError>) -> T {
    ended.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
}

// Returns the names of the stores whose state is not the one that the manifest names.
async fn differing(node: &Node, manifest: &Manifest) -> Result<Vec<String>, RestoreError> {
    let mut differing = Vec::new();
    for contents in &manifest.stores {
        let Some(expected) = contents.state_root else {
            continue;
        };
        let root = match node.open_store(&contents.id) {
            Some(store) => {
                // Acts may take heads that the logs and the base have.
                store.until_swept(SWEPT_WAIT).await;
                Some(store.root(&[]).await?.root.0)
            }
            None => None,
        };
        if root != Some(expected) {
            differing.push(contents.name.clone());
        }
    }
    Ok(differing)
}

// The stores that are written.
struct Stores {
    disk: Arc<dyn Disk>,
    files: LogFiles,
    data_dir: PathBuf,
    rows: Vec<Row>,
    names: BTreeSet<String>,
    open: Option<OpenStore>,
    key: Option<Seed>,
}

struct OpenStore {
    logs: Logs,
    // The author of the branch that is written; true before its first entry.
    branch: Option<(Author, bool)>,
    id: StoreId,
    dir: PathBuf,
    // Bytes of entries that are not durable yet.
    staged: usize,
    // The state of removed entries, while it comes.
    base: Option<Incoming>,
}

impl Stores {
    fn new(config: &NodeConfig) -> Self {
        Self {
            disk: Arc::clone(&config.disk),
            files: config.files.clone(),
            data_dir: config.data_dir.clone(),
            rows: Vec::new(),
            names: BTreeSet::new(),
            open: None,
            key: None,
        }
    }

    fn add(&mut self, checked: Checked) -> Result<(), RestoreError> {
        match checked {
            Checked::Store(store) => {
                self.end_store()?;
                self.begin_store(&store)
            }
            Checked::Base(manifest) => {
                let store = self.open.as_mut();
                let store = store.expect("a state is of a store: it is checked");
                store.begin_base(&self.disk, &manifest)
            }
            Checked::Piece(piece, last) => {
                let store = self.open.as_mut();
                let store = store.expect("a piece is of a store: it is checked");
                store.keep(self.disk.as_ref(), &piece, last)
            }
            Checked::Branch(author, begin) => {
                let store = self.open.as_mut();
                let store = store.expect("a branch is of a store: it is checked");
                store.begin_branch(author, begin.as_ref())
            }
            Checked::Entries(entries) => {
                let store = self.open.as_mut();
                let store = store.expect("entries are of a store: it is checked");
                for (entry, arrived_ms) in entries {
                    store.add(&entry, arrived_ms)?;
                }
                Ok(())
            }
            Checked::Key(seed) => {
                self.key = Some(Seed::new(*seed));
                Ok(())
            }
            Checked::Manifest(_read_by_the_caller) => Ok(()),
        }
    }

    fn begin_store(&mut self, store: &SnapshotStore) -> Result<(), RestoreError> {
        let id = store.genesis.store();
        let dir = store_dir(&self.data_dir, &id);
        let made = self.disk.create_dir(&dir);
        made.map_err(|source| io_error(&dir, source))?;
        if let Some(under) = &store.private_under {
            private::mark(self.disk.as_ref(), &dir, under)?;
        }
        let (logs, _found) = Logs::open(&self.disk, &self.files, &dir.join("logs"), &[])?;
        self.open = Some(OpenStore {
            logs,
            branch: None,
            id,
            dir,
            staged: 0,
            base: None,
        });
        let name = self.name(store, &id);
        self.names.insert(name.clone());
        self.rows.push(Row {
            id,
            name,
            root: store.root,
            genesis: store.genesis,
        });
        Ok(())
    }

    // A name in a file that somebody else made may be taken, or none.
    fn name(&self, store: &SnapshotStore, id: &StoreId) -> String {
        if store.root {
            return "root".to_owned();
        }
        let is_free = |name: &String| {
            name != "root" && check_name(name).is_ok() && !self.names.contains(name)
        };
        let named = Some(store.name.clone()).filter(is_free);
        named
            .or_else(|| Some(name_of_id(id)).filter(is_free))
            .unwrap_or_else(|| format!("store-{id}"))
    }

    fn end_store(&mut self) -> Result<(), RestoreError> {
        if let Some(mut store) = self.open.take() {
            store.logs.write_begins()?;
            store.logs.sync()?;
            store.logs.seal()?;
            // An empty state is built from the logs. Without its file, that would be taken for a loss.
            let path = store.dir.join("state.db");
            let state = State::open(Arc::clone(&self.disk), &path, store.id);
            let (state, _new) = state.map_err(ReadError::from)?;
            state.close().map_err(ReadError::from)?;
        }
        Ok(())
    }

    fn key(
        &self,
        identity: Identity,
        manifest: &Manifest,
        sources: &KeySources,
    ) -> Result<Seed, RestoreError> {
        let (expected, key) = match identity {
            Identity::New => {
                let seed = Seed::random();
                return Ok(seed.map_err(|source| OpenError::key(&self.data_dir, source))?);
            }
            Identity::InSnapshot => (manifest.node, self.key.clone()),
            Identity::File(path) => (manifest.node, Some(identity::load_file(&path, sources)?)),
        };
        let key = key.ok_or(RestoreError::NoKey { node: expected })?;
        let found = key.node();
        if found != expected {
            return Err(RestoreError::OtherKey { expected, found });
        }
        Ok(key)
    }
}

impl OpenStore {
    fn begin_base(&mut self, disk: &Arc<dyn Disk>, manifest: &[u8]) -> Result<(), RestoreError> {
        let manifest = BaseManifest::of_peer(manifest).map_err(|_malformed| {
            let what = "its manifest is malformed";
            IncomingError::Unsound { what }
        })?;
        let dir = base_dir(&self.dir);
        let begun = Incoming::begin(disk, dir, None, manifest, &BTreeSet::new());
        self.base = Some(begun.map_err(IncomingError::from)?);
        self.next_part(disk.as_ref())
    }

    fn keep(&mut self, disk: &dyn Disk, piece: &[u8], last: bool) -> Result<(), RestoreError> {
        if let Some(base) = &mut self.base {
            base.keep(piece, last)?;
        }
        match last {
            true => self.next_part(disk),
            false => Ok(()),
        }
    }

    // Once all parts have come, the base is put in place.
    fn next_part(&mut self, disk: &dyn Disk) -> Result<(), RestoreError> {
        let Some(base) = &mut self.base else {
            return Ok(());
        };
        if base.next_part()?.is_some() {
            return Ok(());
        }
        let finished = base.finish(1, None, check_rows);
        let finished = finished.map_err(IncomingError::from)?;
        let placed = finished.commit(disk, &base_dir(&self.dir), None);
        placed.map_err(IncomingError::from)?;
        base.end().map_err(IncomingError::from)?;
        self.base = None;
        Ok(())
    }

    fn begin_branch(
        &mut self,
        author: Author,
        begin: Option<&BranchBegin>,
    ) -> Result<(), RestoreError> {
        if let Some(begin) = begin {
            self.logs.begin_late(author, begin)?;
        }
        self.branch = Some((author, begin.is_none()));
        Ok(())
    }

    fn add(&mut self, entry: &VerifiedEntry, arrived_ms: u64) -> Result<(), RestoreError> {
        let (author, is_first) = self.branch.expect("entries are of a branch: it is checked");
        if is_first {
            self.check_begins(entry)?;
            self.logs.begin(entry, arrived_ms)?;
            self.branch = Some((author, false));
        } else {
            // The branch that began last has the highest number.
            let last = self.logs.tips(&author).len() - 1;
            let last = u32::try_from(last).expect("branches are numbered by 32 bits");
            self.logs.append(last, entry, arrived_ms);
        }
        self.staged += entry.bytes();
        if self.staged >= STAGED_BYTES {
            self.logs.sync()?;
            self.staged = 0;
        }
        Ok(())
    }
}

impl OpenStore {
    // Checks that a branch begins with a new entry, after one that is here.
    fn check_begins(&mut self, entry: &VerifiedEntry) -> Result<(), RestoreError> {
        let (author, seq) = (entry.author(), entry.header.seq);
        self.logs.sync()?;
        self.staged = 0;
        let log = self.logs.reader();
        let has = |place| Ok::<_, RestoreError>(log.find(&author, &[place])?.0 == [true]);
        let follows = match entry.header.prev {
            None => true,
            Some(id) => has(FrontierTip {
                seq: seq.saturating_sub(1),
                id,
            })?,
        };
        if follows && !has(FrontierTip::of(entry))? {
            return Ok(());
        }
        Err(RestoreError::Branch { author, seq })
    }
}

// Marks the directory, and removes what a restore before left in it.
fn begin(disk: &dyn Disk, data_dir: &Path) -> Result<(), RestoreError> {
    let io = |source| io_error(data_dir, source);
    match disk.open(&data_dir.join(RESTORING), Open::New) {
        Ok(_made) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io(error)),
    }
    disk.sync_dir(data_dir).map_err(io)?;
    remove_files(data_dir).map_err(io)
}

fn end(disk: &dyn Disk, data_dir: &Path) -> Result<(), RestoreError> {
    let removed = disk.remove(&data_dir.join(RESTORING));
    let removed = removed.and_then(|()| disk.sync_dir(data_dir));
    removed.map_err(|source| io_error(data_dir, source))
}

fn remove_all(disk: &dyn Disk, data_dir: &Path) -> io::Result<()> {
    remove_files(data_dir)?;
    disk.sync_dir(data_dir)?;
    match disk.remove(&data_dir.join(RESTORING)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _removed => disk.sync_dir(data_dir),
    }
}

// Removes the files of a restore that has not ended.
fn remove_files(data_dir: &Path) -> io::Result<()> {
    let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match fs::remove_dir_all(data_dir.join(STORES_DIR)) {
        Err(error) if !is_missing(&error) => return Err(error),
        _removed => {}
    }
    for name in [META, IDENTITY, RESTORED] {
        match fs::remove_file(data_dir.join(name)) {
            Err(error) if !is_missing(&error) => return Err(error),
            _removed => {}
        }
    }
    Ok(())
}

fn store_dir(data_dir: &Path, id: &StoreId) -> PathBuf {
    data_dir.join(STORES_DIR).join(id.to_string())
}

fn io_error(path: &Path, source: io::Error) -> RestoreError {
    let path = path.to_owned();
    RestoreError::Io { path, source }
}

// After this time the roots are compared in any case.
const SWEPT_WAIT: Duration = Duration::from_secs(90);
// Bytes of entries that one fsync makes durable.
const STAGED_BYTES: usize = 8 << 20;
