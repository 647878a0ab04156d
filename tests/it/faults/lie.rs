//! Files that do not hold what was written to them: cut, missing, of another author, of another
//! store.

use lattice::{
    Store,
    id::StoreId,
    log::frame::FRAME_HEADER_BYTES,
    protocol::entry::VerifiedEntry,
    store::{Ingested, OpenError, StoreConfig, WriteError},
};

use super::{
    flip,
    setup::{
        Known, STORE, all_entries, author_a, author_b, config, encoded, key, log_path, next_of_b,
        open, put, shown, shown_of, signed, soon, state_path, sums_path,
    },
};
use crate::support::disk::{Image, MemDisk};

// A closed store: ten entries of this node, three of another.
async fn closed() -> (Image, Known) {
    let disk = MemDisk::default();
    let store = open(&disk).await.unwrap();
    for n in 0..10 {
        // No zeros: a file made longer would have them.
        soon(store.put(format!("/k/{n}"), vec![n + 1; 2000]))
            .await
            .unwrap();
    }
    let b1 = next_of_b(None, vec![], vec![put("/b/1", "1")]);
    let b2 = next_of_b(Some(&b1), vec![], vec![put("/b/2", "2")]);
    let b3 = next_of_b(Some(&b2), vec![], vec![put("/b/3", "3")]);
    soon(store.ingest(encoded(&[&b1, &b2, &b3]))).await.unwrap();
    let known = all_entries(&store).await;
    soon(store.close()).await.unwrap();
    (disk.image(), known)
}

fn without_state(mut image: Image) -> Image {
    image.remove(&state_path());
    image.remove(&sums_path());
    image
}

async fn damage(store: &Store) -> Vec<String> {
    soon(store.status()).await.damage
}

// The place of a lost entry is not used a second time, also after another reopening.
async fn writes_go_on(disk: &MemDisk, store: Store, seq: u64, context: &str) {
    let written = soon(store.put("/after", "x")).await.unwrap();
    assert_eq!(written.seq, seq, "{context}");
    soon(store.close()).await.unwrap();
    let store = open(disk).await.unwrap();
    let item = soon(store.get(b"/after")).await.unwrap().unwrap();
    assert_eq!(item.entry.id, written.entry, "{context}");
    let written = soon(store.put("/after", "y")).await.unwrap();
    assert_eq!(written.seq, seq + 1, "{context}");
}

// Own writes are refused, also after another reopening, until the loss is accepted; entries of
// others come in. Then the log goes on after the remaining records, and everything is whole.
async fn writes_wait_for_repair(disk: &MemDisk, store: Store, first: u64, context: &str) {
    let refused = |error: Result<_, WriteError>, store: &str| {
        assert!(
            matches!(error, Err(WriteError::OwnLogCut { first: f, through: 10 }) if f == first),
            "{context}, {store}: {error:?}"
        );
    };
    refused(soon(store.put("/after", "x")).await, "opened");
    let from_b = signed(&key(3), STORE, None, vec![], vec![put("/from/b", "x")]);
    let ingested = soon(store.ingest(encoded(&[&from_b]))).await.unwrap();
    assert_eq!(ingested, [Ingested::Applied(from_b.id)], "{context}");
    soon(store.close()).await.unwrap();
    let store = open(disk).await.unwrap();
    refused(soon(store.put("/after", "x")).await, "opened again");
    let status = soon(store.status()).await;
    assert!(!status.damage.is_empty(), "{context}");
    assert!(
        status.poisoned.is_some_and(|why| why.contains("to 10")),
        "{context}"
    );
    let lost = soon(store.repair()).await.unwrap().lost;
    assert_eq!(lost, status.lost, "{context}");
    assert_eq!((lost[0].first, lost[0].through), (first, 10), "{context}");
    assert_eq!(lost[0].count(), 11 - first, "{context}");
    let written = soon(store.put("/after", "x")).await.unwrap();
    assert_eq!(written.seq, first, "{context}");
    for n in 0..10 {
        let there = soon(store.get(format!("/k/{n}").as_bytes())).await.unwrap();
        assert_eq!(there.is_some(), n + 1 < first, "{context}: /k/{n}");
    }
    assert_eq!(soon(store.status()).await.damage, [""; 0], "{context}");
    assert_eq!(soon(store.repair()).await.unwrap().lost, [], "{context}");
    soon(store.close()).await.unwrap();
    let store = open(disk).await.unwrap();
    assert_eq!(soon(store.verify()).await.unwrap().damage, [], "{context}");
    assert!(soon(store.get(b"/from/b")).await.unwrap().is_some());
    let written = soon(store.put("/after", "y")).await.unwrap();
    assert_eq!(written.seq, first + 1, "{context}");
}

#[tokio::test]
async fn s2_cut_own_log_is_refused_until_repaired() {
    let (image, known) = closed().await;
    let path = log_path(&author_a());
    let bytes = image[&path].len();
    let places = flip::frames(&image[&path]);
    for len in (0..bytes)
        .step_by(bytes / 40)
        .chain([bytes - 1, bytes - FRAME_HEADER_BYTES])
    {
        let mut image = image.clone();
        image.get_mut(&path).unwrap().truncate(len);
        let disk = MemDisk::new(&image);
        let store = open(&disk).await.unwrap();
        let context = format!("cut to {len} of {bytes} bytes");
        assert_eq!(damage(&store).await.len(), 1, "{context}");
        // Records before the cut are read as before; a read of a missing one is an error or right.
        let expected = shown_of(known.values().flatten());
        for (key, row) in &expected {
            if let Ok(heads) = soon(store.heads(key)).await {
                let value = heads.first().map(|head| &head.value);
                assert!(
                    value.is_none_or(|value| *value == row[0].1),
                    "{context}: {key:?}"
                );
            }
        }
        let left = places.iter().filter(|place| place.end <= len).count() as u64;
        if left < 10 {
            writes_wait_for_repair(&disk, store, left + 1, &context).await;
        } else {
            // Only the seal is missing.
            assert_eq!(soon(store.repair()).await.unwrap().lost, [], "{context}");
            writes_go_on(&disk, store, 11, &context).await;
        }
    }
}

#[tokio::test]
async fn s2_missing_log_file_is_damage() {
    let (image, known) = closed().await;
    for author in [author_a(), author_b()] {
        let mut image = image.clone();
        image.remove(&log_path(&author)).unwrap();
        let disk = MemDisk::new(&image);
        let store = open(&disk).await.unwrap();
        let context = format!("log of {author} gone");
        assert_eq!(damage(&store).await.len(), 1, "{context}");
        // Short values are in the state too: nothing is forgotten because a file is missing.
        let expected = shown_of(known[&(author_b(), 0)].iter());
        assert_eq!(
            shown(&store, expected.keys()).await.unwrap(),
            expected,
            "{context}"
        );
        if author == author_a() {
            writes_wait_for_repair(&disk, store, 1, &context).await;
        } else {
            writes_go_on(&disk, store, 11, &context).await;
        }
    }
}

#[tokio::test]
async fn s6_zeros_below_the_durable_end_are_damage() {
    let (image, _known) = closed().await;
    let path = log_path(&author_a());
    let places = flip::frames(&image[&path]);
    for (from, first) in [
        (places[9].offset, 10),
        (places[9].offset + 300, 10),
        (places[8].offset + 300, 9),
        (places[2].offset, 3),
    ] {
        let mut image = image.clone();
        image.get_mut(&path).unwrap()[from..].fill(0);
        let disk = MemDisk::new(&image);
        let store = open(&disk).await.unwrap();
        let context = format!("zeros from {from}");
        assert!(
            !damage(&store).await.is_empty(),
            "{context}: nobody noticed"
        );
        writes_wait_for_repair(&disk, store, first, &context).await;
    }
}

#[tokio::test]
async fn s6_misplaced_sectors_are_found() {
    let (image, known) = closed().await;
    let path = log_path(&author_a());
    let len = image[&path].len();
    let sectors = len / 512;
    type Change = fn(&mut [u8], usize, usize);
    let swap: Change = |log, a, b| {
        for n in 0..512 {
            log.swap(a * 512 + n, b * 512 + n);
        }
    };
    let repeat: Change = |log, a, b| log.copy_within(a * 512..(a + 1) * 512, b * 512);
    for (name, change) in [("swapped", swap), ("repeated", repeat)] {
        for (a, b) in [
            (0, 1),
            (0, sectors - 1),
            (3, 9),
            (sectors / 2, sectors / 2 + 1),
            (8, 4),
        ] {
            let mut image = without_state(image.clone());
            let log = image.get_mut(&path).unwrap();
            let before = log.clone();
            change(log, a, b);
            if *log == before {
                continue;
            }
            let context = format!("sectors {a} and {b} {name}");
            let disk = MemDisk::new(&image);
            let store = open(&disk).await.unwrap();
            assert!(
                !damage(&store).await.is_empty(),
                "{context}: nobody noticed"
            );
            let left: Vec<VerifiedEntry> = lattice_entries(&store).await;
            let all: Vec<_> = known.values().flatten().map(|entry| entry.id).collect();
            assert!(
                left.iter().all(|entry| all.contains(&entry.id)),
                "{context}: a phantom"
            );
            assert!(
                left.len() + 5 >= all.len(),
                "{context}: {} are left",
                left.len()
            );
            let expected = shown_of(left.iter());
            assert_eq!(
                shown(&store, expected.keys()).await.unwrap(),
                expected,
                "{context}"
            );
        }
    }
}

// Returns the readable entries, by verifying walks that go on behind damage, one entry at a time.
async fn lattice_entries(store: &Store) -> Vec<VerifiedEntry> {
    let mut entries = Vec::new();
    for author in [author_a(), author_b()] {
        for after in 0..20 {
            if let Ok(page) = soon(store.entries(author, after, 1)).await {
                entries.extend(page.into_iter().map(|record| record.entry));
            }
        }
    }
    entries.sort_by_key(|entry| entry.order());
    entries.dedup_by_key(|entry| entry.id);
    entries
}

#[tokio::test]
async fn s6_records_of_another_author_are_damage() {
    let (image, known) = closed().await;
    let b = image[&log_path(&author_b())].clone();
    let places = flip::frames(&b);
    // A write that went to the wrong file: whole records of B over the beginning of A's log.
    let mut image = without_state(image);
    let log = image.get_mut(&log_path(&author_a())).unwrap();
    let end = places[1].end;
    log[..end].copy_from_slice(&b[..end]);
    let disk = MemDisk::new(&image);
    let store = open(&disk).await.unwrap();
    let found = damage(&store).await;
    assert_eq!(found.len(), 1, "{found:?}");
    for record in soon(store.entries(author_a(), 1, 100)).await.unwrap() {
        assert_eq!(record.entry.author(), author_a());
    }
    let left = known
        .values()
        .flatten()
        .filter(|entry| entry.author() != author_a() || entry.header.seq > 1);
    let expected = shown_of(left);
    assert_eq!(shown(&store, expected.keys()).await.unwrap(), expected);
    let report = soon(store.verify()).await.unwrap();
    let found = report
        .damage
        .iter()
        .map(|damage| (damage.offset, damage.seq));
    assert_eq!(found.collect::<Vec<_>>(), [(0, Some(1))], "{report:?}");
    writes_go_on(&disk, store, 11, "foreign records").await;
}

#[tokio::test]
async fn s6_log_under_a_wrong_name_is_never_applied() {
    let (image, _known) = closed().await;
    let mut image = without_state(image);
    let b = image[&log_path(&author_b())].clone();
    image.insert(log_path(&author_a()), b.clone());
    image.remove(&log_path(&author_b()));
    let disk = MemDisk::new(&image);
    let store = open(&disk).await.unwrap();
    assert!(!damage(&store).await.is_empty());
    assert_eq!(soon(store.get(b"/b/1")).await.unwrap(), None);
    soon(store.put("/a", "1")).await.unwrap();
    soon(store.close()).await.unwrap();
    // Nobody's bytes are cut because they are in the wrong place.
    let there = disk.image();
    let kept = there.iter().any(|(path, bytes)| {
        path.starts_with("/store/logs") && bytes.starts_with(&b[..b.len() - FRAME_HEADER_BYTES])
    });
    assert!(kept, "the records of B are gone");
}

#[tokio::test]
async fn b4_log_of_another_store_is_refused() {
    let other = StoreId([8; 16]);
    let foreign = MemDisk::default();
    let store = Store::open(StoreConfig {
        id: other,
        ..config(&foreign)
    });
    let store = store.await.unwrap();
    soon(store.put("/foreign", "x")).await.unwrap();
    soon(store.close()).await.unwrap();
    let (image, _known) = closed().await;
    for keep_state in [true, false] {
        // Another author's log with the state there, this node's own without.
        let mut image = image.clone();
        let mut author = author_a();
        if keep_state {
            let entry = signed(&key(3), other, None, vec![], vec![put("/foreign", "x")]);
            author = entry.author();
            let mut log = Vec::new();
            flip::write_frame(&mut log, 0, &entry, 0);
            image.insert(log_path(&author), log);
        } else {
            image = without_state(image);
            image.insert(
                log_path(&author),
                foreign.image()[&log_path(&author)].clone(),
            );
        }
        let before = image[&log_path(&author)].clone();
        let disk = MemDisk::new(&image);
        let refused = open(&disk).await;
        let Err(OpenError::ForeignLog {
            author: whose,
            theirs,
            ours,
        }) = refused
        else {
            panic!("{refused:?}")
        };
        assert_eq!((whose, theirs, ours), (author, other, STORE));
        assert!(
            disk.image()[&log_path(&author)].starts_with(&before),
            "nothing is cut"
        );
    }
}

/// Somebody without the key wrote a record into a log, with every hash right.
#[tokio::test]
async fn b8_forged_last_record_is_refused() {
    let (image, known) = closed().await;
    let last = known[&(author_b(), 0)].last().unwrap();
    let forged = signed(
        &key(9),
        STORE,
        Some(last),
        vec![],
        vec![put("/forged", "x")],
    );
    let mut signed_entry = forged.signed.clone();
    signed_entry.author = author_b();
    let forged = signed_entry.parse().unwrap().vouched();
    let mut image = image;
    let log = image.get_mut(&log_path(&author_b())).unwrap();
    let end = log.len();
    flip::write_frame(log, end, &forged, end as u64);
    for image in [image.clone(), without_state(image)] {
        let disk = MemDisk::new(&image);
        let store = open(&disk).await.unwrap();
        let recovered = store.status().await.recovered;
        let aside = |line: &String| line.contains("is not authentic");
        assert!(recovered.iter().any(aside), "{recovered:?}");
        assert_eq!(store.heads(b"/forged").await.unwrap().len(), 0);
        // What is authentic comes back from a peer.
        let entries = known[&(author_b(), 0)].iter();
        let entries = entries.map(|entry| entry.signed.encode().into());
        drop(store.ingest(entries.collect()).await.unwrap());
        let frontier = store.frontier();
        let mut tips = frontier.tips(&author_b()).iter();
        assert!(tips.any(|tip| tip.id == last.id));
        store.close().await.unwrap();
    }
}

/// The file of branch 1 of a forked author is missing; a new fork must not be written over branch
/// 2.
#[tokio::test]
async fn fork_gets_its_own_file_when_one_is_missing() {
    let disk = MemDisk::default();
    let store = open(&disk).await.unwrap();
    let b1 = next_of_b(None, vec![], vec![put("/b", "1")]);
    let forks: Vec<_> = (0..4)
        .map(|n| next_of_b(Some(&b1), vec![], vec![put("/b", format!("fork {n}"))]))
        .collect();
    soon(store.ingest(encoded(&[&b1, &forks[0], &forks[1], &forks[2]])))
        .await
        .unwrap();
    soon(store.close()).await.unwrap();
    let mut image = without_state(disk.image());
    image
        .remove(&std::path::PathBuf::from(format!(
            "/store/logs/{}.1.log",
            author_b()
        )))
        .unwrap();
    let disk = MemDisk::new(&image);
    let store = open(&disk).await.unwrap();
    soon(store.ingest(encoded(&[&forks[3]]))).await.unwrap();
    let on_2 = next_of_b(Some(&forks[2]), vec![], vec![put("/b", "on 2")]);
    soon(store.ingest(encoded(&[&on_2]))).await.unwrap();
    assert_eq!(soon(store.verify()).await.unwrap().damage, []);
    soon(store.close()).await.unwrap();
    let store = open(&MemDisk::new(&without_state(disk.image())))
        .await
        .unwrap();
    let ids: Vec<_> = all_entries(&store)
        .await
        .into_values()
        .flatten()
        .map(|e| e.id)
        .collect();
    for entry in [&b1, &forks[0], &forks[2], &forks[3], &on_2] {
        assert!(ids.contains(&entry.id), "{:?}", entry.ops);
    }
}
