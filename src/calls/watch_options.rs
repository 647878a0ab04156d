//! Options of a watch: which changes, and from where.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    id::Author,
    limits::HEARTBEAT,
    protocol::{change::Kind, cursor::Cursor, pattern::Pattern},
};

/// Which changes a watch delivers, and where it begins.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Selects keys that begin with one of these. With neither `prefixes` nor `patterns`, all keys
    /// are selected.
    pub prefixes: Vec<Bytes>,
    /// Selects only keys that equal one of `prefixes`. Default: false.
    pub exact: bool,
    /// Selects, in addition to `prefixes`, keys that match one of these.
    pub patterns: Vec<Pattern>,
    /// The position at which the watch begins. Default: `Initial`.
    pub start: Start,
    /// Delivers only entries stamped up to this time (ms since 1970, inclusive) by their authors'
    /// clocks, and expiries due by then. `None`: the watch does not end.
    ///
    /// The watch ends when this node's clock has passed this time and everything before this time
    /// was delivered. It does not wait for entries that are stamped earlier and have not arrived.
    /// As with every filter, the position covers the changes that are left out.
    pub until_ms: Option<u64>,
    /// Every change, or only current changes. Default: `Every`.
    pub mode: WatchMode,
    /// Delivers only changes of these kinds; `None`: of all kinds.
    pub kinds: Option<Vec<Kind>>,
    /// Delivers only changes that leave the key with several heads.
    pub conflicts_only: bool,
    /// Delivers only changes by entries of this author; `None`: of all authors.
    pub author: Option<Author>,
    /// Delivers changes without values.
    pub keys_only: bool,
    /// Time without an item after which a `Progress` is delivered. Default: 15 s.
    pub heartbeat: Duration,
    /// If the cursor is ahead of this node, waits until the entries that it names have arrived,
    /// instead of ending with `Behind`. `Watch::lacks` returns the missing entries meanwhile.
    /// Default: false.
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
            mode: WatchMode::Every,
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
    /// True when the watch selects `key`, whatever the change.
    #[inline]
    pub fn selects(&self, key: &[u8]) -> bool {
        let begins_with =
            |prefix: &Bytes| key.starts_with(prefix) && (!self.exact || key.len() == prefix.len());
        self.selects_all()
            || self.prefixes.iter().any(begins_with)
            || self.patterns.iter().any(|pattern| pattern.matches(key))
    }

    /// True when the watch selects all keys.
    pub(crate) fn selects_all(&self) -> bool {
        self.prefixes.is_empty() && self.patterns.is_empty() && !self.exact
    }
}

/// The position at which a watch begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With the changes published from now on.
    Now,
    /// With the live keys as they are, and then the changes after that state.
    Initial,
    /// After a position that a watch of this store has reached, on this node or another.
    After(Cursor),
    /// With entries stamped since a time, by their authors' clocks.
    SinceAuthored {
        /// Inclusive, ms since 1970.
        ms: u64,
    },
    /// With entries that arrived in this node's logs since a time.
    SinceArrived {
        /// Inclusive, ms since 1970.
        ms: u64,
    },
}

/// How many of the changes of a key a watch delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WatchMode {
    /// Every change.
    #[default]
    Every,
    /// Only changes whose entry is still a head of its key when it would be delivered.
    Latest,
}
