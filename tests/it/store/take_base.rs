//! A base of a peer in place of entries that were removed there.

use std::collections::VecDeque;

use lattice::{
    Store,
    id::Seq,
    protocol::{
        anchors_act::BaseHash,
        frontier::{Frontier, FrontierTip},
        sync::{BaseNeed, Message, SyncError},
    },
    store::{InstallError, TakeBaseError, WatchEvent, WatchOptions},
};

use crate::support::{
    disk::{Image, MemDisk},
    model::{AUTHOR_A, author_of},
    pruned::{Chains, ENTRIES, SEGMENT_BYTES, listed},
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
        TakeBaseError::Install(InstallError::Cannot(lattice::log::CannotInstall::Apart {
            seq: 10,
            ..
        }))
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
    let expected = InstallError::from(lattice::log::CannotInstall::OwnLogBehind { ours, theirs });
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
