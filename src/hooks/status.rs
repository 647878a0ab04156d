//! How a hook is.

use std::fmt;

use crate::{
    hooks::{engine::Health, hook::Hook, record::RunRecord},
    store::consumers::ConsumerStatus,
};

/// How a hook is.
#[derive(Debug, Clone)]
pub struct HookStatus {
    /// Its name.
    pub name: String,
    /// What it does; `None`: it is not in `hooks.toml` any more, and its consumer is still there.
    pub hook: Option<Hook>,
    /// Whether it runs.
    pub state: HookState,
    /// Of waiting, stopped and trouble.
    pub reason: String,
    /// Its place in history; `None`: none yet.
    pub consumer: Option<ConsumerStatus>,
    /// Since the node started; `None`: it does not run here.
    pub health: Option<Health>,
    /// Its last run.
    pub last: Option<RunRecord>,
}

/// All hooks of a node.
#[derive(Debug, Clone)]
pub struct HookList {
    /// By name.
    pub hooks: Vec<HookStatus>,
    /// Why `hooks.toml` as it is now is not followed; what it said before still holds.
    pub broken: Option<String>,
}

/// Whether a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookState {
    /// Changes that match make it run.
    Running,
    /// It is given no changes until it is resumed.
    Paused,
    /// Entries that the node had are missing, and peers have to send them.
    Waiting,
    /// Its consumer has stopped.
    Stopped,
    /// It takes no changes; the reason says why.
    Trouble,
    /// No node serves, or `hooks.toml` does not have it.
    Off,
}

impl HookState {
    /// Returns the name, as the API and the command line show it.
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
