//! Random histories, and the test that every guarantee holds in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ops::RangeInclusive,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use lattice::{
    Store, WatchOptions,
    clock::Clock,
    id::EntryId,
    protocol::entry::Op,
    store::{Start, Write},
};

use super::{
    checker::check,
    history::{History, Truth},
    network::Network,
    reader::{self, Reader},
    replica::{End, PATIENCE, Replica, START_MS, soon},
    taker::{ACK_WAIT_MS, Taker},
};
use crate::support::{
    disk::Image,
    random::{Random, for_each_seed},
};

/// Counts over all histories, to assert that rare paths ran.
#[derive(Debug, Default)]
pub struct Counts {
    pub(super) changes: AtomicU64,
    pub(super) overflows: AtomicU64,
    pub(super) moves: AtomicU64,
    pub(super) inside_entries: AtomicU64,
    pub(super) inside_batches: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) waits: AtomicU64,
    pub(super) gaps: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) expiries: AtomicU64,
    pub(super) lapses: AtomicU64,
    pub(super) clocks_behind: AtomicU64,
    pub(super) redelivered: AtomicU64,
    pub(super) caused: AtomicU64,
    pub(super) already_caused: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) killed: AtomicU64,
    pub(super) power_cuts: AtomicU64,
    pub(super) states_lost: AtomicU64,
    pub(super) hit: AtomicU64,
    pub(super) unreadable: AtomicU64,
    pub(super) lacking: AtomicU64,
    pub(super) told_anew: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) doubled: AtomicU64,
    pub(super) reordered: AtomicU64,
    pub(super) healed: AtomicU64,
}

pub(super) fn add(count: &AtomicU64, by: u64) {
    count.fetch_add(by, Ordering::Relaxed);
}

/// The replicas, and their readers and takers.
pub(super) struct World<'a> {
    pub(super) counts: &'a Counts,
    pub(super) replicas: Vec<Replica>,
    pub(super) network: Network,
    pub(super) readers: Vec<Reader>,
    pub(super) takers: Vec<Taker>,
    pub(super) acknowledged: BTreeSet<EntryId>,
    pub(super) damaged: bool,
}

impl World<'_> {
    fn any(&self, random: &mut Random) -> usize {
        random.below(self.replicas.len())
    }

    async fn write(&mut self, random: &mut Random) {
        let at = self.any(random);
        let replica = &self.replicas[at];
        replica.clock.advance(random.bits() % 3);
        let writes = writes(random, &replica.clock);
        let written = write(replica.store.clone(), writes).await;
        self.acknowledged.extend(written);
    }

    /// Writes many times while a reader begins and reads: it must not miss those writes.
    async fn race(&mut self, random: &mut Random) {
        let at = self.any(random);
        let replica = &self.replicas[at];
        let bursts: Vec<_> = (0..6).map(|_| writes(random, &replica.clock)).collect();
        let reader = random.below(self.readers.len());
        let reader = &mut self.readers[reader];
        reader.begin(at, replica, false, self.counts);
        let (mut written, changes) = (Vec::new(), random.below(40));
        let writing = async {
            for burst in bursts {
                written.extend(write(replica.store.clone(), burst).await);
            }
        };
        tokio::join!(writing, reader.read(changes, self.counts));
        self.acknowledged.extend(written);
    }

    /// Sends new entries into the network, and delivers arriving ones to a replica.
    async fn carry(&mut self, random: &mut Random) {
        for from in 0..self.replicas.len() {
            while let Ok(fresh) = self.replicas[from].fresh.try_recv() {
                let entry = fresh.encoded.expect("entries here are small");
                for to in (0..self.replicas.len()).filter(|to| *to != from) {
                    self.network.send(random, (from, to), entry.clone());
                }
            }
        }
        let to = self.any(random);
        let come = self.network.receive(random, to);
        if !come.is_empty() {
            self.replicas[to].take_in(come).await;
        }
    }

    async fn sync(&self, random: &mut Random) {
        let (from, to) = (self.any(random), self.any(random));
        if from != to && !self.network.is_broken((from, to)) {
            self.replicas[to]
                .sync(&self.replicas[from], Some(random))
                .await;
        }
    }

    async fn read(&mut self, random: &mut Random) {
        let changes = random.below(8);
        let reader = random.below(self.readers.len());
        let reader = &mut self.readers[reader];
        if !reader.is_reading() || random.once_in(3) {
            let at = random.below(self.replicas.len());
            let wait = random.once_in(12);
            reader.begin(at, &self.replicas[at], wait, self.counts);
        }
        reader.read(changes, self.counts).await;
    }

    /// Heals the network, and perhaps a disk.
    async fn heal(&mut self, random: &mut Random) {
        self.network.heal();
        if self.damaged && random.once_in(3) {
            let (whole, damaged) = self.replicas.split_at(2);
            damaged[0].mend(whole).await;
        }
    }

    async fn work(&mut self, random: &mut Random) {
        let taker = random.below(self.takers.len());
        let taker = &mut self.takers[taker];
        let replica = &self.replicas[taker.at];
        match random.below(7) {
            0..=2 => drop(taker.take(&replica.store, self.counts).await),
            3..=5 => taker.answer(random, replica),
            _ => taker.flush().await,
        }
    }

    async fn restart(&mut self, random: &mut Random) {
        let at = self.any(random);
        let (end, count) = match random.below(3) {
            0 => (End::Closed, &self.counts.closed),
            1 => (End::Killed, &self.counts.killed),
            _ => (End::PowerCut, &self.counts.power_cuts),
        };
        add(count, 1);
        // A replica without a consumer: damage under a consumer is tested elsewhere. Other
        // replicas have all its entries.
        let taken = self.takers.iter().any(|taker| taker.at == at);
        let is_hit = !taken && !self.damaged;
        if is_hit {
            self.replicas[0].sync(&self.replicas[at], None).await;
        }
        let mut image = self.replicas[at].end(end, random).await;
        for taker in self.takers.iter_mut().filter(|taker| taker.at == at) {
            taker.died(end == End::Closed);
        }
        let is_lost = random.once_in(4);
        if is_lost {
            add(&self.counts.states_lost, 1);
            lose_state(&mut image);
        }
        let is_hit = is_hit && damage(random, &mut image);
        self.damaged |= is_hit;
        // The store is closed, and its watches report it.
        let replica = self.replicas.remove(at);
        let replica = replica.reopen(image).await;
        self.replicas.insert(at, replica);
        for taker in self.takers.iter_mut().filter(|taker| taker.at == at) {
            taker.go_on(&self.replicas[at]);
        }
        for reader in &mut self.readers {
            if reader.is_reading() && reader.at == at {
                reader.until_over(self.counts).await;
            }
        }
        if is_hit {
            self.hit(at, random).await;
        }
    }

    /// The log of a replica was damaged. A watch that begins there may get a gap and the state: a
    /// complete one if the state had applied the entries that are unreadable now, else an
    /// incomplete one.
    async fn hit(&mut self, at: usize, random: &mut Random) {
        add(&self.counts.hit, 1);
        let (whole, hit) = self.replicas.split_at(at);
        // A damaged end of a log looks like an end that was never synced: so a node asks its peers
        // for its own entries before its first write.
        hit[0].sync(&whole[0], None).await;
        let mut reader = Reader::new(reader::scope(random));
        reader.begin(at, &hit[0], false, self.counts);
        reader.read(60, self.counts).await;
        self.readers.push(reader);
    }

    /// Damages the log of a replica without a consumer. A watch that begins there gets a gap and
    /// the state; then the other replicas send the missing entries.
    async fn gap(&mut self, random: &mut Random) {
        self.agree().await;
        if self.replicas.len() == self.takers.len() {
            return;
        }
        let replica = self.replicas.pop().unwrap();
        let at = self.replicas.len();
        let mut image = replica.end(End::Closed, random).await;
        self.damaged = damage(random, &mut image);
        if random.once_in(2) {
            lose_state(&mut image);
        }
        let replica = replica.reopen(image).await;
        for reader in &mut self.readers {
            if reader.is_reading() && reader.at == at {
                reader.until_over(self.counts).await;
            }
        }
        let mut reader = Reader::new(reader::scope(random));
        reader.begin(at, &replica, false, self.counts);
        reader.read(400, self.counts).await;
        replica.mend(&self.replicas).await;
        reader.read(400, self.counts).await;
        self.readers.push(reader);
        self.replicas.push(replica);
    }

    async fn step(&mut self, random: &mut Random) {
        match random.below(40) {
            0..=9 => self.write(random).await,
            10 => self.race(random).await,
            11..=16 => self.carry(random).await,
            17..=19 => self.sync(random).await,
            20..=29 => self.read(random).await,
            30..=35 => self.work(random).await,
            36 => {
                let between = (self.any(random), self.any(random));
                self.network.part(between);
            }
            37 => self.heal(random).await,
            38 => {
                let at = self.any(random);
                self.replicas[at].clock.advance(random.bits() % 80);
            }
            _ => self.restart(random).await,
        }
    }

    /// Syncs all replicas with each other.
    async fn agree(&self) {
        for _round in 0..2 {
            for to in &self.replicas {
                for from in &self.replicas {
                    to.sync(from, None).await;
                }
            }
        }
        let first = self.replicas[0].store.frontier();
        for replica in &self.replicas {
            assert_eq!(replica.store.frontier(), first, "all has come to all");
        }
    }

    /// Ends the history: all messages arrive, all due values expire, and every watcher and taker
    /// gets the rest.
    async fn finish(mut self, random: &mut Random) -> History {
        self.network.heal();
        let newest = self.replicas.iter().map(|replica| replica.clock.now_ms());
        let mut now_ms = newest.max().unwrap() + 10_000;
        let begun = Instant::now();
        if self.damaged {
            let (whole, damaged) = self.replicas.split_at(2);
            damaged[0].mend(whole).await;
            // Watchers that stayed there get it, too.
            for reader in self.readers.iter_mut().filter(|reader| reader.at == 2) {
                if reader.is_reading() {
                    reader.read(400, self.counts).await;
                }
            }
        } else if random.once_in(3) {
            self.gap(random).await;
        }
        self.agree().await;
        loop {
            now_ms += ACK_WAIT_MS;
            self.set_clocks(now_ms);
            let mut over = true;
            for taker in &mut self.takers {
                let store = &self.replicas[taker.at].store;
                over &= taker.drain(store, self.counts).await;
            }
            if over || begun.elapsed() > PATIENCE {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.agree().await;
        // This value expires last: its expiry shows that all others were delivered.
        now_ms += 10;
        let last = Write::put("/end", "").expires_ms(now_ms);
        soon(self.replicas[0].store.write(last)).await.unwrap();
        self.agree().await;
        self.set_clocks(now_ms + 1);
        for replica in &self.replicas {
            // This wakes the writer, which otherwise looks at the clock only a few times a second.
            soon(replica.store.put("/wake", "")).await.unwrap();
        }
        self.agree().await;
        for replica in &self.replicas {
            let begun = Instant::now();
            while at_end(&replica.store) < now_ms && begun.elapsed() < PATIENCE {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let mut truth = Truth::new(self.replicas[0].log().await.unwrap());
        truth.expired_through_ms = now_ms;
        truth.damaged = self.damaged;
        let frontier = truth.frontier();
        for reader in &mut self.readers {
            let at = random.below(self.replicas.len());
            reader.begin(at, &self.replicas[at], false, self.counts);
            reader.until_at(&frontier, now_ms, self.counts).await;
        }
        let mut states = Vec::new();
        let keys: BTreeSet<_> = truth.heads(&frontier).into_keys().collect();
        for replica in &self.replicas {
            states.push(replica.heads(keys.iter().cloned()).await);
        }
        for (count, by) in [
            (&self.counts.lost, self.network.lost),
            (&self.counts.doubled, self.network.doubled),
            (&self.counts.reordered, self.network.reordered),
            (&self.counts.healed, self.network.healed),
        ] {
            add(count, by);
        }
        for taker in &self.takers {
            self.acknowledged.extend(&taker.wrote);
        }
        History {
            truth,
            acknowledged: self.acknowledged,
            lineages: self.readers.into_iter().map(|it| it.lineage).collect(),
            consumers: self.takers.into_iter().map(|it| it.record).collect(),
            states,
        }
    }

    fn set_clocks(&self, now_ms: u64) {
        for replica in &self.replicas {
            replica.clock.set(now_ms);
        }
    }
}

/// Returns the time through which a store has delivered expiries.
pub(super) fn at_end(store: &Store) -> u64 {
    let now = WatchOptions {
        start: Start::Now,
        ..WatchOptions::default()
    };
    store.watch_with(now).cursor().expired_through_ms
}

// One step of a writer: some puts that may share an entry, or a batch.
fn writes(random: &mut Random, clock: &Clock) -> Vec<Write> {
    let mut keys = KEYS.to_vec();
    random.shuffle(&mut keys);
    keys.truncate(1 + random.below(4));
    let ops: Vec<Op> = keys.iter().map(|key| op(random, clock, key)).collect();
    let write = |ops, atomic| Write {
        ops,
        atomic,
        condition: None,
        cause: None,
    };
    if random.once_in(3) {
        return vec![write(ops, true)];
    }
    ops.into_iter().map(|op| write(vec![op], false)).collect()
}

fn op(random: &mut Random, clock: &Clock, key: &'static str) -> Op {
    if random.once_in(6) {
        return Op::Delete { key: key.into() };
    }
    let expires = !key.starts_with("/in/") && random.once_in(4);
    let value = random.bits().to_string();
    Op::Put {
        key: key.into(),
        value: value.into(),
        expires_ms: expires.then(|| clock.now_ms() + random.bits() % 60),
    }
}

// Deletes that change nothing have no entry.
async fn write(store: Store, writes: Vec<Write>) -> Vec<EntryId> {
    let written = soon(store.write_many(writes)).await;
    written
        .into_iter()
        .filter_map(|written| Some(written.unwrap()?.entry))
        .collect()
}

fn lose_state(image: &mut Image) {
    image.retain(|path, _| !path.starts_with("/store/state.db"));
    image.retain(|path, _| !path.starts_with("/store/state.sums"));
}

// Flips a bit in a log. Returns false if the log is too short.
fn damage(random: &mut Random, image: &mut Image) -> bool {
    let mut logs: Vec<&mut Vec<u8>> = image
        .iter_mut()
        .filter(|(path, bytes)| path.starts_with("/store/logs") && bytes.len() > 2000)
        .map(|(_, bytes)| bytes)
        .collect();
    if logs.is_empty() {
        return false;
    }
    let log = random.below(logs.len());
    let log = &mut logs[log];
    // After the end of the log the file has only reserved room.
    let end = log.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    log[random.below(end + 1)] ^= 1 << random.below(8);
    true
}

async fn history(random: &mut Random, counts: &Counts) {
    let mut replicas = Vec::new();
    for secret in &SECRETS[..2 + random.below(2)] {
        // Their clocks differ.
        let clock = Clock::manual(START_MS + random.bits() % 40);
        replicas.push(Replica::open(*secret, clock, BTreeMap::new()).await);
    }
    let takers = vec![
        Taker::new(random, "copy", true, 0, &replicas[0]).await,
        Taker::new(random, "plain", false, 1, &replicas[1]).await,
    ];
    let mut world = World {
        counts,
        replicas,
        network: Network::default(),
        readers: (0..4).map(|_| Reader::new(reader::scope(random))).collect(),
        takers,
        acknowledged: BTreeSet::new(),
        damaged: false,
    };
    for _step in 0..90 + random.below(60) {
        world.step(random).await;
    }
    let history = world.finish(random).await;
    if let Err(broken) = check(&history) {
        panic!("{broken}");
    }
}

#[test]
fn guarantees_hold_for_random_replicas() {
    let counts = Counts::default();
    let begun = Instant::now();
    let run = &|seeds: RangeInclusive<u64>| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        for_each_seed(seeds, |random| runtime.block_on(history(random, &counts)));
    };
    if env::var_os("SEED").is_some() {
        return run(1..=1);
    }
    let soak = if env::var_os("LATTICE_SOAK").is_some() {
        10
    } else {
        1
    };
    let each = HISTORIES * soak / THREADS;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || run(thread * each + 1..=(thread + 1) * each));
        }
    });
    eprintln!("{counts:?} in {:?}", begun.elapsed());
    for (what, count) in [
        ("a bus overflows", &counts.overflows),
        ("a reader moves", &counts.moves),
        ("it stops inside an entry", &counts.inside_entries),
        ("it stops inside a batch", &counts.inside_batches),
        ("a cursor is ahead", &counts.refused),
        ("a watch waits", &counts.waits),
        ("there is a gap", &counts.gaps),
        ("writers conflict", &counts.conflicts),
        ("a change is late", &counts.late),
        ("something expires", &counts.expiries),
        ("it was over when it came", &counts.lapses),
        ("a clock is behind a cursor", &counts.clocks_behind),
        ("something is given again", &counts.redelivered),
        ("a cause is written", &counts.caused),
        ("a cause was written", &counts.already_caused),
        ("a store is closed", &counts.closed),
        ("a node is killed", &counts.killed),
        ("power is cut", &counts.power_cuts),
        ("a state is lost", &counts.states_lost),
        ("a log is damaged", &counts.hit),
        ("a state lacks what was lost", &counts.lacking),
        ("who was told so is told anew", &counts.told_anew),
        ("the network loses", &counts.lost),
        ("the network doubles", &counts.doubled),
        ("the network turns round", &counts.reordered),
        ("a partition heals", &counts.healed),
    ] {
        let count = count.load(Ordering::Relaxed);
        assert!(count >= 10, "{what}: only {count} times");
    }
}

const HISTORIES: u64 = 300;
const THREADS: u64 = 20;
const SECRETS: [[u8; 32]; 3] = [[0x2a; 32], [0x2b; 32], [0x2c; 32]];
const KEYS: [&str; 8] = [
    "/a/1", "/a/10", "/a/2", "/b", "/c", "/in/1", "/in/2", "/in/3",
];
