//! Laws of floors 0 and 1: state is a function of the set of entries, and bytes keep their meaning.

use std::collections::BTreeSet;

use bytes::Bytes;
use lattice::{
    id::{Author, EntryId, StoreId},
    limits::STAMP_MS_MAX,
    protocol::{
        cursor::{Cursor, Partial},
        entry::{Header, Op, Order, Parent, SignedEntry, VerifiedEntry, cause::Cause, sign},
        frontier::{Frontier, FrontierTip},
        heads::{Head, Heads},
        hlc::Hlc,
    },
};
use proptest::{collection::vec, option, prelude::*};

use crate::support::{
    model::{
        AUTHOR_A, AUTHOR_B, AUTHOR_C, AUTHORS, Node, Replica, author_of, delete, header, key_of,
        put,
    },
    random::{Random, for_each_seed},
};

/// The entries that the author of the next entry knows.
#[derive(Debug, Clone, Copy)]
enum Knows {
    /// Its own log and what that cites.
    Own,
    /// Everything so far.
    All,
    /// Its own log without the newest entry: a restored backup, so the entry is a fork.
    Backup,
}

#[derive(Debug, Clone, Copy)]
enum Does {
    PutOne,
    DeleteOne,
    PutBoth,
}

type Step = (usize, Knows, Does);

/// Authors at work: what they know, and everything they wrote.
#[derive(Debug, Clone, Default)]
struct World {
    entries: Vec<VerifiedEntry>,
    replicas: [Replica; 2],
    backups: [Replica; 2],
}

impl World {
    fn step(&mut self, (author, knows, does): Step) {
        let replica = &mut self.replicas[author];
        match knows {
            Knows::Own => {}
            Knows::Backup => *replica = self.backups[author].clone(),
            Knows::All => {
                for entry in &self.entries {
                    replica.apply(entry);
                }
            }
        }
        self.backups[author] = replica.clone();
        let ops = match does {
            Does::PutOne => vec![put("/k", "1")],
            Does::DeleteOne => vec![delete("/k")],
            Does::PutBoth => vec![put("/k", "2"), put("/l", "2")],
        };
        // Time stands still, so that entries which do not know each other have equal stamps.
        let entry = replica.write([AUTHOR_A, AUTHOR_B][author], 1000, ops);
        // A backup that repeats earlier writes makes the same entry.
        if !self.entries.contains(&entry) {
            self.entries.push(entry);
        }
    }
}

/// Delivers `entries` in every order and returns how many orders there were.
fn deliver_in_all_orders(entries: &[VerifiedEntry]) -> usize {
    let mut expected = Node::new();
    for entry in entries {
        expected.receive(entry);
    }
    assert_eq!(
        expected.replica.entries.len(),
        entries.len(),
        "all are applied"
    );
    expected.replica.assert_equals_definitions();
    let mut orders = 0;
    for_each_order(&mut entries.to_vec(), 0, &mut |order| {
        orders += 1;
        let mut node = Node::new();
        for entry in order {
            node.receive(entry);
        }
        assert_same(&node, &expected);
    });
    orders
}

fn assert_same(node: &Node, expected: &Node) {
    assert!(
        node.intake.pending().is_empty() && node.intake.pending().bytes() == 0,
        "nothing waits in the end"
    );
    assert_eq!(node.replica.heads, expected.replica.heads);
    assert_eq!(node.replica.frontier, expected.replica.frontier);
    assert_eq!(node.replica.entries, expected.replica.entries);
}

fn for_each_order<T>(items: &mut [T], fixed: usize, visit: &mut impl FnMut(&[T])) {
    if fixed == items.len() {
        return visit(items);
    }
    for chosen in fixed..items.len() {
        items.swap(fixed, chosen);
        for_each_order(items, fixed + 1, visit);
        items.swap(fixed, chosen);
    }
}

fn for_each_history(world: &World, steps: &[Step], left: usize, visit: &mut impl FnMut(&World)) {
    if left == 0 {
        return visit(world);
    }
    for step in steps {
        let mut next = world.clone();
        next.step(*step);
        for_each_history(&next, steps, left - 1, visit);
    }
}

fn steps(does: &[Does]) -> Vec<Step> {
    let mut steps = Vec::new();
    for author in [0, 1] {
        for knows in [Knows::Own, Knows::All, Knows::Backup] {
            steps.extend(does.iter().map(|does| (author, knows, *does)));
        }
    }
    steps
}

#[test]
fn all_orders_of_three_give_equal_heads() {
    let steps = steps(&[Does::PutOne, Does::DeleteOne, Does::PutBoth]);
    let (mut histories, mut orders, mut forks) = (0, 0, 0);
    for_each_history(&World::default(), &steps, 3, &mut |world| {
        histories += 1;
        orders += deliver_in_all_orders(&world.entries);
        forks += usize::from(world.entries.iter().any(|entry| is_contested(entry, world)));
    });
    assert_eq!(histories, 18 * 18 * 18);
    assert!(
        orders > 20_000 && forks > 500,
        "{orders} orders, {forks} forks"
    );
}

// Two branches of one author, one of which another author cites, and a reference with a wrong stamp.
#[test]
fn all_orders_of_seven_on_two_branches_give_equal_heads() {
    let write = |secret, before: Option<&VerifiedEntry>, wall_ms, parents: Vec<Parent>| {
        let header = Header {
            seq: before.map_or(1, |before| before.header.seq + 1),
            prev: before.map(|before| before.id),
            parents,
            ..header(wall_ms)
        };
        sign(&key_of(secret), header, vec![put("/k", "v")]).unwrap()
    };
    let first = write(AUTHOR_A, None, 1, Vec::new());
    let second = write(AUTHOR_A, Some(&first), 2, Vec::new());
    let left = write(AUTHOR_A, Some(&second), 3, Vec::new());
    let right = write(AUTHOR_A, Some(&second), 9, Vec::new());
    let left_end = write(AUTHOR_A, Some(&left), 4, Vec::new());
    let cites = write(AUTHOR_B, None, 10, vec![right.as_parent()]);
    let wrong = Parent {
        hlc: Hlc::new(5, 0).unwrap(),
        ..left_end.as_parent()
    };
    let lies = write(AUTHOR_C, None, 11, vec![wrong]);
    let heads = [&left_end, &cites, &lies].map(|entry| entry.id);
    let entries = [
        first,
        second,
        left,
        right,
        left_end.clone(),
        cites,
        lies.clone(),
    ];
    assert_eq!(deliver_in_all_orders(&entries), 5040);
    let mut node = Node::new();
    entries.iter().for_each(|entry| node.receive(entry));
    let found = node.replica.heads[&Bytes::from_static(b"/k")].as_slice();
    assert_eq!(found.iter().map(|head| head.id).collect::<Vec<_>>(), heads);
}

#[test]
fn all_orders_of_four_give_equal_heads() {
    let mut world = World::default();
    world.step((0, Knows::Own, Does::PutBoth));
    let mut orders = 0;
    for_each_history(
        &world,
        &steps(&[Does::PutOne, Does::PutBoth]),
        3,
        &mut |world| {
            orders += deliver_in_all_orders(&world.entries);
        },
    );
    assert!(orders > 20_000, "{orders} orders");
}

#[test]
fn all_orders_of_five_give_equal_heads() {
    let steps = steps(&[Does::PutOne, Does::DeleteOne, Does::PutBoth]);
    for_each_seed(1..=150, |random| {
        let mut world = World::default();
        while world.entries.len() < 5 {
            world.step(steps[random.below(steps.len())]);
        }
        assert_eq!(deliver_in_all_orders(&world.entries), 120);
    });
}

fn is_contested(entry: &VerifiedEntry, world: &World) -> bool {
    let mut others = world.entries.iter().filter(|other| other.id != entry.id);
    others.any(|other| other.author() == entry.author() && other.header.seq == entry.header.seq)
}

/// Three authors write, sync, lose their newest entries and repair, thirty times.
fn random_history(random: &mut Random) -> Vec<VerifiedEntry> {
    let mut replicas: [Replica; 3] = Default::default();
    let mut backups = replicas.clone();
    let mut entries: Vec<VerifiedEntry> = Vec::new();
    let mut now_ms = 1000;
    while entries.len() < 30 {
        let at = random.below(3);
        now_ms += random.bits() % 2;
        match random.below(12) {
            0 => replicas[at] = backups[at].clone(),
            1 => backups[at] = replicas[at].clone(),
            2..=4 => {
                let known = random.below(entries.len() + 1);
                for entry in &entries[..known] {
                    if replicas[at].missing(entry).is_none() {
                        replicas[at].apply(entry);
                    }
                }
            }
            5 => entries.push(replicas[at].repair(AUTHORS[at], now_ms)),
            _write => {
                let keys: BTreeSet<_> = (0..=random.below(3))
                    .map(|_| ["/a", "/b", "/c", "/d"][random.below(4)])
                    .collect();
                let value = random.bits().to_string();
                let op = |key| {
                    if random.once_in(4) {
                        delete(key)
                    } else {
                        put(key, &value)
                    }
                };
                let ops = keys.into_iter().map(op).collect();
                entries.push(replicas[at].write(AUTHORS[at], now_ms, ops));
            }
        }
    }
    let mut known = BTreeSet::new();
    entries.retain(|entry| known.insert(entry.id));
    entries
}

#[test]
fn random_orders_give_equal_heads() {
    let (mut forks, mut conflicts, mut repairs) = (0, 0, 0);
    for_each_seed(1..=60, |random| {
        let mut entries = random_history(random);
        let mut expected = Node::new();
        entries.iter().for_each(|entry| expected.receive(entry));
        assert_eq!(expected.replica.entries.len(), entries.len());
        expected.replica.assert_equals_definitions();
        conflicts += expected
            .replica
            .heads
            .values()
            .filter(|heads| heads.is_conflict())
            .count();
        repairs += entries.iter().filter(|entry| entry.ops.is_empty()).count();
        forks += AUTHORS
            .iter()
            .filter(|secret| expected.replica.frontier.tips(&author_of(**secret)).len() > 1)
            .count();
        for _order in 0..15 {
            random.shuffle(&mut entries);
            let mut node = Node::new();
            for entry in &entries {
                node.receive(entry);
                if random.once_in(3) {
                    node.receive(&entries[random.below(entries.len())]);
                }
            }
            assert_same(&node, &expected);
        }
    });
    if std::env::var_os("SEED").is_none() {
        assert!(
            forks > 50 && conflicts > 50 && repairs > 50,
            "{forks}, {conflicts}, {repairs}"
        );
    }
}

#[test]
fn partial_histories_match_the_definition() {
    for_each_seed(1..=60, |random| {
        let mut entries = random_history(random);
        random.shuffle(&mut entries);
        let mut node = Node::new();
        for entry in &entries {
            node.receive(entry);
            node.replica.assert_equals_definitions();
        }
    });
}

#[test]
fn b5_repeated_entry_changes_nothing() {
    for_each_seed(1..=20, |random| {
        let entries = random_history(random);
        let mut node = Node::new();
        entries.iter().for_each(|entry| node.receive(entry));
        let before = node.replica.clone();
        for entry in entries.iter().rev().chain(&entries) {
            node.receive(entry);
        }
        assert_eq!(
            (before.heads, before.frontier),
            (node.replica.heads, node.replica.frontier)
        );
    });
}

#[test]
fn t6_stamp_decides_only_between_concurrent_entries() {
    // A writes with a clock far ahead, B knows it and has a clock far behind: B's write wins.
    let mut replica = Replica::default();
    replica.write(AUTHOR_A, 9_000_000, vec![put("/k", "ahead")]);
    let behind = replica.write(AUTHOR_B, 5, vec![put("/k", "behind")]);
    let heads = &replica.heads[&Bytes::from("/k")];
    assert_eq!(heads.as_slice().len(), 1);
    assert_eq!(heads.winner().unwrap().id, behind.id);

    // B does not know it: both stay, the greater stamp wins, here and anywhere.
    let mut other = Replica::default();
    let backdated = other.write(AUTHOR_B, 5, vec![put("/k", "backdated")]);
    let mut replica = Replica::default();
    let ahead = replica.write(AUTHOR_A, 9_000_000, vec![put("/k", "ahead")]);
    replica.apply(&backdated);
    let heads = &replica.heads[&Bytes::from("/k")];
    assert!(heads.is_conflict());
    assert_eq!(heads.winner().unwrap().id, ahead.id);
}

#[test]
fn equal_stamps_are_ordered_by_author_then_id() {
    let write = |secret, value| sign(&key_of(secret), header(7), vec![put("/k", value)]).unwrap();
    let mut entries: Vec<VerifiedEntry> = AUTHORS
        .into_iter()
        .flat_map(|secret| ["1", "2", "3"].map(|value| write(secret, value)))
        .collect();
    entries.sort_by_key(|entry| entry.order());
    assert!(entries.is_sorted_by_key(|entry| (entry.author(), entry.id)));
    let expected = entries.last().unwrap().id;
    for_each_seed(1..=100, |random| {
        let mut entries = entries.clone();
        random.shuffle(&mut entries);
        let heads = entries.iter().fold(Heads::default(), |heads, entry| {
            heads.apply(entry, &entry.ops[0], &BTreeSet::new())
        });
        assert_eq!(heads.winner().unwrap().id, expected);
        assert!(heads.as_slice().is_sorted_by_key(Head::order));
    });
}

fn bytes_of(length: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), length).prop_map(Bytes::from)
}

fn ids() -> impl Strategy<Value = EntryId> {
    any::<[u8; 32]>().prop_map(EntryId)
}

fn stamps() -> impl Strategy<Value = Hlc> {
    (0..=STAMP_MS_MAX, any::<u32>()).prop_map(|(wall_ms, counter)| Hlc { wall_ms, counter })
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        bytes_of(1..40).prop_map(|key| Op::Delete { key }),
        (bytes_of(1..40), bytes_of(0..300), option::of(any::<u64>())).prop_map(
            |(key, value, expires_ms)| Op::Put {
                key,
                value,
                expires_ms
            }
        ),
    ]
}

fn parents() -> impl Strategy<Value = Parent> {
    (stamps(), any::<[u8; 32]>(), ids(), 1..u64::MAX).prop_map(|(hlc, author, id, seq)| Parent {
        hlc,
        author: Author(author),
        id,
        seq,
    })
}

fn causes() -> impl Strategy<Value = Cause> {
    ("[a-z]{1,40}", ids(), any::<u32>(), 1..u32::MAX).prop_map(
        |(consumer, trigger, position, depth)| Cause {
            consumer,
            trigger,
            position,
            depth,
        },
    )
}

prop_compose! {
    fn headers()(
        store: [u8; 16],
        later in option::of((2..u64::MAX, ids())),
        at in stamps(),
        atomic: bool,
        cause in option::of(causes()),
        mut parents in vec(parents(), 0..20),
    ) -> Header {
        parents.sort_unstable();
        parents.dedup();
        let newest = parents.last().map_or(Hlc::ZERO, |parent| parent.hlc).max(at);
        Header {
            store: StoreId(store),
            seq: later.map_or(1, |(seq, _)| seq),
            prev: later.map(|(_, prev)| prev),
            // The one stamp without a next one is not drawn in a lifetime.
            hlc: newest.next(0).unwrap(),
            atomic,
            cause,
            parents,
        }
    }
}

fn frontier_tips() -> impl Strategy<Value = (Author, FrontierTip)> {
    (any::<[u8; 32]>(), 1..u64::MAX, ids())
        .prop_map(|(author, seq, id)| (Author(author), FrontierTip { seq, id }))
}

prop_compose! {
    fn cursors()(
        store: [u8; 16],
        tips in vec(frontier_tips(), 0..12),
        forked in 0..3_usize,
        partial in option::of((frontier_tips(), 1..u32::MAX)),
        expired_through_ms: u64,
    ) -> Cursor {
        // Some authors have two tips: they forked.
        let second = tips.iter().take(forked).map(|(author, tip)| {
            (*author, FrontierTip { seq: tip.seq, id: EntryId([7; 32]) })
        });
        Cursor {
            store: StoreId(store),
            frontier: tips.iter().copied().chain(second).collect(),
            partial: partial.map(|((author, tip), ops)| Partial { author, tip, ops }),
            expired_through_ms,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn entry_round_trip(
        header in headers(),
        mut ops in vec(ops(), 0..8),
        author in 0..3_usize,
    ) {
        let mut keys = BTreeSet::new();
        ops.retain(|op| keys.insert(op.key().clone()));
        let entry = sign(&key_of(AUTHORS[author]), header.clone(), ops.clone()).unwrap();
        let bytes = entry.signed.encode();
        let read = SignedEntry::decode(Bytes::from(bytes.clone())).unwrap().parse().unwrap();
        let read = read.verify().unwrap();
        prop_assert_eq!(&read.header, &header);
        prop_assert_eq!(&read.ops, &ops);
        prop_assert_eq!(read.signed.encode(), bytes);
        prop_assert_eq!(&read, &entry);
    }

    #[test]
    fn own_parents_round_trip(header in headers(), which in any::<prop::sample::Index>()) {
        prop_assume!(!header.parents.is_empty());
        let key = key_of(AUTHOR_A);
        let mut header = header;
        let own = which.index(header.parents.len());
        header.parents[own].author = Author(key.verifying_key().to_bytes());
        header.parents.sort_unstable();
        let entry = sign(&key, header.clone(), Vec::new()).unwrap();
        let read = entry.signed.clone().parse().unwrap();
        prop_assert_eq!(read.header, header);
    }

    #[test]
    fn cursor_round_trip(cursor in cursors()) {
        let text = cursor.to_string();
        prop_assert_eq!(text.parse::<Cursor>().unwrap(), cursor);
        prop_assert!(text.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"-_".contains(&letter)));
    }

    #[test]
    fn cursor_with_a_changed_letter_is_refused(
        cursor in cursors(),
        place in any::<prop::sample::Index>(),
        letter in "[A-Za-z0-9_-]",
    ) {
        let mut text = cursor.to_string();
        let place = place.index(text.len());
        prop_assume!(text[place..=place] != letter);
        text.replace_range(place..=place, &letter);
        prop_assert!(text.parse::<Cursor>().is_err());
    }

    #[test]
    fn frontier_does_not_depend_on_order(
        tips in vec(frontier_tips(), 0..20),
        seed: u64,
    ) {
        let one: Frontier = tips.iter().copied().collect();
        let mut other = tips.clone();
        other.extend(tips.iter().take(3).copied());
        other.sort_by_key(|(author, tip)| (seed ^ tip.seq, *author));
        let other: Frontier = other.into_iter().collect();
        prop_assert_eq!(&one, &other);
        prop_assert!(one.missing_from(&other).is_empty());
    }

    #[test]
    fn order_is_total_and_by_stamp_first(
        a in (stamps(), any::<[u8; 32]>(), ids()),
        b in (stamps(), any::<[u8; 32]>(), ids()),
    ) {
        let order = |(hlc, author, id)| Order { hlc, author: Author(author), id };
        prop_assert_eq!(order(a).cmp(&order(b)), a.cmp(&b));
        prop_assert_eq!(order(a) == order(b), a == b);
    }
}
