//! Making a snapshot.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    id::StoreId,
    limits::BASE_PIECE_BYTES,
    node::{
        error::OpenError,
        meta,
        node::{Inner, Node, StoreInfo},
        private,
        snapshot::CreateError,
    },
    protocol::snapshot::{
        Contents, Manifest, SnapshotStore, SnapshotWriter,
        block::{ENTRIES_BYTES, Kind},
        check::{base_body, branch_body, entries_body, piece_body},
    },
    store::{Moment, OfferedBase, ReadError},
};

/// The content of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnapshotOptions {
    /// The store that is copied, besides the root store, which is always in it: it says who may write.
    /// Default: all stores.
    pub store: Option<StoreId>,
    /// Adds the node's secret key: whoever has the file can write as this node then. Default: false.
    pub with_key: bool,
}

/// The bytes of a snapshot, as they are made.
#[derive(Debug)]
pub struct SnapshotStream(mpsc::Receiver<Result<Bytes, CreateError>>);

impl SnapshotStream {
    /// Returns the next bytes of the file, at most 1 MiB; `None` at its end. A file without its end
    /// is no snapshot. Cancel-safe.
    ///
    /// # Errors
    /// `CreateError`; nothing comes after it.
    pub async fn next(&mut self) -> Option<Result<Bytes, CreateError>> {
        self.0.recv().await
    }
}

impl Node {
    /// Makes a snapshot: all entries of the stores, as they were signed, and the state of those that were
    /// removed. Writes go on meanwhile; each store is copied as it is at one moment during this call, the root store last, so that it has the
    /// members who wrote in the others.
    ///
    /// Not in it: consumers and hooks with their positions, and the files of the node's owner.
    ///
    /// # Errors
    /// `CreateError`.
    pub async fn snapshot(&self, options: SnapshotOptions) -> Result<SnapshotStream, CreateError> {
        let created_ms = self.clock().now_ms();
        let name = self.own_info().await?.name;
        let mut stores = Vec::new();
        for _again in 0..MOMENTS_MAX {
            // A grant or a removal between two moments: the states would be by other members.
            let members = self.members();
            stores = self.sources(options).await?;
            if Arc::ptr_eq(&members, &self.members()) {
                break;
            }
        }
        let manifest = Manifest {
            created_ms,
            node: self.id(),
            name,
            has_key: options.with_key,
            stores: Vec::new(),
            hash: [0; 32],
            peers: self.0.meta.peers()?,
        };
        let (parts, made) = mpsc::channel(PARTS_AHEAD);
        let key = Arc::clone(&self.0.key);
        tokio::task::spawn_blocking(move || {
            let mut making = Making { manifest, parts };
            if let Err(Some(error)) = making.make(&key, stores) {
                // The reader may have gone away.
                drop(making.parts.blocking_send(Err(error)));
            }
        });
        Ok(SnapshotStream(made))
    }

    // The stores that are copied, each at its moment, the root store last.
    async fn sources(&self, options: SnapshotOptions) -> Result<Vec<Source>, CreateError> {
        let rows = self.0.meta.stores()?;
        let mut infos = self.stores();
        infos.retain(|info| info.root || options.store.is_none_or(|id| info.id == id));
        // The root store is the first one.
        infos.reverse();
        let mut stores = Vec::new();
        for info in infos {
            let row = rows.iter().find(|row| row.id == info.id);
            let (Some(row), Some(store)) = (row, self.open_store(&info.id)) else {
                continue;
            };
            let about = about(&self.0, &info, row)?;
            let read = |source| CreateError::Read {
                name: info.name.clone(),
                source,
            };
            // Else its root is that of a state from which acts still take heads.
            store.until_swept(SWEPT_WAIT).await;
            let moment = store.moment().await.map_err(read)?;
            let root = moment.state_root().await.map_err(read)?;
            let contents = Contents {
                id: info.id,
                name: info.name.clone(),
                root: info.root,
                private: info.private,
                entries: 0,
                keys: moment.keys(),
                state_root: root.map(|root| root.0),
                removed_entries: moment.base().map_or(0, |base| base.entries()),
            };
            stores.push(Source {
                about,
                contents,
                moment,
            });
        }
        Ok(stores)
    }
}

// A store that is copied.
struct Source {
    about: SnapshotStore,
    contents: Contents,
    moment: Moment,
}

struct Making {
    manifest: Manifest,
    parts: mpsc::Sender<Result<Bytes, CreateError>>,
}

impl Making {
    // The error is `None` when nobody reads any more.
    fn make(
        &mut self,
        key: &ed25519_dalek::SigningKey,
        stores: Vec<Source>,
    ) -> Result<(), Option<CreateError>> {
        let (mut writer, head) = SnapshotWriter::begin();
        self.send(head)?;
        if self.manifest.has_key {
            self.send(writer.block(Kind::Key, &key.to_bytes()))?;
        }
        for store in stores {
            self.send(writer.block(Kind::Store, &store.about.encode()))?;
            let mut contents = store.contents;
            let read = |source: ReadError| {
                let name = contents.name.clone();
                Some(CreateError::Read { name, source })
            };
            if let Some(base) = store.moment.base() {
                self.send_base(&mut writer, &base, read)?;
            }
            for mut branch in store.moment.into_branches() {
                let body = branch_body(&branch.author, branch.begin.as_ref());
                self.send(writer.block(Kind::Branch, &body))?;
                loop {
                    let entries = branch.next_entries(ENTRIES_BYTES).map_err(read)?;
                    if entries.is_empty() {
                        break;
                    }
                    contents.entries += entries.len() as u64;
                    self.send(writer.block(Kind::Entries, &entries_body(entries)))?;
                }
            }
            self.manifest.stores.push(contents);
        }
        self.manifest.hash = writer.hash();
        let end = writer.finish(&self.manifest.sign(key));
        self.send(end)
    }

    fn send_base(
        &self,
        writer: &mut SnapshotWriter,
        base: &OfferedBase,
        read: impl Fn(ReadError) -> Option<CreateError>,
    ) -> Result<(), Option<CreateError>> {
        self.send(writer.block(Kind::Base, &base_body(base.manifest())))?;
        for name in base.parts() {
            let part = base.part(&name, 0).map_err(|error| read(error.into()))?;
            let mut part = part.expect("a base has the parts that it names");
            let mut next = || {
                let piece = part.next_piece(BASE_PIECE_BYTES);
                piece.map_err(|error| read(error.into()))
            };
            let mut piece = next()?;
            while let Some(bytes) = piece {
                piece = next()?;
                let body = piece_body(bytes, piece.is_none());
                self.send(writer.block(Kind::Piece, &body))?;
            }
        }
        Ok(())
    }

    fn send(&self, mut part: Bytes) -> Result<(), Option<CreateError>> {
        while !part.is_empty() {
            let now = part.split_to(part.len().min(SENT_BYTES_MAX));
            self.parts.blocking_send(Ok(now)).map_err(|_gone| None)?;
        }
        Ok(())
    }
}

fn about(node: &Inner, info: &StoreInfo, row: &meta::Row) -> Result<SnapshotStore, OpenError> {
    let private_under = match info.private {
        true => private::root_of(
            node.config.disk.as_ref(),
            &node.opener().dir(&info.id),
            &info.id,
        )?,
        false => None,
    };
    Ok(SnapshotStore {
        genesis: row.genesis,
        name: info.name.clone(),
        root: info.root,
        private_under,
    })
}

// Looks at the stores until the members stay the same meanwhile.
const MOMENTS_MAX: usize = 3;
// Blocks that are made before the reader takes them.
const PARTS_AHEAD: usize = 4;
// Longest wait for heads that acts take. The root is left out if they are still there.
const SWEPT_WAIT: Duration = Duration::from_secs(60);
// Bytes that the reader gets at a time.
const SENT_BYTES_MAX: usize = 1 << 20;
