//! Conversions between the types of the library and the messages of the API.

use std::cmp::Reverse;

use bytes::Bytes;

use crate::{
    api::error::ApiError,
    id::{Author, EntryId},
    limits::HISTORY_BYTES_MAX,
    node::{HistorySummary, StoreInfo},
    protocol::{
        agreement::Divergence,
        change::{Change, EntryRef, Kind},
        entry::{Op, cause::Cause},
        frontier::FrontierTip,
        heads::{Head, Heads, hash_of},
    },
    store::{
        ClosedFork, Condition, Damage, HeadItem, History, HistoryEntry, Item, KnownFork, LogEntry,
        LostEntries, StoreStatus, TakenBack, Write, Written,
    },
    wire::api,
};

pub(super) fn bytes(id: &[u8]) -> Bytes {
    Bytes::copy_from_slice(id)
}

/// Returns the op of a message. A TTL counts from `now_ms`.
pub(super) fn op(message: api::Op, now_ms: u64) -> Op {
    if message.delete {
        Op::Delete { key: message.key }
    } else {
        let after = message.ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms));
        let expires_ms = message.expires_ms.or(after);
        Op::Put {
            key: message.key,
            value: message.value,
            expires_ms,
        }
    }
}

/// Returns the write of one op that applies only under `condition`.
pub(super) fn write(op: Op, condition: Option<Condition>) -> Write {
    Write {
        ops: vec![op],
        atomic: false,
        condition,
        cause: None,
    }
}

/// Reads the condition of a put.
///
/// # Errors
/// An error if both conditions are given, or if an entry id does not have 32 bytes.
pub(super) fn condition(if_absent: bool, if_head: &[u8]) -> Result<Option<Condition>, ApiError> {
    match (if_absent, if_head.is_empty()) {
        (false, true) => Ok(None),
        (true, true) => Ok(Some(Condition::Absent)),
        (false, false) => EntryId::from_slice(if_head)
            .map(|id| Some(Condition::Head(id)))
            .ok_or_else(|| wrong_length("if_head", if_head, 32)),
        (true, false) => Err(ApiError::usage(
            "two_conditions",
            "a put takes if_absent or if_head, not both",
        )),
    }
}

/// Reads the condition of a streamed write.
///
/// # Errors
/// An error if two conditions are given, or if an entry id or a hash does not have 32 bytes.
pub(super) fn condition_of_op(op: &api::Op) -> Result<Option<Condition>, ApiError> {
    let given = [
        op.if_absent,
        !op.if_head.is_empty(),
        !op.if_heads.is_empty(),
        !op.if_heads_hash.is_empty(),
    ];
    if given.into_iter().filter(|given| *given).count() > 1 {
        return Err(ApiError::usage(
            "two_conditions",
            "a write takes one of if_absent, if_head, if_heads and if_heads_hash",
        ));
    }
    if !op.if_heads_hash.is_empty() {
        let hash = <[u8; 32]>::try_from(&op.if_heads_hash[..]);
        return hash
            .map(|hash| Some(Condition::Heads(hash)))
            .map_err(|_length| wrong_length("if_heads_hash", &op.if_heads_hash, 32));
    }
    if op.if_heads.is_empty() {
        return condition(op.if_absent, &op.if_head);
    }
    let id = |id: &Bytes| EntryId::from_slice(id).ok_or_else(|| wrong_length("if_heads", id, 32));
    let ids: Vec<EntryId> = op.if_heads.iter().map(id).collect::<Result<_, _>>()?;
    Ok(Some(Condition::Heads(hash_of(ids))))
}

/// Reads an author. Returns `None` for empty bytes.
///
/// # Errors
/// An error if the length is neither 0 nor 32 bytes.
pub(super) fn author(bytes: &[u8]) -> Result<Option<Author>, ApiError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    Author::from_slice(bytes)
        .map(Some)
        .ok_or_else(|| wrong_length("author", bytes, 32))
}

/// Reads the name of a kind of change.
///
/// # Errors
/// An error if the name is unknown.
pub(super) fn kind(name: &str) -> Result<Kind, ApiError> {
    [Kind::Put, Kind::Delete, Kind::Expire, Kind::Retract]
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or_else(|| {
            ApiError::usage("bad_kind", format!("{name:?} is not a kind of change"))
                .hint("the kinds are put, delete, expire and retract")
        })
}

/// Returns the receipt of a write; an empty one if nothing was written.
pub(super) fn written(written: Option<&Written>) -> api::Written {
    let Some(written) = written else {
        return api::Written::default();
    };
    api::Written {
        entry: bytes(&written.entry.0),
        author: bytes(&written.author.0),
        seq: written.seq,
        wall_ms: written.hlc.wall_ms,
        counter: written.hlc.counter,
        op_index: written.op_index,
        op_count: written.op_count,
    }
}

pub(super) fn entry_ref(entry: &EntryRef) -> api::EntryRef {
    api::EntryRef {
        id: bytes(&entry.id.0),
        author: bytes(&entry.author.0),
        seq: entry.seq,
        wall_ms: entry.hlc.wall_ms,
        counter: entry.hlc.counter,
    }
}

pub(super) fn item(item: Item) -> api::Item {
    api::Item {
        key: item.key,
        value: item.value,
        entry: Some(entry_ref(&item.entry)),
        expires_ms: item.expires_ms,
        heads: item.heads,
        other_heads: item.other_heads.iter().map(|id| bytes(&id.0)).collect(),
    }
}

pub(super) fn head(head: HeadItem) -> api::Head {
    api::Head {
        entry: Some(entry_ref(&head.entry)),
        kind: kind_of(head.value.as_ref()),
        value: head.value.unwrap_or_default(),
        expires_ms: head.expires_ms,
        expired: head.expired,
        wins: head.wins,
    }
}

/// Returns a history, newest entries first, and whether it is truncated. Entries that no longer fit
/// into one answer are left out.
pub(super) fn history(mut history: History) -> (Vec<api::HistoryEntry>, bool) {
    let mut bytes = 0;
    let fit = history.entries.iter().take_while(|entry| {
        let value = entry.value.as_ref().map_or(0, Bytes::len);
        bytes += value + 64 * entry.parents.len() + 256;
        bytes <= HISTORY_BYTES_MAX
    });
    let fit = fit.count();
    let truncated = history.truncated || fit < history.entries.len();
    history.entries.truncate(fit);
    let entries = history.entries.into_iter().map(history_entry);
    (entries.collect(), truncated)
}

fn history_entry(entry: HistoryEntry) -> api::HistoryEntry {
    api::HistoryEntry {
        entry: Some(entry_ref(&entry.entry)),
        kind: kind_of(entry.value.as_ref()),
        value: entry.value.unwrap_or_default(),
        expires_ms: entry.expires_ms,
        parents: entry
            .parents
            .iter()
            .map(|parent| bytes(&parent.0))
            .collect(),
        head: entry.head,
        wins: entry.wins,
        cause: entry.cause.as_ref().map(cause),
    }
}

fn cause(cause: &Cause) -> api::EntryCause {
    api::EntryCause {
        consumer: cause.consumer.clone(),
        trigger: bytes(&cause.trigger.0),
        position: cause.position,
        depth: cause.depth,
    }
}

pub(super) fn change(change: &Change) -> api::Change {
    api::Change {
        key: change.key.clone(),
        kind: change.kind.name().to_owned(),
        value: change.value.clone(),
        expires_ms: change.expires_ms,
        entry: Some(entry_ref(&change.entry)),
        op_index: change.op_index,
        op_count: change.op_count,
        atomic: change.atomic,
        heads: heads(&change.heads),
        conflict: change.is_conflict(),
        previous: change.previous.as_ref().map(entry_ref),
        origin: change.origin.name().to_owned(),
        arrived_ms: change.arrived_ms,
        late: change.late,
        gap: change.gap.as_ref().map(|gap| api::Gap {
            reason: gap.reason.clone(),
            reach_ms: gap.reach_ms,
        }),
        ..api::Change::default()
    }
}

/// Returns an entry of a log, with its ops or as its author `signed` it.
pub(super) fn log_entry(entry: &LogEntry, signed: bool) -> api::LogEntry {
    let LogEntry {
        entry,
        branch,
        arrived_ms,
    } = entry;
    let header = &entry.header;
    api::LogEntry {
        entry: Some(api::EntryRef {
            id: bytes(&entry.id.0),
            author: bytes(&entry.signed.author.0),
            seq: header.seq,
            wall_ms: header.hlc.wall_ms,
            counter: header.hlc.counter,
        }),
        branch: *branch,
        prev: header.prev.map(|prev| bytes(&prev.0)).unwrap_or_default(),
        parents: header
            .parents
            .iter()
            .map(|parent| api::EntryRef {
                id: bytes(&parent.id.0),
                author: bytes(&parent.author.0),
                seq: parent.seq,
                wall_ms: parent.hlc.wall_ms,
                counter: parent.hlc.counter,
            })
            .collect(),
        atomic: header.atomic,
        arrived_ms: *arrived_ms,
        ops: match signed {
            true => Vec::new(),
            false => entry.ops.iter().map(log_op).collect(),
        },
        signed: match signed {
            true => entry.signed.encode().into(),
            false => Bytes::new(),
        },
        cause: header.cause.as_ref().map(cause),
        pruned_through: 0,
    }
}

pub(super) fn store_info(info: &StoreInfo) -> api::StoreInfo {
    api::StoreInfo {
        id: bytes(&info.id.0),
        name: info.name.clone(),
        root: info.root,
        private: info.private,
        data: info.data,
    }
}

/// Returns the bytes of an author; none for `None`.
pub(super) fn author_or_empty(author: Option<Author>) -> Bytes {
    author.map_or_else(Bytes::new, |author| bytes(&author.0))
}

/// Returns the history of a store as of the last look.
pub(super) fn store_history(summary: &HistorySummary) -> api::StoreHistory {
    let nodes = summary.awaited.iter().map(|node| bytes(&node.0));
    api::StoreHistory {
        final_bytes: summary.final_bytes,
        open_bytes: summary.open_bytes,
        through_ms: summary.through_ms,
        awaited: nodes.take(ROWS_MAX).collect(),
        trouble: summary.trouble.clone().unwrap_or_default(),
    }
}

/// Returns the status of a store. `diverged`: members that have signed another state of it.
pub(super) fn store_status(
    info: &StoreInfo,
    status: StoreStatus,
    diverged: &[(Author, Divergence)],
) -> api::StoreStatus {
    let of_author = &status.log_bytes_by_author;
    let tip = |(author, tip): (Author, FrontierTip)| api::Tip {
        author: bytes(&author.0),
        seq: tip.seq,
        id: bytes(&tip.id.0),
        log_bytes: of_author.get(&author).copied().unwrap_or(0),
    };
    let mut applied: Vec<api::Tip> = status.applied.iter().map(tip).collect();
    if applied.len() > ROWS_MAX {
        applied.sort_by_key(|tip| Reverse(tip.log_bytes));
    }
    api::StoreStatus {
        info: Some(store_info(info)),
        entries: status.entries,
        keys: status.keys,
        log_bytes: status.log_bytes,
        state_bytes: status.state_bytes,
        more_authors: more(applied.len()),
        applied: applied.into_iter().take(ROWS_MAX).collect(),
        pending_entries: status.pending_entries as u64,
        pending_bytes: status.pending_bytes as u64,
        held_entries: status.held_entries as u64,
        held: status
            .held
            .iter()
            .map(|held| api::HeldEntry {
                author: bytes(&held.author.0),
                id: bytes(&held.id.0),
                due_ms: held.due_ms,
            })
            .collect(),
        forks: status.forks.iter().take(ROWS_MAX).map(fork).collect(),
        more_forks: more(status.forks.len()),
        damage: lines(status.damage),
        watchers: status.watchers as u64,
        poisoned: status.poisoned.unwrap_or_default(),
        recovered: lines(status.recovered),
        expired_through_ms: status.expired_through_ms,
        void_acts: status.void_acts as u64,
        diverged: diverged.iter().take(ROWS_MAX).map(divergence).collect(),
        history: None,
    }
}

// Rows or lines of one list in the status of a store, so that it fits into a message.
const ROWS_MAX: usize = 1024;

fn more(rows: usize) -> u64 {
    rows.saturating_sub(ROWS_MAX) as u64
}

fn lines(mut lines: Vec<String>) -> Vec<String> {
    let more = more(lines.len());
    if more > 0 {
        lines.truncate(ROWS_MAX);
        lines.push(format!("and {more} more"));
    }
    lines
}

fn divergence((node, divergence): &(Author, Divergence)) -> api::Divergence {
    let count = |members: usize| u32::try_from(members).unwrap_or(u32::MAX);
    api::Divergence {
        node: bytes(&node.0),
        root_here: bytes(&divergence.here.root.0),
        root_there: bytes(&divergence.there.0),
        with_here: count(divergence.with_here),
        with_there: count(divergence.with_there),
    }
}

fn fork(fork: &KnownFork) -> api::Fork {
    api::Fork {
        author: bytes(&fork.proof.author.0),
        seq: fork.proof.seq,
        entries: fork.proof.entries.iter().map(|id| bytes(&id.0)).collect(),
        closed: fork.closed,
        spent: fork.spent,
    }
}

pub(super) fn taken_back(taken_back: &TakenBack) -> api::TakenBack {
    api::TakenBack {
        entries: taken_back.entries,
        keys: taken_back.keys,
        tip: bytes(&taken_back.tip.0),
        seq: taken_back.seq,
    }
}

pub(super) fn closed_fork(closed: &ClosedFork) -> api::ClosedFork {
    api::ClosedFork {
        id: bytes(&closed.entry.0),
        seq: closed.seq,
        tips: closed.tips.iter().map(|id| bytes(&id.0)).collect(),
    }
}

pub(super) fn damage(damage: Damage) -> api::Damage {
    api::Damage {
        r#where: damage.place.name().to_owned(),
        what: damage.what,
        author: damage
            .author
            .map(|author| bytes(&author.0))
            .unwrap_or_default(),
        seq: damage.seq.unwrap_or_default(),
        file: damage.file,
        offset: damage.offset,
        bytes: damage.bytes,
        key: damage.key.unwrap_or_default(),
    }
}

pub(super) fn lost(lost: LostEntries) -> api::LostEntries {
    api::LostEntries {
        file: lost.file,
        first: lost.first,
        through: lost.through,
    }
}

// The API lists the winner first; the library keeps it last.
fn heads(heads: &Heads) -> Vec<api::EntryRef> {
    let entry = |head: &Head| api::EntryRef {
        id: bytes(&head.id.0),
        author: bytes(&head.author.0),
        seq: head.seq,
        wall_ms: head.hlc.wall_ms,
        counter: head.hlc.counter,
    };
    heads.as_slice().iter().rev().map(entry).collect()
}

fn log_op(op: &Op) -> api::LogOp {
    match op {
        Op::Put {
            key,
            value,
            expires_ms,
        } => api::LogOp {
            kind: Kind::Put.name().to_owned(),
            key: key.clone(),
            value: value.clone(),
            expires_ms: *expires_ms,
        },
        Op::Delete { key } => api::LogOp {
            kind: Kind::Delete.name().to_owned(),
            key: key.clone(),
            ..api::LogOp::default()
        },
    }
}

fn kind_of(value: Option<&Bytes>) -> String {
    if value.is_some() {
        Kind::Put
    } else {
        Kind::Delete
    }
    .name()
    .to_owned()
}

fn wrong_length(field: &str, bytes: &[u8], expected: usize) -> ApiError {
    let message = format!("{field} has {} bytes instead of {expected}", bytes.len());
    ApiError::usage("wrong_length", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::StoreId;

    #[test]
    fn ttl_counts_from_now_without_overflow() {
        let message = |ttl_ms| api::Op {
            key: "/k".into(),
            ttl_ms,
            ..api::Op::default()
        };
        let expires = |op| match op {
            Op::Put { expires_ms, .. } => expires_ms,
            Op::Delete { .. } => panic!("a put was sent"),
        };
        assert_eq!(expires(op(message(None), 100)), None);
        assert_eq!(expires(op(message(Some(5)), 100)), Some(105));
        assert_eq!(expires(op(message(Some(u64::MAX)), 100)), Some(u64::MAX));
    }

    /// A store with very many authors and damaged places was an answer that no client took.
    #[test]
    fn long_lists_of_a_status_are_cut() {
        use prost::Message as _;

        use crate::limits::{PAGE_BYTES, REPLY_BYTES_MAX};

        let authors = (0..100_000_u32).map(|number| {
            let mut author = [0; 32];
            author[..4].copy_from_slice(&number.to_be_bytes());
            let tip = FrontierTip {
                seq: 1,
                id: EntryId([7; 32]),
            };
            (Author(author), tip)
        });
        let status = StoreStatus {
            applied: authors.collect(),
            damage: vec!["x".repeat(300); 50_000],
            recovered: vec!["x".repeat(300); ROWS_MAX],
            ..StoreStatus::default()
        };
        let info = StoreInfo {
            id: StoreId([1; 16]),
            name: "n".to_owned(),
            root: false,
            data: false,
            private: false,
        };
        let status = store_status(&info, status, &[]);
        assert!(status.encoded_len() + PAGE_BYTES < REPLY_BYTES_MAX);
        assert_eq!(status.more_authors, 100_000 - ROWS_MAX as u64);
        let more = status.damage.last().map(String::as_str);
        assert_eq!(more, Some("and 48976 more"));
        assert_eq!(status.recovered.len(), ROWS_MAX);
    }

    #[test]
    fn id_of_wrong_length_is_refused() {
        assert_eq!(author(&[]), Ok(None));
        assert_eq!(author(&[7; 32]), Ok(Some(Author([7; 32]))));
        assert_eq!(author(&[7; 31]).unwrap_err().code, "wrong_length");
        assert_eq!(condition(false, &[7; 33]).unwrap_err().code, "wrong_length");
        assert_eq!(
            condition(true, &[7; 32]).unwrap_err().code,
            "two_conditions"
        );
    }
}
