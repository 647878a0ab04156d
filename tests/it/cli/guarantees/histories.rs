//! Random histories of daemons, and the test that every guarantee holds in them.

use std::{
    collections::BTreeSet,
    env,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lattice::{
    api::whole,
    id::{Author, EntryId, StoreId},
    protocol::{entry::VerifiedEntry, frontier::Frontier},
    wire::api::{
        AddHookRequest, ConsumerRequest, ConsumerStart, ConsumerStatus, Hook, HookLogRequest,
        consumer_start::Start,
    },
};
use tokio::task::JoinSet;

use super::{
    lan::Lan,
    node::{Life, Node},
    reader::{Reader, SILENCE},
    taker::{self, CONSUMER, Taker},
    wire, writer,
};
use crate::{
    cli::harness::{Home, PATIENCE},
    guarantees::{
        checker::check,
        history::{History, Record, Scope, Truth, Work},
    },
    support::random::Random,
};

/// Counts over all histories, to assert that rare paths ran.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) told: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) moves: AtomicU64,
    pub(super) inside: AtomicU64,
    pub(super) overtaken: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) waits: AtomicU64,
    pub(super) silences: AtomicU64,
    pub(super) broken_off: AtomicU64,
    pub(super) given: AtomicU64,
    pub(super) redelivered: AtomicU64,
    pub(super) nacks: AtomicU64,
    pub(super) vanished: AtomicU64,
    pub(super) acks_lost: AtomicU64,
    pub(super) caused: AtomicU64,
    pub(super) runs_again: AtomicU64,
    pub(super) kills: AtomicU64,
    pub(super) stops: AtomicU64,
    pub(super) pauses: AtomicU64,
    pub(super) cuts: AtomicU64,
}

pub(super) fn add(count: &AtomicU64, by: u64) {
    count.fetch_add(by, Ordering::Relaxed);
}

/// State shared by readers, writers and takers.
pub(super) struct World {
    pub(super) counts: Arc<Counts>,
    pub(super) lives: Vec<Arc<Life>>,
    // Somebody writes much, or will in a moment.
    pub(super) floods: AtomicBool,
    // Nobody writes any more, but the hook.
    pub(super) over: AtomicBool,
    // Nothing is left to be taken.
    pub(super) done: AtomicBool,
}

impl World {
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    pub(super) fn floods(&self) -> bool {
        self.floods.load(Ordering::Acquire)
    }
}

/// Three daemons, and the network between them where it can be made.
pub(super) struct Mesh {
    pub(super) nodes: Vec<Node>,
    // After the nodes, which live on it.
    pub(super) lan: Option<Lan>,
}

impl Mesh {
    fn new() -> Self {
        let lan = Lan::new(NODES)
            .inspect_err(|why| eprintln!("NO PARTITIONS HERE, ONLY PAUSES: {why}"))
            .ok();
        let home = |number| match &lan {
            Some(lan) => Home::at(Lan::address(number), lan.inside(number)),
            // Each keeps its port: where all are killed, nobody could say where the others are.
            None => Home::at(free_port(), Vec::new()),
        };
        let mut nodes: Vec<Node> = (0..NODES).map(home).map(Node::new).collect();
        nodes[0].start();
        for number in 1..NODES {
            nodes[0].let_in(&nodes[number]);
            nodes[number].start();
        }
        Self { nodes, lan }
    }

    /// Does something to a node.
    async fn trouble(&mut self, random: &mut Random, long: bool, counts: &Counts) {
        // More often those that have something to remember.
        let victim = [HOOKED, HOOKED, TAKEN, TAKEN, FLOODED][random.below(5)];
        let time = Duration::from_millis(200 + random.bits() % 1000);
        match (random.below(6), &mut self.lan) {
            (0 | 1, _) => {
                add(&counts.kills, 1);
                self.nodes[victim].kill_and_start();
            }
            (2, _) => {
                add(&counts.stops, 1);
                self.nodes[victim].stop_and_start();
            }
            (3 | 4, Some(lan)) => {
                add(&counts.cuts, 1);
                lan.pull(victim);
                tokio::time::sleep(if long { LONG } else { time }).await;
                if random.once_in(3) {
                    add(&counts.kills, 1);
                    self.nodes[random.below(NODES)].kill_and_start();
                    tokio::time::sleep(time / 2).await;
                }
                lan.plug(victim);
            }
            _pause => {
                let goes_on = !random.once_in(3);
                add(&counts.pauses, 1);
                add(&counts.kills, u64::from(!goes_on));
                // Longer than the patience of its readers.
                self.nodes[victim].pause(SILENCE + time / 2, goes_on).await;
            }
        }
    }
}

async fn history(seed: u64, counts: &Arc<Counts>) {
    let random = &mut Random::new(seed);
    let mut mesh = Mesh::new();
    let lives: Vec<Arc<Life>> = mesh.nodes.iter().map(|it| Arc::clone(&it.life)).collect();
    let (hooked, root) = lives[HOOKED].data().await;
    let store = root.info.unwrap().id;
    let store = StoreId(store.as_ref().try_into().unwrap());
    let (taken, _root) = lives[TAKEN].data().await;
    add_hook(&lives[HOOKED]).await;
    let changes_max = [2, 10, 50][random.below(3)];
    taker::create(&lives[TAKEN], IN, changes_max).await;
    let world = Arc::new(World {
        counts: Arc::clone(counts),
        lives,
        floods: seed.is_multiple_of(3).into(),
        over: AtomicBool::default(),
        done: AtomicBool::default(),
    });
    let (mut writers, mut readers) = (JoinSet::new(), JoinSet::new());
    let mut takers = JoinSet::new();
    for at in 0..NODES {
        let floods = at == FLOODED && world.floods();
        writers.spawn(writer::write(
            at,
            floods,
            Arc::clone(&world),
            random.split(),
        ));
    }
    for number in 0..READERS {
        let reader = Reader::new(store, scope(number, random), number < 2, random.split());
        readers.spawn(reader.wander(Arc::clone(&world)));
    }
    for _taker in 0..2 {
        let taker = Taker::new(random.split(), Arc::clone(&world.lives[TAKEN]));
        takers.spawn(taker.work(Arc::clone(&world)));
    }
    while world.floods() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for time in 0..TROUBLES {
        tokio::time::sleep(Duration::from_millis(100 + random.bits() % 150)).await;
        let long = time == 0 && seed.is_multiple_of(10);
        mesh.trouble(random, long, counts).await;
    }
    world.over.store(true, Ordering::Release);
    let acknowledged = writers.join_all().await.into_iter().flatten().collect();
    let mut readers = readers.join_all().await;
    let truth = settled(&world, &mut readers).await;
    world.done.store(true, Ordering::Release);
    takers.join_all().await;
    let history = History {
        acknowledged,
        lineages: readers.into_iter().map(|it| it.lineage).collect(),
        consumers: vec![
            Record {
                work: world.lives[TAKEN].take_work(),
                ..record(CONSUMER, taken)
            },
            Record {
                work: hook_work(&world, &truth).await,
                writes: true,
                ..record(HOOK, hooked)
            },
        ],
        states: states(&world, &truth).await,
        truth,
    };
    if let Err(broken) = check(&history) {
        panic!("SEED={seed}: {broken}");
    }
}

/// Returns all there is, when it is everywhere, and nobody has anything left to do; then all readers
/// have read it.
async fn settled(world: &World, readers: &mut [Reader]) -> Truth {
    let began = Instant::now();
    let mut due_ms = 0;
    loop {
        let frontier = agreed(world).await;
        if due_ms == 0 {
            // This value expires last: its expiry shows that all others were delivered.
            let mut client = world.lives[0].client().await;
            let last = writer::put(&mut client, "/last", Vec::new(), Some(400)).await;
            last.unwrap();
            due_ms = wire::expires_ms(&mut client, "/last").await.unwrap();
            continue;
        }
        for life in &world.lives {
            while life.data().await.1.expired_through_ms < due_ms {
                assert!(began.elapsed() < PATIENCE, "it does not expire");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        for reader in &mut *readers {
            reader.read_all(world, &frontier, due_ms).await;
        }
        let log: Vec<VerifiedEntry> = wire::log(&world.lives[0]).await;
        let mut truth = Truth::new(log);
        truth.expired_through_ms = due_ms;
        // A daemon may have said something of itself meanwhile.
        if truth.frontier() == frontier {
            for life in &world.lives[1..] {
                let ids = wire::log(life).await.into_iter().map(|entry| entry.id);
                let ids: BTreeSet<EntryId> = ids.collect();
                assert!(ids.iter().eq(truth.entries.keys()), "the logs differ");
            }
            return truth;
        }
        assert!(began.elapsed() < 2 * PATIENCE, "it does not settle");
    }
}

/// Waits until all nodes have the same, and the consumer and the hook have done all of it.
async fn agreed(world: &World) -> Frontier {
    let began = Instant::now();
    loop {
        let mut frontiers = Vec::new();
        for life in &world.lives {
            frontiers.push(life.frontier().await);
        }
        let mut tasks = vec![consumer(&world.lives[TAKEN]).await];
        tasks.extend(hook_consumer(&world.lives[HOOKED]).await);
        let is_idle = |it: &ConsumerStatus| it.outstanding == 0 && it.backlog_entries == 0;
        let is_idle = tasks.len() == 2 && tasks.iter().all(is_idle);
        if is_idle && frontiers.iter().all(|it| *it == frontiers[0]) {
            assert!(tasks.iter().all(|it| it.dead == 0), "{tasks:?}");
            return frontiers.swap_remove(0);
        }
        let waited = began.elapsed() < 2 * PATIENCE;
        assert!(waited, "the nodes do not agree: {frontiers:?}, {tasks:?}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

async fn consumer(life: &Life) -> ConsumerStatus {
    let consumer = CONSUMER.to_owned();
    let request = ConsumerRequest {
        consumer,
        ..ConsumerRequest::default()
    };
    let shown = life.client().await.show_consumer(request).await;
    shown.unwrap().into_inner()
}

/// None while it begins.
async fn hook_consumer(life: &Life) -> Option<ConsumerStatus> {
    let mut client = life.client().await;
    let mut hooks = whole::hooks(&mut client).await.unwrap().hooks;
    hooks.pop().unwrap().consumer
}

async fn add_hook(life: &Life) {
    let command = r#"/bin/sleep 0.02; printf '{"key":"/out%s","value":"%s"}\n' "$LATTICE_KEY" "$LATTICE_RUN_ID""#;
    let definition = Hook {
        on: IN.to_owned(),
        run: ["/bin/sh", "-c", command].map(str::to_owned).into(),
        backoff_ms: vec![5],
        attempts: 1000,
        rate: 10_000,
        writes: true,
        ..Hook::default()
    };
    let start = Some(Start::Beginning(true));
    let request = AddHookRequest {
        hook: HOOK.to_owned(),
        definition: Some(definition),
        from: Some(ConsumerStart { start }),
    };
    life.client().await.add_hook(request).await.unwrap();
}

/// Returns what the hook says of itself: what its runs have written, and, as nothing is outstanding,
/// that all it was asked for is done.
async fn hook_work(world: &World, truth: &Truth) -> Vec<Work> {
    let request = HookLogRequest {
        hook: HOOK.to_owned(),
        count: 1000,
        ..HookLogRequest::default()
    };
    let mut client = world.lives[HOOKED].client().await;
    let runs = client.hook_log(request).await.unwrap().into_inner().runs;
    let mut work = Vec::new();
    for run in runs.iter().filter(|run| !run.wrote.is_empty()) {
        let trigger: EntryId = run.entry.parse().unwrap();
        let ops = truth.entries[&trigger].entry.ops.iter();
        let op = (0..).zip(ops).find(|(_, op)| *op.key() == run.key);
        let entry = run.wrote.parse().unwrap();
        work.push(Work::Wrote {
            op: (trigger, op.unwrap().0),
            entry,
        });
        add(&world.counts.caused, 1);
        add(&world.counts.runs_again, u64::from(run.attempt > 1));
    }
    let asked = record(HOOK, Author([0; 32]));
    let all = truth.between(&asked.since, &truth.frontier());
    let ops = all.into_iter().flat_map(|entry| asked.scope.ops_of(entry));
    work.extend(ops.map(Work::Acked));
    work
}

fn record(name: &'static str, author: Author) -> Record {
    Record {
        name,
        author,
        scope: Scope {
            prefix: IN.into(),
            ..Scope::default()
        },
        since: Frontier::default(),
        writes: false,
        work: Vec::new(),
    }
}

type States = Vec<std::collections::BTreeMap<bytes::Bytes, Vec<EntryId>>>;

async fn states(world: &World, truth: &Truth) -> States {
    let keys: Vec<_> = truth.heads(&truth.frontier()).into_keys().collect();
    let mut states = Vec::new();
    for life in &world.lives {
        let mut client = life.client().await;
        states.push(wire::states(&mut client, keys.iter().cloned()).await);
    }
    states
}

/// Returns what a reader reads: some of each kind, whatever chance says.
fn scope(number: usize, random: &mut Random) -> Scope {
    let prefixes = ["", "/h/", "/in/", "/h/1", "/out/", "/quiet/"];
    let (prefix, keys_only, latest) = match number {
        0 => ("", false, false),
        1 => ("", false, true),
        _any => (
            prefixes[random.below(prefixes.len())],
            random.once_in(3),
            random.once_in(3),
        ),
    };
    Scope {
        prefix: prefix.into(),
        keys_only,
        latest,
    }
}

fn free_port() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().to_string()
}

#[test]
fn guarantees_hold_for_killed_daemons() {
    let counts = Arc::new(Counts::default());
    let begun = Instant::now();
    let run = |seed| {
        eprintln!("SEED={seed}");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(history(seed, &counts));
    };
    if let Ok(seed) = env::var("SEED") {
        run(seed.parse().unwrap());
        eprintln!("{counts:?} in {:?}", begun.elapsed());
        return;
    }
    let soak = if env::var_os("LATTICE_SOAK").is_some() {
        20
    } else {
        1
    };
    // They mostly wait.
    std::thread::scope(|scope| {
        for thread in 1..=THREADS {
            let seeds = (thread..=soak * HISTORIES).step_by(THREADS);
            scope.spawn(move || seeds.for_each(|seed| run(seed as u64)));
        }
    });
    eprintln!("{counts:?} in {:?}", begun.elapsed());
    for (what, count) in [
        ("a reader is told", &counts.told),
        ("writers conflict", &counts.conflicts),
        ("something expires", &counts.expired),
        ("a batch is written", &counts.batches),
        ("a reader moves", &counts.moves),
        ("it stops inside an entry", &counts.inside),
        ("a cursor is ahead", &counts.refused),
        ("a watch breaks off", &counts.broken_off),
        ("a change is given to a taker", &counts.given),
        ("it is given again", &counts.redelivered),
        ("it is given back", &counts.nacks),
        ("a taker vanishes with it", &counts.vanished),
        ("a hook writes", &counts.caused),
        ("a node is killed", &counts.kills),
    ] {
        let count = count.load(Ordering::Relaxed);
        assert!(count >= 10, "{what}: only {count} times");
    }
    for (what, count) in [
        ("a slow reader is overtaken", &counts.overtaken),
        ("a watch waits", &counts.waits),
        ("a node falls silent", &counts.silences),
        ("a hook runs again", &counts.runs_again),
        ("a node is stopped", &counts.stops),
        ("a node is paused", &counts.pauses),
    ] {
        let count = count.load(Ordering::Relaxed);
        assert!(count >= 1, "{what}: never");
    }
}

const HISTORIES: usize = 10;
const THREADS: usize = 4;
pub(super) const NODES: usize = 3;
const READERS: usize = 5;
const TROUBLES: usize = 6;
/// The node with the hook.
const HOOKED: usize = 0;
/// The node with the consumer.
const TAKEN: usize = 1;
/// The node where much is written at a time.
pub(super) const FLOODED: usize = 2;
const HOOK: &str = "copy";
/// The prefix of the hook and the consumer.
const IN: &str = "/in/";
/// Longer than a connection lives that nothing comes over.
const LONG: Duration = Duration::from_millis(7500);
