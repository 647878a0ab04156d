//! Random histories of a consumer whose log is pruned again and again: kills, restarts, slow takers.
//!
//! The taker keeps what it knows, and forgets it at a gap. In the end it knows what the store has. Without
//! a gap it got every change once, unless the node was killed.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use lattice::{
    Store,
    id::EntryId,
    protocol::{
        change::Kind,
        consumer::{ChangeId, OnGap},
        frontier::Frontier,
    },
    store::consumers::{
        Consumer, ConsumerChanges, ConsumerOptions, ConsumerStart, ConsumerState, Delivery,
    },
};

use super::{
    gaps::Taker,
    setup::{Bench, options, soon},
};
use crate::support::{
    model::{AUTHOR_B, AUTHOR_C, delete, put},
    pruned::listed,
    random::{Random, for_each_seed},
    writer::{Writer, heads_of},
};

const KEYS: [&str; 6] = ["/a/1", "/a/2", "/a/3", "/b/1", "/b/2", "/c"];

#[derive(Debug, Default)]
struct Counts {
    gaps: AtomicU64,
    without_gap: AtomicU64,
    kills: AtomicU64,
    kills_in_state: AtomicU64,
    prunes: AtomicU64,
    given_up: AtomicU64,
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

struct History<'a> {
    bench: Bench,
    store: Store,
    consumer: Consumer,
    counts: &'a Counts,
    taker: Taker,
    // Not answered yet.
    held: Option<Delivery>,
    // A gap that a taker has, or had and did not acknowledge.
    open_gap: Option<ChangeId>,
    gaps: BTreeSet<ChangeId>,
    // Since the last gap or kill.
    ops: BTreeSet<(EntryId, u32)>,
    initial: BTreeSet<ChangeId>,
    killed: bool,
    // False: the log keeps all entries.
    prunes: bool,
    frontiers: Vec<Frontier>,
}

impl History<'_> {
    async fn write(&mut self, random: &mut Random, writers: &mut [Writer]) {
        let mut keys = KEYS.to_vec();
        random.shuffle(&mut keys);
        keys.truncate(1 + random.below(3));
        let value = random.below(1000).to_string();
        let op = |key: &&str| match key.ends_with('2') && value.len() < 3 {
            true => delete(key),
            false => put(key, &value),
        };
        let ops: Vec<_> = keys.iter().map(op).collect();
        if random.once_in(3) {
            let writer = random.below(writers.len());
            let parents = heads_of(&self.store, &keys).await;
            let now_ms = self.bench.clock.now_ms();
            let entry = writers[writer].write(now_ms, ops, parents, random.once_in(2));
            let entries = vec![entry.signed.encode().into()];
            soon(self.store.ingest(entries)).await.unwrap();
        } else {
            soon(self.store.batch(ops)).await.unwrap();
        }
        self.frontiers.push(self.store.frontier());
    }

    async fn prune(&self, random: &mut Random) {
        if !self.prunes {
            return;
        }
        let at = match random.once_in(2) {
            true => self.store.frontier(),
            false if self.frontiers.is_empty() => return,
            false => self.frontiers[random.below(self.frontiers.len())].clone(),
        };
        // An error: the log begins later already.
        if soon(self.store.drop_before(at)).await.is_ok() {
            add(&self.counts.prunes);
        }
    }

    fn saw(&mut self, delivery: &Delivery) {
        let (change, id) = (delivery.change(), delivery.id());
        self.taker.take(delivery);
        if change.kind == Kind::Gap {
            if self.gaps.insert(id.change) {
                assert_eq!(self.open_gap, None, "two gaps at a time");
                add(&self.counts.gaps);
            }
            self.open_gap = Some(id.change);
            self.ops.clear();
            self.initial.clear();
            return;
        }
        assert_eq!(self.open_gap, None, "{change:?} passed a gap");
        let is_new = match change.gap_number {
            0 => self.ops.insert((change.entry.id, change.op_index)),
            _state => self.initial.insert(id.change),
        };
        assert!(is_new || id.attempt > 1 || self.killed, "twice: {change:?}");
    }

    async fn take(&mut self, random: &mut Random) {
        if self.held.is_some() {
            return self.answer(random);
        }
        let wait = Duration::from_millis(2);
        if let Ok(taken) = tokio::time::timeout(wait, self.consumer.next()).await {
            let delivery = taken.unwrap();
            self.saw(&delivery);
            self.held = Some(delivery);
            if !random.once_in(3) {
                self.answer(random);
            }
        }
    }

    fn answer(&mut self, random: &mut Random) {
        let Some(delivery) = self.held.take() else {
            return;
        };
        let is_gap = delivery.change().kind == Kind::Gap;
        let answered = match random.below(10) {
            0 => delivery.nack(Some(Duration::ZERO)),
            1 if !is_gap => return drop(delivery),
            _ => {
                self.open_gap = self.open_gap.filter(|_| !is_gap);
                delivery.ack()
            }
        };
        answered.unwrap();
    }

    async fn restart(&mut self, random: &mut Random) {
        let status = soon(self.consumer.show()).await.unwrap();
        if random.once_in(3) {
            if let Some(held) = self.held.take() {
                drop(held);
            }
            soon(self.store.close()).await.unwrap();
        } else {
            self.killed = true;
            add(&self.counts.kills);
            if status.gaps > 0 && !self.initial.is_empty() && status.outstanding > 0 {
                add(&self.counts.kills_in_state);
            }
        }
        let image = self.bench.disk.image();
        if let Some(held) = self.held.take() {
            // It is of the node that was killed.
            held.detach().unwrap();
        }
        self.bench = Bench {
            clock: self.bench.clock.clone(),
            ..Bench::on(&image)
        };
        self.store = self.bench.open().await;
        if random.once_in(2) {
            self.prune(random).await;
        }
        self.consumer = self.store.consumer("c");
        // An acknowledgement may be lost; the gap then comes again, and the state after it.
        if self.killed {
            self.open_gap = None;
        }
    }

    async fn drain(&mut self, random: &mut Random) {
        let begun = Instant::now();
        loop {
            self.bench.clock.advance(10_000);
            let before = self.taker.got.len();
            while self.held.is_some() {
                self.answer(random);
            }
            self.take(random).await;
            while self.held.is_some() {
                self.answer(random);
            }
            let status = soon(self.consumer.show()).await.unwrap();
            assert_eq!(status.state, ConsumerState::Running);
            let idle = self.taker.got.len() == before && status.outstanding == 0;
            if idle && status.backlog_entries == 0 {
                let known = listed(&self.store).await;
                if self.taker.known == known {
                    break;
                }
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{status:?}: {:?} is not {:?}; dead {:?}; {:?}",
                self.taker.known,
                listed(&self.store).await,
                self.consumer.dead().await,
                self.taker.got,
            );
        }
        let dead = soon(self.consumer.dead()).await.unwrap();
        for letter in &dead {
            add(&self.counts.given_up);
            // Superseded and removed: nobody can read it any more.
            let reason = letter.reason;
            assert_eq!(reason, lattice::protocol::consumer::DeathReason::Pruned);
        }
        if !self.prunes {
            assert!(self.gaps.is_empty() && dead.is_empty());
            assert_eq!(self.ops, self.all_ops().await, "a silent skip");
            add(&self.counts.without_gap);
        }
    }
}

impl History<'_> {
    async fn all_ops(&self) -> BTreeSet<(EntryId, u32)> {
        let mut all = BTreeSet::new();
        for (author, _tip) in self.store.frontier().iter() {
            for record in self.store.entries(author, 0, usize::MAX).await.unwrap() {
                let indices = 0..u32::try_from(record.entry.ops.len()).unwrap();
                all.extend(indices.map(|index| (record.entry.id, index)));
            }
        }
        all
    }
}

async fn one(random: &mut Random, counts: &Counts) {
    let bench = Bench::new();
    let store = bench.open().await;
    let mut writers = [AUTHOR_B, AUTHOR_C].map(|secret| Writer::new(secret, store.id()));
    let mut history = History {
        consumer: store.consumer("c"),
        store,
        bench,
        counts,
        taker: Taker::default(),
        held: None,
        open_gap: None,
        gaps: BTreeSet::new(),
        ops: BTreeSet::new(),
        initial: BTreeSet::new(),
        killed: false,
        prunes: !random.once_in(6),
        frontiers: Vec::new(),
    };
    for _ in 0..random.below(4) {
        history.write(random, &mut writers).await;
    }
    let made = ConsumerOptions {
        max_deliver: None,
        max_in_flight: [1, 3, 50][random.below(3)],
        on_gap: OnGap::State,
        ..options(ConsumerStart::Beginning)
    };
    soon(history.consumer.create(made)).await.unwrap();
    for _ in 0..40 + random.below(40) {
        match random.below(20) {
            0..=6 => history.write(random, &mut writers).await,
            7..=12 => history.take(random).await,
            13 => history.bench.clock.advance(random.bits() % 300),
            14..=15 => history.prune(random).await,
            16 => soon(history.consumer.flush()).await.unwrap(),
            17 => {
                let room = ConsumerChanges {
                    max_in_flight: Some([1, 3, 50][random.below(3)]),
                    ..ConsumerChanges::default()
                };
                soon(history.consumer.set(room)).await.unwrap();
            }
            _ => history.restart(random).await,
        }
    }
    history.drain(random).await;
    assert!(history.store.verify().await.unwrap().damage.is_empty());
}

#[test]
fn taker_knows_the_store_whatever_is_pruned() {
    let counts = Counts::default();
    let run = &|seeds: std::ops::RangeInclusive<u64>| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        for_each_seed(seeds, |random| runtime.block_on(one(random, &counts)));
    };
    if std::env::var_os("SEED").is_some() {
        return run(1..=1);
    }
    let soak = if std::env::var_os("LATTICE_SOAK").is_some() {
        10
    } else {
        1
    };
    let each = 40 * soak;
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let first = thread * each + 1;
            scope.spawn(move || run(first..=first + each - 1));
        }
    });
    eprintln!("{counts:?}");
    for (what, count) in [
        ("gaps", &counts.gaps),
        ("no gap", &counts.without_gap),
        ("kills", &counts.kills),
        ("kills in a state", &counts.kills_in_state),
        ("prunes", &counts.prunes),
        ("dead letters", &counts.given_up),
    ] {
        assert!(
            count.load(Ordering::Relaxed) >= 5,
            "{what} hardly ever happened"
        );
    }
}
