use bytes::Bytes;

use super::*;
use crate::{
    id::{EntryId, Seq, StoreId},
    limits::{
        ENTRY_BYTES_MAX, SYNC_ASKED_TIMES_MAX, SYNC_AUTHOR_TIPS_MAX, SYNC_FRAME_BYTES_MAX,
        SYNC_INNER_RANGES_MAX, SYNC_ITEMS_MAX, SYNC_MESSAGE_BYTES_MAX, SYNC_PAGE_ITEMS_MAX,
        SYNC_REFUSED_MAX, SYNC_UNPROVEN_MAX, SYNC_WANTS_MAX,
    },
    protocol::{
        entry::{
            EntryError,
            tests::{AUTHOR_A, AUTHOR_B, entry},
        },
        frontier::Frontier,
    },
};

pub(super) const STORE: StoreId = StoreId([5; 16]);

pub(super) fn hello() -> Message {
    Message::Hello {
        version: VERSION_OLDEST,
        newest: 0,
        store: STORE,
        frontier: None,
    }
}

/// The hello of a node that also speaks version 2.
pub(super) fn hello_2() -> Message {
    Message::Hello {
        version: VERSION_OLDEST,
        newest: VERSION,
        store: STORE,
        frontier: None,
    }
}

pub(super) fn begins(entries: &[&VerifiedEntry]) -> Message {
    let anchors = entries.iter().map(|entry| tip_of(entry)).collect();
    Message::Begins {
        anchors,
        last: true,
    }
}

pub(super) fn tip_of(entry: &VerifiedEntry) -> (Author, FrontierTip) {
    let tip = FrontierTip {
        seq: entry.header.seq,
        id: entry.id,
    };
    (entry.author(), tip)
}

pub(super) fn tips(entries: &[&VerifiedEntry]) -> Message {
    let mut tips: Vec<_> = entries.iter().map(|entry| tip_of(entry)).collect();
    tips.sort_unstable();
    Message::Tips { tips, last: true }
}

pub(super) fn range(entry: &VerifiedEntry, after: Seq) -> MissingRange {
    MissingRange {
        author: entry.author(),
        after,
        through: entry.header.seq,
        tip: entry.id,
    }
}

pub(super) fn want(ranges: Vec<MissingRange>) -> Message {
    Message::Want { ranges, last: true }
}

fn bytes(entry: &VerifiedEntry) -> Bytes {
    entry.signed.encode().into()
}

pub(super) fn entries(entries: &[&VerifiedEntry]) -> Message {
    Message::Entries(entries.iter().map(|entry| bytes(entry)).collect())
}

/// Four entries of A, each the successor of the one before.
pub(super) fn chain() -> Vec<VerifiedEntry> {
    let mut chain: Vec<VerifiedEntry> = Vec::new();
    for seq in 1..=4 {
        let prev = chain.last().map(|prev| prev.id);
        chain.push(entry(AUTHOR_A, seq, prev, 10 * seq, "/k"));
    }
    chain
}

fn forged(entry: &VerifiedEntry) -> Bytes {
    let mut signed = entry.signed.clone();
    signed.signature[0] ^= 1;
    signed.encode().into()
}

/// An acceptor that has no entries, and has asked for all of `theirs`.
fn asking(theirs: &[&VerifiedEntry]) -> Session {
    let mut session = Session::accept(STORE, Frontier::default()).unwrap();
    session.handle(hello()).unwrap();
    session.handle(tips(theirs)).unwrap();
    session.on_missing(theirs.iter().map(|entry| tip_of(entry)).collect());
    assert_eq!(session.waits_for(), Some(WaitsFor::Entries));
    session
}

/// An acceptor that has `own`, and whose peer sent an empty frontier.
fn serving(own: &[&VerifiedEntry]) -> Session {
    let own: Frontier = own.iter().map(|entry| tip_of(entry)).collect();
    let mut session = Session::accept(STORE, own).unwrap();
    session.handle(hello()).unwrap();
    let actions = session.handle(tips(&[])).unwrap();
    assert_eq!(actions, [Action::Send(Message::Done)]);
    assert_eq!(session.waits_for(), Some(WaitsFor::Want));
    session
}

/// The messages of actions that only send, through their bytes.
fn sent(actions: Vec<Action>) -> Vec<Message> {
    let message = |action| match action {
        Action::Send(message) => Message::decode(message.encode().slice(4..)).unwrap(),
        other => panic!("{other:?}"),
    };
    actions.into_iter().map(message).collect()
}

fn assert_refused(mut session: Session, message: Message, error: SyncError) {
    assert_eq!(session.handle(message), Err(error));
    assert_eq!(session.waits_for(), None);
    let after = session.handle(Message::Done);
    assert!(
        matches!(
            after,
            Err(SyncError::OutOfTurn {
                phase: "the session has ended",
                ..
            })
        ),
        "{after:?}"
    );
}

#[test]
fn equal_frontiers_are_one_round_trip() {
    let chain = chain();
    let own: Frontier = [tip_of(&chain[3])].into_iter().collect();
    let (mut opener, hello) = Session::open(STORE, own.clone(), Vec::new()).unwrap();
    let mut acceptor = Session::accept(STORE, own).unwrap();
    assert_eq!(acceptor.waits_for(), Some(WaitsFor::Hello));
    assert_eq!(opener.waits_for(), Some(WaitsFor::Answer));
    let summary = Summary {
        same: true,
        ..Summary::default()
    };
    assert_eq!(
        acceptor.handle(hello).unwrap(),
        [Action::Send(Message::Same), Action::Finish(summary)]
    );
    assert_eq!(
        opener.handle(Message::Same).unwrap(),
        [Action::Finish(summary)]
    );
    assert_eq!((opener.waits_for(), acceptor.waits_for()), (None, None));
}

#[test]
fn a_lost_entry_is_asked_for_although_the_frontiers_are_equal() {
    let chain = chain();
    let own: Frontier = [tip_of(&chain[3])].into_iter().collect();
    let unknown = entry(AUTHOR_B, 7, Some(chain[0].id), 5, "/b");
    let lost = vec![tip_of(&chain[1]), tip_of(&unknown)];
    let (mut opener, hello) = Session::open(STORE, own.clone(), lost.clone()).unwrap();
    let mut acceptor = Session::accept(STORE, own).unwrap();
    let answer = acceptor.handle(hello).unwrap();
    assert_eq!(sent(answer), [begins(&[]), tips(&[&chain[3]])]);
    opener.handle(begins(&[])).unwrap();
    let actions = opener.handle(tips(&[&chain[3]])).unwrap();
    // The peer has no entries of the other author, so this side does not ask for them.
    assert_eq!(actions, [Action::Find(lost[..1].to_vec())]);
    let actions = opener.on_missing(lost[..1].to_vec());
    assert_eq!(actions, [Action::Send(want(vec![range(&chain[1], 0)]))]);
    let actions = opener.handle(entries(&[&chain[0], &chain[1]])).unwrap();
    assert_eq!(actions, [Action::Ingest(chain[..2].to_vec())]);
}

#[test]
fn a_large_frontier_goes_in_pages_that_a_peer_takes() {
    let tip = |index: usize| {
        let mut author = [0; 32];
        author[..8].copy_from_slice(&index.to_be_bytes());
        let id = EntryId([1; 32]);
        (Author(author), FrontierTip { seq: 1, id })
    };
    let count = 2 * SYNC_PAGE_ITEMS_MAX + 1;
    let own: Frontier = (0..count).map(tip).collect();
    let mut acceptor = Session::accept(STORE, own).unwrap();
    let (mut opener, hello) = Session::open(STORE, Frontier::default(), Vec::new()).unwrap();
    let pages = sent(acceptor.handle(hello).unwrap()).into_iter();
    let mut found: Vec<_> = pages
        .flat_map(|page| opener.handle(page).unwrap())
        .collect();
    assert_eq!(found.len(), 3, "own beginnings and tips, and what to find");
    let Action::Find(theirs) = found.remove(2) else {
        panic!("{found:?}")
    };
    assert_eq!(theirs, (0..count).map(tip).collect::<Vec<_>>());
    let wants = sent(opener.on_missing(theirs));
    assert_eq!(wants.len(), 3, "pages of a Want");
    acceptor.handle(begins(&[])).unwrap();
    acceptor.handle(tips(&[])).unwrap();
    let wants = wants.into_iter();
    let read: Vec<_> = wants
        .flat_map(|page| acceptor.handle(page).unwrap())
        .collect();
    let [Action::Read(ranges)] = &read[..] else {
        panic!("{read:?}")
    };
    assert_eq!(ranges.len(), count);
}

#[test]
fn wants_newer_does_not_end_a_session_and_is_asked_for_once() {
    let chain = chain();
    let mut signed = chain[3].signed.clone();
    signed.header = vec![8, 99].into();
    let newer = Bytes::from(signed.encode());
    let mut session = asking(&[&chain[3]]);
    session
        .handle(entries(&[&chain[0], &chain[1], &chain[2]]))
        .unwrap();
    assert_eq!(
        session.handle(Message::Entries(vec![newer])),
        Ok(vec![Action::Ingest(vec![])])
    );
    let find = vec![Action::Find(vec![tip_of(&chain[3])])];
    assert_eq!(session.handle(Message::Sent), Ok(find));
    assert_eq!(
        session.on_missing(vec![tip_of(&chain[3])]),
        [Action::Send(Message::Done)]
    );
    let actions = session.handle(Message::Done).unwrap();
    let summary = Summary {
        received: 3,
        newer: 1,
        wants: 1,
        lacking: 1,
        ..Summary::default()
    };
    assert_eq!(actions, [Action::Finish(summary)]);
}

#[test]
fn b1_a_fork_is_looked_for_further_and_further_back_and_what_depends_on_it_comes_again() {
    let id = |seq: Seq| EntryId([u8::try_from(seq % 251).unwrap(); 32]);
    let theirs = |seq: Seq| entry(AUTHOR_A, seq, Some(id(seq - 1)), 10 * seq, "/k");
    let own = entry(AUTHOR_A, 5000, Some(EntryId([1; 32])), 10, "/k");
    let (newest, other) = (theirs(5003), entry(AUTHOR_B, 1, None, 7, "/b"));
    let mut session = Session::accept(STORE, Frontier::from_iter([tip_of(&own)])).unwrap();
    session.handle(hello()).unwrap();
    session.handle(tips(&[&newest, &other])).unwrap();
    let both = || {
        let mut both = vec![tip_of(&newest), tip_of(&other)];
        both.sort_unstable();
        both
    };
    let ask = |session: &mut Session, joint: Option<(Author, FrontierTip)>| {
        let lacking = both().into_iter().chain(joint).collect();
        match &session.on_missing(lacking)[..] {
            [Action::Send(Message::Want { ranges, last: true })] => {
                assert!(ranges.contains(&range(&other, 0)), "the missing range");
                ranges
                    .iter()
                    .find(|range| range.tip == newest.id)
                    .unwrap()
                    .after
            }
            actions => panic!("{actions:?}"),
        }
    };
    // The usual case first: the peer's entries follow the end of this side's log.
    assert_eq!(ask(&mut session, None), 5000);
    // The received entries do not join the log: asks from 64 entries back, then four times as many,
    // and at last from the start.
    for (before, after) in [
        (5000, 4936),
        (4936, 4744),
        (4744, 3976),
        (3976, 904),
        (904, 0),
    ] {
        session.handle(entries(&[&theirs(before + 1)])).unwrap();
        let (seq, id) = (before, id(before));
        let joint = (own.author(), FrontierTip { seq, id });
        let mut find = both();
        find.push(joint);
        find.sort_unstable();
        assert_eq!(session.handle(Message::Sent).unwrap(), [Action::Find(find)]);
        assert_eq!(ask(&mut session, Some(joint)), after);
    }
    // An entry that joins the log and is still missing could not be taken in, so it is not asked
    // for again.
    session
        .handle(entries(&[&entry(AUTHOR_A, 1, None, 1, "/k")]))
        .unwrap();
    session.handle(Message::Sent).unwrap();
    assert_eq!(session.on_missing(both()), [Action::Send(Message::Done)]);
    assert_eq!(session.summary().lacking, 2);
}

// Regression: the entry with a wrong signature was refused if a message ended directly after it,
// and taken in if one message had both entries. So two nodes had different states for ever.
#[test]
fn b8_what_an_author_vouches_for_in_the_next_message_counts_as_in_the_same() {
    let first = entry(AUTHOR_A, 1, None, 1, "/1");
    let mut odd = entry(AUTHOR_A, 2, Some(first.id), 2, "/2").signed.clone();
    odd.signature[0] ^= 1;
    let odd = odd.parse().unwrap().vouched();
    let third = entry(AUTHOR_A, 3, Some(odd.id), 3, "/3");
    let all = [&first, &odd, &third];
    for cut in 0..3 {
        let mut session = asking(&[&third]);
        let mut came = Vec::new();
        for part in [&all[..cut], &all[cut..]] {
            if part.is_empty() {
                continue;
            }
            match &session.handle(entries(part)).unwrap()[..] {
                [Action::Ingest(entries)] => came.extend(entries.clone()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(came.iter().collect::<Vec<_>>(), all, "cut before {cut}");
        session.handle(Message::Sent).unwrap();
        assert_eq!(session.summary().refused, 0);
    }
}

#[test]
fn what_is_read_goes_out_in_messages_of_bounded_size() {
    let chain = chain();
    let mut session = serving(&[&chain[3]]);
    session.handle(want(vec![range(&chain[3], 0)])).unwrap();
    assert!(session.is_reading());
    assert_eq!(session.waits_for(), None);
    let small = || Bytes::from(vec![7; 300_000]);
    let large = || Bytes::from(vec![7; ENTRY_BYTES_MAX]);
    let batch = vec![small(), small(), small(), small(), large(), small()];
    let mut sizes = Vec::new();
    for action in session.on_entries_read(batch) {
        let Action::Send(Message::Entries(entries)) = action else {
            panic!("{action:?}")
        };
        sizes.push(entries.len());
        let bytes = Message::Entries(entries).encode().len();
        assert!(bytes <= SYNC_FRAME_BYTES_MAX + 16 || sizes.last() == Some(&1));
        assert!(bytes <= SYNC_MESSAGE_BYTES_MAX);
    }
    assert_eq!(sizes, [3, 1, 1, 1]);
    assert_eq!(session.on_entries_read(vec![]), []);
    assert_eq!(session.on_read_end(), [Action::Send(Message::Sent)]);
    assert_eq!(session.summary().sent, 6);
}

mod bases;
mod hostile;
