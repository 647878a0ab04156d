//! What a run did, as its line in the hook's log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A run, as its line in the log has it. New fields may come, none changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRecord {
    /// When it began, ms since 1970.
    pub at_ms: u64,
    /// Its id, the same for all attempts.
    pub run: String,
    /// 1 the first time.
    pub attempt: u32,
    /// Changes of the run: 1, but for batches.
    pub changes: usize,
    /// Of the first change: `put`, `delete`, `expire`, `retract`.
    pub kind: String,
    /// The key of the first change, where it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The same, where it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The entry of the first change.
    pub entry: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What happened, in words; empty when there is nothing to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub what: String,
    /// How long it took.
    pub took_ms: u64,
    /// Failed: how long the next attempt waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
    /// The beginning of its stdout.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stdout: String,
    /// Bytes of stdout in all.
    pub stdout_bytes: u64,
    /// The beginning of its stderr.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// Bytes of stderr in all.
    pub stderr_bytes: u64,
    /// The entry that holds what it wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrote: Option<String>,
    /// Puts and deletes in that entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<usize>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It succeeded, and its changes are acknowledged.
    Done,
    /// It failed, and is tried again.
    Failed,
    /// It failed, and its changes are dead letters.
    Dead,
    /// A rehearsal did not run it.
    WouldRun,
    /// The line has no outcome, or one that this version does not know.
    #[default]
    #[serde(rename = "", other)]
    Unknown,
}

impl Outcome {
    /// Returns the name, as the log, the API and the command line show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Dead => "dead",
            Self::WouldRun => "would_run",
            Self::Unknown => "",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_is_read_as_it_is_shown() {
        let all = [
            Outcome::Done,
            Outcome::Failed,
            Outcome::Dead,
            Outcome::WouldRun,
            Outcome::Unknown,
        ];
        for outcome in all {
            let json = serde_json::to_string(&outcome).unwrap();
            assert_eq!(json, format!("\"{outcome}\""));
            assert_eq!(serde_json::from_str::<Outcome>(&json).unwrap(), outcome);
        }
        let newer: Outcome = serde_json::from_str("\"postponed\"").unwrap();
        assert_eq!(newer, Outcome::Unknown);
        let record: RunRecord = serde_json::from_str("{\"attempt\":2}").unwrap();
        assert_eq!((record.attempt, record.outcome), (2, Outcome::Unknown));
    }
}
