//! Why hooks do not do what they were asked.

use std::io;

use crate::{
    hooks::{file::HooksFileError, hook::HookError},
    node::StoreError,
    store::{WatchError, consumers::ConsumerError},
};

/// Why hooks do not do what they were asked.
#[derive(Debug, thiserror::Error)]
pub enum HooksError {
    /// Not a hook.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// There is none of this name.
    #[error("there is no hook {name:?}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// There is another one of this name.
    #[error("there is a hook {name:?} already, and it does something else")]
    Exists {
        /// The name.
        name: String,
    },
    /// `hooks.toml` cannot be followed or changed.
    #[error(transparent)]
    File(#[from] HooksFileError),
    /// The store of the hook.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The consumer of the hook.
    #[error(transparent)]
    Consumer(#[from] ConsumerError),
    /// Nothing can be posted from this machine.
    #[error("cannot post: {what}")]
    Post {
        /// Why.
        what: String,
    },
    /// History cannot be read.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// Part of the history that was to be replayed is not in the log.
    #[error("history cannot be replayed for hook {name:?}: {reason}")]
    HistoryGone {
        /// The hook.
        name: String,
        /// What is missing.
        reason: String,
    },
    /// The hook's log cannot be read.
    #[error("cannot read the log of hook {name:?}: {source}")]
    Log {
        /// The hook.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// Returns what an error says, and what its causes do.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
