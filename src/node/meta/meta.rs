//! The open `meta.db`.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable as _, TableDefinition, TableError, WriteTransaction};

use crate::{
    disk::Disk,
    id::{Author, StoreId},
    limits::META_CACHE_BYTES,
    node::{
        data_dir::{META, store_ids},
        error::OpenError,
        heard_acks::{KeptAck, UnwrittenAcks},
        identity::random,
        meta::{
            rebuild::{self, Rebuilt},
            row::Row,
        },
        store_name::{DATA, former_name},
    },
    protocol::membership::genesis::Genesis,
    state::{
        CheckedFile, StateError,
        row::{seal, unseal},
    },
};

// Table names carry the version of their rows.
const STORES: &str = "stores-v2";
const STORES_TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(STORES);
const NODE: &str = "node-v1";
const NODE_TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(NODE);
const AUTHOR: &str = "author";
const PEERS: &str = "peers-v1";
const PEERS_TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(PEERS);
const ACKS: &str = "acks-v1";
const ACKS_TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(ACKS);
#[cfg(feature = "net")]
const STARTS_TABLE: TableDefinition<'_, &str, u64> = TableDefinition::new("starts-v1");
const SCHEMA_TABLE: TableDefinition<'_, &str, u32> = TableDefinition::new("schema");
// 3: a log may have several files, which an older version would take for one that was cut.
const SCHEMA_VERSION: u32 = 3;
const SCHEMA_BEFORE: u32 = 2;

#[derive(Debug)]
pub(in crate::node) struct Meta {
    file: CheckedFile,
    path: PathBuf,
}

/// The rows about the node itself.
#[derive(Debug)]
struct Own {
    // Exactly one of them is the root store.
    stores: Vec<Row>,
    // `None` in a file of an earlier build.
    author: Option<Author>,
}

/// The file could not be used.
enum Refused {
    // It is missing or not as it was written.
    Damaged(String),
    Failed(OpenError),
}

impl Meta {
    /// Opens the file. If the directory holds no data yet and `create` is true, makes it with a new
    /// root store whose creator is `author`, and its data store. A file that is missing beside stores,
    /// or damaged, is built again from the logs.
    ///
    /// Returns a line for each thing that was mended, or that the owner should know, too.
    ///
    /// # Errors
    /// `NoDataDir`, `Io`; `Unusable`: another schema, or damaged without a store in the directory;
    /// `RootUnknown`: damaged, and the logs do not show which store is the root store.
    pub(in crate::node) fn open(
        disk: &Arc<dyn Disk>,
        data_dir: &Path,
        author: &Author,
        create: bool,
    ) -> Result<(Self, Vec<String>), OpenError> {
        let path = data_dir.join(META);
        let stores = !store_ids(disk.as_ref(), data_dir)?.is_empty();
        let missing = path.symlink_metadata().is_err();
        if missing && !stores {
            if !create {
                return Err(OpenError::NoDataDir {
                    data_dir: data_dir.to_owned(),
                });
            }
            return Ok((Self::new_node(disk, path, author)?, Vec::new()));
        }
        let damage = if missing {
            "it is missing".to_owned()
        } else {
            match Self::existing(disk, &path) {
                Ok((meta, own)) => {
                    meta.raise_schema()?;
                    let note = meta.note_author(own.author, author)?;
                    return Ok((meta, note.into_iter().collect()));
                }
                Err(Refused::Damaged(what)) => what,
                Err(Refused::Failed(error)) => return Err(error),
            }
        };
        if !stores {
            return Err(OpenError::Unusable {
                path,
                what: format!("{damage}, and there are no stores to build it again from"),
            });
        }
        let Rebuilt { rows, line } = rebuild::rebuild(disk, data_dir, &path, &damage, author)?;
        tracing::warn!("{line}");
        Ok((Self::made(disk, path, &rows, author)?, vec![line]))
    }

    /// Returns the author that used the file last; `None` when it cannot be read or does not say.
    pub(in crate::node) fn author_in(disk: &Arc<dyn Disk>, data_dir: &Path) -> Option<Author> {
        let (_meta, own) = Self::existing(disk, &data_dir.join(META)).ok()?;
        own.author
    }

    /// Makes the file of a node that has these stores. Durable on return.
    ///
    /// # Errors
    /// `Io`, `Unusable`.
    pub(in crate::node) fn make(
        disk: &Arc<dyn Disk>,
        data_dir: &Path,
        rows: &[Row],
        author: &Author,
    ) -> Result<Self, OpenError> {
        Self::made(disk, data_dir.join(META), rows, author)
    }

    fn new_node(disk: &Arc<dyn Disk>, path: PathBuf, author: &Author) -> Result<Self, OpenError> {
        let genesis = Genesis {
            creator: *author,
            nonce: random()?,
        };
        let root = Row {
            id: genesis.store(),
            name: "root".to_owned(),
            root: true,
            genesis,
        };
        let data = Row::of_data(&root.genesis);
        Self::made(disk, path, &[root, data], author)
    }

    // Makes the file with these rows. Durable on return.
    fn made(
        disk: &Arc<dyn Disk>,
        path: PathBuf,
        rows: &[Row],
        author: &Author,
    ) -> Result<Self, OpenError> {
        let fill = |write: &WriteTransaction| {
            write_stores(write, rows, &[])?;
            write_author(write, author)
        };
        let made = CheckedFile::create(Arc::clone(disk), &path, META_CACHE_BYTES, fill);
        let file = made.map_err(|error| failed(&path, error))?;
        Ok(Self { file, path })
    }

    fn existing(disk: &Arc<dyn Disk>, path: &Path) -> Result<(Self, Own), Refused> {
        let refused = |error| match error {
            StateError::Damaged { what } => Refused::Damaged(what),
            error @ StateError::Io { .. } => Refused::Failed(failed(path, error)),
        };
        let opened = CheckedFile::open(Arc::clone(disk), path, META_CACHE_BYTES);
        let file = opened.map_err(refused)?;
        let schema = file.read(read_schema).map_err(refused)?;
        match schema {
            Some(SCHEMA_VERSION | SCHEMA_BEFORE) => {}
            Some(version) => {
                return Err(Refused::Failed(OpenError::Unusable {
                    path: path.to_owned(),
                    what: format!("it has schema {version}, this version reads {SCHEMA_VERSION}"),
                }));
            }
            None => return Err(Refused::Damaged("it has no schema version".to_owned())),
        }
        let own = file.read(read_own).map_err(refused)?;
        let path = path.to_owned();
        Ok((Self { file, path }, own))
    }

    // An older build refuses the file from now on.
    fn raise_schema(&self) -> Result<(), OpenError> {
        let schema = self.file.read(read_schema);
        if schema.map_err(|error| self.failed(error))? == Some(SCHEMA_BEFORE) {
            let raised = self.file.write(write_schema);
            raised.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    // Keeps the author that uses the file from now on. Returns a line if it was another before.
    fn note_author(
        &self,
        before: Option<Author>,
        author: &Author,
    ) -> Result<Option<String>, OpenError> {
        if before == Some(*author) {
            return Ok(None);
        }
        let written = self.file.write(|write| write_author(write, author));
        written.map_err(|error| self.failed(error))?;
        Ok(before.map(|before| {
            let line = format!(
                "this directory was used by node {before} before; its identity is now {author}"
            );
            tracing::warn!("{line}");
            line
        }))
    }

    /// Returns the rows of all stores, by id.
    ///
    /// # Errors
    /// `Unusable`: the file is damaged.
    pub(in crate::node) fn stores(&self) -> Result<Vec<Row>, OpenError> {
        let own = self.file.read(read_own);
        Ok(own.map_err(|error| self.failed(error))?.stores)
    }

    /// Like `stores`, after it has added the data store if it is missing, as in a directory of an
    /// earlier build. Another store of its name is renamed then. Durable on return.
    ///
    /// # Errors
    /// `Unusable`, `Io`.
    pub(in crate::node) fn stores_with_data(&self) -> Result<Vec<Row>, OpenError> {
        let rows = self.stores()?;
        let root = rows.iter().find(|row| row.root);
        let Some(data) = root.map(|root| Row::of_data(&root.genesis)) else {
            return Ok(rows);
        };
        if rows.contains(&data) {
            return Ok(rows);
        }
        let is_free = |name: &str| rows.iter().all(|row| row.name != name);
        let others = rows.iter().filter(|row| row.name == DATA);
        let renamed = others.map(|row| Row {
            name: former_name(DATA, &row.id, is_free),
            ..row.clone()
        });
        let changed: Vec<_> = renamed.chain([data.clone()]).collect();
        self.change(&changed, &[])?;
        self.stores()
    }

    /// Adds a store. Durable on return.
    pub(in crate::node) fn add(&self, row: &Row) -> Result<(), OpenError> {
        self.change(std::slice::from_ref(row), &[])
    }

    /// Writes all `rows` and removes the rows of `removed`, or does nothing. Durable on return.
    pub(in crate::node) fn change(
        &self,
        rows: &[Row],
        removed: &[StoreId],
    ) -> Result<(), OpenError> {
        let written = self.file.write(|write| write_stores(write, rows, removed));
        written.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: StateError) -> OpenError {
        failed(&self.path, error)
    }
}

/// Notes for the net.
impl Meta {
    /// Returns the note about each peer. A note that fails its checksum is left out: it is only a
    /// hint.
    pub(in crate::node) fn peers(&self) -> Result<Vec<(Author, Bytes)>, OpenError> {
        let rows = self.file.read(|read| {
            let table = match read.open_table(PEERS_TABLE) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                table => table?,
            };
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (node, row) = row?;
                let body = unseal(PEERS, node.value(), row.value());
                let known = Author::from_slice(node.value()).zip(body);
                rows.extend(known.map(|(node, body)| (node, Bytes::copy_from_slice(body))));
            }
            Ok(rows)
        });
        rows.map_err(|error| self.failed(error))
    }

    /// Writes the note about a peer, in place of the last one. Durable on return.
    pub(in crate::node) fn keep_peer(&self, node: &Author, body: &[u8]) -> Result<(), OpenError> {
        let sealed = seal(PEERS, &node.0, body.to_vec());
        let written = self.file.write(|write| {
            let mut table = write.open_table(PEERS_TABLE)?;
            table.insert(node.0.as_slice(), sealed.as_slice())?;
            Ok(())
        });
        written.map_err(|error| self.failed(error))
    }

    /// Returns the acks that were kept, by store and node, without damaged ones.
    ///
    /// # Errors
    /// `Io`, `Unusable`.
    pub(in crate::node) fn acks(&self) -> Result<Vec<KeptAck>, OpenError> {
        let rows = self.file.read(|read| {
            let table = match read.open_table(ACKS_TABLE) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                table => table?,
            };
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (key, row) = row?;
                let body = unseal(ACKS, key.value(), row.value());
                let known = ack_key(key.value()).zip(body);
                rows.extend(known.map(|(key, body)| (key, Bytes::copy_from_slice(body))));
            }
            Ok(rows)
        });
        rows.map_err(|error| self.failed(error))
    }

    /// Writes acks in place of the last ones, and removes those that are `None`. Durable on return.
    ///
    /// # Errors
    /// `Io`, `Unusable`.
    pub(in crate::node) fn keep_acks(&self, acks: &UnwrittenAcks) -> Result<(), OpenError> {
        let written = self.file.write(|write| {
            let mut table = write.open_table(ACKS_TABLE)?;
            for ((store, node), ack) in acks {
                let key = [store.0.as_slice(), &node.0].concat();
                match ack {
                    Some(ack) => {
                        let sealed = seal(ACKS, &key, ack.to_vec());
                        table.insert(key.as_slice(), sealed.as_slice())?;
                    }
                    None => drop(table.remove(key.as_slice())?),
                }
            }
            Ok(())
        });
        written.map_err(|error| self.failed(error))
    }

    /// Returns a number that is greater than at any earlier start, even if the clock was set back:
    /// `now_ms` or the last number plus one. Durable on return.
    #[cfg(feature = "net")]
    pub(in crate::node) fn incarnation(&self, now_ms: u64) -> Result<u64, OpenError> {
        let written = self.file.write(|write| {
            let mut starts = write.open_table(STARTS_TABLE)?;
            let last = starts.get("incarnation")?.map_or(0, |last| last.value());
            let next = now_ms.max(last.saturating_add(1));
            starts.insert("incarnation", next)?;
            Ok(next)
        });
        written.map_err(|error| self.failed(error))
    }
}

fn failed(path: &Path, error: StateError) -> OpenError {
    let path = path.to_owned();
    match error {
        StateError::Damaged { what } => OpenError::Unusable { path, what },
        StateError::Io { source } => OpenError::Io {
            path,
            source: io::Error::new(source.kind(), source),
        },
    }
}

fn ack_key(key: &[u8]) -> Option<(StoreId, Author)> {
    let (store, node) = key.split_at_checked(16)?;
    Some((StoreId::from_slice(store)?, Author::from_slice(node)?))
}

fn damaged(what: &str) -> StateError {
    StateError::Damaged {
        what: what.to_owned(),
    }
}

fn read_schema(read: &ReadTransaction) -> Result<Option<u32>, StateError> {
    match read.open_table(SCHEMA_TABLE) {
        Ok(table) => Ok(table.get("version")?.map(|version| version.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read_own(read: &ReadTransaction) -> Result<Own, StateError> {
    let mut stores = Vec::new();
    for row in read.open_table(STORES_TABLE)?.iter()? {
        let (id, row) = row?;
        let body = unseal(STORES, id.value(), row.value());
        let row = body.and_then(|body| Row::decode(id.value(), body));
        stores.push(row.ok_or_else(|| damaged("a row fails its check"))?);
    }
    match stores.iter().filter(|row| row.root).count() {
        0 => return Err(damaged("it names no root store")),
        1 => {}
        _more => return Err(damaged("it names several root stores")),
    }
    let author = match read.open_table(NODE_TABLE) {
        Err(TableError::TableDoesNotExist(_)) => None,
        table => {
            let row = table?.get(AUTHOR)?;
            let body = row
                .as_ref()
                .map(|row| unseal(NODE, AUTHOR.as_bytes(), row.value()));
            let author = body.map(|body| body.and_then(Author::from_slice));
            author
                .map(|author| author.ok_or_else(|| damaged("a row fails its check")))
                .transpose()?
        }
    };
    Ok(Own { stores, author })
}

fn write_schema(write: &WriteTransaction) -> Result<(), StateError> {
    let mut schema = write.open_table(SCHEMA_TABLE)?;
    schema.insert("version", SCHEMA_VERSION)?;
    Ok(())
}

fn write_stores(
    write: &WriteTransaction,
    rows: &[Row],
    removed: &[StoreId],
) -> Result<(), StateError> {
    write_schema(write)?;
    let mut stores = write.open_table(STORES_TABLE)?;
    for row in rows {
        let sealed = seal(STORES, &row.id.0, row.encode());
        stores.insert(row.id.0.as_slice(), sealed.as_slice())?;
    }
    for removed in removed {
        stores.remove(removed.0.as_slice())?;
    }
    Ok(())
}

fn write_author(write: &WriteTransaction, author: &Author) -> Result<(), StateError> {
    let sealed = seal(NODE, AUTHOR.as_bytes(), author.0.to_vec());
    write
        .open_table(NODE_TABLE)?
        .insert(AUTHOR, sealed.as_slice())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn directory_of_an_earlier_build_gets_a_data_store() {
        let (dir, author) = (tempfile::tempdir().unwrap(), Author([7; 32]));
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let row = |nonce: u8, name: &str| {
            let genesis = Genesis {
                creator: author,
                nonce: [nonce; 32],
            };
            Row {
                id: genesis.store(),
                name: name.to_owned(),
                root: name == "root",
                genesis,
            }
        };
        let (root, other) = (row(1, "root"), row(2, "data"));
        let before = [root.clone(), other.clone()];
        let meta = Meta::make(&disk, dir.path(), &before, &author).unwrap();
        for _time in 0..2 {
            let rows = meta.stores_with_data().unwrap();
            assert_eq!(rows, meta.stores().unwrap());
            assert_eq!(rows.len(), 3);
            assert!(rows.contains(&root) && rows.contains(&Row::of_data(&root.genesis)));
            let other = rows.iter().find(|row| row.id == other.id).unwrap();
            assert_eq!(other.name, format!("data-{}", &other.id.to_string()[..8]));
        }
    }

    #[test]
    fn earlier_schema_is_raised_and_a_later_one_is_refused() {
        let (dir, author) = (tempfile::tempdir().unwrap(), Author([7; 32]));
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let open = |create| Meta::open(&disk, dir.path(), &author, create);
        let set = |meta: &Meta, version: u32| {
            let write = |write: &WriteTransaction| -> Result<(), StateError> {
                write.open_table(SCHEMA_TABLE)?.insert("version", version)?;
                Ok(())
            };
            meta.file.write(write).unwrap();
        };
        let schema = |meta: &Meta| meta.file.read(read_schema).unwrap();
        let (meta, _) = open(true).unwrap();
        let rows = meta.stores().unwrap();
        assert_eq!(schema(&meta), Some(SCHEMA_VERSION));
        set(&meta, SCHEMA_BEFORE);
        drop(meta);
        // A look at the file changes nothing.
        assert_eq!(Meta::author_in(&disk, dir.path()), Some(author));
        let path = dir.path().join(META);
        let Ok((meta, _)) = Meta::existing(&disk, &path) else {
            panic!("it is read")
        };
        assert_eq!(schema(&meta), Some(SCHEMA_BEFORE));
        drop(meta);
        let (meta, _) = open(false).unwrap();
        assert_eq!(schema(&meta), Some(SCHEMA_VERSION));
        assert_eq!(meta.stores().unwrap(), rows);
        set(&meta, SCHEMA_VERSION + 1);
        drop(meta);
        let Err(OpenError::Unusable { what, .. }) = open(false) else {
            panic!("a later version wrote it")
        };
        assert!(what.starts_with("it has schema 4"), "{what}");
    }
}
