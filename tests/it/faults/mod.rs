//! Promises 1 and 5: an acknowledged write survives power cuts and failed calls, and damage is found
//! before its data is served.

mod crash;
mod files;
mod flip;
mod forks;
mod format;
mod hole;
mod inject;
mod install;
#[cfg(feature = "cli")]
mod kill;
mod lie;
mod mend;
mod pieces;
mod prune;
mod recount;
mod segments;
mod setup;
mod stamps;
mod state_flip;
