//! The JSON objects of `--json`. Their fields are a promise: new ones may come, none changes.
//!
//! Bytes are two fields of which one is present: `key` when they are UTF-8, else `key_base64`
//! (standard alphabet, padded); likewise `value`. Ids are hex digits, stores are UUIDs, times are
//! milliseconds since 1970 (UTC), `hlc` is `wall_ms` and `counter`.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use lattice::wire::api;
use serde::Serialize;

use crate::cli::exit::Failure;

/// Returns an object as one line.
pub(crate) fn to_json(object: &impl Serialize) -> String {
    serde_json::to_string(object).expect("strings, numbers and lists of them have a JSON form")
}

/// Returns an id as hex digits.
pub(crate) fn hex(id: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(id)
}

/// Returns the first eight hex digits of an id, for people.
pub(crate) fn short(id: &[u8]) -> String {
    hex(id.get(..4).unwrap_or(id))
}

/// Returns the id of a store as a UUID.
pub(crate) fn uuid(id: &[u8]) -> String {
    lattice::id::StoreId::from_slice(id).map_or_else(|| hex(id), |id| id.to_string())
}

/// Something on stderr that is no error.
#[derive(Serialize)]
pub(crate) struct Notice<'a> {
    /// Stable name.
    pub(crate) notice: &'a str,
    /// For people.
    pub(crate) message: &'a str,
}

/// A key.
#[derive(Serialize)]
pub(crate) struct Key {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
}

impl Key {
    /// Makes it from the key's bytes.
    pub(crate) fn new(key: &[u8]) -> Self {
        let (key, key_base64) = text_or_base64(Some(key));
        Self { key, key_base64 }
    }
}

/// A value, or none.
#[derive(Serialize)]
pub(crate) struct Value {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl Value {
    /// Makes it from the value's bytes; `None`: neither field.
    pub(crate) fn new(value: Option<&[u8]>) -> Self {
        let (value, value_base64) = text_or_base64(value);
        Self {
            value,
            value_base64,
        }
    }
}

fn text_or_base64(bytes: Option<&[u8]>) -> (Option<String>, Option<String>) {
    match bytes.map(|bytes| (str::from_utf8(bytes), bytes)) {
        None => (None, None),
        Some((Ok(text), _)) => (Some(text.to_owned()), None),
        Some((Err(_binary), bytes)) => (None, Some(BASE64_STANDARD.encode(bytes))),
    }
}

/// An entry: who wrote it, where in the log, when.
#[derive(Serialize)]
pub(crate) struct Entry {
    entry: String,
    author: String,
    seq: u64,
    wall_ms: u64,
    counter: u32,
}

impl From<&api::EntryRef> for Entry {
    fn from(entry: &api::EntryRef) -> Self {
        Self {
            entry: hex(&entry.id),
            author: hex(&entry.author),
            seq: entry.seq,
            wall_ms: entry.wall_ms,
            counter: entry.counter,
        }
    }
}

impl From<&api::Written> for Entry {
    fn from(written: &api::Written) -> Self {
        Self {
            entry: hex(&written.entry),
            author: hex(&written.author),
            seq: written.seq,
            wall_ms: written.wall_ms,
            counter: written.counter,
        }
    }
}

/// A key with its value, from `get` and `list`.
#[derive(Serialize)]
pub(crate) struct Item {
    #[serde(flatten)]
    key: Key,
    /// Absent with `--keys-only`.
    #[serde(flatten)]
    value: Value,
    #[serde(flatten)]
    entry: Entry,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    /// 1, or more in a conflict.
    heads: u32,
    conflict: bool,
}

impl Item {
    /// Makes it from an answer.
    pub(crate) fn new(item: &api::Item, keys_only: bool) -> Self {
        Self {
            key: Key::new(&item.key),
            value: Value::new((!keys_only).then_some(&item.value)),
            entry: Entry::from(&item.entry.clone().unwrap_or_default()),
            expires_ms: item.expires_ms,
            heads: item.heads,
            conflict: item.heads > 1,
        }
    }
}

/// One head of a key, from `heads`.
#[derive(Serialize)]
pub(crate) struct Head {
    /// `put` or `delete`.
    kind: String,
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    value: Value,
    #[serde(flatten)]
    entry: Entry,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    expired: bool,
    /// True for the one that reads see.
    wins: bool,
}

impl Head {
    /// Makes it from an answer about `key`.
    pub(crate) fn new(key: &[u8], head: &api::Head) -> Self {
        Self {
            kind: head.kind.clone(),
            key: Key::new(key),
            value: Value::new((head.kind == "put").then_some(&head.value)),
            entry: Entry::from(&head.entry.clone().unwrap_or_default()),
            expires_ms: head.expires_ms,
            expired: head.expired,
            wins: head.wins,
        }
    }
}

/// One entry of a key, from `history`.
#[derive(Serialize)]
pub(crate) struct Past {
    /// `put` or `delete`.
    kind: String,
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    value: Value,
    #[serde(flatten)]
    entry: Entry,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    /// Entries of this key that it superseded.
    parents: Vec<String>,
    /// True when nothing supersedes it.
    head: bool,
    wins: bool,
}

impl Past {
    /// Makes it from an answer about `key`.
    pub(crate) fn new(key: &[u8], past: &api::HistoryEntry) -> Self {
        Self {
            kind: past.kind.clone(),
            key: Key::new(key),
            value: Value::new((past.kind == "put").then_some(&past.value)),
            entry: Entry::from(&past.entry.clone().unwrap_or_default()),
            expires_ms: past.expires_ms,
            parents: past.parents.iter().map(|id| hex(id)).collect(),
            head: past.head,
            wins: past.wins,
        }
    }
}

/// An entry of a log, from `log`.
#[derive(Serialize)]
pub(crate) struct Logged {
    #[serde(flatten)]
    entry: Entry,
    /// 0, or more after a fork.
    branch: u32,
    /// The author's entry before; absent for the first.
    #[serde(skip_serializing_if = "String::is_empty")]
    prev: String,
    parents: Vec<String>,
    atomic: bool,
    arrived_ms: u64,
    ops: Vec<LoggedOp>,
}

/// One op of [`Logged`].
#[derive(Serialize)]
struct LoggedOp {
    /// `put` or `delete`.
    kind: String,
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    value: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
}

impl From<&api::LogEntry> for Logged {
    fn from(logged: &api::LogEntry) -> Self {
        let ops = logged.ops.iter().map(|op| LoggedOp {
            kind: op.kind.clone(),
            key: Key::new(&op.key),
            value: Value::new((op.kind == "put").then_some(&op.value)),
            expires_ms: op.expires_ms,
        });
        Self {
            entry: Entry::from(&logged.entry.clone().unwrap_or_default()),
            branch: logged.branch,
            prev: hex(&logged.prev),
            parents: logged
                .parents
                .iter()
                .map(|parent| hex(&parent.id))
                .collect(),
            atomic: logged.atomic,
            arrived_ms: logged.arrived_ms,
            ops: ops.collect(),
        }
    }
}

/// A line of `watch --json`; `type` is the first field.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Event {
    /// `put`, `delete`, `expire`, `retract`.
    Change(Box<Change>),
    /// `caught_up`, `progress`, `gap`.
    Mark(Mark),
}

/// A change of a key.
#[derive(Serialize)]
pub(crate) struct Change {
    r#type: String,
    #[serde(flatten)]
    key: Key,
    /// Of a put only, and not with `--keys-only`.
    #[serde(flatten)]
    value: Value,
    /// What made the change; of an expiry, the entry that expired.
    #[serde(flatten)]
    entry: Entry,
    /// Index of this change in its entry.
    op_index: u32,
    op_count: u32,
    /// True for a batch that is delivered whole.
    atomic: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    /// All heads of the key now, the winner first.
    heads: Vec<String>,
    conflict: bool,
    /// The winner before.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
    /// `local`, `remote`, `replay`, `initial`.
    origin: String,
    arrived_ms: u64,
    /// True when something newer was known already.
    late: bool,
    /// Only with `--cursors`.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

impl Change {
    /// Makes it from an event of the API.
    pub(crate) fn new(change: &api::Change, cursor: Option<&str>) -> Self {
        Self {
            r#type: change.kind.clone(),
            key: Key::new(&change.key),
            value: Value::new(change.value.as_deref()),
            entry: Entry::from(&change.entry.clone().unwrap_or_default()),
            op_index: change.op_index,
            op_count: change.op_count,
            atomic: change.atomic,
            expires_ms: change.expires_ms,
            heads: change.heads.iter().map(|head| hex(&head.id)).collect(),
            conflict: change.conflict,
            previous: change.previous.as_ref().map(|entry| hex(&entry.id)),
            origin: change.origin.clone(),
            arrived_ms: change.arrived_ms,
            late: change.late,
            cursor: cursor.map(str::to_owned),
        }
    }
}

/// Something that a watch says about itself.
#[derive(Serialize)]
pub(crate) struct Mark {
    /// `caught_up`: the state, or the replay, is complete. `progress`: nothing was missed up to
    /// here. `gap`: history is gone, forget keys that are not named before the next `caught_up`.
    pub(crate) r#type: &'static str,
    /// Of a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// The node's clock, of a progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) now_ms: Option<u64>,
    /// Where to go on from, with `--after`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
}

/// Where `up` and `init` put the node.
#[derive(Serialize)]
pub(crate) struct Started {
    /// `up`, or `init`.
    pub(crate) r#type: &'static str,
    pub(crate) node: String,
    pub(crate) data_dir: String,
    /// Of `up`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) socket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<u32>,
    /// False when it was there already.
    pub(crate) created: bool,
}

/// The process that `down` stopped.
#[derive(Serialize)]
pub(crate) struct Stopped {
    pub(crate) pid: u32,
}

/// How much `put --stdin` wrote.
#[derive(Serialize)]
pub(crate) struct Count {
    /// Writes that are on disk.
    pub(crate) written: u64,
}

/// How much `delete --prefix` deleted.
#[derive(Serialize)]
pub(crate) struct Deleted {
    /// Keys.
    pub(crate) deleted: u64,
}

/// A store.
#[derive(Serialize)]
pub(crate) struct Store {
    pub(crate) store: String,
    /// Empty: the root store was never named.
    pub(crate) name: String,
    pub(crate) root: bool,
}

impl Store {
    /// Makes it from an answer.
    pub(crate) fn new(info: Option<&api::StoreInfo>) -> Self {
        let info = info.cloned().unwrap_or_default();
        Self {
            store: uuid(&info.id),
            name: info.name,
            root: info.root,
        }
    }
}

/// The store that this directory uses, from `store use`.
#[derive(Serialize)]
pub(crate) struct Used {
    /// Absent: the root store.
    pub(crate) store: Option<String>,
}

/// The node, from `status`.
#[derive(Serialize)]
pub(crate) struct Status {
    node: String,
    version: String,
    data_dir: String,
    /// Absent when the node serves none.
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<String>,
    pid: u32,
    started_ms: u64,
    now_ms: u64,
    stores: Vec<StoreStatus>,
}

/// One store of [`Status`].
#[derive(Serialize)]
struct StoreStatus {
    #[serde(flatten)]
    store: Store,
    entries: u64,
    /// Keys ever written, deleted ones included.
    keys: u64,
    log_bytes: u64,
    state_bytes: u64,
    /// The newest entry of each author.
    tips: Vec<Tip>,
    pending_entries: u64,
    pending_bytes: u64,
    held: Vec<Held>,
    /// Authors with two entries of one number.
    forked: Vec<String>,
    damage: Vec<String>,
    watchers: u64,
    /// Why writes are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    poisoned: Option<String>,
    /// What opening had to mend.
    recovered: Vec<String>,
}

/// The newest entry of an author.
#[derive(Serialize)]
struct Tip {
    author: String,
    seq: u64,
    entry: String,
}

/// An entry that waits for the clock.
#[derive(Serialize)]
struct Held {
    author: String,
    entry: String,
    due_ms: u64,
}

impl From<&api::StatusReply> for Status {
    fn from(status: &api::StatusReply) -> Self {
        Self {
            node: hex(&status.node),
            version: status.version.clone(),
            data_dir: status.data_dir.clone(),
            socket: not_empty(&status.socket),
            pid: status.pid,
            started_ms: status.started_ms,
            now_ms: status.now_ms,
            stores: status.stores.iter().map(StoreStatus::from).collect(),
        }
    }
}

impl From<&api::StoreStatus> for StoreStatus {
    fn from(store: &api::StoreStatus) -> Self {
        let tips = store.applied.iter();
        let held = store.held.iter();
        Self {
            store: Store::new(store.info.as_ref()),
            entries: store.entries,
            keys: store.keys,
            log_bytes: store.log_bytes,
            state_bytes: store.state_bytes,
            tips: tips
                .map(|it| Tip {
                    author: hex(&it.author),
                    seq: it.seq,
                    entry: hex(&it.id),
                })
                .collect(),
            pending_entries: store.pending_entries,
            pending_bytes: store.pending_bytes,
            held: held
                .map(|it| Held {
                    author: hex(&it.author),
                    entry: hex(&it.id),
                    due_ms: it.due_ms,
                })
                .collect(),
            forked: store.forked.iter().map(|author| hex(author)).collect(),
            damage: store.damage.clone(),
            watchers: store.watchers,
            poisoned: not_empty(&store.poisoned),
            recovered: store.recovered.clone(),
        }
    }
}

/// What `verify` read of one store.
#[derive(Serialize)]
pub(crate) struct Verified {
    r#type: &'static str,
    #[serde(flatten)]
    store: Store,
    entries: u64,
    signatures: u64,
    rows: u64,
    /// How many `damage` objects come after this one.
    damaged: usize,
}

impl From<&api::StoreVerified> for Verified {
    fn from(store: &api::StoreVerified) -> Self {
        Self {
            r#type: "verified",
            store: Store::new(store.info.as_ref()),
            entries: store.entries,
            signatures: store.signatures,
            rows: store.rows,
            damaged: store.damage.len(),
        }
    }
}

/// One thing that `verify` found.
#[derive(Serialize)]
pub(crate) struct Damage {
    r#type: &'static str,
    /// UUID of the store.
    store: String,
    /// `log`, `signature`, `chain`, `state`.
    r#where: String,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    file: String,
    offset: u64,
    bytes: u64,
    #[serde(flatten)]
    key: Option<Key>,
}

impl Damage {
    /// Makes it from an answer about the store `info`.
    pub(crate) fn new(info: Option<&api::StoreInfo>, damage: &api::Damage) -> Self {
        Self {
            r#type: "damage",
            store: uuid(&info.cloned().unwrap_or_default().id),
            r#where: damage.r#where.clone(),
            what: damage.what.clone(),
            author: (!damage.author.is_empty()).then(|| hex(&damage.author)),
            seq: Some(damage.seq).filter(|seq| *seq > 0),
            file: damage.file.clone(),
            offset: damage.offset,
            bytes: damage.bytes,
            key: (!damage.key.is_empty()).then(|| Key::new(&damage.key)),
        }
    }
}

fn not_empty(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// Says that an answer lacks a part that the API promises.
pub(crate) fn incomplete(what: &str) -> Failure {
    Failure::failed("bad_reply", format!("the node's answer lacks {what}"))
        .hint("the node runs another version of lattice; restart it with this one")
}
