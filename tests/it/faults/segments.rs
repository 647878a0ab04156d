//! Logs of several files: one of them is missing or was cut.

use std::path::PathBuf;

use lattice::{protocol::entry::VerifiedEntry, store::WriteError};

use super::setup::{
    SEGMENT_BYTES, all_entries, author_a, encoded, log_path, open, shown, shown_of, soon,
};
use crate::support::disk::{Image, MemDisk};

fn disk(image: &Image) -> MemDisk {
    MemDisk::new(image).in_segments_of(SEGMENT_BYTES)
}

// A closed store with ten entries of this node, and the files of its log, in order.
async fn closed() -> (Image, Vec<VerifiedEntry>, Vec<PathBuf>) {
    let disk = disk(&Image::new());
    let store = open(&disk).await.unwrap();
    for n in 0..10 {
        soon(store.put(format!("/k/{n}"), vec![n + 1; 1500]))
            .await
            .unwrap();
    }
    let entries = all_entries(&store).await.remove(&(author_a(), 0)).unwrap();
    soon(store.close()).await.unwrap();
    let image = disk.image();
    let from = |path: &PathBuf| {
        let name = path.file_stem()?.to_str()?.split_once('+')?.1;
        name.parse::<u64>().ok()
    };
    let author = author_a().to_string();
    let is_log = |path: &&PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(&author) && name.ends_with(".log")
    };
    let mut files: Vec<_> = image.keys().filter(is_log).cloned().collect();
    files.sort_by_key(|path| from(path).unwrap_or(0));
    assert_eq!(files[0], log_path(&author_a()));
    assert!((4..10).contains(&files.len()), "{files:?}");
    (image, entries, files)
}

#[tokio::test]
async fn missing_file_before_the_last_is_damage_that_is_mended() {
    let (image, entries, files) = closed().await;
    let entries: Vec<&VerifiedEntry> = entries.iter().collect();
    let expected = shown_of(entries.iter().copied());
    for file in &files[..files.len() - 1] {
        for cut_to in [None, Some(0), Some(100), Some(1999)] {
            for with_state in [true, false] {
                let mut image = image.clone();
                match cut_to {
                    None => drop(image.remove(file)),
                    Some(len) => image.get_mut(file).unwrap().truncate(len),
                }
                if !with_state {
                    image.remove(&super::setup::state_path());
                    image.remove(&super::setup::sums_path());
                }
                let context = format!("{file:?} cut to {cut_to:?}, state {with_state}");
                let disk = disk(&image);
                let store = open(&disk).await.unwrap();
                let status = soon(store.status()).await;
                assert!(!status.damage.is_empty(), "{context}: nobody noticed");
                // The end is there, so the next place is known.
                let written = soon(store.put("/after", "x")).await.unwrap();
                assert_eq!(written.seq, 11, "{context}");
                for _round in 0..3 {
                    soon(store.ingest(encoded(&entries))).await.unwrap();
                }
                assert_eq!(soon(store.missing()).await.unwrap(), [], "{context}");
                assert_eq!(soon(store.verify()).await.unwrap().damage, [], "{context}");
                let found = shown(&store, expected.keys()).await.unwrap();
                assert_eq!(found, expected, "{context}");
                soon(store.close()).await.unwrap();
                let store = open(&disk).await.unwrap();
                assert_eq!(soon(store.verify()).await.unwrap().damage, [], "{context}");
                let found = shown(&store, expected.keys()).await.unwrap();
                assert_eq!(found, expected, "{context}");
            }
        }
    }
}

#[tokio::test]
async fn missing_last_file_is_a_lost_end() {
    let (image, entries, files) = closed().await;
    for lost in 1..files.len() {
        let mut image = image.clone();
        for file in &files[lost..] {
            image.remove(file);
        }
        let disk = disk(&image);
        let store = open(&disk).await.unwrap();
        let refused = soon(store.put("/after", "x")).await;
        let Err(WriteError::OwnLogCut { first, through }) = refused else {
            panic!("{lost}: {refused:?}");
        };
        assert!(first > 1 && first <= 10 && through == 10, "{lost}: {first}");
        let entries: Vec<&VerifiedEntry> = entries.iter().collect();
        soon(store.ingest(encoded(&entries))).await.unwrap();
        let written = soon(store.put("/after", "x")).await.unwrap();
        assert_eq!(written.seq, 11, "{lost}");
        assert_eq!(soon(store.verify()).await.unwrap().damage, [], "{lost}");
        soon(store.close()).await.unwrap();
        let store = open(&disk).await.unwrap();
        assert_eq!(soon(store.verify()).await.unwrap().damage, [], "{lost}");
    }
}
