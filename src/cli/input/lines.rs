//! Writes as lines: tab-separated for shells, JSON for everything else.

use std::io::{self, BufRead};

use clap::ValueEnum;
use lattice::{
    hooks,
    limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX},
    wire::api,
};

use crate::cli::{
    exit::{Exit, Failure},
    output::print,
};

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// `key<TAB>value`, bytes as they are; the value goes to the end of the line
    Tsv,
    /// {"key": .., "value": ..}, {"key": .., "delete": true}; key_base64, value_base64, ttl_ms
    Json,
}

/// What a line without an operation means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `put --stdin`: `key<TAB>value` puts.
    Put,
    /// `batch`: `put<TAB>key<TAB>value` or `delete<TAB>key`.
    Batch,
}

/// A line that is no write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    #[error("expected key<TAB>value, found no tab")]
    NoTab,
    #[error("expected put<TAB>key<TAB>value or delete<TAB>key")]
    NoOperation,
    #[error("{}", print::escape(.0.to_string().as_bytes()))]
    Json(hooks::LineError),
    #[error("the key is empty")]
    KeyEmpty,
    #[error("the key has {bytes} bytes, a key has at most {KEY_BYTES_MAX}")]
    KeyTooLong { bytes: usize },
    #[error("the value has {bytes} bytes, a value has at most {VALUE_BYTES_MAX}")]
    ValueTooLong { bytes: usize },
    #[error("the line has more than {LINE_BYTES_MAX} bytes")]
    LineTooLong,
    #[error("reading stdin: {0}")]
    Read(String),
}

/// A [`LineError`] and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// 1 for the first.
    pub(crate) number: u64,
    pub(crate) error: LineError,
}

impl BadLine {
    /// Makes the failure of a command that did nothing because of the line.
    pub(crate) fn failure(&self) -> Failure {
        let message = format!("line {}: {}", self.number, self.error);
        match &self.error {
            LineError::Read(_) => Failure::new(Exit::Failed, "stdin", message),
            _malformed => Failure::usage("bad_line", message),
        }
    }
}

/// Some lines that came in together.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) ops: Vec<api::Op>,
    /// The number of the line of each op.
    pub(crate) numbers: Vec<u64>,
    /// Bytes of all lines up to here.
    pub(crate) bytes_read: u64,
}

/// Reads lines as writes.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    input: R,
    format: Format,
    dialect: Dialect,
    /// Of lines that have none of their own.
    ttl_ms: Option<u64>,
    // Number of the line read last.
    number: u64,
    bytes_read: u64,
    // The line that is being read; at most LINE_BYTES_MAX + 1.
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Makes a reader; `ttl_ms` is for lines without one.
    pub(crate) fn new(input: R, format: Format, dialect: Dialect, ttl_ms: Option<u64>) -> Self {
        Self {
            input,
            format,
            dialect,
            ttl_ms,
            number: 0,
            bytes_read: 0,
            line: Vec::new(),
        }
    }

    /// Reads the next line that is not empty; `None` at the end.
    pub(crate) fn next_op(&mut self) -> Result<Option<api::Op>, BadLine> {
        loop {
            self.number += 1;
            let op = self.read_line().and_then(|more| match more {
                false => Ok(None),
                true if self.line.is_empty() => Ok(Some(None)),
                true => parse(self.format, self.dialect, &self.line).map(|op| Some(Some(op))),
            });
            match op.map_err(|error| BadLine {
                number: self.number,
                error,
            })? {
                None => return Ok(None),
                Some(None) => {}
                Some(Some(mut op)) => {
                    op.ttl_ms = op.ttl_ms.or(self.ttl_ms.filter(|_| !op.delete));
                    return Ok(Some(op));
                }
            }
        }
    }

    /// Reads what is there: at least one line, then as many as came in with it.
    ///
    /// So a slow writer's lines go out one by one, and a file's in large chunks. A chunk that
    /// ends at the end of the input or at a bad line comes with that.
    pub(crate) fn next_chunk(&mut self) -> (Chunk, Option<Result<(), BadLine>>)
    where
        R: Buffered,
    {
        let mut chunk = Chunk::default();
        let mut bytes = 0;
        loop {
            let end = match self.next_op() {
                Ok(Some(op)) => {
                    bytes += op.key.len() + op.value.len();
                    chunk.ops.push(op);
                    chunk.numbers.push(self.number);
                    None
                }
                Ok(None) => Some(Ok(())),
                Err(bad) => Some(Err(bad)),
            };
            chunk.bytes_read = self.bytes_read;
            let is_full = chunk.ops.len() >= CHUNK_OPS_MAX || bytes >= CHUNK_BYTES;
            if end.is_some() || is_full || !self.input.has_line() {
                return (chunk, end);
            }
        }
    }

    // Reads a line without its newline into `line`; false at the end of the input.
    fn read_line(&mut self) -> Result<bool, LineError> {
        self.line.clear();
        let limit = u64::try_from(LINE_BYTES_MAX + 1).unwrap_or(u64::MAX);
        let count = io::Read::take(&mut self.input, limit)
            .read_until(b'\n', &mut self.line)
            .map_err(|error| LineError::Read(error.to_string()))?;
        self.bytes_read += u64::try_from(count).unwrap_or(u64::MAX);
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() > LINE_BYTES_MAX {
            return Err(LineError::LineTooLong);
        }
        Ok(count > 0)
    }
}

/// Tells whether a read would wait.
pub(crate) trait Buffered {
    /// True when a whole line is there already.
    fn has_line(&self) -> bool;
}

impl<R: io::Read> Buffered for io::BufReader<R> {
    fn has_line(&self) -> bool {
        self.buffer().contains(&b'\n')
    }
}

/// Reads one line.
fn parse(format: Format, dialect: Dialect, line: &[u8]) -> Result<api::Op, LineError> {
    let op = match (format, dialect) {
        (Format::Json, _) => parse_json(line)?,
        (Format::Tsv, Dialect::Put) => {
            let (key, value) = split_tab(line).ok_or(LineError::NoTab)?;
            put(key, value)
        }
        (Format::Tsv, Dialect::Batch) => match split_tab(line).ok_or(LineError::NoOperation)? {
            (b"put", rest) => {
                let (key, value) = split_tab(rest).ok_or(LineError::NoOperation)?;
                put(key, value)
            }
            (b"delete", key) => api::Op {
                key: key.to_vec().into(),
                delete: true,
                ..api::Op::default()
            },
            _other => return Err(LineError::NoOperation),
        },
    };
    // The node checks again; here it costs no write that came after it.
    match (op.key.len(), op.value.len()) {
        (0, _) => Err(LineError::KeyEmpty),
        (bytes, _) if bytes > KEY_BYTES_MAX => Err(LineError::KeyTooLong { bytes }),
        (_, bytes) if bytes > VALUE_BYTES_MAX => Err(LineError::ValueTooLong { bytes }),
        _fits => Ok(op),
    }
}

fn put(key: &[u8], value: &[u8]) -> api::Op {
    api::Op {
        key: key.to_vec().into(),
        value: value.to_vec().into(),
        ..api::Op::default()
    }
}

fn split_tab(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|byte| *byte == b'\t')?;
    Some((&line[..at], &line[at + 1..]))
}

fn parse_json(line: &[u8]) -> Result<api::Op, LineError> {
    let line = hooks::parse_line(line).map_err(LineError::Json)?;
    Ok(api::Op {
        key: line.key.into(),
        delete: line.value.is_none(),
        value: line.value.unwrap_or_default().into(),
        ttl_ms: line.ttl_ms,
    })
}

/// Bytes of one line: the largest value with every byte escaped as in JSON, and its key.
const LINE_BYTES_MAX: usize = 6 * (VALUE_BYTES_MAX + KEY_BYTES_MAX) + 1024;
/// Ops that are sent in one request.
const CHUNK_OPS_MAX: usize = 256;
/// Bytes of keys and values after which a chunk is sent.
const CHUNK_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn tsv(line: &[u8]) -> Result<api::Op, LineError> {
        parse(Format::Tsv, Dialect::Put, line)
    }

    fn json(line: &str) -> Result<api::Op, LineError> {
        parse(Format::Json, Dialect::Put, line.as_bytes())
    }

    #[test]
    fn a_tab_ends_the_key_only() {
        let op = tsv(b"/a\tb\tc\xff").unwrap();
        assert_eq!((&op.key[..], &op.value[..]), (&b"/a"[..], &b"b\tc\xff"[..]));
        assert_eq!(tsv(b"/a\t").unwrap().value.len(), 0);
        assert_eq!(tsv(b"/a"), Err(LineError::NoTab));
        assert_eq!(tsv(b"\tv"), Err(LineError::KeyEmpty));
        let long = [&[b'k'; KEY_BYTES_MAX + 1][..], b"\tv"].concat();
        assert_eq!(
            tsv(&long),
            Err(LineError::KeyTooLong {
                bytes: KEY_BYTES_MAX + 1
            })
        );
    }

    #[test]
    fn a_batch_names_its_operations() {
        let line = |line: &[u8]| parse(Format::Tsv, Dialect::Batch, line);
        assert!(!line(b"put\t/a\t1").unwrap().delete);
        assert!(line(b"delete\t/a").unwrap().delete);
        assert_eq!(line(b"/a\t1"), Err(LineError::NoOperation));
        assert_eq!(line(b"put\t/a"), Err(LineError::NoOperation));
    }

    #[test]
    fn json_says_text_or_base64() {
        let op = json(r#"{"key": "/a", "value": "x", "ttl_ms": 5, "heads": 1}"#).unwrap();
        assert_eq!(
            (&op.key[..], &op.value[..], op.ttl_ms),
            (&b"/a"[..], &b"x"[..], Some(5))
        );
        let op = json(r#"{"key_base64": "/wA=", "value_base64": "AP8="}"#).unwrap();
        assert_eq!(
            (&op.key[..], &op.value[..]),
            (&b"\xff\0"[..], &b"\0\xff"[..])
        );
        assert!(json(r#"{"key": "/a", "delete": true}"#).unwrap().delete);
        assert_eq!(
            json(r#"{"value": "x"}"#),
            Err(LineError::Json(hooks::LineError::Key))
        );
        assert_eq!(
            json(r#"{"key": "/a"}"#),
            Err(LineError::Json(hooks::LineError::Value))
        );
        assert_eq!(
            json(r#"{"key": "/a", "value": "x", "delete": true}"#),
            Err(LineError::Json(hooks::LineError::Value))
        );
        let field = "value_base64";
        let bad = json(r#"{"key": "/a", "value_base64": "?"}"#);
        assert_eq!(
            bad,
            Err(LineError::Json(hooks::LineError::Base64 { field }))
        );
        assert!(matches!(json("{"), Err(LineError::Json(_))));
    }

    #[test]
    fn a_bad_line_is_named_and_those_before_it_are_kept() {
        let input = io::BufReader::new(&b"/a\t1\n\n/b\t2\nbad\n/c\t3\n"[..]);
        let mut lines = Lines::new(input, Format::Tsv, Dialect::Put, Some(9));
        let (chunk, end) = lines.next_chunk();
        assert_eq!(chunk.numbers, [1, 3]);
        assert!(chunk.ops.iter().all(|op| op.ttl_ms == Some(9)));
        assert_eq!(
            end,
            Some(Err(BadLine {
                number: 4,
                error: LineError::NoTab
            }))
        );
    }

    #[test]
    fn the_last_line_needs_no_newline() {
        let input = io::BufReader::new(&b"/a\t1\n/b\t2"[..]);
        let mut lines = Lines::new(input, Format::Tsv, Dialect::Put, None);
        assert_eq!(lines.next_chunk().0.ops.len(), 1);
        assert_eq!(lines.next_chunk().0.ops.len(), 1);
        assert_eq!(lines.next_chunk().1, Some(Ok(())));
    }
}
