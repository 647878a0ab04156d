//! Compare: the messages by which a node finds the keys whose rows differ on another node.
//!
//! The opener sends `Begin`, the acceptor answers with the `State` that it keeps until the end. If the
//! roots differ, the opener asks for nodes of the tree ([`Diff`](crate::protocol::merkle::Diff)), and
//! then for the rows of keys that differ. Each message has an answer: the acceptor does nothing that
//! was not asked for. `proto/compare.proto` describes each message.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;

use crate::{
    id::StoreId,
    limits::KEY_BYTES_MAX,
    protocol::{
        frontier::FrontierHash,
        membership::ActsHash,
        merkle::{
            ANSWER_BYTES_MAX, ASK_NODES_MAX, Answer, Ask, Child, Children, Leaf, RowHash, TreeHash,
            TreeRoot,
        },
    },
    wire::compare::{self as wire, message::Message as Kind},
};

/// A message of one side to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The first message of the opener.
    Begin {
        /// Version of the messages and rules, see `VERSION`.
        version: u32,
        /// The store.
        store: StoreId,
        /// Only keys that begin with this are compared.
        prefix: Bytes,
    },
    /// The state of the acceptor.
    State(PeerState),
    /// Asks for children of nodes of the acceptor's tree.
    Ask(Ask),
    /// The children.
    Answer(Answer),
    /// Asks for the rows of these keys, at most `ASK_NODES_MAX`.
    WantRows(Vec<Bytes>),
    /// The rows of the first of these keys, of at least one; empty where there is none to send.
    Rows(Vec<Bytes>),
}

/// The state of a peer, as it names it at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerState {
    /// The root over the rows of all keys.
    pub root: TreeRoot,
    /// The root over the rows of the keys that are compared.
    pub prefix_root: TreeRoot,
    /// The entries that make the state.
    pub frontier: FrontierHash,
    /// Number of these entries.
    pub entries: u64,
    /// The acts that count.
    pub acts: ActsHash,
}

/// Why bytes are refused as a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// No node makes such a message.
    #[error("a malformed message of a comparison: {what}")]
    Malformed {
        /// The fault, for people.
        what: &'static str,
    },
    /// The message is longer than any.
    #[error("a message of {bytes} bytes; at most {MESSAGE_BYTES_MAX} are allowed")]
    TooLong {
        /// Bytes that were announced.
        bytes: usize,
    },
}

impl Message {
    /// Returns the encoded message after its length.
    ///
    /// # Panics
    /// If the message is longer than `MESSAGE_BYTES_MAX`: no side makes such a one.
    pub fn encode(self) -> Bytes {
        let message = wire::Message {
            message: Some(self.into_wire()),
        };
        let bytes = message.encoded_len();
        assert!(bytes <= MESSAGE_BYTES_MAX, "asks and answers are bounded");
        let mut encoded = BytesMut::with_capacity(bytes.saturating_add(LENGTH_BYTES));
        encoded.put_u32(u32::try_from(bytes).expect("the maximum fits a u32"));
        message.encode(&mut encoded).expect("a BytesMut grows");
        encoded.freeze()
    }

    /// Returns the length of a message from the bytes before it.
    ///
    /// # Errors
    /// `TooLong`, before there is memory for it.
    pub fn length(before: [u8; LENGTH_BYTES]) -> Result<usize, MessageError> {
        let bytes = usize::try_from(u32::from_be_bytes(before)).unwrap_or(usize::MAX);
        if bytes > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLong { bytes });
        }
        Ok(bytes)
    }

    /// Decodes a message, without its length. Takes up to 16 times as much memory as `bytes`, which
    /// are at most `MESSAGE_BYTES_MAX`.
    ///
    /// # Errors
    /// `Malformed`: the bytes are not those of a message, or not the only ones that it has.
    pub fn decode(bytes: Bytes) -> Result<Self, MessageError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLong { bytes: bytes.len() });
        }
        let message = wire::Message::decode(bytes.clone())
            .map_err(|_reason| malformed("it does not decode"))?;
        if message.encode_to_vec() != bytes {
            return Err(malformed("it is not canonical"));
        }
        let kind = message
            .message
            .ok_or(malformed("it is of an unknown kind"))?;
        Self::of(kind)
    }

    fn of(kind: Kind) -> Result<Self, MessageError> {
        Ok(match kind {
            Kind::Begin(begin) => Self::Begin {
                version: begin.version,
                store: StoreId::from_slice(&begin.store_id)
                    .ok_or(malformed("its store id is not 16 bytes long"))?,
                prefix: key(begin.prefix)?,
            },
            Kind::State(state) => Self::State(PeerState {
                root: TreeRoot(hash(&state.root)?),
                prefix_root: TreeRoot(hash(&state.prefix_root)?),
                frontier: FrontierHash(hash(&state.frontier_hash)?),
                entries: state.entries,
                acts: ActsHash(hash(&state.acts_hash)?),
            }),
            Kind::Ask(ask) => Self::Ask(Ask {
                level: u8::try_from(ask.level)
                    .map_err(|_large| malformed("its level is too high"))?,
                keys: keys(ask.keys)?,
            }),
            Kind::Answer(answer) => {
                let nodes = some(answer.nodes)?.into_iter().map(children);
                Self::Answer(Answer(nodes.collect::<Result<_, _>>()?))
            }
            Kind::WantRows(want) => Self::WantRows(keys(want.keys)?),
            Kind::Rows(rows) => Self::Rows(some(rows.rows)?),
        })
    }

    fn into_wire(self) -> Kind {
        match self {
            Self::Begin {
                version,
                store,
                prefix,
            } => Kind::Begin(wire::Begin {
                version,
                store_id: Bytes::copy_from_slice(&store.0),
                prefix,
            }),
            Self::State(state) => Kind::State(wire::State {
                root: copy(&state.root.0),
                prefix_root: copy(&state.prefix_root.0),
                frontier_hash: copy(&state.frontier.0),
                entries: state.entries,
                acts_hash: copy(&state.acts.0),
            }),
            Self::Ask(Ask { level, keys }) => Kind::Ask(wire::Ask {
                level: u32::from(level),
                keys,
            }),
            Self::Answer(Answer(nodes)) => Kind::Answer(wire::Answer {
                nodes: nodes.into_iter().map(children_to_wire).collect(),
            }),
            Self::WantRows(keys) => Kind::WantRows(wire::WantRows { keys }),
            Self::Rows(rows) => Kind::Rows(wire::Rows { rows }),
        }
    }
}

/// Returns the rows to send of those that were asked for: the first ones, about `ANSWER_BYTES_MAX`. A
/// row that is longer than that is left out.
pub fn rows_that_fit(rows: impl IntoIterator<Item = Bytes>) -> Vec<Bytes> {
    let mut fit = Vec::new();
    let mut bytes = 0_usize;
    for row in rows.into_iter().take(ASK_NODES_MAX) {
        let row = if row.len() > ANSWER_BYTES_MAX {
            Bytes::new()
        } else {
            row
        };
        bytes = bytes.saturating_add(row.len());
        if bytes > ANSWER_BYTES_MAX && !fit.is_empty() {
            break;
        }
        fit.push(row);
    }
    fit
}

fn children(message: wire::Children) -> Result<Children, MessageError> {
    let wire::Children {
        kind,
        level,
        keys,
        hashes,
    } = message;
    let (hashes, rest) = hashes.as_chunks::<32>();
    if !rest.is_empty() || hashes.len() != keys.len() {
        return Err(malformed("it has not one hash for each key"));
    }
    let is_empty = keys.is_empty() && level == 0;
    let pairs = keys.into_iter().zip(hashes);
    match kind {
        LEAVES if level == 0 => {
            let leaves = pairs.map(|(of, row)| {
                Ok(Leaf {
                    key: key(of)?,
                    row: RowHash(*row),
                })
            });
            Ok(Children::Leaves(leaves.collect::<Result<_, _>>()?))
        }
        NODES => {
            let nodes = pairs.map(|(of, hash)| {
                Ok(Child {
                    key: key(of)?,
                    hash: TreeHash(*hash),
                })
            });
            Ok(Children::Nodes {
                level: u8::try_from(level).map_err(|_large| malformed("its level is too high"))?,
                nodes: nodes.collect::<Result<_, _>>()?,
            })
        }
        TOO_MANY if is_empty => Ok(Children::TooMany),
        NO_NODE if is_empty => Ok(Children::NoNode),
        _other => Err(malformed("the children are of an unknown kind")),
    }
}

fn children_to_wire(children: Children) -> wire::Children {
    let with = |kind, level: u8, pairs: Vec<(Bytes, [u8; 32])>| {
        let (keys, hashes): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        wire::Children {
            kind,
            level: u32::from(level),
            keys,
            hashes: hashes.concat().into(),
        }
    };
    match children {
        Children::Leaves(leaves) => {
            let pairs = leaves.into_iter().map(|leaf| (leaf.key, leaf.row.0));
            with(LEAVES, 0, pairs.collect())
        }
        Children::Nodes { level, nodes } => {
            let pairs = nodes.into_iter().map(|child| (child.key, child.hash.0));
            with(NODES, level, pairs.collect())
        }
        Children::TooMany => with(TOO_MANY, 0, Vec::new()),
        Children::NoNode => with(NO_NODE, 0, Vec::new()),
    }
}

// Returns 1 to `ASK_NODES_MAX` items.
fn some<T>(items: Vec<T>) -> Result<Vec<T>, MessageError> {
    match items.len() {
        1..=ASK_NODES_MAX => Ok(items),
        0 => Err(malformed("it is empty")),
        _more => Err(malformed("it is about too many nodes or keys")),
    }
}

fn keys(items: Vec<Bytes>) -> Result<Vec<Bytes>, MessageError> {
    some(items)?.into_iter().map(key).collect()
}

fn key(key: Bytes) -> Result<Bytes, MessageError> {
    if key.len() > KEY_BYTES_MAX {
        return Err(malformed("a key is too long"));
    }
    Ok(key)
}

fn hash(bytes: &Bytes) -> Result<[u8; 32], MessageError> {
    let hash = bytes.as_ref().try_into();
    hash.map_err(|_length| malformed("a hash is not 32 bytes long"))
}

fn copy(hash: &[u8; 32]) -> Bytes {
    Bytes::copy_from_slice(hash)
}

const fn malformed(what: &'static str) -> MessageError {
    MessageError::Malformed { what }
}

/// Version of the messages and rules.
pub const VERSION: u32 = 1;
/// Bytes of the length before a message.
pub const LENGTH_BYTES: usize = 4;
/// Bytes of a message: an answer or rows of `ANSWER_BYTES_MAX`, and the keys of `ASK_NODES_MAX` nodes.
/// The sender of a longer one breaks a rule.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
const _: () = assert!(MESSAGE_BYTES_MAX >= 2 * ANSWER_BYTES_MAX + ASK_NODES_MAX * 64);
const _: () = assert!(MESSAGE_BYTES_MAX >= ASK_NODES_MAX * (KEY_BYTES_MAX + 64));
const LEAVES: u32 = 0;
const NODES: u32 = 1;
const TOO_MANY: u32 = 2;
const NO_NODE: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of_each() -> Vec<Message> {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let child = |key| Child {
            key: bytes(key),
            hash: TreeHash([2; 32]),
        };
        let leaf = |key| Leaf {
            key: bytes(key),
            row: RowHash([3; 32]),
        };
        vec![
            Message::Begin {
                version: VERSION,
                store: StoreId([1; 16]),
                prefix: bytes("/a/"),
            },
            Message::State(PeerState {
                root: TreeRoot([1; 32]),
                prefix_root: TreeRoot([2; 32]),
                frontier: FrontierHash([3; 32]),
                entries: 7,
                acts: ActsHash([4; 32]),
            }),
            Message::Ask(Ask {
                level: 13,
                keys: vec![Bytes::new(), bytes("/a")],
            }),
            Message::Answer(Answer(vec![
                Children::Nodes {
                    level: 3,
                    nodes: vec![child(""), child("/b")],
                },
                Children::Leaves(vec![leaf(""), leaf("/b")]),
                Children::TooMany,
                Children::NoNode,
            ])),
            Message::WantRows(vec![bytes("/a")]),
            Message::Rows(vec![bytes("row"), Bytes::new()]),
        ]
    }

    #[test]
    fn n1_a_message_cut_or_changed_is_an_error_or_another_message() {
        for message in one_of_each() {
            let encoded = message.clone().encode();
            let (length, bytes) = encoded.split_at(LENGTH_BYTES);
            let length = Message::length(length.try_into().unwrap());
            assert_eq!(length, Ok(bytes.len()));
            let bytes = Bytes::copy_from_slice(bytes);
            assert_eq!(Message::decode(bytes.clone()), Ok(message.clone()));
            for cut in 0..bytes.len() {
                if let Ok(other) = Message::decode(bytes.slice(..cut)) {
                    assert_ne!(other, message, "cut at {cut}");
                }
            }
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.to_vec();
                changed[bit / 8] ^= 1 << (bit % 8);
                if let Ok(other) = Message::decode(changed.clone().into()) {
                    assert_ne!(other, message, "bit {bit}");
                    assert_eq!(other.encode()[LENGTH_BYTES..], changed);
                }
            }
        }
    }

    #[test]
    fn n1_messages_that_no_side_makes_are_refused() {
        let refused = |kind: Kind| {
            let message = wire::Message {
                message: Some(kind),
            };
            Message::decode(message.encode_to_vec().into()).is_err()
        };
        let keys = |count: usize, bytes: usize| vec![Bytes::from(vec![7; bytes]); count];
        let ask = |keys, level| refused(Kind::Ask(wire::Ask { level, keys }));
        assert!(!ask(keys(ASK_NODES_MAX, 1), 13));
        assert!(ask(keys(0, 0), 13) && ask(keys(ASK_NODES_MAX + 1, 1), 13));
        assert!(ask(keys(1, KEY_BYTES_MAX + 1), 13) && ask(keys(1, 1), 256));
        assert!(refused(Kind::Rows(wire::Rows { rows: Vec::new() })));
        let children = |kind, level, count, hashes: usize| {
            refused(Kind::Answer(wire::Answer {
                nodes: vec![wire::Children {
                    kind,
                    level,
                    keys: keys(count, 1),
                    hashes: vec![1; hashes].into(),
                }],
            }))
        };
        assert!(!children(LEAVES, 0, 2, 64) && !children(TOO_MANY, 0, 0, 0));
        for (kind, level, count, hashes) in [
            (LEAVES, 0, 2, 63),
            (LEAVES, 0, 2, 32),
            (LEAVES, 1, 2, 64),
            (TOO_MANY, 0, 1, 32),
            (NO_NODE, 1, 0, 0),
            (4, 0, 0, 0),
        ] {
            assert!(
                children(kind, level, count, hashes),
                "{kind} {level} {count} {hashes}"
            );
        }
        let too_long = u32::try_from(MESSAGE_BYTES_MAX + 1).unwrap().to_be_bytes();
        assert!(Message::length(too_long).is_err());
        assert!(Message::decode(Bytes::new()).is_err());
    }

    #[test]
    fn rows_are_sent_up_to_the_size_of_an_answer() {
        let row = |bytes: usize| Bytes::from(vec![1; bytes]);
        let sent = |rows: &[usize]| -> Vec<usize> {
            let rows = rows.iter().map(|bytes| row(*bytes));
            rows_that_fit(rows).iter().map(Bytes::len).collect()
        };
        let half = ANSWER_BYTES_MAX / 2;
        assert_eq!(sent(&[half, half, 1]), [half, half]);
        assert_eq!(sent(&[ANSWER_BYTES_MAX + 1, 5]), [0, 5], "one is too long");
        assert_eq!(sent(&[1; ASK_NODES_MAX + 1]).len(), ASK_NODES_MAX);
        assert_eq!(sent(&[]), [0_usize; 0]);
    }
}
