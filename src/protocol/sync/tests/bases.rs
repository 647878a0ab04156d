//! Sessions of sides whose logs begin later than with their first entry.

use super::*;
use crate::limits::SYNC_BACK_ENTRIES;

fn frontier(entries: &[&VerifiedEntry]) -> Frontier {
    entries.iter().map(|entry| tip_of(entry)).collect()
}

fn opener(own: &[&VerifiedEntry], begins: &[&VerifiedEntry]) -> Session {
    let (session, hello) = Session::open(STORE, frontier(own), Vec::new()).unwrap();
    assert!(matches!(
        hello,
        Message::Hello {
            version: VERSION_OLDEST,
            newest: VERSION,
            ..
        }
    ));
    session.beginning_at(&frontier(begins)).with_pieces_of(1)
}

fn acceptor(own: &[&VerifiedEntry], begins: &[&VerifiedEntry]) -> Session {
    let session = Session::accept(STORE, frontier(own)).unwrap();
    session.beginning_at(&frontier(begins)).with_pieces_of(1)
}

fn names(actions: &[Action]) -> Vec<&'static str> {
    let name = |action: &Action| match action {
        Action::Send(message) => message.name(),
        Action::Find(_) => "find",
        Action::Read(_) => "read",
        Action::Ingest(_) => "ingest",
        Action::ReadBase => "read base",
        Action::ReadPart(..) => "read part",
        Action::CheckBase(_) => "check base",
        Action::Keep(..) => "keep",
        Action::Install => "install",
        Action::Finish(_) => "finish",
    };
    actions.iter().map(name).collect()
}

const PART: PartName = PartName([3; 32]);

fn piece(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn part(text: &'static str, last: bool) -> Message {
    Message::Part {
        piece: piece(text),
        last,
    }
}

fn manifest(text: &'static str, last: bool) -> Message {
    Message::Manifest {
        piece: piece(text),
        last,
    }
}

fn want_part() -> Message {
    Message::WantPart {
        part: PART,
        from_chunk: 7,
    }
}

// An opener without entries that has asked for the base of a peer whose log of A begins at entry 2.
fn lacking() -> Session {
    let chain = chain();
    let mut session = opener(&[], &[]);
    let actions = session.handle(begins(&[&chain[1]])).unwrap();
    assert_eq!(names(&actions), ["Begins", "Tips"]);
    let actions = session.handle(tips(&[&chain[3]])).unwrap();
    assert_eq!(actions, [Action::Find(vec![tip_of(&chain[1])])]);
    let actions = session.on_missing(vec![tip_of(&chain[1])]);
    assert_eq!(sent(actions), [Message::WantBase]);
    assert_eq!(session.waits_for(), Some(WaitsFor::Base));
    session
}

// One that has the manifest, and has asked for a part of at most 10 bytes.
fn fetching() -> Session {
    let mut session = lacking();
    session.handle(manifest("mani", false)).unwrap();
    let actions = session.handle(manifest("fest", true)).unwrap();
    assert_eq!(actions, [Action::CheckBase(piece("manifest"))]);
    let actions = session.on_part_wanted(Some(PartWant {
        part: PART,
        from_chunk: 7,
        bytes_max: 10,
    }));
    assert_eq!(sent(actions), [want_part()]);
    session
}

#[test]
fn side_that_lacks_removed_entries_takes_the_base_and_asks_for_nothing_else() {
    let mut session = fetching();
    let actions = session.handle(part("chunk", false)).unwrap();
    assert_eq!(actions, [Action::Keep(piece("chunk"), false)]);
    let actions = session.handle(part("s", true)).unwrap();
    assert_eq!(actions, [Action::Keep(piece("s"), true)]);
    // The peer need not wait for the disk of this side.
    let actions = session.on_part_wanted(None);
    assert_eq!(names(&actions), ["Done", "install"]);
    assert_eq!(session.summary().base, BaseNeed::Open);
    assert_eq!(session.waits_for(), Some(WaitsFor::Want));
    // The peer asks meanwhile, as in every session.
    let actions = session.handle(Message::Done).unwrap();
    assert_eq!(actions, []);
    assert_eq!(session.waits_for(), None);
    let actions = session.on_installed();
    assert_eq!(names(&actions), ["finish"]);
    let summary = session.summary();
    assert_eq!((summary.base, summary.wants), (BaseNeed::Installed, 0));
}

#[test]
fn base_is_served_once_and_each_part_once() {
    let chain = chain();
    let serving = || {
        let mut session = acceptor(&[&chain[3]], &[&chain[1]]);
        let actions = session.handle(hello_2()).unwrap();
        assert_eq!(names(&actions), ["Begins", "Tips"]);
        session.handle(begins(&[])).unwrap();
        let actions = session.handle(tips(&[])).unwrap();
        assert_eq!(sent(actions), [Message::Done]);
        let actions = session.handle(Message::WantBase).unwrap();
        assert_eq!(actions, [Action::ReadBase]);
        assert!(session.is_reading());
        session.on_base_opened([PART]);
        let sent_piece = sent(session.on_piece_read(piece("manifest")));
        assert_eq!(sent_piece, [manifest("manifest", false)]);
        assert_eq!(sent(session.on_read_end()), [manifest("", true)]);
        // Most of it may still be on its way, over a slow link.
        assert_eq!(session.waits_for(), Some(WaitsFor::BaseWant));
        session
    };
    let mut session = serving();
    let actions = session.handle(want_part()).unwrap();
    assert_eq!(actions, [Action::ReadPart(PART, 7)]);
    assert_eq!(
        sent(session.on_piece_read(piece("chunk"))),
        [part("chunk", false)]
    );
    assert_eq!(sent(session.on_read_end()), [part("", true)]);
    assert_refused(session, want_part(), SyncError::PartNotOffered);
    assert_refused(serving(), Message::WantBase, SyncError::BaseAskedAgain);
    let other = Message::WantPart {
        part: PartName([4; 32]),
        from_chunk: 0,
    };
    assert_refused(serving(), other, SyncError::PartNotOffered);
    // Nothing is offered before the base was asked for.
    let mut session = acceptor(&[&chain[3]], &[&chain[1]]);
    session.handle(hello_2()).unwrap();
    session.handle(begins(&[])).unwrap();
    session.handle(tips(&[])).unwrap();
    assert_refused(session, want_part(), SyncError::PartNotOffered);
    let mut session = serving();
    let actions = session.handle(Message::Done).unwrap();
    assert_eq!(names(&actions), ["finish"]);
}

#[test]
fn base_that_is_not_taken_ends_the_need_and_not_the_session() {
    let mut session = lacking();
    session.handle(manifest("manifest", true)).unwrap();
    assert_eq!(sent(session.on_base_refused()), [Message::Done]);
    let chain = chain();
    assert_eq!(session.summary().base, BaseNeed::Refused);
    let error = SyncError::RangeTooFar {
        author: chain[0].author(),
        through: 1,
        seq: 0,
    };
    assert_refused(session, want(vec![range(&chain[0], 0)]), error);
    // A peer without a base.
    let mut session = lacking();
    let actions = session.handle(manifest("", true)).unwrap();
    assert_eq!(sent(actions), [Message::Done]);
    assert_eq!(session.summary().base, BaseNeed::Refused);
}

#[test]
fn side_that_takes_no_base_asks_for_none() {
    let chain = chain();
    let mut session = opener(&[], &[]).wishing(BaseWish::Never);
    session.handle(begins(&[&chain[1]])).unwrap();
    session.handle(tips(&[&chain[3]])).unwrap();
    let actions = session.on_missing(vec![tip_of(&chain[1])]);
    assert_eq!(sent(actions), [Message::Done]);
    assert_eq!(session.summary().base, BaseNeed::Refused);
}

/// A side that wishes for the base anyway gets it though both have the same entries.
#[test]
fn base_that_is_wished_for_is_asked_for_first() {
    let chain = chain();
    let own = [&chain[3]];
    let (session, hello) = Session::open(STORE, frontier(&own), Vec::new()).unwrap();
    let mut session = session.wishing(BaseWish::Only).with_pieces_of(1);
    let hello = session.hello_with_wish(hello);
    assert!(matches!(hello, Message::Hello { frontier: None, .. }));
    let mut peer = acceptor(&own, &[&chain[1]]);
    let answers = sent(peer.handle(hello).unwrap());
    let mut asked = Vec::new();
    for answer in answers {
        asked.extend(sent(session.handle(answer).unwrap()));
    }
    assert_eq!(asked.last(), Some(&Message::WantBase));
    session.handle(manifest("manifest", true)).unwrap();
    assert_eq!(sent(session.on_base_refused()), [Message::Done]);
    assert_eq!(session.summary().base, BaseNeed::Refused);
    // The acceptor, too.
    let mut session = acceptor(&own, &[]).wishing(BaseWish::Only);
    let (_opener, hello) = Session::open(STORE, frontier(&own), Vec::new()).unwrap();
    assert!(!sent(session.handle(hello).unwrap()).contains(&Message::Same));
    assert!(!opener(&own, &[]).wants_base_anyway());
}

/// A peer sent a byte now and then, each within its time, and held the only transfer of the store.
#[test]
fn n1_short_piece_before_the_last_one_is_refused() {
    let full = |byte: u8| Bytes::from(vec![byte; 4]);
    let piece = |piece, last| Message::Part { piece, last };
    let mut session = fetching().with_pieces_of(4);
    session.handle(piece(full(1), false)).unwrap();
    session.handle(piece(full(2), false)).unwrap();
    let mut ended = fetching().with_pieces_of(4);
    ended.handle(piece(full(1), false)).unwrap();
    ended.handle(part("1", false)).unwrap();
    ended.handle(part("", true)).unwrap();
    let short = |message| SyncError::ShortPiece {
        message,
        bytes_min: 4,
    };
    session.handle(part("1", false)).unwrap();
    assert_refused(session, part("2", true), short("Part"));
    let mut session = lacking().with_pieces_of(4);
    session.handle(manifest("man", false)).unwrap();
    assert_refused(session, manifest("i", false), short("Manifest"));
}

#[test]
fn n1_endless_and_unasked_pieces_are_refused() {
    let empty = |message| SyncError::Empty { message };
    assert_refused(lacking(), manifest("", false), empty("Manifest"));
    assert_refused(fetching(), part("", false), empty("Part"));
    let mut session = fetching();
    session.handle(part("0123456", false)).unwrap();
    let error = SyncError::BaseTooLong {
        what: "a part of a base",
        bytes_max: 3,
    };
    assert_refused(session, part("7890", true), error);
    let mut session = lacking();
    let long = Message::Manifest {
        piece: vec![0; SYNC_FRAME_BYTES_MAX].into(),
        last: false,
    };
    for _piece in 0..16 {
        session.handle(long.clone()).unwrap();
    }
    let error = SyncError::BaseTooLong {
        what: "a manifest",
        bytes_max: 16 << 20,
    };
    assert_refused(session, long, error);
    // Out of turn: a part before the manifest, a piece behind the last one, and a base that nobody asked
    // for.
    for (session, message) in [
        (lacking(), part("p", true)),
        (fetching(), manifest("m", true)),
        (asking(&[&chain()[0]]), part("p", true)),
    ] {
        let (mut session, name) = (session, message.name());
        let refused = session.handle(message);
        assert!(
            matches!(refused, Err(SyncError::OutOfTurn { message, .. }) if message == name),
            "{refused:?}"
        );
    }
    let mut session = fetching();
    session.handle(part("p", true)).unwrap();
    let refused = session.handle(part("p", true));
    assert!(matches!(refused, Err(SyncError::OutOfTurn { .. })));
}

#[test]
fn n1_beginnings_have_an_end_and_an_order() {
    let tip = |author: u8, seq: Seq| {
        let id = EntryId([1; 32]);
        (Author([author; 32]), FrontierTip { seq, id })
    };
    let page = |anchors: Vec<_>, last| Message::Begins { anchors, last };
    let fresh = || opener(&[], &[]);
    let empty = SyncError::Empty { message: "Begins" };
    assert_refused(fresh(), page(vec![], false), empty.clone());
    // Two of one author.
    for unsorted in [vec![tip(2, 1), tip(1, 1)], vec![tip(1, 1), tip(1, 2)]] {
        let error = SyncError::NotInOrder { what: "beginnings" };
        assert_refused(fresh(), page(unsorted, true), error);
    }
    let mut session = fresh();
    session.handle(page(vec![tip(1, 1)], false)).unwrap();
    assert_eq!(session.waits_for(), Some(WaitsFor::Tips));
    assert_refused(session, page(vec![], true), empty);
    // Tips come after them.
    let mut session = fresh();
    session.handle(page(vec![tip(1, 1)], false)).unwrap();
    assert!(session.handle(tips(&[])).is_err());
    let mut session = fresh();
    session.handle(page(vec![], true)).unwrap();
    assert!(session.handle(page(vec![], true)).is_err());
    let pages = SYNC_ITEMS_MAX / SYNC_PAGE_ITEMS_MAX;
    let mut session = fresh();
    let mut number = 0_u32;
    let mut next = || {
        number += 1;
        let mut author = [0; 32];
        author[..4].copy_from_slice(&number.to_be_bytes());
        (Author(author), tip(1, 1).1)
    };
    for _page in 0..pages {
        let anchors = (0..SYNC_PAGE_ITEMS_MAX).map(|_| next()).collect();
        session.handle(page(anchors, false)).unwrap();
    }
    let error = SyncError::TooManyTips {
        tips: SYNC_ITEMS_MAX + 1,
        tips_max: SYNC_ITEMS_MAX,
    };
    assert_refused(session, page(vec![next()], true), error);
}

#[test]
fn peer_of_version_1_is_served_as_long_as_it_lacks_nothing_that_was_removed() {
    let chain = chain();
    // It opens.
    let serving = |theirs: &[&VerifiedEntry]| {
        let mut session = acceptor(&[&chain[3]], &[&chain[1]]);
        let actions = session.handle(hello()).unwrap();
        assert_eq!(names(&actions), ["Tips"]);
        session.handle(tips(theirs))
    };
    // It is opened.
    let opening = |theirs: &[&VerifiedEntry]| {
        let mut session = opener(&[&chain[3]], &[&chain[1]]);
        let actions = session.handle(tips(theirs))?;
        assert_eq!(names(&actions)[0], "Tips");
        let refused = session.handle(Message::WantBase);
        assert!(matches!(refused, Err(SyncError::OutOfTurn { .. })));
        Ok(actions)
    };
    let too_old = SyncError::PeerTooOld {
        author: chain[0].author(),
        seq: 2,
    };
    assert!(!too_old.is_fault());
    for theirs in [&[][..], &[&chain[0]]] {
        assert_eq!(serving(theirs), Err(too_old.clone()));
        assert_eq!(opening(theirs), Err(too_old.clone()));
    }
    for theirs in [&chain[1], &chain[2]] {
        assert!(serving(&[theirs]).is_ok());
        assert!(opening(&[theirs]).is_ok());
    }
    // Its Begins would be a message that it does not know.
    let mut session = acceptor(&[&chain[3]], &[&chain[1]]);
    session.handle(hello()).unwrap();
    assert!(session.handle(begins(&[])).is_err());
}

#[test]
fn no_range_begins_before_the_place_where_a_log_begins() {
    // A fork of A far behind the tips: the ranges go back in steps, and stop at the anchor.
    let mut long = vec![entry(AUTHOR_A, 1, None, 10, "/k")];
    for seq in 2..=3 * SYNC_BACK_ENTRIES {
        let prev = long.last().map(|prev| prev.id);
        long.push(entry(AUTHOR_A, seq, prev, 10 * seq, "/k"));
    }
    let last = long.last().unwrap();
    let anchor = &long[usize::try_from(2 * SYNC_BACK_ENTRIES).unwrap()];
    let theirs = entry(
        AUTHOR_A,
        last.header.seq + 5,
        Some(EntryId([9; 32])),
        9000,
        "/k",
    );
    for (own_begins, their_begins) in [(vec![anchor], vec![]), (vec![], vec![anchor])] {
        let mut session = opener(&[last], &own_begins);
        session.handle(begins(&their_begins)).unwrap();
        let mut actions = session.handle(tips(&[&theirs])).unwrap();
        if !their_begins.is_empty() {
            assert_eq!(actions, [Action::Find(vec![tip_of(anchor)])]);
            actions = session.on_missing(Vec::new());
        }
        assert_eq!(actions, [Action::Find(vec![tip_of(&theirs)])]);
        let mut after = Vec::new();
        let mut missing = vec![tip_of(&theirs)];
        for _step in 0..6 {
            let wants = sent(session.on_missing(missing));
            let [Message::Want { ranges, .. }] = wants.as_slice() else {
                break;
            };
            after.push(ranges[0].after);
            let before = ranges[0].after;
            // The answer does not join the log here.
            let other = entry(AUTHOR_A, before + 1, Some(EntryId([8; 32])), 1, "/other");
            session.handle(entries(&[&other])).unwrap();
            let joint = FrontierTip {
                seq: before,
                id: EntryId([8; 32]),
            };
            let find = session.handle(Message::Sent).unwrap();
            assert_eq!(names(&find), ["find"]);
            missing = vec![(theirs.author(), joint), tip_of(&theirs)];
        }
        assert_eq!(after[0], last.header.seq);
        assert!(
            after.len() > 1 && after.iter().all(|seq| *seq >= anchor.header.seq),
            "{after:?}"
        );
        assert!(after.contains(&anchor.header.seq));
    }
}
