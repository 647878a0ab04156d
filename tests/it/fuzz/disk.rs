//! Bytes on disk: frames and records of a log, rows of the state and of consumers.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use lattice::{
    disk::{Disk, Open},
    id::{Author, EntryId},
    limits::{STAMP_MS_MAX, VALUE_INLINE_BYTES_MAX},
    log::{
        frame::{FRAME_HEADER_BYTES, Found, FrameHeader, look, resync},
        record::{Step, Walk},
    },
    protocol::{
        change::{EntryRef, Kind},
        consumer::{
            ChangeRef, ConsumerRow, Counts, DeadLetter, DeathReason, OnGap, Outstanding, Place,
            Rules, State, decode_change, decode_consumer, encode_change, encode_consumer,
        },
        cursor::Cursor,
        entry::Entry,
        gap::Gap,
        heads::{Content, Head, Heads, Value},
        heads_row::{decode_heads, encode_heads},
        hlc::Hlc,
    },
    state::row::{decode_cause, encode_cause, seal, unseal},
    wire,
};

use prost::Message as _;

use super::entries::honest_entries;
use crate::support::{
    disk::{Image, MemDisk},
    model::STORE,
    mutator::{Corpus, fuzz, number},
    random::Random,
};

fn frame_of(entry: &Entry, payload: &[u8]) -> FrameHeader {
    FrameHeader {
        length: u32::try_from(payload.len()).unwrap(),
        seq: entry.header.seq,
        synced: 0,
        arrived_ms: 1_700_000_000_000,
        hlc: entry.header.hlc,
        author: entry.author(),
        id: entry.id,
        seal: false,
    }
}

// The bytes of a log file: each entry, a seal, and room that is not used yet.
fn log_file() -> Vec<u8> {
    let mut file = Vec::new();
    let mut last = None;
    for entry in honest_entries() {
        let payload = entry.signed.encode();
        let header = frame_of(&entry, &payload);
        file.extend(header.encode(file.len() as u64));
        file.extend(payload);
        last = Some(header);
    }
    let seal = FrameHeader {
        length: 0,
        seal: true,
        ..last.unwrap()
    };
    file.extend(seal.encode(file.len() as u64));
    file.extend([0; 500]);
    file
}

// Makes the check of a frame at `offset` right.
fn with_check(header: &mut [u8], offset: u64) {
    let at = FRAME_HEADER_BYTES - 8;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&offset.to_le_bytes()).update(&header[..at]);
    header[at..].copy_from_slice(&hasher.finalize().as_bytes()[..8]);
}

#[test]
fn s5_frame_with_a_right_check() {
    let entries = honest_entries();
    let frames = entries.iter().map(|entry| {
        let header = frame_of(entry, &entry.signed.encode());
        header.encode(0).to_vec()
    });
    let mut random = Random::new(9);
    fuzz(&Corpus::new(frames), |input| {
        let mut bytes = input.to_vec();
        let offset = if random.once_in(2) {
            0
        } else {
            number(&mut random)
        };
        if let Some(header) = bytes.first_chunk_mut::<FRAME_HEADER_BYTES>() {
            with_check(header, offset);
        }
        assert!(resync(&bytes, 0).is_none_or(|at| at > 0 && at < bytes.len()));
        match look(&bytes, offset) {
            Found::Cut { bytes: needed } => assert!(needed > bytes.len()),
            Found::Frame(header) => assert!(header.frame_bytes() <= bytes.len()),
            Found::Zeros | Found::Bad => {}
        }
        let Some(header) = FrameHeader::decode(&bytes, offset) else {
            return false;
        };
        assert_eq!(header.encode(offset), bytes[..FRAME_HEADER_BYTES]);
        assert_eq!(FrameHeader::decode(&bytes, offset.wrapping_add(1)), None);
        true
    });
}

fn walk(disk: &MemDisk, path: &Path, bytes: u64, headers: bool) -> Vec<Step> {
    let file: Arc<dyn lattice::disk::DiskFile> = disk.open(path, Open::Existing).unwrap();
    let mut walk = if headers {
        Walk::headers(file, 0, bytes)
    } else {
        Walk::new(file, 0, bytes, 1 << 12)
    };
    let mut steps = Vec::new();
    while let Some(step) = walk.step().unwrap() {
        steps.push(step);
    }
    steps
}

#[test]
fn s3_s4_s5_s6_file_of_a_log() {
    let path = Path::new("/a.log");
    let entries: BTreeMap<EntryId, Entry> = honest_entries()
        .into_iter()
        .map(|entry| (entry.id, entry))
        .collect();
    fuzz(&Corpus::new([log_file()]), |input| {
        let image: Image = [(path.to_owned(), input.to_vec())].into();
        let disk = MemDisk::new(&image);
        let bytes = input.len() as u64;
        let mut at = 0;
        let mut found = 0;
        let steps = walk(&disk, path, bytes, false);
        for step in &steps {
            match step {
                Step::Record(record) => {
                    assert_eq!(record.offset, at);
                    at = record.end();
                    if record.header.seal {
                        continue;
                    }
                    if let Ok(entry) = record.entry() {
                        assert_eq!(entries[&entry.id], entry, "it was written");
                        found += 1;
                    }
                }
                Step::Bad { offset, bytes, .. } => {
                    assert_eq!(*offset, at);
                    assert!(*bytes > 0);
                    at += bytes;
                }
            }
        }
        assert_eq!(at, bytes, "every byte is in one step");
        let headers: Vec<_> = walk(&disk, path, bytes, true)
            .iter()
            .filter_map(|step| match step {
                Step::Record(record) => Some((record.offset, record.header)),
                Step::Bad { .. } => None,
            })
            .collect();
        let whole = steps.iter().filter_map(|step| match step {
            Step::Record(record) => Some((record.offset, record.header)),
            Step::Bad { .. } => None,
        });
        assert_eq!(headers, whole.collect::<Vec<_>>());
        found == entries.len()
    });
}

fn honest_heads() -> Vec<Heads> {
    let head = |seq, content| Head {
        hlc: Hlc::new(seq * 1000, 3).unwrap(),
        author: Author([7; 32]),
        id: EntryId([9; 32]),
        seq,
        content,
        taken_back: seq == 3,
    };
    let value = |value, expires_ms| Content::Value { value, expires_ms };
    let contents = [
        Content::Tombstone,
        value(Value::Inline(Bytes::from_static(b"v")), None),
        value(Value::Inline(Bytes::new()), Some(u64::MAX)),
        value(
            Value::InLog {
                bytes: 1 << 20,
                hash: [6; 32],
            },
            Some(7),
        ),
    ];
    let all = (1..).zip(contents).map(|(seq, it)| head(seq, it));
    let all: Vec<Head> = all.collect();
    let each = all.iter().cloned().map(Heads::one);
    each.chain([Heads::new(all.clone()), Heads::default()])
        .collect()
}

#[test]
fn s9_row_of_the_state() {
    let rows: Vec<Vec<u8>> = honest_heads().iter().map(encode_heads).collect();
    let mut long = honest_heads()[1].as_slice()[0].clone();
    long.content = Content::Value {
        value: Value::Inline(vec![7; VALUE_INLINE_BYTES_MAX + 1].into()),
        expires_ms: None,
    };
    let mut short = long.clone();
    short.content = Content::Value {
        value: Value::InLog {
            bytes: 3,
            hash: [6; 32],
        },
        expires_ms: None,
    };
    // The flags of the first head follow its stamp, ids and place.
    let flags = |flags: u8| {
        let mut row = rows[0].clone();
        row[4 + 84] |= flags;
        row
    };
    let broken = [
        encode_heads(&Heads::one(long)),
        encode_heads(&Heads::one(short)),
        flags(2),
        flags(16),
        flags(128),
    ];
    let mut unknown = rows[1].clone();
    unknown[4 + 84] |= 16;
    let corpus = Corpus::new(rows.clone()).broken(broken).broken([unknown]);
    fuzz(&corpus, |input| {
        let Some(heads) = decode_heads(input) else {
            return false;
        };
        // A head has a stamp, two ids and a place.
        assert!(heads.as_slice().len() * 84 <= input.len());
        assert_eq!(encode_heads(&heads), input, "a row has one form");
        let rank = |head: &Head| (!head.taken_back, head.order());
        assert!(heads.as_slice().is_sorted_by_key(rank));
        true
    });
    fuzz(
        &Corpus::new([encode_cause(&EntryId([4; 32]), 9)]),
        |input| {
            let Some((seq, entry)) = decode_cause(input) else {
                return false;
            };
            assert_eq!(encode_cause(&entry, seq), input);
            true
        },
    );
    let sealed = honest_heads().into_iter();
    let sealed = sealed.map(|heads| seal("heads", b"/k", encode_heads(&heads)));
    fuzz(&Corpus::new(sealed), |input| {
        let Some(body) = unseal("heads", b"/k", input) else {
            return false;
        };
        assert_eq!(unseal("heads", b"/l", input), None, "it is of one key");
        assert_eq!(unseal("causes", b"/k", input), None, "and of one table");
        decode_heads(body).is_some()
    });
}

fn rules() -> Rules {
    Rules {
        ack_wait_ms: 30_000,
        max_deliver: Some(3),
        max_in_flight: 100,
        backoff_ms: vec![0, 100, u64::MAX],
    }
}

#[test]
fn s9_row_of_a_consumer() {
    let row = |position: Option<Cursor>, stopped: Option<&str>| ConsumerRow {
        prefixes: vec![Bytes::from_static(b"/jobs/"), Bytes::new()],
        rules: rules(),
        created_ms: 1_700_000_000_000,
        paused: stopped.is_some(),
        position,
        since_authored_ms: 7,
        since_arrived_ms: u64::MAX,
        counts: Counts {
            acked: 5,
            redelivered: 6,
            gaps: 9,
        },
        last_seen_ms: 8,
        stopped: stopped.map(str::to_owned),
        on_gap: match stopped {
            Some(_) => OnGap::Stop,
            None => OnGap::State,
        },
        state_of: 10,
    };
    let position = Cursor {
        store: STORE,
        frontier: Default::default(),
        partial: None,
        expired_through_ms: 0,
    };
    let mut endless = row(None, None);
    endless.rules.max_deliver = None;
    let rows = [
        row(None, None),
        row(Some(position), Some("damaged")),
        endless,
    ];
    for row in &rows {
        assert_eq!(decode_consumer(&encode_consumer(row)).as_ref(), Some(row));
    }
    fuzz(
        &Corpus::new(rows.map(|row| encode_consumer(&row))),
        |input| {
            let Some(row) = decode_consumer(input) else {
                return false;
            };
            assert!(row.prefixes.len() <= input.len() / 2);
            assert!(row.rules.backoff_ms.len() <= input.len());
            assert_eq!(decode_consumer(&encode_consumer(&row)), Some(row));
            true
        },
    );
}

/// Rows of changes: waiting, taken and dead.
pub fn honest_changes() -> Vec<Vec<u8>> {
    let change = ChangeRef {
        key: Bytes::from_static(b"/jobs/1"),
        kind: Kind::Put,
        entry: EntryRef {
            id: EntryId([1; 32]),
            author: Author([2; 32]),
            seq: 7,
            hlc: Hlc::new(1_700_000_000_000, 3).unwrap(),
        },
        op_index: 2,
        expires_ms: Some(9),
        arrived_ms: 1_700_000_000_001,
        gap_number: 0,
        gap: None,
    };
    let gap = ChangeRef {
        key: Bytes::new(),
        kind: Kind::Gap,
        gap_number: 11,
        gap: Some(Arc::new(Gap {
            reason: "removed".to_owned(),
            reach_ms: Some(12),
        })),
        ..change.clone()
    };
    let initial = ChangeRef {
        gap_number: 11,
        ..change.clone()
    };
    let outstanding = |state| Place::Outstanding {
        change: change.clone(),
        attempts: 2,
        state,
    };
    let tried = Place::Outstanding {
        change: change.clone(),
        attempts: u32::MAX,
        state: State::AT_ONCE,
    };
    let of_gap = |change| Place::Outstanding {
        change,
        attempts: 0,
        state: State::AT_ONCE,
    };
    let places = [
        tried,
        of_gap(gap),
        of_gap(initial),
        outstanding(State::Waiting {
            due_ms: 5,
            late: true,
        }),
        outstanding(State::Taken {
            deadline_ms: u64::MAX,
            detached: true,
        }),
        outstanding(State::Taken {
            deadline_ms: 6,
            detached: false,
        }),
        Place::Dead(DeadLetter {
            number: 0,
            change: change.clone(),
            attempts: 3,
            reason: DeathReason::Terminated,
            died_ms: 7,
        }),
    ];
    let rows = places.iter().map(|place| {
        let row = encode_change(place).unwrap();
        assert_eq!(decode_change(0, &row).as_ref(), Some(place));
        row
    });
    rows.collect()
}

// Rows that break one rule each.
fn broken_changes() -> Vec<Vec<u8>> {
    let honest = wire::ConsumerChange::decode(honest_changes()[0].as_slice()).unwrap();
    let broken: [fn(&mut wire::ConsumerChange); 6] = [
        |it| it.kind = 0,
        |it| it.kind = 5,
        |it| it.wall_ms = STAMP_MS_MAX + 1,
        |it| it.entry.truncate(31),
        |it| it.author.truncate(31),
        |it| it.state = None,
    ];
    let rows = broken.map(|change| {
        let mut row = honest.clone();
        change(&mut row);
        row.encode_to_vec()
    });
    rows.into()
}

#[test]
fn s9_row_of_a_change() {
    let corpus = Corpus::new(honest_changes());
    fuzz(&corpus.broken(broken_changes()), |input| {
        let Some(place) = decode_change(0, input) else {
            return false;
        };
        let encoded = encode_change(&place).expect("it has a row");
        assert_eq!(decode_change(0, &encoded), Some(place));
        true
    });
}

#[test]
fn s9_consumer_made_of_any_rows() {
    let corpus = Corpus::new(honest_changes());
    let mut random = Random::new(5);
    fuzz(&corpus, |input| {
        let rows = (0..1 + random.below(6)).map(|_| corpus.mutant(&mut random));
        let rows: Vec<_> = rows.chain([input.to_vec()]).collect();
        let places = (0..).zip(&rows);
        let places = places.filter_map(|(number, row)| Some((number, decode_change(number, row)?)));
        let places: Vec<(u64, Place)> = places.collect();
        let count = places.len();
        let now_ms = number(&mut random);
        let mut all = Outstanding::restore(rules(), Counts::default(), places, now_ms);
        assert!(all.len() + all.dead().len() <= count);
        for _ in 0..20 {
            let now_ms = number(&mut random);
            let Some(given) = all.take(now_ms, random.once_in(2)) else {
                continue;
            };
            match random.below(5) {
                0 => drop(all.ack(given.id)),
                1 => drop(all.nack(given.id, Some(number(&mut random)), now_ms)),
                2 => drop(all.term(given.id, DeathReason::Terminated, now_ms)),
                3 => drop(all.extend(given.id, true, now_ms)),
                _silent => all.tick(now_ms),
            }
        }
        all.retry(|_| true);
        let _saved = all.take_touched();
        assert!(all.len() + all.dead().len() <= count, "none was made up");
        decode_change(0, input).is_some()
    });
}
