//! Acts and references that cost other nodes more than their bytes, and tables that are full.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use lattice::{
    Store,
    id::{Author, EntryId},
    limits::{DRIFT_MS_MAX, HELD_SHOWN_MAX, PARENTS_MAX},
    protocol::{
        entry::{Op, Parent, VerifiedEntry},
        frontier::FrontierTip,
        hlc::Hlc,
        membership::{
            genesis::Genesis,
            role::{Act, Role, role_key},
        },
    },
    store::{Ingested, WatchEvent},
};
use tokio_stream::StreamExt as _;

use crate::{
    entries::acts::{NODE, NOW_MS, ROOT, config, grant, ids, take_in},
    support::{
        disk::MemDisk,
        model::{AUTHOR_A, AUTHOR_B, AUTHOR_C, put},
        writer::Writer,
    },
};

const AUTHOR_D: [u8; 32] = [0xd; 32];

async fn open() -> Store {
    Store::open(config(&MemDisk::default())).await.unwrap()
}

// A writer's grants cite the grant that made it a writer. They were kept in memory for ever, and all
// of them were evaluated again with each new one.
#[tokio::test(flavor = "multi_thread")]
async fn eight_thousand_void_acts_stay_cheap() {
    const ACTS: u32 = 8000;
    const PART: usize = 1000;
    let store = open().await;
    let (mut creator, mut writer) = (Writer::new(AUTHOR_A, ROOT), Writer::new(AUTHOR_B, ROOT));
    let granted = vec![grant(AUTHOR_B, Role::Writer)];
    let granted = creator.write(NOW_MS, granted, BTreeSet::new(), false);
    take_in(&store, std::slice::from_ref(&granted)).await;
    let cited = BTreeSet::from([granted.as_parent()]);
    let acts = (0..ACTS).map(|number| {
        let node = Author(*blake3::hash(&number.to_le_bytes()).as_bytes());
        let op = Op::Put {
            key: role_key(&node),
            value: Act::Grant(Role::Reader).encode(),
            expires_ms: None,
        };
        writer.write(NOW_MS, vec![op], cited.clone(), false)
    });
    let acts: Vec<VerifiedEntry> = acts.collect();
    let mut times = Vec::new();
    for part in acts.chunks(PART) {
        let began = Instant::now();
        let taken = take_in(&store, part).await;
        assert!(taken.iter().all(|it| matches!(it, Ingested::Applied(_))));
        times.push(began.elapsed());
    }
    // The last thousand take as long as the first, but for what the machine does beside it.
    let [first, .., last] = times[..] else {
        panic!("there are several parts")
    };
    assert!(last < 4 * first + Duration::from_millis(500), "{times:?}");
    let began = Instant::now();
    let granted = vec![grant(AUTHOR_C, Role::Writer)];
    let granted = creator.write(NOW_MS, granted, BTreeSet::new(), false);
    take_in(&store, &[granted]).await;
    assert!(began.elapsed() < first, "an act that counts: {times:?}");
    let none = |key: &str| Bytes::copy_from_slice(key.as_bytes());
    let node = Author(*blake3::hash(&0_u32.to_le_bytes()).as_bytes());
    assert_eq!(store.heads(&role_key(&node)).await.unwrap(), []);
    assert_eq!(store.get(&none("/nothing")).await.unwrap(), None);
    store.close().await.unwrap();
}

// Two hundred entries that each cite a thousand old ones: 10 MB that took 6 s, and put the node's own
// writes off for most of a second.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_entries_of_a_thousand_parents_stay_cheap() {
    let store = open().await;
    let (mut creator, mut writer) = (Writer::new(AUTHOR_A, ROOT), Writer::new(AUTHOR_B, ROOT));
    let granted = vec![grant(AUTHOR_B, Role::Writer), grant(NODE, Role::Writer)];
    let granted = creator.write(NOW_MS, granted, BTreeSet::new(), false);
    take_in(&store, std::slice::from_ref(&granted)).await;
    let write = |_| writer.write(NOW_MS, vec![put("/fill", "")], BTreeSet::new(), false);
    let fill: Vec<VerifiedEntry> = (0..1000).map(write).collect();
    let began = Instant::now();
    take_in(&store, &fill).await;
    let plain = began.elapsed();
    let cited: BTreeSet<Parent> = fill.iter().map(|entry| entry.as_parent()).collect();
    let write = |number| {
        let op = put(&format!("/cites/{number}"), "");
        writer.write(NOW_MS, vec![op], cited.clone(), false)
    };
    let citing: Vec<VerifiedEntry> = (0..200).map(write).collect();
    let taking = async {
        let began = Instant::now();
        for part in citing.chunks(20) {
            let taken = take_in(&store, part).await;
            assert!(taken.iter().all(|it| matches!(it, Ingested::Applied(_))));
        }
        began.elapsed()
    };
    let writing = async {
        let mut longest = Duration::ZERO;
        for number in 0..20 {
            let began = Instant::now();
            store.put("/own", number.to_string()).await.unwrap();
            longest = longest.max(began.elapsed());
        }
        longest
    };
    let (took, longest) = tokio::join!(taking, writing);
    println!("{took:?} for 200,000 references, the longest put {longest:?}; plain {plain:?}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    store.close().await.unwrap();
}

// A founder may describe its stores on each of 64 branches. Each name took a read of the log for each
// of them: 65,536 for one entry.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_stores_founded_on_many_branches_read_the_log_once() {
    const BRANCHES: usize = 8;
    const STORES: u8 = 64;
    let disk = MemDisk::default();
    let store = Store::open(config(&disk)).await.unwrap();
    let (mut creator, mut trunk) = (Writer::new(AUTHOR_A, ROOT), Writer::new(AUTHOR_B, ROOT));
    let granted = vec![grant(AUTHOR_B, Role::Writer)];
    let granted = creator.write(NOW_MS, granted, BTreeSet::new(), false);
    let genesis = |number| Genesis {
        creator: trunk.author(),
        nonce: [number; 32],
    };
    let stores: Vec<Genesis> = (0..STORES).map(genesis).collect();
    let first = trunk.write(NOW_MS, vec![put("/trunk", "")], BTreeSet::new(), false);
    take_in(&store, &[granted, first]).await;
    let name = |store: &Genesis| format!("/stores/{}/name", store.store());
    let mut branches = vec![trunk; BRANCHES];
    for (number, branch) in branches.iter_mut().enumerate() {
        let op = put(&format!("/branch/{number}"), "");
        let mut entries = vec![branch.write(NOW_MS, vec![op], BTreeSet::new(), false)];
        for store in &stores {
            let key = String::from_utf8(store.key().to_vec()).unwrap();
            let founds = Op::Put {
                key: key.into(),
                value: store.encode(),
                expires_ms: None,
            };
            entries.push(branch.write(NOW_MS, vec![founds], BTreeSet::new(), false));
        }
        let taken = take_in(&store, &entries).await;
        assert!(taken.iter().all(|it| matches!(it, Ingested::Applied(_))));
    }
    for round in 0..3 {
        let branch = &mut branches[BRANCHES - 1];
        let ops = stores.iter().map(|store| put(&name(store), "named"));
        let names = branch.write(NOW_MS, ops.collect(), BTreeSet::new(), false);
        let before = disk.reads().calls;
        take_in(&store, std::slice::from_ref(&names)).await;
        let reads = disk.reads().calls - before;
        println!("{reads} reads");
        assert!(reads < u64::from(STORES), "{reads} reads in round {round}");
        for store_named in &stores {
            assert_eq!(ids(&store, &name(store_named)).await, [names.id]);
        }
    }
    store.close().await.unwrap();
}

// B cites an entry of a stranger, who is admitted later. There was a table of such parents, and one
// node had no room left in it, the other had: when the entry comes, both count it as cited.
#[tokio::test(flavor = "multi_thread")]
async fn many_absent_parents_change_no_heads() {
    let none = BTreeSet::new;
    let (mut creator, mut writer) = (Writer::new(AUTHOR_A, ROOT), Writer::new(AUTHOR_B, ROOT));
    let mut stranger = Writer::new(AUTHOR_C, ROOT);
    let mut filler = Writer::new(AUTHOR_D, ROOT);
    let ops = vec![grant(AUTHOR_B, Role::Writer), grant(AUTHOR_D, Role::Writer)];
    let granted = creator.write(NOW_MS, ops, none(), false);
    let strange: Vec<VerifiedEntry> = ["/k", "/other"]
        .map(|key| stranger.write(NOW_MS, vec![put(key, "strange")], none(), false))
        .into();
    let made_up = |number: usize| Parent {
        hlc: Hlc {
            wall_ms: number as u64 + 1,
            counter: 0,
        },
        author: Author([0x77; 32]),
        id: EntryId(*blake3::hash(&number.to_le_bytes()).as_bytes()),
        seq: 1000 + number as u64,
    };
    let all: Vec<usize> = (0..(1 << 16) + PARENTS_MAX).collect();
    let fill = all.chunks(PARENTS_MAX).map(|numbers| {
        let parents = numbers.iter().map(|number| made_up(*number)).collect();
        filler.write(NOW_MS, vec![put("/fill", "")], parents, false)
    });
    let fill: Vec<VerifiedEntry> = fill.collect();
    let cited = strange.iter().map(|entry| entry.as_parent()).collect();
    let citing = writer.write(NOW_MS, vec![put("/k", "cites")], cited, false);
    let admitted = creator.write(NOW_MS, vec![grant(AUTHOR_C, Role::Writer)], none(), false);
    let mut found = Vec::new();
    for is_full in [true, false] {
        let store = open().await;
        take_in(&store, std::slice::from_ref(&granted)).await;
        if is_full {
            for part in fill.chunks(8) {
                drop(take_in(&store, part).await);
                store.settle().await;
            }
            drop(take_in(&store, std::slice::from_ref(&citing)).await);
            store.settle().await;
            assert_eq!(ids(&store, "/k").await, [citing.id], "it does not wait");
        }
        take_in(&store, std::slice::from_ref(&admitted)).await;
        for entry in &strange {
            drop(take_in(&store, std::slice::from_ref(entry)).await);
        }
        if !is_full {
            // Here the parents that are cited come first, and the table fills later.
            drop(take_in(&store, std::slice::from_ref(&citing)).await);
            for part in fill.chunks(8) {
                drop(take_in(&store, part).await);
                store.settle().await;
            }
        }
        store.settle().await;
        assert_eq!(store.frontier().seq(&filler.author()), fill.len() as u64);
        found.push((ids(&store, "/k").await, ids(&store, "/other").await));
        store.close().await.unwrap();
    }
    assert_eq!(found[0].0, [citing.id]);
    assert_eq!(found[0].1, [strange[1].id]);
}

// Six thousand entries to one key that cite nothing: each was a head, and each change kept its own
// list of all. 1.3 MB of entries took 1.5 GiB.
#[tokio::test(flavor = "multi_thread")]
async fn six_thousand_entries_of_one_key_are_one_head() {
    let store = open().await;
    let (mut creator, mut writer) = (Writer::new(AUTHOR_A, ROOT), Writer::new(AUTHOR_B, ROOT));
    let granted = vec![grant(AUTHOR_B, Role::Writer)];
    let granted = creator.write(NOW_MS, granted, BTreeSet::new(), false);
    take_in(&store, &[granted]).await;
    let write = |_| writer.write(NOW_MS, vec![put("/k", "")], BTreeSet::new(), false);
    let entries: Vec<VerifiedEntry> = (0..6000).map(write).collect();
    let mut watch = store.watch("/k");
    let taken = take_in(&store, &entries).await;
    assert!(taken.iter().all(|it| matches!(it, Ingested::Applied(_))));
    assert_eq!(ids(&store, "/k").await, [entries[5999].id]);
    // No change had more heads, at any time.
    while let Some(event) = watch.next().await {
        if let WatchEvent::Change(change) = event.unwrap() {
            assert_eq!(change.heads.as_slice().len(), 1);
            if change.entry.id == entries[5999].id {
                break;
            }
        }
    }
    store.close().await.unwrap();
}

// Entries two hours ahead, one after the other on a branch: each look for one of them went through
// all, on the writer's thread, and the status listed all.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_held_entries_hold_up_no_writes() {
    const HELD: usize = 10_000;
    let store = open().await;
    let (mut creator, mut writer) = (Writer::new(AUTHOR_A, ROOT), Writer::new(AUTHOR_B, ROOT));
    let granted = vec![grant(AUTHOR_B, Role::Writer), grant(NODE, Role::Writer)];
    let granted = creator.write(NOW_MS, granted, BTreeSet::new(), false);
    take_in(&store, &[granted]).await;
    let far_ms = NOW_MS + 2 * DRIFT_MS_MAX;
    let write = |_| writer.write(far_ms, vec![put("/far", "")], BTreeSet::new(), false);
    let entries: Vec<VerifiedEntry> = (0..HELD).map(write).collect();
    for part in entries.chunks(1000) {
        let taken = take_in(&store, part).await;
        assert!(taken.iter().all(|it| matches!(it, Ingested::Held { .. })));
    }
    let status = store.status().await;
    assert_eq!(status.held_entries, HELD);
    assert_eq!(status.held.len(), HELD_SHOWN_MAX);
    // A peer asks for the last of them, as often as it likes.
    let tip = (writer.author(), FrontierTip::of(&entries[HELD - 1]));
    let asking = async {
        for _ in 0..20 {
            assert_eq!(store.lacks(vec![tip; 50]).await.unwrap(), []);
        }
    };
    let writing = async {
        let mut longest = Duration::ZERO;
        for number in 0..20 {
            let began = Instant::now();
            store.put("/own", number.to_string()).await.unwrap();
            longest = longest.max(began.elapsed());
        }
        longest
    };
    let ((), longest) = tokio::join!(asking, writing);
    assert!(longest < Duration::from_millis(500), "{longest:?}");
    store.close().await.unwrap();
}

/// Processor time of this process, all threads, as of now.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: u64 = [11, 12]
        .map(|at: usize| fields[at].parse::<u64>().unwrap())
        .iter()
        .sum();
    // A hundred ticks a second, whatever the kernel's own are.
    Duration::from_millis(10 * ticks)
}

// Prints the time that the writer takes for entries of a thousand parents, of several kinds, and the
// longest of this node's own puts meanwhile:
//
//     cargo test --test it what_entries_of_many_parents_cost -- --ignored --nocapture
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures time"]
async fn what_entries_of_many_parents_cost() {
    const LOG: usize = 50_000;
    const CITING: usize = 60;
    let made_up = |at: usize, seq: u64, author: Author| Parent {
        hlc: Hlc {
            wall_ms: 1,
            counter: 0,
        },
        author,
        id: EntryId(*blake3::hash(&at.to_le_bytes()).as_bytes()),
        seq,
    };
    for kind in [
        "of a stranger",
        "with wrong ids, of a member",
        "that are here, far apart",
    ] {
        let store = open().await;
        let (mut creator, mut writer) = (Writer::new(AUTHOR_A, ROOT), Writer::new(AUTHOR_B, ROOT));
        let granted = vec![grant(AUTHOR_B, Role::Writer), grant(NODE, Role::Writer)];
        let granted = creator.write(NOW_MS, granted, BTreeSet::new(), false);
        take_in(&store, std::slice::from_ref(&granted)).await;
        let value = "v".repeat(100);
        let write = |_| creator.write(NOW_MS, vec![put("/long", &value)], BTreeSet::new(), false);
        let long: Vec<VerifiedEntry> = (0..LOG).map(write).collect();
        for part in long.chunks(1000) {
            take_in(&store, part).await;
        }
        let member = creator.author();
        let citing = (0..CITING).map(|number| {
            let parents = (0..1000).map(|at| {
                let place = (at * LOG / 1000 + number) % LOG;
                match kind {
                    "of a stranger" => made_up(1000 * number + at, 5, Author([0x77; 32])),
                    "that are here, far apart" => long[place].as_parent(),
                    _ => made_up(1000 * number + at, place as u64 + 1, member),
                }
            });
            let op = put(&format!("/cites/{number}"), "");
            writer.write(NOW_MS, vec![op], parents.collect(), false)
        });
        let citing: Vec<VerifiedEntry> = citing.collect();
        let done = std::sync::atomic::AtomicBool::new(false);
        let taking = async {
            let (began, used) = (Instant::now(), processor_time());
            for part in citing.chunks(20) {
                drop(take_in(&store, part).await);
            }
            let taken = began.elapsed();
            store.settle().await;
            let settled = began.elapsed();
            store.settle().await;
            let again = began.elapsed() - settled;
            tokio::time::sleep(Duration::from_millis(2500)).await;
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            (taken, settled - taken, again, processor_time() - used)
        };
        let writing = async {
            let mut longest = Duration::ZERO;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let began = Instant::now();
                store.put("/own", "x").await.unwrap();
                longest = longest.max(began.elapsed());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            longest
        };
        let ((taken, settled, again, used), longest) = tokio::join!(taking, writing);
        let each = |time: Duration| time.as_secs_f64() * 1e3 / CITING as f64;
        println!(
            "{CITING} entries of 1,000 parents {kind}: each {:.2} ms to take in, {:.2} ms to settle, \
             {:.2} ms to settle again; {used:?} of processor time, the longest put {longest:?}",
            each(taken),
            each(settled),
            each(again),
        );
        store.close().await.unwrap();
    }
}
