//! The record of a run, which is its line in the hook's log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The record of a run. New fields may be added; existing fields do not change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRecord {
    /// Time at which the run began, in ms since 1970.
    pub at_ms: u64,
    /// Run id, equal for all attempts.
    pub run: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Number of changes: 1, or more in mode batch.
    pub changes: usize,
    /// Kind of the first change: `put`, `delete`, `expire`, `retract` or `gap`.
    pub kind: String,
    /// Key of the first change, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Key of the first change as base64, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// Entry of the first change, in hex digits.
    pub entry: String,
    /// End of the run.
    pub outcome: Outcome,
    /// Reason for the outcome, for people; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub what: String,
    /// Duration of the run in ms.
    pub took_ms: u64,
    /// Wait before the next attempt in ms. `None`: there is no next attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
    /// Beginning of the run's stdout.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stdout: String,
    /// Bytes of the whole stdout.
    pub stdout_bytes: u64,
    /// Beginning of the run's stderr.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// Bytes of the whole stderr.
    pub stderr_bytes: u64,
    /// Entry that holds the run's answer, in hex digits. `None`: the run wrote nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrote: Option<String>,
    /// Number of puts and deletes in that entry. `None`: this attempt wrote nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<usize>,
}

/// The end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The run succeeded.
    Done,
    /// The run failed, and another attempt follows. In a dry rehearsal, the run failed.
    Failed,
    /// The run failed, and no further attempt follows.
    Dead,
    /// A dry rehearsal ended without a failure: nothing was written.
    WouldRun,
    /// The log line has no outcome, or an outcome that this version does not know.
    #[default]
    #[serde(rename = "", other)]
    Unknown,
}

impl Outcome {
    /// Returns the name that the log, the API and the command line show. `Unknown` has an empty
    /// name.
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
