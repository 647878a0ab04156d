//! Failed calls: in a fixed workload operation 1, 2, 3 ... fails once, until it runs through
//! untouched.

use std::{collections::BTreeMap, sync::Mutex, time::Instant};

use bytes::Bytes;
use lattice::{
    Store,
    store::{IngestError, Ingested, List, ReadError, Write, WriteError},
};

use super::setup::{
    SEGMENT_BYTES, all_entries, encoded, next_of_b, open, put, shown, shown_of, soon,
};
use crate::support::{
    disk::{Cut, EIO, ENOSPC, Fail, Image, MemDisk},
    threads::on_two_threads,
};

// A key under test: the last acknowledged value, and the values that it may have besides.
#[derive(Debug, Default, Clone)]
struct Expected {
    acknowledged: Option<Bytes>,
    open: Vec<Bytes>,
}

struct Run {
    disk: MemDisk,
    store: Option<Store>,
    expected: BTreeMap<Bytes, Expected>,
    context: String,
    errors: usize,
}

impl Run {
    // Opens the store; the fault may be in the opening, then the second time works.
    async fn open(&mut self) {
        self.store = Some(match open(&self.disk).await {
            Ok(store) => store,
            Err(error) => {
                assert!(self.disk.has_failed(), "{}: {error:?}", self.context);
                self.errors += 1;
                let again = open(&self.disk).await;
                again.unwrap_or_else(|error| panic!("{}: {error:?}", self.context))
            }
        });
    }

    fn store(&self) -> Store {
        self.store.clone().unwrap()
    }

    async fn reopen(&mut self) {
        let store = self.store.take().unwrap();
        if let Err(error) = soon(store.close()).await {
            assert!(self.disk.has_failed(), "{}: close: {error}", self.context);
            self.errors += 1;
        }
        drop(store);
        self.open().await;
    }

    async fn write(&mut self, keys: &[&str], value: &str) {
        let context = self.context.clone();
        let value = Bytes::from(value.to_owned());
        let writes = || {
            let writes = keys
                .iter()
                .map(|key| Write::put((*key).to_owned(), value.clone()));
            writes.collect::<Vec<_>>()
        };
        for attempt in 0.. {
            let outcomes = soon(self.store().write_many(writes())).await;
            let mut poisoned = false;
            let mut refused = false;
            for (key, outcome) in keys.iter().zip(outcomes) {
                let expected = self
                    .expected
                    .entry(Bytes::from((*key).to_owned()))
                    .or_default();
                match outcome {
                    Ok(_written) => {
                        expected.acknowledged = Some(value.clone());
                        expected.open.clear();
                    }
                    Err(WriteError::DiskFull { .. }) => refused = true,
                    Err(WriteError::Poisoned { .. }) => {
                        expected.open.push(value.clone());
                        poisoned = true;
                    }
                    // The state could not be read: nothing was written.
                    Err(WriteError::Read(_)) => refused = true,
                    Err(other) => panic!("{context}: {other:?}"),
                }
            }
            if !poisoned && !refused {
                return;
            }
            self.errors += 1;
            assert!(
                self.disk.has_failed(),
                "{context}: an error without a fault"
            );
            assert!(attempt < 3, "{context}: writes do not resume");
            self.check_reads().await;
            if poisoned {
                // All say so until it is opened again, and reads go on.
                let again = soon(self.store().put("/other", "x")).await;
                assert!(
                    matches!(again, Err(WriteError::Poisoned { .. })),
                    "{context}: {again:?}"
                );
                let again = soon(self.store().ingest(vec![])).await;
                assert!(
                    matches!(again, Err(IngestError::Write(WriteError::Poisoned { .. }))),
                    "{context}: {again:?}"
                );
                self.reopen().await;
                self.check_reads().await;
            }
        }
    }

    async fn ingest(&mut self, entries: Vec<Bytes>) {
        for attempt in 0.. {
            match soon(self.store().ingest(entries.clone())).await {
                Ok(outcomes) => {
                    for outcome in outcomes {
                        assert!(
                            matches!(outcome, Ingested::Applied(_) | Ingested::Duplicate(_)),
                            "{}: {outcome:?}",
                            self.context
                        );
                    }
                    return;
                }
                Err(IngestError::Write(error)) => {
                    assert!(self.disk.has_failed(), "{}: {error:?}", self.context);
                    assert!(attempt < 3, "{}: does not resume: {error:?}", self.context);
                    self.errors += 1;
                    if matches!(error, WriteError::Poisoned { .. }) {
                        self.reopen().await;
                    }
                }
                Err(other) => panic!("{}: {other:?}", self.context),
            }
        }
    }

    // Every key reads as acknowledged, or as one of the writes whose outcome is open.
    async fn check_reads(&mut self) {
        let store = self.store();
        for (key, expected) in &self.expected {
            let item = match soon(store.get(key)).await {
                Ok(item) => item,
                Err(error @ (ReadError::Io { .. } | ReadError::Damaged { .. })) => {
                    // A failed read is reported once.
                    assert!(self.disk.has_failed(), "{}: {error:?}", self.context);
                    self.errors += 1;
                    soon(store.get(key)).await.unwrap()
                }
                Err(error) => panic!("{}: {error:?}", self.context),
            };
            let value = item.map(|item| item.value);
            let right = value == expected.acknowledged
                || value
                    .as_ref()
                    .is_some_and(|value| expected.open.contains(value));
            assert!(
                right,
                "{}: {key:?} is {value:?}, expected {expected:?}",
                self.context
            );
        }
    }
}

// Returns whether the fault happened, and how many errors the callers saw.
async fn run(base: &Image, number: u64, errno: i32, which: Fail) -> (bool, usize) {
    let disk = MemDisk::new(base).in_segments_of(SEGMENT_BYTES);
    let mut run = Run {
        disk: disk.clone(),
        store: None,
        expected: BTreeMap::new(),
        context: format!("operation {number} fails with error {errno}"),
        errors: 0,
    };
    disk.fail(number, errno, which);
    run.open().await;
    run.write(&["/a"], "1").await;
    run.write(&["/a", "/b", "/c"], "2").await;
    run.write(&["/big"], &"x".repeat(5000)).await;
    let b1 = next_of_b(None, vec![], vec![put("/of/b", "1")]);
    let b2 = next_of_b(Some(&b1), vec![], vec![put("/of/b/2", "2")]);
    let fork = next_of_b(Some(&b1), vec![], vec![put("/of/b/3", "3")]);
    run.ingest(encoded(&[&b1, &b2])).await;
    run.ingest(encoded(&[&fork])).await;
    run.reopen().await;
    run.check_reads().await;
    run.write(&["/a"], "3").await;
    let listed = match soon(run.store().list(List::default())).await {
        Ok(listed) => listed,
        Err(_told) => soon(run.store().list(List::default())).await.unwrap(),
    };
    assert!(listed.len() >= 7, "{}: {} keys", run.context, listed.len());
    run.reopen().await;
    run.check_reads().await;
    run.write(&["/last"], "4").await;
    // In every case the next process finds a whole store, also after a power cut.
    let store = run.store.take().unwrap();
    let acknowledged = disk.operations();
    if soon(store.close()).await.is_err() {
        run.errors += 1;
    }
    let happened = disk.has_failed();
    let mut cut = Cut::new(base, 4096);
    for operation in &acknowledged {
        cut.step(operation);
    }
    for (name, image) in [("closed", disk.image()), ("power cut", cut.image(|_| 0))] {
        let context = format!("{}, {name}", run.context);
        let mut again = Run {
            disk: MemDisk::new(&image).in_segments_of(SEGMENT_BYTES),
            store: None,
            expected: run.expected.clone(),
            context: context.clone(),
            errors: 0,
        };
        again.open().await;
        again.check_reads().await;
        let store = again.store();
        let report = soon(store.verify()).await.unwrap();
        assert_eq!(report.damage, [], "{context}");
        let found = all_entries(&store).await;
        let expected = shown_of(found.values().flatten());
        assert_eq!(
            shown(&store, expected.keys()).await.unwrap(),
            expected,
            "{context}"
        );
        soon(store.put("/end", "5")).await.unwrap();
    }
    (happened, run.errors)
}

fn run_all(errno: i32, which: Fail) {
    let started = Instant::now();
    // The longest run that still meets its fault ends the search, in blocks.
    let outcomes = Mutex::new(BTreeMap::new());
    let mut from = 1;
    loop {
        on_two_threads(32, |n| {
            let (number, outcomes) = (from + n as u64, &outcomes);
            async move {
                let outcome = run(&Image::new(), number, errno, which).await;
                outcomes.lock().unwrap().insert(number, outcome);
            }
        });
        from += 32;
        if outcomes
            .lock()
            .unwrap()
            .values()
            .filter(|(happened, _)| !happened)
            .count()
            >= 2
        {
            break;
        }
    }
    let outcomes = outcomes.into_inner().unwrap();
    let happened = outcomes.values().filter(|(happened, _)| *happened).count();
    let seen = outcomes.values().filter(|(_, errors)| *errors > 0).count();
    eprintln!(
        "error {errno}: {happened} operations failed once, {seen} were seen by callers, {:?}",
        started.elapsed()
    );
    assert!(
        happened >= 40 && seen >= 10,
        "{happened} faults, {seen} seen"
    );
}

#[test]
fn s11_s12_every_operation_fails_once() {
    run_all(EIO, Fail::Any);
}

#[test]
fn s10_every_change_fails_once_with_disk_full() {
    run_all(ENOSPC, Fail::Changes);
}

/// A write got as far as the disk had room: a whole record, and not all of the zeros behind it. The
/// caller got `DiskFull`; the record must not come back.
#[tokio::test]
async fn s10_refused_write_does_not_come_back() {
    let disk = MemDisk::default();
    let store = open(&disk).await.unwrap();
    soon(store.put("/long", vec![7; 4000])).await.unwrap();
    disk.set_quota(Some(disk.bytes() + 2000));
    let refused = soon(store.put("/a", "refused")).await;
    assert!(
        matches!(refused, Err(WriteError::DiskFull { .. })),
        "{refused:?}"
    );
    let store2 = open(&MemDisk::new(&disk.image())).await.unwrap();
    assert_eq!(soon(store2.get(b"/a")).await.unwrap(), None);
    disk.set_quota(None);
    soon(store.put("/b", "2")).await.unwrap();
    let image = disk.image();
    let store2 = open(&MemDisk::new(&image)).await.unwrap();
    assert_eq!(soon(store2.get(b"/a")).await.unwrap(), None);
    assert!(soon(store2.get(b"/b")).await.unwrap().is_some());
}

/// A disk that stays full for a while, with room for the log and not for the state, and the other
/// way round.
#[test]
fn s10_full_disk_serves_reads_and_recovers() {
    on_two_threads(8, |n| async move {
        let disk = MemDisk::default();
        let store = open(&disk).await.unwrap();
        for n in 0..20 {
            soon(store.put(format!("/k/{n}"), vec![7; 2000]))
                .await
                .unwrap();
        }
        soon(store.close()).await.unwrap();
        drop(store);
        let store = open(&disk).await.unwrap();
        disk.set_quota(Some(disk.bytes() + 100_000 * n as u64));
        let mut acknowledged: Vec<_> = (0..20).map(|n| format!("/k/{n}")).collect();
        let mut refused = 0;
        for n in 0..2000 {
            let key = format!("/full/{n}");
            match soon(store.put(key.clone(), vec![8; 2000])).await {
                Ok(_written) => acknowledged.push(key),
                Err(WriteError::DiskFull { .. }) => refused += 1,
                Err(other) => panic!("room {n}: {other:?}"),
            }
            if refused > 3 {
                break;
            }
        }
        assert!(refused > 0, "{n}");
        for key in &acknowledged {
            let item = soon(store.get(key.as_bytes())).await;
            assert!(item.unwrap().is_some(), "{key} with a full disk, {n}");
        }
        // The state is written now, and there is no room for it either.
        super::setup::flushed().await;
        for key in &acknowledged {
            let item = soon(store.get(key.as_bytes())).await;
            assert!(
                item.unwrap().is_some(),
                "{key} with a full disk, later, {n}"
            );
        }
        disk.set_quota(None);
        let started = Instant::now();
        loop {
            match soon(store.put("/again", "1")).await {
                Ok(_written) => break,
                Err(WriteError::DiskFull { .. }) if started.elapsed().as_secs() < 20 => {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
                Err(error) => panic!("{n}: writes do not resume: {error:?}"),
            }
        }
        let report = soon(store.verify()).await.unwrap();
        assert_eq!(report.damage, [], "{n}");
        soon(store.close()).await.unwrap();
        let store = open(&disk).await.unwrap();
        for key in acknowledged {
            assert!(
                soon(store.get(key.as_bytes())).await.unwrap().is_some(),
                "{key}"
            );
        }
    });
}

/// A hundred callers wait for one fsync, and it fails.
#[tokio::test(flavor = "multi_thread")]
async fn s11_failed_fsync_fails_every_waiting_write() {
    let disk = MemDisk::default();
    let store = open(&disk).await.unwrap();
    soon(store.put("/before", "1")).await.unwrap();
    // The write, then its fsync.
    disk.fail(2, EIO, Fail::Changes);
    let callers: Vec<_> = (0..100)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.put(format!("/k/{n}"), "v").await })
        })
        .collect();
    for caller in callers {
        let outcome = soon(caller).await.unwrap();
        assert!(
            matches!(outcome, Err(WriteError::Poisoned { .. })),
            "{outcome:?}"
        );
    }
    assert!(soon(store.status()).await.poisoned.is_some());
    assert!(soon(store.get(b"/before")).await.unwrap().is_some());
    assert!(soon(store.get(b"/k/1")).await.unwrap().is_none());
    soon(store.close()).await.unwrap();
    let store = open(&disk).await.unwrap();
    assert!(soon(store.get(b"/before")).await.unwrap().is_some());
    soon(store.put("/after", "1")).await.unwrap();
    assert_eq!(soon(store.verify()).await.unwrap().damage, []);
}

/// Writes that come while a message of entries is taken in are committed between its parts. The
/// change that fails may be of any of them: what was answered is there, and the message goes in
/// when it comes again.
#[test]
fn s11_message_that_fails_midway_can_come_again() {
    let entries: Vec<_> = (0..3000).fold(Vec::new(), |mut entries, n| {
        let op = put(format!("/of/b/{n:04}"), vec![7; 100]);
        entries.push(next_of_b(entries.last(), vec![], vec![op]));
        entries
    });
    let parts = Mutex::new(0);
    on_two_threads(24, |n| {
        let (entries, parts) = (&entries, &parts);
        async move {
            let disk = MemDisk::default();
            let store = open(&disk).await.unwrap();
            // Creating a log takes some; then each group is a write and a sync.
            disk.fail(4 + n as u64, EIO, Fail::Changes);
            let ingest = store.ingest_verified(entries.clone());
            let mut acknowledged = 0;
            let write = async {
                while !disk.has_failed() {
                    let put = store.put("/here", format!("{}", acknowledged + 1));
                    acknowledged += u32::from(put.await.is_ok());
                }
            };
            let (refused, ()) = soon(async { tokio::join!(ingest, write) }).await;
            assert!(disk.has_failed());
            soon(store.close()).await.unwrap_or_default();
            drop(store);
            let disk = MemDisk::new(&disk.image());
            let store = open(&disk).await.unwrap();
            let here = soon(store.get(b"/here")).await.unwrap();
            let here = here.map_or(0, |item| {
                std::str::from_utf8(&item.value).unwrap().parse().unwrap()
            });
            // The one that was refused may be there.
            assert!(
                here == acknowledged || here == acknowledged + 1,
                "{here}, {acknowledged}"
            );
            let outcomes = soon(store.ingest_verified(entries.clone())).await.unwrap();
            let is_there = |outcome: &Ingested| matches!(outcome, Ingested::Duplicate(_));
            let before = outcomes.iter().filter(|it| is_there(it)).count();
            assert!(
                outcomes.iter().take(before).all(is_there),
                "not the first ones"
            );
            if refused.is_ok() {
                assert_eq!(before, entries.len(), "an acknowledged part is gone");
            } else if (1..entries.len()).contains(&before) {
                *parts.lock().unwrap() += 1;
            }
            let report = soon(store.verify()).await.unwrap();
            assert_eq!(report.damage, []);
            let is_new = |outcome: &Ingested| matches!(outcome, Ingested::Applied(_));
            assert!(
                outcomes.iter().skip(before).all(is_new),
                "{:?}",
                outcomes[before]
            );
            soon(store.close()).await.unwrap();
        }
    });
    let parts = parts.into_inner().unwrap();
    eprintln!("{parts} of 24 messages failed behind their first part");
    assert!(parts > 0);
}
