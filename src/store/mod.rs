//! A store: the handle in front of its single writer.
//!
//! Writes go through a bounded queue to one thread, which makes whole groups of them durable with
//! one fsync; reads take the newest view of the state and do not wait for it. What is applied goes
//! onto the bus and from there to watchers.

mod base_transfer;
mod base_wish;
mod config;
pub mod consumers;
mod error;
mod finality;
mod item;
mod json;
mod maintenance;
mod offered_base;
mod outbox;
mod proof;
mod read;
mod replication;
mod shared;
mod state_root;
mod store;
mod taken;
mod watch;
mod write;
mod write_pause;
mod writer;

pub use crate::calls::{
    Condition, Item, List, Start, WatchEvent, WatchMode, WatchOptions, Write, Written,
};
pub use base_transfer::{TakeBaseError, TakenBase};
pub use base_wish::StateChoice;
pub use config::{Authority, StoreConfig};
pub use error::{OpenError, ReadError};
pub use finality::{FoldedBase, OpenBranches};
pub use json::{EventAs, JsonError, WatchAs};
pub use offered_base::OfferedBase;
pub use outbox::Fresh;
pub use proof::ProveError;
pub use read::{
    compare::StateTree,
    get::{HeadItem, LogEntry},
    history::{History, HistoryEntry},
    moment::{Moment, MomentBranch},
    outgoing::Outgoing,
    past::{Difference, Past, PastError},
    prove::{ProvenKey, ProvenPrefix},
    scan::{Listed, Scan},
    verify::{Damage, DamagePlace, VerifyReport},
};
use shared::Shared;
pub(crate) use shared::base_dir;
pub use state_root::StateRoot;
pub use store::Store;
pub use watch::{event::WatchError, watch::Watch};
pub use write::{StampedBy, WriteError};
pub use write_pause::WritePause;
pub use writer::{
    far_ahead::TakenBack,
    forks::KnownFork,
    install::InstallError,
    intake::{IngestError, Ingested, RefusedEntry},
    prune::PruneError,
    repair::{ClosedFork, LostEntries, Repaired},
    status::{HeldEntry, StoreStatus},
};
