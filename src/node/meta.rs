//! `meta.db`: the stores of the node and its root store; also notes about peers and a count of
//! starts.

use std::path::{Path, PathBuf};

use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, backends::FileBackend,
};

use crate::{
    id::{Author, StoreId},
    node::{data_dir::open_private, error::OpenError, identity::random},
    protocol::membership::genesis::Genesis,
    state::row::{seal, unseal},
};

pub(super) const FILE: &str = "meta.db";
const STORES: &str = "stores-v2";
const STORES_TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(STORES);
#[cfg(feature = "net")]
const PEERS: &str = "peers-v1";
#[cfg(feature = "net")]
const PEERS_TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(PEERS);
#[cfg(feature = "net")]
const STARTS_TABLE: TableDefinition<'_, &str, u64> = TableDefinition::new("starts-v1");
const SCHEMA_TABLE: TableDefinition<'_, &str, u32> = TableDefinition::new("schema");
const SCHEMA_VERSION: u32 = 2;

// Key and row, as they are in the file: the row with its checksum.
type Sealed = (Vec<u8>, Vec<u8>);

/// The row of a store.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: StoreId,
    pub(super) name: String,
    pub(super) root: bool,
    /// The id of the store is its hash.
    pub(super) genesis: Genesis,
}

#[derive(Debug)]
pub(super) struct Meta {
    db: Database,
    path: PathBuf,
}

impl Meta {
    /// Opens the file. If it is missing and `create` is true, makes it with a root store whose
    /// creator is `author`.
    ///
    /// # Errors
    /// `NoDataDir`, `Io`, `Unusable`: damaged, of another schema, or missing although there are
    /// stores.
    pub(super) fn open(data_dir: &Path, author: &Author, create: bool) -> Result<Self, OpenError> {
        let path = data_dir.join(FILE);
        let io = |source| OpenError::Io {
            path: path.clone(),
            source,
        };
        let new = !path.exists();
        if new && data_dir.join("stores").exists() {
            return Err(OpenError::Unusable {
                path,
                what: "it is missing, but there are stores".to_owned(),
            });
        }
        if new && !create {
            return Err(OpenError::NoDataDir {
                data_dir: data_dir.to_owned(),
            });
        }
        let file = open_private(&path).map_err(io)?;
        let unusable = |error: redb::Error| OpenError::Unusable {
            path: path.clone(),
            what: error.to_string(),
        };
        let db = redb::Builder::new()
            .set_cache_size(1 << 20)
            .create_with_backend(FileBackend::new(file).map_err(|error| unusable(error.into()))?)
            .map_err(|error| unusable(error.into()))?;
        let meta = Self {
            db,
            path: path.clone(),
        };
        let found = meta.schema().map_err(unusable)?;
        match found {
            Some(SCHEMA_VERSION) => {}
            Some(version) => {
                return Err(OpenError::Unusable {
                    path,
                    what: format!("it has schema {version}, this version reads {SCHEMA_VERSION}"),
                });
            }
            // The file is new, or its maker died before the first commit.
            None => {
                let genesis = Genesis {
                    creator: *author,
                    nonce: random()?,
                };
                let id = genesis.store();
                meta.add(&Row {
                    id,
                    name: "root".to_owned(),
                    root: true,
                    genesis,
                })?;
                std::fs::File::open(data_dir)
                    .and_then(|dir| dir.sync_all())
                    .map_err(io)?;
            }
        }
        Ok(meta)
    }

    /// Returns the rows of all stores, by id.
    ///
    /// # Errors
    /// `Unusable`: the file is damaged.
    pub(super) fn stores(&self) -> Result<Vec<Row>, OpenError> {
        let rows = self
            .read()
            .map_err(|error| self.unusable(&error.to_string()))?;
        let decoded = rows
            .iter()
            .map(|(key, row)| decode(key, row))
            .collect::<Option<_>>();
        decoded.ok_or_else(|| self.unusable("a row fails its check"))
    }

    /// Adds a store. Durable on return.
    pub(super) fn add(&self, row: &Row) -> Result<(), OpenError> {
        self.change(std::slice::from_ref(row), None)
    }

    /// Writes all `rows` and removes the row of `removed`, or does nothing. Durable on return.
    pub(super) fn change(&self, rows: &[Row], removed: Option<&StoreId>) -> Result<(), OpenError> {
        self.write(rows, removed)
            .map_err(|error| self.failed(error))
    }

    fn failed(&self, error: redb::Error) -> OpenError {
        match error {
            redb::Error::Io(source) => OpenError::Io {
                path: self.path.clone(),
                source,
            },
            other => self.unusable(&other.to_string()),
        }
    }

    fn schema(&self) -> Result<Option<u32>, redb::Error> {
        let read = self.db.begin_read()?;
        match read.open_table(SCHEMA_TABLE) {
            Ok(table) => Ok(table.get("version")?.map(|version| version.value())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self) -> Result<Vec<Sealed>, redb::Error> {
        let read = self.db.begin_read()?;
        let table = read.open_table(STORES_TABLE)?;
        let mut rows = Vec::new();
        for row in table.iter()? {
            let (key, row) = row?;
            rows.push((key.value().to_vec(), row.value().to_vec()));
        }
        Ok(rows)
    }

    fn write(&self, rows: &[Row], removed: Option<&StoreId>) -> Result<(), redb::Error> {
        let write = self.db.begin_write()?;
        write
            .open_table(SCHEMA_TABLE)?
            .insert("version", SCHEMA_VERSION)?;
        {
            let mut stores = write.open_table(STORES_TABLE)?;
            for row in rows {
                let mut body = vec![u8::from(row.root)];
                body.extend_from_slice(&row.genesis.creator.0);
                body.extend_from_slice(&row.genesis.nonce);
                body.extend_from_slice(row.name.as_bytes());
                let sealed = seal(STORES, &row.id.0, body);
                stores.insert(row.id.0.as_slice(), sealed.as_slice())?;
            }
            if let Some(removed) = removed {
                stores.remove(removed.0.as_slice())?;
            }
        }
        write.commit()?;
        Ok(())
    }

    fn unusable(&self, what: &str) -> OpenError {
        OpenError::Unusable {
            path: self.path.clone(),
            what: what.to_owned(),
        }
    }
}

/// Notes for the net.
#[cfg(feature = "net")]
impl Meta {
    /// Returns the note about each peer. A note that fails its checksum is left out: it is only a
    /// hint.
    pub(super) fn peers(&self) -> Result<Vec<(Author, Vec<u8>)>, OpenError> {
        let rows = self.read_peers().map_err(|error| self.failed(error))?;
        let known = |(node, row): (Vec<u8>, Vec<u8>)| {
            let body = unseal(PEERS, &node, &row)?.to_vec();
            Some((Author::from_slice(&node)?, body))
        };
        Ok(rows.into_iter().filter_map(known).collect())
    }

    /// Writes the note about a peer, in place of the last one. Durable on return.
    pub(super) fn keep_peer(&self, node: &Author, body: Vec<u8>) -> Result<(), OpenError> {
        let written = || {
            let write = self.db.begin_write()?;
            let sealed = seal(PEERS, &node.0, body);
            write
                .open_table(PEERS_TABLE)?
                .insert(node.0.as_slice(), sealed.as_slice())?;
            write.commit()?;
            Ok(())
        };
        written().map_err(|error| self.failed(error))
    }

    /// Returns a number that is greater than at any earlier start, even if the clock was set back:
    /// `now_ms` or the last number plus one. Durable on return.
    pub(super) fn incarnation(&self, now_ms: u64) -> Result<u64, OpenError> {
        let written = || {
            let write = self.db.begin_write()?;
            let incarnation = {
                let mut starts = write.open_table(STARTS_TABLE)?;
                let last = starts.get("incarnation")?.map_or(0, |last| last.value());
                let next = now_ms.max(last.saturating_add(1));
                starts.insert("incarnation", next)?;
                next
            };
            write.commit()?;
            Ok(incarnation)
        };
        written().map_err(|error| self.failed(error))
    }

    fn read_peers(&self) -> Result<Vec<Sealed>, redb::Error> {
        let read = self.db.begin_read()?;
        let table = match read.open_table(PEERS_TABLE) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table?,
        };
        let mut rows = Vec::new();
        for row in table.iter()? {
            let (key, row) = row?;
            rows.push((key.value().to_vec(), row.value().to_vec()));
        }
        Ok(rows)
    }
}

fn decode(key: &[u8], row: &[u8]) -> Option<Row> {
    let (root, rest) = unseal(STORES, key, row)?.split_first()?;
    let (creator, rest) = rest.split_first_chunk::<32>()?;
    let (nonce, name) = rest.split_first_chunk::<32>()?;
    Some(Row {
        id: StoreId::from_slice(key)?,
        name: String::from_utf8(name.to_vec()).ok()?,
        root: *root == 1,
        genesis: Genesis {
            creator: Author(*creator),
            nonce: *nonce,
        },
    })
}
