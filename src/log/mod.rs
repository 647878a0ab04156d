//! The logs of a store: one file of signed entries for each branch of each author.
//!
//! The log is the truth: state and bus follow from it. Entries are appended in groups, one write
//! and one fdatasync for each file (several for what is more than `UNSYNCED_BYTES_MAX`); only then
//! are they visible to readers.
//!
//! What the disk is trusted for: see `disk.rs`. A file grows ahead of its records in zeros, so
//! that an fdatasync need not write the file's size.

pub mod branch;
mod chunk;
mod error;
pub mod frame;
mod hole;
mod logs;
mod lost_tail;
mod mark;
pub(crate) mod merge;
mod reader;
pub mod record;
mod recover;
mod sync_times;
mod writer;

pub use branch::{Branch, BranchWalk, IndexPoint, Shape};
pub use chunk::{Ahead, AtWork, SharedWalk};
pub use error::{LogDamage, LogError};
pub use hole::Hole;
pub use logs::Logs;
pub use lost_tail::LostTail;
pub use mark::Mark;
pub use reader::LogReader;
pub use recover::Recovered;
pub use sync_times::{SYNC_BOUNDS, SyncTimes};
