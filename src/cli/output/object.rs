//! The JSON objects of `--json`. Their fields are a promise: new ones may come, none changes.
//!
//! Bytes are two fields of which one is present: `key` when they are UTF-8, else `key_base64`
//! (standard alphabet, padded); likewise `value`. Ids are hex digits, stores are UUIDs, times are
//! milliseconds since 1970 (UTC), `hlc` is `wall_ms` and `counter`.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use lattice::wire::api;
use serde::Serialize;

use crate::cli::{exit::Failure, output::print::escape};

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

/// Returns a text of the API, in which empty means absent.
pub(crate) fn not_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
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
    /// Absent: no hook wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Cause>,
}

/// Which hook wrote an entry, and why.
#[derive(Serialize)]
struct Cause {
    /// The hook's name; where it ran for an expiry or a retract, with a `#` and the change.
    consumer: String,
    /// The entry that triggered it.
    trigger: String,
    /// Index of the op in the trigger, or the batch position.
    position: u32,
    /// Hooks between this and an entry that a person wrote.
    depth: u32,
}

impl From<&api::EntryCause> for Cause {
    fn from(cause: &api::EntryCause) -> Self {
        Self {
            consumer: cause.consumer.clone(),
            trigger: hex(&cause.trigger),
            position: cause.position,
            depth: cause.depth,
        }
    }
}

/// Returns which hook wrote an entry, and at which, for people; empty: none did.
pub(crate) fn by_hook(cause: Option<&api::EntryCause>) -> String {
    let by = |cause: &api::EntryCause| {
        let consumer = escape(cause.consumer.as_bytes());
        format!("  by hook {consumer} at {}", short(&cause.trigger))
    };
    cause.map(by).unwrap_or_default()
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
            cause: past.cause.as_ref().map(Cause::from),
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
    /// Absent: no hook wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Cause>,
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
            cause: logged.cause.as_ref().map(Cause::from),
            ops: ops.collect(),
        }
    }
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
    /// Where metrics are served; of `up`, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<String>,
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

/// An invitation.
#[derive(Serialize)]
pub(crate) struct Invited {
    pub(crate) r#type: &'static str,
    pub(crate) token: String,
    /// admin, writer or reader.
    pub(crate) role: String,
    pub(crate) expires_ms: u64,
}

/// A step of a join: contacted, accepted, syncing, synced.
#[derive(Serialize)]
pub(crate) struct JoinStep {
    pub(crate) r#type: String,
    /// contacted: the node that invited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    /// accepted: what this node may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<String>,
    /// accepted: the name under which the former root store is kept, where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) former: Option<String>,
    /// syncing: which store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<String>,
    /// syncing, synced: entries that came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entries: Option<u64>,
}

/// Another member.
#[derive(Serialize)]
pub(crate) struct Peer {
    pub(crate) node: String,
    /// Empty: unknown.
    pub(crate) name: String,
    /// admin, writer, reader or removed.
    pub(crate) role: String,
    pub(crate) online: bool,
    /// 0: never.
    pub(crate) seen_ms: u64,
    /// Entries that it lacked when last compared; null: not compared yet.
    pub(crate) behind: Option<u64>,
    /// null: not connected.
    pub(crate) rtt_us: Option<u64>,
    pub(crate) relayed: bool,
    /// What its clock is ahead of the one here.
    pub(crate) skew_ms: i64,
    pub(crate) dormant: bool,
    pub(crate) forked: bool,
    /// Messages that no honest peer sends.
    pub(crate) strikes: u32,
    /// What went wrong last; empty after it went well.
    pub(crate) error: String,
    pub(crate) addresses: Vec<String>,
}

impl Peer {
    /// Makes it from an answer.
    pub(crate) fn new(peer: &api::Peer) -> Self {
        Self {
            node: hex(&peer.node),
            name: peer.name.clone(),
            role: peer.role.clone(),
            online: peer.online,
            seen_ms: peer.seen_ms,
            behind: peer.behind,
            rtt_us: peer.rtt_us,
            relayed: peer.relayed,
            skew_ms: peer.skew_ms,
            dormant: peer.dormant,
            forked: peer.forked,
            strikes: peer.strikes,
            error: peer.error.clone(),
            addresses: peer.addresses.clone(),
        }
    }
}

/// Who has the winner of a key on disk.
#[derive(Serialize)]
pub(crate) struct WhoHas {
    pub(crate) entry: String,
    /// As far as they have said so here; this node is among them.
    pub(crate) nodes: Vec<String>,
    /// How many there are.
    pub(crate) members: u32,
}

/// What was done to a member: removed, dormant, active, dialled.
#[derive(Serialize)]
pub(crate) struct PeerActed {
    pub(crate) r#type: &'static str,
    pub(crate) node: String,
}

/// Says that an answer lacks a part that the API promises.
pub(crate) fn incomplete(what: &str) -> Failure {
    Failure::failed("bad_reply", format!("the node's answer lacks {what}"))
        .hint("the node runs another version of lattice; restart it with this one")
}
