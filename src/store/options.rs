//! What a watch is asked for.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    id::Author,
    limits::HEARTBEAT,
    protocol::{change::Kind, cursor::Cursor},
};

/// What to watch, and from where.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Keys that begin with it; empty: all.
    pub prefix: Bytes,
    /// The key must equal `prefix`.
    pub exact: bool,
    /// Where to begin. Default: `Initial`.
    pub start: Start,
    /// Default: `Every`.
    pub delivery: Delivery,
    /// Only these kinds; `None`: all.
    pub kinds: Option<Vec<Kind>>,
    /// Only changes that leave the key with several heads.
    pub conflicts_only: bool,
    /// Only what this author wrote.
    pub author: Option<Author>,
    /// Leave out the values.
    pub keys_only: bool,
    /// After so long without anything else there is a `Progress`. Default: 15 s.
    pub heartbeat: Duration,
    /// A cursor that is ahead of this node is no error: the watch waits until what it names has
    /// come. `Watch::lacks` says meanwhile what is missing. Default: false.
    pub wait: bool,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            prefix: Bytes::new(),
            exact: false,
            start: Start::Initial,
            delivery: Delivery::Every,
            kinds: None,
            conflicts_only: false,
            author: None,
            keys_only: false,
            heartbeat: HEARTBEAT,
            wait: false,
        }
    }
}

/// Where a watch begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With what happens from now on.
    Now,
    /// With the live keys as they are, then what happens.
    Initial,
    /// Behind a position that a watch of this store reached, here or on another node.
    After(Cursor),
    /// With entries stamped since `ms` (1970), by their authors' clocks.
    SinceAuthored {
        /// Inclusive.
        ms: u64,
    },
    /// With entries that arrived in this node's logs since `ms` (1970).
    SinceArrived {
        /// Inclusive.
        ms: u64,
    },
}

/// How much of what happened is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// Every change.
    #[default]
    Every,
    /// A change that is superseded by the time it would be delivered is left out.
    Latest,
}

/// What reading needs to know of the options.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    pub(super) prefix: Bytes,
    pub(super) exact: bool,
    pub(super) keys_only: bool,
}

impl Scope {
    pub(super) fn matches_key(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix) && (!self.exact || key.len() == self.prefix.len())
    }
}
