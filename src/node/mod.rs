//! A node: an identity, a data directory of its own, and the stores in it.
//!
//! ```text
//! identity.key   the signing key, or the place where it is kept, 0600; data without it is an error
//! lock           taken before anything else; holds the process id
//! meta.db        stores, root store, schema version; built again from the logs if it is damaged
//! stores/{uuid}/ logs/ and state.db of each store; in a private one a file `private`
//! run/sock       the local API, while it is served
//! config.toml    settings of the node's owner, read at each start; may be missing
//! ```

mod config;
mod data_dir;
mod error;
mod heard_acks;
mod history;
mod history_summary;
mod identity;
mod info;
mod introduction;
mod invites;
mod join;
mod key;
mod lock;
mod members;
mod meta;
#[cfg(feature = "net")]
mod net_support;
mod node;
mod private;
mod snapshot;
mod store_name;
mod stores;
mod unopened;

#[cfg(feature = "hooks")]
pub(crate) use config::place;
pub use config::{ConfigError, FileConfig, Relay, RelayError, SocketMode, SocketModeError};
pub use error::{NameError, OpenError, StoreError};
pub use history::{Final, HistoryError, HistoryPolicy, Outlook, Pruned, Tended, Tending};
pub use history_summary::HistorySummary;
pub use identity::NewIdentity;
pub use info::{NodeInfo, check_node_name};
pub use invites::Redeemed;
pub use join::{FormerRoot, OwnData};
pub use key::{KeyMove, KeyMoveError, KeyMoved};
pub use members::MeshError;
pub use node::{Node, NodeConfig, StoreInfo};
pub use snapshot::{
    CreateError, FileError, Identity, RestoreError, RestoreOptions, Restored, SnapshotOptions,
    SnapshotStream, read_manifest, read_snapshot,
};
pub use unopened::Unopened;
