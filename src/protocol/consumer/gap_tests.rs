//! Gaps: nothing passes one, one is outstanding at a time, and its state is like no other changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use prost::Message as _;

use super::*;
use crate::{
    id::{Author, EntryId},
    protocol::{
        change::{Change, EntryRef, Kind, Origin},
        gap::Gap,
        hlc::Hlc,
    },
    wire,
};

const ACK_WAIT_MS: u64 = 100;

fn rules() -> Rules {
    Rules {
        ack_wait_ms: ACK_WAIT_MS,
        max_deliver: Some(3),
        max_in_flight: 8,
        backoff_ms: vec![10],
    }
}

fn change(number: u8, key: u8) -> ChangeRef {
    ChangeRef {
        key: Bytes::from(format!("/k/{key}")),
        kind: Kind::Put,
        entry: EntryRef {
            id: EntryId([number; 32]),
            author: Author([1; 32]),
            seq: u64::from(number),
            hlc: Hlc::new(u64::from(number), 0).unwrap(),
        },
        op_index: 0,
        expires_ms: None,
        arrived_ms: 5,
        gap_number: 0,
        gap: None,
    }
}

fn initial(number: u8, key: u8, gap_number: u64) -> ChangeRef {
    ChangeRef {
        gap_number,
        ..change(number, key)
    }
}

fn gap() -> ChangeRef {
    let what = Gap {
        reason: "removed".to_owned(),
        reach_ms: Some(7),
    };
    let removed = change(200, 0).entry;
    ChangeRef::from(&Change::of_gap(Arc::new(what), 0, removed, 5))
}

fn taken(all: &mut Outstanding) -> Option<Given> {
    all.take(1000, false)
}

fn keys(all: &Outstanding) -> Vec<String> {
    let waits = all.waits();
    let name = |waits: Waits| String::from_utf8_lossy(&waits.change.key).into_owned();
    waits.map(name).collect()
}

#[test]
fn gap_waits_for_all_before_it_and_all_after_it_wait() {
    let mut all = Outstanding::new(rules());
    all.feed(change(1, 1));
    all.feed(change(2, 2));
    assert_eq!(all.feed_gap(gap()), 1);
    all.feed(initial(2, 2, 1));
    all.feed(change(3, 3));
    let (one, two) = (taken(&mut all).unwrap(), taken(&mut all).unwrap());
    assert_eq!((one.number, two.number), (0, 1));
    assert_eq!(taken(&mut all), None);
    assert!(!all.is_ready());
    let behind: Vec<bool> = all.waits().map(|waits| waits.behind).collect();
    assert_eq!(behind, [false, false, true, true, true]);
    all.ack(one.id).unwrap();
    all.nack(two.id, Some(0), 1000).unwrap();
    // It comes before the gap again.
    let two = taken(&mut all).unwrap();
    assert_eq!((two.number, two.id.attempt), (1, 2));
    assert_eq!(taken(&mut all), None);
    all.ack(two.id).unwrap();
    let given = taken(&mut all).unwrap();
    assert_eq!(given.change.kind, Kind::Gap);
    assert_eq!(taken(&mut all), None, "nothing passes a gap");
    all.ack(given.id).unwrap();
    let state = taken(&mut all).unwrap();
    assert!(state.change.is_initial());
    assert!(!taken(&mut all).unwrap().change.is_initial());
    all.check();
}

#[test]
fn gap_while_a_gap_is_not_finished_is_one_gap() {
    for given_before in [false, true] {
        let mut all = Outstanding::new(rules());
        all.feed(change(1, 1));
        assert_eq!(all.feed_gap(gap()), 1);
        all.feed(initial(4, 4, 1));
        all.feed(change(5, 5));
        let first = taken(&mut all).unwrap();
        if given_before {
            all.ack(first.id).unwrap();
        }
        let given = taken(&mut all);
        assert_eq!(given.is_some(), given_before);
        // A taker has it: it stands for both. No taker has got what comes after it.
        let number = all.feed_gap(gap());
        assert_eq!(number, if given_before { 1 } else { 2 });
        let expected = if given_before {
            vec![""]
        } else {
            vec!["/k/1", ""]
        };
        assert_eq!(keys(&all), expected);
        all.feed(initial(4, 4, number));
        if let Some(given) = given {
            all.ack(given.id).unwrap();
            assert_eq!(taken(&mut all).unwrap().change.key, "/k/4");
        }
        all.check();
    }
}

#[test]
fn ids_of_a_gap_and_its_state_are_those_of_no_other() {
    let ids = [
        ChangeId::of(&change(1, 1)),
        ChangeId::of(&initial(1, 1, 1)),
        ChangeId::of(&initial(1, 1, 2)),
        ChangeId::of(&ChangeRef {
            gap_number: 1,
            ..gap()
        }),
        ChangeId::of(&ChangeRef {
            gap_number: 2,
            ..gap()
        }),
    ];
    assert_eq!(BTreeSet::from(ids).len(), ids.len());
    // A change that is outstanding does not hide the live key of the state.
    let mut all = Outstanding::new(rules());
    all.feed(change(1, 1));
    let number = all.feed_gap(gap());
    assert!(all.feed(initial(1, 1, number)).is_some());
    assert!(all.feed(initial(1, 1, number)).is_none());
}

#[test]
fn cause_of_a_live_key_is_the_same_after_every_gap() {
    let of = |gap_number, op_index| {
        let put = change(1, 1);
        let change = Change {
            key: put.key.clone(),
            kind: Kind::Put,
            entry: put.entry,
            origin: Origin::Replay,
            op_index,
            gap: None,
            ..Change::of_gap(gap().gap.unwrap(), gap_number, put.entry, 5)
        };
        cause_of("hook", &change)
    };
    assert_eq!(of(1, 0), of(2, 0));
    assert_ne!(of(1, 0), of(0, 0));
    let gaps = [1, 2].map(|number| {
        let removed = change(200, 0).entry;
        cause_of(
            "hook",
            &Change::of_gap(gap().gap.unwrap(), number, removed, 5),
        )
    });
    assert_ne!(gaps[0], gaps[1]);
}

#[test]
fn dead_gap_is_retried_last_and_asks_for_the_state() {
    let mut all = Outstanding::new(rules());
    all.feed_gap(gap());
    all.feed(initial(1, 1, 1));
    for _ in 0..2 {
        let given = taken(&mut all).unwrap();
        all.term(given.id, DeathReason::Terminated, 1000).unwrap();
    }
    let letter = all.dead().next().unwrap();
    assert_eq!(letter.change.kind, Kind::Gap);
    assert_eq!(
        all.retry(|_| true),
        Retried {
            count: 2,
            gap: Some(2)
        }
    );
    assert_eq!(keys(&all), ["/k/1", ""]);
    // One gap stands for both.
    let mut all = Outstanding::new(rules());
    all.feed_gap(gap());
    let given = taken(&mut all).unwrap();
    all.term(given.id, DeathReason::Terminated, 1000).unwrap();
    all.feed_gap(gap());
    assert_eq!(
        all.retry(|_| true),
        Retried {
            count: 1,
            gap: None
        }
    );
    assert_eq!((all.len(), all.dead().len(), all.counts().gaps), (1, 0, 2));
    all.check();
}

#[test]
fn row_of_an_earlier_build_stops_at_a_gap() {
    let row = wire::ConsumerRow {
        ack_wait_ms: 5,
        max_in_flight: 1,
        stopped: "why".to_owned(),
        ..wire::ConsumerRow::default()
    };
    let decoded = decode_consumer(&row.encode_to_vec()).unwrap();
    assert_eq!(decoded.on_gap, OnGap::Stop);
    assert_eq!((decoded.state_of, decoded.counts.gaps), (0, 0));
    let unknown = wire::ConsumerRow { on_gap: 2, ..row };
    assert_eq!(decode_consumer(&unknown.encode_to_vec()), None);
}

#[test]
fn row_of_a_gap_round_trips_and_needs_its_reason() {
    let place = |change: ChangeRef| Place::Outstanding {
        change,
        attempts: 1,
        state: State::AT_ONCE,
    };
    let numbered = ChangeRef {
        gap_number: 3,
        ..gap()
    };
    for change in [numbered.clone(), initial(1, 1, 3)] {
        let row = encode_change(&place(change.clone())).unwrap();
        assert_eq!(decode_change(7, &row), Some(place(change)));
    }
    let wrong = [
        ChangeRef {
            gap: None,
            ..numbered.clone()
        },
        ChangeRef {
            kind: Kind::Put,
            ..numbered.clone()
        },
        ChangeRef {
            gap_number: 0,
            ..numbered
        },
    ];
    for change in wrong {
        let row = encode_change(&place(change)).unwrap();
        assert_eq!(decode_change(7, &row), None);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Feed { key: u8 },
    Gap,
    Take,
    // Answers a delivery, counted from the oldest that is not answered.
    Ack(usize),
    Nack(usize),
    Term(usize),
    Wait(u64),
    Retry,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4_u8).prop_map(|key| Step::Feed { key }),
        2 => Just(Step::Gap),
        6 => Just(Step::Take),
        5 => (0..4_usize).prop_map(Step::Ack),
        2 => (0..4_usize).prop_map(Step::Nack),
        1 => (0..4_usize).prop_map(Step::Term),
        2 => (1..150_u64).prop_map(Step::Wait),
        1 => Just(Step::Retry),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #[test]
    fn nothing_passes_a_gap_in_any_history(steps in vec(step(), 1..60)) {
        let mut all = Outstanding::new(rules());
        let (mut now_ms, mut fed) = (1000, 0_u8);
        let mut with_takers: Vec<DeliveryId> = Vec::new();
        let mut rows: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Feed { key } if all.room() > 0 && fed < 200 => {
                    fed += 1;
                    all.feed(change(fed, key));
                }
                Step::Feed { .. } => {}
                Step::Gap => drop(all.feed_gap(gap())),
                Step::Take => {
                    // A gap that has timed out for the last time is in nobody's way.
                    all.tick(now_ms);
                    let before: Vec<Waits> = all.waits().collect();
                    if let Some(given) = all.take(now_ms, false) {
                        let id = given.id.change;
                        let at = before.iter().position(|waits| waits.id.change == id).unwrap();
                        let is_gap = |waits: &Waits| waits.change.kind == Kind::Gap;
                        assert!(!before[..at].iter().any(is_gap), "it passed a gap");
                        assert!(at == 0 || given.change.kind != Kind::Gap, "a gap passed it");
                        with_takers.push(given.id);
                    }
                }
                Step::Ack(n) if n < with_takers.len() => {
                    // An error: it timed out, or a crash took it back.
                    all.ack(with_takers.remove(n)).unwrap_or_default();
                }
                Step::Nack(n) if n < with_takers.len() => {
                    all.nack(with_takers.remove(n), None, now_ms).unwrap_or_default();
                }
                Step::Term(n) if n < with_takers.len() => {
                    let id = with_takers.remove(n);
                    all.term(id, DeathReason::Terminated, now_ms).unwrap_or_default();
                }
                Step::Ack(_) | Step::Nack(_) | Step::Term(_) => {}
                Step::Wait(ms) => now_ms += ms,
                Step::Retry => drop(all.retry(|_| true)),
                Step::Crash => {
                    for (number, place) in all.take_touched() {
                        match encode_change(&place) {
                            Some(row) => drop(rows.insert(number, row)),
                            None => drop(rows.remove(&number)),
                        }
                    }
                    let places = rows.iter();
                    let places = places.map(|(it, row)| (*it, decode_change(*it, row).unwrap()));
                    all = Outstanding::restore(rules(), all.counts(), places, now_ms);
                    with_takers.clear();
                }
            }
            all.check();
        }
        // Everything is delivered in the end.
        for _ in 0..1000 {
            now_ms += 1000;
            // Some may have timed out just now.
            let Some(given) = all.take(now_ms, false) else { continue };
            all.ack(given.id).unwrap();
        }
        assert!(all.is_empty(), "{:?}", keys(&all));
    }
}
