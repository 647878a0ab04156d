//! Messages of the API as values of the library, and back.
//!
//! An answer that a node of this version does not send becomes an error, never a default.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    calls::{
        Condition, ConsumerOptions, ConsumerStart, Item, Start, WatchEvent, WatchMode,
        WatchOptions, Written,
    },
    client::error::{ApiError, EXIT_FAILED},
    id::{Author, EntryId},
    protocol::{
        change::{Change, EntryRef, Kind, Origin},
        entry::Op,
        gap::Gap,
        heads::{Content, Head, Heads, Value},
        hlc::Hlc,
    },
    wire::api::{self, consumer_start, watch_reply::Event, watch_request},
};

/// Returns the error of an answer that is not as `proto/api.proto` says.
pub(super) fn malformed(what: &str) -> ApiError {
    let message = format!("the answer of the node is malformed: {what}");
    ApiError::new("malformed_answer", EXIT_FAILED, message)
        .hint("the node runs another version of lattice; restart it with this one")
}

pub(super) fn op(op: Op) -> api::Op {
    match op {
        Op::Put {
            key,
            value,
            expires_ms,
        } => api::Op {
            key,
            value,
            expires_ms,
            ..api::Op::default()
        },
        Op::Delete { key } => api::Op {
            key,
            delete: true,
            ..api::Op::default()
        },
    }
}

/// Returns the op with its condition, as a stream of writes takes it.
pub(super) fn conditional(op: Op, condition: Option<Condition>) -> api::Op {
    let mut op = self::op(op);
    match condition {
        None => {}
        Some(Condition::Absent) => op.if_absent = true,
        Some(Condition::Head(id)) => op.if_head = bytes(&id.0),
        Some(Condition::Heads(hash)) => op.if_heads_hash = bytes(&hash),
    }
    op
}

/// Reads the receipt of a write; `None` if nothing was written.
pub(super) fn written(written: &api::Written) -> Result<Option<Written>, ApiError> {
    if written.entry.is_empty() {
        return Ok(None);
    }
    let entry = EntryId::from_slice(&written.entry).zip(Author::from_slice(&written.author));
    let (entry, author) = entry.ok_or_else(|| malformed("an id in a receipt"))?;
    Ok(Some(Written {
        entry,
        author,
        seq: written.seq,
        hlc: Hlc {
            wall_ms: written.wall_ms,
            counter: written.counter,
        },
        op_index: written.op_index,
        op_count: written.op_count,
    }))
}

pub(super) fn item(item: api::Item) -> Result<Item, ApiError> {
    let others = item.other_heads.iter().map(|id| EntryId::from_slice(id));
    Ok(Item {
        key: item.key,
        value: item.value,
        entry: entry_ref(item.entry.as_ref())?,
        expires_ms: item.expires_ms,
        heads: item.heads,
        other_heads: others
            .collect::<Option<_>>()
            .ok_or_else(|| malformed("the id of a head"))?,
    })
}

/// Returns the request for a watch, in which each change has its cursor.
pub(super) fn watch(store: String, options: WatchOptions) -> api::WatchRequest {
    use watch_request::Start as Asked;
    let start = match options.start {
        Start::Now => Asked::Now(true),
        Start::Initial => Asked::Initial(true),
        Start::After(cursor) => Asked::After(cursor.to_string()),
        Start::SinceAuthored { ms } => Asked::SinceAuthoredMs(ms),
        Start::SinceArrived { ms } => Asked::SinceArrivedMs(ms),
    };
    let kinds = options.kinds.unwrap_or_default();
    let heartbeat_ms = u64::try_from(options.heartbeat.as_millis()).unwrap_or(u64::MAX);
    api::WatchRequest {
        store,
        exact: options.exact,
        start: Some(start),
        latest: options.mode == WatchMode::Latest,
        keys_only: options.keys_only,
        kinds: kinds.iter().map(|kind| kind.name().to_owned()).collect(),
        conflicts_only: options.conflicts_only,
        author: options.author.map_or_else(Bytes::new, |id| bytes(&id.0)),
        // 0 would be the default of the node.
        heartbeat_ms: heartbeat_ms.max(1),
        cursors: true,
        wait: options.wait,
        prefixes: options.prefixes,
        patterns: options
            .patterns
            .iter()
            .map(|it| it.text().clone())
            .collect(),
        until_ms: options.until_ms,
        ..api::WatchRequest::default()
    }
}

pub(super) fn event(event: Event) -> Result<WatchEvent, ApiError> {
    Ok(match event {
        Event::Change(it) => WatchEvent::Change(Arc::new(change(it)?)),
        Event::CaughtUp(_) => WatchEvent::CaughtUp,
        Event::Progress(_) => WatchEvent::Progress,
        Event::Gap(gap) => WatchEvent::Gap {
            reason: gap.reason,
            reach_ms: gap.reach_ms,
        },
        Event::Damaged(it) => WatchEvent::Damaged {
            entry: entry_ref(it.entry.as_ref())?,
            key: it.key,
            what: it.what,
        },
    })
}

/// Reads a change. What is not in the message is as [`Change`] says for a client.
pub(super) fn change(change: api::Change) -> Result<Change, ApiError> {
    let kind = kind(&change.kind)?;
    let entry = entry_ref(change.entry.as_ref())?;
    let content = match (kind, &change.value) {
        (Kind::Put, Some(value)) => Some(Content::Value {
            value: Value::Inline(value.clone()),
            expires_ms: change.expires_ms,
        }),
        (Kind::Delete, _) => Some(Content::Tombstone),
        _unknown => None,
    };
    let mut heads = Vec::with_capacity(change.heads.len());
    // The winner comes first. A head that is above one before it in the order was taken back.
    let mut lowest = None;
    for head in &change.heads {
        let head = entry_ref(Some(head))?;
        let taken_back = lowest.is_some_and(|lowest| head.order() > lowest);
        lowest = lowest.filter(|_| taken_back).or(Some(head.order()));
        let known = content.clone().filter(|_| head.id == entry.id);
        heads.push(Head {
            hlc: head.hlc,
            author: head.author,
            id: head.id,
            seq: head.seq,
            content: known.unwrap_or(UNKNOWN),
            taken_back,
        });
    }
    heads.reverse();
    let previous = change.previous.as_ref();
    Ok(Change {
        key: change.key,
        kind,
        value: change.value,
        expires_ms: change.expires_ms,
        entry,
        prev: None,
        op_index: change.op_index,
        op_count: change.op_count,
        atomic: change.atomic,
        depth: 0,
        heads: Heads::in_order(heads),
        previous: previous.map(|it| entry_ref(Some(it))).transpose()?,
        origin: origin(&change.origin)?,
        arrived_ms: change.arrived_ms,
        late: change.late,
        gap: change.gap.map(|gap| {
            Arc::new(Gap {
                reason: gap.reason,
                reach_ms: gap.reach_ms,
            })
        }),
        gap_number: 0,
    })
}

/// Returns the request that makes a consumer.
pub(super) fn consumer(
    store: &str,
    consumer: &str,
    options: &ConsumerOptions,
) -> api::CreateConsumerRequest {
    use consumer_start::Start as Asked;
    let start = match &options.from {
        ConsumerStart::Beginning => Asked::Beginning(true),
        ConsumerStart::Now => Asked::Now(true),
        ConsumerStart::After(cursor) => Asked::After(cursor.to_string()),
        ConsumerStart::SinceAuthored { ms } => Asked::SinceAuthoredMs(*ms),
        ConsumerStart::SinceArrived { ms } => Asked::SinceArrivedMs(*ms),
    };
    let ms = |wait: &std::time::Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    api::CreateConsumerRequest {
        store: store.to_owned(),
        consumer: consumer.to_owned(),
        prefixes: options.prefixes.clone(),
        from: Some(api::ConsumerStart { start: Some(start) }),
        ack_wait_ms: ms(&options.ack_wait),
        max_deliver: Some(options.max_deliver.unwrap_or(0)),
        max_in_flight: u32::try_from(options.max_in_flight).unwrap_or(u32::MAX),
        backoff_ms: options.backoff.iter().map(ms).collect(),
        on_gap: options.on_gap.name().to_owned(),
    }
}

pub(super) fn bytes(id: &[u8]) -> Bytes {
    Bytes::copy_from_slice(id)
}

fn entry_ref(entry: Option<&api::EntryRef>) -> Result<EntryRef, ApiError> {
    let read = |entry: &api::EntryRef| {
        Some(EntryRef {
            id: EntryId::from_slice(&entry.id)?,
            author: Author::from_slice(&entry.author)?,
            seq: entry.seq,
            hlc: Hlc {
                wall_ms: entry.wall_ms,
                counter: entry.counter,
            },
        })
    };
    entry
        .and_then(read)
        .ok_or_else(|| malformed("the reference to an entry"))
}

fn kind(name: &str) -> Result<Kind, ApiError> {
    [
        Kind::Put,
        Kind::Delete,
        Kind::Expire,
        Kind::Retract,
        Kind::Gap,
    ]
    .into_iter()
    .find(|kind| kind.name() == name)
    .ok_or_else(|| malformed("an unknown kind of change"))
}

fn origin(name: &str) -> Result<Origin, ApiError> {
    [
        Origin::Local,
        Origin::Remote,
        Origin::Replay,
        Origin::Initial,
    ]
    .into_iter()
    .find(|origin| origin.name() == name)
    .ok_or_else(|| malformed("an unknown origin of a change"))
}

// The content of a head that the message does not have.
const UNKNOWN: Content = Content::Value {
    value: Value::InLog {
        bytes: 0,
        hash: [0; 32],
    },
    expires_ms: None,
};
