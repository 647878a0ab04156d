//! Reads and entries from elsewhere where logs begin at an anchor: an answer is exact, or says how far
//! the log reaches.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use lattice::{
    id::Seq,
    log::{CannotPrune, Pruned},
    protocol::{
        change::EntryRef,
        consumer::DeathReason,
        entry::VerifiedEntry,
        finality::{NoRoom, Taking},
        frontier::{Frontier, FrontierTip, MissingRange},
        heads::{Content, Value},
        sync::BaseNeed,
    },
    store::{
        DamagePlace, HistoryEntry, Ingested, List, OpenError, PastError, PruneError, ReadError,
        consumers::{ConsumerOptions, ConsumerStart},
    },
};

use crate::support::{
    disk::{Image, MemDisk},
    model::{AUTHOR_A, AUTHOR_B, AUTHOR_C, author_of, heads_after, put},
    pruned::{
        COUNT, Chains, ENTRIES, SEGMENT_BYTES, STAMPED_MS, STEP_MS, author_b, author_c, listed,
        signed,
    },
    sync::sync,
};

const B: Seq = 9;
const C: Seq = 12;

// Live keys and values at a time, by the definition.
fn state_at(entries: &[VerifiedEntry], ms: u64) -> BTreeMap<Bytes, Bytes> {
    let then = entries
        .iter()
        .filter(|entry| entry.header.hlc.wall_ms <= ms);
    let mut state = BTreeMap::new();
    for (key, heads) in heads_after(then) {
        if let Content::Value {
            value: Value::Inline(value),
            ..
        } = &heads.winner().unwrap().content
        {
            state.insert(key, value.clone());
        }
    }
    state
}

fn is_pruned<T: std::fmt::Debug>(answer: Result<T, ReadError>) -> Pruned {
    match answer {
        Err(ReadError::Pruned(pruned)) => pruned,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn state_is_the_same_before_and_after_and_files_are_fewer() {
    let mut chains = Chains::new().await;
    let before = listed(&chains.store).await;
    let hash = chains.store.state_hash().await.unwrap();
    let mut files = chains.files().len();
    for (b, c) in [(3, 0), (B, C), (B, C), (5, 2), (ENTRIES, ENTRIES)] {
        let pruning = chains.drop_before(b, c).await;
        assert_eq!(pruning.files, files - chains.files().len());
        files = chains.files().len();
        for opened_again in [false, true] {
            let context = format!("B{b} C{c}, opened again: {opened_again}");
            assert_eq!(listed(&chains.store).await, before, "{context}");
            assert_eq!(chains.store.state_hash().await.unwrap(), hash, "{context}");
            let report = chains.store.verify().await.unwrap();
            assert_eq!(report.damage, [], "{context}");
            assert_eq!(chains.store.status().await.damage, [] as [String; 0]);
            if opened_again {
                continue;
            }
            chains.reopen().await;
        }
    }
    assert_eq!(files, 2);
    let report = chains.store.verify().await.unwrap();
    assert_eq!(report.entries, 0);
    assert!(report.rows >= before.len() as u64, "{report:?}");
}

#[tokio::test]
async fn first_record_that_does_not_follow_the_anchor_is_damage() {
    let chains = Chains::new().await;
    chains.drop_before(B, 0).await;
    chains.store.close().await.unwrap();
    let mut image = chains.disk.image();
    let begins = image.get_mut(Path::new("/store/logs/begins")).unwrap();
    // Another id, under a sound sum.
    let id = chains.at(AUTHOR_B, B).unwrap().id;
    let at = begins.windows(32).position(|it| it == id.0).unwrap();
    begins[at] ^= 1;
    let body = begins.len() - 32;
    let sum = blake3::hash(&begins[..body]);
    begins[body..].copy_from_slice(sum.as_bytes());
    let disk = MemDisk::new(&image).in_segments_of(SEGMENT_BYTES);
    let chains = Chains { disk, ..chains };
    let store = chains.open().await.unwrap();
    let report = store.verify().await.unwrap();
    let found: Vec<_> = report
        .damage
        .iter()
        .map(|it| (it.place, it.author))
        .collect();
    let of_base = (DamagePlace::Base, None);
    assert_eq!(found, [(DamagePlace::Chain, Some(author_b())), of_base]);
}

#[tokio::test]
async fn log_listing_and_entries_say_where_the_log_begins() {
    let chains = Chains::new().await;
    chains.drop_before(B, C).await;
    let store = &chains.store;
    for (author, through) in [(author_b(), B), (author_c(), C)] {
        for after in [0, 1, through - 1] {
            let pruned = is_pruned(store.entries(author, after, 10).await);
            assert_eq!((pruned.author, pruned.through), (author, through));
        }
        let rest = store.entries(author, through, usize::MAX).await.unwrap();
        let seqs: Vec<_> = rest.iter().map(|read| read.entry.header.seq).collect();
        assert_eq!(seqs, (through + 1..=ENTRIES).collect::<Vec<_>>());
    }
    let reach_ms = chains.at(AUTHOR_B, B).unwrap().header.hlc.wall_ms;
    assert_eq!(
        is_pruned(store.entries(author_b(), 0, 1).await).reach_ms,
        reach_ms
    );
    for entry in &chains.entries {
        let found = store.entry(EntryRef::from(&**entry)).await;
        let through = if entry.author() == author_b() { B } else { C };
        if entry.header.seq <= through {
            assert_eq!(is_pruned(found).through, through);
        } else {
            assert_eq!(found.unwrap().unwrap().id, entry.id);
        }
    }
}

#[tokio::test]
async fn history_says_that_older_entries_were_removed() {
    let chains = Chains::new().await;
    let whole = chains.store.history(b"/shared", 1000).await.unwrap();
    assert_eq!((whole.entries.len(), whole.pruned), (COUNT, None));
    let old = chains.store.history(b"/each/00", 10).await.unwrap();
    chains.drop_before(B, C).await;
    let rest = chains.store.history(b"/shared", 1000).await.unwrap();
    // It is complete down to C12, which B13 cites.
    let last = chains.at(AUTHOR_B, C + 1).unwrap();
    assert_eq!(rest.entries.last().unwrap().entry.id, last.id);
    assert!(rest.truncated && rest.pruned.is_some());
    for (here, there) in rest.entries.iter().zip(&whole.entries) {
        // Parents that are not listed are left out.
        let parents = here.parents.clone();
        assert!(parents.iter().all(|parent| there.parents.contains(parent)));
        let there = HistoryEntry {
            parents,
            ..there.clone()
        };
        assert_eq!(*here, there);
    }
    // A head that only the state has is listed with what the state knows.
    let head = chains.store.history(b"/each/00", 10).await.unwrap();
    assert!(head.truncated && head.pruned.is_some());
    assert_eq!(head.entries.len(), 1);
    assert_eq!(head.entries[0], old.entries[0]);
    // A key that was written only since is whole.
    let newest = chains.store.history(b"/each/39", 10).await.unwrap();
    assert_eq!(newest.entries.len(), 1);
}

/// A base that finds no room is not begun, and entries of which the rows are in one go all the same.
#[tokio::test]
async fn full_disk_refuses_a_base_before_it_is_begun_and_keeps_no_pruning_away() {
    let mut chains = Chains::new().await;
    let expected = listed(&chains.store).await;
    chains.disk.set_free(Some((4 << 20) - 1));
    let refused = chains.store.drop_before(chains.tips(7, 11)).await;
    let Err(PruneError::NoRoom(NoRoom {
        free_bytes,
        needed_bytes,
    })) = refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(free_bytes, (4 << 20) - 1);
    assert!(needed_bytes > free_bytes, "{needed_bytes}");
    let bases = |chains: &Chains| {
        let names = chains.disk.image().into_keys();
        let names = names.map(|name| name.display().to_string());
        names.filter(|name| name.contains("/base/")).count()
    };
    assert_eq!(
        (bases(&chains), chains.store.begins()),
        (0, Frontier::default())
    );
    chains.store.put("/more", "m").await.unwrap();
    chains.store.delete("/more").await.unwrap();
    chains.disk.set_free(None);
    let folded = chains
        .store
        .fold(chains.tips(20, 20), Taking::default())
        .await
        .unwrap();
    chains.disk.set_free(Some(0));
    // The base between the two places, from which the past would be read, finds no room.
    let dropped = chains.store.drop_through(&folded, chains.tips(7, 11)).await;
    assert_eq!(dropped.unwrap().branches, 2);
    for _opened in 0..2 {
        assert_eq!(chains.store.begins(), chains.tips(7, 11));
        assert_eq!(listed(&chains.store).await, expected);
        chains.reopen().await;
    }
}

#[tokio::test]
async fn past_is_exact_or_pruned() {
    let chains = Chains::new().await;
    chains.drop_before(B, C).await;
    let store = &chains.store;
    let last_ms = chains.at(AUTHOR_C, C).unwrap().header.hlc.wall_ms;
    let end_ms = STAMPED_MS + 2 * ENTRIES * STEP_MS;
    let (mut exact, mut pruned) = (0, 0);
    for ms in (STAMPED_MS - 1..end_ms).step_by(50) {
        let expected = state_at(&chains.entries, ms);
        match store.list_at(List::default(), ms).await {
            Ok(items) => {
                let found: BTreeMap<_, _> = items
                    .into_iter()
                    .map(|item| (item.key, item.value))
                    .collect();
                assert_eq!(found, expected, "{ms}");
                exact += 1;
            }
            Err(PastError::Read(ReadError::Pruned(gone))) => {
                assert!(ms < last_ms, "history is whole since {last_ms}: {ms}");
                assert_eq!((gone.authors, gone.reach_ms), (2, last_ms));
                pruned += 1;
            }
            Err(error) => panic!("{error}"),
        }
        for key in [
            "/shared", "/b/0", "/c/1", "/each/00", "/each/39", "/nothing",
        ] {
            match store.get_at(key.as_bytes(), ms).await {
                Ok(item) => {
                    let value = item.map(|item| item.value);
                    assert_eq!(value.as_ref(), expected.get(key.as_bytes()), "{key} {ms}");
                }
                Err(PastError::Read(ReadError::Pruned(_))) => assert!(ms < last_ms),
                Err(error) => panic!("{error}"),
            }
        }
        match store.diff("", ms, end_ms).await {
            Ok(found) => {
                let now = state_at(&chains.entries, end_ms);
                let changed = |key: &&Bytes| expected.get(*key) != now.get(*key);
                let keys = expected
                    .keys()
                    .chain(now.keys().filter(|key| !expected.contains_key(*key)));
                let expected = keys.filter(changed).count();
                // An entry that puts the same value again is a difference, too.
                assert!(found.len() >= expected, "{ms}");
            }
            Err(PastError::Read(ReadError::Pruned(_))) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(exact > 15 && pruned > 15, "{exact} exact, {pruned} pruned");
}

/// Its value is in a record of the base, and in no row of the state any more.
#[tokio::test]
async fn past_has_the_long_values_of_the_base() {
    let mut chains = Chains::new().await;
    let long = "x".repeat(5000);
    let put = async |store: &lattice::Store, value: &str| {
        store.put("/long", value.to_owned()).await.unwrap();
        store.frontier()
    };
    chains.clock.advance(1000);
    put(&chains.store, "first").await;
    chains.clock.advance(1000);
    let anchors = put(&chains.store, &long).await;
    let then_ms = chains.clock.now_ms();
    chains.store.drop_before(anchors).await.unwrap();
    chains.clock.advance(1000);
    put(&chains.store, "short").await;
    for opened_again in [false, true] {
        if opened_again {
            chains.reopen().await;
        }
        let at = async |ms| chains.store.get_at(b"/long", ms).await;
        assert_eq!(at(then_ms).await.unwrap().unwrap().value, long);
        assert_eq!(at(then_ms + 999).await.unwrap().unwrap().value, long);
        assert_eq!(at(then_ms + 1000).await.unwrap().unwrap().value, "short");
        let gone = at(then_ms - 1).await.unwrap_err();
        assert!(
            matches!(gone, PastError::Read(ReadError::Pruned(_))),
            "{gone:?}"
        );
        let changed = chains
            .store
            .diff("/long", then_ms, then_ms + 1000)
            .await
            .unwrap();
        assert_eq!(changed[0].before.as_ref().unwrap().value, long);
    }
}

#[tokio::test]
async fn entries_from_elsewhere_that_are_final_change_nothing() {
    let mut chains = Chains::new().await;
    let hash = chains.store.state_hash().await.unwrap();
    chains.drop_before(B, C).await;
    for opened_again in [false, true] {
        if opened_again {
            chains.reopen().await;
        }
        let (store, frontier) = (&chains.store, chains.store.frontier());
        // All that was there, and forks before the anchor.
        let fork = signed(
            AUTHOR_B,
            chains.at(AUTHOR_B, 3),
            BTreeSet::new(),
            STAMPED_MS + 4 * STEP_MS + 1,
            vec![put("/fork", "f")],
        );
        let first = signed(
            AUTHOR_C,
            None,
            BTreeSet::new(),
            STAMPED_MS + 1,
            vec![put("/fork", "f")],
        );
        for entry in chains.entries.iter().chain([&fork, &first]) {
            let done = store.ingest(vec![entry.signed.encode().into()]).await;
            assert_eq!(done.unwrap(), [Ingested::Duplicate(entry.id)]);
        }
        assert_eq!(store.frontier(), frontier);
        assert_eq!(store.state_hash().await.unwrap(), hash);
        // A peer is not asked for them.
        let tips = chains.entries.iter().chain([&fork, &first]);
        let tips = tips.map(|entry| (entry.author(), FrontierTip::of(entry)));
        assert_eq!(store.lacks(tips.collect()).await.unwrap(), []);
    }
    // What cites them need not wait.
    let seen = chains.at(AUTHOR_B, 2).map(|seen| seen.as_parent());
    let seen = seen.into_iter().collect();
    let cites = signed(
        [0xd; 32],
        None,
        seen,
        STAMPED_MS + 5000,
        vec![put("/d", "d")],
    );
    let done = chains
        .store
        .ingest(vec![cites.signed.encode().into()])
        .await;
    assert_eq!(done.unwrap(), [Ingested::Applied(cites.id)]);
}

#[tokio::test]
async fn entry_that_goes_on_at_the_anchor_is_applied() {
    let mut chains = Chains::with(20).await;
    chains.drop_before(10, 10).await;
    chains.reopen().await;
    for entry in &chains.entries[20..] {
        chains.ingest(entry).await;
    }
    assert_eq!(
        listed(&chains.store).await,
        state_at(&chains.entries, u64::MAX)
    );
    let whole = Chains::new().await;
    let hash = whole.store.state_hash().await.unwrap();
    assert_eq!(chains.store.state_hash().await.unwrap(), hash);
    // An entry that is stamped before the anchor.
    let early = signed(
        AUTHOR_B,
        chains.at(AUTHOR_B, 10),
        BTreeSet::new(),
        chains.at(AUTHOR_B, 10).unwrap().header.hlc.wall_ms,
        vec![put("/early", "e")],
    );
    let done = chains
        .store
        .ingest(vec![early.signed.encode().into()])
        .await
        .unwrap();
    assert!(matches!(done[..], [Ingested::Refused(_)]), "{done:?}");
    // One that follows another entry in the anchor's place waits.
    let void = signed(
        AUTHOR_C,
        chains.at(AUTHOR_C, 9),
        BTreeSet::new(),
        STAMPED_MS + 3000,
        vec![put("/v", "")],
    );
    let after = signed(
        AUTHOR_C,
        Some(&void),
        BTreeSet::new(),
        STAMPED_MS + 3001,
        vec![put("/v", "")],
    );
    let done = chains
        .store
        .ingest(vec![after.signed.encode().into()])
        .await
        .unwrap();
    assert!(matches!(done[..], [Ingested::Pending { .. }]), "{done:?}");
}

#[tokio::test]
async fn peer_that_needs_removed_entries_gets_none_and_the_reason() {
    let chains = Chains::new().await;
    chains.drop_before(B, C).await;
    let range = |author_of_range: [u8; 32], after: Seq| {
        let tip = chains.at(author_of_range, ENTRIES).unwrap();
        MissingRange {
            author: tip.author(),
            after,
            through: ENTRIES,
            tip: tip.id,
        }
    };
    let read = |ranges: Vec<MissingRange>| {
        let mut outgoing = chains.store.outgoing(&ranges).unwrap();
        let pruned = outgoing.pruned().copied();
        let mut count = 0;
        loop {
            let frame = outgoing.next_frame(1 << 20).unwrap();
            if frame.is_empty() {
                return (count, pruned.map(|pruned| pruned.through));
            }
            count += frame.len() as Seq;
        }
    };
    assert_eq!(read(vec![range(AUTHOR_B, B)]), (ENTRIES - B, None));
    assert_eq!(read(vec![range(AUTHOR_B, B + 3)]), (ENTRIES - B - 3, None));
    assert_eq!(read(vec![range(AUTHOR_B, B - 1)]), (0, Some(B)));
    assert_eq!(
        read(vec![range(AUTHOR_B, B), range(AUTHOR_C, 0)]),
        (ENTRIES - B, Some(C))
    );
}

#[tokio::test]
async fn peer_that_is_behind_is_not_in_step_and_others_are() {
    let (whole, pruned) = (Chains::new().await, Chains::new().await);
    pruned.drop_before(B, C).await;
    let [one, other] = sync(&pruned.store, &whole.store).await;
    assert!(one.same && other.same, "{one:?} {other:?}");
    // A new node asks for nothing that was removed, and gets the logs from another node.
    let new = Chains::with(0).await;
    let [one, other] = sync(&new.store, &pruned.store).await;
    assert_eq!(
        (one.base, one.received, one.wants, other.sent),
        (BaseNeed::Refused, 0, 0, 0)
    );
    assert_eq!(new.store.status().await.pending_entries, 0);
    let [one, _other] = sync(&new.store, &whole.store).await;
    assert_eq!((one.received, one.lacking), (2 * ENTRIES, 0));
    assert_eq!(listed(&new.store).await, listed(&pruned.store).await);
    // A node that has the anchors gets the rest, and gives what it has.
    let behind = Chains::with(26).await;
    let own = behind.store.put("/own", "a").await.unwrap();
    let [one, other] = sync(&pruned.store, &behind.store).await;
    assert_eq!((one.lacking, other.lacking), (0, 0));
    assert_eq!((one.received, other.received), (1, 2 * ENTRIES - 26));
    assert!(pruned.store.is_tip(&author_of(AUTHOR_A), &own.entry));
    assert_eq!(listed(&behind.store).await, listed(&pruned.store).await);
    // A fork at the anchor: the peer that lacks it asks for a range that begins earlier.
    let anchor = pruned.at(AUTHOR_B, B);
    let stamp = STAMPED_MS + 2 * B * STEP_MS;
    let fork = signed(
        AUTHOR_B,
        anchor,
        BTreeSet::new(),
        stamp,
        vec![put("/fork", "f")],
    );
    let done = pruned.store.ingest(vec![fork.signed.encode().into()]).await;
    assert_eq!(done.unwrap(), [Ingested::Applied(fork.id)]);
    let [one, other] = sync(&pruned.store, &behind.store).await;
    assert_eq!((one.lacking, other.lacking), (0, 0));
    assert_eq!(
        behind.store.get(b"/fork").await.unwrap().unwrap().entry.id,
        fork.id
    );
    let [one, _other] = sync(&pruned.store, &behind.store).await;
    assert!(one.same);
}

#[tokio::test]
async fn a_value_that_only_the_log_has_is_in_the_base_afterwards() {
    let chains = Chains::new().await;
    let store = &chains.store;
    let big = store.put("/big", vec![7; 2000]).await.unwrap();
    let me = author_of(AUTHOR_A);
    let own = |seq, id| Frontier::from_iter([(me, FrontierTip { seq, id })]);
    let pruning = store.drop_before(own(big.seq, big.entry)).await.unwrap();
    assert_eq!(pruning.branches, 1);
    let read = store.get(b"/big").await.unwrap().unwrap();
    assert_eq!(read.value, vec![7; 2000]);
    let small = store.put("/big", "small").await.unwrap();
    store
        .drop_before(own(small.seq, small.entry))
        .await
        .unwrap();
    assert_eq!(store.get(b"/big").await.unwrap().unwrap().value, "small");
    let next = store.put("/next", "n").await.unwrap();
    assert_eq!(next.seq, 3);
    let nowhere = own(9, next.entry);
    let refused = store.drop_before(nowhere).await.unwrap_err();
    let cannot = PruneError::Cannot(CannotPrune::NoEntry { author: me, seq: 9 });
    assert_eq!(refused.to_string(), cannot.to_string());
    let fork = signed(
        AUTHOR_B,
        chains.at(AUTHOR_B, 5),
        BTreeSet::new(),
        STAMPED_MS + 8 * STEP_MS + 1,
        vec![put("/fork", "f")],
    );
    store
        .ingest(vec![fork.signed.encode().into()])
        .await
        .unwrap();
    let refused = store.drop_before(chains.tips(6, 0)).await.unwrap_err();
    let cannot = PruneError::Cannot(CannotPrune::Forked {
        author: author_b(),
        seq: 6,
    });
    assert_eq!(refused.to_string(), cannot.to_string());
    chains.drop_before(5, 0).await;
}

#[tokio::test]
async fn consumer_that_needs_removed_entries_stops_or_is_not_made() {
    let mut chains = Chains::new().await;
    let options = |from| ConsumerOptions {
        from,
        ack_wait: Duration::from_secs(1),
        ..ConsumerOptions::default()
    };
    // It has read the first changes, and no more.
    let early = chains.store.consumer("early");
    let few = ConsumerOptions {
        max_in_flight: 3,
        ..options(ConsumerStart::Beginning)
    };
    early.create(few).await.unwrap();
    let held: Vec<_> = [early.next().await.unwrap(), early.next().await.unwrap()].into();
    chains.drop_before(B, C).await;
    let late = chains.store.consumer("late");
    let refused = late.create(options(ConsumerStart::Beginning)).await;
    let refused = refused.unwrap_err();
    assert!(
        refused.to_string().contains("earlier entries were removed"),
        "{refused}"
    );
    // What was given back cannot be read again by the next process, nor what comes after it.
    for delivery in held {
        delivery.nack(Some(Duration::ZERO)).unwrap();
    }
    chains.reopen().await;
    chains.clock.advance(60_000);
    let early = chains.store.consumer("early");
    let refused = loop {
        let next = tokio::time::timeout(Duration::from_secs(5), early.next()).await;
        match next.expect("an answer") {
            Ok(delivery) => delivery.ack().unwrap(),
            Err(refused) => break refused,
        }
    };
    let refused = refused.to_string();
    assert!(
        refused.contains("earlier entries were removed"),
        "{refused}"
    );
    // The two that were handed out, and a third one if it was read ahead before entries were removed.
    // The gap may be met before they are read again.
    let began = std::time::Instant::now();
    loop {
        let dead = early.dead().await.unwrap();
        let pruned = dead
            .iter()
            .filter(|letter| letter.reason == DeathReason::Pruned);
        let count = pruned.count();
        assert_eq!(count, dead.len(), "{dead:?}");
        assert!(count <= 3, "{dead:?}");
        if count >= 2 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{dead:?}");
        drop(tokio::time::timeout(Duration::from_millis(100), early.next()).await);
    }
}

// Files that a state file can be found as, instead of what it was.
async fn lost_states(image: &Image) -> Vec<(&'static str, Option<Vec<u8>>)> {
    let state = Path::new("/store/state.db");
    let mut truncated = image[state].clone();
    truncated.truncate(5000);
    let of = async |count| {
        let chains = Chains::with(count).await;
        chains.store.close().await.unwrap();
        chains.disk.image()[state].clone()
    };
    vec![
        ("missing", None),
        ("of no bytes", Some(Vec::new())),
        ("truncated", Some(truncated)),
        ("of an empty store", Some(of(0).await)),
        ("older than the anchors", Some(of(6).await)),
    ]
}

fn with_state(image: &Image, bytes: Option<Vec<u8>>) -> Image {
    let mut image = image.clone();
    let state = PathBuf::from("/store/state.db");
    image.remove(&state);
    image.remove(&state.with_extension("sums"));
    if let Some(bytes) = bytes {
        image.insert(state, bytes);
    }
    image
}

#[tokio::test]
async fn a_state_that_is_lost_afterwards_is_built_again_from_the_base() {
    let chains = Chains::new().await;
    chains.store.close().await.unwrap();
    let whole = chains.disk.image();
    let mut chains = Chains {
        store: chains.open().await.unwrap(),
        ..chains
    };
    let big = chains.store.put("/big", vec![7; 5000]).await.unwrap();
    chains.store.put("/later", "l").await.unwrap();
    let mut anchors = chains.tips(B, C);
    anchors.insert(
        author_of(AUTHOR_A),
        FrontierTip {
            seq: big.seq,
            id: big.entry,
        },
    );
    chains.store.drop_before(anchors).await.unwrap();
    let expected = listed(&chains.store).await;
    let root = chains.store.root(b"").await.unwrap();
    chains.store.close().await.unwrap();
    let image = chains.disk.image();
    let state = Path::new("/store/state.db");
    let mut states = lost_states(&image).await;
    // A copy that has all the anchors is good enough, also an older one.
    states.push(("as it was", Some(image[state].clone())));
    states.push(("older, with the anchors", Some(whole[state].clone())));
    for (what, bytes) in states {
        chains.disk = MemDisk::new(&with_state(&image, bytes)).in_segments_of(SEGMENT_BYTES);
        for _twice in 0..2 {
            let store = chains.open().await.unwrap();
            assert_eq!(listed(&store).await, expected, "{what}");
            assert_eq!(store.root(b"").await.unwrap(), root, "{what}");
            assert_eq!(store.verify().await.unwrap().damage, [], "{what}");
            let big = store.get(b"/big").await.unwrap().unwrap();
            assert_eq!(big.value.len(), 5000, "{what}");
            store.close().await.unwrap();
        }
    }
}

// The state is enough to go on without a base, and the base without a state. Without both there is no
// store, and nothing pretends that there is one.
#[tokio::test]
async fn base_and_state_that_are_lost_are_an_error_and_never_an_empty_store() {
    let mut chains = Chains::new().await;
    chains.drop_before(B, C).await;
    let expected = listed(&chains.store).await;
    chains.store.close().await.unwrap();
    let image = chains.disk.image();
    let is_base = |path: &Path| path.starts_with("/store/base");
    let bases: Vec<PathBuf> = image.keys().filter(|path| is_base(path)).cloned().collect();
    assert!(bases.len() >= 2, "{bases:?}");
    let mut broken = Vec::new();
    let mut missing = image.clone();
    missing.retain(|path, _bytes| !is_base(path));
    broken.push(("missing", missing));
    for path in &bases {
        let mut cut = image.clone();
        let bytes = cut.get_mut(path).unwrap();
        bytes.truncate(bytes.len() - 1);
        broken.push(("cut", cut));
    }
    for (how, image) in broken {
        // The state goes on.
        chains.disk = MemDisk::new(&image).in_segments_of(SEGMENT_BYTES);
        let store = chains.open().await.unwrap();
        assert_eq!(listed(&store).await, expected, "{how}");
        let damage = store.verify().await.unwrap().damage;
        assert!(
            damage.iter().any(|it| it.place == DamagePlace::Base),
            "{how}: {damage:?}"
        );
        store.put("/after", "a").await.unwrap();
        store.close().await.unwrap();
        for (what, bytes) in lost_states(&image).await {
            let image = with_state(&image, bytes);
            chains.disk = MemDisk::new(&image).in_segments_of(SEGMENT_BYTES);
            for _twice in 0..2 {
                let error = chains.open().await.unwrap_err();
                assert!(
                    matches!(error, OpenError::StateLost { .. }),
                    "{how}, {what}: {error:?}"
                );
                assert!(error.is_damage());
                assert!(
                    error.to_string().contains("cannot be built again"),
                    "{error}"
                );
            }
            let now = chains.disk.image();
            for (path, bytes) in &image {
                if path.starts_with("/store/logs") {
                    assert_eq!(now.get(path), Some(bytes), "{how}, {what}: {path:?}");
                }
            }
        }
    }
}

// An entry that comes after the anchors and that an entry before them has cited is no head, in a state
// that is built from the base as well.
#[tokio::test]
async fn what_the_base_has_superseded_in_advance_stays_so() {
    let mut chains = Chains::new().await;
    let before = chains.store.root(b"").await.unwrap();
    // B only: its entries cite those of C, which stay.
    chains.drop_before(B, 0).await;
    chains.store.close().await.unwrap();
    let image = with_state(&chains.disk.image(), None);
    chains.disk = MemDisk::new(&image).in_segments_of(SEGMENT_BYTES);
    let store = chains.open().await.unwrap();
    assert_eq!(store.root(b"").await.unwrap().root, before.root);
    assert_eq!(store.verify().await.unwrap().damage, []);
}

// Equal entries make equal bases, whatever was folded when.
#[tokio::test]
async fn bases_of_equal_entries_are_equal() {
    let bases = async |places: &[(Seq, Seq)]| {
        let chains = Chains::new().await;
        for (b, c) in places {
            chains.drop_before(*b, *c).await;
        }
        chains.store.close().await.unwrap();
        let image = chains.disk.image();
        let parts = image.into_iter().filter(|(path, _bytes)| {
            path.starts_with("/store/base") && path.extension().is_some_and(|it| it == "part")
        });
        parts.collect::<Image>()
    };
    let at_once = bases(&[(B, C)]).await;
    assert!(!at_once.is_empty());
    assert_eq!(bases(&[(4, 5), (B, C)]).await, at_once);
    assert_eq!(bases(&[(4, 5), (B, 5), (B, C)]).await, at_once);
}
