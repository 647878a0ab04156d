//! What a watch is asked for.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    id::Author,
    limits::HEARTBEAT,
    protocol::{
        change::{Change, Kind},
        cursor::Cursor,
        pattern::{self, Pattern},
    },
};

/// What to watch, and from where.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Keys that begin with one of these, or match one of `patterns`; neither: all keys.
    pub prefixes: Vec<Bytes>,
    /// A key must equal one of `prefixes`, not only begin with it.
    pub exact: bool,
    /// As `prefixes`.
    pub patterns: Vec<Pattern>,
    /// Where to begin. Default: `Initial`.
    pub start: Start,
    /// Only what was stamped up to then (1970), by the authors' clocks, inclusive; an expiry when it
    /// was due. The watch ends when the clock here has passed it and what lies before is told: what
    /// was stamped before and comes later still is not waited for. What is left out because it was
    /// stamped later counts as passed, as with every filter. `None`: it does not end.
    pub until_ms: Option<u64>,
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
            prefixes: Vec::new(),
            exact: false,
            patterns: Vec::new(),
            start: Start::Initial,
            until_ms: None,
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

impl WatchOptions {
    /// True when a watch is about `key`, whatever happens to it.
    pub fn selects(&self, key: &[u8]) -> bool {
        let is_about =
            |prefix: &Bytes| key.starts_with(prefix) && (!self.exact || key.len() == prefix.len());
        self.selects_all()
            || self.prefixes.iter().any(is_about)
            || self.patterns.iter().any(|pattern| pattern.matches(key))
    }

    /// True when `change` happened before the watch is to end.
    pub(super) fn in_time(&self, change: &Change) -> bool {
        let stamped_ms = match change.kind {
            Kind::Put | Kind::Delete => change.entry.hlc.wall_ms,
            Kind::Expire => change.expires_ms.unwrap_or(0),
            // It happens as it is told.
            Kind::Retract => 0,
        };
        self.until_ms.is_none_or(|until_ms| stamped_ms <= until_ms)
    }

    /// Returns the fewest prefixes that cover what it is about, in order: no key begins with two.
    pub(super) fn scopes(&self) -> Vec<Bytes> {
        if self.selects_all() {
            return vec![Bytes::new()];
        }
        let heads = self.patterns.iter().map(Pattern::head);
        pattern::cover(self.prefixes.iter().chain(heads).cloned())
    }

    fn selects_all(&self) -> bool {
        self.prefixes.is_empty() && self.patterns.is_empty() && !self.exact
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
