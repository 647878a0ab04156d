//! The part of a state file that describes its rows: their frontier, their counts, and the notes.

use redb::{ReadableDatabase as _, ReadableTable as _, TableHandle as _};

use crate::{
    id::{Author, EntryId},
    protocol::frontier::{Frontier, FrontierTip},
    state::{
        StateError, View, row,
        tables::{FRONTIER, LACKS, META, META_TABLE, NOTES, NOTES_TABLE, OF_EARLIER_BUILDS},
    },
};

/// The content of a state file besides its heads.
#[derive(Debug, Default)]
pub struct Stored {
    /// The entries from which the rows were computed.
    pub frontier: Frontier,
    /// True when some of these entries are missing from the rows: they could not be read when the
    /// file was built.
    pub lacks: bool,
    /// Notes: rows that the store keeps beside the state, key and body as they were given to
    /// `State::flush`.
    pub notes: Vec<(Vec<u8>, Vec<u8>)>,
    /// True when no file existed and an empty one was made.
    pub created: bool,
    /// True when an earlier build wrote the file, in a format that is not read. Only the notes are of
    /// use.
    pub outdated: bool,
}

/// Counts that belong to the rows and are stored with their frontier; see `View` for their meaning.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) keys: u64,
    pub(super) entries: u64,
    pub(super) expired_through_ms: u64,
}

/// Reads the notes, the frontier and the counts of a file.
///
/// # Errors
/// `Damaged` when a row fails its check, `Io`.
pub(super) fn read_stored(db: &redb::Database) -> Result<(Stored, Counts), StateError> {
    let read = db.begin_read()?;
    let mut tables = read.list_tables()?;
    let mut stored = Stored {
        outdated: tables.any(|table| OF_EARLIER_BUILDS.contains(&table.name())),
        ..Stored::default()
    };
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
    let truncated = || StateError::damaged("the frontier is truncated");
    let mut body = row::unseal(META, FRONTIER.as_bytes(), row.value())
        .ok_or_else(|| StateError::damaged("the frontier fails its check"))?;
    let mut number = || {
        let (number, rest) = body.split_first_chunk::<8>()?;
        body = rest;
        Some(u64::from_le_bytes(*number))
    };
    let counts = Counts {
        keys: number().ok_or_else(truncated)?,
        entries: number().ok_or_else(truncated)?,
        expired_through_ms: number().ok_or_else(truncated)?,
    };
    for tip in body.chunks(TIP_BYTES) {
        let (author, tip) = decode_tip(tip).ok_or_else(truncated)?;
        stored.frontier.insert(author, tip);
    }
    Ok((stored, counts))
}

/// Encodes the row of `FRONTIER`: the counts, then author, seq and id of each tip.
pub(super) fn encode_frontier(view: &View) -> Vec<u8> {
    let mut body = view.keys.to_le_bytes().to_vec();
    body.extend_from_slice(&view.entries.to_le_bytes());
    body.extend_from_slice(&view.expired_through_ms.to_le_bytes());
    for (author, tip) in view.frontier.iter() {
        body.extend_from_slice(&author.0);
        body.extend_from_slice(&tip.seq.to_le_bytes());
        body.extend_from_slice(&tip.id.0);
    }
    debug_assert!(
        body[COUNTS_BYTES..]
            .chunks(TIP_BYTES)
            .map(decode_tip)
            .eq(view.frontier.iter().map(Some)),
        "a frontier reads as what was written"
    );
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

const COUNTS_BYTES: usize = 3 * 8;
const TIP_BYTES: usize = 32 + 8 + 32;
