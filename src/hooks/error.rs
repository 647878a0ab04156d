//! The error of the calls on hooks.

use std::io;

use crate::{
    hooks::{file::HooksFileError, hook::HookError},
    node::StoreError,
    store::{WatchError, consumers::ConsumerError},
};

/// A failed call on hooks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HooksError {
    /// The definition of the hook is not valid.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// No hook has this name.
    #[error("there is no hook {name:?}")]
    Unknown {
        /// Name that was asked for, shortened to 80 characters.
        name: String,
    },
    /// Another hook has this name already.
    #[error("a hook {name:?} already exists, with a different definition")]
    Exists {
        /// Name of both hooks.
        name: String,
    },
    /// `hooks.toml` cannot be read or changed.
    #[error(transparent)]
    File(#[from] HooksFileError),
    /// The store of the hook is unknown or cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The consumer of the hook failed.
    #[error(transparent)]
    Consumer(#[from] ConsumerError),
    /// This machine cannot post: `ca_file` or TLS failed.
    #[error("cannot post: {what}")]
    Post {
        /// Reason, for people.
        what: String,
    },
    /// History cannot be read for a rehearsal.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// Part of the history that a rehearsal replays is not in the log.
    #[error("history cannot be replayed for hook {name:?}: {reason}")]
    HistoryGone {
        /// Name of the hook.
        name: String,
        /// Missing part of the history, for people.
        reason: String,
    },
    /// The log of the hook cannot be read.
    #[error("cannot read the log of hook {name:?}: {source}")]
    Log {
        /// Name of the hook.
        name: String,
        /// Error of the system.
        source: io::Error,
    },
}

/// Returns the text of an error, followed by the texts of its causes.
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
