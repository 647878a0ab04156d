//! The status of a hook.

use std::fmt;

use crate::{
    hooks::{engine::Health, hook::Hook, record::RunRecord},
    store::consumers::ConsumerStatus,
};

/// The status of one hook.
#[derive(Debug, Clone)]
pub struct HookStatus {
    /// Name of the hook.
    pub name: String,
    /// Definition. `None`: `hooks.toml` no longer has the hook, and its consumer still exists.
    pub hook: Option<Hook>,
    /// Whether the hook runs.
    pub state: HookState,
    /// Reason for the states waiting, stopped and trouble; otherwise empty.
    pub reason: String,
    /// Status of the hook's consumer, with its position. `None`: the hook has no consumer yet.
    pub consumer: Option<ConsumerStatus>,
    /// Counts since the node started. `None`: the hook does not run in this process.
    pub health: Option<Health>,
    /// The hook's last run. `None`: the hook's log has no run.
    pub last: Option<RunRecord>,
}

/// The status of all hooks of a node.
#[derive(Debug, Clone)]
pub struct HookList {
    /// Hooks in the order of their names.
    pub hooks: Vec<HookStatus>,
    /// Mistake in the current `hooks.toml`, if there is one. The hooks of the last valid file
    /// continue to run.
    pub broken: Option<String>,
}

/// Whether a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookState {
    /// The hook runs on matching changes.
    Running,
    /// The hook gets no changes until it is resumed.
    Paused,
    /// The node is missing history that it had before; peers have to send it.
    Waiting,
    /// The hook's consumer has stopped and needs a reset.
    Stopped,
    /// The hook cannot start or cannot take changes.
    Trouble,
    /// No node runs the hook, or `hooks.toml` does not have it.
    Off,
}

impl HookState {
    /// Returns the name that the API and the command line show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
            Self::Trouble => "trouble",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for HookState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
