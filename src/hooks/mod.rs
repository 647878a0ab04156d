//! Hooks: commands that run, and URLs that are posted to, when a key changes on this node.
//!
//! `hooks.toml` (`file`) -> hooks (`hook`) -> an engine each (`runner`), which takes changes from
//! the durable consumer `hook.NAME` -> a run (`command`) with the change on stdin (`event`) -> a line
//! in the hook's log (`journal`).
//!
//! What is promised: every change that matches is run at least once, until a run succeeds or the
//! change is a dead letter; those of one key one at a time, in order. A hook that fails or hangs
//! stops no watch, no node and no other hook. Nothing here replicates: what runs on a machine is
//! decided on that machine.

mod action;
mod answer;
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
pub use answer::{LineError, LineOp, parse_line};
pub use change_line::{ChangeLine, Named, RunId, variables};
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
