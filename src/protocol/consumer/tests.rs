//! The rules against a slower and simpler model of them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    id::{Author, EntryId},
    limits::DEAD_LETTERS_MAX,
    protocol::{
        change::{EntryRef, Kind},
        hlc::Hlc,
    },
};

const MAX_IN_FLIGHT: usize = 6;
const ACK_WAIT_MS: u64 = 100;

fn rules(max_deliver: Option<u32>) -> Rules {
    Rules {
        ack_wait_ms: ACK_WAIT_MS,
        max_deliver,
        max_in_flight: MAX_IN_FLIGHT,
        backoff_ms: vec![10, 50],
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

#[derive(Debug, Clone)]
enum Step {
    Feed { key: u8 },
    Take { detached: bool },
    // Answers one of the deliveries so far, counted from the newest.
    Ack(usize),
    Nack(usize, Option<u64>),
    Term(usize),
    Extend(usize),
    Wait(u64),
    Pause(bool),
    Retry,
    Skip,
    Save,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4_u8).prop_map(|key| Step::Feed { key }),
        6 => any::<bool>().prop_map(|detached| Step::Take { detached }),
        4 => (0..8_usize).prop_map(Step::Ack),
        2 => (0..8_usize, proptest::option::of(0..200_u64)).prop_map(|(n, d)| Step::Nack(n, d)),
        1 => (0..8_usize).prop_map(Step::Term),
        1 => (0..8_usize).prop_map(Step::Extend),
        3 => (1..150_u64).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Pause),
        1 => Just(Step::Retry),
        1 => Just(Step::Skip),
        2 => Just(Step::Save),
        1 => Just(Step::Crash),
    ]
}

/// Changes that were fed to the consumer and are neither acknowledged nor skipped.
#[derive(Debug, Clone, Default)]
struct Model {
    // By change.
    all: BTreeMap<ChangeId, Owed>,
    fed: u64,
}

#[derive(Debug, Clone)]
struct Owed {
    key: Bytes,
    // Order of feeding; a retry gives the change a new place.
    place: u64,
    attempts: u32,
    dead: bool,
    // Taken: until this time. Waiting: not before this time.
    until_ms: u64,
    taken: bool,
    // The taker outlives the node.
    detached: bool,
}

impl Model {
    // Returns the change that must be delivered next: the oldest change that may be taken.
    fn next(&self, now_ms: u64) -> Option<ChangeId> {
        let first = |owed: &Owed| {
            let same = self
                .all
                .values()
                .filter(|other| !other.dead && other.key == owed.key);
            same.map(|other| other.place).min() == Some(owed.place)
        };
        let open = self.all.iter().filter(|(_, owed)| {
            !owed.dead && !owed.taken && owed.until_ms <= now_ms && first(owed)
        });
        open.min_by_key(|(_, owed)| owed.place).map(|(id, _)| *id)
    }

    fn fail(&mut self, rules: &Rules, id: ChangeId, now_ms: u64, delay_ms: Option<u64>) {
        let owed = self.all.get_mut(&id).unwrap();
        owed.taken = false;
        if rules.max_deliver.is_some_and(|max| owed.attempts >= max) {
            owed.dead = true;
            return;
        }
        let backoff = rules.backoff_ms[(owed.attempts as usize - 1).min(1)];
        owed.until_ms = now_ms + delay_ms.unwrap_or(backoff);
    }

    fn time_out(&mut self, rules: &Rules, now_ms: u64) {
        // The pause is counted from the time when the rules notice that the takers are late.
        let late = |owed: &Owed| owed.taken && owed.until_ms <= now_ms;
        let ids: Vec<_> = self
            .all
            .iter()
            .filter(|(_, owed)| late(owed))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.fail(rules, id, now_ms, None);
        }
    }
}

// The rows in the file, by number.
type Rows = BTreeMap<u64, Vec<u8>>;

fn save(all: &mut Outstanding, rows: &mut Rows) {
    for (number, place) in all.take_touched() {
        match encode_change(&place) {
            Some(row) => drop(rows.insert(number, row)),
            None => assert!(
                rows.remove(&number).is_some(),
                "only a change with a row is removed"
            ),
        }
    }
    assert!(!all.is_touched());
}

fn run(max_deliver: Option<u32>, steps: Vec<Step>) {
    let rules = rules(max_deliver);
    let mut all = Outstanding::new(rules.clone());
    let mut model = Model::default();
    let (mut rows, mut saved_model) = (Rows::new(), Model::default());
    let mut saved_counts = Counts::default();
    let mut deliveries: Vec<(DeliveryId, bool)> = Vec::new();
    let (mut now_ms, mut paused) = (1000, false);
    for step in steps {
        match step {
            Step::Feed { key } if all.room() > 0 => {
                let number = u8::try_from(model.fed).unwrap();
                let change = change(number, key);
                let id = ChangeId::of(&change);
                assert!(all.feed(change.clone()).is_some());
                assert_eq!(all.feed(change.clone()), None, "already outstanding");
                model.fed += 1;
                let owed = Owed {
                    key: change.key,
                    place: model.fed,
                    attempts: 0,
                    dead: false,
                    until_ms: 0,
                    taken: false,
                    detached: false,
                };
                model.all.insert(id, owed);
            }
            Step::Feed { .. } => assert!(all.len() >= MAX_IN_FLIGHT),
            Step::Take { detached } => {
                model.time_out(&rules, now_ms);
                let expected = model.next(now_ms).filter(|_| !paused);
                let given = all.take(now_ms, detached);
                assert_eq!(given.as_ref().map(|given| given.id.change), expected);
                if let Some(given) = given {
                    let owed = model.all.get_mut(&given.id.change).unwrap();
                    owed.attempts += 1;
                    (owed.taken, owed.until_ms) = (true, now_ms + ACK_WAIT_MS);
                    owed.detached = detached;
                    assert_eq!(given.id.attempt, owed.attempts);
                    assert!(max_deliver.is_none_or(|max| owed.attempts <= max));
                    deliveries.push((given.id, detached));
                } else {
                    let due = all.next_due_ms();
                    assert!(
                        due.is_none_or(|due| due > now_ms),
                        "woken for nothing: {due:?}"
                    );
                }
            }
            Step::Ack(n) | Step::Nack(n, _) | Step::Term(n) | Step::Extend(n) => {
                let Some((id, detached)) = deliveries.iter().rev().nth(n).copied() else {
                    continue;
                };
                // A taker is late only once the rules have seen it.
                let owed = model.all.get(&id.change).cloned();
                let done = match step {
                    Step::Ack(_) => all.ack(id),
                    Step::Nack(_, delay_ms) => all.nack(id, delay_ms, now_ms),
                    Step::Term(_) => all.term(id, DeathReason::Terminated, now_ms),
                    _ => all.extend(id, detached, now_ms),
                };
                match (owed, done) {
                    (None, done) => assert_eq!(done, Err(AckError::NotOutstanding { id })),
                    (Some(owed), done) if owed.dead => {
                        assert_eq!(done, Err(AckError::Dead { id }));
                    }
                    (Some(owed), done) if owed.attempts > id.attempt => {
                        let attempts = owed.attempts;
                        assert_eq!(done, Err(AckError::GivenAgain { id, attempts }));
                    }
                    // The node died before the attempt was saved.
                    (Some(owed), done) if owed.attempts < id.attempt => {
                        assert_eq!(done, Err(AckError::NotOutstanding { id }));
                    }
                    // The change was given back or timed out: the model does not record which of
                    // the two.
                    (Some(owed), Err(error)) => {
                        assert!(
                            !owed.taken && error == AckError::Answered { id },
                            "{error:?}"
                        );
                    }
                    (Some(_), Ok(())) => {
                        let owed = model.all.get_mut(&id.change).unwrap();
                        match step {
                            Step::Ack(_) => drop(model.all.remove(&id.change)),
                            Step::Nack(_, delay_ms) => {
                                model.fail(&rules, id.change, now_ms, delay_ms);
                            }
                            Step::Term(_) => (owed.dead, owed.taken) = (true, false),
                            _ => {
                                (owed.taken, owed.until_ms) = (true, now_ms + ACK_WAIT_MS);
                                owed.detached = detached;
                            }
                        }
                    }
                }
            }
            Step::Wait(ms) => now_ms += ms,
            Step::Pause(pause) => {
                paused = pause;
                all.set_paused(pause);
            }
            Step::Retry => {
                let room = all.room();
                let moved = all.retry(|_| true).count;
                let dead = model.all.values().filter(|owed| owed.dead).count();
                assert_eq!(moved, dead.min(room));
                let still: BTreeSet<_> =
                    all.dead().map(|dead| ChangeId::of(&dead.change)).collect();
                let mut back: Vec<_> = model
                    .all
                    .iter_mut()
                    .filter(|(id, owed)| owed.dead && !still.contains(id))
                    .map(|(_, owed)| owed)
                    .collect();
                back.sort_by_key(|owed| owed.place);
                for owed in back {
                    model.fed += 1;
                    (owed.dead, owed.attempts, owed.until_ms) = (false, 0, 0);
                    owed.place = model.fed;
                }
            }
            Step::Skip => {
                let dead = model.all.values().filter(|owed| owed.dead).count();
                assert_eq!(all.skip(|_| true), dead);
                model.all.retain(|_, owed| !owed.dead);
            }
            Step::Save => {
                save(&mut all, &mut rows);
                (saved_model, saved_counts) = (model.clone(), all.counts());
            }
            Step::Crash => {
                let places = rows.iter().map(|(number, row)| {
                    (
                        *number,
                        decode_change(*number, row).expect("a row is readable"),
                    )
                });
                let fed = model.fed;
                all = Outstanding::restore(rules.clone(), saved_counts, places, now_ms);
                all.set_paused(paused);
                model = saved_model.clone();
                // Numbers of changes are not used again, so that an id always names the same
                // change.
                model.fed = fed;
                let attached: Vec<_> = model
                    .all
                    .iter()
                    .filter(|(_, owed)| owed.taken && !owed.detached)
                    .map(|(id, _)| *id)
                    .collect();
                for id in attached {
                    model.fail(&rules, id, now_ms, None);
                }
                deliveries.retain(|(id, _)| {
                    model
                        .all
                        .get(&id.change)
                        .is_some_and(|owed| owed.attempts >= id.attempt)
                });
            }
        }
        all.check();
        let open = model.all.values().filter(|owed| !owed.dead).count();
        assert!(open <= MAX_IN_FLIGHT);
        assert_eq!(
            (all.len(), all.dead().len()),
            (open, model.all.len() - open)
        );
        assert_eq!(all.is_empty(), open == 0);
    }
    // No change is lost: all changes are delivered if changes are taken and acknowledged for long
    // enough.
    all.set_paused(false);
    let mut open: BTreeSet<ChangeId> = model
        .all
        .iter()
        .filter(|(_, owed)| !owed.dead)
        .map(|(id, _)| *id)
        .collect();
    for _ in 0..200 {
        while let Some(given) = all.take(now_ms, false) {
            all.ack(given.id).unwrap();
            assert!(open.remove(&given.id.change), "a finished change was taken");
        }
        now_ms += 50;
    }
    let dead: BTreeSet<_> = all
        .dead()
        .map(|letter| ChangeId::of(&letter.change))
        .collect();
    assert!(open.is_subset(&dead), "{open:?} never came");
    assert!(all.is_empty());
    save(&mut all, &mut rows);
    assert_eq!(rows.len(), dead.len(), "finished changes have no rows");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn fed_changes_come_in_order_until_done(
        max_deliver in proptest::option::of(1..4_u32),
        steps in vec(step(), 1..120),
    ) {
        run(max_deliver, steps);
    }
}

#[test]
fn late_ack_counts_until_taken_again() {
    let mut all = Outstanding::new(rules(None));
    all.feed(change(1, 1));
    let first = all.take(0, false).unwrap().id;
    assert_eq!(
        all.take(ACK_WAIT_MS, false),
        None,
        "the change waits for its second attempt"
    );
    let second = all.take(ACK_WAIT_MS + 10, false).unwrap().id;
    assert_eq!((second.change, second.attempt), (first.change, 2));
    let given_again = AckError::GivenAgain {
        id: first,
        attempts: 2,
    };
    assert_eq!(all.ack(first), Err(given_again));
    all.tick(ACK_WAIT_MS * 3);
    assert_eq!(all.ack(second), Ok(()), "late, and no other taker has it");
    assert_eq!(
        all.ack(second),
        Err(AckError::NotOutstanding { id: second })
    );
}

#[test]
fn attempt_is_answered_once() {
    let mut all = Outstanding::new(rules(None));
    all.feed(change(1, 1));
    let id = all.take(0, false).unwrap().id;
    assert_eq!(all.nack(id, Some(5), 0), Ok(()));
    assert_eq!(all.ack(id), Err(AckError::Answered { id }));
    let never = DeliveryId { attempt: 7, ..id };
    assert_eq!(all.ack(never), Err(AckError::NotOutstanding { id: never }));
}

#[test]
fn outstanding_changes_say_what_they_wait_for() {
    let mut all = Outstanding::new(rules(None));
    assert!(all.is_empty() && !all.is_ready());
    for (number, key) in [(1, 1), (2, 1), (3, 2), (4, 3)] {
        all.feed(change(number, key));
    }
    let first = all.take(0, true).unwrap().id;
    let second = all.take(0, false).unwrap().id;
    assert_eq!(all.nack(second, Some(40), 0), Ok(()));
    let taken = State::Taken {
        deadline_ms: ACK_WAIT_MS,
        detached: true,
    };
    let later = State::Waiting {
        due_ms: 40,
        late: false,
    };
    let waits: Vec<_> = all
        .waits()
        .map(|it| (it.change.entry.seq, it.id.attempt, it.state, it.behind))
        .collect();
    assert_eq!(
        waits,
        [
            (1, 1, taken, false),
            (2, 0, State::AT_ONCE, true),
            (3, 1, later, false),
            (4, 0, State::AT_ONCE, false),
        ]
    );
    assert!(all.is_ready());
    // Fewer attempts also count for a change that is with a taker.
    all.set_rules(rules(Some(1)));
    assert_eq!(all.nack(first, None, 0), Ok(()));
    assert_eq!(all.dead().len(), 1);
}

#[test]
fn only_detached_takers_outlive_a_restart() {
    let mut all = Outstanding::new(rules(None));
    all.feed(change(1, 1));
    all.feed(change(2, 2));
    let attached = all.take(0, false).unwrap().id;
    let detached = all.take(0, true).unwrap().id;
    let places = all.take_touched();
    let mut again = Outstanding::restore(rules(None), Counts::default(), places, 20);
    assert_eq!(again.take(29, false), None);
    let second = again.take(30, false).unwrap().id;
    assert_eq!((second.change, second.attempt), (attached.change, 2));
    assert_eq!(again.ack(detached), Ok(()));
}

#[test]
fn crash_in_last_attempt_makes_a_dead_letter() {
    let mut all = Outstanding::new(rules(Some(1)));
    all.feed(change(1, 1));
    all.take(0, false).unwrap();
    let places = all.take_touched();
    let again = Outstanding::restore(rules(Some(1)), Counts::default(), places, 20);
    let reasons: Vec<_> = again
        .dead()
        .map(|letter| (letter.reason, letter.attempts))
        .collect();
    assert_eq!(reasons, [(DeathReason::MaxDeliver, 1)]);
}

#[test]
fn full_dead_letters_keep_changes_alive() {
    let mut all = Outstanding::new(Rules {
        max_in_flight: usize::MAX,
        ..rules(Some(1))
    });
    let feed = |all: &mut Outstanding, number: usize| {
        let mut change = change(1, 1);
        change.entry.id = EntryId(blake3::hash(&number.to_le_bytes()).into());
        all.feed(change);
        all.take(u64::MAX - 1, false).unwrap().id
    };
    for number in 0..DEAD_LETTERS_MAX {
        let id = feed(&mut all, number);
        all.term(id, DeathReason::Terminated, 0).unwrap();
    }
    let id = feed(&mut all, DEAD_LETTERS_MAX);
    let full = all.term(id, DeathReason::Terminated, 0);
    assert_eq!(full, Err(AckError::DeadLettersFull));
    all.nack(id, None, 0).unwrap();
    assert_eq!((all.len(), all.dead().len()), (1, DEAD_LETTERS_MAX));
    assert_eq!(all.skip(|letter| letter.number == 0), 1);
    let again = all.take(50, false).unwrap().id;
    all.nack(again, None, 50).unwrap();
    assert_eq!((all.len(), all.dead().len()), (0, DEAD_LETTERS_MAX));
}

// A taker had one of the two, its answer went to the other, and the next take panicked.
#[test]
fn s9_change_with_two_rows_is_restored_once() {
    let row = Place::Outstanding {
        change: change(1, 1),
        attempts: 0,
        state: State::AT_ONCE,
    };
    let rows = [(1, row.clone()), (4, row)];
    let mut all = Outstanding::restore(rules(None), Counts::default(), rows, 0);
    all.check();
    assert_eq!(all.take_touched(), [(4, Place::Finished)]);
    let given = all.take(0, false).unwrap();
    all.nack(given.id, Some(0), 0).unwrap();
    all.check();
    assert_eq!(all.take(0, false).map(|given| given.number), Some(1));
}

#[test]
fn ids_round_trip_and_differ() {
    let base = change(1, 1);
    let id = ChangeId::of(&base);
    let delivery = DeliveryId {
        change: id,
        attempt: 3,
    };
    assert_eq!(delivery.to_string().parse(), Ok(delivery));
    for text in [
        "",
        "x.1",
        "00.1",
        &format!("{id}"),
        &format!("{id}.0"),
        &format!("{id}.x"),
    ] {
        assert!(text.parse::<DeliveryId>().is_err(), "{text}");
    }
    let others = [
        ChangeRef {
            key: "/k/2".into(),
            ..base.clone()
        },
        ChangeRef {
            kind: Kind::Expire,
            ..base.clone()
        },
        change(2, 1),
    ];
    assert!(others.iter().all(|other| ChangeId::of(other) != id));
    // The time of arrival and the index of the op do not count.
    assert_eq!(
        ChangeId::of(&ChangeRef {
            arrived_ms: 9,
            ..base
        }),
        id
    );
}

#[test]
fn rows_round_trip_and_garbage_is_refused() {
    let letter = DeadLetter {
        number: 4,
        change: change(1, 1),
        attempts: 3,
        reason: DeathReason::Unreadable,
        died_ms: 9,
    };
    let waiting = Place::Outstanding {
        change: ChangeRef {
            kind: Kind::Expire,
            expires_ms: Some(0),
            ..change(2, 2)
        },
        attempts: 2,
        state: State::Waiting {
            due_ms: 7,
            late: true,
        },
    };
    let taken = Place::Outstanding {
        change: change(3, 3),
        attempts: 1,
        state: State::Taken {
            deadline_ms: 8,
            detached: true,
        },
    };
    for place in [Place::Dead(letter), waiting, taken] {
        let row = encode_change(&place).unwrap();
        assert_eq!(decode_change(4, &row), Some(place));
    }
    assert_eq!(encode_change(&Place::Finished), None);
    for row in [&b""[..], b"x", b"\x0a\x01k\x10\x09"] {
        assert_eq!(decode_change(1, row), None);
    }
}
