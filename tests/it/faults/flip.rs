//! Flipped bits in a log: each is found and located, and nothing else is lost.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use lattice::{
    disk::DiskFile,
    id::Seq,
    log::{
        frame::{Found, FrameHeader, look},
        record::{Record, Step, Walk},
    },
    protocol::entry::{SignedEntry, VerifiedEntry},
    store::DamagePlace,
};

use crate::support::random::Random;

use super::setup::{
    author_a, author_b, config, encoded, key, log_path, next_of_b, open, put, shown, shown_of,
    signed, soak, soon, state_path, sums_path,
};
use crate::support::{disk::MemDisk, threads::on_two_threads};

/// A frame of a log, seals included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) offset: usize,
    pub(super) end: usize,
    pub(super) header: FrameHeader,
}

/// Returns the frames of a sound log.
pub(super) fn frames(log: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut offset = 0;
    while let Found::Frame(header) = look(&log[offset..], offset as u64) {
        let end = offset + header.frame_bytes();
        frames.push(Frame {
            offset,
            end,
            header,
        });
        offset = end;
        if offset == log.len() {
            break;
        }
    }
    frames
}

/// Writes a record at `offset` and returns its end.
pub(super) fn write_frame(
    log: &mut Vec<u8>,
    offset: usize,
    entry: &VerifiedEntry,
    synced: u64,
) -> usize {
    let payload = entry.signed.encode();
    let header = FrameHeader {
        length: u32::try_from(payload.len()).unwrap(),
        seq: entry.header.seq,
        synced,
        arrived_ms: super::setup::NOW_MS,
        hlc: entry.header.hlc,
        author: entry.author(),
        id: entry.id,
        seal: false,
    };
    let bytes = [header.encode(offset as u64).as_slice(), &payload].concat();
    let end = offset + bytes.len();
    log.resize(log.len().max(end), 0);
    log[offset..end].copy_from_slice(&bytes);
    end
}

/// A log of one author in memory.
fn log_of(bytes_max: usize, value_bytes: usize) -> (Vec<u8>, Vec<VerifiedEntry>) {
    let mut log = Vec::new();
    let mut entries: Vec<VerifiedEntry> = Vec::new();
    let mut random = Random::new(99);
    loop {
        let value = vec![b'v'; random.below(value_bytes)];
        let ops = vec![put(format!("/key/{}", random.below(1000)), value)];
        let entry = signed(&key(1), super::setup::STORE, entries.last(), vec![], ops);
        let end = log.len();
        let next = write_frame(&mut log, end, &entry, end as u64);
        if next > bytes_max {
            log.truncate(end);
            log.resize(bytes_max, 0);
            return (log, entries);
        }
        entries.push(entry);
    }
}

/// Bytes with one bit turned.
#[derive(Debug)]
struct Flipped {
    bytes: Arc<Vec<u8>>,
    bit: AtomicU64,
}

impl DiskFile for Flipped {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&self.bytes[from..from + buf.len()]);
        let bit = usize::try_from(self.bit.load(Ordering::Relaxed)).unwrap();
        if let Some(byte) = (bit / 8).checked_sub(from).and_then(|at| buf.get_mut(at)) {
            *byte ^= 1 << (bit % 8);
        }
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[test]
fn s3_s4_s5_every_flipped_bit_is_located() {
    let started = Instant::now();
    let (log, entries) = log_of(64 << 10, 2000);
    let (log, places) = (Arc::new(log.clone()), frames(&log));
    assert_eq!(places.len(), entries.len());
    let used = places.last().unwrap().end;
    let bits = log.len() * 8;
    let parts = 64;
    on_two_threads(parts, |part| {
        let file = Arc::new(Flipped {
            bytes: Arc::clone(&log),
            bit: AtomicU64::new(0),
        });
        for bit in part * bits / parts..(part + 1) * bits / parts {
            file.bit.store(bit as u64, Ordering::Relaxed);
            check_flip(&file, &log, &places, used, bit);
        }
        async {}
    });
    eprintln!(
        "{bits} flips, {} records, {:?}",
        places.len(),
        started.elapsed()
    );
    assert_eq!(bits, 524_288);
}

fn check_flip(file: &Arc<Flipped>, log: &[u8], places: &[Frame], used: usize, bit: usize) {
    let byte = bit / 8;
    let hit = places
        .iter()
        .position(|at| (at.offset..at.end).contains(&byte));
    let mut walk = Walk::new(Arc::<Flipped>::clone(file), 0, log.len() as u64, log.len());
    let mut next = 0;
    let mut found = false;
    while let Some(step) = walk.step().unwrap() {
        match step {
            Step::Record(record) => {
                // Only the record that was hit may have been passed over.
                if hit == Some(next) && record.offset != places[next].offset as u64 {
                    next += 1;
                }
                let place = &places[next];
                assert_eq!(record.offset, place.offset as u64, "bit {bit}");
                let same = record.header == place.header
                    && record.payload == log[place.end - record.payload.len()..place.end];
                if hit == Some(next) {
                    assert!(!same && record.entry().is_err(), "bit {bit} is not found");
                    found = true;
                } else {
                    assert!(same, "bit {bit} changes record {next}");
                }
                next += 1;
            }
            Step::Bad {
                offset,
                bytes,
                zeros,
            } => {
                let (from, to) = (offset, offset + bytes);
                if byte >= used {
                    assert!(!zeros && from == used as u64, "bit {bit} in the room");
                    found = true;
                } else if from < used as u64 {
                    assert!((from..to).contains(&(byte as u64)), "bit {bit}");
                    let place = &places[hit.unwrap()];
                    assert_eq!(from, place.offset as u64, "bit {bit} is elsewhere");
                    let room = hit == Some(places.len() - 1);
                    assert!(
                        room || to == place.end as u64,
                        "bit {bit} takes others along"
                    );
                    found = true;
                } else {
                    assert!(zeros, "bit {bit}: the room is still empty");
                }
            }
        }
    }
    assert!(found, "bit {bit} is not found");
    let lost = usize::from(hit == Some(places.len() - 1) && next == places.len() - 1);
    assert_eq!(next + lost, places.len(), "bit {bit} loses records");
}

/// An attacker that recomputes the hashes cannot forge the signature.
#[test]
fn s4_flips_with_valid_hashes_fail_the_signature() {
    let mut random = super::setup::random(4);
    let (_, entries) = log_of(16 << 10, 300);
    let mut refused = 0;
    for _ in 0..soak(1000) {
        let entry = &entries[random.below(entries.len())];
        let mut signed = entry.signed.clone();
        let turn = |bytes: &Bytes, bit: usize| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            Bytes::from(bytes)
        };
        let bits = (signed.header.len() + 64 + 32) * 8;
        match random.below(bits) {
            bit if bit < 64 * 8 => signed.signature[bit / 8] ^= 1 << (bit % 8),
            bit if bit < 96 * 8 => signed.author.0[bit / 8 - 64] ^= 1 << (bit % 8),
            bit => signed.header = turn(&signed.header, bit - 96 * 8),
        }
        let bytes = Bytes::from(signed.encode());
        let parsed = SignedEntry::decode(bytes).and_then(SignedEntry::parse);
        if let Ok(entry) = parsed {
            assert!(entry.verify().is_err());
            refused += 1;
        }
    }
    assert!(refused >= 500, "{refused} signatures are too few");
}

// A store with two authors, closed cleanly.
async fn closed() -> (MemDisk, super::setup::Known) {
    let disk = MemDisk::default();
    let store = open(&disk).await.unwrap();
    for n in 0..30 {
        let value = vec![b'x'; if n % 10 == 3 { 3000 } else { 40 }];
        soon(store.put(format!("/k/{n}"), value)).await.unwrap();
    }
    let b1 = next_of_b(None, vec![], vec![put("/k/1", "b"), put("/b", "b")]);
    let b2 = next_of_b(Some(&b1), vec![], vec![put("/k/2", "b")]);
    soon(store.ingest(encoded(&[&b1, &b2]))).await.unwrap();
    let known = super::setup::all_entries(&store).await;
    soon(store.close()).await.unwrap();
    (disk, known)
}

#[test]
fn s4_flip_in_a_sealed_log_costs_one_record() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (disk, known) = runtime.block_on(closed());
    let image = disk.image();
    let log = &image[&log_path(&author_a())];
    let places = frames(log);
    assert!(places.last().unwrap().header.seal);
    let mut random = super::setup::random(5);
    let bits: Vec<_> = (0..soak(400))
        .map(|_| random.below(log.len() * 8))
        .collect();
    on_two_threads(bits.len(), |n| {
        let (bit, mut image) = (bits[n], image.clone());
        let (known, places) = (&known, &places);
        // Every other time the state is there and need not look at the log.
        let with_state = n % 2 == 0;
        image.get_mut(&log_path(&author_a())).unwrap()[bit / 8] ^= 1 << (bit % 8);
        if !with_state {
            image.remove(&state_path()).unwrap();
            image.remove(&sums_path()).unwrap();
        }
        async move {
            let hit = places
                .iter()
                .find(|place| (place.offset..place.end).contains(&(bit / 8)))
                .unwrap();
            check_sealed(image, known, hit, with_state, bit).await;
        }
    });
}

async fn check_sealed(
    image: crate::support::disk::Image,
    known: &super::setup::Known,
    hit: &Frame,
    with_state: bool,
    bit: usize,
) {
    let disk = MemDisk::new(&image);
    let store = open(&disk).await.unwrap();
    let context = format!("bit {bit}, state {with_state}, frame {hit:?}");
    let own = author_a();
    let lost: Seq = if hit.header.seal { 0 } else { hit.header.seq };
    let tip = known[&(own, 0)].len() as u64;
    // With its state the store shows everything; without, all but what the record said.
    let left = || {
        let entries = known.values().flatten();
        entries.filter(|entry| with_state || entry.author() != own || entry.header.seq != lost)
    };
    let expected = shown_of(left());
    for (key, row) in &expected {
        let heads = soon(store.heads(key)).await;
        let in_log = row
            .iter()
            .any(|(_, value)| value.as_ref().is_some_and(|v| v.len() > 1024));
        match heads {
            Ok(heads) => {
                let heads: super::setup::Shown = heads
                    .into_iter()
                    .map(|head| (head.entry.id, head.value))
                    .collect();
                assert!(heads == *row, "{context}: {key:?}");
            }
            Err(error) => assert!(in_log && with_state, "{context}: {key:?}: {error}"),
        }
    }
    let report = soon(store.verify()).await.unwrap();
    let damage: Vec<_> = report
        .damage
        .iter()
        .filter(|damage| damage.place != DamagePlace::State)
        .collect();
    if lost == 0 {
        // A seal says nothing that is not known from elsewhere.
        assert!(
            report.damage.iter().all(|d| d.offset == hit.offset as u64),
            "{context}"
        );
    } else {
        assert_eq!(damage.len(), 1, "{context}: {report:?}");
        assert_eq!(
            (damage[0].author, damage[0].seq, damage[0].offset),
            (Some(own), Some(lost), hit.offset as u64),
            "{context}"
        );
        if !with_state {
            let status = soon(store.status()).await;
            assert_eq!(status.damage.len(), 1, "{context}: {:?}", status.damage);
        }
    }
    // The place of the lost entry is not used again.
    let written = soon(store.put("/after", "flip")).await.unwrap();
    assert_eq!(written.seq, tip + 1, "{context}");
    soon(store.close()).await.unwrap();
    let log = &disk.image()[&log_path(&own)];
    let before = &image[&log_path(&own)];
    if lost != 0 {
        assert_eq!(log[..before.len()], before[..], "{context}: nothing is cut");
    }
}

/// The state remembers how far the log was durable, and the newest record before that was hit
/// while newer ones follow: the store must open.
#[tokio::test]
async fn s4_flip_at_the_frontier_does_not_stop_the_store() {
    let disk = MemDisk::default();
    let store = open(&disk).await.unwrap();
    soon(store.put("/a", "1")).await.unwrap();
    soon(store.put("/b", "2")).await.unwrap();
    super::setup::flushed().await;
    soon(store.put("/c", "3")).await.unwrap();
    let known = super::setup::all_entries(&store).await;
    let image = disk.image();
    drop(store);
    let places = frames(&image[&log_path(&author_a())]);
    for byte in places[1].offset..places[1].end {
        let mut image = image.clone();
        image.get_mut(&log_path(&author_a())).unwrap()[byte] ^= 1;
        let store = soon(lattice::Store::open(config(&MemDisk::new(&image)))).await;
        let store = store.unwrap_or_else(|error| panic!("byte {byte}: {error}"));
        let expected = shown_of(known.values().flatten());
        let rows = shown(&store, expected.keys()).await.unwrap();
        assert_eq!(rows, expected, "byte {byte}");
    }
}

/// The same for an author with two branches, whose places must be looked up in the log.
#[tokio::test]
async fn s4_flips_in_a_forked_log_do_not_stop_the_store() {
    let disk = MemDisk::default();
    let store = open(&disk).await.unwrap();
    let b1 = next_of_b(None, vec![], vec![put("/b", "1")]);
    let b2 = next_of_b(Some(&b1), vec![], vec![put("/b", "2")]);
    let b3 = next_of_b(Some(&b2), vec![], vec![put("/b", "3")]);
    let fork2 = next_of_b(Some(&b1), vec![], vec![put("/b", "f2")]);
    let fork3 = next_of_b(Some(&fork2), vec![], vec![put("/b", "f3")]);
    soon(store.ingest(encoded(&[&b1, &b2, &fork2])))
        .await
        .unwrap();
    super::setup::flushed().await;
    soon(store.ingest(encoded(&[&b3, &fork3]))).await.unwrap();
    let known = super::setup::all_entries(&store).await;
    let image = disk.image();
    drop(store);
    let paths = [
        log_path(&author_b()),
        format!("/store/logs/{}.1.log", author_b()).into(),
    ];
    for path in paths {
        let places = frames(&image[&path]);
        // The last group has no later record that says it was durable.
        for place in &places[..places.len() - 1] {
            for byte in (place.offset..place.end).step_by(7) {
                let mut image = image.clone();
                image.get_mut(&path).unwrap()[byte] ^= 1;
                let store = open(&MemDisk::new(&image)).await;
                let store = store.unwrap_or_else(|error| panic!("{path:?} {byte}: {error}"));
                let found = soon(store.heads(b"/b")).await.unwrap();
                for entry in known.values().filter_map(|entries| entries.last()) {
                    let there = found.iter().any(|head| head.entry.id == entry.id);
                    assert!(there, "{path:?} {byte}: {found:?}");
                }
            }
        }
    }
}

/// A record is what its frame says, or it is damage: also where both are sound by themselves.
#[test]
fn frame_of_another_entry_is_damage() {
    let (_, entries) = log_of(4 << 10, 10);
    let (one, two) = (&entries[0], &entries[1]);
    let record = |header: FrameHeader| Record {
        offset: 0,
        header,
        payload: Bytes::from(one.signed.encode()),
    };
    let header = FrameHeader {
        length: 0,
        seq: 1,
        synced: 0,
        arrived_ms: 0,
        hlc: one.header.hlc,
        author: one.author(),
        id: one.id,
        seal: false,
    };
    assert!(record(header).entry().is_ok());
    assert!(
        record(FrameHeader {
            id: two.id,
            ..header
        })
        .entry()
        .is_err()
    );
    assert!(record(FrameHeader { seq: 2, ..header }).entry().is_err());
    let hlc = two.header.hlc;
    assert!(record(FrameHeader { hlc, ..header }).entry().is_err());
    let author = author_b();
    assert!(record(FrameHeader { author, ..header }).entry().is_err());
}
