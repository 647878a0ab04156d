//! A state that was rebuilt over a hole, while some of the log could not be read. A reader that got
//! this state gets the missing entries once the hole is mended, here or on another replica.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use lattice::{
    Store, Watch, WatchEvent, WatchOptions,
    id::EntryId,
    protocol::{
        change::Kind,
        cursor::Cursor,
        entry::{Header, VerifiedEntry, cause::Cause, sign},
        frontier::Frontier,
    },
    store::{
        ReadError, Start, StoreConfig, Write, WriteError,
        consumers::{Consumer, ConsumerError, ConsumerOptions, ConsumerStart, ConsumerState},
    },
};
use tokio_stream::StreamExt as _;

use super::{
    flip,
    setup::{
        Known, STORE, all_entries, author_a, encoded, key, log_path, open, put, soon, state_path,
        sums_path,
    },
};
use crate::support::disk::{Image, MemDisk};

/// Returns an undamaged log of ten entries of one author, with a mark in its middle.
async fn written() -> (Image, Vec<VerifiedEntry>) {
    let disk = MemDisk::default();
    let mut known = Known::new();
    for half in [0..5, 5..10] {
        let store = open(&disk).await.unwrap();
        for n in half {
            soon(store.put(format!("/k/{n}"), format!("{n}")))
                .await
                .unwrap();
        }
        known = all_entries(&store).await;
        soon(store.close()).await.unwrap();
    }
    (disk.image(), known.remove(&(author_a(), 0)).unwrap())
}

/// Damages entries of the log, by place from 0, and removes the state, so that it is rebuilt.
fn lacking(mut image: Image, entries: &[usize]) -> Image {
    let log = image.get_mut(&log_path(&author_a())).unwrap();
    let mut frames = flip::frames(log);
    frames.retain(|frame| !frame.header.seal);
    for entry in entries {
        log[frames[*entry].offset + 120] ^= 1;
    }
    image.remove(&state_path());
    image.remove(&sums_path());
    image
}

/// Opens another node that has all entries.
async fn whole(entries: &[VerifiedEntry]) -> Store {
    let config = StoreConfig {
        key: Arc::new(key(9)),
        ..super::setup::config(&MemDisk::default())
    };
    let store = soon(Store::open(config)).await.unwrap();
    give(&store, entries).await;
    store
}

async fn give(store: &Store, entries: &[VerifiedEntry]) {
    let entries: Vec<&VerifiedEntry> = entries.iter().collect();
    soon(store.ingest(encoded(&entries))).await.unwrap();
}

/// A peer sends the damaged entries again.
async fn mend(store: &Store, entries: &[VerifiedEntry]) {
    assert!(!soon(store.missing()).await.unwrap().is_empty());
    give(store, entries).await;
    assert_eq!(soon(store.missing()).await.unwrap(), []);
    assert_eq!(soon(store.status()).await.damage, [""; 0]);
}

/// Adds up the delivered changes, like a program that mirrors the store.
#[derive(Debug, Default)]
struct Mirror {
    keys: BTreeMap<Bytes, Bytes>,
    gaps: u32,
}

impl Mirror {
    async fn read(&mut self, watch: &mut Watch) {
        loop {
            match soon(watch.next()).await.unwrap().unwrap() {
                WatchEvent::Change(change) if change.late => {}
                WatchEvent::Change(change) => match (change.kind, &change.value) {
                    (Kind::Put, Some(value)) => {
                        self.keys.insert(change.key.clone(), value.clone());
                    }
                    _gone => drop(self.keys.remove(&change.key)),
                },
                WatchEvent::Gap { .. } => {
                    self.gaps += 1;
                    self.keys.clear();
                }
                WatchEvent::CaughtUp => {}
                WatchEvent::Progress => return,
                WatchEvent::Damaged { what, .. } => panic!("{what}"),
            }
        }
    }

    fn has_all(&self) {
        let keys = (0..10).map(|n| (format!("/k/{n}").into(), n.to_string().into()));
        let all: BTreeMap<Bytes, Bytes> = keys.collect();
        let mut keys = self.keys.clone();
        keys.retain(|key, _| key.starts_with(b"/k/"));
        assert_eq!(keys, all);
    }
}

fn watch(store: &Store, start: Start) -> Watch {
    store.watch_with(WatchOptions {
        start,
        heartbeat: Duration::from_millis(5),
        ..WatchOptions::default()
    })
}

fn starts() -> [Start; 2] {
    let nothing = Cursor {
        store: STORE,
        frontier: Frontier::default(),
        partial: None,
        expired_through_ms: 0,
    };
    [Start::After(nothing), Start::Initial]
}

// The cursor travels as text.
fn text(watch: &Watch) -> Start {
    Start::After(watch.cursor().to_string().parse().unwrap())
}

#[tokio::test]
async fn s4_other_replica_completes_a_state_over_a_hole() {
    let (image, entries) = written().await;
    let other = whole(&entries).await;
    for start in starts() {
        // The last place as well, with no readable entry behind it.
        for hole in [0, 3, 9] {
            let store = open(&MemDisk::new(&lacking(image.clone(), &[hole])))
                .await
                .unwrap();
            let mut mirror = Mirror::default();
            let mut here = watch(&store, start.clone());
            mirror.read(&mut here).await;
            assert_eq!(mirror.keys.len(), 9, "{start:?}");
            soon(store.put("/live", "x")).await.unwrap();
            mirror.read(&mut here).await;
            assert_eq!(mirror.keys.len(), 10, "{start:?}");
            mirror.read(&mut watch(&other, text(&here))).await;
            mirror.has_all();
        }
    }
}

#[tokio::test]
async fn s4_state_over_a_hole_is_completed_on_resume() {
    let (image, entries) = written().await;
    for start in starts() {
        let store = open(&MemDisk::new(&lacking(image.clone(), &[3])))
            .await
            .unwrap();
        let mut mirror = Mirror::default();
        let mut before = watch(&store, start);
        mirror.read(&mut before).await;
        let cursor = text(&before);
        drop(before);
        mend(&store, &entries).await;
        let mut after = watch(&store, cursor);
        mirror.read(&mut after).await;
        mirror.has_all();
        assert_eq!(after.cursor().frontier, store.frontier());
    }
}

#[tokio::test]
async fn s4_live_watch_gets_the_state_again_once_mended() {
    let (image, entries) = written().await;
    for start in starts() {
        // The watch is or is not behind the bus when the state is delivered again.
        for writes in [0, 40] {
            let store = open(&MemDisk::new(&lacking(image.clone(), &[3])))
                .await
                .unwrap();
            let mut mirror = Mirror::default();
            let mut watch = watch(&store, start.clone());
            mirror.read(&mut watch).await;
            mend(&store, &entries).await;
            for n in 0..writes {
                soon(store.put("/live", n.to_string())).await.unwrap();
            }
            mirror.read(&mut watch).await;
            mirror.has_all();
            assert_eq!(watch.lags() > 0, writes > 0);
            assert_eq!(watch.cursor().frontier, store.frontier());
        }
    }
}

#[tokio::test]
async fn s4_cursor_waits_for_the_last_of_several_holes() {
    let (image, entries) = written().await;
    let other = whole(&entries).await;
    let store = open(&MemDisk::new(&lacking(image, &[2, 5]))).await.unwrap();
    let mut mirror = Mirror::default();
    let mut here = watch(&store, Start::Initial);
    mirror.read(&mut here).await;
    assert_eq!(soon(store.missing()).await.unwrap().len(), 2);
    give(&store, &entries[2..3]).await;
    assert_eq!(soon(store.missing()).await.unwrap().len(), 1);
    mirror.read(&mut here).await;
    let mut moved = Mirror::default();
    moved.read(&mut watch(&other, text(&here))).await;
    moved.has_all();
    mend(&store, &entries).await;
    mirror.read(&mut here).await;
    mirror.has_all();
    assert_eq!(here.cursor().frontier, store.frontier());
}

/// A store was opened, rebuilt its state over a hole, and was closed or killed. When it was opened
/// again it took that state for complete, and reported no damage.
#[tokio::test]
async fn s4_hole_is_remembered_after_reopen() {
    let (image, entries) = written().await;
    let other = whole(&entries).await;
    for close in [true, false] {
        let disk = MemDisk::new(&lacking(image.clone(), &[3]));
        let store = open(&disk).await.unwrap();
        assert_eq!(soon(store.status()).await.damage.len(), 1);
        if close {
            soon(store.close()).await.unwrap();
        } else {
            super::setup::flushed().await;
        }
        let store = open(&MemDisk::new(&disk.image())).await.unwrap();
        assert_eq!(soon(store.status()).await.damage.len(), 1, "{close}");
        assert_eq!(soon(store.get(b"/k/3")).await.unwrap(), None);
        let mut mirror = Mirror::default();
        let mut here = watch(&store, Start::Initial);
        mirror.read(&mut here).await;
        assert_eq!(mirror.keys.len(), 9);
        let mut moved = Mirror::default();
        moved.read(&mut watch(&other, text(&here))).await;
        moved.has_all();
        mend(&store, &entries).await;
        mirror.read(&mut here).await;
        mirror.has_all();
        assert!(
            !soon(store.verify())
                .await
                .unwrap()
                .damage
                .iter()
                .any(|_| true)
        );
    }
}

/// An entry of another author that did not know the lost entry wins where that entry is lost, and
/// nowhere else. A watcher that stayed gets the correction.
#[tokio::test]
async fn s4_wrong_winner_is_corrected_once_mended() {
    let (image, entries) = written().await;
    let header = Header {
        store: STORE,
        seq: 1,
        prev: None,
        hlc: entries[2].header.hlc,
        atomic: false,
        cause: None,
        parents: vec![],
    };
    let rival = sign(&key(2), header, vec![put("/k/3", "rival")]).unwrap();
    let store = open(&MemDisk::new(&lacking(image, &[3]))).await.unwrap();
    // Another replica had delivered everything to this watcher.
    let mut mirror = Mirror::default();
    let other = whole(&entries).await;
    let mut before = watch(&other, Start::Initial);
    mirror.read(&mut before).await;
    let mut here = watch(&store, text(&before));
    give(&store, &[rival]).await;
    mirror.read(&mut here).await;
    assert_eq!(
        (mirror.gaps, &mirror.keys[&b"/k/3"[..]]),
        (0, &"rival".into())
    );
    mend(&store, &entries).await;
    mirror.read(&mut here).await;
    mirror.has_all();
}

#[tokio::test]
async fn s4_damaged_mark_between_entries_is_no_hole() {
    let (image, _entries) = written().await;
    let mut image = lacking(image, &[]);
    let log = image.get_mut(&log_path(&author_a())).unwrap();
    let frames = flip::frames(log);
    let mark = frames.iter().find(|frame| frame.header.seal).unwrap();
    log[mark.offset + 20] ^= 1;
    let store = open(&MemDisk::new(&image)).await.unwrap();
    assert_eq!(soon(store.status()).await.damage.len(), 1);
    let mut mirror = Mirror::default();
    let mut watch = watch(&store, Start::Initial);
    mirror.read(&mut watch).await;
    mirror.has_all();
    assert_eq!(mirror.gaps, 0);
    assert_eq!(watch.cursor().frontier, store.frontier());
}

async fn consumer(store: &Store, name: &str, from: ConsumerStart) -> Consumer {
    let consumer = store.consumer(name);
    let options = ConsumerOptions {
        from,
        prefixes: vec!["/k/".into()],
        ..ConsumerOptions::default()
    };
    soon(consumer.create(options)).await.unwrap();
    consumer
}

// Takes and acknowledges `count` changes.
async fn take(consumer: &Consumer, count: usize) -> Vec<Bytes> {
    let mut keys = Vec::new();
    while keys.len() < count {
        let delivery = soon(consumer.next()).await.unwrap();
        keys.push(delivery.change().key.clone());
        delivery.ack().unwrap();
    }
    keys
}

/// A consumer stops before a hole and stays there; a consumer past the hole goes on. Before this
/// was fixed, mending the hole stopped the second one, too.
#[tokio::test(flavor = "multi_thread")]
async fn s4_consumer_gets_changes_behind_a_mended_hole() {
    let (image, entries) = written().await;
    let store = open(&MemDisk::new(&lacking(image, &[3]))).await.unwrap();
    let stopped = consumer(&store, "all", ConsumerStart::Beginning).await;
    let live = consumer(&store, "live", ConsumerStart::Now).await;
    let refused = loop {
        match soon(stopped.next()).await {
            Ok(delivery) => delivery.ack().unwrap(),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(refused, ConsumerError::HistoryGone { .. }),
        "{refused:?}"
    );
    soon(store.put("/k/live", "1")).await.unwrap();
    assert_eq!(take(&live, 1).await, ["/k/live"]);
    let position = soon(stopped.show()).await.unwrap().position;
    let at = position.map(|cursor| cursor.frontier.seq(&author_a()));
    assert!(at.unwrap_or(0) < 4, "{at:?}");
    mend(&store, &entries).await;
    soon(store.put("/k/live", "2")).await.unwrap();
    assert_eq!(take(&live, 1).await, ["/k/live"]);
    assert_eq!(
        soon(live.show()).await.unwrap().state,
        ConsumerState::Running
    );
    let from = soon(stopped.show()).await.unwrap().position;
    let from = from.map_or(ConsumerStart::Beginning, ConsumerStart::After);
    soon(stopped.reset(from)).await.unwrap();
    let rest = take(&stopped, 12 - usize::try_from(at.unwrap_or(0)).unwrap()).await;
    assert!(rest.contains(&"/k/3".into()), "{rest:?}");
    assert_eq!(rest.last().unwrap(), "/k/live");
}

#[tokio::test]
async fn s4_reads_over_a_hole_are_old_and_damage_is_shown() {
    let (image, entries) = written().await;
    let store = open(&MemDisk::new(&lacking(image, &[3]))).await.unwrap();
    assert_eq!(soon(store.get(b"/k/3")).await.unwrap(), None);
    assert_eq!(soon(store.status()).await.damage.len(), 1);
    assert!(!soon(store.verify()).await.unwrap().damage.is_empty());
    mend(&store, &entries).await;
    let item = soon(store.get(b"/k/3")).await.unwrap().unwrap();
    assert_eq!(item.value, "3");
}

#[tokio::test]
async fn possibly_written_cause_is_refused() {
    let cause = |position| Cause {
        consumer: "copy".to_owned(),
        trigger: EntryId([7; 32]),
        position,
        depth: 1,
    };
    let disk = MemDisk::default();
    let store = open(&disk).await.unwrap();
    for change in 0..10 {
        let write = Write::put(format!("/k/{change}"), "v").caused_by(cause(change));
        soon(store.write(write)).await.unwrap();
    }
    let entries = all_entries(&store).await;
    let entries = &entries[&(author_a(), 0)];
    soon(store.close()).await.unwrap();
    // The damage is found by a read, or already by the open.
    for opened_before in [false, true] {
        let disk = MemDisk::new(&lacking(disk.image(), &[3]));
        if opened_before {
            soon(open(&disk).await.unwrap().close()).await.unwrap();
        }
        let store = open(&disk).await.unwrap();
        let again = |change| Write::put("/k/again", "v").caused_by(cause(change));
        for change in [3, 11] {
            let refused = soon(store.write(again(change))).await;
            let is_so = matches!(refused, Err(WriteError::Read(ReadError::Damaged { .. })));
            assert!(is_so, "{refused:?}");
        }
        let known = soon(store.write(again(4))).await;
        assert!(matches!(known, Err(WriteError::AlreadyCaused { .. })));
        soon(store.put("/k/plain", "v")).await.unwrap();
        mend(&store, &entries[3..4]).await;
        let known = soon(store.write(again(3))).await;
        assert!(matches!(known, Err(WriteError::AlreadyCaused { .. })));
        soon(store.write(again(11))).await.unwrap();
        soon(store.close()).await.unwrap();
    }
}

/// A root over rows that lack entries would look like another state.
#[tokio::test(flavor = "multi_thread")]
async fn s4_root_is_refused_until_the_hole_is_mended() {
    let (image, entries) = written().await;
    let store = open(&MemDisk::new(&lacking(image, &[3]))).await.unwrap();
    let refused = soon(store.root(b"")).await;
    assert!(
        matches!(refused, Err(ReadError::Damaged { .. })),
        "{refused:?}"
    );
    assert!(soon(store.prove(b"/k/3")).await.is_err());
    mend(&store, &entries).await;
    let whole = whole(&entries).await;
    let expected = soon(whole.root(b"")).await.unwrap();
    assert_eq!(soon(store.root(b"")).await.unwrap(), expected);
}
