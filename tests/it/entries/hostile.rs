//! Entries from hostile authors and peers: each gets a typed error, and nothing panics.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use lattice::{
    id::{Author, EntryId},
    limits::{
        CAUSE_CONSUMER_BYTES_MAX, ENTRY_BYTES_MAX, HEADER_BYTES_MAX, KEY_BYTES_MAX, OPS_BYTES_MAX,
        OPS_MAX, PARENTS_MAX, STAMP_MS_MAX, VALUE_BYTES_MAX,
    },
    protocol::{
        cursor::{Cursor, CursorError},
        entry::{EntryError, Header, Op, Parent, SignedEntry, VerifiedEntry, cause::Cause, sign},
        hlc::Hlc,
    },
    wire,
};
use prost::Message as _;

use crate::support::{
    model::{AUTHOR_A, AUTHOR_B, STORE, author_of, delete, header, key_of, put},
    random::{Random, for_each_seed},
};

const DOMAIN: &[u8] = b"lattice/entry/v1\0";

fn read(bytes: &[u8]) -> Result<VerifiedEntry, EntryError> {
    SignedEntry::decode(Bytes::copy_from_slice(bytes))?
        .parse()?
        .verify()
}

/// Signs any bytes, as only a hostile author's program would.
fn sign_bytes(header: Vec<u8>, ops: Vec<u8>) -> SignedEntry {
    let key = key_of(AUTHOR_A);
    let signature = key.sign(&[DOMAIN, &header].concat()).to_bytes();
    let author = Author(key.verifying_key().to_bytes());
    SignedEntry {
        header: header.into(),
        signature,
        author,
        ops: ops.into(),
    }
}

/// Signs a header that a hostile author made, over `ops` as they are.
fn sign_wire(mut header: wire::Header, ops: &[u8]) -> SignedEntry {
    header.ops_hash = Bytes::copy_from_slice(blake3::hash(ops).as_bytes());
    header.ops_len = ops.len() as u64;
    sign_bytes(header.encode_to_vec(), ops.to_vec())
}

fn wire_header() -> wire::Header {
    wire::Header {
        version: 1,
        store_id: Bytes::copy_from_slice(&STORE.0),
        seq: 7,
        prev: Bytes::from_static(&[9; 32]),
        wall_ms: 1000,
        counter: 1,
        ..wire::Header::default()
    }
}

fn wire_parent(wall_ms: u64) -> wire::Parent {
    wire::Parent {
        author: Bytes::from_static(&[3; 32]),
        seq: 4,
        wall_ms,
        counter: 0,
        id: Bytes::from_static(&[4; 32]),
    }
}

fn wire_put(key: Vec<u8>, value: Vec<u8>) -> wire::Op {
    let put = wire::Put {
        key: key.into(),
        value: value.into(),
        expires_ms: None,
    };
    wire::Op {
        kind: Some(wire::op::Kind::Put(put)),
    }
}

fn wire_ops(ops: Vec<wire::Op>) -> Vec<u8> {
    wire::Ops { ops }.encode_to_vec()
}

fn parse_header(change: impl FnOnce(&mut wire::Header)) -> Result<Header, EntryError> {
    let mut header = wire_header();
    change(&mut header);
    sign_wire(header, &[]).parse().map(|entry| entry.header)
}

fn parse_ops(ops: &[u8]) -> Result<Vec<Op>, EntryError> {
    sign_wire(wire_header(), ops).parse().map(|entry| entry.ops)
}

fn needs_newer<T>(what: &'static str) -> Result<T, EntryError> {
    Err(EntryError::NeedsNewer { what })
}

/// One of each kind: with everything in it, without ops, and as small as it gets.
fn honest_entries() -> Vec<VerifiedEntry> {
    let parent = |wall_ms, author| Parent {
        hlc: Hlc {
            wall_ms,
            counter: 2,
        },
        author,
        id: EntryId([8; 32]),
        seq: 300,
    };
    let full = Header {
        seq: 70_000,
        prev: Some(EntryId([6; 32])),
        hlc: Hlc {
            wall_ms: 1_700_000_000_000,
            counter: 5,
        },
        atomic: true,
        cause: Some(Cause {
            consumer: "deploy".to_owned(),
            trigger: EntryId([7; 32]),
            position: 3,
            depth: 1,
        }),
        parents: vec![
            parent(5, author_of(AUTHOR_B)),
            parent(6, author_of(AUTHOR_A)),
        ],
        ..header(0)
    };
    let ops = vec![
        Op::Put {
            key: "/k".into(),
            value: "v".into(),
            expires_ms: Some(1_800_000_000_000),
        },
        put("/empty", ""),
        delete("/gone"),
    ];
    let repair = Header {
        seq: 2,
        prev: Some(EntryId([1; 32])),
        ..header(9)
    };
    let key = key_of(AUTHOR_A);
    vec![
        sign(&key, full, ops).unwrap(),
        sign(&key, repair, Vec::new()).unwrap(),
        sign(&key, header(0), vec![delete("k")]).unwrap(),
    ]
}

#[test]
fn n1_every_truncation_is_an_error() {
    for entry in honest_entries() {
        let bytes = entry.signed.encode();
        assert_eq!(read(&bytes).unwrap(), entry);
        for length in 0..bytes.len() {
            assert!(
                read(&bytes[..length]).is_err(),
                "cut to {length} of {}",
                bytes.len()
            );
        }
    }
}

#[test]
fn n1_every_flipped_bit_is_an_error() {
    for entry in honest_entries() {
        let bytes = entry.signed.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped).is_err(), "bit {bit} of {:?}", entry.signed);
        }
    }
}

#[test]
fn n1_every_added_byte_is_an_error() {
    for entry in honest_entries() {
        for byte in 0..=255 {
            let mut longer = entry.signed.encode();
            longer.push(byte);
            assert!(read(&longer).is_err(), "added {byte}");
        }
    }
}

#[test]
fn b9_signed_bit_flips_are_errors_or_other_entries() {
    let mut accepted = 0;
    let mut check = |honest: &VerifiedEntry, signed: SignedEntry| {
        let Ok(entry) = read(&signed.encode()) else {
            return;
        };
        accepted += 1;
        assert_ne!(entry.id, honest.id);
        assert_ne!(
            (&entry.header, &entry.ops),
            (&honest.header, &honest.ops),
            "one meaning, two ids"
        );
        // This version would encode the same bytes: none of them is unknown.
        let again = sign(&key_of(AUTHOR_A), entry.header.clone(), entry.ops.clone()).unwrap();
        assert_eq!(again.signed, entry.signed);
    };
    for honest in honest_entries() {
        for bit in 0..honest.signed.header.len() * 8 {
            let mut header = honest.signed.header.to_vec();
            header[bit / 8] ^= 1 << (bit % 8);
            check(&honest, sign_bytes(header, honest.signed.ops.to_vec()));
        }
        for bit in 0..honest.signed.ops.len() * 8 {
            let mut ops = honest.signed.ops.to_vec();
            ops[bit / 8] ^= 1 << (bit % 8);
            let header = wire::Header::decode(honest.signed.header.clone()).unwrap();
            check(&honest, sign_wire(header, &ops));
        }
    }
    assert!(
        accepted > 500,
        "flips inside ids, keys and values are entries: {accepted}"
    );
}

#[test]
fn n1_random_bytes_are_refused() {
    for_each_seed(1..=20, |random| {
        for _try in 0..1000 {
            let bytes = random.bytes(300);
            assert!(read(&bytes).is_err());
            let _text: Result<Cursor, CursorError> = String::from_utf8_lossy(&bytes).parse();
            let text = data_encoding::BASE64URL_NOPAD.encode(&bytes);
            assert!(text.parse::<Cursor>().is_err());
            // Past the frame, where the bytes are a header or ops that the author signed.
            let _random_header = sign_bytes_unchecked(bytes.clone(), random.bytes(40)).parse();
            let _random_ops = parse_ops(&bytes);
        }
    });
}

// Without a signature: parsing comes before it is looked at, and signing is slow.
fn sign_bytes_unchecked(header: Vec<u8>, ops: Vec<u8>) -> SignedEntry {
    SignedEntry {
        header: header.into(),
        signature: [0; 64],
        author: author_of(AUTHOR_A),
        ops: ops.into(),
    }
}

#[test]
fn n1_shuffled_pieces_of_entries_never_panic() {
    let entries: Vec<Vec<u8>> = honest_entries()
        .iter()
        .map(|entry| entry.signed.encode())
        .collect();
    let piece = |random: &mut Random| {
        let entry = &entries[random.below(entries.len())];
        let from = random.below(entry.len());
        let through = from + random.below(entry.len() - from);
        entry[from..=through].to_vec()
    };
    for_each_seed(1..=20, |random| {
        for _try in 0..500 {
            let mut bytes = entries[random.below(entries.len())].clone();
            for _cut in 0..=random.below(3) {
                let at = random.below(bytes.len() + 1);
                let until = at + random.below(bytes.len() - at + 1);
                bytes.splice(at..until, piece(random));
            }
            if !entries.contains(&bytes) {
                assert!(read(&bytes).is_err());
            }
        }
    });
}

// The fourteen encodings of the eight points of small order, six of them not canonical.
// From "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko 2020), table 1.
const SMALL_ORDER: [&str; 14] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
];

fn small_order_points() -> Vec<[u8; 32]> {
    let decode = |hex: &str| HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap();
    SMALL_ORDER.into_iter().map(decode).collect()
}

#[test]
fn b8_small_order_keys_are_refused() {
    let points = small_order_points();
    let mut forged_by_plain_check = [0; 14];
    for counter in 0..32 {
        let header = wire::Header {
            counter,
            ..wire_header()
        };
        let honest = sign_wire(header, &[]);
        let message = [DOMAIN, &honest.header].concat();
        for (index, author) in points.iter().enumerate() {
            for point in &points {
                // Nobody knows a secret for these keys: R of small order and s = 0.
                let mut signature = [0; 64];
                signature[..32].copy_from_slice(point);
                let author_id = Author(*author);
                let forged = SignedEntry {
                    author: author_id,
                    signature,
                    ..honest.clone()
                };
                assert_eq!(
                    forged.parse().unwrap().verify(),
                    Err(EntryError::BadSignature { author: author_id })
                );
                let plain = VerifyingKey::from_bytes(author)
                    .and_then(|key| key.verify(&message, &Signature::from_bytes(&signature)));
                forged_by_plain_check[index] += usize::from(plain.is_ok());
            }
        }
    }
    // Otherwise these signatures would prove nothing.
    let forgeable = forged_by_plain_check
        .iter()
        .filter(|count| **count > 0)
        .count();
    assert_eq!(forgeable, 14, "{forged_by_plain_check:?}");
}

#[test]
fn b8_small_order_r_is_refused() {
    let honest = sign_wire(wire_header(), &[]);
    for point in small_order_points() {
        let mut forged = honest.clone();
        forged.signature[..32].copy_from_slice(&point);
        let author = forged.author;
        let result = forged.parse().unwrap().verify();
        assert_eq!(result, Err(EntryError::BadSignature { author }));
    }
}

#[test]
fn b8_keys_off_the_curve_are_refused() {
    let honest = sign_wire(wire_header(), &[]);
    let mut refused = 0;
    for_each_seed(1..=200, |random| {
        let mut bytes = [0; 32];
        bytes.fill_with(|| random.bits().to_le_bytes()[0]);
        let author = Author(bytes);
        let forged = SignedEntry {
            author,
            ..honest.clone()
        };
        assert_eq!(
            forged.parse().unwrap().verify(),
            Err(EntryError::BadSignature { author })
        );
    });
    for byte in 0..=255 {
        refused += usize::from(VerifyingKey::from_bytes(&[byte; 32]).is_err());
    }
    assert!(refused > 50, "about half of all encodings are no point");
}

// The order of the base point, 2^252 + 27742317777372353535851937790883648493, little-endian.
const L: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

#[test]
fn b8_s_plus_l_is_refused() {
    let l = HEXLOWER.decode(L.as_bytes()).unwrap();
    for counter in 0..64 {
        let honest = sign_wire(
            wire::Header {
                counter,
                ..wire_header()
            },
            &[],
        );
        assert!(honest.clone().parse().unwrap().verify().is_ok());
        let mut forged = honest.clone();
        // Once more, twice, ... as often as 256 bits can hold.
        for _added in 0..14 {
            let mut carry = 0;
            for (digit, addend) in forged.signature[32..].iter_mut().zip(&l) {
                let sum = u16::from(*digit) + u16::from(*addend) + carry;
                *digit = sum.to_le_bytes()[0];
                carry = sum >> 8;
            }
            assert_eq!(carry, 0, "s + {_added} L fits 256 bits");
            assert_ne!(forged.id(), honest.id(), "or one entry would have two ids");
            let result = forged.clone().parse().unwrap().verify();
            assert_eq!(
                result,
                Err(EntryError::BadSignature {
                    author: honest.author
                })
            );
        }
    }
}

#[test]
fn b8_signature_of_another_domain_is_refused() {
    let key = key_of(AUTHOR_A);
    let honest = sign_wire(wire_header(), &[]);
    for domain in [
        &b""[..],
        b"lattice/entry/v1",
        b"lattice/entry/v2\0",
        b"lattice/ack/v1\0",
    ] {
        let signature = key.sign(&[domain, &honest.header].concat()).to_bytes();
        let forged = SignedEntry {
            signature,
            ..honest.clone()
        };
        let result = forged.parse().unwrap().verify();
        assert_eq!(
            result,
            Err(EntryError::BadSignature {
                author: honest.author
            }),
            "{domain:?}"
        );
    }
}

#[test]
fn b8_signature_of_another_author_is_refused() {
    let honest = sign_wire(wire_header(), &[]);
    let author = author_of(AUTHOR_B);
    let forged = SignedEntry { author, ..honest };
    assert_eq!(
        forged.parse().unwrap().verify(),
        Err(EntryError::BadSignature { author })
    );
}

#[test]
fn b4_signature_covers_the_store() {
    let honest = sign_wire(wire_header(), &[]);
    let mut header = wire::Header::decode(honest.header.clone()).unwrap();
    header.store_id = Bytes::from_static(&[0x66; 16]);
    let moved = SignedEntry {
        header: header.encode_to_vec().into(),
        ..honest
    };
    let author = moved.author;
    assert_eq!(
        moved.parse().unwrap().verify(),
        Err(EntryError::BadSignature { author })
    );
}

#[test]
fn ops_that_differ_from_the_header_are_refused() {
    let honest = sign_wire(
        wire_header(),
        &wire_ops(vec![wire_put(b"/k".to_vec(), b"v".to_vec())]),
    );
    assert!(honest.clone().parse().is_ok());
    for ops in [
        wire_ops(vec![wire_put(b"/k".to_vec(), b"w".to_vec())]),
        Vec::new(),
    ] {
        let swapped = SignedEntry {
            ops: ops.into(),
            ..honest.clone()
        };
        let what = "its ops are not those the header names";
        assert_eq!(swapped.parse(), Err(EntryError::Malformed { what }));
    }
}

#[test]
fn s19_entry_of_a_newer_version_waits() {
    assert!(parse_header(|_| {}).is_ok());
    assert_eq!(
        parse_header(|header| header.version = 0),
        needs_newer("header version")
    );
    assert_eq!(
        parse_header(|header| header.version = 2),
        needs_newer("header version")
    );
    assert_eq!(
        parse_header(|header| header.version = u32::MAX),
        needs_newer("header version")
    );
    assert!(parse_header(|header| header.flags = 1).unwrap().atomic);
    for bit in 1..32 {
        assert_eq!(
            parse_header(|header| header.flags = 1 << bit),
            needs_newer("header flag")
        );
    }
}

#[test]
fn s19_entry_with_an_unknown_field_waits() {
    // Field 15, a number and some bytes.
    for unknown in [&[0x78, 1][..], &[0x7a, 2, 1, 2]] {
        let with = |message: Vec<u8>| [&message, unknown].concat();
        let honest = sign_wire(wire_header(), &[]);
        let header = sign_bytes(with(honest.header.to_vec()), Vec::new());
        assert_eq!(header.parse(), needs_newer("header field"));

        let mut nested = wire_header();
        nested.parents = vec![wire_parent(5)];
        let parent = nested.parents[0].encode_to_vec();
        let header = sign_wire(nested, &[]).header.to_vec();
        let at = header
            .windows(parent.len())
            .position(|window| window == parent)
            .unwrap();
        let mut longer = header.clone();
        longer.splice(at..at + parent.len(), with(parent.clone()));
        longer[at - 1] += u8::try_from(unknown.len()).unwrap();
        assert_eq!(
            sign_bytes(longer, Vec::new()).parse(),
            needs_newer("header field")
        );

        let op = wire_put(b"/k".to_vec(), b"v".to_vec()).encode_to_vec();
        assert!(parse_ops(&frame(0x0a, &op)).is_ok());
        assert_eq!(
            parse_ops(&frame(0x0a, &with(op.clone()))),
            needs_newer("op field")
        );
        let put = frame(0x0a, &with(op[2..].to_vec()));
        assert_eq!(parse_ops(&frame(0x0a, &put)), needs_newer("op field"));
        assert_eq!(parse_ops(&with(frame(0x0a, &op))), needs_newer("op field"));
    }
}

/// A field of bytes, shorter than 128.
fn frame(tag: u8, bytes: &[u8]) -> Vec<u8> {
    [&[tag, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

#[test]
fn s19_entry_with_an_unknown_op_waits() {
    assert_eq!(
        parse_ops(&frame(0x0a, &frame(0x1a, b"rename"))),
        needs_newer("op kind")
    );
    assert_eq!(parse_ops(&frame(0x0a, &[])), needs_newer("op kind"));
    // Two kinds in one op: this version would read the last only.
    let two = [
        frame(0x0a, &frame(0x0a, b"k")),
        frame(0x12, &frame(0x0a, b"k")),
    ]
    .concat();
    assert_eq!(parse_ops(&frame(0x0a, &two)), needs_newer("op field"));
}

#[test]
fn n1_non_canonical_encoding_is_refused() {
    let header = sign_wire(wire_header(), &[]).header.to_vec();
    // A number that takes more bytes than it needs; a field that says its default; a field twice.
    let overlong = [&[0x08, 0x81, 0x00], &header[2..]].concat();
    let default = [&header[..], &[0x38, 0x00]].concat();
    let twice = [&[0x08, 0x01], &header[..]].concat();
    for bytes in [overlong, default, twice] {
        assert_eq!(
            sign_bytes(bytes, Vec::new()).parse(),
            needs_newer("header field")
        );
    }
    let what = "its fields are not in order";
    let moved = [&header[2..], &header[..2]].concat();
    assert_eq!(
        sign_bytes(moved, Vec::new()).parse(),
        Err(EntryError::Malformed { what })
    );
    let value_first = [frame(0x12, b"v"), frame(0x0a, b"/k")].concat();
    let ops = frame(0x0a, &frame(0x0a, &value_first));
    assert_eq!(parse_ops(&ops), Err(EntryError::Malformed { what }));
    let long_length = [&[0x0a, 0x85, 0x00][..], &frame(0x12, &frame(0x0a, b"k"))].concat();
    assert_eq!(parse_ops(&long_length), needs_newer("op field"));
}

#[test]
fn n1_varint_bombs_and_long_lengths_are_refused() {
    let bomb = [&[0x08][..], &[0xff; 20]].concat();
    let length = [&[0x0a][..], &[0xff; 9], &[0x01]].concat();
    for bytes in [
        bomb,
        length,
        vec![0x0a, 0x7f],
        vec![0x0a, 0xff, 0xff, 0xff, 0x7f],
    ] {
        assert!(read(&bytes).is_err());
        assert!(parse_ops(&bytes).is_err());
        assert!(sign_bytes(bytes, Vec::new()).parse().is_err());
    }
    // Groups inside groups, as deep as they go.
    for tag in [0x0b, 0x13, 0x7b] {
        assert!(read(&vec![tag; 100_000]).is_err());
        assert!(sign_bytes(vec![tag; 100_000], Vec::new()).parse().is_err());
        assert!(parse_ops(&vec![tag; 100_000]).is_err());
    }
}

#[test]
fn n1_million_ops_are_refused_before_allocating() {
    let empty = [0x0a, 0x00].repeat(OPS_BYTES_MAX / 2);
    assert_eq!(parse_ops(&empty), needs_newer("op kind"));
    let delete = frame(0x0a, &frame(0x12, &frame(0x0a, b"k"))).repeat(200_000);
    assert_eq!(parse_ops(&delete), Err(too_many_ops()));
}

fn too_many_ops() -> EntryError {
    EntryError::TooManyOps {
        ops: OPS_MAX + 1,
        ops_max: OPS_MAX,
    }
}

#[test]
fn contradictory_header_is_refused() {
    let malformed = |result: Result<Header, EntryError>| {
        assert!(
            matches!(result, Err(EntryError::Malformed { .. })),
            "{result:?}"
        );
    };
    malformed(parse_header(|header| header.seq = 0));
    malformed(parse_header(|header| header.seq = 1));
    malformed(parse_header(|header| header.prev = Bytes::new()));
    malformed(parse_header(|header| {
        header.prev = Bytes::from_static(&[1; 31])
    }));
    malformed(parse_header(|header| {
        header.prev = Bytes::from_static(&[1; 33])
    }));
    malformed(parse_header(|header| {
        header.store_id = Bytes::from_static(&[1; 15])
    }));
    malformed(parse_header(|header| header.store_id = Bytes::new()));
    malformed(parse_header(|header| header.wall_ms = STAMP_MS_MAX + 1));
    malformed(parse_header(|header| header.wall_ms = u64::MAX));
    assert!(parse_header(|header| header.wall_ms = STAMP_MS_MAX).is_ok());
    for length in [0, 15, 16, 31, 33] {
        let hash = vec![0; length];
        let header = wire::Header {
            ops_hash: hash.into(),
            ..wire_header()
        };
        assert!(
            sign_bytes(header.encode_to_vec(), Vec::new())
                .parse()
                .is_err()
        );
    }
}

#[test]
fn t5_b7_impossible_parent_is_refused() {
    let parse = |parents: Vec<wire::Parent>| parse_header(|header| header.parents = parents);
    let refused = |parents| assert!(matches!(parse(parents), Err(EntryError::Malformed { .. })));
    assert_eq!(
        parse(vec![wire_parent(5), wire_parent(6)])
            .unwrap()
            .parents
            .len(),
        2
    );
    // Not older than the entry, which is stamped 1000.1.
    assert!(parse(vec![wire_parent(1000)]).is_ok());
    refused(vec![wire::Parent {
        counter: 1,
        ..wire_parent(1000)
    }]);
    refused(vec![wire_parent(1001)]);
    refused(vec![wire_parent(u64::MAX)]);
    // Not in order, or twice.
    refused(vec![wire_parent(6), wire_parent(5)]);
    refused(vec![wire_parent(5), wire_parent(5)]);
    refused(vec![wire::Parent {
        seq: 0,
        ..wire_parent(5)
    }]);
    refused(vec![wire::Parent {
        id: Bytes::from_static(&[4; 31]),
        ..wire_parent(5)
    }]);
    refused(vec![wire::Parent {
        id: Bytes::new(),
        ..wire_parent(5)
    }]);
    refused(vec![wire::Parent {
        author: Bytes::from_static(&[4; 33]),
        ..wire_parent(5)
    }]);
    // The entry's own author is written by leaving it out, and only so.
    let own = author_of(AUTHOR_A);
    refused(vec![wire::Parent {
        author: Bytes::copy_from_slice(&own.0),
        ..wire_parent(5)
    }]);
    let left_out = parse(vec![wire::Parent {
        author: Bytes::new(),
        ..wire_parent(5)
    }])
    .unwrap();
    assert_eq!(left_out.parents[0].author, own);
}

#[test]
fn l9_keys_and_values_at_their_limits() {
    let key_long = EntryError::KeyTooLong {
        bytes: KEY_BYTES_MAX + 1,
        bytes_max: KEY_BYTES_MAX,
    };
    let value_long = EntryError::ValueTooLong {
        bytes: VALUE_BYTES_MAX + 1,
        bytes_max: VALUE_BYTES_MAX,
    };
    let cases: [(usize, usize, Option<EntryError>); 7] = [
        (0, 1, Some(EntryError::KeyEmpty)),
        (1, 0, None),
        (1, VALUE_BYTES_MAX, None),
        (KEY_BYTES_MAX, VALUE_BYTES_MAX, None),
        (KEY_BYTES_MAX + 1, 0, Some(key_long)),
        (1, VALUE_BYTES_MAX + 1, Some(value_long.clone())),
        (KEY_BYTES_MAX, VALUE_BYTES_MAX + 1, Some(value_long)),
    ];
    for (key_bytes, value_bytes, refused) in cases {
        let (key, value) = (vec![0xff; key_bytes], vec![0; value_bytes]);
        let op = Op::Put {
            key: key.clone().into(),
            value: value.clone().into(),
            expires_ms: None,
        };
        let written =
            sign(&key_of(AUTHOR_A), header(1), vec![op.clone()]).map(|entry| entry.ops.clone());
        let came = parse_ops(&wire_ops(vec![wire_put(key, value)]));
        assert_eq!(written, came, "both ways are one rule");
        assert_eq!(came, refused.map_or(Ok(vec![op]), Err));
    }
}

#[test]
fn l9_number_of_ops_at_its_limit() {
    let ops = |count: usize| {
        (0..count)
            .map(|n| delete(&format!("/{n}")))
            .collect::<Vec<_>>()
    };
    let write = |ops| sign(&key_of(AUTHOR_A), header(1), ops);
    let most = write(ops(OPS_MAX)).unwrap();
    assert_eq!(read(&most.signed.encode()).unwrap().ops.len(), OPS_MAX);
    assert_eq!(write(ops(OPS_MAX + 1)), Err(too_many_ops()));

    let wire = |n: usize| wire_put(format!("/{n}").into_bytes(), Vec::new());
    let came = parse_ops(&wire_ops((0..=OPS_MAX).map(wire).collect()));
    assert_eq!(came, Err(too_many_ops()));
}

#[test]
fn l9_bytes_of_ops_at_their_limit() {
    let big = |key: &str, bytes: usize| Op::Put {
        key: key.to_owned().into(),
        value: vec![1; bytes].into(),
        expires_ms: None,
    };
    // Two values, each with 14 bytes around it: key, tags, lengths.
    let write = |bytes| {
        let ops = vec![big("/a", VALUE_BYTES_MAX), big("/b", bytes)];
        sign(&key_of(AUTHOR_A), header(1), ops)
    };
    let most = OPS_BYTES_MAX - VALUE_BYTES_MAX - 32;
    let room = OPS_BYTES_MAX - write(most).unwrap().signed.ops.len();
    let full = write(most + room).unwrap();
    assert_eq!(full.signed.ops.len(), OPS_BYTES_MAX);
    let bytes = full.signed.encode();
    assert!(bytes.len() <= ENTRY_BYTES_MAX);
    assert_eq!(read(&bytes).unwrap(), full);
    assert_eq!(
        write(most + room + 1),
        Err(EntryError::OpsTooLong {
            bytes: OPS_BYTES_MAX + 1,
            bytes_max: OPS_BYTES_MAX
        })
    );
    let longer = sign_wire(wire_header(), &vec![0; OPS_BYTES_MAX + 1]).encode();
    let what = "it is longer than an entry may be";
    assert_eq!(read(&longer), Err(EntryError::Malformed { what }));
}

#[test]
fn l9_number_of_parents_at_its_limit() {
    let parent = |n: usize| Parent {
        hlc: Hlc {
            wall_ms: STAMP_MS_MAX - 1,
            counter: u32::MAX - u32::try_from(n).unwrap(),
        },
        author: Author([0xff; 32]),
        id: EntryId([0xff; 32]),
        seq: u64::MAX,
    };
    let write = |count| {
        let largest = Header {
            seq: u64::MAX,
            prev: Some(EntryId([0xff; 32])),
            hlc: Hlc {
                wall_ms: STAMP_MS_MAX,
                counter: u32::MAX,
            },
            atomic: true,
            cause: Some(Cause {
                consumer: "c".repeat(CAUSE_CONSUMER_BYTES_MAX),
                trigger: EntryId([0xff; 32]),
                position: u32::MAX,
                depth: u32::MAX,
            }),
            parents: (0..count).map(parent).collect(),
            ..header(0)
        };
        sign(&key_of(AUTHOR_A), largest, Vec::new())
    };
    let most = write(PARENTS_MAX).unwrap();
    assert!(
        most.signed.header.len() <= HEADER_BYTES_MAX,
        "{}",
        most.signed.header.len()
    );
    assert_eq!(read(&most.signed.encode()).unwrap(), most);
    let too_many = EntryError::TooManyParents {
        parents: PARENTS_MAX + 1,
        parents_max: PARENTS_MAX,
    };
    assert_eq!(write(PARENTS_MAX + 1), Err(too_many.clone()));
    let parents = (1..)
        .take(PARENTS_MAX + 1)
        .map(|wall_ms| wire_parent(wall_ms % 1000))
        .collect();
    assert_eq!(
        parse_header(|header| header.parents = parents),
        Err(too_many)
    );
}

#[test]
fn l9_cause_at_its_limits() {
    let parse = |consumer: String, depth| {
        let trigger = Bytes::from_static(&[7; 32]);
        let cause = wire::Cause {
            consumer,
            trigger,
            position: 0,
            depth,
        };
        parse_header(|header| header.cause = Some(cause))
    };
    assert!(parse("c".repeat(CAUSE_CONSUMER_BYTES_MAX), 1).is_ok());
    assert!(parse("c".repeat(CAUSE_CONSUMER_BYTES_MAX + 1), 1).is_err());
    assert!(parse(String::new(), 1).is_err());
    assert!(parse("c".to_owned(), 0).is_err());
    assert!(parse_header(|header| header.cause = Some(wire::Cause::default())).is_err());
}

#[test]
fn repeated_key_is_refused() {
    let twice = EntryError::KeyTwice { key: "/k".into() };
    let ops = vec![put("/k", "1"), put("/l", "1"), delete("/k")];
    assert_eq!(sign(&key_of(AUTHOR_A), header(1), ops), Err(twice.clone()));
    let op = || wire_put(b"/k".to_vec(), Vec::new());
    assert_eq!(parse_ops(&wire_ops(vec![op(), op()])), Err(twice));
}

#[test]
fn invalid_header_is_not_signed() {
    let key: SigningKey = key_of(AUTHOR_A);
    let parent = Parent {
        hlc: Hlc {
            wall_ms: 5,
            counter: 0,
        },
        author: author_of(AUTHOR_B),
        id: EntryId([1; 32]),
        seq: 1,
    };
    let prev = Some(EntryId([2; 32]));
    let cause = Cause {
        consumer: String::new(),
        trigger: EntryId([1; 32]),
        position: 0,
        depth: 1,
    };
    let refused = [
        Header {
            seq: 0,
            ..header(9)
        },
        Header {
            seq: 2,
            ..header(9)
        },
        Header { prev, ..header(9) },
        Header {
            parents: vec![parent],
            ..header(5)
        },
        Header {
            parents: vec![parent, parent],
            ..header(9)
        },
        Header {
            parents: vec![Parent { seq: 0, ..parent }],
            ..header(9)
        },
        Header {
            cause: Some(cause),
            ..header(9)
        },
        header(STAMP_MS_MAX + 1),
    ];
    for header in refused {
        let result = sign(&key, header.clone(), Vec::new());
        assert!(
            matches!(result, Err(EntryError::Malformed { .. })),
            "{header:?}"
        );
    }
}
