//! Shared by all tests: random choices that a seed repeats, keys, stores, a disk in memory,
//! oracles.

pub mod disk;
pub mod failing_disk;
pub mod files;
pub mod model;
pub mod mutator;
pub mod pruned;
pub mod random;
pub mod rows;
#[cfg(feature = "net")]
pub mod state_file;
pub mod store;
pub mod sync;
pub mod threads;
pub mod watch;
pub mod watch_oracle;
pub mod writer;
