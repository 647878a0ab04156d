//! Random histories of one consumer: writes here and elsewhere, takers of every kind, kills,
//! restarts, lost state files, pauses, clocks that jump. At the end each change that matches was
//! acknowledged or is a dead letter, and no other change was delivered.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use lattice::{
    Store,
    id::{Author, EntryId},
    protocol::{
        change::Kind,
        consumer::{AckError, ChangeRef, DeliveryId},
        entry::{Op, VerifiedEntry},
        frontier::Frontier,
    },
    store::{
        Write,
        consumers::{
            Consumer, ConsumerError, ConsumerOptions, ConsumerStart, ConsumerState, Delivery,
        },
    },
};

use super::setup::{Bench, options, soon};
use crate::support::{
    model::{AUTHOR_A, AUTHOR_B, delete, put},
    random::{Random, for_each_seed},
    writer::{Writer, heads_of},
};

const HISTORIES: u64 = 300;
const THREADS: u64 = 4;
const KEYS: [&str; 6] = ["/a/1", "/a/2", "/a/3", "/b/1", "/b/2", "/c"];
const ACK_WAIT_MS: u64 = 1000;

type OpId = (EntryId, u32);

/// Counts over all histories, to assert that rare paths ran.
#[derive(Debug, Default)]
struct Counts {
    delivered: AtomicU64,
    redelivered: AtomicU64,
    done_twice: AtomicU64,
    kills: AtomicU64,
    states_lost: AtomicU64,
    dead: AtomicU64,
    late: AtomicU64,
    given_again: AtomicU64,
    detached: AtomicU64,
    batches: AtomicU64,
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// The deliveries that a taker holds.
#[derive(Debug)]
struct Held {
    delivery: Option<Delivery>,
    id: DeliveryId,
    op: OpId,
    key: Bytes,
    deadline_ms: u64,
}

#[derive(Debug)]
struct History<'a> {
    bench: Bench,
    store: Store,
    consumer: Consumer,
    prefixes: Vec<&'static str>,
    // Everything at or below was there before the consumer.
    since: Frontier,
    counts: &'a Counts,
    held: Vec<Held>,
    // Acknowledged before a kill, and perhaps not durable.
    perhaps: BTreeSet<OpId>,
    // Acknowledged, and not lost since.
    acked: BTreeSet<OpId>,
    // Subset of `acked`: known to be durable.
    durable: BTreeSet<OpId>,
    skipped: BTreeSet<OpId>,
    retried: BTreeSet<OpId>,
    // Since the last kill: the newest attempt of each.
    attempts: BTreeMap<OpId, u32>,
    entries: BTreeMap<EntryId, VerifiedEntry>,
}

impl History<'_> {
    fn matches(&self, key: &[u8]) -> bool {
        self.prefixes.is_empty()
            || self
                .prefixes
                .iter()
                .any(|prefix| key.starts_with(prefix.as_bytes()))
    }

    async fn write(&self, random: &mut Random, writers: &mut [Writer]) {
        let mut keys = KEYS.to_vec();
        random.shuffle(&mut keys);
        keys.truncate(1 + random.below(4));
        let op = |key: &&str| {
            if key.ends_with('3') {
                delete(key)
            } else {
                put(key, "v")
            }
        };
        let ops: Vec<Op> = keys.iter().map(op).collect();
        match random.below(4) {
            0 => {
                soon(self.store.batch(ops)).await.unwrap();
                add(&self.counts.batches);
            }
            1 => {
                let writer = random.below(writers.len());
                let parents = heads_of(&self.store, &keys).await;
                let atomic = random.once_in(2);
                let now_ms = self.bench.clock.now_ms();
                let entry = writers[writer].write(now_ms, ops, parents, atomic);
                let entries = vec![entry.signed.encode().into()];
                soon(self.store.ingest(entries)).await.unwrap();
            }
            // One entry that may be split.
            _ => {
                let one = |op| Write {
                    ops: vec![op],
                    atomic: false,
                    condition: None,
                    cause: None,
                };
                let writes = ops.into_iter().map(one).collect();
                for written in soon(self.store.write_many(writes)).await {
                    written.unwrap();
                }
            }
        }
    }

    // Everything the log has, by id.
    async fn read_log(&mut self) {
        let frontier = self.store.frontier();
        let authors: BTreeSet<Author> = frontier.iter().map(|(author, _)| author).collect();
        for author in authors {
            for record in self.store.entries(author, 0, usize::MAX).await.unwrap() {
                self.entries.insert(record.entry.id, record.entry);
            }
        }
    }

    async fn take(&mut self, random: &mut Random) -> bool {
        let wait = Duration::from_millis(if random.once_in(4) { 3 } else { 1 });
        let Ok(taken) = tokio::time::timeout(wait, self.consumer.next()).await else {
            return false;
        };
        let delivery = taken.unwrap();
        let change = ChangeRef::from(&**delivery.change());
        if change.kind == Kind::Expire {
            delivery.ack().unwrap();
            return true;
        }
        let op = (change.entry.id, change.op_index);
        self.judge(&delivery, op).await;
        let (id, deadline_ms) = (delivery.id(), self.bench.clock.now_ms() + ACK_WAIT_MS);
        let delivery = if random.once_in(5) {
            add(&self.counts.detached);
            assert_eq!(delivery.detach().unwrap(), id);
            None
        } else {
            Some(delivery)
        };
        let key = change.key;
        self.held.push(Held {
            delivery,
            id,
            op,
            key,
            deadline_ms,
        });
        true
    }

    async fn judge(&mut self, delivery: &Delivery, op: OpId) {
        let (change, now_ms) = (delivery.change(), self.bench.clock.now_ms());
        add(&self.counts.delivered);
        if !self.entries.contains_key(&op.0) {
            self.read_log().await;
        }
        let entry = &self.entries[&op.0];
        let of_log = &entry.ops[op.1 as usize];
        assert_eq!(of_log.key(), &change.key);
        assert_eq!(matches!(of_log, Op::Put { .. }), change.value.is_some());
        assert!(
            self.matches(&change.key),
            "{:?} was not asked for",
            change.key
        );
        assert!(
            entry.header.seq > self.since.seq(&entry.author()),
            "from before its start"
        );
        assert!(!self.durable.contains(&op), "it was acknowledged, durably");
        assert!(!self.skipped.contains(&op), "it was skipped");
        let attempts = self.attempts.insert(op, delivery.attempt());
        assert!(
            attempts.is_none_or(|before| before < delivery.attempt()),
            "{attempts:?}"
        );
        if delivery.attempt() > 1 {
            add(&self.counts.redelivered);
        } else if self.perhaps.contains(&op) {
            add(&self.counts.done_twice);
        }
        // One at a time of a key.
        let of_key = self
            .held
            .iter()
            .find(|held| held.key == change.key && held.deadline_ms > now_ms);
        assert!(of_key.is_none(), "{of_key:?} is not answered yet");
        // In order: what it supersedes, and what its author wrote before, is finished.
        let dead = self.consumer.dead().await.unwrap();
        let dead: BTreeSet<OpId> = dead
            .iter()
            .map(|letter| (letter.change.entry.id, letter.change.op_index))
            .collect();
        let finished = |op: &OpId| {
            [
                &self.acked,
                &self.perhaps,
                &self.skipped,
                &self.retried,
                &dead,
            ]
            .iter()
            .any(|done| done.contains(op))
        };
        if self.retried.contains(&op) {
            return;
        }
        for (id, other) in &self.entries {
            let before = other.author() == entry.author() && other.header.seq < entry.header.seq
                || entry.header.parents.contains(&other.as_parent());
            let counts = other.header.seq > self.since.seq(&other.author());
            for (index, op) in (0..).zip(&other.ops).filter(|_| before && counts) {
                let in_order = op.key() != &change.key || finished(&(*id, index));
                assert!(in_order, "{change:?} came before {other:?}");
            }
        }
    }

    async fn answer(&mut self, random: &mut Random) {
        if self.held.is_empty() {
            return;
        }
        let held = self.held.swap_remove(random.below(self.held.len()));
        let (op, now_ms) = (held.op, self.bench.clock.now_ms());
        let is_late = held.deadline_ms <= now_ms;
        let what = random.below(8);
        let answered = match (held.delivery, what) {
            (Some(delivery), 0..=4) => delivery.ack(),
            (None, 0..=4) => soon(self.consumer.ack(held.id)).await,
            (Some(delivery), 5) => {
                delivery.nack(random.once_in(2).then_some(Duration::from_millis(40)))
            }
            (None, 5) => soon(self.consumer.nack(held.id, None)).await,
            (Some(delivery), 6) => delivery.term(),
            (None, 6) => soon(self.consumer.term(held.id)).await,
            (delivery, _) => {
                drop(delivery);
                return;
            }
        };
        // Of a dead letter that is tried again the attempts are counted anew: who is late answers for
        // the new one, too.
        if answered.is_ok() && is_late {
            self.held.retain(|other| other.id != held.id);
        }
        match answered {
            Ok(()) if what < 5 => {
                self.acked.insert(op);
                if is_late {
                    add(&self.counts.late);
                }
            }
            Ok(()) => {}
            Err(ConsumerError::Ack(AckError::GivenAgain { .. })) if is_late => {
                add(&self.counts.given_again)
            }
            Err(ConsumerError::Ack(AckError::Dead { .. })) if is_late => {}
            // Another attempt was answered meanwhile.
            Err(ConsumerError::Ack(
                AckError::NotOutstanding { .. } | AckError::Answered { .. },
            )) if is_late => {}
            other => panic!("{other:?}: deadline {}, now {now_ms}", held.deadline_ms),
        }
    }

    async fn flush(&mut self) {
        soon(self.consumer.flush()).await.unwrap();
        self.durable = self.acked.clone();
    }

    async fn restart(&mut self, random: &mut Random) {
        let clean = random.once_in(3);
        if clean {
            soon(self.store.close()).await.unwrap();
            self.durable = self.acked.clone();
        }
        let mut image = self.bench.disk.image();
        self.perhaps.append(&mut self.acked);
        self.acked = self.durable.clone();
        if random.once_in(4) {
            add(&self.counts.states_lost);
            image.retain(|path, _| {
                !path.starts_with("/store/state.db") && !path.starts_with("/store/state.sums")
            });
        }
        self.bench = Bench {
            clock: self.bench.clock.clone(),
            ..Bench::on(&image)
        };
        // Later operations of the dead process go to its own copy of the disk.
        let detached = std::mem::take(&mut self.held)
            .into_iter()
            .filter(|held| held.delivery.is_none());
        let detached: Vec<Held> = detached.collect();
        self.store = self.bench.open().await;
        self.consumer = self.store.consumer("c");
        add(&self.counts.kills);
        self.attempts.clear();
        // The file may or may not have the detached deliveries, so their takers may be known or
        // not.
        for held in detached {
            if let Ok(()) = soon(self.consumer.ack(held.id)).await {
                self.acked.insert(held.op);
            }
        }
    }

    async fn dead_letters(&mut self, random: &mut Random) {
        let dead = soon(self.consumer.dead()).await.unwrap();
        if dead.is_empty() {
            return;
        }
        let letter = &dead[random.below(dead.len())];
        let op = (letter.change.entry.id, letter.change.op_index);
        add(&self.counts.dead);
        if random.once_in(2) {
            self.retried.insert(op);
            // It begins with its first attempt again.
            self.attempts.remove(&op);
            let room = soon(self.consumer.dead_retry(&[letter.number]))
                .await
                .unwrap();
            assert!(room <= 1);
        } else {
            assert_eq!(
                soon(self.consumer.dead_skip(&[letter.number]))
                    .await
                    .unwrap(),
                1
            );
            self.skipped.insert(op);
        }
        self.durable = self.acked.clone();
    }

    // Everything that must be acknowledged or dead.
    fn owed(&self) -> BTreeSet<OpId> {
        let entries = self.entries.values();
        let after = entries.filter(|entry| entry.header.seq > self.since.seq(&entry.author()));
        after
            .flat_map(|entry| {
                (0..)
                    .zip(&entry.ops)
                    .map(move |(index, op)| (entry.id, index, op))
            })
            .filter(|(_, _, op)| self.matches(op.key()))
            .map(|(id, index, _)| (id, index))
            .collect()
    }

    async fn drain(&mut self, random: &mut Random) {
        soon(self.consumer.resume()).await.unwrap();
        self.held.clear();
        self.read_log().await;
        let owed = self.owed();
        let begun = Instant::now();
        loop {
            self.bench.clock.advance(10_000);
            while self.take(random).await {
                if let Some(held) = self.held.pop() {
                    match held.delivery {
                        Some(delivery) => delivery.ack().unwrap(),
                        None => soon(self.consumer.ack(held.id)).await.unwrap(),
                    }
                    self.acked.insert(held.op);
                }
            }
            let dead = soon(self.consumer.dead()).await.unwrap();
            let dead = dead
                .iter()
                .map(|letter| (letter.change.entry.id, letter.change.op_index));
            let mut done: BTreeSet<OpId> = self.acked.union(&self.skipped).copied().collect();
            done.extend(dead.chain(self.perhaps.iter().copied()));
            let status = soon(self.consumer.show()).await.unwrap();
            if done.is_superset(&owed) && status.outstanding == 0 {
                assert_eq!(status.state, ConsumerState::Running);
                let more: Vec<_> = done.difference(&owed).collect();
                assert!(more.is_empty(), "nobody asked for {more:?}");
                break;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{:?} of {status:?} never came",
                owed.difference(&done)
            );
        }
        soon(self.store.close()).await.unwrap();
    }
}

async fn one(random: &mut Random, counts: &Counts) {
    let bench = Bench::new();
    let store = bench.open().await;
    let mut writers = [AUTHOR_A, AUTHOR_B].map(|secret| Writer::new(secret, store.id()));
    let prefixes = match random.below(3) {
        0 => vec!["/a/", "/c"],
        1 => vec!["/b"],
        _ => vec![],
    };
    let mut history = History {
        consumer: store.consumer("c"),
        store,
        bench,
        prefixes,
        since: Frontier::default(),
        counts,
        held: Vec::new(),
        perhaps: BTreeSet::new(),
        acked: BTreeSet::new(),
        durable: BTreeSet::new(),
        skipped: BTreeSet::new(),
        retried: BTreeSet::new(),
        attempts: BTreeMap::new(),
        entries: BTreeMap::new(),
    };
    for _ in 0..random.below(4) {
        history.write(random, &mut writers).await;
    }
    let from = if random.once_in(2) {
        history.since = history.store.frontier();
        ConsumerStart::Now
    } else {
        ConsumerStart::Beginning
    };
    let made = ConsumerOptions {
        prefixes: history
            .prefixes
            .iter()
            .map(|prefix| Bytes::from(*prefix))
            .collect(),
        ack_wait: Duration::from_millis(ACK_WAIT_MS),
        max_deliver: random.once_in(2).then_some(3),
        max_in_flight: [1, 3, 50][random.below(3)],
        ..options(from)
    };
    soon(history.consumer.create(made)).await.unwrap();
    for _ in 0..30 + random.below(40) {
        match random.below(20) {
            0..=4 => history.write(random, &mut writers).await,
            5..=9 => drop(history.take(random).await),
            10..=13 => history.answer(random).await,
            14 => history.bench.clock.advance(random.bits() % 300),
            15 => {
                // Enough time for held deliveries to go to another taker.
                for ms in [1100, 600] {
                    history.take(random).await;
                    history.bench.clock.advance(ms);
                }
                history.take(random).await;
            }
            16 => history.flush().await,
            17 => history.dead_letters(random).await,
            18 if random.once_in(2) => soon(history.consumer.pause()).await.unwrap(),
            18 => soon(history.consumer.resume()).await.unwrap(),
            _ => history.restart(random).await,
        }
    }
    history.drain(random).await;
}

#[test]
fn random_histories_deliver_until_acknowledged() {
    let counts = Counts::default();
    let begun = Instant::now();
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
    let each = HISTORIES * soak / THREADS;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let first = thread * each + 1;
            scope.spawn(move || run(first..=first + each - 1));
        }
    });
    eprintln!("{counts:?} in {:?}", begun.elapsed());
    for (what, count) in [
        ("redelivered", &counts.redelivered),
        ("done twice after a kill", &counts.done_twice),
        ("kills", &counts.kills),
        ("states lost", &counts.states_lost),
        ("dead", &counts.dead),
        ("late", &counts.late),
        ("given again", &counts.given_again),
        ("detached", &counts.detached),
        ("batches", &counts.batches),
    ] {
        assert!(
            count.load(Ordering::Relaxed) >= 5,
            "{what} hardly ever happened"
        );
    }
}
