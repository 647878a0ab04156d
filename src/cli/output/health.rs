//! The JSON objects of `status`, `verify` and `repair`, by the rules of [`object`](super::object).

use lattice::wire::api;
use serde::Serialize;

use crate::cli::output::object::{Key, Store, hex, is_zero, not_empty, uuid};

/// The node, printed by `status`.
#[derive(Serialize)]
pub(crate) struct Status {
    node: String,
    version: String,
    data_dir: String,
    /// Absent if the node does not serve a socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<String>,
    pid: u32,
    started_ms: u64,
    now_ms: u64,
    stores: Vec<StoreStatus>,
    /// Listed stores that are not open here.
    unopened: Unopened,
    /// The node that has removed this one from the mesh, or this node if it has left; absent while it
    /// is not known to be removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    removed_by: Option<String>,
    /// Why the node does not listen for peers although it should; absent if it listens or need not.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_listening: Option<String>,
}

/// Listed stores of [`Status`] that are not open here, by reason.
#[derive(Serialize)]
struct Unopened {
    /// The node that lists them has as many open here as one node may.
    of_lister: u64,
    /// As many stores of other nodes are open here as may be.
    in_all: u64,
    /// They could not be opened.
    failed: u64,
    /// The last error; empty if `failed` is 0.
    error: String,
}

/// One store of [`Status`].
#[derive(Serialize)]
struct StoreStatus {
    #[serde(flatten)]
    store: Store,
    entries: u64,
    /// Keys that were ever written, including deleted ones.
    keys: u64,
    log_bytes: u64,
    state_bytes: u64,
    /// The newest entry of each author.
    tips: Vec<Tip>,
    /// Number of authors that are not in `tips`: those with the shortest logs. Absent: 0.
    #[serde(skip_serializing_if = "is_zero")]
    more_authors: u64,
    pending_entries: u64,
    pending_bytes: u64,
    held_entries: u64,
    /// Those that wait longest.
    held: Vec<Held>,
    /// Membership acts without effect, because their author did not have the authority.
    void_acts: u64,
    /// Authors that signed two entries with the same sequence number.
    forks: Vec<Fork>,
    /// Number of forks that are not in `forks`. Absent: 0.
    #[serde(skip_serializing_if = "is_zero")]
    more_forks: u64,
    /// Members that have signed another state of the store than that of this node, for the same
    /// entries.
    diverged: Vec<Diverged>,
    damage: Vec<String>,
    watchers: u64,
    /// Why the store refuses writes; absent if it accepts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    poisoned: Option<String>,
    /// Repairs made when the store was opened, one text for each.
    recovered: Vec<String>,
    /// How much history there is; null for the root store and private ones, and in the first seconds.
    history: Option<StoreHistory>,
}

/// How much history a store has, as of the last look of some seconds or minutes ago.
#[derive(Serialize)]
struct StoreHistory {
    /// Bytes of the logs that are final, and can be removed.
    final_bytes: u64,
    /// Bytes that are not.
    open_bytes: u64,
    /// Time of the newest act that made entries final, in ms since 1970; 0: there is none.
    through_ms: u64,
    /// Members that have not acknowledged entries, which could be final else.
    awaited: Vec<String>,
    /// Why entries could not be made final or removed; null if there was no error.
    trouble: Option<String>,
}

impl From<&api::StoreHistory> for StoreHistory {
    fn from(history: &api::StoreHistory) -> Self {
        Self {
            final_bytes: history.final_bytes,
            open_bytes: history.open_bytes,
            through_ms: history.through_ms,
            awaited: history.awaited.iter().map(|node| hex(node)).collect(),
            trouble: not_empty(&history.trouble),
        }
    }
}

/// The newest entry of an author.
#[derive(Serialize)]
struct Tip {
    author: String,
    seq: u64,
    entry: String,
    /// Bytes of all logs of the author here.
    log_bytes: u64,
}

/// Two entries that one author signed with the same sequence number.
#[derive(Serialize)]
struct Fork {
    author: String,
    seq: u64,
    /// Ids of the two entries.
    entries: Vec<String>,
    /// True if the author has closed all of its branches but one.
    closed: bool,
    /// True if the author has more than 64 forks, so that nothing of it counts; one of them is listed.
    spent: bool,
}

impl From<&api::Fork> for Fork {
    fn from(fork: &api::Fork) -> Self {
        Self {
            author: hex(&fork.author),
            seq: fork.seq,
            entries: fork.entries.iter().map(|id| hex(id)).collect(),
            closed: fork.closed,
            spent: fork.spent,
        }
    }
}

/// A member that has signed another state than that of this node for the same entries.
#[derive(Serialize)]
struct Diverged {
    node: String,
    /// Root of the state of this node.
    root_here: String,
    /// Root that the member has signed.
    root_there: String,
    /// Members whose last signed state is that of this node, which is one of them.
    with_here: u32,
    /// Members whose last signed state is that of `node`, which is one of them.
    with_there: u32,
}

impl From<&api::Divergence> for Diverged {
    fn from(diverged: &api::Divergence) -> Self {
        Self {
            node: hex(&diverged.node),
            root_here: hex(&diverged.root_here),
            root_there: hex(&diverged.root_there),
            with_here: diverged.with_here,
            with_there: diverged.with_there,
        }
    }
}

/// An entry that is stamped too far in the future, and waits for the clock.
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
            unopened: Unopened::from(status.unopened.clone().unwrap_or_default()),
            removed_by: (!status.removed_by.is_empty()).then(|| hex(&status.removed_by)),
            not_listening: not_empty(&status.not_listening),
        }
    }
}

impl From<api::UnopenedStores> for Unopened {
    fn from(unopened: api::UnopenedStores) -> Self {
        let api::UnopenedStores {
            of_lister,
            in_all,
            failed,
            error,
        } = unopened;
        Self {
            of_lister,
            in_all,
            failed,
            error,
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
            history: store.history.as_ref().map(StoreHistory::from),
            tips: tips
                .map(|it| Tip {
                    author: hex(&it.author),
                    seq: it.seq,
                    entry: hex(&it.id),
                    log_bytes: it.log_bytes,
                })
                .collect(),
            more_authors: store.more_authors,
            pending_entries: store.pending_entries,
            pending_bytes: store.pending_bytes,
            held_entries: store.held_entries,
            held: held
                .map(|it| Held {
                    author: hex(&it.author),
                    entry: hex(&it.id),
                    due_ms: it.due_ms,
                })
                .collect(),
            void_acts: store.void_acts,
            forks: store.forks.iter().map(Fork::from).collect(),
            more_forks: store.more_forks,
            diverged: store.diverged.iter().map(Diverged::from).collect(),
            damage: store.damage.clone(),
            watchers: store.watchers,
            poisoned: not_empty(&store.poisoned),
            recovered: store.recovered.clone(),
        }
    }
}

/// The records that `verify` checked in one store.
#[derive(Serialize)]
pub(crate) struct Verified {
    r#type: &'static str,
    #[serde(flatten)]
    store: Store,
    entries: u64,
    signatures: u64,
    rows: u64,
    /// Number of `damage` objects that follow this object.
    damaged: u64,
}

impl From<&api::StoreVerified> for Verified {
    fn from(store: &api::StoreVerified) -> Self {
        Self {
            r#type: "verified",
            store: Store::new(store.info.as_ref()),
            entries: store.entries,
            signatures: store.signatures,
            rows: store.rows,
            damaged: store.damage_count,
        }
    }
}

/// One piece of damage that `verify` found.
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
    /// Converts damage in the store `info`.
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

/// The result of `repair` in one store.
#[derive(Serialize)]
pub(crate) struct Repaired {
    r#type: &'static str,
    #[serde(flatten)]
    store: Store,
    /// Entries that were given up; empty if no entry was.
    lost: Vec<Lost>,
    /// True when the store was restored from a snapshot, and what this node wrote after it was given up;
    /// absent otherwise.
    #[serde(skip_serializing_if = "is_false")]
    restored: bool,
    /// The entry that closed a fork of this node's own log; absent without a fork.
    #[serde(skip_serializing_if = "Option::is_none")]
    closed: Option<Closed>,
    /// Entries of this node's own log that were stamped far ahead and are taken back; absent without
    /// any.
    #[serde(skip_serializing_if = "Option::is_none")]
    taken_back: Option<TakenBack>,
}

// Takes a reference because serde passes one.
fn is_false(is: &bool) -> bool {
    !is
}

/// Entries that were taken back after their values were written again.
#[derive(Serialize)]
struct TakenBack {
    entries: u64,
    /// Number of keys that were written again.
    keys: u64,
    /// The new tip of this node's log.
    tip: String,
    seq: u64,
}

/// The entry that closed a fork.
#[derive(Serialize)]
struct Closed {
    entry: String,
    seq: u64,
    /// Newest entries of the branches that the closing entry ends.
    tips: Vec<String>,
}

#[derive(Serialize)]
struct Lost {
    file: String,
    /// Sequence numbers of the lost range, both inclusive.
    first: u64,
    through: u64,
}

impl From<&api::StoreRepaired> for Repaired {
    fn from(store: &api::StoreRepaired) -> Self {
        let lost = store.lost.iter().map(|lost| Lost {
            file: lost.file.clone(),
            first: lost.first,
            through: lost.through,
        });
        Self {
            r#type: "repaired",
            store: Store::new(store.info.as_ref()),
            lost: lost.collect(),
            restored: store.restored,
            closed: store.closed.as_ref().map(|closed| Closed {
                entry: hex(&closed.id),
                seq: closed.seq,
                tips: closed.tips.iter().map(|id| hex(id)).collect(),
            }),
            taken_back: store.taken_back.as_ref().map(|back| TakenBack {
                entries: back.entries,
                keys: back.keys,
                tip: hex(&back.tip),
                seq: back.seq,
            }),
        }
    }
}

/// The state of another member was taken, printed by `repair --state-from`.
#[derive(Serialize)]
pub(crate) struct StateTaken {
    r#type: &'static str,
    #[serde(flatten)]
    store: Store,
    /// The member.
    node: String,
    /// Number of keys now.
    keys: u64,
}

impl StateTaken {
    pub(crate) fn new(taken: &api::TakeStateReply, peer: &api::Peer) -> Self {
        Self {
            r#type: "state_taken",
            store: Store::new(taken.info.as_ref()),
            node: hex(&peer.node),
            keys: taken.keys,
        }
    }
}

/// Names the remedies if a node cannot listen for peers.
pub(crate) const NOT_LISTENING_HINT: &str = "until then it has no peers: stop the program that has the port, or give another one with `--bind`";
