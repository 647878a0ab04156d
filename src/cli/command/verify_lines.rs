//! `verify --lines`: does each line of a watch say what its author signed? No node, no store.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use lattice::{
    id::{Author, StoreId},
    limits::{ENTRY_BYTES_MAX, VALUE_BYTES_MAX},
    protocol::{
        asserted::AssertedChange,
        change::{EntryRef, Kind},
        hlc::Hlc,
    },
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::cli::{
    args::Global,
    command::verify::Verify,
    exit::{Exit, Failure},
    output::print::{Output, escape},
};

/// Checks the lines of stdin and tells which are false, and whose the others are.
pub(crate) async fn verify_lines(verify: &Verify, global: &Global) -> Result<(), Failure> {
    let rules = Rules::new(verify, global.store.as_deref())?;
    let mut out = Output::new(global.json);
    let (sender, mut verdicts) = mpsc::channel(VERDICTS_AHEAD);
    // A thread of its own: stdin has no other way to wait for a line.
    tokio::task::spawn_blocking(move || {
        let mut lines = Lines::new(io::stdin().lock());
        while let Some(line) = lines.next() {
            let verdict = line.map(|line| rules.judge(line));
            let is_end = verdict.is_err();
            if sender.blocking_send((lines.number, verdict)).is_err() || is_end {
                return;
            }
        }
    });
    let mut report = Report::default();
    while let Some((line, verdict)) = verdicts.recv().await {
        let verdict = verdict
            .map_err(|error| Failure::failed("stdin", format!("cannot read stdin: {error}")))?;
        report.count(line, verdict, &mut out)?;
    }
    report.end(&mut out)
}

/// What is asked of a line.
struct Rules {
    // Empty: any author.
    authors: BTreeSet<Author>,
    store: Option<StoreId>,
    allow_missing: bool,
}

/// What is found of a line.
enum Verdict {
    /// Its author signed what it says, in this store.
    Good(Author, StoreId),
    /// It has no proof, and needs none here.
    Missing,
    /// It says nothing of a key.
    NoChange,
    False(String),
}

impl Rules {
    fn new(verify: &Verify, store: Option<&str>) -> Result<Self, Failure> {
        let store = store.map(str::parse::<StoreId>).transpose();
        Ok(Self {
            authors: verify.authors.iter().copied().collect(),
            store: store.map_err(|error| {
                Failure::usage("bad_store", error.to_string())
                    .hint("names are the node's, which is not asked; see `lattice store list`")
            })?,
            allow_missing: verify.allow_missing,
        })
    }

    fn judge(&self, line: Result<Vec<u8>, TooLong>) -> Verdict {
        let judged = match line {
            Ok(line) if line.iter().all(u8::is_ascii_whitespace) => Ok(Verdict::NoChange),
            Ok(line) => self.judge_line(&line),
            Err(TooLong) => Err(format!("it has more than {LINE_BYTES_MAX} bytes")),
        };
        judged.unwrap_or_else(Verdict::False)
    }

    fn judge_line(&self, line: &[u8]) -> Result<Verdict, String> {
        let mut line: Line = serde_json::from_slice(line)
            .map_err(|error| format!("it is no line of a watch: {error}"))?;
        let kind = match line.r#type.as_str() {
            "put" => Kind::Put,
            "delete" => Kind::Delete,
            "expire" => Kind::Expire,
            "retract" => Kind::Retract,
            "caught_up" | "progress" | "gap" => return Ok(Verdict::NoChange),
            other => return Err(format!("{other:?} is no type of a line")),
        };
        let Some(proof) = line.proof.take() else {
            return match self.allow_missing {
                true => Ok(Verdict::Missing),
                false => Err(match &line.proof_missing {
                    Some(why) => format!("it has no proof: {why}"),
                    None => "it has no proof".to_owned(),
                }),
            };
        };
        let proof = decode("proof", &proof)?;
        let claim = line.claim(kind)?;
        let author = claim.entry.author;
        if !self.authors.is_empty() && !self.authors.contains(&author) {
            return Err(format!(
                "{author} signed it, who is not among those asked for"
            ));
        }
        let entry = claim.check(proof, self.store);
        let entry = entry.map_err(|error| error.to_string())?;
        Ok(Verdict::Good(author, entry.header.store))
    }
}

/// A line of `watch --json`, as far as it can be proven. A field that comes twice is refused: one
/// reader would take the first for it, and another one the second.
#[derive(Deserialize)]
struct Line {
    r#type: String,
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    entry: Option<String>,
    author: Option<String>,
    seq: Option<u64>,
    wall_ms: Option<u64>,
    counter: Option<u32>,
    op_index: Option<u32>,
    op_count: Option<u32>,
    atomic: Option<bool>,
    expires_ms: Option<u64>,
    proof: Option<String>,
    proof_missing: Option<String>,
}

impl Line {
    fn claim(self, kind: Kind) -> Result<AssertedChange, String> {
        let id = |field: &str, text: Option<String>| text.ok_or_else(|| lacks(field));
        let parsed = |error: lattice::id::IdError| error.to_string();
        Ok(AssertedChange {
            kind,
            key: bytes("key", self.key, self.key_base64)?.ok_or_else(|| lacks("key"))?,
            value: bytes("value", self.value, self.value_base64)?,
            expires_ms: self.expires_ms,
            entry: EntryRef {
                id: id("entry", self.entry)?.parse().map_err(parsed)?,
                author: id("author", self.author)?.parse().map_err(parsed)?,
                seq: self.seq.ok_or_else(|| lacks("seq"))?,
                hlc: Hlc {
                    wall_ms: self.wall_ms.ok_or_else(|| lacks("wall_ms"))?,
                    counter: self.counter.ok_or_else(|| lacks("counter"))?,
                },
            },
            op_index: self.op_index.ok_or_else(|| lacks("op_index"))?,
            op_count: self.op_count.ok_or_else(|| lacks("op_count"))?,
            atomic: self.atomic.ok_or_else(|| lacks("atomic"))?,
        })
    }
}

fn lacks(field: &str) -> String {
    format!("it has no field {field:?}")
}

// Text, or bytes in base64; not both.
fn bytes(
    field: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Bytes>, String> {
    match (text, base64) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(base64)) => decode(field, &base64).map(Some),
        (Some(_), Some(_)) => Err(format!("it has two fields for its {field}")),
    }
}

fn decode(field: &str, base64: &str) -> Result<Bytes, String> {
    let decoded = BASE64_STANDARD.decode(base64);
    let decoded = decoded.map_err(|error| format!("its {field} is not base64: {error}"))?;
    Ok(decoded.into())
}

/// Lines of bounded length, with their numbers.
struct Lines<R> {
    input: R,
    // Of the line that was read last, from 1.
    number: u64,
}

struct TooLong;

impl<R: BufRead> Lines<R> {
    fn new(input: R) -> Self {
        Self { input, number: 0 }
    }

    // The next line; of one that is too long no more than that is held. `None`: the end.
    fn next(&mut self) -> Option<io::Result<Result<Vec<u8>, TooLong>>> {
        let mut line = Vec::new();
        let mut is_long = false;
        loop {
            let buffer = match self.input.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Some(Err(error)),
            };
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(buffer.len(), |end| end + 1);
            let is_last = end.is_some() || buffer.is_empty();
            if buffer.is_empty() && line.is_empty() && !is_long {
                return None;
            }
            is_long |= line.len() + taken > LINE_BYTES_MAX;
            if is_long {
                line.clear();
            } else {
                line.extend_from_slice(&buffer[..taken]);
            }
            self.input.consume(taken);
            if is_last {
                self.number += 1;
                return Some(Ok(if is_long { Err(TooLong) } else { Ok(line) }));
            }
        }
    }
}

/// What was found of all lines.
#[derive(Default)]
struct Report {
    // Lines by whose they are, and of which store.
    good: BTreeMap<(Author, StoreId), u64>,
    missing: u64,
    others: u64,
    wrong: u64,
}

impl Report {
    fn count(&mut self, line: u64, verdict: Verdict, out: &mut Output) -> Result<(), Failure> {
        let what = match verdict {
            Verdict::Good(author, store) => {
                *self.good.entry((author, store)).or_default() += 1;
                return Ok(());
            }
            Verdict::Missing => {
                self.missing += 1;
                return Ok(());
            }
            Verdict::NoChange => {
                self.others += 1;
                return Ok(());
            }
            Verdict::False(what) => what,
        };
        self.wrong += 1;
        if out.json {
            let r#type = "false";
            out.object(&FalseLine { r#type, line, what })?;
        } else {
            out.line(&format!("line {line}: {}", escape(what.as_bytes())))?;
        }
        out.flush()
    }

    fn end(self, out: &mut Output) -> Result<(), Failure> {
        for ((author, store), lines) in self.good {
            if out.json {
                out.object(&SignedLines {
                    r#type: "signed",
                    author: author.to_string(),
                    store: store.to_string(),
                    lines,
                })?;
            } else {
                out.line(&format!("author {author}: {lines} lines, store {store}"))?;
            }
        }
        if self.missing > 0 && !out.json {
            out.line(&format!("{} lines without a proof", self.missing))?;
        }
        if out.json {
            out.object(&Checked {
                r#type: "checked",
                missing: self.missing,
                others: self.others,
                r#false: self.wrong,
            })?;
        }
        out.flush()?;
        let message = match self.wrong {
            0 => return Ok(()),
            1 => "1 line is false".to_owned(),
            count => format!("{count} lines are false"),
        };
        Err(Failure::new(Exit::Damaged, "false_lines", message)
            .hint("they were changed after the watch printed them, or made up: do not act on them"))
    }
}

/// A line that does not hold, of `verify --lines --json`.
#[derive(Serialize)]
struct FalseLine {
    r#type: &'static str,
    /// From 1.
    line: u64,
    /// For people.
    what: String,
}

/// Lines that an author signed.
#[derive(Serialize)]
struct SignedLines {
    r#type: &'static str,
    author: String,
    store: String,
    lines: u64,
}

/// The end of the report.
#[derive(Serialize)]
struct Checked {
    r#type: &'static str,
    /// Changes without a proof, with `--allow-missing`.
    missing: u64,
    /// Lines that are no changes.
    others: u64,
    r#false: u64,
}

/// Bytes of a line: a proof in base64, and a value of control characters, six times its size.
const LINE_BYTES_MAX: usize = 16 << 20;
/// Verdicts that wait to be told.
const VERDICTS_AHEAD: usize = 64;

const _: () = assert!(LINE_BYTES_MAX >= ENTRY_BYTES_MAX * 4 / 3 + 6 * VALUE_BYTES_MAX + (1 << 20));
