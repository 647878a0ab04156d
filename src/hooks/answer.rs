//! The answer of a hook that writes: puts and deletes, one JSON object per line of its stdout.
//!
//! ```text
//! {"key": "/index/a", "value": "1", "ttl_ms": 60000}
//! {"key_base64": "/w==", "value_base64": "AA=="}
//! {"key": "/index/b", "delete": true}
//! ```
//! Other fields are ignored, so the output of `list --json` can be used as an answer.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;

use crate::{limits::OPS_MAX, protocol::entry::Op};

/// A put or a delete, as a line describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineOp {
    /// Key to write.
    pub key: Vec<u8>,
    /// Value to put. `None`: the key is deleted.
    pub value: Option<Vec<u8>>,
    /// Milliseconds until the value expires. `None`: it never expires.
    pub ttl_ms: Option<u64>,
}

/// A line that is neither a put nor a delete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The line is not a JSON object, has a field of a wrong type, or exceeds a limit.
    #[error("{0}")]
    Json(String),
    /// The line has no key, or two keys.
    #[error("expected one of key and key_base64")]
    Key,
    /// The line has no value, two values, or a value and `delete`.
    #[error("expected one of value, value_base64 and \"delete\": true")]
    Value,
    /// A base64 field does not hold base64.
    #[error("{field} is not base64")]
    Base64 {
        /// Name of the field.
        field: &'static str,
    },
}

#[derive(Deserialize)]
struct Line {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    #[serde(default)]
    delete: bool,
    ttl_ms: Option<u64>,
}

/// Parses a line. Limits of keys and values are not checked.
///
/// # Errors
/// Every variant of `LineError`.
pub fn parse_line(line: &[u8]) -> Result<LineOp, LineError> {
    let line: Line =
        serde_json::from_slice(line).map_err(|error| LineError::Json(error.to_string()))?;
    let key = text_or_base64(line.key, line.key_base64, "key_base64", LineError::Key)?;
    let value = text_or_base64(
        line.value,
        line.value_base64,
        "value_base64",
        LineError::Value,
    )?;
    if value.is_some() == line.delete {
        return Err(LineError::Value);
    }
    Ok(LineOp {
        key: key.ok_or(LineError::Key)?,
        value,
        ttl_ms: line.ttl_ms,
    })
}

/// Parses the whole answer of a hook. A TTL counts from `now_ms`.
///
/// # Errors
/// The first malformed line, with its number. One malformed line refuses the whole answer.
pub(super) fn parse(answer: &[u8], now_ms: u64) -> Result<Vec<Op>, String> {
    let mut ops = Vec::new();
    for (number, line) in (1..).zip(answer.split(|byte| *byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let op = parse_line(line)
            .map(|line| op(line, now_ms))
            .and_then(|op| {
                let checked = op
                    .check()
                    .map_err(|error| LineError::Json(error.to_string()));
                checked.map(|()| op)
            });
        let op = op.map_err(|error| {
            format!(
                "line {number} of the output is not a put or a delete: {error}; nothing was written"
            )
        })?;
        ops.push(op);
        if ops.len() > OPS_MAX {
            return Err(format!(
                "the output exceeds {OPS_MAX} lines, the limit of an entry; nothing was written"
            ));
        }
    }
    Ok(ops)
}

fn op(line: LineOp, now_ms: u64) -> Op {
    let key = line.key.into();
    match line.value {
        None => Op::Delete { key },
        Some(value) => Op::Put {
            key,
            value: value.into(),
            expires_ms: line.ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms)),
        },
    }
}

// Returns `Ok(None)` if both fields are missing.
fn text_or_base64(
    text: Option<String>,
    base64: Option<String>,
    field: &'static str,
    both: LineError,
) -> Result<Option<Vec<u8>>, LineError> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(both),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(base64)) => {
            let bytes = BASE64_STANDARD.decode(base64);
            bytes
                .map(Some)
                .map_err(|_not_base64| LineError::Base64 { field })
        }
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_with_a_bad_line_is_refused() {
        let answer = b"{\"key\":\"/a\",\"value\":\"1\",\"ttl_ms\":5}\n\n\
            {\"key_base64\":\"/w==\",\"value_base64\":\"AA==\"}\n{\"delete\":true,\"key\":\"/b\"}";
        let ops = parse(answer, 100).unwrap();
        assert_eq!(
            ops,
            [
                Op::Put {
                    key: "/a".into(),
                    value: "1".into(),
                    expires_ms: Some(105)
                },
                Op::Put {
                    key: vec![0xff].into(),
                    value: vec![0].into(),
                    expires_ms: None
                },
                Op::Delete { key: "/b".into() },
            ]
        );
        assert_eq!(parse(b" \n\n", 0).unwrap(), []);
        for (wrong, why) in [
            ("done!", "line 2"),
            ("[]", "line 2"),
            ("{\"key\":\"/a\"}", "expected one of value"),
            ("{\"value\":\"1\"}", "expected one of key"),
            ("{\"key\":\"\",\"value\":\"1\"}", "line 2"),
            (
                "{\"key\":\"/a\",\"value\":\"1\",\"delete\":true}",
                "expected one of value",
            ),
            (
                "{\"key\":\"/a\",\"key_base64\":\"AA==\",\"value\":\"1\"}",
                "expected one of key",
            ),
            (
                "{\"key_base64\":\"?\",\"value\":\"1\"}",
                "key_base64 is not base64",
            ),
        ] {
            let answer = format!("{{\"key\":\"/a\",\"value\":\"1\"}}\n{wrong}\n");
            let error = parse(answer.as_bytes(), 0).unwrap_err();
            assert!(
                error.starts_with("line 2 of the output") && error.contains(why),
                "{error}"
            );
        }
    }
}
