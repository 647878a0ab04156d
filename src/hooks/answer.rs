//! The answer of a hook that writes: puts and deletes, one JSON object per line of its stdout.
//!
//! ```text
//! {"key": "/index/a", "value": "1", "ttl_ms": 60000}
//! {"key_base64": "/w==", "value_base64": "AA=="}
//! {"key": "/index/b", "delete": true}
//! ```
//! Lines of `list --json`, `watch --json` and `log --json` are answers, too: fields that only they
//! have are ignored. Any other field is an error, so that a mistyped one is never dropped in silence.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

use crate::{
    limits::{OPS_BYTES_MAX, OPS_MAX},
    protocol::entry::Op,
};

/// A put or a delete, as a line describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineOp {
    /// Key to write.
    pub key: Vec<u8>,
    /// Value to put. `None`: the key is deleted.
    pub value: Option<Vec<u8>>,
    /// When the value expires.
    pub expiry: Expiry,
}

/// When the value of a line expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// It never does.
    Never,
    /// This many milliseconds after the write.
    AfterMs(u64),
    /// At this time, ms since 1970.
    AtMs(u64),
}

/// A line that describes no writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The line is not a JSON object, has an unknown field or one of a wrong type, or exceeds a limit.
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
    /// The line names both a TTL and a time.
    #[error("expected one of ttl_ms and expires_ms, not both")]
    Expiry,
    /// The line is of a kind that no write can repeat, for example a `gap`.
    #[error("a {kind:?} line cannot be written: it is neither a put nor a delete")]
    Kind {
        /// Kind of the line.
        kind: String,
    },
}

/// The fields of a line that say what to write.
#[derive(Default)]
struct Line {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    delete: bool,
    ttl_ms: Option<u64>,
    expires_ms: Option<u64>,
    // `type` of a line: that of a change, or one of NEUTRAL.
    r#type: Option<String>,
    // `kind` of a line of `heads` or `history`, and of an op of `log`.
    kind: Option<String>,
    // Ops of an entry of `log`.
    ops: Option<Vec<Self>>,
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LineVisitor)
    }
}

struct LineVisitor;

impl<'de> Visitor<'de> for LineVisitor {
    type Value = Line;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object such as {\"key\": \"/a\", \"value\": \"1\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line, A::Error> {
        let mut line = Line::default();
        let mut seen = Vec::new();
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "key" => line.key = text(&mut map, &field)?,
                "key_base64" => line.key_base64 = text(&mut map, &field)?,
                "value" => line.value = text(&mut map, &field)?,
                "value_base64" => line.value_base64 = text(&mut map, &field)?,
                "delete" => line.delete = map.next_value()?,
                "ttl_ms" => line.ttl_ms = map.next_value()?,
                "expires_ms" => line.expires_ms = map.next_value()?,
                "type" => line.r#type = text(&mut map, &field)?,
                "kind" => line.kind = text(&mut map, &field)?,
                "ops" => line.ops = map.next_value()?,
                printed if PRINTED.contains(&printed) => {
                    map.next_value::<IgnoredAny>()?;
                }
                unknown => {
                    let name = unknown.chars().take(80).collect::<String>();
                    return Err(A::Error::custom(format_args!(
                        "unknown field {name:?}; the fields of a write are key, value, delete, \
                        ttl_ms, expires_ms, key_base64 and value_base64"
                    )));
                }
            }
            // Readers differ in which of two equal fields they take.
            if seen.contains(&field) {
                return Err(A::Error::custom(format_args!("{field:?} comes twice")));
            }
            seen.push(field);
        }
        Ok(line)
    }
}

// Returns the text of a field; `None` if it is null.
fn text<'de, A: MapAccess<'de>>(map: &mut A, field: &str) -> Result<Option<String>, A::Error> {
    let is = match map.next_value::<Value>()? {
        Value::String(text) => return Ok(Some(text)),
        Value::Null => return Ok(None),
        Value::Object(_) => "an object",
        Value::Array(_) => "a list",
        Value::Number(_) => "a number",
        Value::Bool(_) => "true or false",
    };
    Err(A::Error::custom(format_args!(
        "{field} is {is}, and must be text: put it in quotes, and a backslash before each quote in it"
    )))
}

/// Fields that `list`, `watch`, `log`, `heads`, `history`, `consumer next` and `hook test` print with
/// a write, and that say nothing about it.
const PRINTED: [&str; 32] = [
    "arrived_ms",
    "arrived_time",
    "atomic",
    "attempt",
    "author",
    "author_name",
    "branch",
    "cause",
    "conflict",
    "counter",
    "cursor",
    "delivery",
    "entry",
    "expired",
    "expires_time",
    "head",
    "heads",
    "late",
    "now_ms",
    "now_time",
    "op_count",
    "op_index",
    "origin",
    "parents",
    "prev",
    "previous",
    "proof",
    "proof_missing",
    "seq",
    "wall_ms",
    "wall_time",
    "wins",
];

/// Types of lines that do not say whether the line is a put or a delete: `kind` does, and without it the
/// line is a put.
const NEUTRAL: [&str; 5] = ["entry", "exported", "head", "item", "version"];

/// Parses a line: one op, several for an entry of `log`, and none for a line of `watch` that marks a
/// place or an expiry. Limits of keys and values are not checked.
///
/// # Errors
/// Every variant of `LineError`.
pub fn parse_line(line: &[u8]) -> Result<Vec<LineOp>, LineError> {
    let line: Line = serde_json::from_slice(line).map_err(|error| {
        // There is one line, and the caller knows its number.
        LineError::Json(
            error
                .to_string()
                .replace(" at line 1 column ", ", at column "),
        )
    })?;
    line.into_ops()
}

impl Line {
    fn into_ops(mut self) -> Result<Vec<LineOp>, LineError> {
        if let Some(ops) = self.ops.take() {
            if self.key.is_some() || self.key_base64.is_some() || self.delete {
                return Err(LineError::Key);
            }
            let ops = ops.into_iter().map(Self::into_op);
            return ops.collect();
        }
        match self.change() {
            // The put of an expired value has its expiry.
            Some("expire" | "caught_up" | "progress") => Ok(Vec::new()),
            _write => self.into_op().map(|op| vec![op]),
        }
    }

    // Returns the kind of change that the line names; `None` if it names none.
    fn change(&self) -> Option<&str> {
        let is_change = |name: &&str| !NEUTRAL.contains(name);
        let kind = self.kind.as_deref();
        kind.or_else(|| self.r#type.as_deref().filter(is_change))
    }

    fn into_op(self) -> Result<LineOp, LineError> {
        let delete = match self.change() {
            None => self.delete,
            Some("put") => false,
            Some("delete") => true,
            Some(other) => {
                let kind = other.chars().take(80).collect();
                return Err(LineError::Kind { kind });
            }
        };
        if self.ops.is_some() {
            return Err(LineError::Key);
        }
        let key = text_or_base64(self.key, self.key_base64, "key_base64", LineError::Key)?;
        let value = text_or_base64(
            self.value,
            self.value_base64,
            "value_base64",
            LineError::Value,
        )?;
        if value.is_some() == delete || (self.delete && !delete) {
            return Err(LineError::Value);
        }
        Ok(LineOp {
            key: key.ok_or(LineError::Key)?,
            value,
            expiry: match (self.ttl_ms, self.expires_ms) {
                (None, None) => Expiry::Never,
                (Some(ms), None) => Expiry::AfterMs(ms),
                (None, Some(ms)) => Expiry::AtMs(ms),
                (Some(_), Some(_)) => return Err(LineError::Expiry),
            },
        })
    }
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
        let parsed = parse_line(line).and_then(|parsed| {
            let parsed = parsed.into_iter().map(|line| op(line, now_ms));
            let check = |op: Op| {
                let checked = op.check();
                checked.map_err(|error| LineError::Json(error.to_string()))?;
                Ok(op)
            };
            parsed.map(check).collect::<Result<Vec<_>, _>>()
        });
        ops.extend(parsed.map_err(|error| {
            format!(
                "line {number} of the output is not a put or a delete: {error}; nothing was written"
            )
        })?);
        if ops.len() > OPS_MAX {
            return Err(format!(
                "the output exceeds {OPS_MAX} lines, the limit of an entry; nothing was written"
            ));
        }
    }
    let bytes: usize = ops.iter().map(Op::encoded_bytes_max).sum();
    if bytes > OPS_BYTES_MAX {
        return Err(format!(
            "the keys and values of the output have {bytes} bytes, and an entry holds {OPS_BYTES_MAX}; \
             nothing was written"
        ));
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
            expires_ms: match line.expiry {
                Expiry::Never => None,
                Expiry::AfterMs(ms) => Some(now_ms.saturating_add(ms)),
                Expiry::AtMs(ms) => Some(ms),
            },
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

    /// `"ttl": 5` was dropped in silence, and a value that is an object was "a map".
    #[test]
    fn unknown_and_wrong_fields_are_named() {
        let error = |line: &str| parse_line(line.as_bytes()).unwrap_err().to_string();
        let unknown = error(r#"{"key": "/a", "value": "x", "ttl": 5}"#);
        assert!(unknown.starts_with("unknown field \"ttl\"; "), "{unknown}");
        assert!(unknown.contains("ttl_ms"), "{unknown}");
        let object = error(r#"{"key": "/a", "value": {"b": 1}}"#);
        assert!(
            object.starts_with("value is an object, and must be text"),
            "{object}"
        );
        assert!(object.ends_with(", at column 32"), "{object}");
        assert!(error(r#"{"key": 5, "value": "x"}"#).starts_with("key is a number"));
        assert!(error(r#"{"key": "/a", "key": "/b", "value": "x"}"#).contains("comes twice"));
        let both = r#"{"key": "/a", "value": "x", "ttl_ms": 5, "expires_ms": 6}"#;
        assert_eq!(
            error(both),
            "expected one of ttl_ms and expires_ms, not both"
        );
        assert_eq!(
            error(r#"{"key": "/a", "type": "gap"}"#).split(' ').nth(1),
            Some("\"gap\"")
        );
    }

    #[test]
    fn printed_lines_are_answers() {
        let ops = |line: &str| parse_line(line.as_bytes()).unwrap();
        let op = |key: &str, value: Option<&str>, expiry| LineOp {
            key: key.into(),
            value: value.map(Into::into),
            expiry,
        };
        let put =
            r#"{"type":"put","key":"/a","value":"x","expires_ms":7,"heads":["5e"],"late":true}"#;
        assert_eq!(ops(put), [op("/a", Some("x"), Expiry::AtMs(7))]);
        assert_eq!(
            ops(r#"{"type":"delete","key":"/a","entry":"5e"}"#),
            [op("/a", None, Expiry::Never)]
        );
        for line in [
            r#"{"type":"expire","key":"/a"}"#,
            r#"{"type":"progress","now_ms":5}"#,
        ] {
            assert_eq!(ops(line), []);
        }
        for (line, value) in [
            (
                r#"{"type":"item","key":"/a","value":"x","heads":["5e"]}"#,
                Some("x"),
            ),
            (r#"{"type":"exported","key":"/a","value":"x"}"#, Some("x")),
            (
                r#"{"type":"head","kind":"delete","key":"/a","wins":true}"#,
                None,
            ),
            (
                r#"{"type":"version","kind":"put","key":"/a","value":"x","wall_time":"t","author_name":"n"}"#,
                Some("x"),
            ),
        ] {
            assert_eq!(ops(line), [op("/a", value, Expiry::Never)], "{line}");
        }
        let logged = r#"{"type":"entry","seq":1,"ops":[{"kind":"put","key":"/a","value":""},{"kind":"delete","key":"/b"}]}"#;
        assert_eq!(
            ops(logged),
            [
                op("/a", Some(""), Expiry::Never),
                op("/b", None, Expiry::Never)
            ]
        );
    }

    /// `hook test` showed it, in a message that was larger than clients take.
    #[test]
    fn answer_larger_than_an_entry_is_refused() {
        let line = |key| {
            format!(
                "{{\"key\":\"/{key}\",\"value\":\"{}\"}}\n",
                "x".repeat(1 << 20)
            )
        };
        assert_eq!(parse(line(1).as_bytes(), 0).unwrap().len(), 1);
        let error = parse((line(1) + &line(2)).as_bytes(), 0).unwrap_err();
        assert!(error.contains("2097236 bytes"), "{error}");
    }

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
