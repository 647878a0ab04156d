//! A damaged state file: it never gives a wrong value, and is rebuilt from the log.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use bytes::Bytes;
use lattice::{
    Store,
    store::{List, Write, WriteError},
};

use crate::support::random::Random;

use super::setup::{
    NOW_MS, Shown, all_entries, encoded, next_of_b, open, put, shown, shown_of, soak, soon,
    state_path, sums_path,
};
use crate::support::{
    disk::{Image, MemDisk},
    threads::on_two_threads,
};

const KEYS: usize = 2000;

/// The answers that a store must give.
struct Truth {
    listed: BTreeMap<Bytes, Bytes>,
    // Conflicts, tombstones and values in the log among them.
    rows: BTreeMap<Bytes, Shown>,
}

// Two images: closed cleanly, and stopped after the state was last written.
async fn images() -> (Image, Image, Truth) {
    let disk = MemDisk::default();
    let store = open(&disk).await.unwrap();
    let writes: Vec<_> = (0..KEYS)
        .map(|n| {
            let bytes = if n % 97 == 0 { 3000 } else { 20 + n % 50 };
            let write = Write::put(
                format!("/key/{n:05}"),
                vec![b'a' + u8::try_from(n % 26).unwrap(); bytes],
            );
            match n % 5 {
                0 => write.expires_ms(NOW_MS + 1_000_000),
                _never => write,
            }
        })
        .collect();
    for written in soon(store.write_many(writes)).await {
        written.unwrap();
    }
    let conflicts = (0..200).map(|n| put(format!("/key/{:05}", n * 9), "of b"));
    let b1 = next_of_b(None, vec![], conflicts.collect());
    soon(store.ingest(encoded(&[&b1]))).await.unwrap();
    for n in 0..20 {
        soon(store.delete(format!("/key/{:05}", n * 9 + 1)))
            .await
            .unwrap();
    }
    let listed = soon(store.list(List::default())).await.unwrap();
    let listed = listed.into_iter().map(|item| (item.key, item.value));
    let entries = all_entries(&store).await;
    let mut rows = shown_of(entries.values().flatten());
    let live = rows.values().filter(|row| row[0].1.is_some()).count();
    let truth_listed: BTreeMap<_, _> = listed.collect();
    assert_eq!(truth_listed.len(), live);
    assert_eq!(shown(&store, rows.keys()).await.unwrap(), rows);
    let mut nth = 0;
    rows.retain(|_, _| {
        nth += 1;
        nth % 7 == 0
    });
    super::setup::flushed().await;
    let stopped = disk.image();
    soon(store.close()).await.unwrap();
    let closed = disk.image();
    assert!(closed.contains_key(&sums_path()));
    let truth = Truth {
        listed: truth_listed,
        rows,
    };
    (closed, stopped, truth)
}

// Returns true when something had to be mended.
async fn check(image: &Image, truth: &Truth, context: &str) -> bool {
    let disk = MemDisk::new(image);
    let store = open(&disk)
        .await
        .unwrap_or_else(|error| panic!("{context}: {error:?}"));
    check_reads(&store, truth, context).await;
    let written = soon(store.put("/after", "flip")).await;
    written.unwrap_or_else(|error| panic!("{context}: {error}"));
    !soon(store.status()).await.recovered.is_empty()
}

async fn check_reads(store: &Store, truth: &Truth, context: &str) {
    let listed = match soon(store.list(List::default())).await {
        Ok(listed) => listed,
        // A typed error is as good as the truth, once.
        Err(_damaged) => soon(store.list(List::default())).await.unwrap(),
    };
    assert_eq!(listed.len(), truth.listed.len(), "{context}: keys listed");
    for item in listed {
        assert_eq!(truth.listed.get(&item.key), Some(&item.value), "{context}");
    }
    let rows = match shown(store, truth.rows.keys()).await {
        Ok(rows) => rows,
        Err(_damaged) => shown(store, truth.rows.keys()).await.unwrap(),
    };
    assert!(rows == truth.rows, "{context}: heads");
}

#[test]
fn s9_flipped_state_is_never_served() {
    let started = Instant::now();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (closed, stopped, truth) = runtime.block_on(images());
    let mut random = super::setup::random(9);
    let flips = soak(2000);
    let bits: Vec<_> = (0..flips)
        .map(|n| {
            let image = if n % 4 == 3 { &stopped } else { &closed };
            used_bit(&image[&state_path()], &mut random)
        })
        .collect();
    let mended = AtomicUsize::new(0);
    on_two_threads(flips, |n| {
        let stop = n % 4 == 3;
        let mut image = if stop { &stopped } else { &closed }.clone();
        let bit = bits[n];
        image.get_mut(&state_path()).unwrap()[bit / 8] ^= 1 << (bit % 8);
        let (truth, mended) = (&truth, &mended);
        async move {
            let context = format!("bit {bit} of state.db, unclean stop {stop}");
            if check(&image, truth, &context).await {
                mended.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let mended = mended.into_inner();
    eprintln!(
        "{flips} flips of state.db, {mended} mended, {:?}",
        started.elapsed()
    );
    assert!(
        mended * 4 >= flips,
        "{mended} of {flips} did any harm: too few"
    );
}

// A bit of a byte that is not zero: most of the file is room.
fn used_bit(file: &[u8], random: &mut Random) -> usize {
    loop {
        let byte = random.below(file.len());
        if file[byte] != 0 {
            return byte * 8 + random.below(8);
        }
    }
}

#[test]
fn s9_cut_missing_or_garbage_state_is_rebuilt() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (closed, stopped, truth) = runtime.block_on(images());
    let mut cases: Vec<(String, Image)> = Vec::new();
    for (name, image) in [("closed", &closed), ("stopped", &stopped)] {
        let mut case = |what: String, change: &dyn Fn(&mut Image)| {
            let mut image = image.clone();
            change(&mut image);
            cases.push((format!("{name}: {what}"), image));
        };
        let pages = image[&state_path()].len() / 4096;
        for page in (0..pages).filter(|page| *page < 4 || page % (pages / 12) == 0) {
            case(format!("cut to {page} pages"), &|image| {
                image.get_mut(&state_path()).unwrap().truncate(page * 4096);
            });
            case(format!("cut inside page {page}"), &|image| {
                image
                    .get_mut(&state_path())
                    .unwrap()
                    .truncate(page * 4096 + 1000);
            });
        }
        case("gone".to_owned(), &|image| {
            image.remove(&state_path());
        });
        case("garbage".to_owned(), &|image| {
            let mut random = Random::new(3);
            let file = image.get_mut(&state_path()).unwrap();
            file.fill_with(|| u8::try_from(random.below(256)).unwrap());
        });
        case("zeros".to_owned(), &|image| {
            image.get_mut(&state_path()).unwrap().fill(0);
        });
        case("text".to_owned(), &|image| {
            image.insert(state_path(), b"not a database".to_vec());
        });
    }
    for byte in [0, 9, 40, 500, closed[&sums_path()].len() - 1] {
        let mut image = closed.clone();
        image.get_mut(&sums_path()).unwrap()[byte] ^= 4;
        cases.push((format!("closed: flip in byte {byte} of the sums"), image));
    }
    let mut image = closed.clone();
    image.get_mut(&sums_path()).unwrap().truncate(100);
    cases.push(("closed: sums cut".to_owned(), image));
    on_two_threads(cases.len(), |n| {
        let (context, image) = &cases[n];
        let truth = &truth;
        async move {
            check(image, truth, context).await;
        }
    });
}

/// After a crash the state file is opened without a walk through all of it: the sums of its blocks are
/// there. Damage is found when the block is read.
#[tokio::test(flavor = "multi_thread")]
async fn state_file_is_not_read_through_after_a_crash() {
    let (closed, stopped, truth) = images().await;
    let mut read = Vec::new();
    for (name, image) in [("closed", &closed), ("stopped", &stopped)] {
        let disk = MemDisk::new(image);
        let store = open(&disk).await.unwrap();
        read.push(disk.reads_of(&state_path()));
        assert_eq!(soon(store.status()).await.recovered, [] as [String; 0]);
        check_reads(&store, &truth, name).await;
    }
    let all = stopped[&state_path()].len();
    println!("{read:?} of {all} bytes of the state file were read");
    assert!(read[1] < read[0] + all as u64 / 8, "{read:?} of {all}");
}

/// The sums of a clean close are true once. Where they come back after the file has changed (a
/// removal that was not durable), they must do no harm.
#[test]
fn s9_sums_of_an_older_close_do_no_harm() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (closed, ..) = runtime.block_on(images());
    let (mut newer, mut stopped) = (Image::new(), Image::new());
    let mut truth = Truth {
        listed: BTreeMap::new(),
        rows: BTreeMap::new(),
    };
    runtime.block_on(async {
        let disk = MemDisk::new(&closed);
        let store = open(&disk).await.unwrap();
        for n in 0..50 {
            let key = format!("/key/{:05}", n * 31);
            soon(store.put(key, format!("newer {n}"))).await.unwrap();
        }
        super::setup::flushed().await;
        stopped = disk.image();
        let listed = soon(store.list(List::default())).await.unwrap();
        truth.listed = listed
            .into_iter()
            .map(|item| (item.key, item.value))
            .collect();
        let entries = all_entries(&store).await;
        truth.rows = shown_of(entries.values().flatten());
        soon(store.close()).await.unwrap();
        newer = disk.image();
    });
    for (name, mut image) in [("closed", newer), ("stopped", stopped)] {
        image.insert(sums_path(), closed[&sums_path()].clone());
        runtime.block_on(check(&image, &truth, name));
    }
}

/// A state without any log: what it says cannot be proven, and the logs that come back later do
/// not mix with it.
#[test]
fn s8_state_ahead_of_an_older_log_is_noticed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let disk = MemDisk::default();
        let store = open(&disk).await.unwrap();
        soon(store.put("/a", "old")).await.unwrap();
        soon(store.put("/b", "old")).await.unwrap();
        soon(store.close()).await.unwrap();
        let old = disk.image();
        let store = open(&disk).await.unwrap();
        let newest = soon(store.put("/a", "new")).await.unwrap();
        soon(store.put("/big", vec![1; 4000])).await.unwrap();
        super::setup::flushed().await;
        let stopped = disk.image();
        soon(store.close()).await.unwrap();
        for (name, mut image) in [("closed", disk.image()), ("stopped", stopped)] {
            let path = super::setup::log_path(&super::setup::author_a());
            image.insert(path.clone(), old[&path].clone());
            let disk = MemDisk::new(&image);
            let store = open(&disk).await.unwrap();
            let status = soon(store.status()).await;
            assert!(!status.damage.is_empty(), "{name}: nobody noticed");
            // The values that it still has are right.
            let item = soon(store.get(b"/a")).await.unwrap().unwrap();
            assert!(
                item.entry.id == newest.entry || item.value == "old",
                "{name}"
            );
            // Entries that the log had are not written a second time, unless `repair` gives them
            // up.
            let refused = soon(store.put("/a", "newer")).await;
            assert!(
                matches!(refused, Err(WriteError::OwnLogCut { first, .. }) if first == newest.seq),
                "{name}: {refused:?}"
            );
            assert_eq!(
                soon(store.repair()).await.unwrap().lost[0].count(),
                2,
                "{name}"
            );
            let item = soon(store.get(b"/a")).await.unwrap().unwrap();
            assert_eq!(item.value, "old", "{name}");
            let written = soon(store.put("/a", "newer")).await.unwrap();
            assert_eq!(written.seq, newest.seq, "{name}");
            soon(store.close()).await.unwrap();
            let store = open(&disk).await.unwrap();
            let item = soon(store.get(b"/a")).await.unwrap().unwrap();
            assert_eq!(item.value, Bytes::from("newer"), "{name}");
        }
    });
}
