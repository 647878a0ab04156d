//! The logs of a store: signed entries, in files of their own for each branch of each author.
//!
//! The logs are the truth; state and bus follow from them. Entries are appended in groups. A group
//! costs one write and one fdatasync for each file it touches (several for a file that gets more
//! than `UNSYNCED_BYTES_MAX`), and readers see it only after that.
//!
//! `disk.rs` says what the disk is trusted for. A file grows ahead of its records, filled with
//! zeros, so that an fdatasync need not write the file's size.
//!
//! `recover` opens the logs; the rule in `torn_tail` decides which bytes it cuts. Three things can
//! be wrong with a log. A *torn tail* was never acknowledged, and is cut. *Damage* (`LogDamage`) is
//! a run of durable bytes that cannot be read; it makes a `Hole`, which entries from a peer can
//! fill. A `LostTail` is a durable end that is missing from its file. Nothing is wrong with a log of
//! which `begin.rs` says that it begins later.

mod ancestry;
mod aside;
mod begin;
pub mod branch;
mod chains;
mod chunk;
mod error;
mod files;
mod fork_proof;
pub mod frame;
mod hole;
mod install;
mod lineage;
mod logs;
mod lost_tail;
mod mark;
pub(crate) mod merge;
mod prune;
mod reader;
pub mod record;
mod recover;
mod segments;
mod survey;
mod switch;
mod sync_times;
mod torn_tail;
mod void;
mod writer;

pub use ancestry::Stretch;
pub use begin::{Begin, Begins, Pruned};
pub use branch::{Branch, BranchWalk, IndexPoint, Shape};
pub(crate) use chains::NotedChains;
pub use chunk::{Ahead, AtWork, SharedWalk};
pub use error::{CannotInstall, CannotPrune, LogDamage, LogError};
pub use files::LogFiles;
pub(crate) use fork_proof::may_be_spent;
pub use hole::Hole;
pub use install::{InstallCause, InstallPlan};
pub use logs::Logs;
pub use lost_tail::LostTail;
pub use mark::Mark;
pub use prune::PrunePlan;
pub use reader::LogReader;
pub use recover::Recovered;
pub(crate) use segments::set_aside;
pub(crate) use survey::survey;
pub use switch::Pruning;
pub use sync_times::{SYNC_BOUNDS, SyncTimes};
