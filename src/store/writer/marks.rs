//! What the state remembers of the logs, as rows: where each branch ends, and its index.

use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _};

use crate::{
    id::{Author, EntryId},
    log::{IndexPoint, Logs, Mark},
    protocol::{chain::Tip, hlc::Hlc},
    store::writer::forks::Forks,
};

/// Which index points of each branch the state has.
#[derive(Debug, Default)]
pub(super) struct Marks {
    // Points that are in the file.
    saved: BTreeMap<(Author, u32), usize>,
    // Points that are on their way there.
    saving: BTreeMap<(Author, u32), usize>,
    // Which branches are closed.
    pub(super) forks: Forks,
    // The version at which the state was last built again since the store was opened.
    pub(super) rebuilt_at: Option<u64>,
}

impl Marks {
    /// Reads the marks from a state's notes; a note that is none makes `None` of all.
    pub(super) fn read(notes: &[(Vec<u8>, Vec<u8>)]) -> Option<(Self, Vec<Mark>)> {
        let mut marks = BTreeMap::new();
        for (key, body) in notes.iter().filter(|(key, _)| key.first() == Some(&BRANCH)) {
            let (branch, _) = decode_key(key)?;
            marks.insert(branch, decode_mark(branch, body)?);
        }
        for (key, body) in notes.iter().filter(|(key, _)| key.first() == Some(&POINT)) {
            let (branch, seq) = decode_key(key)?;
            let mut body = body.as_slice();
            let point = IndexPoint {
                seq: seq?,
                offset: body.try_get_u64_le().ok()?,
                wall_ms: body.try_get_u64_le().ok()?,
                arrived_ms: body.try_get_u64_le().ok()?,
            };
            marks.get_mut(&branch)?.index.push(point);
        }
        let saved = marks
            .iter()
            .map(|(branch, mark)| (*branch, mark.index.len()))
            .collect();
        Some((
            Self {
                saved,
                forks: Forks::read(notes)?,
                ..Self::default()
            },
            marks.into_values().collect(),
        ))
    }

    /// Returns the notes of what has changed since the last flush.
    pub(super) fn notes(&mut self, logs: &Logs) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut notes = Vec::new();
        for branch in logs.reader().all() {
            let Some(mark) = Mark::of(&branch) else {
                continue;
            };
            let key = (branch.author, branch.number);
            notes.push((encode_key(BRANCH, key, None), encode_mark(&mark)));
            let saved = self.saved.get(&key).copied().unwrap_or(0);
            let points = branch.index_from(saved);
            self.saving.insert(key, saved + points.len());
            for point in points {
                let mut body = Vec::with_capacity(24);
                body.put_u64_le(point.offset);
                body.put_u64_le(point.wall_ms);
                body.put_u64_le(point.arrived_ms);
                notes.push((encode_key(POINT, key, Some(point.seq)), body));
            }
        }
        notes.extend(self.forks.notes());
        notes
    }

    /// The notes last made are in the file.
    pub(super) fn flushed(&mut self) {
        self.saved.append(&mut self.saving);
    }

    /// The file is a new one: it has nothing.
    pub(super) fn forget(&mut self) {
        self.saved.clear();
        self.saving.clear();
        // All logs are read again.
        self.forks = Forks::default();
    }
}

fn encode_key(kind: u8, (author, number): (Author, u32), seq: Option<u64>) -> Vec<u8> {
    let mut key = vec![kind];
    key.put_slice(&author.0);
    key.put_u32(number);
    if let Some(seq) = seq {
        key.put_u64(seq);
    }
    key
}

fn decode_key(key: &[u8]) -> Option<((Author, u32), Option<u64>)> {
    let (_kind, key) = key.split_first()?;
    let (author, mut rest) = key.split_first_chunk::<32>()?;
    let number = rest.try_get_u32().ok()?;
    let seq = if rest.is_empty() {
        None
    } else {
        Some(rest.try_get_u64().ok()?)
    };
    Some(((Author(*author), number), seq))
}

fn encode_mark(mark: &Mark) -> Vec<u8> {
    let mut body = Vec::with_capacity(100);
    body.put_u64_le(mark.end);
    body.put_u64_le(mark.first);
    body.put_u64_le(mark.tip.seq);
    body.put_slice(&mark.tip.id.0);
    body.put_u64_le(mark.tip.hlc.wall_ms);
    body.put_u32_le(mark.tip.hlc.counter);
    if let Some(forked_from) = &mark.forked_from {
        body.put_slice(&forked_from.0);
    }
    body
}

fn decode_mark((author, number): (Author, u32), mut body: &[u8]) -> Option<Mark> {
    let end = body.try_get_u64_le().ok()?;
    let first = body.try_get_u64_le().ok()?;
    let seq = body.try_get_u64_le().ok()?;
    let (id, mut rest) = body.split_first_chunk::<32>()?;
    let hlc = Hlc::new(rest.try_get_u64_le().ok()?, rest.try_get_u32_le().ok()?)?;
    let forked_from = if rest.is_empty() {
        None
    } else {
        Some(EntryId::from_slice(rest)?)
    };
    let tip = Tip {
        seq,
        id: EntryId(*id),
        hlc,
    };
    Some(Mark {
        author,
        number,
        end,
        first,
        forked_from,
        tip,
        index: Vec::new(),
    })
}

const BRANCH: u8 = b'b';
const POINT: u8 = b'p';
