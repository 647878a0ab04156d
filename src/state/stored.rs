//! What a state file says of itself: the frontier of its rows, their counts, and notes.

use redb::{ReadableDatabase as _, ReadableTable as _};

use crate::{
    id::{Author, EntryId},
    protocol::frontier::{Frontier, FrontierTip},
    state::{
        StateError, View, row,
        tables::{FRONTIER, LACKS, META, META_TABLE, NOTES, NOTES_TABLE},
    },
};

/// What a state file remembers.
#[derive(Debug, Default)]
pub struct Stored {
    /// The entries that its rows follow from.
    pub frontier: Frontier,
    /// True where some of them could not be read when it was built.
    pub lacks: bool,
    /// Rows that the store keeps beside the state, as they were given to `flush`.
    pub notes: Vec<(Vec<u8>, Vec<u8>)>,
    /// True when there was no file.
    pub created: bool,
}

/// Numbers that are true of the rows, kept with their frontier.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) keys: u64,
    pub(super) entries: u64,
    pub(super) expired_through_ms: u64,
}

/// Reads the notes, and what the file says of its rows.
pub(super) fn read_stored(db: &redb::Database) -> Result<(Stored, Counts), StateError> {
    let read = db.begin_read()?;
    let mut stored = Stored::default();
    for row in read.open_table(NOTES_TABLE)?.iter()? {
        let (key, row) = row?;
        let body = row::unseal(NOTES, key.value(), row.value())
            .ok_or_else(|| StateError::damaged("a note fails its check"))?;
        stored.notes.push((key.value().to_vec(), body.to_vec()));
    }
    let meta = read.open_table(META_TABLE)?;
    stored.lacks = meta.get(LACKS)?.is_some();
    let Some(row) = meta.get(FRONTIER)? else {
        return Ok((stored, Counts::default()));
    };
    let cut = || StateError::damaged("the frontier is cut");
    let mut body = row::unseal(META, FRONTIER.as_bytes(), row.value())
        .ok_or_else(|| StateError::damaged("the frontier fails its check"))?;
    let mut number = || {
        let (number, rest) = body.split_first_chunk::<8>()?;
        body = rest;
        Some(u64::from_le_bytes(*number))
    };
    let counts = Counts {
        keys: number().ok_or_else(cut)?,
        entries: number().ok_or_else(cut)?,
        expired_through_ms: number().ok_or_else(cut)?,
    };
    for tip in body.chunks(TIP_BYTES) {
        let (author, tip) = decode_tip(tip).ok_or_else(cut)?;
        stored.frontier.insert(author, tip);
    }
    Ok((stored, counts))
}

/// Returns the row that says what the file's rows follow from.
pub(super) fn encode_frontier(view: &View) -> Vec<u8> {
    let mut body = view.keys.to_le_bytes().to_vec();
    body.extend_from_slice(&view.entries.to_le_bytes());
    body.extend_from_slice(&view.expired_through_ms.to_le_bytes());
    for (author, tip) in view.frontier.iter() {
        body.extend_from_slice(&author.0);
        body.extend_from_slice(&tip.seq.to_le_bytes());
        body.extend_from_slice(&tip.id.0);
    }
    row::seal(META, FRONTIER.as_bytes(), body)
}

fn decode_tip(bytes: &[u8]) -> Option<(Author, FrontierTip)> {
    let (author, rest) = bytes.split_first_chunk::<32>()?;
    let (seq, id) = rest.split_first_chunk::<8>()?;
    let tip = FrontierTip {
        seq: u64::from_le_bytes(*seq),
        id: EntryId::from_slice(id)?,
    };
    Some((Author(*author), tip))
}

const TIP_BYTES: usize = 32 + 8 + 32;
