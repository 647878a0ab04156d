//! A peer that breaks every rule: each fault gives a typed error with its numbers.

use super::*;

#[test]
fn n4_messages_out_of_turn_are_refused_in_every_phase() {
    let chain = chain();
    let all = || {
        [
            hello(),
            Message::Same,
            tips(&[]),
            want(vec![range(&chain[3], 0)]),
            entries(&[&chain[0]]),
            Message::Sent,
            Message::Done,
        ]
    };
    let opener = || {
        Session::open(STORE, Frontier::default(), Vec::new())
            .unwrap()
            .0
    };
    let acceptor = || Session::accept(STORE, Frontier::default()).unwrap();
    let in_tips = || {
        let mut session = acceptor();
        session.handle(hello()).unwrap();
        session
    };
    let reading = || {
        let mut session = serving(&[&chain[3]]);
        session.handle(want(vec![range(&chain[3], 0)])).unwrap();
        session
    };
    let finding = || {
        let mut session = in_tips();
        session.handle(tips(&[&chain[3]])).unwrap();
        session
    };
    type Case<'a> = (
        &'static str,
        &'a dyn Fn() -> Session,
        &'static [&'static str],
    );
    let cases: [Case<'_>; 7] = [
        ("acceptor", &acceptor, &["Hello"]),
        ("opener", &opener, &["Same", "Tips"]),
        ("tips", &in_tips, &["Tips"]),
        ("finding", &finding, &["Want", "Done"]),
        (
            "asking",
            &|| asking(&[&chain[3]]),
            &["Want", "Entries", "Sent", "Done"],
        ),
        ("serving", &|| serving(&[&chain[3]]), &["Want", "Done"]),
        ("reading", &reading, &[]),
    ];
    for (phase, session, fits) in cases {
        for message in all() {
            let name = message.name();
            let refused = matches!(
                session().handle(message),
                Err(SyncError::OutOfTurn { message, .. }) if message == name
            );
            // A Want for entries that this node does not have is allowed in this phase; it is
            // refused for its content.
            assert_eq!(refused, !fits.contains(&name), "{phase} {name}");
        }
    }
}

#[test]
fn a_hello_of_another_store_or_version_is_refused() {
    let acceptor = || Session::accept(STORE, Frontier::default()).unwrap();
    let (theirs, ours) = (StoreId([6; 16]), STORE);
    let message = |version, store| Message::Hello {
        version,
        newest: 0,
        store,
        frontier: None,
    };
    assert_refused(
        acceptor(),
        message(1, theirs),
        SyncError::WrongStore { theirs, ours },
    );
    let (theirs, ours) = (3, VERSION);
    assert_refused(
        acceptor(),
        message(3, STORE),
        SyncError::WrongVersion { theirs, ours },
    );
}

#[test]
fn n1_tips_have_an_end_and_an_order() {
    let opener = || {
        Session::open(STORE, Frontier::default(), Vec::new())
            .unwrap()
            .0
    };
    let tip = |seq: Seq| {
        let id = EntryId([1; 32]);
        (Author([1; 32]), FrontierTip { seq, id })
    };
    let page = |tips: Vec<_>, last| Message::Tips { tips, last };
    assert_refused(
        opener(),
        page(vec![], false),
        SyncError::Empty { message: "Tips" },
    );
    for unsorted in [vec![tip(2), tip(1)], vec![tip(1), tip(1)]] {
        let error = SyncError::NotInOrder { what: "tips" };
        assert_refused(opener(), page(unsorted, true), error);
    }
    // The order is checked across pages, too.
    let mut session = opener();
    session.handle(page(vec![tip(5)], false)).unwrap();
    assert_eq!(session.waits_for(), Some(WaitsFor::Tips));
    let error = SyncError::NotInOrder { what: "tips" };
    assert_refused(session, page(vec![tip(5)], false), error);
    let mut session = opener();
    session.handle(page(vec![tip(5)], false)).unwrap();
    assert_refused(
        session,
        page(vec![], true),
        SyncError::Empty { message: "Tips" },
    );

    let mut session = opener();
    let seq = |index: usize| u64::try_from(index).unwrap() + 1;
    for begin in (0..SYNC_ITEMS_MAX).step_by(SYNC_PAGE_ITEMS_MAX) {
        let tips = (begin..begin + SYNC_PAGE_ITEMS_MAX).map(|index| tip(seq(index)));
        session.handle(page(tips.collect(), false)).unwrap();
    }
    let error = SyncError::TooManyTips {
        tips: SYNC_ITEMS_MAX + 1,
        tips_max: SYNC_ITEMS_MAX,
    };
    assert_refused(session, page(vec![tip(seq(SYNC_ITEMS_MAX))], true), error);

    let own: Frontier = (0..=SYNC_ITEMS_MAX).map(|index| tip(seq(index))).collect();
    let error = SyncError::TooManyOwnTips {
        tips: SYNC_ITEMS_MAX + 1,
        tips_max: SYNC_ITEMS_MAX,
    };
    assert_eq!(Session::accept(STORE, own.clone()).unwrap_err(), error);
    assert_eq!(Session::open(STORE, own, Vec::new()).unwrap_err(), error);
}

#[test]
fn n4_ranges_are_checked_against_what_is_here() {
    let chain = chain();
    let own = || serving(&[&chain[2]]);
    let (author, tip) = (chain[0].author(), chain[0].id);
    let of = |after, through| MissingRange {
        author,
        after,
        through,
        tip,
    };
    let refused = |ranges, error| assert_refused(own(), want(ranges), error);
    refused(vec![], SyncError::Empty { message: "Want" });
    for (after, through) in [(2, 2), (3, 2), (0, 0), (u64::MAX, 1)] {
        let error = SyncError::EmptyRange {
            author,
            after,
            through,
        };
        refused(vec![of(after, through)], error);
    }
    for through in [4, u64::MAX] {
        let error = SyncError::RangeTooFar {
            author,
            through,
            seq: 3,
        };
        refused(vec![of(0, through)], error);
    }
    for ranges in [vec![of(0, 2), of(0, 1)], vec![of(0, 2), of(1, 2)]] {
        refused(ranges, SyncError::NotInOrder { what: "ranges" });
    }
    // In the middle of a Want no other message is allowed.
    let mut session = own();
    let part = Message::Want {
        ranges: vec![of(0, 1)],
        last: false,
    };
    assert_eq!(session.handle(part), Ok(vec![]));
    assert!(matches!(
        session.handle(Message::Done),
        Err(SyncError::OutOfTurn { .. })
    ));
}

#[test]
fn n12_a_peer_may_not_ask_for_more_ranges_or_more_often_than_the_limits_say() {
    let chain = chain();
    let mut session = serving(&[&entry(AUTHOR_A, 1 << 40, Some(chain[0].id), 9, "/k")]);
    let range = |index: usize| MissingRange {
        through: u64::try_from(index).unwrap() + 1,
        ..range(&chain[0], 0)
    };
    for begin in (0..SYNC_ITEMS_MAX).step_by(SYNC_PAGE_ITEMS_MAX) {
        let ranges = (begin..begin + SYNC_PAGE_ITEMS_MAX).map(range).collect();
        session
            .handle(Message::Want {
                ranges,
                last: false,
            })
            .unwrap();
    }
    let error = SyncError::TooManyRanges {
        ranges: SYNC_ITEMS_MAX + 1,
        ranges_max: SYNC_ITEMS_MAX,
    };
    assert_refused(session, want(vec![range(SYNC_ITEMS_MAX)]), error);

    let mut session = serving(&[&chain[3]]);
    for _again in 0..SYNC_WANTS_MAX {
        session.handle(want(vec![range(0)])).unwrap();
        session.on_read_end();
    }
    let wants_max = SYNC_WANTS_MAX;
    assert_refused(
        session,
        want(vec![range(0)]),
        SyncError::TooManyWants { wants_max },
    );
}

#[test]
fn n12_peer_that_asks_for_everything_again_and_again_is_refused() {
    let last = entry(AUTHOR_A, 1 << 20, Some(EntryId([1; 32])), 9, "/k");
    let mut session = serving(&[&last]);
    for _again in 0..SYNC_ASKED_TIMES_MAX {
        session.handle(want(vec![range(&last, 0)])).unwrap();
        session.on_read_end();
    }
    let entries_max = (SYNC_ASKED_TIMES_MAX << 20) + u64::try_from(SYNC_ITEMS_MAX).unwrap();
    let again = want(vec![range(&last, 0)]);
    assert_refused(session, again, SyncError::AskedAgain { entries_max });
}

#[test]
fn n12_ranges_below_a_tip_are_left_out_above_a_limit() {
    let last = entry(AUTHOR_A, 1 << 40, Some(EntryId([1; 32])), 9, "/k");
    let mut session = serving(&[&last]);
    let inner = |seq: usize| MissingRange {
        after: u64::try_from(seq).unwrap(),
        through: u64::try_from(seq).unwrap() + 1,
        ..range(&last, 0)
    };
    let mut read = Vec::new();
    for begin in [0, SYNC_PAGE_ITEMS_MAX] {
        let mut ranges: Vec<_> = (begin..begin + SYNC_PAGE_ITEMS_MAX - 1)
            .map(inner)
            .collect();
        ranges.push(range(&last, (1 << 40) - 1));
        let actions = session.handle(want(ranges)).unwrap();
        session.on_read_end();
        let [Action::Read(ranges)] = actions.as_slice() else {
            panic!("{actions:?}");
        };
        read.push(ranges.len());
    }
    // The range that ends in a tip needs no read, so it is always served.
    let rest = SYNC_INNER_RANGES_MAX - (SYNC_PAGE_ITEMS_MAX - 1);
    assert_eq!(read, [SYNC_PAGE_ITEMS_MAX, rest + 1]);
}

#[test]
fn n5_made_up_tips_of_one_author_are_not_all_looked_up() {
    let mut session = Session::accept(STORE, Frontier::default()).unwrap();
    session.handle(hello()).unwrap();
    let made_up = |author: u8, seq: usize| {
        let id = EntryId([3; 32]);
        let seq = u64::try_from(seq).unwrap() + 1;
        (Author([author; 32]), FrontierTip { seq, id })
    };
    let mut tips: Vec<_> = (0..SYNC_PAGE_ITEMS_MAX - 1)
        .map(|seq| made_up(1, seq))
        .collect();
    tips.push(made_up(2, 0));
    let actions = session.handle(Message::Tips { tips, last: true }).unwrap();
    let Some(Action::Find(found)) = actions.last() else {
        panic!("{actions:?}");
    };
    let of = |author: u8| {
        found
            .iter()
            .filter(|(of, _)| *of == Author([author; 32]))
            .count()
    };
    assert_eq!((of(1), of(2)), (SYNC_AUTHOR_TIPS_MAX, 1));
}

#[test]
fn n4_entries_are_checked_against_what_was_asked_for() {
    let chain = chain();
    let refused = |message, error| assert_refused(asking(&[&chain[2]]), message, error);
    refused(
        Message::Entries(vec![]),
        SyncError::Empty { message: "Entries" },
    );
    let author = chain[3].author();
    refused(
        entries(&[&chain[3]]),
        SyncError::NotAsked { author, seq: 4 },
    );
    let other = entry(AUTHOR_B, 1, None, 5, "/k");
    let author = other.author();
    refused(entries(&[&other]), SyncError::NotAsked { author, seq: 1 });
    for unsorted in [[&chain[1], &chain[0]], [&chain[0], &chain[0]]] {
        refused(
            entries(&unsorted),
            SyncError::NotInOrder { what: "entries" },
        );
    }
    let mut foreign = chain[0].header.clone();
    foreign.store = StoreId([6; 16]);
    let key = ed25519_dalek::SigningKey::from_bytes(&AUTHOR_A);
    let foreign = crate::protocol::entry::sign(&key, foreign, vec![]).unwrap();
    let (theirs, ours) = (StoreId([6; 16]), STORE);
    refused(
        entries(&[&foreign]),
        SyncError::EntryOfOtherStore { theirs, ours },
    );

    // The order is checked across messages, too.
    let mut session = asking(&[&chain[2]]);
    session.handle(entries(&[&chain[1]])).unwrap();
    let error = SyncError::NotInOrder { what: "entries" };
    assert_refused(session, entries(&[&chain[0]]), error);
}

#[test]
fn n4_an_answer_ends_also_when_what_comes_cannot_be_read() {
    let chain = chain();
    let newer = |seq: u8| {
        let mut signed = chain[0].signed.clone();
        signed.header = vec![8, 99, 0x18, seq].into();
        Bytes::from(signed.encode())
    };
    let mut session = asking(&[&chain[2]]);
    let actions = session
        .handle(Message::Entries(vec![newer(1), bytes(&chain[1])]))
        .unwrap();
    assert_eq!(actions, [Action::Ingest(vec![chain[1].clone()])]);
    assert_eq!((session.summary().newer, session.summary().refused), (1, 0));
    session.handle(Message::Entries(vec![newer(3)])).unwrap();
    let error = SyncError::TooManyEntries { entries_max: 3 };
    assert_refused(session, Message::Entries(vec![newer(4)]), error);
}

#[test]
fn n2_a_forged_entry_is_refused_alone_and_many_end_the_session() {
    let chain = chain();
    let mut session = asking(&[&chain[2]]);
    let message = Message::Entries(vec![bytes(&chain[0]), forged(&chain[1]), bytes(&chain[2])]);
    let good = vec![chain[0].clone(), chain[2].clone()];
    assert_eq!(session.handle(message), Ok(vec![Action::Ingest(good)]));
    session.handle(Message::Sent).unwrap();
    assert_eq!(session.summary().refused, 1);

    let far = entry(AUTHOR_A, 1000, Some(chain[0].id), 10_000, "/k");
    let mut session = asking(&[&far]);
    for _bad in 0..SYNC_REFUSED_MAX {
        session
            .handle(Message::Entries(vec![vec![7; 100].into()]))
            .unwrap();
    }
    let error = SyncError::TooManyRefused {
        refused_max: SYNC_REFUSED_MAX,
        last: EntryError::BadSignature {
            author: far.author(),
        },
    };
    session
        .handle(Message::Entries(vec![forged(&far)]))
        .unwrap();
    assert_refused(session, Message::Sent, error.clone());

    // A bad entry that is not kept until the answer is complete is counted at once.
    let first = SYNC_UNPROVEN_MAX as u64 + SYNC_REFUSED_MAX;
    let many = (1..=first).map(|seq| entry(AUTHOR_A, seq + 1, Some(chain[0].id), seq, "/k"));
    let mut many: Vec<_> = many.map(|entry| forged(&entry)).collect();
    let mut session = asking(&[&far]);
    session.handle(Message::Entries(many.clone())).unwrap();
    assert_eq!(session.summary().refused, SYNC_REFUSED_MAX);
    many.push(forged(&far));
    assert_refused(asking(&[&far]), Message::Entries(many), error);
}

#[test]
fn n12_an_author_without_end_of_forks_is_asked_for_a_bounded_number_of_times() {
    let own = entry(AUTHOR_A, u64::MAX - 1, Some(EntryId([1; 32])), 10, "/k");
    let far = entry(AUTHOR_A, u64::MAX, Some(EntryId([2; 32])), 10, "/k");
    let mut session = Session::accept(STORE, Frontier::from_iter([tip_of(&own)])).unwrap();
    session.handle(hello()).unwrap();
    session.handle(tips(&[&far])).unwrap();
    let mut asked = vec![session.on_missing(vec![tip_of(&far)])];
    while let [Action::Send(Message::Want { ranges, .. })] = &asked.last().unwrap()[..] {
        let seq = ranges[0].after.max(1);
        let wall_ms = seq % 1000;
        let first = entry(AUTHOR_A, seq + 1, Some(EntryId([3; 32])), wall_ms, "/k");
        session.handle(entries(&[&first])).unwrap();
        let actions = session.handle(Message::Sent).unwrap();
        let [Action::Find(lacking)] = &actions[..] else {
            panic!("{actions:?}")
        };
        asked.push(session.on_missing(lacking.clone()));
    }
    assert_eq!(asked.pop().unwrap(), [Action::Send(Message::Done)]);
    // The step grows fourfold from 64; after 29 times it is larger than any log.
    assert_eq!(asked.len(), 31);
}

// An entry that waits for another one or for the clock is counted by its own bytes, and used to
// keep the whole message in memory: a mebibyte for an entry of two hundred bytes.
#[test]
fn n3_an_entry_that_is_kept_does_not_keep_the_message_it_came_in() {
    let chain = chain();
    let mut session = asking(&[&chain[2]]);
    let frame = entries(&[&chain[0], &chain[1]]).encode().slice(4..);
    let kept = session.handle(Message::decode(frame.clone()).unwrap());
    assert_eq!(kept, Ok(vec![Action::Ingest(chain[..2].to_vec())]));
    assert!(frame.is_unique());
}
