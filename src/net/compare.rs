//! A comparison of the state of one store with that of a peer, as the node does that asks: the shell
//! around `protocol::compare` and `merkle::Diff`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use iroh::endpoint::Connection;

use crate::{
    id::Author,
    limits::SYNC_WORK_TIMEOUT,
    net::{compare_line::Line, error::PeerError, mesh::Mesh},
    protocol::{
        compare::{Message, PeerState, VERSION},
        heads::Heads,
        heads_row::decode_heads,
        merkle::{ASK_NODES_MAX, DiffError, Difference, Differences, RowHash},
    },
    store::{ReadError, StateRoot, StateTree, Store},
};

/// The result of a comparison with a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// The state of this node that was compared.
    pub here: StateRoot,
    /// The state of the peer.
    pub there: PeerState,
    /// Whether all keys that were compared have equal rows.
    pub is_equal: bool,
    /// The keys that differ, by key.
    pub keys: Vec<KeyDifference>,
    /// Ranges of keys (the first, inclusive; the end, exclusive; `None` for the end of the store) that
    /// differ, and of which a part is too large to be compared key by key.
    pub ranges: Vec<(Bytes, Option<Bytes>)>,
    /// True when there may be more differences than were asked for.
    pub more: bool,
    /// Questions that were sent, each with an answer.
    pub round_trips: u32,
    /// Bytes of questions and answers.
    pub bytes: u64,
}

/// A key whose rows differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDifference {
    /// The key.
    pub key: Bytes,
    /// Its heads on this node; none if it was never written here.
    pub here: Heads,
    /// Its heads on the peer; none if it was never written there. `None`: they are too many to be sent,
    /// or to be kept.
    pub there: Option<Heads>,
}

/// Compares the state of `store` with that of the peer at the end of `connection`: the keys that begin
/// with `prefix`, until `differences_max` that differ are found. One round trip if they are equal.
///
/// # Errors
/// `PeerError`; `Malformed` for a peer whose answers do not fit its root.
pub(super) async fn open(
    mesh: &Arc<Mesh>,
    node: &Author,
    connection: &Connection,
    store: &Store,
    (prefix, differences_max): (Bytes, usize),
) -> Result<Compared, PeerError> {
    let tree = store.state_tree(&prefix).await.map_err(PeerError::own)?;
    let mut asking = Asking {
        mesh,
        node,
        line: Line::open(connection).await?,
    };
    let begin = Message::Begin {
        version: VERSION,
        store: store.id(),
        prefix,
    };
    let Message::State(there) = asking.ask(begin).await? else {
        return Err(asking.dishonest("another message than its state"));
    };
    let here = tree.state.clone();
    let is_equal = tree.prefix_root == there.prefix_root;
    let (mut keys, mut found) = (Vec::new(), Differences::default());
    if !is_equal {
        let (tree, differences) = asking.find(tree, &there, differences_max).await?;
        found = differences;
        keys = asking.rows(tree, std::mem::take(&mut found.keys)).await?;
    }
    let (round_trips, bytes) = (asking.line.sent, asking.line.bytes);
    asking.line.close(CLOSE_WAIT).await;
    Ok(Compared {
        here,
        there,
        is_equal,
        keys,
        ranges: found.ranges,
        more: found.more,
        round_trips,
        bytes,
    })
}

/// A comparison that goes on.
struct Asking<'a> {
    mesh: &'a Arc<Mesh>,
    node: &'a Author,
    line: Line,
}

impl Asking<'_> {
    async fn ask(&mut self, message: Message) -> Result<Message, PeerError> {
        let answer = self.line.ask(message, ANSWER_WAIT).await?;
        answer.map_err(|error| {
            self.mesh.strike(self.node, &error.to_string());
            let what = "a malformed message of a comparison";
            PeerError::Malformed { what }
        })
    }

    // Asks for nodes until the differences are found. The tree of this node is read on a thread that
    // may wait.
    async fn find(
        &mut self,
        mut tree: StateTree,
        there: &PeerState,
        differences_max: usize,
    ) -> Result<(StateTree, Differences), PeerError> {
        let root = there.root;
        let (returned, diff) = on_thread(move || {
            let diff = tree.diff(root, differences_max);
            (tree, diff)
        })
        .await?;
        tree = returned;
        let mut diff = diff.map_err(PeerError::own)?;
        while let Some(ask) = diff.ask() {
            let Message::Answer(answer) = self.ask(Message::Ask(ask)).await? else {
                return Err(self.dishonest("another message than an answer"));
            };
            let taken;
            (tree, diff, taken) = on_thread(move || {
                let taken = tree.take(&mut diff, answer);
                (tree, diff, taken)
            })
            .await?;
            taken.map_err(|error| match error {
                DiffError::Dishonest { what } => self.dishonest(what),
                DiffError::Rows(error) => PeerError::own(error),
            })?;
        }
        Ok((tree, diff.finish()))
    }

    // Asks for the rows of the keys that differ, and reads those of this node.
    async fn rows(
        &mut self,
        tree: StateTree,
        differences: Vec<Difference>,
    ) -> Result<Vec<KeyDifference>, PeerError> {
        let asked = differences.iter().filter(|it| it.there.is_some());
        let mut asked: Vec<Difference> = asked.cloned().collect();
        asked.reverse();
        let (mut there, mut kept_bytes) = (Vec::new(), 0);
        while !asked.is_empty() {
            let next = asked.iter().rev().take(ASK_NODES_MAX);
            let keys: Vec<Bytes> = next.map(|it| it.key.clone()).collect();
            let asked_for = keys.len();
            let Message::Rows(rows) = self.ask(Message::WantRows(keys)).await? else {
                return Err(self.dishonest("another message than rows"));
            };
            if rows.is_empty() || rows.len() > asked_for {
                return Err(self.dishonest("no row, or more than were asked for"));
            }
            for row in rows {
                let difference = asked.pop();
                let hash = difference.and_then(|it| it.there);
                kept_bytes += row.len();
                let heads = if row.is_empty() || kept_bytes > ROWS_BYTES_MAX {
                    None
                } else {
                    let is_it = hash == Some(RowHash::of(&row));
                    let heads = decode_heads(&row).filter(|_| is_it);
                    Some(heads.ok_or_else(|| self.dishonest("another row than its leaf has"))?)
                };
                there.push(heads);
            }
        }
        let read = on_thread(move || {
            let mut there = there.into_iter();
            let difference = |Difference {
                                  key, there: hash, ..
                              }: Difference| {
                Ok(KeyDifference {
                    here: tree.heads(&key)?,
                    there: match hash {
                        Some(_) => there.next().flatten(),
                        None => Some(Heads::default()),
                    },
                    key,
                })
            };
            let differences = differences.into_iter().map(difference);
            differences.collect::<Result<Vec<_>, ReadError>>()
        });
        read.await?.map_err(PeerError::own)
    }

    fn dishonest(&self, what: &'static str) -> PeerError {
        self.mesh.strike(self.node, what);
        PeerError::Malformed { what }
    }
}

/// Runs `work`, which reads files, on a thread that may wait.
///
/// # Errors
/// `Own`: it panicked.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PeerError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(PeerError::own)
}

// Bytes of the peer's rows that are kept; of further keys only the difference is known.
const ROWS_BYTES_MAX: usize = 16 << 20;
// Time within which a peer answers: it may read all rows of the store first.
const ANSWER_WAIT: Duration = SYNC_WORK_TIMEOUT;
// Time for the end of a comparison; its result is there.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
