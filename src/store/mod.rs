//! A store: the handle in front of its single writer.
//!
//! Writes go through a bounded queue to one thread, which makes whole groups of them durable with
//! one fsync; reads take the newest view of the state and do not wait for it. What is applied goes
//! onto the bus and from there to watchers.

pub mod consumers;
mod item;
mod read;
mod shared;
mod store;
mod watch;
mod writer;

pub use item::Item;
pub use read::{
    get::{HeadItem, LogEntry, ReadError},
    history::{History, HistoryEntry},
    outgoing::Outgoing,
    past::{Difference, Past, PastError},
    scan::{List, Scan},
    verify::{Damage, DamagePlace, VerifyReport},
};
use shared::Shared;
pub use store::{Store, StoreConfig};
pub use watch::{
    event::{WatchError, WatchEvent},
    options::{Start, WatchMode, WatchOptions},
    watch::Watch,
};
pub use writer::{
    forks::KnownFork,
    grounds::ProveError,
    intake::{IngestError, Ingested, RefusedEntry},
    membership::Authority,
    open::OpenError,
    outbox::Fresh,
    repair::{ClosedFork, LostEntries, Repaired},
    status::{HeldEntry, StoreStatus},
    write::{Condition, Write, WriteError, Written},
    write_pause::WriteHold,
};
