//! Entries: their bytes, headers and ops that are really signed, and proofs made of them.

use std::collections::BTreeSet;

use bytes::Bytes;
use ed25519_dalek::Signer as _;
use lattice::{
    id::{Author, EntryId},
    limits::{
        ENTRY_BYTES_MAX, KEY_BYTES_MAX, OPS_MAX, PARENTS_MAX, PROOF_GRANTS_MAX, STAMP_MS_MAX,
        VALUE_BYTES_MAX,
    },
    protocol::{
        asserted::AssertedChange,
        change::{EntryRef, Kind},
        entry::{Entry, EntryError, Header, Op, Parent, SignedEntry, cause::Cause, sign},
        hlc::Hlc,
        membership::{
            Members,
            acts::Acts,
            grant_chain,
            reserved::{Counting, claim, may_claim},
            role::{Act, Role, is_never_held, role_key},
        },
        run,
    },
    wire,
};
use prost::Message as _;

use crate::support::{
    model::{AUTHOR_A, AUTHOR_B, AUTHOR_C, STORE, author_of, delete, header, key_of, put},
    mutator::{Corpus, fuzz},
};

const DOMAIN: &[u8] = b"lattice/entry/v1\0";

/// One of each kind: with everything in it, without ops, and as small as it gets.
pub fn honest_entries() -> Vec<Entry> {
    let parent = |wall_ms, author, seq| Parent {
        hlc: Hlc {
            wall_ms,
            counter: 2,
        },
        author,
        id: EntryId([8; 32]),
        seq,
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
            parent(5, author_of(AUTHOR_B), 300),
            parent(6, author_of(AUTHOR_A), 69_000),
        ],
        ..header(0)
    };
    let expiring = Op::Put {
        key: "/k".into(),
        value: "v".into(),
        expires_ms: Some(1_800_000_000_000),
    };
    let act = |node, act: Act| Op::Put {
        key: role_key(&node),
        value: act.encode(),
        expires_ms: None,
    };
    let acts = vec![
        act(author_of(AUTHOR_B), Act::Grant(Role::Admin)),
        act(author_of(AUTHOR_C), Act::Remove(Default::default())),
        put(
            &format!("/nodes/{}/info", author_of(AUTHOR_A)),
            "{\"name\":\"a\"}",
        ),
    ];
    let repair = Header {
        seq: 2,
        prev: Some(EntryId([1; 32])),
        ..header(9)
    };
    let last = Header {
        seq: u64::MAX,
        prev: Some(EntryId([1; 32])),
        hlc: Hlc {
            wall_ms: STAMP_MS_MAX,
            counter: u32::MAX,
        },
        ..header(0)
    };
    let ops = vec![expiring, put("/empty", ""), delete("/gone")];
    let key = key_of(AUTHOR_A);
    let entries = [
        sign(&key, full, ops),
        sign(&key, repair, Vec::new()),
        sign(&key, header(0), vec![delete("k")]),
        sign(&key, last, vec![put("/k", "v")]),
        sign(&key, header(7), acts),
    ];
    entries.map(|entry| (*entry.unwrap()).clone()).into()
}

fn corpus() -> Corpus {
    let golden = include_bytes!("../../data/entry-v1.bin").to_vec();
    let entries = honest_entries().into_iter();
    Corpus::new(entries.map(|entry| entry.signed.encode()).chain([golden]))
}

/// Checks what is promised of an entry that was accepted.
fn assert_in_bounds(entry: &Entry) {
    let encoded = entry.signed.encode();
    assert!(encoded.len() <= ENTRY_BYTES_MAX);
    assert!(entry.header.parents.len() <= PARENTS_MAX && entry.ops.len() <= OPS_MAX);
    // Each parent has an id, and each op a tag.
    assert!(entry.header.parents.len() * 32 <= encoded.len());
    assert!(entry.ops.len() * 2 <= encoded.len());
    assert!(entry.header.hlc.wall_ms <= STAMP_MS_MAX && entry.header.seq > 0);
    let is_before = |parent: &Parent| parent.hlc < entry.header.hlc && parent.seq > 0;
    assert!(entry.header.parents.iter().all(is_before));
    let mut pairs = entry.header.parents.windows(2);
    assert!(pairs.all(|pair| pair[0] < pair[1]), "in order, each once");
    assert_eq!(entry.header.prev.is_none(), entry.header.seq == 1);
    let keys: BTreeSet<&Bytes> = entry.ops.iter().map(Op::key).collect();
    assert_eq!(keys.len(), entry.ops.len(), "each key at most once");
    for op in &entry.ops {
        assert!((1..=KEY_BYTES_MAX).contains(&op.key().len()));
        if let Op::Put { value, .. } = op {
            assert!(value.len() <= VALUE_BYTES_MAX);
        }
    }
}

/// Checks that there is one encoding: the author would sign the same bytes.
fn assert_canonical(entry: &Entry, secret: [u8; 32]) {
    let again = sign(&key_of(secret), entry.header.clone(), entry.ops.clone());
    let again = again.expect("no node refuses to sign an entry that others accept");
    assert_eq!(again.signed.header, entry.signed.header);
    assert_eq!(again.signed.ops, entry.signed.ops);
    assert_eq!(again.id, entry.id);
}

// Asks all rules that look at an entry alone.
fn ask_rules(entry: &Entry) {
    let acts = Acts::of(entry);
    let claims = entry.ops.iter().filter(|op| claim(op).is_some()).count();
    assert!(claims == 0 || may_claim(&entry.signed.encode()));
    assert!(
        acts.as_ref()
            .is_none_or(|acts| acts.acts.len() <= entry.ops.len())
    );
    let counting = Counting::new(author_of(AUTHOR_C));
    let void = entry.ops.iter().filter(|op| counting.is_void(entry, op));
    assert!(void.count() <= claims);
    let never_held = is_never_held(entry);
    assert!(!never_held || !entry.ops.is_empty());
}

#[test]
fn n1_b9_bytes_of_an_entry() {
    fuzz(&corpus(), |input| {
        let Ok(signed) = SignedEntry::decode(Bytes::copy_from_slice(input)) else {
            return false;
        };
        assert_eq!(signed.encode(), input, "there is one encoding");
        let again = signed.clone().parse_again();
        let Ok(entry) = signed.clone().parse() else {
            // The short check leaves out only that the encoding is the one.
            return false;
        };
        assert_eq!(again.as_ref(), Ok(&entry));
        assert_eq!(entry.id, signed.id());
        assert_in_bounds(&entry);
        ask_rules(&entry);
        let is_authentic = entry.check_signature().is_ok();
        // Only an honest input is signed: the id commits to everything in a signed header.
        assert!(!is_authentic || corpus().inputs().iter().any(|it| it == input));
        // A proof that a client checks.
        if let Some(op) = entry.ops.first() {
            let (kind, value, expires_ms) = match op {
                Op::Put {
                    value, expires_ms, ..
                } => (Kind::Put, Some(value.clone()), *expires_ms),
                Op::Delete { .. } => (Kind::Delete, None, None),
            };
            let asserted = AssertedChange {
                kind,
                key: op.key().clone(),
                value,
                expires_ms,
                entry: EntryRef::from(&entry),
                op_index: 0,
                op_count: u32::try_from(entry.ops.len()).unwrap(),
                atomic: entry.header.atomic,
            };
            let checked = asserted.check(Bytes::copy_from_slice(input), None);
            assert_eq!(checked.is_ok(), is_authentic);
        }
        is_authentic
    });
}

// Signs bytes, as only a hostile author's program would.
fn signed_by(secret: [u8; 32], header: Vec<u8>, ops: Bytes) -> SignedEntry {
    let key = key_of(secret);
    SignedEntry {
        signature: key.sign(&[DOMAIN, &header].concat()).to_bytes(),
        author: Author(key.verifying_key().to_bytes()),
        header: header.into(),
        ops,
    }
}

#[test]
fn b9_t3_header_that_is_really_signed() {
    let entries = honest_entries();
    let honest = wire::Header::decode(entries[0].signed.header.clone()).unwrap();
    let broken: [fn(&mut wire::Header); 15] = [
        |it| it.parents.reverse(),
        |it| it.parents.push(it.parents[1].clone()),
        |it| it.parents = vec![it.parents[0].clone(); PARENTS_MAX + 1],
        |it| it.parents[0].seq = 0,
        |it| it.parents[1].wall_ms = it.wall_ms + 1,
        |it| it.parents[1].id.truncate(31),
        |it| it.parents[1].author = Bytes::copy_from_slice(&author_of(AUTHOR_A).0),
        |it| it.seq = 0,
        |it| it.seq = 1,
        |it| it.prev.clear(),
        |it| it.wall_ms = STAMP_MS_MAX + 1,
        |it| it.flags = 2,
        |it| it.version = 2,
        |it| it.store_id.truncate(15),
        |it| it.ops_len += 1,
    ];
    let broken = broken.map(|change| {
        let mut header = honest.clone();
        change(&mut header);
        header.encode_to_vec()
    });
    let corpus = Corpus::new(entries.iter().map(|entry| entry.signed.header.to_vec()));
    fuzz(&corpus.broken(broken), |input| {
        // The ops are those that the header names, if it names honest ones.
        let message = wire::Header::decode(input).unwrap_or_default();
        let is_named = |entry: &&Entry| {
            message.ops_hash == blake3::hash(&entry.signed.ops).as_bytes().as_slice()
        };
        let ops = entries.iter().find(is_named);
        let ops = ops.map_or(Bytes::new(), |entry| entry.signed.ops.clone());
        let signed = signed_by(AUTHOR_A, input.to_vec(), ops);
        let Ok(entry) = signed.parse() else {
            return false;
        };
        assert_in_bounds(&entry);
        assert_canonical(&entry, AUTHOR_A);
        ask_rules(&entry);
        entry.verify().is_ok()
    });
}

#[test]
fn b9_l9_ops_that_are_really_signed() {
    let entries = honest_entries();
    let corpus = Corpus::new(entries.iter().map(|entry| entry.signed.ops.to_vec()));
    let honest = wire::Header::decode(entries[0].signed.header.clone()).unwrap();
    let deletes = |keys: Vec<Bytes>| {
        let kind = |key| Some(wire::op::Kind::Delete(wire::Delete { key }));
        let ops = keys.into_iter().map(|key| wire::Op { kind: kind(key) });
        wire::Ops { ops: ops.collect() }.encode_to_vec()
    };
    let key = |number: usize| Bytes::from(format!("/{number}"));
    let broken = [
        deletes(vec![Bytes::new()]),
        deletes(vec![Bytes::from(vec![7; KEY_BYTES_MAX + 1])]),
        deletes(vec![key(1), key(1)]),
        deletes((0..=OPS_MAX).map(key).collect()),
        wire::Ops {
            ops: vec![wire::Op { kind: None }],
        }
        .encode_to_vec(),
    ];
    fuzz(&corpus.broken(broken), |input| {
        let ops = Bytes::copy_from_slice(input);
        let header = wire::Header {
            ops_hash: Bytes::copy_from_slice(blake3::hash(&ops).as_bytes()),
            ops_len: ops.len() as u64,
            ..honest.clone()
        };
        let signed = signed_by(AUTHOR_A, header.encode_to_vec(), ops);
        let Ok(entry) = signed.parse() else {
            return false;
        };
        assert_in_bounds(&entry);
        assert_canonical(&entry, AUTHOR_A);
        ask_rules(&entry);
        true
    });
}

fn grant(by: [u8; 32], cites: Option<&Entry>, to: [u8; 32], role: Role) -> Entry {
    let header = Header {
        parents: cites.map(Entry::as_parent).into_iter().collect(),
        ..header(5 + u64::from(cites.is_some()))
    };
    let op = Op::Put {
        key: role_key(&author_of(to)),
        value: Act::Grant(role).encode(),
        expires_ms: None,
    };
    (*sign(&key_of(by), header, vec![op]).unwrap()).clone()
}

// Grants from the creator, AUTHOR_A, over AUTHOR_B to AUTHOR_C.
fn proof() -> Vec<Vec<u8>> {
    let first = grant(AUTHOR_A, None, AUTHOR_B, Role::Admin);
    let second = grant(AUTHOR_B, Some(&first), AUTHOR_C, Role::Writer);
    vec![first.signed.encode(), second.signed.encode()]
}

// Chains of entries that are really signed, but for the last, and prove nothing.
fn broken_proofs() -> Vec<Vec<Vec<u8>>> {
    let first = grant(AUTHOR_A, None, AUTHOR_B, Role::Admin);
    let as_writer = grant(AUTHOR_A, None, AUTHOR_B, Role::Writer);
    let second = |cites: Option<&Entry>| grant(AUTHOR_B, cites, AUTHOR_C, Role::Writer);
    let mut forged = second(Some(&first));
    forged.signed.signature[5] ^= 1;
    let chains = [
        vec![],
        vec![first.clone()],
        vec![second(None)],
        vec![first.clone(), first.clone()],
        vec![first.clone(), second(None)],
        vec![first.clone(), second(Some(&as_writer))],
        vec![as_writer.clone(), second(Some(&as_writer))],
        vec![first, forged],
    ];
    let encoded = chains.map(|chain| chain.iter().map(|it| it.signed.encode()).collect());
    encoded.into()
}

#[test]
fn m1_n1_hello_with_a_proof() {
    let request = |proof: Vec<Vec<u8>>| {
        let proof = proof.into_iter().map(Bytes::from).collect();
        let ops = wire::Ops { ops: Vec::new() }.encode_to_vec();
        assert!(ops.is_empty());
        Hello { proof }.encode_to_vec()
    };
    let long = vec![proof().swap_remove(0); PROOF_GRANTS_MAX + 1];
    let members = Members::founded(author_of(AUTHOR_A), STORE);
    let check = |input: &[u8]| {
        let hello = Hello::decode(input).ok()?;
        let node = author_of(AUTHOR_C);
        grant_chain::check(&hello.proof, &STORE, &node, &members).ok()
    };
    assert_eq!(check(&request(long)), None, "it is too long");
    let corpus = Corpus::new([request(proof())]);
    let broken = broken_proofs().into_iter().map(request);
    fuzz(&corpus.broken(broken), |input| {
        let Some(acts) = check(input) else {
            return false;
        };
        assert_eq!(acts.len(), 2);
        assert_eq!(acts[0].place.author, author_of(AUTHOR_A));
        assert!(acts[0].makes_admin(&acts[1].place.author));
        true
    });
}

// The field of a hello that has a proof: the message itself needs the net.
#[derive(Clone, PartialEq, prost::Message)]
struct Hello {
    #[prost(bytes = "bytes", repeated, tag = "4")]
    proof: Vec<Bytes>,
}

#[test]
fn n2_runs_of_entries_vouch_only_for_their_own_chain() {
    // A chain of three, the first two with wrong signatures of their own.
    let mut chain: Vec<Entry> = Vec::new();
    for seq in 1..=3_u64 {
        let header = Header {
            seq,
            prev: chain.last().map(|entry| entry.id),
            ..header(seq)
        };
        let entry = sign(&key_of(AUTHOR_A), header, vec![put("/k", "v")]).unwrap();
        let mut signed = entry.signed.clone();
        if seq < 3 {
            signed.signature[7] ^= 1;
        }
        chain.push(signed.parse().unwrap());
    }
    let encoded = chain.iter().map(|entry| entry.signed.encode());
    let lists = wire::sync::Entries {
        entries: encoded.map(Bytes::from).collect(),
    };
    let corpus = Corpus::new([lists.encode_to_vec()]);
    fuzz(&corpus, |input| {
        let Ok(list) = wire::sync::Entries::decode(input) else {
            return false;
        };
        let parse = |bytes: Bytes| SignedEntry::decode(bytes)?.parse();
        let parsed: Vec<Result<Entry, EntryError>> = list.entries.into_iter().map(parse).collect();
        let verified = run::verify(parsed.clone(), || {});
        assert_eq!(verified.len(), parsed.len());
        let mut accepted = 0;
        for (before, after) in parsed.iter().zip(&verified) {
            let Ok(entry) = after else { continue };
            let before = before.as_ref().unwrap();
            assert_eq!(before.id, entry.id);
            accepted += 1;
            if before.check_signature().is_ok() {
                continue;
            }
            let mut others = verified.iter().flatten();
            let is_vouched = others.any(|other| {
                other.header.prev == Some(entry.id) && other.author() == entry.author()
            });
            assert!(is_vouched, "no entry vouches for {}", entry.id);
        }
        accepted == 3
    });
}
