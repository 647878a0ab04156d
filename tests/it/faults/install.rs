//! Power cuts and failed calls while a base of a peer takes the place of entries that are not here: the
//! store is what it was, or what it shall be, own entries that nobody else has are there in both, and the
//! next sync brings the rest.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use lattice::{Store, clock::Clock, store::ReadError};

use super::setup::{random, soak, soon};
use crate::support::{
    disk::{Cut, EIO, ENOSPC, Fail, Image, MemDisk, Operation},
    pruned::{Chains, SEGMENT_BYTES, STAMPED_MS, WAY_MS, author_b, config, listed},
    random::Random,
    sync::{begin, sync_all},
    threads::on_two_threads,
};

// Where the logs of B and C begin at the peer.
const AT: (u64, u64) = (15, 13);

fn disk(image: &Image) -> MemDisk {
    MemDisk::new(image).in_segments_of(SEGMENT_BYTES)
}

async fn open_on(disk: &MemDisk) -> Store {
    let clock = Clock::manual(STAMPED_MS + 2 * WAY_MS);
    soon(Store::open(config(disk, &clock))).await.unwrap()
}

// The peer, which has removed entries.
async fn giver() -> Chains {
    let chains = Chains::new().await;
    chains.drop_before(AT.0, AT.1).await;
    chains
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    // The store has half of the entries.
    Lacking,
    // It has all, and its log of B begins later than that of the peer, whose state is chosen.
    Back,
    // It has all, and the state of the peer is chosen.
    Same,
}

impl Case {
    // Where the log of B begins before.
    fn begin(self) -> u64 {
        match self {
            Self::Lacking | Self::Same => 0,
            Self::Back => AT.0 + 3,
        }
    }
}

// A store with own entries that nobody else has.
async fn taker_image(case: Case) -> Image {
    let chains = match case {
        Case::Lacking => Chains::with(20).await,
        Case::Same => Chains::new().await,
        Case::Back => {
            let chains = Chains::new().await;
            chains.drop_before(case.begin(), 0).await;
            chains
        }
    };
    chains.store.put("/own/1", "1").await.unwrap();
    chains.store.put("/own/2", vec![2; 3000]).await.unwrap();
    soon(chains.store.close()).await.unwrap();
    chains.disk.image()
}

// One session in which the base is installed; the error, if it was not.
async fn take(taker: &Store, giver: &Chains, case: Case) -> Result<(), String> {
    let base = giver.store.offered_base().unwrap();
    let choice = match case {
        Case::Lacking => {
            taker.trust_base(base.hash());
            None
        }
        Case::Back | Case::Same => Some(taker.choose_state_of(giver.store.author())),
    };
    let missing = taker.missing().await;
    missing.map_err(|error| error.to_string())?;
    let mut sides = begin(taker, &giver.store).await;
    while sides.iter().any(|side| side.summary.is_none()) {
        for at in [0, 1] {
            if let Some(message) = sides[at].inbox.pop_front() {
                let sent = sides[at].handle(message).await;
                let sent = sent.map_err(|error| format!("{error:?}"))?;
                sides[1 - at].inbox.extend(sent);
            }
        }
    }
    drop(choice);
    match &sides[0].refused {
        Some(refused) => Err(refused.to_string()),
        None => Ok(()),
    }
}

// Whether the base is installed. Everything that is here can be read.
async fn is_new(store: &Store, old: &BTreeMap<Bytes, Bytes>, case: Case, context: &str) -> bool {
    let is_new = match soon(store.entries(author_b(), 0, 1)).await {
        Ok(_first) => {
            assert_ne!(case, Case::Back, "{context}");
            false
        }
        Err(ReadError::Pruned(pruned)) => {
            let is_new = pruned.through == AT.0;
            assert!(is_new || pruned.through == case.begin(), "{context}");
            is_new
        }
        Err(error) => panic!("{context}: {error}"),
    };
    let now = listed(store).await;
    for key in ["/own/1", "/own/2"] {
        assert_eq!(
            now.get(key.as_bytes()),
            old.get(key.as_bytes()),
            "{context}"
        );
    }
    if !is_new {
        assert_eq!(now, *old, "{context}");
    }
    let report = soon(store.verify()).await.unwrap();
    assert_eq!(report.damage, [], "{context}");
    let damage = soon(store.status()).await.damage;
    assert_eq!(damage, [] as [String; 0], "{context}");
    is_new
}

async fn finish(store: &Store, giver: &Chains, is_new: bool, case: Case, context: &str) {
    let is_chosen = case != Case::Lacking && !is_new;
    if is_chosen {
        take(store, giver, case).await.unwrap();
    }
    let base = giver.store.offered_base().unwrap();
    store.trust_base(base.hash());
    let installed = sync_all(store, &giver.store).await;
    assert_eq!(installed, usize::from(!is_new && !is_chosen), "{context}");
    assert_eq!(listed(store).await, listed(&giver.store).await, "{context}");
    let hash = store.state_hash().await.unwrap();
    assert_eq!(hash, giver.store.state_hash().await.unwrap(), "{context}");
}

struct Recording {
    base: Image,
    operations: Vec<Operation>,
    // How many operations had been done when the installation was answered.
    answered: usize,
    old: BTreeMap<Bytes, Bytes>,
}

async fn record(case: Case) -> Recording {
    let (base, giver) = (taker_image(case).await, giver().await);
    let disk = disk(&base);
    let store = open_on(&disk).await;
    let old = listed(&store).await;
    take(&store, &giver, case).await.unwrap();
    let answered = disk.recorded();
    soon(store.close()).await.unwrap();
    Recording {
        base,
        operations: disk.operations(),
        answered,
        old,
    }
}

#[test]
fn s16_every_power_cut_of_an_installation_leaves_the_old_or_the_new_store() {
    cut_everywhere(Case::Lacking);
}

#[test]
fn n15_every_power_cut_of_a_chosen_state_leaves_the_old_or_the_new_store() {
    cut_everywhere(Case::Back);
}

#[test]
fn n15_every_power_cut_of_the_same_entries_leaves_the_old_or_the_new_store() {
    cut_everywhere(Case::Same);
}

fn cut_everywhere(case: Case) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let recording = runtime.block_on(record(case));
    let count = recording.operations.len() + 1;
    let mut random = random(20_261_130);
    let seeds: Vec<u64> = (0..count).map(|_| random.bits()).collect();
    let each = soak(6);
    let seen = Mutex::new([0; 2]);
    let images = AtomicUsize::new(0);
    on_two_threads(count, |operations| {
        let (recording, seen, images) = (&recording, &seen, &images);
        let mut random = Random::new(seeds[operations]);
        async move {
            let giver = giver().await;
            let mut cut = Cut::new(&recording.base, 4096);
            for operation in &recording.operations[..operations] {
                cut.step(operation);
            }
            for number in 0..cut.ways().min(each as u64) {
                let image = match number {
                    0 => cut.image(|_| 0),
                    1 => cut.image(|count| count - 1),
                    _random => cut.image(|count| random.below(count)),
                };
                let context = format!("cut after {operations} operations, image {number}");
                let (disk, nth) = (disk(&image), images.fetch_add(1, Ordering::Relaxed));
                let store = open_on(&disk).await;
                let now = is_new(&store, &recording.old, case, &context).await;
                assert!(
                    now || operations < recording.answered,
                    "{context}: it is old again"
                );
                seen.lock().unwrap()[usize::from(now)] += 1;
                soon(store.close()).await.unwrap();
                if nth.is_multiple_of(4) {
                    // And the power goes again, in the recovery or after it.
                    let operations = disk.operations();
                    let mut again = Cut::new(&image, 4096);
                    let upto = random.below(operations.len() + 1);
                    operations[..upto].iter().for_each(|it| again.step(it));
                    let image = again.image(|count| random.below(count));
                    let disk = self::disk(&image);
                    let store = open_on(&disk).await;
                    let context = format!("{context}: again");
                    let is_new = is_new(&store, &recording.old, case, &context).await;
                    assert_eq!(is_new, now);
                    if nth.is_multiple_of(16) {
                        // The giver has its entries from then on, so it is asked once.
                        finish(&store, &self::giver().await, now, case, &context).await;
                    }
                    soon(store.close()).await.unwrap();
                }
            }
            soon(giver.store.close()).await.unwrap();
        }
    });
    let (seen, images) = (seen.into_inner().unwrap(), images.into_inner());
    eprintln!("{images} images of {count} cuts: {seen:?} were old and new");
    assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
}

// The calls of one session fail, one after the other, until it runs through.
fn fail_all(errno: i32, which: Fail, case: Case) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let base = runtime.block_on(taker_image(case));
    let outcomes = Mutex::new((0, 0, 0));
    let count = AtomicUsize::new(0);
    on_two_threads(400, |n| {
        let (base, outcomes, count) = (&base, &outcomes, &count);
        async move {
            let giver = giver().await;
            let disk = disk(base);
            let store = open_on(&disk).await;
            let old = listed(&store).await;
            disk.fail(1 + n as u64, errno, which);
            let done = take(&store, &giver, case).await;
            let happened = disk.has_failed();
            disk.mend();
            let context = format!("operation {n} fails with {errno}: {done:?}");
            assert!(done.is_ok() || happened, "{context}");
            count.fetch_add(usize::from(happened), Ordering::Relaxed);
            // It goes on reading, and the next process finds the old store or the new one.
            let live = listed(&store).await;
            assert_eq!(
                live.get(&b"/own/1"[..]),
                old.get(&b"/own/1"[..]),
                "{context}"
            );
            let closed = soon(store.close()).await;
            let disk = self::disk(&disk.image());
            let again = open_on(&disk).await;
            let now = is_new(&again, &old, case, &context).await;
            assert!(done.is_err() || now, "{context}");
            if n % 3 == 0 {
                finish(&again, &giver, now, case, &context).await;
            }
            let mut outcomes = outcomes.lock().unwrap();
            outcomes.0 += usize::from(done.is_ok());
            outcomes.1 += usize::from(done.is_err() && !now);
            outcomes.2 += usize::from(done.is_err() && now);
            drop(closed);
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let count = count.into_inner();
    eprintln!("{count} failed operations; done, old, new at the next start: {outcomes:?}");
    assert!(
        count > 40 && outcomes.0 > 0 && outcomes.1 > 20 && outcomes.2 > 2,
        "{outcomes:?}"
    );
}

#[test]
fn s16_every_operation_of_an_installation_fails_once() {
    fail_all(EIO, Fail::Any, Case::Lacking);
}

#[test]
fn n15_every_operation_of_a_chosen_state_fails_once() {
    fail_all(EIO, Fail::Any, Case::Back);
}

#[test]
fn s16_every_change_of_an_installation_fails_once_with_disk_full() {
    fail_all(ENOSPC, Fail::Changes, Case::Lacking);
}
