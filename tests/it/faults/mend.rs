//! Damage that peers can repair: the entries that they send fill the holes.

use lattice::{
    Store, log::frame::FRAME_HEADER_BYTES, protocol::entry::VerifiedEntry, store::Ingested,
};

use super::{
    flip,
    setup::{
        Known, STORE, all_entries, author_a, author_b, encoded, key, log_path, next_of_b, open,
        put, random, signed, soon, state_path, sums_path,
    },
};
use crate::support::disk::{Image, MemDisk};

// A store that was closed twice, so that a seal is in the middle of its log.
async fn closed() -> (Image, Known, [u8; 32]) {
    let disk = MemDisk::default();
    let mut b = None;
    for half in 0..2 {
        let store = open(&disk).await.unwrap();
        for n in 0..5 {
            let value = vec![n + 1; if n == 3 { 3000 } else { 60 }];
            soon(store.put(format!("/k/{half}/{n}"), value))
                .await
                .unwrap();
        }
        let next = next_of_b(b.as_ref(), vec![], vec![put("/b", format!("{half}"))]);
        soon(store.ingest(encoded(&[&next]))).await.unwrap();
        b = Some(next);
        soon(store.close()).await.unwrap();
    }
    let store = open(&disk).await.unwrap();
    let (known, hash) = (all_entries(&store).await, soon(store.state_hash()).await);
    soon(store.close()).await.unwrap();
    (disk.image(), known, hash.unwrap())
}

async fn is_whole(store: &Store, hash: [u8; 32], context: &str) {
    let status = soon(store.status()).await;
    assert_eq!(status.damage, [""; 0], "{context}");
    assert_eq!(status.poisoned, None, "{context}");
    assert_eq!(soon(store.missing()).await.unwrap(), [], "{context}");
    assert_eq!(soon(store.verify()).await.unwrap().damage, [], "{context}");
    assert_eq!(soon(store.state_hash()).await.unwrap(), hash, "{context}");
}

// Opens it, gives it what peers have, and looks whether all is as it was.
async fn mends(image: &Image, entries: &[&VerifiedEntry], hash: [u8; 32], context: &str) {
    let disk = MemDisk::new(image);
    let store = open(&disk).await.unwrap();
    let found = soon(store.verify()).await.unwrap().damage;
    assert!(!found.is_empty(), "{context}: nobody noticed");
    for round in 0.. {
        let missing = soon(store.missing()).await.unwrap();
        if missing.is_empty() {
            break;
        }
        // One hole can hide the entries missing in another one.
        assert!(round < 4, "{context}: {missing:?} is still missing");
        soon(store.ingest(encoded(entries))).await.unwrap();
    }
    is_whole(&store, hash, context).await;
    let written = soon(store.put("/after", "x")).await.unwrap();
    assert_eq!(written.seq, 11, "{context}");
    soon(store.delete("/after")).await.unwrap();
    soon(store.close()).await.unwrap();
    let store = open(&disk).await.unwrap();
    assert_eq!(soon(store.verify()).await.unwrap().damage, [], "{context}");
    let written = soon(store.put("/after", "x")).await.unwrap();
    assert_eq!(written.seq, 13, "{context}");
}

fn without_state(mut image: Image) -> Image {
    image.remove(&state_path());
    image.remove(&sums_path());
    image
}

#[tokio::test]
async fn s4_flipped_bits_are_mended_from_peers() {
    let (image, known, hash) = closed().await;
    let mut random = random(41);
    for author in [author_a(), author_b()] {
        let path = log_path(&author);
        let entries: Vec<_> = known[&(author, 0)].iter().collect();
        let places = flip::frames(&image[&path]);
        for place in places.iter().filter(|place| !place.header.seal) {
            // In the frame's header, and behind it.
            for bytes in [
                place.offset..place.offset + FRAME_HEADER_BYTES,
                place.offset + FRAME_HEADER_BYTES..place.end,
            ] {
                let mut image = image.clone();
                let at = bytes.start + random.below(bytes.len());
                image.get_mut(&path).unwrap()[at] ^= 1 << random.below(8);
                let seq = place.header.seq;
                let context = format!("a bit of byte {at}, entry {seq} of {author}");
                mends(&image, &entries, hash, &context).await;
                // A missing end that no durable length shows is not damage: see `Seen`.
                if places
                    .iter()
                    .any(|later| later.offset > place.offset && !later.header.seal)
                {
                    let image = without_state(image);
                    mends(&image, &entries, hash, &format!("{context}, no state")).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn s6_zeros_anywhere_are_mended_from_peers() {
    let (image, known, hash) = closed().await;
    let path = log_path(&author_a());
    let entries: Vec<_> = known[&(author_a(), 0)].iter().collect();
    let len = image[&path].len();
    let mut random = random(42);
    for _ in 0..60 {
        let from = random.below(len - 110);
        let to = from + 1 + random.below((len - from - 1).min(1500));
        let mut image = image.clone();
        image.get_mut(&path).unwrap()[from..to].fill(0);
        mends(
            &image,
            &entries,
            hash,
            &format!("zeros {from}..{to} of {len}"),
        )
        .await;
    }
}

#[tokio::test]
async fn s2_cut_log_gets_its_end_back() {
    let (image, known, hash) = closed().await;
    let path = log_path(&author_a());
    let entries: Vec<_> = known[&(author_a(), 0)].iter().collect();
    let len = image[&path].len();
    // The seal at the end is not an entry.
    for cut in (0..len - FRAME_HEADER_BYTES).step_by(97) {
        let mut image = image.clone();
        image.get_mut(&path).unwrap().truncate(cut);
        mends(&image, &entries, hash, &format!("cut to {cut} of {len}")).await;
    }
    let mut gone = image.clone();
    gone.remove(&path).unwrap();
    mends(&gone, &entries, hash, "gone").await;
}

#[tokio::test]
async fn s4_other_entry_does_not_fill_a_hole() {
    let (mut image, known, hash) = closed().await;
    let path = log_path(&author_b());
    let entries: Vec<_> = known[&(author_b(), 0)].iter().collect();
    let first = &flip::frames(&image[&path])[0];
    image.get_mut(&path).unwrap()[first.offset + 120] ^= 1;
    let disk = MemDisk::new(&image);
    let store = open(&disk).await.unwrap();
    soon(store.verify()).await.unwrap();
    let missing = soon(store.missing()).await.unwrap();
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].1.id, entries[0].id);
    // Authentic, of the right author, in the right place, and as long.
    let other = signed(&key(2), STORE, None, vec![], vec![put("/b", "9")]);
    soon(store.ingest(encoded(&[&other]))).await.unwrap();
    assert_eq!(soon(store.missing()).await.unwrap(), missing);
    soon(store.ingest(encoded(&entries))).await.unwrap();
    is_whole(&store, hash, "with the right one").await;
}

#[tokio::test]
async fn s2_entries_given_up_are_taken_in_again() {
    let (mut image, known, hash) = closed().await;
    let path = log_path(&author_a());
    let entries: Vec<_> = known[&(author_a(), 0)].iter().collect();
    let len = image[&path].len();
    image.get_mut(&path).unwrap().truncate(len / 2);
    let disk = MemDisk::new(&image);
    let store = open(&disk).await.unwrap();
    // A session has asked for the missing entries, in vain.
    assert!(!soon(store.missing()).await.unwrap().is_empty());
    let lost = soon(store.repair()).await.unwrap().lost;
    let first = usize::try_from(lost[0].first).unwrap() - 1;
    let outcomes = soon(store.ingest(encoded(&entries[first..])))
        .await
        .unwrap();
    let applied = entries[first..]
        .iter()
        .map(|entry| Ingested::Applied(entry.id));
    assert_eq!(outcomes, applied.collect::<Vec<_>>());
    is_whole(&store, hash, "given up, and back").await;
}

#[tokio::test]
async fn s4_mended_record_does_not_hide_damage_next_to_it() {
    let (mut image, known, hash) = closed().await;
    let path = log_path(&author_a());
    let entries: Vec<_> = known[&(author_a(), 0)].iter().collect();
    let places = flip::frames(&image[&path]);
    for place in &places[1..3] {
        image.get_mut(&path).unwrap()[place.offset + FRAME_HEADER_BYTES] ^= 1;
    }
    let disk = MemDisk::new(&image);
    let store = open(&disk).await.unwrap();
    soon(store.verify()).await.unwrap();
    assert_eq!(soon(store.missing()).await.unwrap().len(), 2);
    soon(store.ingest(encoded(&entries[1..2]))).await.unwrap();
    assert_eq!(soon(store.status()).await.damage.len(), 1);
    assert_eq!(soon(store.missing()).await.unwrap().len(), 1);
    soon(store.ingest(encoded(&entries[2..3]))).await.unwrap();
    is_whole(&store, hash, "one after the other").await;
}

// Opens it, and what peers have comes before anybody has looked what is missing, as an announcement
// does.
async fn nothing_comes_twice(
    image: &Image,
    entries: &[&VerifiedEntry],
    hash: [u8; 32],
    context: &str,
) {
    let store = open(&MemDisk::new(image)).await.unwrap();
    for entry in entries {
        let outcomes = soon(store.ingest(encoded(&[entry]))).await.unwrap();
        assert_eq!(outcomes, [Ingested::Duplicate(entry.id)], "{context}");
    }
    assert_eq!(soon(store.status()).await.forks, [], "{context}");
    is_whole(&store, hash, context).await;
}

/// The file of a log is gone, or a bit of it is flipped, and nobody has asked what is missing when
/// an announcement brings one of its entries. Its place seemed free: it was taken in once more, as a
/// fork of itself. Now the log is looked through first.
#[tokio::test]
async fn s4_unreadable_entry_is_not_appended_again() {
    let (image, known, hash) = closed().await;
    for author in [author_a(), author_b()] {
        let path = log_path(&author);
        let entries: Vec<_> = known[&(author, 0)].iter().collect();
        let mut gone = image.clone();
        gone.remove(&path).unwrap();
        nothing_comes_twice(&gone, &entries, hash, &format!("{author} gone")).await;
        let places = flip::frames(&image[&path]);
        let last = places.iter().rposition(|place| !place.header.seal).unwrap();
        for (number, place) in places.iter().enumerate() {
            // The last one's place is known without reading it.
            if place.header.seal || number == last {
                continue;
            }
            let mut image = image.clone();
            image.get_mut(&path).unwrap()[place.offset + FRAME_HEADER_BYTES] ^= 1;
            let context = format!("entry {} of {author}", place.header.seq);
            nothing_comes_twice(&image, &entries, hash, &context).await;
            let image = without_state(image);
            nothing_comes_twice(&image, &entries, hash, &format!("{context}, no state")).await;
        }
    }
}

/// The newest entry of somebody else cannot be read when the state is lost. Its stamp was lost with
/// it, and what came next was refused, or had to wait: now the frame has the stamp, and so has the
/// seal behind it.
#[tokio::test]
async fn s4_successor_of_an_unreadable_entry_is_applied() {
    let (image, known, _hash) = closed().await;
    let path = log_path(&author_b());
    let entries = &known[&(author_b(), 0)];
    let places = flip::frames(&image[&path]);
    let last = places.iter().rfind(|place| !place.header.seal).unwrap();
    // In the frame's header, and behind it.
    for at in [last.offset + 50, last.offset + FRAME_HEADER_BYTES] {
        let mut image = without_state(image.clone());
        image.get_mut(&path).unwrap()[at] ^= 1;
        let store = open(&MemDisk::new(&image)).await.unwrap();
        let last = entries.last().unwrap();
        let next = next_of_b(Some(last), vec![], vec![put("/b", "next")]);
        let take = async |entry| {
            let taken = soon(store.ingest(encoded(&[entry]))).await;
            taken.unwrap().remove(0)
        };
        assert_eq!(take(&next).await, Ingested::Applied(next.id));
        assert_eq!(soon(store.missing()).await.unwrap().len(), 1);
        assert_eq!(take(last).await, Ingested::Duplicate(last.id));
        assert_eq!(soon(store.verify()).await.unwrap().damage, []);
    }
}
