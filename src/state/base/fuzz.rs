//! Fuzz targets of what a peer sends of its base. The hash of an act covers all of it, and an admin may
//! have signed the hash of anything.

use bytes::{BufMut as _, Bytes};

use super::{
    chunk::{self, CHUNK_BYTES},
    part::{HEAD, PartId, PartInfo, TRAILER_BYTES, index_bytes, index_of, is_index},
    *,
};
use crate::{
    id::{Author, EntryId, StoreId},
    limits::{
        BASE_ANCHORS_MAX, BASE_CHUNK_BYTES_MAX, BASE_INDEX_BYTES_MAX, BASE_KEY_BYTES_MAX,
        BASE_PART_BYTES_MAX, BASE_PARTS_MAX,
    },
    protocol::{anchor::Anchor, finality::CollectionsHash, hlc::Hlc},
    support::mutator::{Corpus, fuzz},
};

fn key(text: &str) -> RecordKey {
    RecordKey::new(RecordKind::Heads, text.as_bytes())
}

fn part(first: &str) -> PartInfo {
    PartInfo {
        id: PartId([6; 32]),
        bytes: 1 << 20,
        records: 300,
        first: key(first),
    }
}

fn manifest(anchors: &[u64], parts: &[&str]) -> BaseManifest {
    let anchor = |(author, seq): (usize, &u64)| {
        let anchor = Anchor {
            seq: *seq,
            id: EntryId([4; 32]),
            hlc: Hlc {
                wall_ms: 77,
                counter: 1,
            },
        };
        (Author([u8::try_from(author).unwrap(); 32]), anchor)
    };
    BaseManifest {
        store: StoreId([1; 16]),
        number: 0,
        keys: 500,
        entries: 900,
        anchors: anchors.iter().enumerate().map(anchor).collect(),
        has_taken_back: false,
        collected: CollectionsHash::NONE,
        parts: parts.iter().map(|first| part(first)).collect(),
    }
}

// The bytes without their hash, which the target adds again.
fn body(manifest: &BaseManifest) -> Bytes {
    let bytes = manifest.encode();
    bytes.slice(..bytes.len() - 32)
}

#[test]
fn n14_manifest_of_a_base_with_a_right_hash() {
    let honest = manifest(&[3, 9], &["/a", "/b"]);
    let corpus = Corpus::new([body(&honest), body(&manifest(&[], &[]))]);
    let numbered = BaseManifest {
        number: 1,
        ..honest.clone()
    };
    let mut twice = honest.clone();
    twice.anchors[1].0 = twice.anchors[0].0;
    let mut long = honest.clone();
    long.parts[0].bytes = BASE_PART_BYTES_MAX + 1;
    let mut deep = honest.clone();
    deep.parts[1].first = key(&"x".repeat(BASE_KEY_BYTES_MAX));
    let broken = [
        numbered,
        twice,
        long,
        deep,
        manifest(&[0], &["/a"]),
        manifest(&[3], &["/b", "/a"]),
        manifest(&[3], &["/a", "/a"]),
    ];
    let corpus = corpus.broken(broken.iter().map(body));
    fuzz(&corpus, |input| {
        let bytes = [input, blake3::hash(input).as_bytes()].concat();
        let Ok(manifest) = BaseManifest::of_peer(&bytes) else {
            return false;
        };
        assert_eq!(manifest.encode_for_peers(), bytes, "there is one manifest");
        assert_eq!(manifest.hash(), *blake3::hash(input).as_bytes());
        assert!(manifest.anchors.len() <= BASE_ANCHORS_MAX.min(bytes.len() / 84));
        assert!(manifest.parts.len() <= BASE_PARTS_MAX.min(bytes.len() / 50));
        assert!(
            manifest
                .parts
                .iter()
                .all(|it| it.bytes <= BASE_PART_BYTES_MAX)
        );
        let _length = manifest.bytes();
        let _frontier = manifest.frontier();
        true
    });
}

// Three chunks in a row: first key, bytes, records.
fn index(chunks: &[(&str, usize, u32)]) -> Vec<u8> {
    let (mut index, mut offset) = (Vec::new(), HEAD.len() as u64);
    for (first, bytes, records) in chunks {
        index.put_u64_le(offset);
        index.put_u32_le(u32::try_from(*bytes).unwrap());
        index.put_u32_le(*records);
        index.put_slice(&[9; 32]);
        let first = key(first);
        index.put_u16_le(u16::try_from(first.0.len()).unwrap());
        index.put_slice(&first.0);
        offset += *bytes as u64;
    }
    index
}

#[test]
fn n14_index_of_a_part() {
    let sound = [
        ("/a", CHUNK_BYTES, 100),
        ("/b", CHUNK_BYTES + 7, 150),
        ("/c", 9, 50),
    ];
    let chunks_bytes: usize = sound.iter().map(|(_, bytes, _)| bytes).sum();
    let end = HEAD.len() + chunks_bytes;
    let with = |at: usize, chunk| {
        let mut chunks = sound;
        chunks[at] = chunk;
        index(&chunks)
    };
    let corpus = Corpus::new([index(&sound)]).broken([
        with(0, ("/b", CHUNK_BYTES, 100)),
        with(1, ("/a", CHUNK_BYTES + 7, 150)),
        with(1, ("/b", CHUNK_BYTES + 7, 151)),
        with(2, ("/c", 10, 50)),
        // As long in all, and so many that their index is longer than they are.
        index(&[("/a", 9, 100), ("/b", 2 * CHUNK_BYTES + 7, 200)]),
        Vec::new(),
    ]);
    fuzz(&corpus, |input| {
        let info = PartInfo {
            id: PartId(*blake3::hash(input).as_bytes()),
            bytes: (end + input.len() + TRAILER_BYTES) as u64,
            ..part("/a")
        };
        assert!(is_index(input, &info));
        let mut trailer = Vec::new();
        trailer.put_u64_le(end as u64);
        trailer.put_u32_le(u32::try_from(input.len()).unwrap());
        trailer.put_slice(&info.id.0);
        let trailer = trailer.as_slice().try_into().unwrap();
        let told = index_bytes(&trailer, &info);
        assert_eq!(told.is_some(), input.len() <= BASE_INDEX_BYTES_MAX as usize);
        let Some(chunks) = index_of(Bytes::copy_from_slice(input), &info) else {
            return false;
        };
        let all: u64 = chunks.iter().map(|it| u64::from(it.bytes)).sum();
        assert_eq!(all, chunks_bytes as u64);
        assert!(chunks.iter().all(|it| it.bytes <= BASE_CHUNK_BYTES_MAX));
        assert!(chunks.len() <= chunks_bytes / CHUNK_BYTES + 1, "few chunks");
        true
    });
}

#[test]
fn n14_records_of_a_chunk() {
    let mut honest = Vec::new();
    for (at, body) in [("/a", "1"), ("/b", ""), ("/c", "a longer one")] {
        chunk::push(&mut honest, &key(at), body.as_bytes());
    }
    let mut twice = honest.clone();
    chunk::push(&mut twice, &key("/c"), b"again");
    let corpus = Corpus::new([honest]).broken([twice]);
    fuzz(&corpus, |input| {
        let Some(records) = chunk::records(Bytes::copy_from_slice(input)) else {
            return false;
        };
        let mut again = Vec::new();
        for (key, body) in &records {
            chunk::push(&mut again, key, body);
        }
        assert_eq!(again, input, "there is one form");
        true
    });
}
