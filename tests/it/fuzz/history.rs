//! What ends a history, and what keeps it: acts, policies, snapshot files, and the machines by which a
//! base is fetched.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lattice::{
    id::{Author, EntryId, StoreId},
    limits::{
        BASE_FLOOR_BYTES, BASE_FLOOR_MS, BASE_LAST_MAX_MS, BASE_MANIFEST_BYTES_MAX, BASE_TRIES_MAX,
        SEQ_MAX, STAMP_MS_MAX,
    },
    protocol::{
        anchors_act::{ActBase, ActCollection, AnchorsAct, BaseHash},
        finality::{
            DORMANT_AFTER_MS_MIN, DORMANT_BYTES_MIN, HistoryPolicy, Seen, StorePolicy, Waiting,
        },
        frontier::{Frontier, FrontierHash, FrontierTip},
        peer::BaseGiver,
        snapshot::{
            BlockHead, Contents, Manifest, SnapshotWriter,
            block::{BLOCK_HEAD_BYTES, BODY_BYTES_MAX, CHECK_BYTES, Kind},
        },
        sync::{BaseChoice, BaseRank, RateFloor},
    },
};

use crate::support::{
    model::{AUTHOR_A, AUTHOR_B, author_of, key_of},
    mutator::{Corpus, fuzz, number, soaked},
    random::{Random, for_each_seed},
};

fn tip(seq: u64, id: u8) -> FrontierTip {
    let id = EntryId([id; 32]);
    FrontierTip { seq, id }
}

fn act(base: bool, collects: bool, anchors: &[(Author, FrontierTip)]) -> Bytes {
    let base = base.then_some(ActBase {
        hash: BaseHash([7; 32]),
        keys: 12,
    });
    let collection = collects.then(|| ActCollection {
        before: EntryId([5; 32]),
        own: BTreeMap::from([(author_of(AUTHOR_A), tip(3, 3))]),
    });
    let anchors: Frontier = anchors.iter().copied().collect();
    let act = AnchorsAct::new(4, base, 1_700_000_000_000, anchors, collection);
    act.unwrap().encode()
}

#[test]
fn m13_n14_anchors_act() {
    let (a, b) = (author_of(AUTHOR_A), author_of(AUTHOR_B));
    let corpus = Corpus::new([
        act(true, false, &[]),
        act(false, false, &[(a, tip(1, 1))]),
        act(
            true,
            true,
            &[(a, tip(9, 1)), (b, tip(2, 2)), (b, tip(2, 3))],
        ),
    ]);
    let above = act(true, true, &[(a, tip(9, 1))]);
    let above = String::from_utf8(above.to_vec()).unwrap();
    let corpus = corpus.broken([
        above.replace(&format!("own {a} 3"), &format!("own {a} 10")),
        above.replace("anchors 4", "anchors 0"),
        above.replace("anchors 4", "anchors 04"),
        above.replace("through 1", "through 9999"),
        format!("{above}{a} 9 {}\n", EntryId([1; 32])),
    ]);
    fuzz(&corpus, |input| {
        let Some(act) = AnchorsAct::decode(input) else {
            return false;
        };
        assert_eq!(act.encode(), input, "there is one text");
        assert!(act.number() > 0 && act.through_ms() <= STAMP_MS_MAX);
        assert!(act.anchors().len() * 64 <= input.len());
        let mut anchors = act.anchors().iter();
        assert!(anchors.all(|(_, tip)| (1..=SEQ_MAX).contains(&tip.seq)));
        true
    });
}

// A policy decides what is removed. Whatever stands there is one, and no member is left behind at once.
#[test]
fn m13_policy_of_a_history() {
    let all = b"age 1\nsize 2\nhold 3\nfinal-after 4\nfinal-size 5\ndormant-after 7200000\n\
                dormant-size 99999999\n";
    let corpus = Corpus::new([&b""[..], &all[..], b"age 5\nage 6\n"]);
    // `false` for a text that stands for the default.
    let mut other = 0;
    for_each_seed(1..=soaked(40), |random| {
        for _ in 0..50 {
            let policy = HistoryPolicy::decode(&corpus.mutant(random));
            assert!(policy.store.dormant_after_ms >= DORMANT_AFTER_MS_MIN);
            assert!(policy.store.dormant_bytes >= DORMANT_BYTES_MIN);
            assert_eq!(HistoryPolicy::decode(&policy.encode()), policy);
            other += usize::from(policy != HistoryPolicy::default());
        }
    });
    assert!(other > 100 || std::env::var_os("SEED").is_some(), "{other}");
}

fn manifest(names: [&str; 2]) -> Vec<u8> {
    let contents = |number: u8, name: &str, state_root| Contents {
        id: StoreId([number; 16]),
        name: name.to_owned(),
        root: number == 1,
        private: false,
        entries: 10,
        keys: 9,
        state_root,
        removed_entries: 7 * u64::from(number - 1),
    };
    let manifest = Manifest {
        created_ms: 1_700_000_000_000,
        node: author_of(AUTHOR_A),
        name: "kitchen".to_owned(),
        has_key: true,
        stores: vec![
            contents(1, names[0], None),
            contents(2, names[1], Some([3; 32])),
        ],
        hash: [8; 32],
        peers: vec![(author_of(AUTHOR_B), Bytes::from_static(b"note"))],
    };
    manifest.sign(&key_of(AUTHOR_A)).to_vec()
}

#[test]
fn s22_manifest_of_a_snapshot() {
    let corpus = Corpus::new([manifest(["root", "data"]), manifest(["", "notes"])]);
    let long = "n".repeat(lattice::limits::STORE_NAME_CHARS_MAX + 1);
    let corpus = corpus.broken([manifest(["root", &long])]);
    fuzz(&corpus, |input| {
        let Some(manifest) = Manifest::decode(input) else {
            return false;
        };
        assert!(manifest.stores.len() * 18 <= input.len());
        let signed = manifest.sign(&key_of(AUTHOR_A));
        assert_eq!(Manifest::decode(&signed), Some(manifest));
        true
    });
}

#[test]
fn s22_block_of_a_snapshot() {
    let offset = lattice::protocol::snapshot::block::HEAD_BYTES as u64;
    let kinds = [
        Kind::Store,
        Kind::Base,
        Kind::Piece,
        Kind::Branch,
        Kind::Entries,
        Kind::Key,
    ];
    let blocks = kinds.map(|kind| {
        let (mut writer, _head) = SnapshotWriter::begin();
        writer.block(kind, b"what it has in it").to_vec()
    });
    fuzz(&Corpus::new(blocks), |input| {
        let Some((head, rest)) = input.split_first_chunk::<BLOCK_HEAD_BYTES>() else {
            return false;
        };
        let Ok(head) = BlockHead::decode(offset, *head) else {
            return false;
        };
        assert!(head.rest <= BODY_BYTES_MAX.max(BASE_MANIFEST_BYTES_MAX + 16) + CHECK_BYTES);
        let Some(rest) = rest.get(..head.rest) else {
            return false;
        };
        let Ok(block) = head.block(offset, Bytes::copy_from_slice(rest)) else {
            return false;
        };
        let (mut writer, _head) = SnapshotWriter::begin();
        let again = writer.block(block.kind, &block.body);
        assert!(input.starts_with(&again), "there is one block");
        input.len() == again.len()
    });
}

// Mostly goes on by a little; `steady` clocks never go back.
fn tick(now_ms: &mut u64, random: &mut Random) {
    *now_ms = match random.below(8) {
        0 => now_ms.saturating_add(number(random)),
        _on => now_ms.saturating_add(random.bits() % 100_000),
    };
}

#[test]
fn n7_rate_of_a_base_at_any_times() {
    for_each_seed(1..=soaked(500), |random| {
        let (mut floor, mut now_ms) = (RateFloor::default(), 0);
        // Of the window that goes on, as the peer is judged by it.
        let (mut waited_ms, mut came, mut since_ms) = (0_u64, 0_u64, None);
        for _ in 0..200 {
            tick(&mut now_ms, random);
            if random.below(2) == 0 {
                let began_ms = *since_ms.get_or_insert(now_ms);
                let waits_ms = waited_ms.saturating_add(now_ms - began_ms);
                let left_ms = floor.wait(now_ms);
                assert_eq!(left_ms, BASE_FLOOR_MS.saturating_sub(waits_ms));
                continue;
            }
            let bytes = random.bits() % BASE_FLOOR_BYTES;
            waited_ms = waited_ms.saturating_add(now_ms - since_ms.take().unwrap_or(now_ms));
            came = came.saturating_add(bytes);
            let is_slow = floor.come(bytes, now_ms).is_err();
            let is_over = waited_ms >= BASE_FLOOR_MS;
            assert_eq!(is_slow, is_over && came < BASE_FLOOR_BYTES);
            if is_over {
                (waited_ms, came) = (0, 0);
            }
        }
    });
}

#[test]
fn n13_giver_of_a_base_at_any_times() {
    for_each_seed(1..=soaked(500), |random| {
        let (mut giver, mut now_ms) = (BaseGiver::default(), 0);
        for _ in 0..100 {
            tick(&mut now_ms, random);
            if random.below(4) == 0 {
                giver.gave();
                assert!(!giver.is_last(now_ms), "it is asked again at once");
            } else {
                giver.failed(now_ms);
                assert!(giver.is_last(now_ms) || now_ms == u64::MAX);
                let later_ms = now_ms.saturating_add(BASE_LAST_MAX_MS);
                assert!(!giver.is_last(later_ms), "and never kept for last for ever");
            }
        }
    });
}

// Two admins may name any bases in any order, and peers offer any of them at any time.
#[test]
fn n13_n14_choice_of_a_base_with_any_offers() {
    for_each_seed(1..=soaked(500), |random| {
        let (mut choice, mut now_ms) = (BaseChoice::default(), 0);
        let rank = |random: &mut Random| -> BaseRank {
            let hash = u8::try_from(random.below(5)).unwrap();
            (random.bits() % 4, [hash; 32])
        };
        let mut taken: Option<BaseRank> = None;
        let mut failures: BTreeMap<[u8; 32], u32> = BTreeMap::new();
        for _ in 0..200 {
            tick(&mut now_ms, random);
            match random.below(6) {
                0..3 => match (choice.choose(rank(random), now_ms), taken) {
                    (Ok(()), _) => taken = None,
                    (Err(newer), Some(known)) => assert_eq!(newer, known, "the one that is taken"),
                    (Err(newer), None) => taken = Some(newer),
                },
                3 => choice.come(now_ms),
                4 => {
                    choice.installed();
                    taken = None;
                    assert!(choice.is_empty());
                }
                _failed => {
                    let base = BaseHash(rank(random).1);
                    choice.failed(base);
                    let count = failures.entry(base.0).or_default();
                    *count += 1;
                    assert_eq!(choice.is_refused(&base), *count >= BASE_TRIES_MAX);
                    taken = None;
                }
            }
            let any = rank(random);
            let mut copy = BaseChoice::default();
            copy.expect(any, now_ms);
            assert_eq!(copy.choose(any, now_ms), Ok(()), "what is taken goes on");
        }
    });
}

// Members that send any acks, at looks of any length: nobody is dormant who makes progress, or lacks
// nothing.
#[test]
fn n5_waiting_for_members_with_any_acks() {
    let store = StoreId([1; 16]);
    let policy = StorePolicy {
        final_after_ms: 0,
        final_bytes: 0,
        dormant_after_ms: DORMANT_AFTER_MS_MIN,
        dormant_bytes: DORMANT_BYTES_MIN,
    };
    let policies = BTreeMap::from([(store, policy)]);
    let mut ever = 0;
    for_each_seed(1..=soaked(300), |random| {
        let mut waiting = Waiting::default();
        let mut before: BTreeMap<Author, Seen> = BTreeMap::new();
        for _ in 0..60 {
            let mut seen = Vec::new();
            for node in 0..5_u8 {
                if random.below(8) == 0 {
                    continue;
                }
                let small = |random: &mut Random| random.bits() % 3;
                seen.push(Seen {
                    node: Author([node; 32]),
                    used: (random.below(4) > 0).then(|| (small(random), small(random))),
                    has: FrontierHash([u8::try_from(random.below(2)).unwrap(); 32]),
                    bytes_behind: match random.below(4) {
                        0 => 0,
                        1 => number(random),
                        _some => small(random) * DORMANT_BYTES_MIN,
                    },
                });
            }
            let elapsed_ms = number(random);
            let all: Vec<_> = seen.iter().map(|seen| (store, *seen)).collect();
            waiting.look(elapsed_ms, &all);
            let dormant = waiting.dormant(&policies);
            ever += dormant.len();
            let nodes: BTreeSet<Author> = seen.iter().map(|seen| seen.node).collect();
            assert!(dormant.is_subset(&nodes), "only those that were looked at");
            for seen in &seen {
                let advanced = before
                    .get(&seen.node)
                    .is_some_and(|known| known.has != seen.has);
                let waited_for =
                    seen.bytes_behind == 0 || (advanced && seen.bytes_behind <= DORMANT_BYTES_MIN);
                assert!(!waited_for || !dormant.contains(&seen.node), "{seen:?}");
            }
            let back = waiting.back(DORMANT_BYTES_MIN);
            assert!(back.is_subset(&nodes));
            before = seen.into_iter().map(|seen| (seen.node, seen)).collect();
        }
    });
    assert!(ever > 100 || std::env::var_os("SEED").is_some(), "{ever}");
}
