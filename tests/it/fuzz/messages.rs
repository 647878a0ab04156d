//! Messages between nodes: those of a sync, acks and announcements.

use std::collections::BTreeSet;

use bytes::Bytes;
use ed25519_dalek::Signer as _;
use lattice::{
    id::{Author, EntryId, Seq},
    limits::{
        ADDRESS_CHARS_MAX, ADDRESSES_MAX, KEY_BYTES_MAX, SEQ_MAX, SYNC_ITEMS_MAX,
        SYNC_MESSAGE_BYTES_MAX, SYNC_PAGE_ITEMS_MAX,
    },
    protocol::{
        ack::{Ack, AckedState},
        acked::Acked,
        announce::Announce,
        compare::{LENGTH_BYTES, Message as Compare, PeerState},
        frontier::{Frontier, FrontierHash, FrontierTip, MissingRange},
        membership::ActsHash,
        merkle::{ASK_NODES_MAX, Answer, Ask, Child, Children, Leaf, RowHash, TreeHash, TreeRoot},
        signed::count_items,
        sync::{FrameDecoder, Message, PartName, SyncError},
    },
    wire::{self, sync::frame::Message as Kind},
};
use prost::Message as _;

use super::entries::honest_entries;
use crate::support::{
    model::{AUTHOR_A, AUTHOR_B, STORE, author_of, key_of},
    mutator::{Corpus, fuzz},
    random::Random,
};

fn tips() -> Vec<(Author, FrontierTip)> {
    let tip = |seq: Seq, id| FrontierTip {
        seq,
        id: EntryId([id; 32]),
    };
    vec![
        (Author([1; 32]), tip(1, 7)),
        (Author([1; 32]), tip(9, 8)),
        (Author([3; 32]), tip(SEQ_MAX, 9)),
    ]
}

/// One of each kind of message.
pub fn honest_messages() -> Vec<Message> {
    let range = |after, through| MissingRange {
        author: Author([1; 32]),
        after,
        through,
        tip: EntryId([8; 32]),
    };
    let entries = honest_entries().into_iter();
    let frontier = tips().into_iter().collect::<Frontier>().hash();
    let hello = |frontier| Message::Hello {
        version: 1,
        newest: 2,
        store: STORE,
        frontier,
    };
    vec![
        hello(None),
        hello(Some(frontier)),
        Message::Same,
        Message::Tips {
            tips: Vec::new(),
            last: true,
        },
        Message::Tips {
            tips: tips(),
            last: false,
        },
        Message::Want {
            ranges: vec![range(0, 3), range(5, u64::MAX)],
            last: true,
        },
        Message::Entries(entries.map(|entry| entry.signed.encode().into()).collect()),
        Message::Sent,
        Message::Done,
        Message::Begins {
            anchors: tips(),
            last: true,
        },
        Message::WantBase,
        Message::Manifest {
            piece: Bytes::from_static(b"manifest"),
            last: true,
        },
        Message::WantPart {
            part: PartName([4; 32]),
            from_chunk: 3,
        },
        Message::Part {
            piece: Bytes::from_static(b"chunks"),
            last: false,
        },
    ]
}

fn assert_in_bounds(message: &Message, bytes: usize) {
    match message {
        Message::Tips { tips, .. } | Message::Begins { anchors: tips, .. } => {
            assert!(tips.len() <= SYNC_PAGE_ITEMS_MAX && tips.len() * 64 <= bytes);
        }
        Message::Want { ranges, .. } => {
            assert!(ranges.len() <= SYNC_PAGE_ITEMS_MAX && ranges.len() * 64 <= bytes);
        }
        Message::Entries(entries) => {
            let sum: usize = entries.iter().map(Bytes::len).sum();
            assert!(sum <= bytes && entries.len() * 64 <= bytes);
        }
        Message::Manifest { piece, .. } | Message::Part { piece, .. } => {
            assert!(piece.len() <= bytes);
        }
        Message::Hello { .. }
        | Message::Same
        | Message::Sent
        | Message::Done
        | Message::WantBase
        | Message::WantPart { .. } => {}
    }
}

// Messages that break one rule each.
fn broken_messages() -> Vec<Vec<u8>> {
    let tip = |seq, id_bytes| wire::sync::Tip {
        author: Bytes::from_static(&[1; 32]),
        seq,
        id: vec![7; id_bytes].into(),
    };
    let tips = |tips| Kind::Tips(wire::sync::Tips { tips, last: true });
    let range = |id_bytes| wire::sync::Range {
        author: Bytes::from_static(&[1; 32]),
        after: 2,
        through: 3,
        tip: vec![7; id_bytes].into(),
    };
    let want = |ranges| Kind::Want(wire::sync::Want { ranges, last: true });
    let entries = |entries| Kind::Entries(wire::sync::Entries { entries });
    let kinds = [
        tips(vec![tip(0, 32)]),
        tips(vec![tip(1, 31)]),
        tips(vec![tip(1, 32); SYNC_PAGE_ITEMS_MAX + 1]),
        want(vec![range(31)]),
        want(vec![range(32); SYNC_PAGE_ITEMS_MAX + 1]),
        entries(vec![Bytes::from_static(&[7; 10])]),
    ];
    let frames = kinds.map(|kind| wire::sync::Frame {
        message: Some(kind),
    });
    frames.map(|frame| frame.encode_to_vec()).into()
}

#[test]
fn n1_message_of_a_sync() {
    let messages = honest_messages().into_iter();
    let corpus = Corpus::new(messages.map(|message| message.encode()[4..].to_vec()));
    fuzz(&corpus.broken(broken_messages()), |input| {
        let Ok(message) = Message::decode(Bytes::copy_from_slice(input)) else {
            return false;
        };
        assert_in_bounds(&message, input.len());
        let encoded = message.clone().encode();
        assert_eq!(Message::decode(encoded.slice(4..)), Ok(message.clone()));
        // A later version may add fields to a hello.
        if !matches!(message, Message::Hello { .. }) {
            assert_eq!(encoded[4..], *input, "there is one encoding");
        }
        true
    });
}

fn decode_in(pieces: &[&[u8]]) -> (Vec<Message>, Option<SyncError>, bool) {
    let mut decoder = FrameDecoder::default();
    let mut messages = Vec::new();
    for piece in pieces {
        match decoder.push(piece) {
            Ok(come) => messages.extend(come),
            Err(error) => return (messages, Some(error), false),
        }
    }
    (messages, None, decoder.is_empty())
}

#[test]
fn n1_n6_stream_of_messages_however_it_is_cut() {
    let encoded = |message: Message| message.encode();
    let stream = honest_messages().into_iter().flat_map(encoded);
    let too_long = u32::try_from(SYNC_MESSAGE_BYTES_MAX + 1).unwrap();
    assert!(matches!(
        decode_in(&[&too_long.to_be_bytes()]).1,
        Some(SyncError::MessageTooLarge { .. })
    ));
    let corpus = Corpus::new([stream.collect::<Vec<u8>>()]);
    let mut random = Random::new(7);
    fuzz(&corpus, |input| {
        let at = random.below(input.len() + 1);
        let (first, second) = input.split_at(at);
        let (whole, error, is_empty) = decode_in(&[input]);
        let pieces = decode_in(&[first, second]);
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        let single = decode_in(&bytes);
        // A push returns nothing with an error, so the pieces may show more messages before it.
        for (messages, of_pieces, is_between) in [&pieces, &single] {
            assert_eq!((of_pieces, is_between), (&error, &is_empty));
            assert!(error.is_some() || *messages == whole);
        }
        let encoded = single.0.iter().map(|message| message.clone().encode());
        let length: usize = encoded.map(|message| message.len()).sum();
        let hellos = single.0.iter();
        let hellos = hellos.filter(|message| matches!(message, Message::Hello { .. }));
        assert!(length <= input.len() || hellos.count() > 0);
        error.is_none() && is_empty && whole.len() == honest_messages().len()
    });
}

fn honest_ack() -> Ack {
    Ack {
        node: author_of(AUTHOR_A),
        store: STORE,
        incarnation: 1_700_000_000_000,
        counter: 7,
        is_part: false,
        frontier: tips().into_iter().collect(),
        state: Some(AckedState {
            root: TreeRoot([8; 32]),
            acts: ActsHash([9; 32]),
        }),
        root_frontier: Some(FrontierHash([6; 32])),
    }
}

fn assert_ack(ack: &Ack, bytes: usize) {
    let frontier = &ack.frontier;
    assert!(frontier.len() <= SYNC_ITEMS_MAX && frontier.len() * 64 <= bytes);
    assert!(
        frontier
            .iter()
            .all(|(_, tip)| (1..=SEQ_MAX).contains(&tip.seq))
    );
    // The sums of status and metrics.
    let own: Frontier = tips().into_iter().collect();
    let _beyond = (frontier.entries_beyond(&own), own.entries_beyond(frontier));
    let ranges = own.missing_from(frontier);
    assert!(ranges.iter().all(|range| range.after < range.through));
    let part = ack.part(&own, None, 2);
    assert!(part.is_none_or(|part| part.frontier.len() <= 2 && part.is_part));
}

#[test]
fn n1_n5_ack() {
    let corpus = Corpus::new([honest_ack().sign(&key_of(AUTHOR_A)).to_vec()]);
    fuzz(&corpus, |input| {
        let Ok(claimed) = Ack::decode(Bytes::copy_from_slice(input)) else {
            return false;
        };
        assert_ack(claimed.claim(), input.len());
        let opened = Ack::open(Bytes::copy_from_slice(input));
        assert_eq!(opened, claimed.verify());
        // What verifies is what was signed, with its one signature.
        let signed = || wire::SignedAck::decode(input).unwrap();
        let honest = honest_ack().sign(&key_of(AUTHOR_A));
        assert!(opened.is_err() || wire::SignedAck::decode(honest) == Ok(signed()));
        opened.is_ok_and(|ack| ack == honest_ack())
    });
}

#[test]
fn n1_n5_ack_that_is_really_signed() {
    let mut part = honest_ack();
    part.is_part = true;
    part.state = None;
    part.counter = 8;
    let body = |ack: &Ack| {
        let signed = wire::SignedAck::decode(ack.sign(&key_of(AUTHOR_A))).unwrap();
        signed.body.to_vec()
    };
    let honest = wire::Ack::decode(body(&honest_ack()).as_slice()).unwrap();
    let broken: [fn(&mut wire::Ack); 7] = [
        |it| it.is_part = true,
        |it| it.tips[0].seq = 0,
        |it| it.tips[0].seq = SEQ_MAX + 1,
        |it| it.tips[0].id.truncate(31),
        |it| it.tips = vec![wire::CursorTip::default(); 9],
        |it| it.store_id.truncate(15),
        |it| it.state.as_mut().unwrap().root.truncate(31),
    ];
    let broken = broken.map(|change| {
        let mut ack = honest.clone();
        change(&mut ack);
        ack.encode_to_vec()
    });
    let corpus = Corpus::new([body(&honest_ack()), body(&part)]).broken(broken);
    let mut acked = Acked::default();
    fuzz(&corpus, |input| {
        let key = key_of(AUTHOR_A);
        let signature = key.sign(&[b"lattice/ack/v1\0", input].concat());
        let signed = wire::SignedAck {
            body: Bytes::copy_from_slice(input),
            signature: Bytes::copy_from_slice(&signature.to_bytes()),
            node: Bytes::copy_from_slice(&author_of(AUTHOR_A).0),
        };
        let Ok(ack) = Ack::open(signed.encode_to_vec().into()) else {
            return false;
        };
        assert_ack(&ack, input.len());
        assert_eq!(Ack::open(ack.sign(&key)), Ok(ack.clone()));
        // The statements of one node, in the order in which they happen to come.
        let news = acked.is_news(&ack);
        if news {
            acked.join(&ack);
            assert!(!acked.is_news(&ack), "once");
        }
        let authors = |frontier: &Frontier| -> BTreeSet<Author> {
            frontier.by_author().map(|(author, _)| author).collect()
        };
        if let Some(joined) = acked.frontier()
            && news
            && !ack.is_part
        {
            assert!(authors(joined).is_superset(&authors(&ack.frontier)));
        }
        true
    });
}

fn honest_announce() -> Announce {
    Announce {
        node: author_of(AUTHOR_B),
        store: STORE,
        incarnation: 1_700_000_000_000,
        counter: 3,
        frontier: FrontierHash([4; 32]),
        direct: vec!["127.0.0.1:4711".to_owned(), "[::1]:4711".to_owned()],
        relay: "https://relay.example/".to_owned(),
    }
}

fn assert_announce(announce: &Announce) {
    assert!(announce.direct.len() <= ADDRESSES_MAX);
    let texts = announce.direct.iter().chain([&announce.relay]);
    let longest = texts.map(String::len).max();
    assert!(longest.is_some_and(|longest| longest <= ADDRESS_CHARS_MAX));
}

#[test]
fn n1_n2_announcement() {
    let corpus = Corpus::new([honest_announce().sign(&key_of(AUTHOR_B)).to_vec()]);
    fuzz(&corpus, |input| {
        let Ok(claimed) = Announce::decode(Bytes::copy_from_slice(input)) else {
            return false;
        };
        assert_announce(claimed.claim());
        let opened = claimed.verify();
        // What verifies is what was signed, with its one signature.
        let signed = || wire::SignedAnnounce::decode(input).unwrap();
        let honest = honest_announce().sign(&key_of(AUTHOR_B));
        assert!(opened.is_err() || wire::SignedAnnounce::decode(honest) == Ok(signed()));
        opened.is_ok()
    });
}

#[test]
fn n1_n12_announcement_that_is_really_signed() {
    let signed = wire::SignedAnnounce::decode(honest_announce().sign(&key_of(AUTHOR_B)));
    let body = signed.unwrap().body;
    let broken: [fn(&mut wire::Announce); 5] = [
        |it| it.direct = vec!["127.0.0.1:1".to_owned(); ADDRESSES_MAX + 1],
        |it| it.direct[0] = "1".repeat(ADDRESS_CHARS_MAX + 1),
        |it| it.relay = "1".repeat(ADDRESS_CHARS_MAX + 1),
        |it| it.frontier_hash.truncate(31),
        |it| it.store_id.truncate(15),
    ];
    let broken = broken.map(|change| {
        let mut announce = wire::Announce::decode(body.clone()).unwrap();
        change(&mut announce);
        announce.encode_to_vec()
    });
    let corpus = Corpus::new([body.to_vec()]).broken(broken);
    fuzz(&corpus, |input| {
        let key = key_of(AUTHOR_B);
        let signature = key.sign(&[b"lattice/announce/v1\0", input].concat());
        let signed = wire::SignedAnnounce {
            body: Bytes::copy_from_slice(input),
            signature: Bytes::copy_from_slice(&signature.to_bytes()),
            node: Bytes::copy_from_slice(&author_of(AUTHOR_B).0),
        };
        let Ok(claimed) = Announce::decode(signed.encode_to_vec().into()) else {
            return false;
        };
        let announce = claimed.verify().expect("it is really signed");
        assert_announce(&announce);
        let again = Announce::decode(announce.sign(&key)).unwrap();
        assert_eq!(*again.claim(), announce);
        true
    });
}

#[test]
fn n1_items_of_a_list_are_counted_before_they_are_read() {
    let ack = wire::SignedAck::decode(honest_ack().sign(&key_of(AUTHOR_A))).unwrap();
    let short = wire::Ack {
        tips: vec![wire::CursorTip::default(); 9],
        ..wire::Ack::default()
    };
    let cut = [ack.body.as_ref(), &[0x22, 70, 1]].concat();
    let corpus = Corpus::new([ack.body.to_vec()]).broken([short.encode_to_vec(), cut]);
    fuzz(&corpus, |input| {
        let counted = count_items(input, 4, 64);
        let decoded = wire::Ack::decode(input);
        if let (Some(count), Ok(ack)) = (counted, &decoded) {
            assert_eq!(count, ack.tips.len());
            assert!(count * 64 <= input.len());
        }
        counted.is_some() && decoded.is_ok()
    });
}

/// One of each kind of message of a comparison.
fn honest_comparison() -> Vec<Compare> {
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
        Compare::Begin {
            version: 1,
            store: STORE,
            prefix: bytes("/a/"),
        },
        Compare::State(PeerState {
            root: TreeRoot([1; 32]),
            prefix_root: TreeRoot([2; 32]),
            frontier: FrontierHash([3; 32]),
            entries: 7,
            acts: ActsHash([4; 32]),
        }),
        Compare::Ask(Ask {
            level: 13,
            keys: vec![Bytes::new(), bytes("/a")],
        }),
        Compare::Answer(Answer(vec![
            Children::Nodes {
                level: 3,
                nodes: vec![child(""), child("/b")],
            },
            Children::Leaves(vec![leaf(""), leaf("/b")]),
            Children::TooMany,
            Children::NoNode,
        ])),
        Compare::WantRows(vec![bytes("/a"), bytes("/b")]),
        Compare::Rows(vec![bytes("row"), Bytes::new()]),
    ]
}

// Messages that break one rule each.
fn broken_comparison() -> Vec<Vec<u8>> {
    let long = || Bytes::from(vec![7; KEY_BYTES_MAX + 1]);
    let messages = [
        Compare::WantRows(Vec::new()),
        Compare::WantRows(vec![long()]),
        Compare::WantRows(vec![Bytes::new(); ASK_NODES_MAX + 1]),
        Compare::Rows(vec![Bytes::new(); ASK_NODES_MAX + 1]),
        Compare::Begin {
            version: 1,
            store: STORE,
            prefix: long(),
        },
        Compare::Answer(Answer(vec![Children::NoNode; ASK_NODES_MAX + 1])),
        Compare::Answer(Answer(vec![Children::Leaves(vec![Leaf {
            key: long(),
            row: RowHash([3; 32]),
        }])])),
    ];
    let encoded = messages.map(|message| message.encode()[LENGTH_BYTES..].to_vec());
    // A list of two keys with 0, 1, 2 and a half, and 3 hashes, and one of an unknown kind.
    let odd = [(1, 0), (1, 32), (1, 80), (1, 96), (4, 64)].map(|(kind, bytes)| {
        let nodes = wire::compare::Children {
            kind,
            level: 3,
            keys: vec![Bytes::new(), Bytes::from_static(b"/b")],
            hashes: vec![2; bytes].into(),
        };
        let answer = wire::compare::Answer { nodes: vec![nodes] };
        let message = wire::compare::message::Message::Answer(answer);
        wire::compare::Message {
            message: Some(message),
        }
        .encode_to_vec()
    });
    encoded.into_iter().chain(odd).collect()
}

/// What comes out is bounded, and has one encoding.
#[test]
fn n1_message_of_a_comparison() {
    let honest: Vec<Bytes> = honest_comparison()
        .into_iter()
        .map(|message| message.encode().slice(LENGTH_BYTES..))
        .collect();
    let corpus = Corpus::new(honest.iter().map(|message| message.to_vec()));
    fuzz(&corpus.broken(broken_comparison()), |input| {
        let Ok(message) = Compare::decode(Bytes::copy_from_slice(input)) else {
            return false;
        };
        match &message {
            Compare::Ask(Ask { keys, .. }) | Compare::WantRows(keys) => {
                assert!((1..=ASK_NODES_MAX).contains(&keys.len()));
                assert!(keys.iter().all(|key| key.len() <= KEY_BYTES_MAX));
            }
            Compare::Answer(Answer(nodes)) => {
                assert!((1..=ASK_NODES_MAX).contains(&nodes.len()));
            }
            Compare::Rows(rows) => assert!((1..=ASK_NODES_MAX).contains(&rows.len())),
            Compare::Begin { .. } | Compare::State(_) => {}
        }
        assert_eq!(message.encode()[LENGTH_BYTES..], *input);
        honest.iter().any(|honest| honest == input)
    });
}
