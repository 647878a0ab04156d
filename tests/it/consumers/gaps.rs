//! Consumers whose next changes were removed from the log: they stop with the reason, or deliver one
//! gap, the live keys, and the changes after that state. Nothing is skipped in silence.

use std::collections::BTreeMap;

use bytes::Bytes;
use lattice::{
    Store,
    protocol::{
        change::{Change, Kind, Origin},
        consumer::{DeathReason, OnGap},
    },
    store::{
        ReadError, WatchError,
        consumers::{
            Consumer, ConsumerChanges, ConsumerError, ConsumerOptions, ConsumerStart,
            ConsumerState, Delivery,
        },
    },
};

use super::setup::{Bench, key, next, nothing_comes, options, put, soon, until};
use crate::support::pruned::listed;

/// What a taker knows of the store: it forgets everything at a gap.
#[derive(Debug, Clone, Default)]
pub(super) struct Taker {
    pub(super) known: BTreeMap<Bytes, Bytes>,
    /// Names of the gaps and the changes that it got, in order; a change is named by its key.
    pub(super) got: Vec<String>,
}

impl Taker {
    pub(super) fn take(&mut self, delivery: &Delivery) {
        self.take_change(delivery.change());
    }

    pub(super) fn take_change(&mut self, change: &Change) {
        let name = String::from_utf8_lossy(&change.key).into_owned();
        // An older change may come after a newer one, or after the state that had it.
        let winner = change.heads.winner();
        let wins = winner.is_some_and(|winner| winner.id == change.entry.id);
        match change.kind {
            Kind::Gap => {
                self.known.clear();
                self.got.push("gap".to_owned());
                return;
            }
            Kind::Put if wins => {
                let value = change.value.clone().unwrap();
                self.known.insert(change.key.clone(), value);
            }
            Kind::Delete if wins => drop(self.known.remove(&change.key)),
            Kind::Put | Kind::Delete => {}
            Kind::Expire | Kind::Retract => panic!("{change:?}"),
        }
        let mark = match change.origin {
            Origin::Initial => "=",
            _log => "",
        };
        self.got.push(format!("{mark}{name}"));
    }

    /// Takes and acknowledges everything up to the change of `last`.
    pub(super) async fn through(&mut self, consumer: &Consumer, last: &str) {
        loop {
            let delivery = next(consumer).await;
            self.take(&delivery);
            let is_last = key(&delivery) == last;
            delivery.ack().unwrap();
            if is_last {
                return;
            }
        }
    }

    pub(super) fn gaps(&self) -> usize {
        self.got.iter().filter(|name| *name == "gap").count()
    }
}

pub(super) fn with_state(from: ConsumerStart) -> ConsumerOptions {
    ConsumerOptions {
        on_gap: OnGap::State,
        ..options(from)
    }
}

pub(super) fn one_at_a_time(from: ConsumerStart) -> ConsumerOptions {
    ConsumerOptions {
        max_in_flight: 1,
        ..with_state(from)
    }
}

async fn consumer(store: &Store, options: ConsumerOptions) -> Consumer {
    let consumer = store.consumer("c");
    soon(consumer.create(options)).await.unwrap();
    consumer
}

/// Removes all entries from the log.
pub(super) async fn prune(store: &Store) {
    soon(store.drop_before(store.frontier())).await.unwrap();
}

/// `/a` is overwritten, `/b` deleted, `/c` put.
async fn fill(store: &Store) {
    for (key, value) in [("/a", "1"), ("/b", "1"), ("/c", "1"), ("/a", "2")] {
        put(store, key, value).await;
    }
    soon(store.delete("/b")).await.unwrap();
}

#[tokio::test]
async fn gap_comes_once_then_the_state_then_live_changes() {
    let bench = Bench::new();
    let store = bench.open().await;
    fill(&store).await;
    prune(&store).await;
    put(&store, "/after", "1").await;
    let consumer = consumer(&store, with_state(ConsumerStart::Beginning)).await;
    let mut taker = Taker::default();
    let gap = next(&consumer).await;
    let change = gap.change();
    assert_eq!((change.kind, change.gap_number), (Kind::Gap, 1));
    let what = change.gap.clone().unwrap();
    assert!(what.reason.contains("entries were removed"), "{what:?}");
    taker.take(&gap);
    gap.ack().unwrap();
    put(&store, "/live", "1").await;
    taker.through(&consumer, "/live").await;
    assert_eq!(taker.got, ["gap", "=/a", "=/after", "=/c", "/live"]);
    assert_eq!(taker.known, listed(&store).await);
    nothing_comes(&consumer).await;
    let status = consumer.show().await.unwrap();
    assert_eq!((status.gaps, status.outstanding), (1, 0));
    assert_eq!(status.state, ConsumerState::Running);
}

/// A consumer that has read one change, `/first`, of a store whose log was emptied since.
async fn behind(bench: &Bench, on_gap: OnGap) -> (Store, Consumer) {
    let store = bench.open().await;
    put(&store, "/first", "1").await;
    fill(&store).await;
    let options = ConsumerOptions {
        on_gap,
        ..one_at_a_time(ConsumerStart::Beginning)
    };
    let waits = consumer(&store, options).await;
    until(&waits, |status| status.outstanding == 1).await;
    soon(store.close()).await.unwrap();
    let store = bench.open().await;
    prune(&store).await;
    let consumer = store.consumer("c");
    (store, consumer)
}

#[tokio::test]
async fn consumer_that_stops_says_what_to_do_and_goes_on_with_the_option() {
    let bench = Bench::new();
    let (store, consumer) = behind(&bench, OnGap::Stop).await;
    let mut taker = Taker::default();
    taker.through(&consumer, "/first").await;
    until(&consumer, |status| {
        matches!(status.state, ConsumerState::Stopped { .. })
    })
    .await;
    let error = soon(consumer.next()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ConsumerError::HistoryGone { .. }));
    for words in ["entries were removed", "set on_gap to state", "reset it"] {
        assert!(text.contains(words), "{text}");
    }
    // It is no less stopped after a restart.
    soon(store.close()).await.unwrap();
    let store = bench.open().await;
    let consumer = store.consumer("c");
    assert!(soon(consumer.next()).await.is_err());
    let state = ConsumerChanges {
        on_gap: Some(OnGap::State),
        ..ConsumerChanges::default()
    };
    soon(consumer.set(state)).await.unwrap();
    // The state first: what is put before it is read is part of it.
    taker.through(&consumer, "/first").await;
    put(&store, "/live", "1").await;
    taker.through(&consumer, "/live").await;
    assert_eq!(
        taker.got,
        ["/first", "gap", "=/a", "=/c", "=/first", "/live"]
    );
    assert_eq!(taker.known, listed(&store).await);
}

#[tokio::test]
async fn start_behind_the_log_is_refused_at_once_or_is_a_gap() {
    let bench = Bench::new();
    let store = bench.open().await;
    put(&store, "/first", "1").await;
    let mut watch = store.watch("/");
    while !matches!(
        crate::support::watch::next(&mut watch).await,
        lattice::store::WatchEvent::CaughtUp
    ) {}
    let cursor = watch.cursor();
    let before = store.consumer("before");
    soon(before.create(options(ConsumerStart::Beginning)))
        .await
        .unwrap();
    until(&before, |status| status.outstanding == 1).await;
    fill(&store).await;
    prune(&store).await;
    let starts = [
        ConsumerStart::Beginning,
        ConsumerStart::After(cursor),
        ConsumerStart::SinceAuthored { ms: 1 },
        ConsumerStart::SinceArrived { ms: 1 },
    ];
    for (n, start) in starts.into_iter().enumerate() {
        let consumer = store.consumer(&format!("c{n}"));
        let refused = soon(consumer.create(options(start.clone()))).await;
        let is_pruned = matches!(
            refused,
            Err(ConsumerError::Start(WatchError::Read(ReadError::Pruned(_))))
        );
        assert!(is_pruned, "{start:?}: {refused:?}");
        assert!(matches!(
            soon(consumer.show()).await,
            Err(ConsumerError::Unknown { .. })
        ));
        soon(consumer.create(with_state(start.clone())))
            .await
            .unwrap();
        let mut taker = Taker::default();
        taker.through(&consumer, "/first").await;
        assert_eq!(taker.got, ["gap", "=/a", "=/c", "=/first"], "{start:?}");
        let reset = soon(consumer.reset(start.clone())).await;
        assert!(reset.is_ok(), "{reset:?}");
    }
    // A consumer that exists does not begin again.
    soon(before.create(options(ConsumerStart::Beginning)))
        .await
        .unwrap();
    let reset = soon(before.reset(ConsumerStart::Beginning)).await;
    assert!(reset.is_err());
    for start in [
        ConsumerStart::Now,
        ConsumerStart::SinceAuthored { ms: u64::MAX },
    ] {
        let consumer = store.consumer("later");
        soon(consumer.create(options(start))).await.unwrap();
        soon(consumer.delete()).await.unwrap();
    }
}

#[tokio::test]
async fn outstanding_change_comes_from_the_base_or_is_a_dead_letter() {
    let bench = Bench::new();
    let store = bench.open().await;
    let long = "x".repeat(5000);
    fill(&store).await;
    put(&store, "/long", &long).await;
    let reads = consumer(&store, options(ConsumerStart::Beginning)).await;
    until(&reads, |status| status.outstanding == 6).await;
    let first = next(&reads).await;
    assert_eq!(key(&first), "/a");
    first.term().unwrap();
    soon(store.close()).await.unwrap();
    let store = bench.open().await;
    prune(&store).await;
    // The row of the state has gone on; the base still has the head.
    put(&store, "/long", "short").await;
    let reads = store.consumer("c");
    let mut got = Vec::new();
    for _ in 0..4 {
        let delivery = next(&reads).await;
        let change = delivery.change();
        let value = change.value.clone().unwrap_or_default();
        got.push((key(&delivery), change.kind, value.len(), change.late));
        assert_eq!(change.origin, Origin::Replay);
        delivery.ack().unwrap();
    }
    let expected = [
        ("/c", Kind::Put, 1, false),
        ("/a", Kind::Put, 1, false),
        ("/b", Kind::Delete, 0, false),
        ("/long", Kind::Put, 5000, true),
    ];
    let expected = expected.map(|(key, kind, len, late)| (key.to_owned(), kind, len, late));
    assert_eq!(got, expected);
    assert_eq!(key(&next(&reads).await), "/long");
    let dead = |letters: Vec<lattice::protocol::consumer::DeadLetter>| {
        let letters = letters.into_iter();
        let letters = letters.map(|letter| (letter.change.key, letter.reason));
        letters.collect::<Vec<_>>()
    };
    let letters = dead(soon(reads.dead()).await.unwrap());
    let a = || Bytes::from_static(b"/a");
    let b = || Bytes::from_static(b"/b");
    assert_eq!(
        letters,
        [(a(), DeathReason::Terminated), (b(), DeathReason::Pruned)]
    );
    // A retry does not bring it back.
    assert_eq!(soon(reads.dead_retry(&[])).await.unwrap(), 2);
    nothing_comes(&reads).await;
    let letters = dead(soon(reads.dead()).await.unwrap());
    assert_eq!(
        letters,
        [(a(), DeathReason::Pruned), (b(), DeathReason::Pruned)]
    );
    assert_eq!(reads.show().await.unwrap().gaps, 0);
}

/// A key that was delivered with the state, and is deleted before the rest of the state was read: the
/// next state does not have it, so the delete has to come.
#[tokio::test]
async fn kill_within_the_state_brings_it_again_without_a_gap() {
    for acked in 1..4 {
        let bench = Bench::new();
        let (store, consumer) = behind(&bench, OnGap::State).await;
        let mut taker = Taker::default();
        taker.through(&consumer, "/first").await;
        for n in 0..acked {
            let delivery = next(&consumer).await;
            taker.take(&delivery);
            assert_eq!(delivery.change().kind == Kind::Gap, n == 0);
            delivery.ack().unwrap();
        }
        soon(consumer.flush()).await.unwrap();
        let bench = bench.killed();
        drop(store);
        let store = bench.open().await;
        soon(store.delete("/a")).await.unwrap();
        put(&store, "/new", "1").await;
        let consumer = store.consumer("c");
        put(&store, "/end", "1").await;
        taker.through(&consumer, "/end").await;
        if taker.got.last().unwrap().starts_with('=') {
            // It was a part of the state; the change comes, too.
            taker.through(&consumer, "/end").await;
        }
        assert_eq!(taker.known, listed(&store).await, "{acked}: {taker:?}");
        assert_eq!(taker.gaps(), 1, "{acked}: {taker:?}");
        assert!(
            taker.got.contains(&"/a".to_owned()),
            "the delete: {taker:?}"
        );
        assert_eq!(consumer.show().await.unwrap().gaps, 1);
        nothing_comes(&consumer).await;
    }
}

#[tokio::test]
async fn history_after_the_state_that_is_gone_is_another_gap() {
    let bench = Bench::new();
    let (store, consumer) = behind(&bench, OnGap::State).await;
    let mut taker = Taker::default();
    taker.through(&consumer, "/a").await;
    soon(consumer.flush()).await.unwrap();
    let bench = bench.killed();
    drop(store);
    let store = bench.open().await;
    soon(store.delete("/a")).await.unwrap();
    prune(&store).await;
    let consumer = store.consumer("c");
    put(&store, "/live", "1").await;
    while taker.got.last().unwrap() != "/live" {
        let delivery = next(&consumer).await;
        taker.take(&delivery);
        delivery.ack().unwrap();
        if taker.got.last().unwrap() == "=/live" && taker.gaps() == 2 {
            break;
        }
    }
    assert_eq!(taker.gaps(), 2, "{taker:?}");
    until(&consumer, |status| status.outstanding == 0).await;
    assert_eq!(taker.known, listed(&store).await, "{taker:?}");
}

/// The logs are emptied again while a gap is with a taker, or waits for one: that gap stands for both.
#[tokio::test]
async fn gap_that_is_not_finished_stands_for_the_next_one() {
    for is_taken in [false, true] {
        let bench = Bench::new();
        let store = bench.open().await;
        fill(&store).await;
        prune(&store).await;
        let four = ConsumerOptions {
            max_in_flight: 4,
            ..with_state(ConsumerStart::Beginning)
        };
        let consumer = consumer(&store, four).await;
        until(&consumer, |status| status.outstanding == 3).await;
        let mut taker = Taker::default();
        let gap = match is_taken {
            true => Some(next(&consumer).await),
            false => None,
        };
        // More than the bus holds.
        for n in 0..20 {
            put(&store, &format!("/more/{n:02}"), "1").await;
        }
        soon(store.delete("/c")).await.unwrap();
        until(&consumer, |status| status.outstanding == 4).await;
        prune(&store).await;
        let room = ConsumerChanges {
            max_in_flight: Some(1000),
            ..ConsumerChanges::default()
        };
        soon(consumer.set(room)).await.unwrap();
        until(&consumer, |status| status.outstanding == 22).await;
        if let Some(gap) = gap {
            taker.take(&gap);
            gap.ack().unwrap();
        }
        put(&store, "/live", "1").await;
        taker.through(&consumer, "/live").await;
        assert_eq!((taker.gaps(), taker.got[0].as_str()), (1, "gap"));
        assert_eq!(taker.known, listed(&store).await);
        assert_eq!(taker.got.len(), 23, "{taker:?}");
        // One that no taker has got is replaced, so that it says what is missing now.
        let gaps = consumer.show().await.unwrap().gaps;
        assert_eq!(gaps, if is_taken { 1 } else { 2 });
        nothing_comes(&consumer).await;
    }
}

#[tokio::test]
async fn gap_that_was_given_up_comes_again_with_its_state() {
    let bench = Bench::new();
    let (store, consumer) = behind(&bench, OnGap::State).await;
    let mut taker = Taker::default();
    taker.through(&consumer, "/first").await;
    next(&consumer).await.term().unwrap();
    // It holds nothing up.
    put(&store, "/live", "1").await;
    taker.through(&consumer, "/live").await;
    assert_eq!(taker.gaps(), 0);
    let letters = soon(consumer.dead()).await.unwrap();
    assert_eq!(letters[0].change.kind, Kind::Gap);
    assert_eq!(soon(consumer.dead_retry(&[])).await.unwrap(), 1);
    put(&store, "/again", "1").await;
    let mut taker = Taker::default();
    while taker.got.last().is_none_or(|last| last != "/again") {
        let delivery = next(&consumer).await;
        taker.take(&delivery);
        delivery.ack().unwrap();
        let is_whole = taker.got.contains(&"=/live".to_owned());
        if is_whole && taker.got.contains(&"=/again".to_owned()) {
            break;
        }
    }
    assert_eq!((taker.gaps(), taker.got[0].as_str()), (1, "gap"));
    until(&consumer, |status| status.outstanding <= 1).await;
    while let Ok(Some(delivery)) = soon(consumer.try_next()).await {
        taker.take(&delivery);
        delivery.ack().unwrap();
    }
    assert_eq!(taker.known, listed(&store).await);
}

#[tokio::test]
async fn state_after_a_gap_has_the_selected_keys_whenever_they_arrived() {
    let bench = Bench::new();
    let store = bench.open().await;
    fill(&store).await;
    put(&store, "/other", "1").await;
    let since_ms = bench.clock.now_ms() + 1000;
    bench.clock.advance(5000);
    put(&store, "/c", "2").await;
    prune(&store).await;
    let selected = ConsumerOptions {
        prefixes: vec!["/a".into(), "/c".into()],
        ..with_state(ConsumerStart::SinceArrived { ms: since_ms })
    };
    let consumer = consumer(&store, selected).await;
    put(&store, "/other", "2").await;
    put(&store, "/c", "3").await;
    let mut taker = Taker::default();
    while taker.got.len() < 4 {
        let delivery = next(&consumer).await;
        taker.take(&delivery);
        delivery.ack().unwrap();
    }
    assert_eq!(taker.got, ["gap", "=/a", "=/c", "/c"]);
    nothing_comes(&consumer).await;
    // Nobody else is disturbed: the state has no gap of its own.
    assert_eq!(consumer.show().await.unwrap().gaps, 1);
}

/// A gap that fails is tried again like any change, and keeps its id.
#[tokio::test]
async fn gap_is_given_back_and_comes_again_first() {
    let bench = Bench::new();
    let (store, consumer) = behind(&bench, OnGap::State).await;
    let mut taker = Taker::default();
    taker.through(&consumer, "/first").await;
    let gap = next(&consumer).await;
    let id = gap.id();
    gap.nack(None).unwrap();
    nothing_comes(&consumer).await;
    soon(consumer.flush()).await.unwrap();
    let bench = bench.killed();
    drop(store);
    let store = bench.open().await;
    bench.clock.advance(1000);
    let consumer = store.consumer("c");
    let again = next(&consumer).await;
    assert_eq!(again.id().change, id.change);
    assert_eq!((again.attempt(), again.change().kind), (2, Kind::Gap));
    let what = again.change().gap.clone().unwrap();
    assert!(what.reason.contains("entries were removed"));
    assert!(what.reach_ms.is_some());
    taker.take(&again);
    again.ack().unwrap();
    taker.through(&consumer, "/first").await;
    assert_eq!(taker.known, listed(&store).await);
}
