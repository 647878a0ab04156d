//! Each verdict for its situation, and the law: the same entries in any order end in the same log.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
};

use bytes::Bytes;
use ed25519_dalek::SigningKey;

use super::*;
use crate::{
    id::{Author, EntryId, Seq, StoreId},
    limits::{DRIFT_MS_MAX, PARENT_WAIT_MS},
    protocol::{
        chain::{ChainError, Tip},
        entry::{
            Entry, Header, Op, Parent, VerifiedEntry, sign,
            tests::{AUTHOR_A, AUTHOR_B, entry},
        },
        frontier::FrontierTip,
        heads::Heads,
        membership::{
            Members, Standing,
            acts::Acts,
            role::{Act, Role, Tips, role_key},
            spent::is_spent,
        },
    },
};

const NOW_MS: u64 = 1_000_000;
const AUTHOR_C: [u8; 32] = [0xc; 32];
const STORE: StoreId = StoreId([5; 16]);

/// Returns the standing of an author who was removed, with its entries through `kept` counting.
fn removed(author: Author, kept: Option<FrontierTip>) -> Standing {
    let first = entry([1; 32], 1, None, 10, "/k");
    let second = entry([1; 32], 2, Some(first.id), 11, "/k");
    let (creator, root) = (first.author(), StoreId([1; 16]));
    let acts = |entry: &Entry, act| Acts {
        place: entry.as_parent(),
        cites: Vec::new(),
        needs_authority: false,
        anchors: Vec::new(),
        founds: Vec::new(),
        describes: Vec::new(),
        acts: vec![(author, act)],
    };
    let tips = Tips::naming([STORE], kept.map(|tip| (STORE, tip))).unwrap();
    let acts = [
        acts(&first, Act::Grant(Role::Writer)),
        acts(&second, Act::Remove(tips)),
    ];
    let Ok(members) = Members::evaluate(creator, root, &acts, |_, _, _| Ok::<_, Infallible>(None));
    members.standing(&STORE, &author)
}

/// A log in memory, in which places can be damaged and authors have any standing.
#[derive(Default)]
struct Log {
    branches: BTreeMap<Author, Vec<Vec<VerifiedEntry>>>,
    heads: BTreeMap<Bytes, Heads>,
    standing: BTreeMap<Author, Standing>,
    removed: BTreeSet<Author>,
    unreadable: BTreeSet<(Author, Seq)>,
    holes: BTreeSet<(Author, Seq)>,
    // Places that were asked for.
    asked: RefCell<Vec<(Author, Seq)>>,
}

impl Lookup for Log {
    type Error = Infallible;

    fn tips(&self, author: &Author) -> Vec<Tip> {
        let branches = self.branches.get(author).into_iter().flatten();
        branches.map(|branch| tip(branch.last().unwrap())).collect()
    }

    fn at(&self, author: &Author, branch: usize, seq: Seq) -> Result<Place, Infallible> {
        self.asked.borrow_mut().push((*author, seq));
        if self.unreadable.contains(&(*author, seq)) {
            return Ok(Place::Unreadable);
        }
        let mut entries = self.branches[author][branch].iter();
        let found = entries.find(|entry| entry.header.seq == seq);
        Ok(found.map_or(Place::Free, |entry| Place::Entry(tip(entry))))
    }

    fn is_hole(&self, author: &Author, seq: Seq) -> Result<bool, Infallible> {
        Ok(self.holes.contains(&(*author, seq)))
    }

    fn heads(&self, entry: &Entry) -> Result<Vec<Heads>, Infallible> {
        let keys = entry.ops.iter().map(Op::key);
        let heads = keys.map(|key| self.heads.get(key).cloned().unwrap_or_default());
        Ok(heads.collect())
    }

    fn standing(&self, author: &Author) -> Standing {
        let standing = self.standing.get(author).cloned();
        standing.unwrap_or(Standing::Counts)
    }

    fn takes_branch(&self, _author: &Author, _seq: Seq, tips: &[Tip]) -> bool {
        !is_spent(tips.len() - 1)
    }

    fn is_cut_off(&self, author: &Author) -> bool {
        self.removed.contains(author)
    }

    fn leads(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, Infallible> {
        let mut branches = self.branches.get(author).into_iter().flatten();
        let has = |branch: &&Vec<VerifiedEntry>, at: FrontierTip| {
            branch.iter().any(|entry| FrontierTip::of(entry) == at)
        };
        let on = branches.find(|branch| has(branch, tip));
        Ok(on.map(|branch| has(&branch, entry)))
    }
}

impl Log {
    fn write(&mut self, entry: &VerifiedEntry, verdict: &Verdict) {
        let branches = self.branches.entry(entry.author()).or_default();
        match verdict {
            Verdict::Append { branch, .. } => branches[*branch].push(entry.clone()),
            Verdict::Begin { fork, .. } => {
                assert_eq!(*fork, !branches.is_empty());
                branches.push(vec![entry.clone()]);
            }
            verdict => panic!("{verdict:?} is not written"),
        }
        let (Verdict::Append { before, .. } | Verdict::Begin { before, .. }) = verdict else {
            panic!("{verdict:?} is not written")
        };
        for op in &entry.ops {
            let heads = self.heads.entry(op.key().clone()).or_default();
            *heads = heads.apply(entry, op, &before.ancestors);
        }
    }
}

fn tip(entry: &Entry) -> Tip {
    Tip {
        seq: entry.header.seq,
        id: entry.id,
        hlc: entry.header.hlc,
    }
}

fn new_intake() -> Intake {
    Intake::new(false, IntakeLimits::default())
}

/// Offers an entry and all that it releases, each in a group of its own. Returns its own verdict.
fn take(intake: &mut Intake, log: &mut Log, now_ms: u64, entry: &VerifiedEntry) -> Verdict {
    let mut first = None;
    let mut ready = VecDeque::from([entry.clone()]);
    while let Some(entry) = ready.pop_front() {
        let Ok(verdict) = intake.offer(&entry, now_ms, log);
        if matches!(verdict, Verdict::Append { .. } | Verdict::Begin { .. }) {
            log.write(&entry, &verdict);
            ready.extend(intake.staged(&entry));
            intake.commit();
        }
        first.get_or_insert(verdict);
    }
    first.unwrap()
}

fn next(prev: &Entry, key: &'static str) -> VerifiedEntry {
    let wall_ms = prev.header.hlc.wall_ms + 1;
    entry(AUTHOR_A, prev.header.seq + 1, Some(prev.id), wall_ms, key)
}

fn citing(secret: [u8; 32], parents: Vec<Parent>, key: &'static str) -> VerifiedEntry {
    let header = Header {
        parents,
        ..entry(secret, 1, None, 900, key).header.clone()
    };
    let op = Op::Delete { key: key.into() };
    sign(&SigningKey::from_bytes(&secret), header, vec![op]).unwrap()
}

fn appended(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Append { .. } | Verdict::Begin { .. })
}

#[test]
fn an_entry_is_appended_begun_or_a_duplicate() {
    let (mut intake, mut log) = (new_intake(), Log::default());
    let first = entry(AUTHOR_A, 1, None, 10, "/1");
    let second = next(&first, "/2");
    let other = next(&first, "/other");
    let begun = take(&mut intake, &mut log, NOW_MS, &first);
    assert!(matches!(begun, Verdict::Begin { fork: false, .. }));
    let verdict = take(&mut intake, &mut log, NOW_MS, &second);
    assert!(matches!(verdict, Verdict::Append { branch: 0, .. }));
    let verdict = take(&mut intake, &mut log, NOW_MS, &other);
    assert!(matches!(verdict, Verdict::Begin { fork: true, .. }));
    for entry in [&first, &second, &other] {
        assert_eq!(
            take(&mut intake, &mut log, NOW_MS, entry),
            Verdict::Duplicate
        );
    }
}

#[test]
fn an_entry_waits_for_its_predecessor_and_its_parents() {
    let (mut intake, mut log) = (new_intake(), Log::default());
    let first = entry(AUTHOR_A, 1, None, 10, "/1");
    let second = next(&first, "/2");
    let child = citing(AUTHOR_B, vec![second.as_parent()], "/3");
    let verdict = take(&mut intake, &mut log, NOW_MS, &child);
    assert_eq!(verdict, Verdict::AwaitsEntry(second.id));
    let verdict = take(&mut intake, &mut log, NOW_MS, &second);
    assert_eq!(verdict, Verdict::AwaitsEntry(first.id));
    assert!(appended(&take(&mut intake, &mut log, NOW_MS, &first)));
    assert!(intake.pending().is_empty());
    assert_eq!(
        log.branches[&child.author()].len(),
        1,
        "all three are applied"
    );
}

// Logs do not show what a group has staged: without the group's own memory the second entry waited
// for the first, and the child for both.
#[test]
fn entries_of_one_group_see_each_other() {
    let (mut intake, mut log) = (new_intake(), Log::default());
    let first = entry(AUTHOR_A, 1, None, 10, "/1");
    let Ok(verdict) = intake.offer(&first, NOW_MS, &log);
    assert!(appended(&verdict));
    assert!(intake.staged(&first).is_empty() && intake.is_staging());
    // Not in `log`, as if it were not durable yet; only the tip is known.
    let child = citing(AUTHOR_B, vec![first.as_parent()], "/2");
    let Ok(verdict) = intake.offer(&child, NOW_MS, &log);
    assert!(appended(&verdict), "{verdict:?}");
    intake.roll_back();
    assert!(!intake.is_staging());
    assert_eq!(
        take(&mut intake, &mut log, NOW_MS, &child),
        Verdict::AwaitsEntry(first.id)
    );
}

// Refused before, which a node that never gets the parent could not do: the two differed for ever.
#[test]
fn a_reference_with_a_wrong_stamp_supersedes_nothing() {
    let (mut intake, mut log) = (new_intake(), Log::default());
    let first = entry(AUTHOR_A, 1, None, 10, "/1");
    assert!(appended(&take(&mut intake, &mut log, NOW_MS, &first)));
    let mut late = first.as_parent();
    late.hlc.wall_ms += 5;
    let lie = citing(AUTHOR_B, vec![late], "/1");
    assert!(appended(&take(&mut intake, &mut log, NOW_MS, &lie)));
    assert_eq!(ids(&log.heads["/1".as_bytes()]), [first.id, lie.id]);
    // A wrong place names an entry that never comes, here and elsewhere.
    let mut elsewhere = first.as_parent();
    elsewhere.seq = 2;
    let waits = citing(AUTHOR_C, vec![elsewhere], "/1");
    let verdict = take(&mut intake, &mut log, NOW_MS, &waits);
    assert_eq!(verdict, Verdict::AwaitsEntry(first.id));
}

#[test]
fn an_entry_from_the_future_is_held_until_it_is_due() {
    let (mut intake, mut log) = (new_intake(), Log::default());
    let due_ms = NOW_MS + 1;
    let early = entry(AUTHOR_A, 1, None, due_ms + DRIFT_MS_MAX, "/1");
    let held = Verdict::AwaitsClock { due_ms };
    assert_eq!(take(&mut intake, &mut log, NOW_MS, &early), held);
    assert_eq!(intake.next_due_ms(), Some(due_ms));
    assert!(intake.take_due(NOW_MS).is_empty());
    let due = intake.take_due(due_ms);
    assert_eq!(due, [early]);
    assert!(appended(&take(&mut intake, &mut log, due_ms, &due[0])));
    // Exactly at the bound it is not early.
    let edge = next(&due[0], "/2");
    assert!(appended(&take(&mut intake, &mut log, due_ms + 1, &edge)));
}

// The root store took all of them: one entry stamped at the end of time ended all writing there.
#[test]
fn in_the_root_store_only_acts_and_invites_are_not_held() {
    let far_ms = NOW_MS + 2 * DRIFT_MS_MAX;
    let role = role_key(&Author([9; 32]));
    let value = Act::Grant(Role::Writer).encode();
    let put = |key: Bytes, value: Bytes, expires_ms| Op::Put {
        key,
        value,
        expires_ms,
    };
    let act = put(role.clone(), value.clone(), None);
    let invite = put("/invites/1".into(), "used".into(), None);
    let data = put("/k".into(), "v".into(), None);
    let taken_back = Op::Delete {
        key: "/invites/2".into(),
    };
    let not_an_act = put(role.clone(), "king".into(), None);
    let expires = put(role, value, Some(u64::MAX));
    for (ops, exempt) in [
        (vec![act.clone()], true),
        (vec![act.clone(), invite, taken_back], true),
        (vec![act, data.clone()], false),
        (vec![not_an_act], false),
        (vec![expires], false),
        (vec![data], false),
        (vec![], false),
    ] {
        for is_root in [true, false] {
            let early = signed(1, None, far_ms, ops.clone());
            let mut intake = Intake::new(is_root, IntakeLimits::default());
            let mut log = Log::default();
            let verdict = take(&mut intake, &mut log, NOW_MS, &early);
            assert_eq!(
                appended(&verdict),
                is_root && exempt,
                "{ops:?}: {verdict:?}"
            );
            if appended(&verdict) {
                continue;
            }
            // An act after it waits with it.
            let act = Op::Put {
                key: role_key(&Author([8; 32])),
                value: Act::Grant(Role::Reader).encode(),
                expires_ms: None,
            };
            let after = signed(2, Some(early.id), far_ms + 1, vec![act]);
            let verdict = take(&mut intake, &mut log, NOW_MS, &after);
            let held = matches!(verdict, Verdict::AwaitsClock { .. });
            assert!(held, "{ops:?}: {verdict:?}");
            assert_eq!(intake.take_due(far_ms), [early, after]);
        }
    }
}

fn signed(seq: Seq, prev: Option<EntryId>, wall_ms: u64, ops: Vec<Op>) -> VerifiedEntry {
    let header = entry(AUTHOR_A, seq, prev, wall_ms, "/k").header.clone();
    sign(&SigningKey::from_bytes(&AUTHOR_A), header, ops).unwrap()
}

#[test]
fn an_author_has_one_head_a_key_and_branch_in_any_order() {
    let first = entry(AUTHOR_A, 1, None, 10, "/k");
    let second = next(&first, "/k");
    let left = next(&second, "/k");
    let right = entry(AUTHOR_A, 3, Some(second.id), 50, "/k");
    let after_left = next(&left, "/k");
    // Another author cites the right branch, and a third one names a wrong stamp.
    let cites = citing(AUTHOR_B, vec![right.as_parent()], "/k");
    let mut wrong = after_left.as_parent();
    wrong.hlc.wall_ms += 1;
    let lies = citing(AUTHOR_C, vec![wrong], "/k");
    let mut entries = [&first, &second, &left, &right, &after_left, &cites, &lies];
    let mut orders = 0;
    let mut ends = BTreeSet::new();
    for_each_order(&mut entries, 0, &mut |entries| {
        let (mut intake, mut log) = (new_intake(), Log::default());
        for entry in entries {
            drop(take(&mut intake, &mut log, NOW_MS, entry));
        }
        orders += 1;
        let heads: BTreeSet<_> = ids(&log.heads["/k".as_bytes()]).into_iter().collect();
        ends.insert(heads);
    });
    let expected = BTreeSet::from([after_left.id, cites.id, lies.id]);
    assert_eq!((orders, ends), (5040, BTreeSet::from([expected])));
}

#[test]
fn standing_decides_who_may_write() {
    let first = entry(AUTHOR_A, 1, None, 10, "/1");
    let second = next(&first, "/2");
    let author = first.author();
    let (mut intake, mut log) = (new_intake(), Log::default());
    log.standing.insert(author, Standing::Reader);
    let refused = Verdict::Refused(Refusal::Reader { author });
    assert_eq!(take(&mut intake, &mut log, NOW_MS, &first), refused);

    log.standing.insert(author, Standing::Unknown);
    for entry in [&second, &first] {
        let verdict = take(&mut intake, &mut log, NOW_MS, entry);
        assert_eq!(verdict, Verdict::AwaitsMember);
    }
    assert!(intake.take_admitted([&Author([9; 32])]).is_empty());
    let admitted = intake.take_admitted([&author]);
    assert_eq!(admitted, [first.clone(), second.clone()], "causes first");

    let kept = Some(FrontierTip::of(&first));
    log.standing.insert(author, removed(author, kept));
    assert!(appended(&take(&mut intake, &mut log, NOW_MS, &first)));
    let refused = Verdict::Refused(Refusal::Removed { author });
    assert_eq!(take(&mut intake, &mut log, NOW_MS, &second), refused);
}

#[test]
fn parents_that_do_not_count_are_passed_over_once_a_sync_has_ended() {
    let stranger = entry(AUTHOR_C, 1, None, 10, "/c");
    let child = citing(AUTHOR_B, vec![stranger.as_parent()], "/1");
    let (mut intake, mut log) = (new_intake(), Log::default());
    log.standing.insert(stranger.author(), Standing::Unknown);
    let waits = Verdict::AwaitsEntry(stranger.id);
    assert_eq!(take(&mut intake, &mut log, NOW_MS, &child), waits);
    let pending = intake.settle();
    assert_eq!(pending, std::slice::from_ref(&child));
    let Verdict::Begin { before, .. } = take(&mut intake, &mut log, NOW_MS, &child) else {
        panic!("it begins a log")
    };
    assert_eq!(before.absent, [stranger.as_parent()]);
    intake.settled();
    // It comes after all, and counts.
    log.standing.clear();
    assert!(appended(&take(&mut intake, &mut log, NOW_MS, &stranger)));

    // A parent of a removed author that does not count is not waited for at all.
    let (mut intake, mut log) = (new_intake(), Log::default());
    let author = stranger.author();
    log.standing.insert(author, removed(author, None));
    log.removed.insert(stranger.author());
    assert!(appended(&take(&mut intake, &mut log, NOW_MS, &child)));
}

// A made-up parent, of an author that was admitted before the entry came or after it.
#[test]
fn a_parent_that_never_comes_is_passed_over_after_a_while() {
    let mut made_up = entry(AUTHOR_C, 1, None, 10, "/c").as_parent();
    made_up.id = EntryId([7; 32]);
    let child = citing(AUTHOR_B, vec![made_up], "/1");
    let (mut intake, mut log) = (new_intake(), Log::default());
    let waits = Verdict::AwaitsEntry(made_up.id);
    let over_ms = NOW_MS + PARENT_WAIT_MS;
    for now_ms in [NOW_MS, over_ms - 1, NOW_MS - 5000, over_ms] {
        assert_eq!(take(&mut intake, &mut log, now_ms, &child), waits);
        let [waiting] = intake.settle().try_into().unwrap();
        let verdict = take(&mut intake, &mut log, now_ms, &waiting);
        assert_eq!(appended(&verdict), now_ms == over_ms, "{verdict:?}");
        intake.settled();
    }
    assert_eq!(intake.patience.len(), 0);
}

#[test]
fn an_unreadable_place_is_neither_free_nor_another_entry() {
    let first = entry(AUTHOR_A, 1, None, 10, "/1");
    let second = next(&first, "/2");
    let third = next(&second, "/3");
    let author = first.author();
    let history = |log: &mut Log| {
        let mut intake = new_intake();
        for entry in [&first, &second, &third] {
            assert!(appended(&take(&mut intake, log, NOW_MS, entry)));
        }
        intake
    };
    // In a known hole: it repairs it, whatever its author may do now.
    let mut log = Log::default();
    let mut intake = history(&mut log);
    log.holes.insert((author, 2));
    log.standing.insert(author, Standing::Reader);
    assert_eq!(
        take(&mut intake, &mut log, NOW_MS, &second),
        Verdict::Repairs
    );

    // Its own record is damaged, and no hole is known: not a duplicate, and not appended either.
    let mut log = Log::default();
    let mut intake = history(&mut log);
    log.unreadable.insert((author, 2));
    let verdict = take(&mut intake, &mut log, NOW_MS, &second);
    assert!(
        matches!(verdict, Verdict::Begin { fork: true, .. }),
        "{verdict:?}"
    );

    // A parent is damaged: the child waits until it is back.
    let mut log = Log::default();
    let mut intake = history(&mut log);
    log.unreadable.insert((author, 1));
    let child = citing(AUTHOR_B, vec![first.as_parent()], "/x");
    let waits = Verdict::AwaitsEntry(first.id);
    assert_eq!(take(&mut intake, &mut log, NOW_MS, &child), waits);

    // The predecessor's stamp is a guess when its record is damaged.
    let mut log = Log::default();
    let mut intake = history(&mut log);
    let back = entry(AUTHOR_A, 4, Some(third.id), third.header.hlc.wall_ms, "/4");
    let refused = take(&mut intake, &mut log, NOW_MS, &back);
    let went_back = |error: &ChainError| matches!(error, ChainError::ClockWentBack { .. });
    assert!(matches!(refused, Verdict::Refused(Refusal::Chain(error)) if went_back(&error)));
    log.unreadable.insert((author, 3));
    let waits = Verdict::AwaitsEntry(third.id);
    assert_eq!(take(&mut intake, &mut log, NOW_MS, &back), waits);
}

#[test]
fn what_is_here_is_not_asked_for_again() {
    let first = entry(AUTHOR_A, 1, None, 10, "/1");
    let second = entry(AUTHOR_A, 2, Some(first.id), NOW_MS + 2 * DRIFT_MS_MAX, "/2");
    let (mut intake, mut log) = (new_intake(), Log::default());
    let is_here = |intake: &Intake, log: &Log, entry: &Entry| {
        let Ok(here) = intake.is_here(&entry.author(), FrontierTip::of(entry), log);
        here
    };
    assert!(matches!(
        take(&mut intake, &mut log, NOW_MS, &second),
        Verdict::AwaitsClock { .. }
    ));
    assert!(!is_here(&intake, &log, &second), "its past is missing");
    assert!(appended(&take(&mut intake, &mut log, NOW_MS, &first)));
    assert!(is_here(&intake, &log, &first) && is_here(&intake, &log, &second));
    log.unreadable.insert((first.author(), 1));
    assert!(!is_here(&intake, &log, &first), "a peer gives it back");
    // A pending entry may be dropped, so it is asked for.
    let child = citing(AUTHOR_B, vec![next(&first, "/x").as_parent()], "/3");
    assert!(matches!(
        take(&mut intake, &mut log, NOW_MS, &child),
        Verdict::AwaitsEntry(_)
    ));
    assert!(!is_here(&intake, &log, &child));
}

#[test]
fn a_usual_entry_needs_no_look_into_the_log() {
    let (mut intake, mut log) = (new_intake(), Log::default());
    let first = entry(AUTHOR_A, 1, None, 10, "/1");
    let second = next(&first, "/1");
    for entry in [&first, &second] {
        assert!(appended(&take(&mut intake, &mut log, NOW_MS, entry)));
    }
    assert!(log.asked.borrow().is_empty());
}

// All orders of six entries: a chain, a fork of it, a child of both, a stranger's, one from the
// future. Each order ends with the same branches, once the stranger is admitted and time has passed.
#[test]
fn the_same_entries_in_any_order_end_in_the_same_log() {
    let first = entry(AUTHOR_A, 1, None, 10, "/1");
    let second = next(&first, "/2");
    let fork = next(&first, "/fork");
    let child = citing(AUTHOR_B, vec![second.as_parent(), fork.as_parent()], "/1");
    let stranger = entry(AUTHOR_C, 1, None, 20, "/c");
    let early = entry(AUTHOR_B, 2, Some(child.id), NOW_MS + 2 * DRIFT_MS_MAX, "/b");
    let mut entries = [&first, &second, &fork, &child, &stranger, &early];
    let mut orders = 0;
    let mut ends = BTreeSet::new();
    for_each_order(&mut entries, 0, &mut |entries| {
        orders += 1;
        let (mut intake, mut log) = (new_intake(), Log::default());
        log.standing.insert(stranger.author(), Standing::Unknown);
        for entry in entries {
            drop(take(&mut intake, &mut log, NOW_MS, entry));
            drop(take(&mut intake, &mut log, NOW_MS, entry));
        }
        log.standing.clear();
        for entry in intake.take_admitted([&stranger.author()]) {
            assert!(appended(&take(&mut intake, &mut log, NOW_MS, &entry)));
        }
        let due_ms = NOW_MS + 2 * DRIFT_MS_MAX;
        for entry in intake.take_due(due_ms) {
            assert!(appended(&take(&mut intake, &mut log, due_ms, &entry)));
        }
        assert!(intake.pending().is_empty() && intake.next_due_ms().is_none());
        let branches = log.branches.values().flatten();
        let mut branches: Vec<Vec<EntryId>> = branches
            .map(|branch| branch.iter().map(|entry| entry.id).collect())
            .collect();
        // Which of two forks has the number 0 depends on the order.
        let applied: BTreeSet<EntryId> = branches.concat().into_iter().collect();
        assert_eq!(applied.len(), 6);
        branches.sort();
        ends.insert((applied, log.heads.values().map(ids).collect::<Vec<_>>()));
    });
    assert_eq!((orders, ends.len()), (720, 1));
}

fn ids(heads: &Heads) -> Vec<EntryId> {
    heads.as_slice().iter().map(|head| head.id).collect()
}

fn for_each_order<T: Copy>(items: &mut [T], from: usize, visit: &mut impl FnMut(&[T])) {
    if from == items.len() {
        return visit(items);
    }
    for at in from..items.len() {
        items.swap(from, at);
        for_each_order(items, from + 1, visit);
        items.swap(from, at);
    }
}
