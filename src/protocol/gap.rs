//! Gap: history that a reader has not got and cannot get any more.

/// The changes between the last one that a reader got and the state that it gets next are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Which history is missing and why, for people.
    pub reason: String,
    /// The greatest stamp of an entry that was removed from the logs, ms since 1970: the logs have all
    /// entries stamped later. `None`: nothing was removed, but a part of a log cannot be read.
    pub reach_ms: Option<u64>,
}
