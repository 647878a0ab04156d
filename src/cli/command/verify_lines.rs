//! `verify --lines`: checks that the lines of a watch are what their authors signed.
//!
//! Needs no node and no store.

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
    command::verify::Verify,
    exit::{Exit, Failure},
    global::Global,
    output::print::{Output, harmless},
};

/// Checks the lines of stdin; prints the false ones, and for each author how many are signed.
pub(crate) async fn verify_lines(verify: &Verify, global: &Global) -> Result<(), Failure> {
    let rules = Rules::new(verify, global.store.as_deref())?;
    let mut out = Output::new(global.form(), global.color, global.verbose > 0);
    let (sender, mut verdicts) = mpsc::channel(VERDICTS_AHEAD);
    // On a thread of its own, because a read of stdin blocks.
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

/// The conditions that a line must meet.
struct Rules {
    // Accepted authors; all if it is empty.
    authors: BTreeSet<Author>,
    // Store that entries must belong to; any for `None`.
    store: Option<StoreId>,
    // Whether a change without a proof is accepted.
    allow_missing: bool,
}

/// The result for one line.
enum Verdict {
    /// The author signed exactly this change, in this store.
    Good(Author, StoreId),
    /// The change has no proof, which is allowed.
    Missing,
    /// The line is of this kind, which nobody signs: what a node saw, and no author wrote.
    Unsigned(&'static str),
    /// The line is empty.
    Empty,
    /// The line is false, for this reason.
    False(String),
}

impl Rules {
    fn new(verify: &Verify, store: Option<&str>) -> Result<Self, Failure> {
        let store = store.map(str::parse::<StoreId>).transpose();
        Ok(Self {
            authors: verify.authors.iter().copied().collect(),
            store: store.map_err(|error| {
                Failure::usage("bad_store", error.to_string()).hint(
                    "--store must be a UUID, because no node is asked; see `lattice store list`",
                )
            })?,
            allow_missing: verify.allow_missing,
        })
    }

    fn judge(&self, line: Result<Vec<u8>, TooLong>) -> Verdict {
        let judged = match line {
            Ok(line) if line.iter().all(u8::is_ascii_whitespace) => Ok(Verdict::Empty),
            Ok(line) => self.judge_line(&line),
            Err(TooLong) => Err(format!("it has more than {LINE_BYTES_MAX} bytes")),
        };
        judged.unwrap_or_else(Verdict::False)
    }

    fn judge_line(&self, line: &[u8]) -> Result<Verdict, String> {
        let mut line: Line = serde_json::from_slice(line)
            .map_err(|error| format!("it is not a line of a watch: {error}"))?;
        let kind = match line.r#type.as_str() {
            "put" => Kind::Put,
            "delete" => Kind::Delete,
            "expire" => Kind::Expire,
            "retract" => Kind::Retract,
            other => {
                let marker = MARKERS.into_iter().find(|marker| *marker == other);
                let unknown = || format!("its type {other:?} is unknown");
                return marker.map(Verdict::Unsigned).ok_or_else(unknown);
            }
        };
        let Some(proof) = line.proof.take() else {
            if matches!(kind, Kind::Expire | Kind::Retract) {
                return Ok(Verdict::Unsigned(kind.name()));
            }
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
                "it is signed by {author}, who is not an accepted author"
            ));
        }
        let entry = claim.check(proof, self.store);
        let entry = entry.map_err(|error| error.to_string())?;
        Ok(Verdict::Good(author, entry.header.store))
    }
}

/// The fields of a line of `watch --json` that a proof covers.
///
/// A repeated field is an error: some readers would use the first one, others the second.
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
        let id = |field: &str, text: Option<String>| text.ok_or_else(|| missing(field));
        let parsed = |error: lattice::id::IdError| error.to_string();
        Ok(AssertedChange {
            kind,
            key: bytes("key", self.key, self.key_base64)?.ok_or_else(|| missing("key"))?,
            value: bytes("value", self.value, self.value_base64)?,
            expires_ms: self.expires_ms,
            entry: EntryRef {
                id: id("entry", self.entry)?.parse().map_err(parsed)?,
                author: id("author", self.author)?.parse().map_err(parsed)?,
                seq: self.seq.ok_or_else(|| missing("seq"))?,
                hlc: Hlc {
                    wall_ms: self.wall_ms.ok_or_else(|| missing("wall_ms"))?,
                    counter: self.counter.ok_or_else(|| missing("counter"))?,
                },
            },
            op_index: self.op_index.ok_or_else(|| missing("op_index"))?,
            op_count: self.op_count.ok_or_else(|| missing("op_count"))?,
            atomic: self.atomic.ok_or_else(|| missing("atomic"))?,
        })
    }
}

fn missing(field: &str) -> String {
    format!("it has no field {field:?}")
}

// Returns the bytes of a field, which has text or base64 but not both.
fn bytes(
    field: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Bytes>, String> {
    match (text, base64) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(base64)) => decode(field, &base64).map(Some),
        (Some(_), Some(_)) => Err(format!("it has both {field} and {field}_base64")),
    }
}

fn decode(field: &str, base64: &str) -> Result<Bytes, String> {
    let decoded = BASE64_STANDARD.decode(base64);
    let decoded = decoded.map_err(|error| format!("its {field} is not base64: {error}"))?;
    Ok(decoded.into())
}

/// Reads lines of bounded length and counts them.
struct Lines<R> {
    input: R,
    // Number of the last line read; the first one is 1.
    number: u64,
}

struct TooLong;

impl<R: BufRead> Lines<R> {
    fn new(input: R) -> Self {
        Self { input, number: 0 }
    }

    // Reads the next line; `None` at the end. A line that is too long is skipped, not buffered.
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

/// The results for all lines.
#[derive(Default)]
struct Report {
    // Number of signed lines for each author and store.
    good: BTreeMap<(Author, StoreId), u64>,
    // Accepted changes without a proof.
    missing: u64,
    // Lines that nobody signs, by kind.
    unsigned: BTreeMap<&'static str, u64>,
    // False lines.
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
            Verdict::Unsigned(kind) => {
                *self.unsigned.entry(kind).or_default() += 1;
                return Ok(());
            }
            Verdict::Empty => return Ok(()),
            Verdict::False(what) => what,
        };
        self.wrong += 1;
        if out.json {
            let r#type = "false";
            out.object(&FalseLine { r#type, line, what })?;
        } else {
            out.line(&format!("line {line}: {}", harmless(&what)))?;
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
                let noun = if lines == 1 { "line" } else { "lines" };
                out.line(&format!("author {author}: {lines} {noun}, store {store}"))?;
            }
        }
        if self.missing > 0 && !out.json {
            let noun = if self.missing == 1 { "line" } else { "lines" };
            out.line(&format!("{} {noun} without a proof", self.missing))?;
        }
        if out.json {
            out.object(&Checked {
                r#type: "checked",
                missing: self.missing,
                unsigned: self.unsigned,
                r#false: self.wrong,
            })?;
        } else if !self.unsigned.is_empty() {
            let kinds = self
                .unsigned
                .iter()
                .map(|(kind, lines)| format!("{lines} {kind}"));
            let kinds = kinds.collect::<Vec<_>>().join(", ");
            out.line(&format!(
                "not signed by anybody, only seen by a node: {kinds}"
            ))?;
        }
        out.flush()?;
        let message = match self.wrong {
            0 => return Ok(()),
            1 => "1 line is false".to_owned(),
            count => format!("{count} lines are false"),
        };
        Err(Failure::new(Exit::Damaged, "false_lines", message)
            .hint("they were forged, or changed after the watch printed them: do not act on them"))
    }
}

/// A false line, printed by `verify --lines --json`.
#[derive(Serialize)]
struct FalseLine {
    r#type: &'static str,
    /// Number of the line; the first one is 1.
    line: u64,
    /// Why the line is false, for people.
    what: String,
}

/// The number of lines that an author signed in a store.
#[derive(Serialize)]
struct SignedLines {
    r#type: &'static str,
    author: String,
    store: String,
    lines: u64,
}

/// The last object of the report.
#[derive(Serialize)]
struct Checked {
    r#type: &'static str,
    /// Accepted changes without a proof; 0 without `--allow-missing`.
    missing: u64,
    /// Number of lines of each kind that nobody signs, such as `expire` and `gap`.
    unsigned: BTreeMap<&'static str, u64>,
    r#false: u64,
}

/// Types of lines that are no changes. A damaged value is none: it could not be read.
const MARKERS: [&str; 4] = ["caught_up", "progress", "gap", "damaged"];

/// Bytes of a line: a proof in base64, and a value of which each byte is escaped with six
/// characters.
const LINE_BYTES_MAX: usize = 16 << 20;
/// Verdicts that wait to be counted; when full, reading waits.
const VERDICTS_AHEAD: usize = 64;

const _: () = assert!(LINE_BYTES_MAX >= ENTRY_BYTES_MAX * 4 / 3 + 6 * VALUE_BYTES_MAX + (1 << 20));

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use lattice::protocol::entry::{Header, Op, sign};

    use super::*;
    use crate::support::mutator::{Corpus, fuzz};

    // The line of a put that is really signed, unless `forged`.
    fn line_of(forged: bool) -> String {
        let header = Header {
            store: StoreId([5; 16]),
            seq: 1,
            prev: None,
            hlc: Hlc {
                wall_ms: 1_700_000_000_000,
                counter: 2,
            },
            atomic: false,
            cause: None,
            parents: Vec::new(),
        };
        let op = Op::Put {
            key: "/a".into(),
            value: "v".into(),
            expires_ms: None,
        };
        let entry = sign(&SigningKey::from_bytes(&[7; 32]), header, vec![op]).unwrap();
        let mut signed = entry.signed.clone();
        signed.signature[3] ^= u8::from(forged);
        let entry = signed.parse().unwrap();
        format!(
            r#"{{"type":"put","key":"/a","value":"v","entry":"{}","author":"{}","seq":1,"wall_ms":1700000000000,"counter":2,"op_index":0,"op_count":1,"atomic":false,"proof":"{}"}}"#,
            entry.id,
            entry.author(),
            BASE64_STANDARD.encode(entry.signed.encode()),
        )
    }

    #[test]
    fn l9_b8_changed_line_is_never_taken_for_another_signed_one() {
        let rules = Rules {
            authors: BTreeSet::new(),
            store: None,
            allow_missing: false,
        };
        let honest = line_of(false);
        let changes = [
            ("\"value\":\"v\"", "\"value\":\"w\""),
            ("\"value\":\"v\"", "\"value\":\"v\",\"expires_ms\":5"),
            ("\"type\":\"put\"", "\"type\":\"delete\""),
            ("\"key\":\"/a\"", "\"key\":\"/b\""),
            ("\"seq\":1", "\"seq\":2"),
            ("\"counter\":2", "\"counter\":3"),
            ("\"op_index\":0", "\"op_index\":1"),
            ("\"op_count\":1", "\"op_count\":2"),
            ("\"atomic\":false", "\"atomic\":true"),
            ("\"wall_ms\":1700", "\"wall_ms\":1701"),
        ];
        let broken = changes.map(|(from, to)| {
            let line = honest.replacen(from, to, 1);
            assert_ne!(line, honest, "{from}");
            line
        });
        let corpus = Corpus::new([honest.as_str()]).broken(broken);
        fuzz(&corpus.broken([line_of(true)]), |input| {
            match rules.judge(Ok(input.to_vec())) {
                Verdict::Good(author, store) => {
                    // The signed fields are as they were; spaces, other fields, escapes are free.
                    let line: Line = serde_json::from_slice(input).unwrap();
                    let key = line.key.map(String::into_bytes);
                    let key = key.or_else(|| Some(decode("key", &line.key_base64?).ok()?.into()));
                    assert_eq!(key.as_deref(), Some(&b"/a"[..]));
                    assert_eq!(
                        (line.seq, line.op_index, line.expires_ms),
                        (Some(1), Some(0), None)
                    );
                    assert_eq!(store, StoreId([5; 16]));
                    let named = line.author.and_then(|author| author.parse().ok());
                    assert_eq!(named, Some(author));
                    true
                }
                Verdict::Missing => panic!("a proof is asked for"),
                Verdict::Unsigned(_) | Verdict::Empty | Verdict::False(_) => false,
            }
        });
    }
}
