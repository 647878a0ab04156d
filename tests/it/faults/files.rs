//! More logs than descriptors: files are opened when they are needed, and a node without a descriptor
//! refuses writes for as long as that lasts.

use std::path::PathBuf;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use lattice::{
    Store,
    log::LogFiles,
    protocol::entry::VerifiedEntry,
    store::{IngestError, Ingested, ReadError, StoreConfig, WriteError},
};

use super::setup::{STORE, config, encoded, open, put, signed, soon, state_path, sums_path};
use crate::support::disk::{EMFILE, Fail, MemDisk};

async fn open_with(disk: &MemDisk, files: usize) -> Store {
    let config = StoreConfig {
        files: LogFiles::new(files),
        ..config(disk)
    };
    soon(Store::open(config)).await.unwrap()
}

fn author(n: usize) -> SigningKey {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&n.to_le_bytes());
    SigningKey::from_bytes(&seed)
}

/// One entry of each of some authors, after those in `before`.
fn of_authors(authors: usize, before: &[VerifiedEntry]) -> Vec<VerifiedEntry> {
    let one = |n: usize| {
        let op = put(format!("/{n:04}/{}", before.len()), "x");
        signed(&author(n), STORE, before.get(n), vec![], vec![op])
    };
    (0..authors).map(one).collect()
}

fn bytes_of(entries: &[VerifiedEntry]) -> Vec<Bytes> {
    encoded(&entries.iter().collect::<Vec<_>>())
}

/// Each author had an open file for ever, and 64 KiB of disk.
#[tokio::test]
async fn two_thousand_authors_fit_sixteen_files() {
    let disk = MemDisk::default();
    disk.set_open_max(Some(40));
    let store = open_with(&disk, 16).await;
    let first = of_authors(2000, &[]);
    let second = of_authors(2000, &first);
    for entries in [&first, &second] {
        for outcome in soon(store.ingest(bytes_of(entries))).await.unwrap() {
            assert!(matches!(outcome, Ingested::Applied(_)), "{outcome:?}");
        }
    }
    soon(store.put("/own", "x")).await.unwrap();
    let hash = soon(store.state_hash()).await.unwrap();
    assert!(soon(store.verify()).await.unwrap().damage.is_empty());
    soon(store.close()).await.unwrap();
    drop(store);
    let image = disk.image().into_iter();
    let logs = image.filter(|(path, _)| path.extension().is_some_and(|it| it == "log"));
    let log_bytes: usize = logs.map(|(_, bytes)| bytes.len()).sum();
    assert!(log_bytes < 2000 * 1024, "{log_bytes} bytes");
    let store = open_with(&disk, 16).await;
    assert_eq!(soon(store.state_hash()).await.unwrap(), hash);
    soon(store.close()).await.unwrap();
    assert!(disk.most_open() <= 30, "{} were open", disk.most_open());
    assert_eq!(disk.logs_closed_unsynced(), Vec::<PathBuf>::new());
}

/// Without a descriptor, `begin` counted as a failed write and poisoned the store.
#[tokio::test]
async fn l13_writes_are_refused_without_descriptors() {
    let disk = MemDisk::default();
    let store = open(&disk).await.unwrap();
    soon(store.put("/own", "1")).await.unwrap();
    disk.set_open_max(Some(0));
    let entries = of_authors(3, &[]);
    for _again in 0..2 {
        let refused = soon(store.ingest(bytes_of(&entries))).await;
        let Err(IngestError::Write(error)) = refused else {
            panic!("{refused:?}")
        };
        assert!(
            matches!(error, WriteError::NoDescriptor { .. }),
            "{error:?}"
        );
        assert_eq!(soon(store.status()).await.poisoned, None);
    }
    // Its own log may have been closed to make room. Reads of the state need no file.
    let refused = soon(store.put("/own", "2")).await;
    assert!(
        matches!(refused, Ok(_) | Err(WriteError::NoDescriptor { .. })),
        "{refused:?}"
    );
    assert!(soon(store.get(b"/own")).await.unwrap().is_some());
    disk.set_open_max(None);
    soon(store.put("/own", "3")).await.unwrap();
    for outcome in soon(store.ingest(bytes_of(&entries))).await.unwrap() {
        assert!(matches!(outcome, Ingested::Applied(_)), "{outcome:?}");
    }
    soon(store.close()).await.unwrap();
}

/// Descriptors run out at every place where one is needed, and come back.
#[tokio::test]
async fn l13_descriptors_run_out_at_every_place() {
    let first = of_authors(6, &[]);
    let second = of_authors(6, &first);
    let fork = |n: usize| {
        let op = put(format!("/fork/{n}"), "x");
        signed(&author(n), STORE, Some(&first[n]), vec![], vec![op])
    };
    let forks = vec![fork(0), fork(1)];
    let groups = [first.clone(), second, forks];
    let (mut places, mut expected) = (0, None);
    for number in 1.. {
        let disk = MemDisk::default();
        let store = open_with(&disk, 2).await;
        disk.fail(number, EMFILE, Fail::Opens);
        for entries in &groups {
            if let Err(IngestError::Write(error)) = soon(store.ingest(bytes_of(entries))).await {
                is_out_of_descriptors(&error);
                disk.mend();
                soon(store.ingest(bytes_of(entries))).await.unwrap();
            }
            if let Err(error) = soon(store.put("/own", "x")).await {
                is_out_of_descriptors(&error);
                disk.mend();
                soon(store.put("/own", "x")).await.unwrap();
            }
        }
        disk.mend();
        let status = soon(store.status()).await;
        assert_eq!(status.poisoned, None, "{number}");
        assert_eq!(*expected.get_or_insert(status.entries), status.entries);
        let hash = soon(store.state_hash()).await.unwrap();
        soon(store.close()).await.unwrap();
        let closed = disk.logs_closed_unsynced();
        assert_eq!(closed, Vec::<PathBuf>::new(), "{number}");
        // From the state file, and from the logs alone.
        for without_state in [false, true] {
            let mut image = disk.image();
            image.retain(|path, _| {
                !without_state || (*path != state_path() && *path != sums_path())
            });
            let disk = MemDisk::new(&image);
            let store = open_with(&disk, 2).await;
            assert_eq!(soon(store.state_hash()).await.unwrap(), hash, "{number}");
            let entries = soon(store.status()).await.entries;
            assert_eq!(entries, status.entries, "{number}");
            soon(store.close()).await.unwrap();
        }
        if !disk.has_failed() {
            break;
        }
        places += 1;
    }
    assert!(places > 20, "{places} places");
}

fn is_out_of_descriptors(error: &WriteError) {
    let is_so = match error {
        WriteError::NoDescriptor { .. } => true,
        WriteError::Read(ReadError::Io { source }) => source.raw_os_error() == Some(EMFILE),
        _other => false,
    };
    assert!(is_so, "{error:?}");
}
