//! The JSON objects of `--json`. Fields may be added; existing fields do not change.
//!
//! A key is printed as `key` if it is UTF-8, else as `key_base64` (standard alphabet, padded);
//! likewise a value. Ids are hex digits, stores are UUIDs, and times are milliseconds since 1970
//! (UTC). The HLC of an entry is printed as `wall_ms` and `counter`. Texts of times and names of nodes are
//! put beside them by [`vocabulary`](super::vocabulary).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use lattice::wire::api;
use serde::Serialize;

use crate::cli::{exit::Failure, output::print::escape};

/// Returns `id` as lower-case hex digits.
pub(crate) fn hex(id: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(id)
}

/// Returns the first eight hex digits of `id`, for people.
pub(crate) fn short(id: &[u8]) -> String {
    hex(id.get(..4).unwrap_or(id))
}

/// Returns the id of a store as a UUID, or as hex digits if the id is not a UUID.
pub(crate) fn uuid(id: &[u8]) -> String {
    lattice::id::StoreId::from_slice(id).map_or_else(|| hex(id), |id| id.to_string())
}

// As serde calls it.
pub(super) fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Converts a text of the API, where an empty one means that it is absent.
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
    /// Converts the bytes of a key.
    pub(crate) fn new(key: &[u8]) -> Self {
        let (key, key_base64) = text_or_base64(Some(key));
        Self { key, key_base64 }
    }
}

/// The beginning that several keys have in common, printed by `list --delimiter`.
#[derive(Serialize)]
pub(crate) struct Prefix {
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix_base64: Option<String>,
}

impl Prefix {
    /// Converts the bytes of a prefix.
    pub(crate) fn new(prefix: &[u8]) -> Self {
        let (prefix, prefix_base64) = text_or_base64(Some(prefix));
        Self {
            prefix,
            prefix_base64,
        }
    }
}

/// A value that may be absent.
#[derive(Serialize)]
pub(crate) struct Value {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl Value {
    /// Converts the bytes of a value; for `None`, neither field is printed.
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

/// An entry: its id, author, sequence number and HLC.
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

/// A key with its value, printed by `get` and `list`.
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
    /// All heads of the key, the winner first: several in a conflict.
    heads: Vec<String>,
    conflict: bool,
}

impl Item {
    /// Converts an item of the API.
    pub(crate) fn new(item: &api::Item, keys_only: bool) -> Self {
        let winner = item.entry.as_ref().map(|entry| &entry.id);
        let heads = winner.into_iter().chain(&item.other_heads);
        Self {
            key: Key::new(&item.key),
            value: Value::new((!keys_only).then_some(&item.value)),
            entry: Entry::from(&item.entry.clone().unwrap_or_default()),
            expires_ms: item.expires_ms,
            heads: heads.map(|id| hex(id)).collect(),
            conflict: item.heads > 1,
        }
    }
}

/// One head of a key, printed by `heads`.
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
    /// True for the head that reads return.
    wins: bool,
}

impl Head {
    /// Converts a head of `key`.
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

/// One entry in the history of a key, printed by `history`.
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
    /// Ids of the entries of this key that the entry superseded.
    parents: Vec<String>,
    /// True if no entry supersedes this entry.
    head: bool,
    wins: bool,
    /// Hook that wrote the entry; absent if none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Cause>,
}

/// The hook that wrote an entry, and the change that triggered it.
#[derive(Serialize)]
struct Cause {
    /// Name of the hook; followed by `#` and the kind if it ran for an expiry or a retract.
    consumer: String,
    /// Id of the entry that triggered the run.
    trigger: String,
    /// Index of the op in the trigger, or position in the batch.
    position: u32,
    /// Number of hooks in the chain from an entry that no hook wrote to this one.
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

/// Returns the hook that wrote an entry and its trigger, for people; empty if no hook did.
pub(crate) fn by_hook(cause: Option<&api::EntryCause>) -> String {
    let by = |cause: &api::EntryCause| {
        let consumer = escape(cause.consumer.as_bytes());
        format!("  by hook {consumer} at {}", short(&cause.trigger))
    };
    cause.map(by).unwrap_or_default()
}

impl Past {
    /// Converts an entry in the history of `key`.
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

/// An entry of a log, printed by `log`.
#[derive(Serialize)]
pub(crate) struct Logged {
    #[serde(flatten)]
    entry: Entry,
    /// Number of the branch: 0, or higher after a fork.
    branch: u32,
    /// Id of the author's previous entry; absent in the first entry.
    #[serde(skip_serializing_if = "String::is_empty")]
    prev: String,
    parents: Vec<String>,
    atomic: bool,
    arrived_ms: u64,
    /// Hook that wrote the entry; absent if none did.
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

/// The identity that `init --new-identity` made.
#[derive(Serialize)]
pub(crate) struct NewIdentity {
    /// `new_identity`.
    pub(crate) r#type: &'static str,
    pub(crate) node: String,
    pub(crate) data_dir: String,
    /// Node whose key was replaced; absent if there was no key, or it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) former: Option<String>,
    /// Path where the old key is kept; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kept: Option<String>,
}

/// The node that `up` started or `init` created.
#[derive(Serialize)]
pub(crate) struct Started {
    /// `up` or `init`.
    pub(crate) r#type: &'static str,
    pub(crate) node: String,
    pub(crate) data_dir: String,
    /// Path of the socket; only from `up`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) socket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<u32>,
    /// False if the node existed before.
    pub(crate) created: bool,
    /// Address of the metrics; only from `up`, and only if they are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<String>,
}

/// The process that `down` stopped.
#[derive(Serialize)]
pub(crate) struct Stopped {
    pub(crate) pid: u32,
}

/// The result of `put --stdin`.
#[derive(Serialize)]
pub(crate) struct Count {
    /// Number of writes that are on disk.
    pub(crate) written: u64,
    /// Number of deletes of keys that have no value: nothing was written for them. Absent: 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) absent: u64,
}

/// The result of `delete --prefix`.
#[derive(Serialize)]
pub(crate) struct Deleted {
    /// Number of deleted keys.
    pub(crate) deleted: u64,
    /// Number of keys that only the node itself may write, and that were left; absent if 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) reserved: u64,
    /// Number of keys that were written meanwhile, and that were left; absent if 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) changed: u64,
}

/// A store.
#[derive(Serialize)]
pub(crate) struct Store {
    pub(crate) store: String,
    /// Name on this node; empty for a root store without a name.
    pub(crate) name: String,
    pub(crate) root: bool,
    /// True for the data store, which commands use by default.
    pub(crate) data: bool,
    /// True for a store that no other node gets.
    pub(crate) private: bool,
}

impl Store {
    /// Converts a store of the API.
    pub(crate) fn new(info: Option<&api::StoreInfo>) -> Self {
        let info = info.cloned().unwrap_or_default();
        Self {
            store: uuid(&info.id),
            name: info.name,
            root: info.root,
            data: info.data,
            private: info.private,
        }
    }
}

/// The store that the current directory uses, printed by `store use`.
#[derive(Serialize)]
pub(crate) struct Used {
    /// UUID of the store; null for the data store.
    pub(crate) store: Option<String>,
    /// Name of the store on this node; null for the data store, and if it is not known.
    pub(crate) name: Option<String>,
}

/// An invite, printed by `invite`.
#[derive(Serialize)]
pub(crate) struct Invited {
    pub(crate) r#type: &'static str,
    pub(crate) token: String,
    /// `admin`, `writer` or `reader`.
    pub(crate) role: String,
    pub(crate) expires_ms: u64,
    /// Addresses in the token; none if this machine has no network.
    pub(crate) addresses: Vec<String>,
}

/// The node that used an invite, printed by `invite --wait`.
#[derive(Serialize)]
pub(crate) struct Joined {
    /// `joined`.
    pub(crate) r#type: &'static str,
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) role: String,
}

/// The end of this node's own membership, printed by `leave`.
#[derive(Serialize)]
pub(crate) struct Left {
    /// `left`.
    pub(crate) r#type: &'static str,
    pub(crate) node: String,
    /// Members that know of it.
    pub(crate) members: u32,
}

/// A store that was renamed, deleted or shared.
#[derive(Serialize)]
pub(crate) struct StoreChanged {
    /// `store_renamed`, `store_deleted` or `store_shared`.
    pub(crate) r#type: String,
    pub(crate) store: String,
    pub(crate) name: String,
}

/// A step of `join`.
#[derive(Serialize)]
pub(crate) struct JoinStep {
    /// `contacted`, `accepted`, `syncing` or `synced`.
    pub(crate) r#type: String,
    /// The node that issued the invite; only in `contacted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    /// Role of this node; only in `accepted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<String>,
    /// Name under which the former data store is kept, or the former root store if only that had data; only
    /// in `accepted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) former: Option<String>,
    /// Name under which the former root store is kept, too; only beside `former`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) former_root: Option<String>,
    /// True if no other node gets them; only beside `former`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) former_private: Option<bool>,
    /// Number of stores that were deleted; only in `accepted`, with `--data discard`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) discarded: Option<u64>,
    /// The root store in `accepted`, and the synced store in `syncing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<String>,
    /// Number of entries received; only in `syncing` and `synced`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entries: Option<u64>,
}

/// Another member of the mesh, printed by `peer list`.
#[derive(Serialize)]
pub(crate) struct Peer {
    pub(crate) node: String,
    /// Name that the node gave itself; empty if the name is unknown.
    pub(crate) name: String,
    /// `admin`, `writer`, `reader` or `removed`.
    pub(crate) role: String,
    /// True for the node that lists the members.
    pub(crate) own: bool,
    pub(crate) online: bool,
    /// Time when the node was last heard of; 0 for never since the start.
    pub(crate) seen_ms: u64,
    /// Entries that the node is missing, by its last ack; null before the first comparison.
    pub(crate) behind: Option<u64>,
    /// Entries of the node that are missing here; null before the first comparison.
    pub(crate) ahead: Option<u64>,
    /// True if entries of it wait for the clock here, because they are stamped more than 1 h ahead.
    pub(crate) held: bool,
    /// Round-trip time; null without a connection.
    pub(crate) rtt_us: Option<u64>,
    pub(crate) relayed: bool,
    /// Time by which its clock is ahead of this node's clock; negative if it is behind.
    pub(crate) skew_ms: i64,
    pub(crate) dormant: bool,
    pub(crate) forked: bool,
    /// Stores of which it has signed another state than that of this node, for the same entries.
    pub(crate) diverged: u32,
    /// Number of messages from it that no honest peer sends.
    pub(crate) strikes: u32,
    /// The last error; empty once a connection succeeded again.
    pub(crate) error: String,
    pub(crate) addresses: Vec<String>,
}

impl Peer {
    /// Converts a peer of the API; `own`: it is the node that was asked.
    pub(crate) fn new(peer: &api::Peer, own: bool) -> Self {
        Self {
            own,
            ahead: peer.ahead,
            held: peer.held,
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
            diverged: peer.diverged,
            strikes: peer.strikes,
            error: peer.error.clone(),
            addresses: peer.addresses.clone(),
        }
    }
}

/// The members that have the winning entry of a key on disk, printed by `status KEY`.
#[derive(Serialize)]
pub(crate) struct WhoHas {
    pub(crate) entry: String,
    /// Members known to have the entry on disk, including this node.
    pub(crate) nodes: Vec<String>,
    /// Number of all members.
    pub(crate) members: u32,
}

/// A change to a member.
#[derive(Serialize)]
pub(crate) struct PeerChanged {
    /// `peer_` and the change: `removed`, `role`, `renamed`, `dormant`, `active` or `dialled`.
    pub(crate) r#type: String,
    pub(crate) node: String,
}

/// Returns the failure for an answer without `what`, a part that the API promises.
pub(crate) fn incomplete(what: &str) -> Failure {
    Failure::failed("bad_reply", format!("the node's answer is missing {what}"))
        .hint("the node runs another version of lattice; restart it with this one")
}
