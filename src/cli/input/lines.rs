//! Parses writes from lines: tab-separated for shells, JSON for programs.

use std::{
    borrow::Cow,
    collections::VecDeque,
    io::{self, BufRead},
};

use clap::ValueEnum;
use lattice::{
    hooks::{self, Expiry},
    limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX},
    wire::api,
};

use crate::cli::{
    exit::{Exit, Failure},
    input::escape::{BadEscape, unescape},
    output::print::harmless,
};

/// Format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// `key<TAB>value`, as `list` prints it: \\, \n, \t, \r, and \xNN for any byte
    Tsv,
    /// `key<TAB>value`, bytes unchanged; the value extends to the end of the line
    Raw,
    /// {"key": .., "value": ..}, {"key": .., "delete": true}; with ttl_ms or expires_ms
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
    #[error("{}", harmless(&.0.to_string()))]
    Json(hooks::LineError),
    #[error("{0}; --format raw takes bytes as they are")]
    Escape(#[from] BadEscape),
    #[error(
        "{:?} after the value is not a note: expected expires_ms=, ttl_ms= or deleted. A tab in a value \
        is written \\t; --format raw takes bytes as they are",
        harmless(.0)
    )]
    Note(String),
    #[error("the key is empty")]
    KeyEmpty,
    #[error("the key has {bytes} bytes; the limit is {KEY_BYTES_MAX}")]
    KeyTooLong { bytes: usize },
    #[error("the value has {bytes} bytes; the limit is {VALUE_BYTES_MAX}")]
    ValueTooLong { bytes: usize },
    #[error("the line has more than {LINE_BYTES_MAX} bytes")]
    LineTooLong,
    #[error("cannot read it: {0}")]
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
    // Ops of the current line that were not returned yet.
    ops: VecDeque<api::Op>,
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
            ops: VecDeque::new(),
            number: 0,
            bytes_read: 0,
            line: Vec::new(),
        }
    }

    /// Returns the next op; `None` at the end of the input.
    pub(crate) fn next_op(&mut self) -> Result<Option<api::Op>, BadLine> {
        loop {
            if let Some(mut op) = self.ops.pop_front() {
                if op.expires_ms.is_none() && !op.delete {
                    op.ttl_ms = op.ttl_ms.or(self.ttl_ms);
                }
                return Ok(Some(op));
            }
            self.number += 1;
            let read = self.read_line().and_then(|more| {
                if more && !self.line.is_empty() {
                    self.ops = parse(self.format, self.dialect, &self.line)?.into();
                }
                Ok(more)
            });
            let number = self.number;
            if !read.map_err(|error| BadLine { number, error })? {
                return Ok(None);
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
            let is_ready = !self.ops.is_empty() || self.input.has_line();
            if end.is_some() || is_full || !is_ready {
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

/// Parses one line and checks the sizes of its keys and values.
fn parse(format: Format, dialect: Dialect, line: &[u8]) -> Result<Vec<api::Op>, LineError> {
    let ops = match (format, dialect) {
        (Format::Json, _) => parse_json(line)?,
        (Format::Tsv | Format::Raw, Dialect::Put) => {
            let (key, rest) = split_tab(line).ok_or(LineError::NoTab)?;
            vec![put(format, key, rest)?]
        }
        (Format::Tsv | Format::Raw, Dialect::Batch) => {
            let (operation, rest) = split_tab(line).ok_or(LineError::NoOperation)?;
            vec![match operation {
                b"put" => {
                    let (key, rest) = split_tab(rest).ok_or(LineError::NoOperation)?;
                    put(format, key, rest)?
                }
                b"delete" => delete(read(format, rest)?),
                _other => return Err(LineError::NoOperation),
            }]
        }
    };
    // The node checks this too. Checked here, a bad line does not fail the writes sent with it.
    for op in &ops {
        match (op.key.len(), op.value.len()) {
            (0, _) => return Err(LineError::KeyEmpty),
            (bytes, _) if bytes > KEY_BYTES_MAX => return Err(LineError::KeyTooLong { bytes }),
            (_, bytes) if bytes > VALUE_BYTES_MAX => {
                return Err(LineError::ValueTooLong { bytes });
            }
            _fits => {}
        }
    }
    Ok(ops)
}

// Returns the write of a key, and of the columns after it: the value, and notes in format tsv.
fn put(format: Format, key: &[u8], rest: &[u8]) -> Result<api::Op, LineError> {
    let key = read(format, key)?;
    let (value, mut notes) = match format {
        Format::Tsv => split_tab(rest).map_or((rest, None), |(value, notes)| (value, Some(notes))),
        Format::Raw | Format::Json => (rest, None),
    };
    let mut op = api::Op {
        key: key.into_owned().into(),
        value: read(format, value)?.into_owned().into(),
        ..api::Op::default()
    };
    while let Some(rest) = notes {
        let (note, next) = split_tab(rest).map_or((rest, None), |(note, next)| (note, Some(next)));
        notes = next;
        let bad = || LineError::Note(String::from_utf8_lossy(note).chars().take(80).collect());
        let ms = |number: &str| number.parse().map(Some).map_err(|_no_number| bad());
        match str::from_utf8(note).ok().and_then(|it| it.split_once('=')) {
            // `deleted` takes the place of a value.
            None if note == b"deleted" && op.value.is_empty() => op.delete = true,
            Some(("expires_ms", number)) if op.ttl_ms.is_none() => op.expires_ms = ms(number)?,
            Some(("ttl_ms", number)) if op.expires_ms.is_none() => op.ttl_ms = ms(number)?,
            // The number of heads, which `list` prints, does not belong to a write.
            Some(("heads", number)) => drop(ms(number)?),
            _other => return Err(bad()),
        }
    }
    Ok(op)
}

fn delete(key: Cow<'_, [u8]>) -> api::Op {
    api::Op {
        key: key.into_owned().into(),
        delete: true,
        ..api::Op::default()
    }
}

fn read(format: Format, column: &[u8]) -> Result<Cow<'_, [u8]>, LineError> {
    match format {
        Format::Tsv => Ok(unescape(column)?),
        Format::Raw | Format::Json => Ok(column.into()),
    }
}

fn split_tab(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|byte| *byte == b'\t')?;
    Some((&line[..at], &line[at + 1..]))
}

fn parse_json(line: &[u8]) -> Result<Vec<api::Op>, LineError> {
    let ops = hooks::parse_line(line).map_err(LineError::Json)?;
    let op = |op: hooks::LineOp| api::Op {
        key: op.key.into(),
        delete: op.value.is_none(),
        value: op.value.unwrap_or_default().into(),
        ttl_ms: match op.expiry {
            Expiry::AfterMs(ms) => Some(ms),
            Expiry::Never | Expiry::AtMs(_) => None,
        },
        expires_ms: match op.expiry {
            Expiry::AtMs(ms) => Some(ms),
            Expiry::Never | Expiry::AfterMs(_) => None,
        },
        ..api::Op::default()
    };
    Ok(ops.into_iter().map(op).collect())
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
    use crate::{
        cli::output::{
            event,
            json::typed,
            object, tsv,
            vocabulary::{NodeNames, to_line},
        },
        support::mutator::{Corpus, fuzz},
    };

    fn one(ops: Result<Vec<api::Op>, LineError>) -> Result<api::Op, LineError> {
        ops.map(|mut ops| {
            assert_eq!(ops.len(), 1);
            ops.remove(0)
        })
    }

    fn tsv(line: &[u8]) -> Result<api::Op, LineError> {
        one(parse(Format::Tsv, Dialect::Put, line))
    }

    fn json(line: &str) -> Result<api::Op, LineError> {
        one(parse(Format::Json, Dialect::Put, line.as_bytes()))
    }

    #[test]
    fn raw_lines_are_taken_as_they_are() {
        let line = b"/a\\n\tb\tc\\t\xff";
        let op = one(parse(Format::Raw, Dialect::Put, line)).unwrap();
        assert_eq!(
            (&op.key[..], &op.value[..]),
            (&b"/a\\n"[..], &b"b\tc\\t\xff"[..])
        );
    }

    #[test]
    fn notes_of_a_tsv_line_are_read() {
        let op = tsv(b"/a\tb\texpires_ms=5\theads=2").unwrap();
        assert_eq!((&op.value[..], op.expires_ms), (&b"b"[..], Some(5)));
        assert_eq!(tsv(b"/a\tb\tttl_ms=7").unwrap().ttl_ms, Some(7));
        assert!(tsv(b"/a\t\tdeleted").unwrap().delete);
        for wrong in ["c", "expires_ms=x", "deleted", "ttl_ms=1\texpires_ms=2", ""] {
            let line = format!("/a\tb\t{wrong}");
            assert!(
                matches!(tsv(line.as_bytes()), Err(LineError::Note(_))),
                "{wrong}"
            );
        }
        assert_eq!(tsv(b"C:\\x\tv"), Err(LineError::Escape(BadEscape)));
    }

    #[test]
    fn a_tsv_line_has_a_key_and_a_value() {
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
        let line = |line: &[u8]| one(parse(Format::Tsv, Dialect::Batch, line));
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

    /// The lines of `list`, `watch` and `log` are read back, byte by byte, in both formats.
    #[test]
    fn l9_any_write_is_read_as_it_was_printed() {
        let seeds = [
            "/a",
            "\\n\n\t\\\\\r",
            "\u{1b}\u{0}\u{9b}\u{202e}\u{e9}",
            "deleted",
            "ttl_ms=1",
        ];
        fuzz(&Corpus::new(seeds), |input| {
            let (key, value) = input.split_at(input.len().min(2));
            let expires_ms = (input.len() % 2 == 0).then_some(input.len() as u64);
            let read = |format, line: String| {
                one(parse(format, Dialect::Put, line.as_bytes())).map(|op| {
                    assert_eq!(op.ttl_ms, None);
                    (
                        op.key.to_vec(),
                        (!op.delete).then(|| op.value.to_vec()),
                        op.expires_ms,
                    )
                })
            };
            if key.is_empty() {
                assert_eq!(
                    read(Format::Tsv, tsv::put(key, value, None)),
                    Err(LineError::KeyEmpty)
                );
                return false;
            }
            let put = Ok((key.to_vec(), Some(value.to_vec()), expires_ms));
            let deleted = Ok((key.to_vec(), None, None));
            let item = api::Item {
                key: key.to_vec().into(),
                value: value.to_vec().into(),
                expires_ms,
                heads: 2,
                ..api::Item::default()
            };
            assert_eq!(read(Format::Tsv, tsv::put(key, value, expires_ms)), put);
            assert_eq!(read(Format::Tsv, tsv::item(&item)), put);
            assert_eq!(read(Format::Tsv, tsv::delete(key)), deleted);
            assert_eq!(
                read(
                    Format::Json,
                    printed("item", object::Item::new(&item, false))
                ),
                put
            );
            for (kind, write) in [("put", &put), ("delete", &deleted)] {
                let op = api::LogOp {
                    kind: kind.to_owned(),
                    key: item.key.clone(),
                    value: item.value.clone(),
                    expires_ms: expires_ms.filter(|_| kind == "put"),
                };
                let change = api::Change {
                    kind: kind.to_owned(),
                    key: op.key.clone(),
                    value: Some(op.value.clone()).filter(|_| kind == "put"),
                    expires_ms: op.expires_ms,
                    late: true,
                    arrived_ms: 5,
                    ..api::Change::default()
                };
                let watched = event::Change::new(&change, Some("cursor".to_owned()));
                assert_eq!(
                    &read(Format::Json, to_line(&watched, &NodeNames::default())),
                    write
                );
                let logged = api::LogEntry {
                    ops: vec![op],
                    ..api::LogEntry::default()
                };
                assert_eq!(
                    &read(
                        Format::Json,
                        printed("entry", object::Logged::from(&logged))
                    ),
                    write
                );
            }
            true
        });
    }

    // Returns the line that a command prints.
    fn printed(r#type: &'static str, object: impl serde::Serialize) -> String {
        to_line(&typed(r#type, object), &NodeNames::default())
    }

    #[test]
    fn l9_any_line_is_an_op_or_a_mistake() {
        let lines = [
            "put\t/a\tb\texpires_ms=5",
            r#"{"key": "/a", "value": "x", "ttl_ms": 5}"#,
            r#"{"key_base64": "/w==", "delete": true}"#,
        ];
        fuzz(&Corpus::new(lines), |input| {
            let forms = [
                (Format::Tsv, Dialect::Put),
                (Format::Tsv, Dialect::Batch),
                (Format::Raw, Dialect::Batch),
                (Format::Json, Dialect::Batch),
            ];
            let mut is_op = false;
            for (format, dialect) in forms {
                for op in parse(format, dialect, input).into_iter().flatten() {
                    assert!(op.key.len() + op.value.len() <= input.len());
                    assert!((1..=KEY_BYTES_MAX).contains(&op.key.len()));
                    is_op = true;
                }
            }
            is_op
        });
    }
}
