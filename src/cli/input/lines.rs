//! Parses writes from lines: tab-separated for shells, JSON for programs.

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

/// Format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// `key<TAB>value`, bytes unchanged; the value extends to the end of the line
    Tsv,
    /// {"key": .., "value": ..}, {"key": .., "delete": true}; key_base64, value_base64, ttl_ms
    Json,
}

/// Syntax of a tab-separated line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `key<TAB>value`, a put; used by `put --stdin`.
    Put,
    /// `put<TAB>key<TAB>value` or `delete<TAB>key`; used by `batch`.
    Batch,
}

/// An error in a line, or in reading it.
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
    #[error("the key has {bytes} bytes; the limit is {KEY_BYTES_MAX}")]
    KeyTooLong { bytes: usize },
    #[error("the value has {bytes} bytes; the limit is {VALUE_BYTES_MAX}")]
    ValueTooLong { bytes: usize },
    #[error("the line has more than {LINE_BYTES_MAX} bytes")]
    LineTooLong,
    #[error("cannot read stdin: {0}")]
    Read(String),
}

/// A [`LineError`] and the line in which it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// Number of the line; the first one is 1.
    pub(crate) number: u64,
    pub(crate) error: LineError,
}

impl BadLine {
    /// Returns the failure of a command that did nothing because of this line.
    pub(crate) fn failure(&self) -> Failure {
        let message = format!("line {}: {}", self.number, self.error);
        match &self.error {
            LineError::Read(_) => Failure::new(Exit::Failed, "stdin", message),
            _malformed => Failure::usage("bad_line", message),
        }
    }
}

/// Writes from lines that were read together.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) ops: Vec<api::Op>,
    /// Line number of each op.
    pub(crate) numbers: Vec<u64>,
    /// Bytes of all lines read so far, in this chunk and before it.
    pub(crate) bytes_read: u64,
}

/// Reads writes from lines.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    input: R,
    format: Format,
    dialect: Dialect,
    /// TTL of puts whose line names none.
    ttl_ms: Option<u64>,
    // Number of the last line read.
    number: u64,
    bytes_read: u64,
    // The current line; at most LINE_BYTES_MAX + 1 bytes.
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Makes a reader; `ttl_ms` is the TTL of puts whose line names none.
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

    /// Reads the next line that is not empty; `None` at the end of the input.
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

    /// Waits for a line, then also takes the lines that are in the buffer already.
    ///
    /// So the lines of a slow writer are sent one by one, and those of a file in large chunks. The
    /// second value is `None` while there may be more lines, `Ok` at the end of the input, and the
    /// error at a bad line, after which nothing should be read.
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

    // Reads the next line into `line`, without its newline; false at the end of the input.
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

/// A reader that knows whether reading a line would wait.
pub(crate) trait Buffered {
    /// True if a complete line is in the buffer.
    fn has_line(&self) -> bool;
}

impl<R: io::Read> Buffered for io::BufReader<R> {
    fn has_line(&self) -> bool {
        self.buffer().contains(&b'\n')
    }
}

/// Parses one line and checks the sizes of its key and value.
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
    // The node checks this too. Checked here, a bad line does not fail the writes sent with it.
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
        ..api::Op::default()
    })
}

/// Bytes of one line: the largest key and value with every byte escaped as in JSON.
const LINE_BYTES_MAX: usize = 6 * (VALUE_BYTES_MAX + KEY_BYTES_MAX) + 1024;
/// Ops in one chunk, which is sent as one request.
const CHUNK_OPS_MAX: usize = 256;
/// Bytes of keys and values at which a chunk is full.
const CHUNK_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::mutator::{Corpus, fuzz};

    fn tsv(line: &[u8]) -> Result<api::Op, LineError> {
        parse(Format::Tsv, Dialect::Put, line)
    }

    fn json(line: &str) -> Result<api::Op, LineError> {
        parse(Format::Json, Dialect::Put, line.as_bytes())
    }

    #[test]
    fn first_tab_ends_the_key() {
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
    fn batch_lines_need_an_operation() {
        let line = |line: &[u8]| parse(Format::Tsv, Dialect::Batch, line);
        assert!(!line(b"put\t/a\t1").unwrap().delete);
        assert!(line(b"delete\t/a").unwrap().delete);
        assert_eq!(line(b"/a\t1"), Err(LineError::NoOperation));
        assert_eq!(line(b"put\t/a"), Err(LineError::NoOperation));
    }

    #[test]
    fn json_lines_have_text_or_base64() {
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
    fn bad_line_keeps_the_lines_before_it() {
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
    fn last_line_needs_no_newline() {
        let input = io::BufReader::new(&b"/a\t1\n/b\t2"[..]);
        let mut lines = Lines::new(input, Format::Tsv, Dialect::Put, None);
        assert_eq!(lines.next_chunk().0.ops.len(), 1);
        assert_eq!(lines.next_chunk().0.ops.len(), 1);
        assert_eq!(lines.next_chunk().1, Some(Ok(())));
    }

    #[test]
    fn l9_any_line_is_an_op_or_a_mistake() {
        let lines = [
            "put\t/a\tb\tc",
            r#"{"key": "/a", "value": "x", "ttl_ms": 5}"#,
            r#"{"key_base64": "/w==", "delete": true}"#,
        ];
        fuzz(&Corpus::new(lines), |input| {
            let forms = [
                (Format::Tsv, Dialect::Put),
                (Format::Tsv, Dialect::Batch),
                (Format::Json, Dialect::Batch),
            ];
            let mut is_op = false;
            for (format, dialect) in forms {
                let Ok(op) = parse(format, dialect, input) else {
                    continue;
                };
                assert!(op.key.len() + op.value.len() <= input.len());
                assert!((1..=KEY_BYTES_MAX).contains(&op.key.len()));
                is_op = true;
            }
            is_op
        });
    }
}
