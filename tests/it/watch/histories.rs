//! Watches under random writers: an oracle judges what every watcher saw against the log.

use std::{
    collections::BTreeSet,
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use lattice::{
    Store,
    clock::Clock,
    id::Author,
    limits::DRIFT_MS_MAX,
    protocol::{
        change::Kind,
        cursor::Cursor,
        entry::{Op, VerifiedEntry},
        frontier::Frontier,
        pattern::Pattern,
    },
    store::{Ingested, List, Start, WatchError, WatchEvent, WatchMode, WatchOptions, Write},
};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;

use crate::support::{
    model::{AUTHOR_A, AUTHOR_B, AUTHOR_C, author_of},
    random::{Random, for_each_seed},
    watch::{nothing, open},
    watch_oracle::{Judge, Lineage, Step, Truth},
    writer::{Writer, heads_of},
};

/// Counts over all seeds, to assert that rare paths ran.
#[derive(Debug, Default)]
struct Counts {
    changes: AtomicU64,
    lags: AtomicU64,
    resumes: AtomicU64,
    resumes_in_entry: AtomicU64,
    resumes_in_batch: AtomicU64,
    conflicts: AtomicU64,
    late: AtomicU64,
    expiries: AtomicU64,
    held: AtomicU64,
    waited: AtomicU64,
    forks: AtomicU64,
    carried_over: AtomicU64,
}

fn add(count: &AtomicU64, by: u64) {
    count.fetch_add(by, Ordering::Relaxed);
}

const START_MS: u64 = 1_700_000_000_000;
const KEYS: [&str; 12] = [
    "/a", "/a/1", "/a/2", "/a/b", "/a/b/c", "/a/bb", "/jobs/1", "/jobs/10", "/jobs/2", "/z",
    "/z/é", "0",
];

fn random_op(random: &mut Random, clock: &Clock, key: &str) -> Op {
    let key = Bytes::copy_from_slice(key.as_bytes());
    if random.once_in(6) {
        return Op::Delete { key };
    }
    let expires_ms = match random.below(8) {
        0 => Some(clock.now_ms() + random.bits() % 60),
        // Over when it is written.
        1 if random.once_in(3) => Some(clock.now_ms() - 5),
        2 => Some(clock.now_ms() + 86_400_000),
        _ => None,
    };
    Op::Put {
        key,
        // Some values are read from the log, not from their rows.
        value: vec![
            b'v';
            if random.once_in(20) {
                2000
            } else {
                random.below(30)
            }
        ]
        .into(),
        expires_ms,
    }
}

fn random_keys(random: &mut Random, max: usize) -> Vec<&'static str> {
    let mut keys = KEYS.to_vec();
    random.shuffle(&mut keys);
    keys.truncate(1 + random.below(max));
    keys
}

async fn write_here(store: Store, clock: Clock, mut random: Random, writes: usize) {
    for _ in 0..writes {
        clock.advance(random.bits() % 4);
        let keys = random_keys(&mut random, 6);
        let ops: Vec<Op> = keys
            .iter()
            .map(|key| random_op(&mut random, &clock, key))
            .collect();
        let one = |op: Op| Write {
            ops: vec![op],
            atomic: false,
            condition: None,
            cause: None,
        };
        match random.below(3) {
            0 => {
                store.batch(ops).await.unwrap();
            }
            // One entry that may be split between its ops.
            1 => {
                for written in store.write_many(ops.into_iter().map(one).collect()).await {
                    written.unwrap();
                }
            }
            _ => {
                for op in ops.into_iter().take(2) {
                    store.write(one(op)).await.unwrap();
                }
            }
        }
        if random.once_in(3) {
            tokio::time::sleep(Duration::from_micros(random.bits() % 800)).await;
        }
    }
}

// Entries of other authors, in an order that makes some of them wait.
async fn write_elsewhere(
    store: Store,
    clock: Clock,
    mut random: Random,
    mut authors: Vec<Writer>,
    entries: usize,
    counts: Arc<Counts>,
) -> Vec<Writer> {
    let mut window = Vec::new();
    let fork_at = random.below(entries * 2);
    for n in 0..entries {
        let at = random.below(authors.len());
        let keys = random_keys(&mut random, 4);
        let ops: Vec<Op> = keys
            .iter()
            .map(|key| random_op(&mut random, &clock, key))
            .collect();
        let parents = if random.once_in(2) {
            heads_of(&store, &keys).await
        } else {
            BTreeSet::new()
        };
        let now_ms = clock.now_ms() - random.bits() % 50;
        if n == fork_at {
            // Two entries with one place: the author goes on with one of them.
            let mut twin = authors[at].clone();
            window.push(twin.write(now_ms, ops.clone(), BTreeSet::new(), false));
            add(&counts.forks, 1);
        }
        let atomic = random.once_in(3);
        window.push(authors[at].write(now_ms, ops, parents, atomic));
        if window.len() >= 5 || n + 1 == entries {
            random.shuffle(&mut window);
            if random.once_in(3) {
                window.push(window[0].clone());
            }
            while !window.is_empty() {
                let some = window.split_off(window.len().saturating_sub(1 + random.below(3)));
                let bytes = some.iter().map(|entry| entry.signed.encode().into());
                for outcome in store.ingest(bytes.collect()).await.unwrap() {
                    match outcome {
                        Ingested::Applied(_) | Ingested::Duplicate(_) => {}
                        Ingested::Pending { .. } => add(&counts.waited, 1),
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
        if random.once_in(2) {
            tokio::time::sleep(Duration::from_micros(random.bits() % 1500)).await;
        }
    }
    authors
}

fn random_options(random: &mut Random, store: &Store, clock: &Clock) -> WatchOptions {
    let prefixes = [
        "",
        "/",
        "/a",
        "/a/b",
        "/jobs/1",
        "/z/\u{e9}",
        "0",
        "/nothing",
    ];
    let mut options = WatchOptions {
        prefixes: some(random, &prefixes),
        exact: random.once_in(6),
        heartbeat: Duration::from_millis(15),
        ..WatchOptions::default()
    };
    if random.once_in(3) {
        let patterns = [
            "**", "/?", "/a*", "/a/**", "/*/b*", "/jobs/1?", "/z/*", "\\/a",
        ];
        let patterns = some::<Bytes>(random, &patterns);
        let parsed = patterns.into_iter().map(|text| Pattern::new(text).unwrap());
        options.patterns = parsed.collect();
        if random.once_in(2) {
            options.prefixes.clear();
        }
    }
    // Most watch all there is: their fold is judged as well.
    match random.below(10) {
        0 => options.kinds = Some(vec![Kind::Put, Kind::Expire]),
        1 => options.kinds = Some(vec![Kind::Delete]),
        2 => options.author = Some(author_of(AUTHOR_A)),
        3 => options.conflicts_only = true,
        4 => options.keys_only = true,
        5 => options.mode = WatchMode::Latest,
        _ => {}
    }
    options.start = match random.below(6) {
        0 => Start::Now,
        1 => Start::SinceAuthored { ms: clock.now_ms() },
        2 => Start::SinceArrived { ms: clock.now_ms() },
        3 => Start::After(nothing(store)),
        _ => Start::Initial,
    };
    options
}

// One mostly, else two or three: also one twice, or one that covers another.
fn some<T: From<&'static str>>(random: &mut Random, all: &[&'static str]) -> Vec<T> {
    let count = if random.once_in(3) {
        2 + random.below(2)
    } else {
        1
    };
    let chosen = (0..count).map(|_| all[random.below(all.len())].into());
    chosen.collect()
}

// The end: frontier and time that each watcher must reach.
type Goal = Option<(Frontier, u64)>;

// Watches until the goal is reached or the store is closed.
async fn watch_on(
    store: Store,
    mut lineage: Lineage,
    mut random: Random,
    goal: watch::Receiver<Goal>,
    counts: Arc<Counts>,
) -> Lineage {
    let resumed = |cursor: Cursor| WatchOptions {
        start: Start::After(cursor.to_string().parse().unwrap()),
        ..lineage.options.clone()
    };
    let mut watch = match lineage.steps.last() {
        None => store.watch_with(lineage.options.clone()),
        Some(Step::Saw(_, cursor)) => {
            let cursor = cursor.clone();
            let watch = store.watch_with(resumed(cursor.clone()));
            lineage.steps.push(Step::Resumed(cursor));
            add(&counts.carried_over, 1);
            watch
        }
        Some(Step::Resumed(cursor)) => store.watch_with(resumed(cursor.clone())),
    };
    if lineage.steps.is_empty() {
        lineage.begin = watch.cursor();
    }
    let pace = random.below(4);
    if pace == 3 {
        tokio::time::sleep(Duration::from_millis(random.bits() % 80)).await;
    }
    loop {
        let item = tokio::time::timeout(Duration::from_secs(30), watch.next()).await;
        let event = match item.expect("an item or a heartbeat within 30 s") {
            Some(Ok(event)) => event,
            Some(Err(WatchError::Closed)) | None => break,
            Some(Err(error)) => panic!("{error} in {:?}", lineage.options),
        };
        let cursor = watch.cursor();
        let mut in_batch = false;
        if let WatchEvent::Change(change) = &event {
            add(&counts.changes, 1);
            add(&counts.conflicts, u64::from(change.is_conflict()));
            add(&counts.late, u64::from(change.late));
            add(&counts.expiries, u64::from(change.kind == Kind::Expire));
            in_batch = change.atomic
                && cursor
                    .frontier
                    .tips(&change.entry.author)
                    .iter()
                    .all(|tip| tip.seq < change.entry.seq);
        } else if let Some((frontier, expired_through_ms)) = &*goal.borrow()
            && cursor.frontier == *frontier
            && cursor.expired_through_ms >= *expired_through_ms
        {
            lineage.steps.push(Step::Saw(event, cursor));
            break;
        }
        lineage.steps.push(Step::Saw(event, cursor.clone()));
        let stop = random.once_in(if cursor.partial.is_some() || in_batch {
            4
        } else {
            25
        });
        if stop {
            add(&counts.resumes, 1);
            add(
                &counts.resumes_in_entry,
                u64::from(cursor.partial.is_some()),
            );
            add(&counts.resumes_in_batch, u64::from(in_batch));
            add(&counts.lags, watch.lags());
            drop(watch);
            watch = store.watch_with(resumed(cursor.clone()));
            lineage.steps.push(Step::Resumed(cursor));
        }
        match pace {
            1 => tokio::time::sleep(Duration::from_micros(random.bits() % 1500)).await,
            2 if random.once_in(20) => tokio::time::sleep(Duration::from_millis(20)).await,
            _ => {}
        }
    }
    add(&counts.lags, watch.lags());
    lineage
}

async fn log_of(store: &Store) -> Vec<(VerifiedEntry, u64)> {
    let mut log = Vec::new();
    let authors: BTreeSet<Author> = store.frontier().iter().map(|(author, _)| author).collect();
    for author in authors {
        let entries = store.entries(author, 0, usize::MAX).await.unwrap();
        log.extend(
            entries
                .into_iter()
                .map(|entry| (entry.entry, entry.arrived_ms)),
        );
    }
    log.sort_by_key(|(entry, _)| entry.order());
    log
}

async fn one_run(random: &mut Random, counts: &Arc<Counts>) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START_MS);
    let bus_batches = 1 + random.below(2);
    let mut lineages: Vec<Lineage> = Vec::new();
    let mut authors: Vec<Writer> = Vec::new();
    let mut held = None;
    for phase in 0..2 {
        let (node, store) = open(dir.path(), &clock, bus_batches).await;
        if authors.is_empty() {
            authors = [AUTHOR_A, AUTHOR_B]
                .map(|secret| Writer::new(secret, store.id()))
                .into();
        }
        let (reach, goal) = watch::channel(Goal::None);
        let mut watching = Vec::new();
        for _ in 0..3 {
            lineages.push(Lineage {
                options: random_options(random, &store, &clock),
                begin: nothing(&store),
                steps: Vec::new(),
            });
        }
        for lineage in lineages.drain(..) {
            let (store, random, counts) = (store.clone(), random.split(), Arc::clone(counts));
            watching.push(tokio::spawn(watch_on(
                store,
                lineage,
                random,
                goal.clone(),
                counts,
            )));
        }
        if phase == 1 {
            // Stamped further ahead than is taken in now.
            let ops = vec![random_op(random, &clock, "/a/held")];
            let now_ms = clock.now_ms() + DRIFT_MS_MAX + 5_000;
            let mut author = Writer::new(AUTHOR_C, store.id());
            let entry = author.write(now_ms, ops, BTreeSet::new(), false);
            let outcome = store
                .ingest(vec![entry.signed.encode().into()])
                .await
                .unwrap();
            assert!(
                matches!(outcome[..], [Ingested::Held { .. }]),
                "{outcome:?}"
            );
            add(&counts.held, 1);
            held = Some(entry);
        }
        let (mut here, there) = (
            Vec::new(),
            write_elsewhere(
                store.clone(),
                clock.clone(),
                random.split(),
                authors,
                15,
                Arc::clone(counts),
            ),
        );
        let there = tokio::spawn(there);
        for _ in 0..3 {
            here.push(tokio::spawn(write_here(
                store.clone(),
                clock.clone(),
                random.split(),
                12,
            )));
        }
        for writer in here {
            writer.await.unwrap();
        }
        authors = there.await.unwrap();
        if phase == 1 {
            reach.send_replace(Some(settle(&store, &clock, held.as_ref().unwrap()).await));
        } else {
            node.close().await.unwrap();
        }
        for watcher in watching {
            lineages.push(watcher.await.unwrap());
        }
        if phase == 1 {
            let mut truth = Truth::new(log_of(&store).await);
            let items = store.list(List::default()).await.unwrap();
            truth.list = items
                .into_iter()
                .map(|item| (item.key, item.value))
                .collect();
            truth.expired_through_ms = reach.borrow().as_ref().unwrap().1;
            for lineage in &lineages {
                if let Err(broken) = Judge::judge(&truth, lineage) {
                    panic!("{broken}\nof {:?}\n{:#?}", lineage.options, tail(lineage));
                }
            }
            node.close().await.unwrap();
        }
    }
}

fn tail(lineage: &Lineage) -> Vec<String> {
    let short = |step: &Step| match step {
        Step::Saw(WatchEvent::Change(change), cursor) => format!(
            "{} {:?} seq {} op {}/{} of {} exp {:?} ({:?}) cursor {:?} {}",
            change.kind.name(),
            change.key,
            change.entry.seq,
            change.op_index,
            change.op_count,
            change.entry.author.short(),
            change.expires_ms,
            change.origin,
            cursor.partial.map(|at| at.ops),
            cursor.expired_through_ms
        ),
        Step::Saw(event, _) => format!("{event:?}"),
        Step::Resumed(_) => "resumed".to_owned(),
    };
    lineage.steps.iter().map(short).collect()
}

// Moves the clock past all expiries and held entries; returns the time through which expiries are
// delivered.
async fn settle(store: &Store, clock: &Clock, held: &VerifiedEntry) -> (Frontier, u64) {
    clock.advance(2 * DRIFT_MS_MAX);
    // Wakes the writer, which looks at the clock a few times a second otherwise.
    store.put("/wake", "").await.unwrap();
    while store.frontier().seq(&held.author()) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let end_ms = clock.now_ms() + 10;
    store
        .write(Write::put("/end", "soon").expires_ms(end_ms))
        .await
        .unwrap();
    clock.advance(20);
    store.put("/wake", "").await.unwrap();
    let at_end = || {
        store
            .watch_with(WatchOptions {
                start: Start::Now,
                ..WatchOptions::default()
            })
            .cursor()
    };
    while at_end().expired_through_ms < end_ms {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let end = at_end();
    (end.frontier, end.expired_through_ms)
}

#[test]
fn every_watch_is_lossless_under_random_writers() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let counts = Arc::new(Counts::default());
    let runs = if env::var_os("LATTICE_SOAK").is_some() {
        1200
    } else {
        60
    };
    for_each_seed(1..=runs, |random| {
        runtime.block_on(one_run(random, &counts))
    });
    println!("{counts:?}");
    if env::var_os("SEED").is_some() {
        return;
    }
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    assert!(count(&counts.changes) > 15_000, "{counts:?}");
    for (count, min) in [
        (count(&counts.lags), 200),
        (count(&counts.resumes), 500),
        (count(&counts.resumes_in_entry), 100),
        (count(&counts.resumes_in_batch), 100),
        (count(&counts.conflicts), 1000),
        (count(&counts.late), 300),
        (count(&counts.expiries), 300),
        (count(&counts.held), 60),
        (count(&counts.waited), 100),
        (count(&counts.forks), 10),
        (count(&counts.carried_over), 60),
    ] {
        assert!(
            count >= min,
            "a rare path did not run: {count} < {min} in {counts:?}"
        );
    }
}
