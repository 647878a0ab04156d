//! A connection to a node, and the stores of it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::client::{
    place,
    rpc::{self, ConnectError, Rpc},
    store::{Shared, Store},
};

/// A connection to a node in another process. Cheap to clone; all clones share it.
///
/// Must be used inside a tokio runtime. The connection closes when the last clone, and everything that
/// was made from one, is dropped.
#[derive(Debug, Clone)]
pub struct Client {
    rpc: Rpc,
    // By name of the store, as it was asked for. Locked for a moment, never across await.
    stores: Arc<Mutex<BTreeMap<String, Weak<Shared>>>>,
}

impl Client {
    /// Connects to the node that listens on `socket`: `run/sock` in its data directory.
    ///
    /// # Errors
    /// Every variant of `ConnectError`. `NoSocket` and `Refused` mean that no node is running.
    pub async fn connect(socket: impl AsRef<Path>) -> Result<Self, ConnectError> {
        Ok(Self {
            rpc: rpc::connect(socket.as_ref()).await?,
            stores: Arc::default(),
        })
    }

    /// Connects to the node that the command line would use: that of `$LATTICE_DATA`, else that of the
    /// platform's data directory.
    ///
    /// # Errors
    /// Like `connect`; `NoHome`.
    pub async fn connect_default() -> Result<Self, ConnectError> {
        let data_dir = place::data_dir().ok_or(ConnectError::NoHome)?;
        Self::connect(place::socket(&data_dir)).await
    }

    /// Returns the data store: the one that is meant where none is named.
    pub fn data(&self) -> Store {
        self.store("")
    }

    /// Returns the store `name`: a name or a UUID, or `root` for the root store. It need not exist:
    /// then its calls fail with `NotFound`.
    pub fn store(&self, name: &str) -> Store {
        let mut known = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = known.get(name).and_then(Weak::upgrade) {
            return Store(shared);
        }
        known.retain(|_name, shared| shared.strong_count() > 0);
        let shared = Arc::new(Shared::new(self.rpc.clone(), name));
        known.insert(name.to_owned(), Arc::downgrade(&shared));
        Store(shared)
    }

    /// Returns the calls as they are in `proto/api.proto`, for those that have no method here: status,
    /// members, hooks and more. They share the connection.
    pub fn rpc(&self) -> Rpc {
        self.rpc.clone()
    }
}
