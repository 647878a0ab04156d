//! A connection to a node, and the stores of it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::client::{
    place,
    rpc::{self, ConnectError, Rpc},
    store::Store,
    writes::Writes,
};

/// A connection to a node in another process. Cheap to clone; all clones share it.
///
/// Must be used inside a tokio runtime. The connection closes when the last clone, and everything that
/// was made from one, is dropped.
#[derive(Debug, Clone)]
pub struct Client {
    rpc: Rpc,
    // By name of the store, as it was asked for. Locked for a moment, never across await.
    writes: Arc<Mutex<BTreeMap<String, Weak<Writes>>>>,
}

impl Client {
    /// Connects to the node that listens on `socket`: `run/sock` in its data directory.
    ///
    /// # Errors
    /// Every variant of `ConnectError`. `NoSocket` and `Refused` mean that no node is running.
    pub async fn connect(socket: impl AsRef<Path>) -> Result<Self, ConnectError> {
        Ok(Self {
            rpc: rpc::connect(socket.as_ref()).await?,
            writes: Arc::default(),
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
        let mut known = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let writes = known.get(name).and_then(Weak::upgrade).unwrap_or_else(|| {
            known.retain(|_name, writes| writes.strong_count() > 0);
            let writes = Arc::new(Writes::new(self.rpc.clone(), name));
            known.insert(name.to_owned(), Arc::downgrade(&writes));
            writes
        });
        drop(known);
        Store::new(self.rpc.clone(), name, writes)
    }

    /// Returns the calls as they are in `proto/api.proto`, for those that have no method here: status,
    /// members, hooks and more. They share the connection.
    pub fn rpc(&self) -> Rpc {
        self.rpc.clone()
    }
}
