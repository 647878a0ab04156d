//! Hooks: commands that run, and URLs that are posted to, when a key changes on this node.
//!
//! ```text
//! hooks.toml (file) -> Hook (hook) -> one engine each, started by the supervisor
//! consumer hook.NAME -> engine -> run (run) -> command or post, change lines on stdin or as body
//!                                           -> record (record) -> line in the hook's log (journal)
//! ```
//!
//! # Promises
//! Every change that matches runs at least once, until a run succeeds or the change is a dead
//! letter. Changes of one key run one at a time and in order. A hook that fails or hangs stops no
//! watch, no node and no other hook. Hooks are not replicated: each machine decides what runs on
//! it.

mod action;
mod answer;
mod backoff;
mod change_line;
mod command;
mod engine;
mod error;
mod file;
mod hook;
mod journal;
mod post;
mod rate;
mod record;
mod rehearsal;
mod run;
mod secret;
mod status;
mod supervisor;

pub use action::Action;
pub use answer::{Expiry, LineError, LineOp, parse_line};
pub use change_line::{ChangeLine, GapLine, Named, RunId, variables};
pub use command::{Captured, Command, End, Job, Ran};
pub use engine::Health;
pub use error::HooksError;
pub use file::{HookTable, HooksFileError};
pub use hook::{Hook, HookError, HookKind, Mode, Span};
pub use journal::LogPlace;
pub use post::Post;
pub use record::{Outcome, RunRecord};
pub use rehearsal::{Rehearsal, Rehearsed};
pub use secret::Secret;
pub use status::{HookList, HookState, HookStatus};
pub use supervisor::Hooks;
