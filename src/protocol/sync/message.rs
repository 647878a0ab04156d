//! The messages of a sync session, and their encoding.

use bytes::{Buf as _, Bytes, BytesMut};
use prost::Message as _;

use crate::{
    id::{Author, EntryId, StoreId},
    limits::{SYNC_MESSAGE_BYTES_MAX, SYNC_PAGE_ITEMS_MAX},
    protocol::{
        frontier::{FrontierHash, FrontierTip, MissingRange},
        sync::{PartName, SyncError},
    },
    wire::sync::{self as wire, frame::Message as Kind},
};

/// A message of one side to the other. `proto/sync.proto` describes each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The first message of the opener.
    Hello {
        /// Oldest version of the messages and rules that the opener speaks, see `VERSION_OLDEST`.
        version: u32,
        /// Newest version that the opener speaks, see `VERSION`. 0 is `version`.
        newest: u32,
        /// The store to sync.
        store: StoreId,
        /// Hash of the opener's frontier, in which each spent key has a mark. `None` asks for the tips in any
        /// case.
        frontier: Option<FrontierHash>,
    },
    /// The acceptor's frontier is equal. Ends the session.
    Same,
    /// A part of the sender's frontier, in order.
    Tips {
        /// At most `SYNC_PAGE_ITEMS_MAX`, ascending.
        tips: Vec<(Author, FrontierTip)>,
        /// True for the last part.
        last: bool,
    },
    /// A part of the ranges that the sender asks for, by author, `through` and tip.
    Want {
        /// At most `SYNC_PAGE_ITEMS_MAX`, ascending.
        ranges: Vec<MissingRange>,
        /// True for the last part.
        last: bool,
    },
    /// A part of the entries that were asked for, encoded as `SignedEntry`, in order.
    Entries(Vec<Bytes>),
    /// All entries that were asked for have been sent.
    Sent,
    /// The sender wants nothing more.
    Done,
    /// A part of the entries at which logs of the sender begin: it has neither them nor any before. In
    /// order, one for each author.
    Begins {
        /// At most `SYNC_PAGE_ITEMS_MAX`, ascending.
        anchors: Vec<(Author, FrontierTip)>,
        /// True for the last part.
        last: bool,
    },
    /// The sender asks for the base.
    WantBase,
    /// A piece of the manifest of the base. All pieces are empty when there is no base.
    Manifest {
        /// At most `SYNC_FRAME_BYTES_MAX`.
        piece: Bytes,
        /// True for the last piece.
        last: bool,
    },
    /// The sender asks for a part of the base.
    WantPart {
        /// Name of the part.
        part: PartName,
        /// Chunks at its beginning that the sender does not need.
        from_chunk: u32,
    },
    /// A piece of the part.
    Part {
        /// At most `SYNC_FRAME_BYTES_MAX`.
        piece: Bytes,
        /// True for the last piece.
        last: bool,
    },
}

impl Message {
    /// Returns the name of the message, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "Hello",
            Self::Same => "Same",
            Self::Tips { .. } => "Tips",
            Self::Want { .. } => "Want",
            Self::Entries(_) => "Entries",
            Self::Sent => "Sent",
            Self::Done => "Done",
            Self::Begins { .. } => "Begins",
            Self::WantBase => "WantBase",
            Self::Manifest { .. } => "Manifest",
            Self::WantPart { .. } => "WantPart",
            Self::Part { .. } => "Part",
        }
    }

    /// Returns the encoded message after its length, a big-endian `u32`.
    ///
    /// # Panics
    /// If the message is longer than `SYNC_MESSAGE_BYTES_MAX`. A session makes no such message.
    pub fn encode(self) -> Bytes {
        let frame = wire::Frame {
            message: Some(self.into_wire()),
        };
        let bytes = frame.encoded_len();
        assert!(
            bytes <= SYNC_MESSAGE_BYTES_MAX,
            "pages and frames are bounded"
        );
        let length = u32::try_from(bytes).expect("the maximum fits a u32");
        let mut encoded = BytesMut::with_capacity(bytes.saturating_add(LENGTH_BYTES));
        encoded.extend_from_slice(&length.to_be_bytes());
        frame.encode(&mut encoded).expect("a BytesMut grows");
        encoded.freeze()
    }

    /// Reads one message, without its length. Values are slices of `bytes`, not copies.
    ///
    /// # Errors
    /// `Malformed` when the message does not decode, is not canonical, or has an impossible item.
    pub fn decode(bytes: Bytes) -> Result<Self, SyncError> {
        check_items(bytes.clone())?;
        let bytes_len = bytes.len();
        let frame =
            wire::Frame::decode(bytes).map_err(|_reason| malformed("it does not decode"))?;
        let encoded_len = frame.encoded_len();
        let message = frame.message.ok_or(malformed("it is of an unknown kind"))?;
        let is_hello = matches!(message, Kind::Hello(_));
        if encoded_len != bytes_len && !is_hello {
            return Err(malformed("it is not canonical"));
        }
        Self::from_wire(message)
    }

    fn into_wire(self) -> Kind {
        match self {
            Self::Hello {
                version,
                newest,
                store,
                frontier,
            } => Kind::Hello(wire::Hello {
                version,
                newest,
                store_id: Bytes::copy_from_slice(&store.0),
                frontier_hash: frontier.map_or(Bytes::new(), |hash| copy(&hash.0)),
            }),
            Self::Same => Kind::Same(wire::Same {}),
            Self::Tips { tips, last } => Kind::Tips(wire::Tips {
                tips: tips.into_iter().map(tip_to_wire).collect(),
                last,
            }),
            Self::Want { ranges, last } => Kind::Want(wire::Want {
                ranges: ranges.into_iter().map(range_to_wire).collect(),
                last,
            }),
            Self::Entries(entries) => Kind::Entries(wire::Entries { entries }),
            Self::Sent => Kind::Sent(wire::Sent {}),
            Self::Done => Kind::Done(wire::Done {}),
            Self::Begins { anchors, last } => Kind::Begins(wire::Begins {
                anchors: anchors.into_iter().map(tip_to_wire).collect(),
                last,
            }),
            Self::WantBase => Kind::WantBase(wire::WantBase {}),
            Self::Manifest { piece, last } => Kind::Manifest(wire::Manifest { piece, last }),
            Self::WantPart { part, from_chunk } => Kind::WantPart(wire::WantPart {
                part: copy(&part.0),
                from_chunk,
            }),
            Self::Part { piece, last } => Kind::Part(wire::Part { piece, last }),
        }
    }

    fn from_wire(message: Kind) -> Result<Self, SyncError> {
        Ok(match message {
            Kind::Hello(hello) => Self::Hello {
                version: hello.version,
                newest: hello.newest,
                store: StoreId::from_slice(&hello.store_id)
                    .ok_or(malformed("its store id does not have 16 bytes"))?,
                frontier: frontier_hash(&hello.frontier_hash)?,
            },
            Kind::Same(_) => Self::Same,
            Kind::Tips(page) => Self::Tips {
                tips: read_all(page.tips, tip_from_wire, "a tip is malformed")?,
                last: page.last,
            },
            Kind::Want(page) => Self::Want {
                ranges: read_all(page.ranges, range_from_wire, "a range is malformed")?,
                last: page.last,
            },
            Kind::Entries(entries) => Self::Entries(entries.entries),
            Kind::Sent(_) => Self::Sent,
            Kind::Done(_) => Self::Done,
            Kind::Begins(page) => Self::Begins {
                anchors: read_all(page.anchors, tip_from_wire, "an anchor is malformed")?,
                last: page.last,
            },
            Kind::WantBase(_) => Self::WantBase,
            Kind::Manifest(wire::Manifest { piece, last }) => Self::Manifest { piece, last },
            Kind::WantPart(want) => Self::WantPart {
                part: want
                    .part
                    .as_ref()
                    .try_into()
                    .map(PartName)
                    .map_err(|_length| malformed("the name of a part does not have 32 bytes"))?,
                from_chunk: want.from_chunk,
            },
            Kind::Part(wire::Part { piece, last }) => Self::Part { piece, last },
        })
    }
}

/// Assembles messages from the bytes of a stream.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    // Bytes that were not returned as a message yet: at most less than one message, and the last
    // push.
    buffer: BytesMut,
}

impl FrameDecoder {
    /// Adds bytes of the stream and returns the messages that are complete now.
    ///
    /// # Errors
    /// `MessageTooLarge` as soon as the length is known, before memory is allocated for it;
    /// `Malformed`. The decoder must not be used after an error.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Message>, SyncError> {
        self.buffer.extend_from_slice(bytes);
        let mut messages = Vec::new();
        while let Some(message) = self.take()? {
            messages.push(Message::decode(message)?);
        }
        Ok(messages)
    }

    /// True between two messages: a stream that ends at this point was not cut inside a message.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    fn take(&mut self) -> Result<Option<Bytes>, SyncError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let bytes = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if bytes > SYNC_MESSAGE_BYTES_MAX {
            return Err(SyncError::MessageTooLarge {
                bytes,
                bytes_max: SYNC_MESSAGE_BYTES_MAX,
            });
        }
        if self.buffer.len().saturating_sub(LENGTH_BYTES) < bytes {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(self.buffer.split_to(bytes).freeze()))
    }
}

// Checks that each list item has at least the smallest encoded size, before memory is allocated for
// the list. Without this check, a million empty items would fit one message and take a hundred
// times its size in memory.
fn check_items(mut rest: Bytes) -> Result<(), SyncError> {
    const CUT: SyncError = malformed("it is truncated or has more than one part");
    let kind = rest
        .try_get_u8()
        .map_err(|_empty| malformed("it is empty"))?;
    let length = prost::decode_length_delimiter(&mut rest).map_err(|_reason| CUT)?;
    if length != rest.len() {
        return Err(CUT);
    }
    let (bytes_min, items_max) = match kind {
        TIPS_TAG | WANT_TAG | BEGINS_TAG => (ITEM_BYTES_MIN, SYNC_PAGE_ITEMS_MAX),
        ENTRIES_TAG => (ITEM_BYTES_MIN, usize::MAX),
        MANIFEST_TAG | PART_TAG => (1, 1),
        _no_list => return Ok(()),
    };
    let mut items = 0_usize;
    while rest.first() == Some(&ITEM_TAG) {
        rest.advance(1);
        let length = prost::decode_length_delimiter(&mut rest).map_err(|_reason| CUT)?;
        if length < bytes_min {
            return Err(malformed("an item is shorter than any can be"));
        }
        if length > rest.len() {
            return Err(CUT);
        }
        rest.advance(length);
        items = items.saturating_add(1);
    }
    if items > items_max {
        return Err(malformed("it has more items than a page may"));
    }
    if !rest.is_empty() && rest != LAST {
        return Err(malformed("it has bytes after its items"));
    }
    Ok(())
}

fn read_all<W, T>(
    items: Vec<W>,
    read: impl Fn(W) -> Option<T>,
    what: &'static str,
) -> Result<Vec<T>, SyncError> {
    let items: Option<Vec<T>> = items.into_iter().map(read).collect();
    items.ok_or(malformed(what))
}

fn tip_to_wire((author, tip): (Author, FrontierTip)) -> wire::Tip {
    wire::Tip {
        author: copy(&author.0),
        seq: tip.seq,
        id: copy(&tip.id.0),
    }
}

fn tip_from_wire(tip: wire::Tip) -> Option<(Author, FrontierTip)> {
    let id = EntryId::from_slice(&tip.id)?;
    let author = Author::from_slice(&tip.author)?;
    (tip.seq > 0).then_some((author, FrontierTip { seq: tip.seq, id }))
}

fn range_to_wire(range: MissingRange) -> wire::Range {
    wire::Range {
        author: copy(&range.author.0),
        after: range.after,
        through: range.through,
        tip: copy(&range.tip.0),
    }
}

fn range_from_wire(range: wire::Range) -> Option<MissingRange> {
    Some(MissingRange {
        author: Author::from_slice(&range.author)?,
        after: range.after,
        through: range.through,
        tip: EntryId::from_slice(&range.tip)?,
    })
}

fn frontier_hash(bytes: &Bytes) -> Result<Option<FrontierHash>, SyncError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let hash = bytes.as_ref().try_into();
    let hash = hash.map_err(|_length| malformed("its frontier hash does not have 32 bytes"))?;
    Ok(Some(FrontierHash(hash)))
}

fn copy(id: &[u8; 32]) -> Bytes {
    Bytes::copy_from_slice(id)
}

const fn malformed(what: &'static str) -> SyncError {
    SyncError::Malformed { what }
}

const LENGTH_BYTES: usize = 4;
// Tags of the fields of `Frame` that are lists, and of their items.
const TIPS_TAG: u8 = 0x1a;
const WANT_TAG: u8 = 0x22;
const ENTRIES_TAG: u8 = 0x2a;
const BEGINS_TAG: u8 = 0x42;
// Those of pieces, which are read like a list of one item.
const MANIFEST_TAG: u8 = 0x52;
const PART_TAG: u8 = 0x62;
const ITEM_TAG: u8 = 0x0a;
const ITEM_BYTES_MIN: usize = 64;
// The `last` flag, which may follow a list.
const LAST: &[u8] = &[0x10, 0x01];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        entry::tests::{AUTHOR_B, entry},
        frontier::Frontier,
        sync::{
            VERSION_OLDEST,
            tests::{STORE, begins, chain, entries, hello, range, tip_of, tips, want},
        },
    };

    fn one_of_each() -> Vec<Message> {
        let chain = chain();
        vec![
            hello(),
            Message::Hello {
                version: VERSION_OLDEST,
                newest: 0,
                store: STORE,
                frontier: Some(Frontier::default().hash()),
            },
            Message::Same,
            tips(&[]),
            tips(&[&chain[0], &entry(AUTHOR_B, 9, Some(chain[0].id), 5, "/k")]),
            want(vec![range(&chain[1], 0), range(&chain[3], 2)]),
            entries(&[&chain[0], &chain[1]]),
            Message::Sent,
            Message::Done,
            begins(&[]),
            begins(&[&chain[1]]),
            Message::WantBase,
            Message::Manifest {
                piece: Bytes::new(),
                last: true,
            },
            Message::WantPart {
                part: PartName([7; 32]),
                from_chunk: 300,
            },
            Message::Part {
                piece: Bytes::from_static(b"piece"),
                last: false,
            },
        ]
    }

    #[test]
    fn n6_messages_come_out_whole_wherever_the_stream_is_cut() {
        let messages = one_of_each();
        let stream: Vec<u8> = messages
            .iter()
            .flat_map(|message| message.clone().encode())
            .collect();
        for cut in 0..=stream.len() {
            let mut decoder = FrameDecoder::default();
            let mut came = decoder.push(&stream[..cut]).unwrap();
            let whole = came.len();
            assert_eq!(came, messages[..whole]);
            let encoded: usize = came
                .iter()
                .map(|message| message.clone().encode().len())
                .sum();
            assert_eq!(decoder.is_empty(), encoded == cut);
            came.extend(decoder.push(&stream[cut..]).unwrap());
            assert_eq!(came, messages, "cut at {cut}");
            assert!(decoder.is_empty());
        }
        let mut decoder = FrameDecoder::default();
        let came = stream
            .iter()
            .flat_map(|byte| decoder.push(&[*byte]).unwrap());
        assert_eq!(came.collect::<Vec<_>>(), messages);
    }

    #[test]
    fn n1_a_message_cut_short_or_changed_is_an_error_or_another_message_never_a_panic() {
        for message in one_of_each() {
            let bytes = message.clone().encode().slice(4..);
            assert_eq!(Message::decode(bytes.clone()), Ok(message.clone()));
            for cut in 0..bytes.len() {
                let cut = Message::decode(bytes.slice(..cut));
                assert!(matches!(cut, Err(SyncError::Malformed { .. })), "{cut:?}");
            }
            for (place, bit) in
                (0..bytes.len()).flat_map(|place| (0..8).map(move |bit| (place, bit)))
            {
                let mut changed = bytes.to_vec();
                changed[place] ^= 1 << bit;
                if let Ok(other) = Message::decode(changed.clone().into()) {
                    assert_ne!(other, message);
                    let is_hello = matches!(other, Message::Hello { .. });
                    assert!(is_hello || other.encode()[4..] == changed);
                }
            }
        }
    }

    #[test]
    fn n1_a_length_is_refused_before_there_is_memory_for_it() {
        for bytes in [SYNC_MESSAGE_BYTES_MAX + 1, u32::MAX as usize] {
            let length = u32::try_from(bytes).unwrap().to_be_bytes();
            let error = SyncError::MessageTooLarge {
                bytes,
                bytes_max: SYNC_MESSAGE_BYTES_MAX,
            };
            assert_eq!(FrameDecoder::default().push(&length), Err(error));
        }
        let length = u32::try_from(SYNC_MESSAGE_BYTES_MAX).unwrap().to_be_bytes();
        let mut decoder = FrameDecoder::default();
        assert_eq!(decoder.push(&length), Ok(vec![]));
        assert!(
            decoder.buffer.capacity() < 1 << 10,
            "memory is allocated only as bytes arrive"
        );
    }

    #[test]
    fn n1_items_that_cannot_be_are_refused_before_there_is_memory_for_them() {
        let frame = |tag: u8, list: &[u8]| {
            let mut bytes = vec![tag];
            prost::encode_length_delimiter(list.len(), &mut bytes).unwrap();
            bytes.extend_from_slice(list);
            Message::decode(bytes.into())
        };
        let malformed = |what| Err(SyncError::Malformed { what });
        for tag in [0x1a, 0x22, 0x2a, 0x42] {
            let short = malformed("an item is shorter than any can be");
            assert_eq!(frame(tag, &[0x0a, 0x00].repeat(1000)), short);
            // The flag in front would hide the items from the check.
            let hidden = [vec![0x10, 0x01], [0x0a, 0x00].repeat(1000)].concat();
            assert_eq!(
                frame(tag, &hidden),
                malformed("it has bytes after its items")
            );
        }
        let (author, tip) = tip_of(&chain()[0]);
        let tips = vec![(author, tip); SYNC_PAGE_ITEMS_MAX + 1];
        let page = Message::Tips { tips, last: true }.encode().slice(4..);
        assert_eq!(
            Message::decode(page),
            malformed("it has more items than a page may")
        );
        // A kind that a later version may add.
        assert_eq!(frame(0x6a, &[]), malformed("it is of an unknown kind"));
    }
}
