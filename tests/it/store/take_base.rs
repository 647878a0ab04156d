//! A base of a peer in place of entries that were removed there.

use std::collections::{BTreeSet, VecDeque};

use lattice::{
    Store,
    disk::{Disk as _, Open},
    id::Seq,
    limits::{BASE_IDLE_MS, BASE_TRIES_MAX},
    log::CannotInstall,
    protocol::{
        anchors_act::BaseHash,
        entry::VerifiedEntry,
        frontier::{Frontier, FrontierTip},
        sync::{BaseNeed, Message, SyncError},
    },
    store::{InstallError, TakeBaseError, WatchEvent, WatchOptions},
};

use crate::support::{
    disk::{Image, MemDisk},
    model::{AUTHOR_A, AUTHOR_B, author_of, put},
    pruned::{Chains, ENTRIES, SEGMENT_BYTES, author_b, listed, signed},
    sync::{Failed, Side, begin, sync, sync_all, sync_sides},
    watch::next,
};

const B: Seq = 9;
const C: Seq = 12;

// A store that has all entries and has removed some.
async fn pruned() -> Chains {
    let chains = Chains::new().await;
    chains.drop_before(B, C).await;
    chains
}

fn trust(taker: &Chains, giver: &Chains) -> BaseHash {
    let hash = giver.store.offered_base().unwrap().hash();
    taker.store.trust_base(hash);
    hash
}

async fn assert_equal(one: &Chains, other: &Chains) {
    assert_eq!(listed(&one.store).await, listed(&other.store).await);
    let hash = one.store.state_hash().await.unwrap();
    assert_eq!(hash, other.store.state_hash().await.unwrap());
    let root = one.store.root(b"").await.unwrap();
    assert_eq!(root, other.store.root(b"").await.unwrap());
    assert_eq!(one.store.frontier(), other.store.frontier());
}

#[tokio::test]
async fn new_store_gets_the_base_and_the_entries_after_it() {
    let (pruned, mut new) = (pruned().await, Chains::with(0).await);
    trust(&new, &pruned);
    let [one, other] = sync(&new.store, &pruned.store).await;
    assert_eq!((one.base, one.received), (BaseNeed::Installed, 0));
    assert_eq!((other.base, other.sent), (BaseNeed::None, 0));
    let [one, _other] = sync(&new.store, &pruned.store).await;
    let rest = 2 * ENTRIES - B - C;
    assert_eq!((one.base, one.received), (BaseNeed::None, rest));
    assert_eq!(sync_all(&new.store, &pruned.store).await, 0);
    for _opened_again in 0..2 {
        assert_equal(&new, &pruned).await;
        assert_eq!(new.store.verify().await.unwrap().damage, []);
        assert_eq!(new.store.begins(), pruned.store.begins());
        new.store.put("/own", "o").await.unwrap();
        new.store.delete("/own").await.unwrap();
        sync_all(&new.store, &pruned.store).await;
        new.reopen().await;
    }
    // And gives it on.
    let third = Chains::with(5).await;
    trust(&third, &new);
    assert_eq!(sync_all(&new.store, &third.store).await, 1);
    assert_equal(&third, &pruned).await;
}

/// Two nodes have the same entries, and not the same state. The user of one chooses that of the other.
#[tokio::test]
async fn n15_state_of_a_peer_is_taken_when_it_is_chosen() {
    let (giver, mut taker) = (pruned().await, Chains::new().await);
    let [one, _other] = sync(&taker.store, &giver.store).await;
    assert!(one.same, "nothing is asked for");
    let choice = taker.store.choose_state_of(giver.store.author());
    let [one, other] = sync(&taker.store, &giver.store).await;
    assert_eq!(
        (one.base, other.base),
        (BaseNeed::Installed, BaseNeed::None)
    );
    drop(choice);
    assert_eq!(sync_all(&taker.store, &giver.store).await, 0);
    for _opened_again in 0..2 {
        assert_equal(&taker, &giver).await;
        assert_eq!(taker.store.begins(), giver.store.begins());
        assert_eq!(taker.store.verify().await.unwrap().damage, []);
        taker.store.put("/own", "o").await.unwrap();
        sync_all(&taker.store, &giver.store).await;
        taker.reopen().await;
    }
    // The other one may open the session, too. A peer without a base has no state to give.
    let whole = Chains::new().await;
    let choice = whole.store.choose_state_of(giver.store.author());
    let [_one, other] = sync(&giver.store, &whole.store).await;
    assert_eq!(other.base, BaseNeed::Installed);
    drop(choice);
    let (whole, other) = (Chains::new().await, Chains::new().await);
    let _choice = whole.store.choose_state_of(other.store.author());
    let [one, _other] = sync(&whole.store, &other.store).await;
    assert_eq!(one.base, BaseNeed::Refused);
}

/// Here more entries were removed than at the peer: those after them come again.
#[tokio::test]
async fn n15_chosen_state_goes_back_behind_what_was_removed_here() {
    let (giver, mut taker) = (Chains::new().await, Chains::new().await);
    giver.drop_before(5, 4).await;
    taker.drop_before(12, 4).await;
    trust(&taker, &giver);
    let begins = taker.store.begins();
    assert!(sync(&taker.store, &giver.store).await[0].same);
    assert_eq!(taker.store.begins(), begins);
    let choice = taker.store.choose_state_of(giver.store.author());
    let [one, _other] = sync(&taker.store, &giver.store).await;
    assert_eq!(one.base, BaseNeed::Installed);
    drop(choice);
    let [one, _other] = sync(&taker.store, &giver.store).await;
    assert_eq!(one.received, ENTRIES - 5);
    for _opened_again in 0..2 {
        assert_equal(&taker, &giver).await;
        assert_eq!(taker.store.begins(), giver.store.begins());
        assert_eq!(taker.store.verify().await.unwrap().damage, []);
        taker.reopen().await;
    }
}

/// Own entries that were removed here and that the base does not have would be nowhere.
#[tokio::test]
async fn n15_chosen_state_without_own_entries_is_refused() {
    let (giver, taker) = (pruned().await, Chains::new().await);
    let own = taker.store.put("/own", "o").await.unwrap();
    let mut anchors = taker.tips(B, C);
    let tip = FrontierTip {
        seq: own.seq,
        id: own.entry,
    };
    anchors.insert(author_of(AUTHOR_A), tip);
    taker.store.drop_before(anchors).await.unwrap();
    let before = (listed(&taker.store).await, taker.store.begins());
    let _choice = taker.store.choose_state_of(giver.store.author());
    let [one, _other] = sync_sides(&taker.store, &giver.store).await;
    let refused = one.refused.unwrap();
    assert!(
        matches!(
            refused,
            TakeBaseError::Install(InstallError::Cannot(CannotInstall::Apart { .. }))
        ),
        "{refused}"
    );
    assert_eq!(before, (listed(&taker.store).await, taker.store.begins()));
}

#[tokio::test]
async fn base_that_no_act_names_is_not_taken() {
    let (pruned, new) = (pruned().await, Chains::with(3).await);
    new.store.trust_base(BaseHash([1; 32]));
    let own = new.store.put("/own", "o").await.unwrap();
    let [one, other] = sync_sides(&new.store, &pruned.store).await;
    let refused = one.refused.unwrap();
    assert!(
        matches!(refused, TakeBaseError::NotNamed { .. }),
        "{refused}"
    );
    let summary = one.summary.unwrap();
    assert_eq!((summary.base, summary.received), (BaseNeed::Refused, 0));
    assert_eq!(other.summary.unwrap().received, 1, "the other way goes on");
    assert!(pruned.store.is_tip(&new.store.author(), &own.entry));
    assert_eq!(new.store.frontier().len(), 3);
}

/// It was away while the others removed entries, and has written: its writes are lost nowhere, those of
/// the others are all there, and a reader of its store gets one gap.
#[tokio::test]
async fn returning_member_keeps_what_nobody_has() {
    let (mut away, giver) = (Chains::with(20).await, Chains::new().await);
    let big = away.store.put("/big", vec![7; 3000]).await.unwrap();
    let own = away.store.entries(away.store.author(), 0, 1).await.unwrap();
    let sent = vec![own[0].entry.signed.encode().into()];
    drop(giver.store.ingest(sent).await.unwrap());
    // The base has the first own entry, with its value.
    let mut anchors = giver.tips(15, 13);
    let tip = FrontierTip {
        seq: big.seq,
        id: big.entry,
    };
    anchors.insert(author_of(AUTHOR_A), tip);
    // Unsent: a conflict with what the others wrote, an overwrite, a delete, and a large value.
    for (key, value) in [("/shared", "mine"), ("/own", "1"), ("/own", "2")] {
        away.store.put(key, value).await.unwrap();
    }
    away.store.put("/own/big", vec![9; 4000]).await.unwrap();
    away.store.delete("/b/1").await.unwrap();
    giver.store.drop_before(anchors).await.unwrap();
    trust(&away, &giver);
    let mut watch = away.store.watch_with(WatchOptions::default());
    while !matches!(next(&mut watch).await, WatchEvent::CaughtUp) {}
    assert_eq!(sync_all(&away.store, &giver.store).await, 1);
    away.store.put("/end", "").await.unwrap();
    let (mut gaps, mut caught_up, mut has_ended) = (0, 0, false);
    loop {
        match next(&mut watch).await {
            WatchEvent::Gap { .. } => gaps += 1,
            WatchEvent::CaughtUp => caught_up += 1,
            WatchEvent::Change(change) => has_ended |= change.key == "/end",
            _other => {}
        }
        if has_ended && caught_up > 0 {
            break;
        }
    }
    assert_eq!((gaps, caught_up), (1, 1));
    sync_all(&away.store, &giver.store).await;
    for _opened_again in 0..2 {
        assert_equal(&away, &giver).await;
        for store in [&away.store, &giver.store] {
            let get = async |key: &str| store.get(key.as_bytes()).await.unwrap();
            assert_eq!(get("/own").await.unwrap().value, "2");
            assert_eq!(get("/own/big").await.unwrap().value, vec![9; 4000]);
            assert_eq!(get("/big").await.unwrap().value, vec![7; 3000]);
            let shared = store.heads(b"/shared").await.unwrap();
            assert!(shared.len() > 1, "a conflict: {shared:?}");
            assert_eq!(store.verify().await.unwrap().damage, []);
        }
        away.store.close().await.unwrap();
        away.store = away.open().await.unwrap();
    }
}

/// Each has removed something of which the other lacks entries.
#[tokio::test]
async fn stores_whose_bases_do_not_include_each_other_say_so() {
    let (one, other) = (Chains::with(24).await, Chains::new().await);
    one.drop_before(0, 10).await;
    other.drop_before(15, 0).await;
    trust(&one, &other);
    let before = listed(&one.store).await;
    let [side, _] = sync_sides(&one.store, &other.store).await;
    let refused = side.refused.unwrap();
    let is_apart = matches!(
        refused,
        TakeBaseError::Install(InstallError::Cannot(CannotInstall::Apart { seq: 10, .. }))
    );
    assert!(is_apart, "{refused}");
    assert_eq!(listed(&one.store).await, before);
    // The next base of the other includes it.
    other.drop_before(15, 10).await;
    trust(&one, &other);
    assert_eq!(sync_all(&other.store, &one.store).await, 1);
    assert_equal(&one, &other).await;
}

#[tokio::test]
async fn own_log_that_ends_before_its_anchor_is_kept_and_a_lost_one_goes_on_at_it() {
    let (giver, old) = (Chains::new().await, Chains::with(20).await);
    old.store.put("/own", "1").await.unwrap();
    old.store.close().await.unwrap();
    let image = old.disk.image();
    let disk = |image: &Image| MemDisk::new(image).in_segments_of(SEGMENT_BYTES);
    let mut old = Chains {
        store: old.open().await.unwrap(),
        ..old
    };
    old.store.put("/own", "2").await.unwrap();
    let last = old.store.put("/own", "3").await.unwrap();
    sync(&old.store, &giver.store).await;
    let mut anchors = giver.tips(15, 13);
    let tip = FrontierTip {
        seq: last.seq,
        id: last.entry,
    };
    anchors.insert(old.store.author(), tip);
    giver.store.drop_before(anchors).await.unwrap();
    old.store.close().await.unwrap();
    // A copy of its directory from before.
    old.disk = disk(&image);
    old.store = old.open().await.unwrap();
    trust(&old, &giver);
    let [side, _] = sync_sides(&old.store, &giver.store).await;
    let refused = side.refused.unwrap();
    let (ours, theirs) = (1, 3);
    let expected = InstallError::from(CannotInstall::OwnLogBehind { ours, theirs });
    assert_eq!(refused.to_string(), expected.to_string());
    old.store.close().await.unwrap();
    // Its disk is lost.
    old.disk = disk(&Image::new());
    old.store = old.open().await.unwrap();
    trust(&old, &giver);
    sync_all(&old.store, &giver.store).await;
    let next = old.store.put("/own", "4").await.unwrap();
    assert_eq!(next.seq, 4);
    sync_all(&old.store, &giver.store).await;
    assert_equal(&old, &giver).await;
    assert!(giver.store.status().await.forks.is_empty());
}

// Another entry of B after the entry at `seq`, and `count` after it.
fn fork_of_b(chains: &Chains, seq: Seq, count: u64) -> Vec<VerifiedEntry> {
    let mut before = chains.at(AUTHOR_B, seq).cloned();
    let mut fork = Vec::new();
    for n in 0..=count {
        let stamp = before.as_ref().unwrap().header.hlc.wall_ms + 1;
        let ops = vec![put(&format!("/fork/{n}"), "void")];
        let next = signed(AUTHOR_B, before.as_ref(), BTreeSet::new(), stamp, ops);
        fork.push(next.clone());
        before = Some(next);
    }
    fork
}

/// B has forked before its anchor, and this store has the branch that nobody counts. It could not install a
/// base any more.
#[tokio::test]
async fn branches_that_left_before_the_anchor_are_void_and_keep_no_base_out() {
    // With the branch that has the anchor, with one that ends before it, and without either.
    for count in [18, 9, 0] {
        let (pruned, mut new) = (pruned().await, Chains::with(count).await);
        // The void branch ends before the anchor, at it, or after it.
        for (left, more) in [(2, 1), (3, 5), (4, 20)] {
            let fork = fork_of_b(&pruned, left, more);
            if count > 0 {
                for entry in &fork {
                    new.ingest(entry).await;
                }
            }
        }
        // A branch that left at the anchor is no void one.
        let at_anchor = fork_of_b(&pruned, B, 1);
        for chains in [&pruned, &new] {
            for entry in at_anchor.iter().filter(|_| count == 18) {
                chains.ingest(entry).await;
            }
        }
        trust(&new, &pruned);
        assert_eq!(sync_all(&new.store, &pruned.store).await, 1, "{count}");
        let aside = || {
            let image = new.disk.image();
            let names = image.keys().map(|path| path.display().to_string());
            names.filter(|name| name.contains(".aside-")).count()
        };
        // The first branch goes on, if no other one does.
        let expected = match count {
            18 | 9 => 3,
            _none => 0,
        };
        assert!(aside() >= expected, "{count}: {} files", aside());
        for _opened_again in 0..2 {
            assert_equal(&new, &pruned).await;
            assert_eq!(new.store.verify().await.unwrap().damage, []);
            assert_eq!(new.store.status().await.damage, [] as [String; 0]);
            assert!(new.store.get(b"/fork/5").await.unwrap().is_none());
            new.store.put("/own", "o").await.unwrap();
            new.store.delete("/own").await.unwrap();
            sync_all(&new.store, &pruned.store).await;
            new.reopen().await;
        }
    }
}

/// Its own log has forked from that of the mesh, and goes on after the anchor.
#[tokio::test]
async fn own_branch_that_left_before_the_anchor_is_set_aside() {
    let (giver, mut own) = (Chains::new().await, Chains::with(20).await);
    own.store.put("/own", "1").await.unwrap();
    own.store.close().await.unwrap();
    let image = own.disk.image();
    own.store = own.open().await.unwrap();
    own.store.put("/own", "2").await.unwrap();
    let last = own.store.put("/own", "3").await.unwrap();
    sync(&own.store, &giver.store).await;
    let mut anchors = giver.tips(15, 13);
    let tip = FrontierTip {
        seq: last.seq,
        id: last.entry,
    };
    anchors.insert(own.store.author(), tip);
    giver.store.drop_before(anchors).await.unwrap();
    own.store.close().await.unwrap();
    // A copy of its directory from before, which wrote on.
    own.disk = MemDisk::new(&image).in_segments_of(SEGMENT_BYTES);
    own.store = own.open().await.unwrap();
    for value in ["2, too", "3, too", "4"] {
        own.store.put("/own", value).await.unwrap();
    }
    trust(&own, &giver);
    assert_eq!(sync_all(&own.store, &giver.store).await, 1);
    let next = own.store.put("/own", "5").await.unwrap();
    assert_eq!(next.seq, 4, "it goes on at the anchor");
    sync_all(&own.store, &giver.store).await;
    assert_equal(&own, &giver).await;
    assert!(giver.store.status().await.forks.is_empty());
    own.reopen().await;
    assert_equal(&own, &giver).await;
}

/// A frame at or right behind the anchor cannot be read. That kept the base out for ever, because nobody has
/// the entries before the anchor any more.
#[tokio::test]
async fn damage_anywhere_in_a_log_keeps_no_base_out() {
    let pruned = pruned().await;
    let old = Chains::with(22).await;
    old.store.close().await.unwrap();
    let image = old.disk.image();
    let of_b = author_b().to_string();
    let is_of_b = |path: &&std::path::PathBuf| path.display().to_string().contains(&of_b);
    let (mut damaged, mut installed) = (0, 0);
    for path in image.keys().filter(is_of_b) {
        let bytes = image[path].len();
        for (at, length) in (0..bytes).step_by(90).flat_map(|at| [(at, 40), (at, 900)]) {
            let disk = MemDisk::new(&image).in_segments_of(SEGMENT_BYTES);
            let file = disk.open(path, Open::Existing).unwrap();
            let length = length.min(bytes - at);
            file.write_at(&vec![0xee; length], at as u64).unwrap();
            drop(file);
            let mut new = Chains {
                disk,
                clock: old.clock.clone(),
                store: old.store.clone(),
                entries: old.entries.clone(),
            };
            new.store = new.open().await.unwrap();
            damaged += usize::from(!new.store.missing().await.unwrap().is_empty());
            trust(&new, &pruned);
            for _session in 0..4 {
                installed += usize::from(
                    sync(&new.store, &pruned.store).await[0].base == BaseNeed::Installed,
                );
            }
            let context = format!("{length} bytes at {at} of {}", path.display());
            assert_eq!(new.store.frontier(), pruned.store.frontier(), "{context}");
            assert_equal(&new, &pruned).await;
            new.reopen().await;
            assert_equal(&new, &pruned).await;
            let damage = new.store.verify().await.unwrap().damage;
            assert_eq!(damage, [], "{context}");
            new.store.close().await.unwrap();
        }
    }
    assert!(
        damaged > 5 && installed > 20,
        "{damaged}, {installed} installed"
    );
}

// Both speak version 1: the opener says so, and the acceptor answers in it.
async fn old_version(opener: &Store, acceptor: &Store) -> Result<(), SyncError> {
    let [mut one, mut other] = begin(opener, acceptor).await;
    let Some(Message::Hello { version, store, .. }) = other.inbox.pop_front() else {
        panic!("a hello")
    };
    other.inbox.push_back(Message::Hello {
        version,
        newest: 0,
        store,
        frontier: None,
    });
    while one.summary.is_none() || other.summary.is_none() {
        for _side in 0..2 {
            std::mem::swap(&mut one, &mut other);
            if let Some(message) = one.inbox.pop_front() {
                assert!(!matches!(message, Message::Begins { .. }));
                let actions = one.session.handle(message)?;
                other.inbox.extend(one.act(actions).await.unwrap());
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn peer_of_version_1_is_served_unless_it_lacks_what_was_removed() {
    let (pruned, behind) = (pruned().await, Chains::with(26).await);
    for (opener, acceptor) in [(&behind, &pruned), (&pruned, &behind)] {
        opener.store.status().await;
        old_version(&opener.store, &acceptor.store).await.unwrap();
        assert_equal(&pruned, &behind).await;
    }
    let new = Chains::with(3).await;
    for (opener, acceptor) in [(&new, &pruned), (&pruned, &new)] {
        let refused = old_version(&opener.store, &acceptor.store)
            .await
            .unwrap_err();
        assert!(matches!(refused, SyncError::PeerTooOld { .. }), "{refused}");
        assert!(refused.to_string().ends_with("update it"));
        assert_eq!(new.store.frontier().len(), 2);
    }
}

// Goes on until `stop` says so after a message was handled, or the session has ended.
async fn drive(
    sides: &mut [Side<'_>; 2],
    mut stop: impl FnMut(usize, &VecDeque<Message>) -> bool,
) -> Result<bool, Failed> {
    let mut handled = 0;
    while sides.iter().any(|side| side.summary.is_none()) {
        for at in [0, 1] {
            if let Some(message) = sides[at].inbox.pop_front() {
                let sent = sides[at].handle(message).await?;
                sides[1 - at].inbox.extend(sent);
                handled += 1;
                if stop(handled, &sides[0].inbox) {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// E9: the link is cut behind each message. What was there is there, and what has come is not asked for
/// again.
#[tokio::test]
async fn link_cut_at_each_message_leaves_the_old_state_and_goes_on() {
    let pruned = pruned().await;
    let parts = pruned.store.offered_base().unwrap().parts().len();
    let (mut resumed, mut n) = (0, 1);
    loop {
        let new = Chains::with(7).await;
        trust(&new, &pruned);
        let before = (listed(&new.store).await, new.store.begins());
        let mut sides = begin(&new.store, &pruned.store).await;
        let has_ended = drive(&mut sides, |handled, _| handled == n).await.unwrap();
        let come = sides[0].taken.as_ref().map_or(0, |it| it.progress().parts);
        drop(sides);
        if has_ended {
            break;
        }
        if new.store.begins().is_empty() {
            assert_eq!(listed(&new.store).await, before.0, "cut {n}");
            assert_eq!(new.store.frontier().len(), 2, "cut {n}");
        }
        // Behind the manifest, the parts that have come are there.
        let mut sides = begin(&new.store, &pruned.store).await;
        let has =
            |inbox: &VecDeque<Message>| inbox.iter().any(|it| matches!(it, Message::Part { .. }));
        if come < parts && !drive(&mut sides, |_, inbox| has(inbox)).await.unwrap() {
            let here = sides[0].taken.as_ref().unwrap().progress().parts;
            assert!(here >= come, "cut {n}: {here} of {come}");
            resumed += usize::from(here > 0);
        }
        drop(sides);
        sync_all(&new.store, &pruned.store).await;
        assert_equal(&new, &pruned).await;
        n += 1;
    }
    assert!(n > 10 && resumed > 1, "{n} messages, {resumed} resumed");
}

/// E9: each byte of what the peer sends of its base is another one. Nothing is installed, what is here
/// stays, and the next honest session brings all.
#[tokio::test]
async fn forged_manifest_or_part_is_refused_and_changes_nothing() {
    let pruned = pruned().await;
    let hash = pruned.store.offered_base().unwrap().hash();
    let taker = async || {
        let new = Chains::with(7).await;
        new.store.trust_base(hash);
        new
    };
    // The pieces of an honest session, by their place.
    let new = taker().await;
    let mut sides = begin(&new.store, &pruned.store).await;
    let mut lengths = Vec::new();
    while sides.iter().any(|side| side.summary.is_none()) {
        for at in [0, 1] {
            let Some(message) = sides[at].inbox.pop_front() else {
                continue;
            };
            if let Message::Manifest { piece, .. } | Message::Part { piece, .. } = &message {
                lengths.push(piece.len());
            }
            let sent = sides[at].handle(message).await.unwrap();
            sides[1 - at].inbox.extend(sent);
        }
    }
    drop(sides);
    let (mut faults, mut refusals) = (0, 0);
    for (number, length) in lengths.iter().enumerate() {
        for at in (0..*length).step_by(83) {
            let new = taker().await;
            let before = listed(&new.store).await;
            let mut sides = begin(&new.store, &pruned.store).await;
            let mut seen = 0;
            let mut is_changed = false;
            let outcome = loop {
                if sides.iter().all(|side| side.summary.is_some()) {
                    break Ok(());
                }
                let mut failed = None;
                for side in [0, 1] {
                    let Some(mut message) = sides[side].inbox.pop_front() else {
                        continue;
                    };
                    if let Message::Manifest { piece, .. } | Message::Part { piece, .. } =
                        &mut message
                    {
                        seen += 1;
                        if seen == number + 1 && at < piece.len() {
                            let mut bytes = piece.to_vec();
                            bytes[at] ^= 0x10;
                            *piece = bytes.into();
                            is_changed = true;
                        }
                    }
                    match sides[side].handle(message).await {
                        Ok(sent) => sides[1 - side].inbox.extend(sent),
                        Err(error) => failed = Some(error),
                    }
                }
                if let Some(error) = failed {
                    break Err(error);
                }
            };
            let refused = sides[0].refused.take();
            drop(sides);
            assert!(is_changed, "piece {number}, byte {at}");
            match (outcome, refused) {
                (Err(Failed::Base(error)), _) => {
                    assert!(error.is_fault(), "{error}");
                    faults += 1;
                }
                (Err(error), _) => panic!("{error:?}"),
                (Ok(()), Some(TakeBaseError::NotNamed { .. })) => refusals += 1,
                (Ok(()), other) => panic!("piece {number}, byte {at}: {other:?}"),
            }
            assert_eq!(listed(&new.store).await, before);
            assert_eq!(new.store.begins(), Frontier::default());
            if at == 0 {
                sync_all(&new.store, &pruned.store).await;
                assert_equal(&new, &pruned).await;
            }
        }
    }
    assert!(
        faults > 10 && faults + refusals > 20,
        "{faults} faults, {refusals} refusals"
    );
}

/// The peer folds and removes more while its base is on the way.
#[tokio::test]
async fn peer_that_moves_to_its_next_base_midway_serves_the_one_that_was_asked_for() {
    let (pruned, new) = (pruned().await, Chains::with(0).await);
    let first = trust(&new, &pruned);
    let mut sides = begin(&new.store, &pruned.store).await;
    let is_part = |it: &Message| matches!(it, Message::Part { .. });
    let done = drive(&mut sides, |_, inbox| inbox.iter().any(is_part))
        .await
        .unwrap();
    assert!(!done);
    pruned.drop_before(15, 15).await;
    let second = pruned.store.offered_base().unwrap().hash();
    assert_ne!(first, second);
    drive(&mut sides, |_, _| false).await.unwrap();
    assert_eq!(sides[0].summary.unwrap().base, BaseNeed::Installed);
    drop(sides);
    assert_eq!(new.store.begins(), new_begins(&new));
    // Then it lacks entries again.
    let [side, _] = sync_sides(&new.store, &pruned.store).await;
    assert!(matches!(side.refused, Some(TakeBaseError::NotNamed { hash }) if hash == second));
    trust(&new, &pruned);
    assert_eq!(sync_all(&new.store, &pruned.store).await, 1);
    assert_equal(&new, &pruned).await;
}

fn new_begins(chains: &Chains) -> Frontier {
    chains.tips(B, C)
}

/// Acts name two bases, and one peer gives each. They erased each other's parts, so neither was ever whole.
#[tokio::test]
async fn newest_of_two_bases_is_taken_and_its_parts_stay() {
    let (old, new) = (pruned().await, Chains::new().await);
    new.drop_before(15, 15).await;
    let mut taker = Chains::with(0).await;
    let older = trust(&taker, &old);
    let newer = trust(&taker, &new);
    let mut before = 0;
    // The store is opened again between the two attempts of the second round.
    for is_opened_again in [false, true] {
        let mut sides = begin(&taker.store, &new.store).await;
        let is_end = |it: &Message| matches!(it, Message::Part { last: true, .. });
        // All of a part has come but its end.
        let done = drive(&mut sides, |_, inbox| inbox.front().is_some_and(is_end));
        assert!(!done.await.unwrap(), "it has ended");
        let here = sides[0].taken.as_ref().unwrap().progress().bytes;
        assert!(here >= before && here > 0, "{here} bytes after {before}");
        before = here;
        drop(sides);
        if is_opened_again {
            taker.reopen().await;
            trust(&taker, &old);
            trust(&taker, &new);
        }
        let [side, _] = sync_sides(&taker.store, &old.store).await;
        let refused = side.refused.unwrap();
        let is_older = matches!(
            refused,
            TakeBaseError::Older { hash, newer: by } if hash == older && by == newer
        );
        assert!(is_older && !refused.is_fault(), "{refused}");
    }
    // Nothing of the newer one comes any more.
    taker.clock.set(taker.clock.now_ms() + BASE_IDLE_MS);
    let [side, _] = sync_sides(&taker.store, &old.store).await;
    assert_eq!(side.summary.unwrap().base, BaseNeed::Installed);
    drop(side);
    sync_all(&taker.store, &new.store).await;
    assert_equal(&taker, &new).await;
}

/// The disk gives back other bytes of one part than came.
#[tokio::test]
async fn damaged_part_alone_is_asked_for_again_and_not_without_end() {
    let (pruned, taker) = (pruned().await, Chains::with(0).await);
    trust(&taker, &pruned);
    let parts = pruned.store.offered_base().unwrap().parts().len();
    for attempt in 1..=BASE_TRIES_MAX {
        let mut sides = begin(&taker.store, &pruned.store).await;
        let (mut asked, mut refused) = (0, None);
        while refused.is_none() && sides.iter().any(|side| side.summary.is_none()) {
            for at in [0, 1] {
                let Some(message) = sides[at].inbox.pop_front() else {
                    continue;
                };
                asked += usize::from(matches!(message, Message::WantPart { .. }));
                if matches!(message, Message::Part { last: true, .. }) {
                    damage_one_part(&taker);
                }
                match sides[at].handle(message).await {
                    Ok(sent) => sides[1 - at].inbox.extend(sent),
                    Err(error) => refused = Some(error),
                }
            }
        }
        let Some(Failed::Base(error)) = refused else {
            panic!("attempt {attempt}: {refused:?}")
        };
        assert!(!error.is_fault(), "{error}");
        let expected = if attempt == 1 { parts } else { 1 };
        assert_eq!(asked, expected, "attempt {attempt}: {error}");
        assert!(taker.store.frontier().is_empty());
    }
    let [side, _] = sync_sides(&taker.store, &pruned.store).await;
    let refused = side.refused.unwrap();
    assert!(matches!(refused, TakeBaseError::Unfit { .. }), "{refused}");
}

// Changes a byte of the first whole part that is on its way.
fn damage_one_part(taker: &Chains) {
    let image = taker.disk.image();
    let mut names = image.keys();
    let path = names.find(|path| path.extension().is_some_and(|it| it == "come"));
    let Some(path) = path else { return };
    let file = taker.disk.open(path, Open::Existing).unwrap();
    file.write_at(&[0xff; 3], 20).unwrap();
}

/// Entries that came early wait in memory for those before them, which nobody has any more.
#[tokio::test]
async fn entries_that_wait_are_applied_after_the_installation() {
    let (pruned, new) = (pruned().await, Chains::with(4).await);
    for entry in &pruned.entries[26..] {
        let bytes = entry.signed.encode().into();
        drop(new.store.ingest(vec![bytes]).await.unwrap());
    }
    assert!(new.store.status().await.pending_entries > 10);
    trust(&new, &pruned);
    let [one, _] = sync(&new.store, &pruned.store).await;
    assert_eq!(one.base, BaseNeed::Installed);
    sync_all(&new.store, &pruned.store).await;
    assert_eq!(new.store.status().await.pending_entries, 0);
    assert_equal(&new, &pruned).await;
}
