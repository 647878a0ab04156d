//! Watches where logs begin at an anchor: every reader gets all changes after its position, or one gap
//! and the state. Nothing is skipped in silence.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use lattice::{
    Store,
    clock::Clock,
    id::{Author, EntryId, Seq},
    protocol::{
        change::{Change, Kind, Origin},
        cursor::{Cursor, Partial},
        entry::{Op, VerifiedEntry},
        frontier::{Frontier, FrontierTip},
        heads::{Content, Value},
    },
    store::{Ingested, PruneError, Start, Watch, WatchError, WatchEvent, WatchOptions},
};
use tokio_stream::StreamExt as _;

use crate::support::{
    model::{AUTHOR_A, AUTHOR_B, AUTHOR_C, author_of, heads_after, put},
    pruned::{COUNT, Chains, ENTRIES, STAMPED_MS, STEP_MS, WAY_MS, listed, signed},
    random::Random,
    watch::{next, nothing, open},
    writer::Writer,
};

type OpId = (EntryId, u32);

/// Judges what a reader got: `start` is what it had before.
struct Judge<'a> {
    store: &'a Store,
    start: Frontier,
    partial: Option<Partial>,
    // The live values of the keys, as the reader knows them; `None` until a first state has come.
    known: Option<BTreeMap<Bytes, Bytes>>,
    delivered: BTreeSet<OpId>,
    newest: BTreeMap<Author, Seq>,
    gaps: usize,
    // While a state is delivered that follows a gap.
    state: Option<BTreeMap<Bytes, Bytes>>,
}

impl<'a> Judge<'a> {
    // `entries`: those that `start` may name.
    fn new(
        store: &'a Store,
        start: Frontier,
        partial: Option<Partial>,
        entries: &[VerifiedEntry],
    ) -> Self {
        let covered = entries.iter().filter(|entry| covers(&start, entry));
        let mut known: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        for (key, heads) in heads_after(covered) {
            let winner = heads.winner().unwrap();
            if let Content::Value {
                value: Value::Inline(value),
                ..
            } = &winner.content
            {
                known.insert(key, value.clone());
            }
        }
        Self {
            store,
            start,
            partial,
            known: Some(known),
            delivered: BTreeSet::new(),
            newest: BTreeMap::new(),
            gaps: 0,
            state: None,
        }
    }

    // A reader that has nothing, and begins at a time.
    fn since(store: &'a Store) -> Self {
        Self {
            known: None,
            ..Self::new(store, Frontier::default(), None, &[])
        }
    }

    fn saw(&mut self, event: &WatchEvent) {
        match event {
            WatchEvent::Change(change) if change.origin == Origin::Initial => {
                let state = self.state.as_mut().expect("a state comes after a gap only");
                let value = change.value.clone().unwrap();
                assert_eq!(state.insert(change.key.clone(), value), None, "a key twice");
            }
            WatchEvent::Change(change) => self.change(change),
            WatchEvent::CaughtUp => {
                if let Some(state) = self.state.take() {
                    self.known = Some(state);
                }
            }
            WatchEvent::Progress => {}
            WatchEvent::Gap { reason, .. } => {
                assert!(self.state.is_none(), "a gap inside a state");
                assert!(reason.contains("earlier entries were removed"), "{reason}");
                self.gaps += 1;
                self.state = Some(BTreeMap::new());
                self.delivered.clear();
                self.newest.clear();
            }
            WatchEvent::Damaged { what, .. } => panic!("{what}"),
        }
    }

    fn change(&mut self, change: &Change) {
        assert!(self.state.is_none(), "a change inside a state: {change:?}");
        let entry = change.entry;
        assert!(
            self.delivered.insert((entry.id, change.op_index)),
            "twice: {change:?}"
        );
        let newest = self.newest.entry(entry.author).or_default();
        assert!(*newest <= entry.seq, "{} after {newest}", entry.seq);
        *newest = entry.seq;
        let wins = change
            .heads
            .winner()
            .is_some_and(|winner| winner.id == entry.id);
        if let (Some(known), true) = (&mut self.known, wins) {
            match change.kind {
                Kind::Put => {
                    known.insert(change.key.clone(), change.value.clone().unwrap());
                }
                Kind::Delete => drop(known.remove(&change.key)),
                Kind::Expire | Kind::Retract | Kind::Gap => panic!("{change:?}"),
            }
        }
    }

    // `entries`: all that the store has.
    async fn end(&self, entries: &[VerifiedEntry], context: &str) {
        assert!(self.state.is_none(), "{context}: a state without an end");
        if self.gaps == 0 {
            let expected = self.expected(entries, |_entry| true);
            assert_eq!(self.delivered, expected, "{context}: a silent skip");
        }
        if let Some(known) = &self.known {
            assert_eq!(*known, listed(self.store).await, "{context}");
        }
    }

    // Ops after the start of entries that are wanted.
    fn expected(
        &self,
        entries: &[VerifiedEntry],
        wanted: impl Fn(&VerifiedEntry) -> bool,
    ) -> BTreeSet<OpId> {
        let after = entries
            .iter()
            .filter(|it| !covers(&self.start, it) && wanted(it));
        let ops = after.flat_map(|entry| {
            let partial = self.partial.filter(|partial| partial.tip.id == entry.id);
            let done = partial.map_or(0, |partial| partial.ops);
            (done..u32::try_from(entry.ops.len()).unwrap()).map(|op| (entry.id, op))
        });
        ops.collect()
    }
}

fn covers(frontier: &Frontier, entry: &VerifiedEntry) -> bool {
    entry.header.seq <= frontier.seq(&entry.author())
}

fn options(start: Start) -> WatchOptions {
    WatchOptions {
        start,
        heartbeat: Duration::from_millis(20),
        ..WatchOptions::default()
    }
}

fn cursor(store: &Store, frontier: Frontier, partial: Option<Partial>) -> Cursor {
    Cursor {
        frontier,
        partial,
        ..nothing(store)
    }
}

async fn until_caught_up(watch: &mut Watch, judge: &mut Judge<'_>) {
    loop {
        let event = next(watch).await;
        judge.saw(&event);
        if matches!(event, WatchEvent::CaughtUp) {
            return;
        }
    }
}

// Live changes after all else: a put of A, which comes exactly once.
async fn until_put(watch: &mut Watch, judge: &mut Judge<'_>, key: &str) {
    judge.store.put(key.to_owned(), "end").await.unwrap();
    // It may come with a state, too.
    let mut has_come = false;
    while !has_come || judge.state.is_some() {
        let event = next(watch).await;
        judge.saw(&event);
        has_come |= matches!(&event, WatchEvent::Change(change) if change.key == key);
    }
}

// All entries of the store that were not removed, and those of B and C that were.
async fn all_entries(chains: &Chains) -> Vec<VerifiedEntry> {
    let mut entries = chains.entries.clone();
    let own = chains.store.entries(author_of(AUTHOR_A), 0, usize::MAX);
    entries.extend(own.await.unwrap().into_iter().map(|read| read.entry));
    entries
}

// The anchors of B and C in these tests.
const B: Seq = 9;
const C: Seq = 12;

#[tokio::test(flavor = "multi_thread")]
async fn cursors_get_all_changes_or_one_gap_and_the_state() {
    let mut chains = Chains::new().await;
    let pruning = chains.drop_before(B, C).await;
    assert!(pruning.files > 6, "{pruning:?}");
    let (mut with_gap, mut without) = (0, 0);
    for opened_again in [false, true] {
        if opened_again {
            chains.reopen().await;
        }
        for (b, c) in (0..=B + 2)
            .chain([ENTRIES])
            .flat_map(|b| [0, 1, C - 1, C, C + 1, ENTRIES].map(|c| (b, c)))
        {
            for ops in [0, 1, 2] {
                // The next entry of B was delivered in part.
                let entry = chains.at(AUTHOR_B, b + 1).filter(|_| ops > 0);
                let partial = entry.map(|entry| Partial {
                    author: entry.author(),
                    tip: FrontierTip::of(entry),
                    ops,
                });
                if ops > 0 && partial.is_none() {
                    continue;
                }
                let context = format!("B{b} and {ops} ops, C{c}, opened again: {opened_again}");
                let start = chains.tips(b, c);
                let after = cursor(&chains.store, start.clone(), partial);
                let mut watch = chains.store.watch_with(options(Start::After(after)));
                let mut judge = Judge::new(&chains.store, start, partial, &chains.entries);
                until_caught_up(&mut watch, &mut judge).await;
                let goes_on = b >= B && c >= C;
                assert_eq!(judge.gaps, usize::from(!goes_on), "{context}");
                with_gap += judge.gaps;
                without += usize::from(goes_on);
                judge.end(&all_entries(&chains).await, &context).await;
                until_put(&mut watch, &mut judge, "/live").await;
                assert!(judge.gaps < 2, "{context}");
                judge.end(&all_entries(&chains).await, &context).await;
                // After the gap the position is a whole one.
                let after = options(Start::After(watch.cursor()));
                let mut watch = chains.store.watch_with(after);
                assert!(
                    matches!(next(&mut watch).await, WatchEvent::CaughtUp),
                    "{context}"
                );
            }
        }
    }
    assert!(with_gap > 200 && without > 30, "{with_gap} {without}");
}

/// The anchor itself was delivered in part: the rest of it is gone, although the log has every entry
/// after it.
#[tokio::test(flavor = "multi_thread")]
async fn partial_entry_at_the_anchor_is_a_gap() {
    let chains = Chains::new().await;
    chains.drop_before(B, 0).await;
    let entry = chains.at(AUTHOR_B, B).unwrap();
    let partial = Some(Partial {
        author: entry.author(),
        tip: FrontierTip::of(entry),
        ops: 1,
    });
    let start = chains.tips(B - 1, ENTRIES);
    let after = cursor(&chains.store, start.clone(), partial);
    let mut watch = chains.store.watch_with(options(Start::After(after)));
    let mut judge = Judge::new(&chains.store, start, partial, &chains.entries);
    until_caught_up(&mut watch, &mut judge).await;
    assert_eq!(judge.gaps, 1);
    judge.end(&chains.entries, "partial").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn start_at_a_time_is_a_gap_if_an_anchor_is_as_new() {
    let chains = Chains::new().await;
    chains.drop_before(B, C).await;
    // Of the removed entries C12 is the last one.
    let last_ms = chains.at(AUTHOR_C, C).unwrap().header.hlc.wall_ms;
    let ends_ms = STAMPED_MS + 2 * ENTRIES * STEP_MS;
    let times = [
        0,
        1,
        STAMPED_MS,
        last_ms - STEP_MS,
        last_ms - 1,
        last_ms,
        last_ms + 1,
    ]
    .into_iter()
    .chain([last_ms + STEP_MS, last_ms + 3 * STEP_MS, ends_ms]);
    for ms in times {
        for arrived in [false, true] {
            // It arrived later than it was stamped.
            let way_ms = if arrived && ms > 1 { WAY_MS } else { 0 };
            let start = match arrived {
                true => Start::SinceArrived { ms: ms + way_ms },
                false => Start::SinceAuthored { ms },
            };
            let context = format!("{start:?}");
            let mut watch = chains.store.watch_with(options(start));
            let mut judge = Judge::since(&chains.store);
            // A cursor that is taken early covers the anchors, too.
            let first = next(&mut watch).await;
            judge.saw(&first);
            let early = watch.cursor();
            if !matches!(first, WatchEvent::CaughtUp) {
                until_caught_up(&mut watch, &mut judge).await;
            }
            assert_eq!(judge.gaps, usize::from(ms <= last_ms), "{context}");
            if judge.gaps == 0 {
                let wanted = |entry: &VerifiedEntry| entry.header.hlc.wall_ms >= ms;
                let expected = judge.expected(&chains.entries, wanted);
                assert_eq!(judge.delivered, expected, "{context}");
                let mut again = chains.store.watch_with(options(Start::After(early)));
                let mut judge = Judge::since(&chains.store);
                until_caught_up(&mut again, &mut judge).await;
                assert_eq!(judge.gaps, 0, "{context}");
                assert!(judge.delivered.len() + 1 >= expected.len(), "{context}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn position_that_is_ahead_waits_and_then_gets_its_gap() {
    let chains = Chains::with(COUNT - 2).await;
    chains.drop_before(B, C).await;
    // B20 is not here yet.
    for (b, c, gaps) in [(ENTRIES, C, 0), (ENTRIES, C - 1, 1), (ENTRIES, 0, 1)] {
        let start = chains.tips(b, c);
        let after = cursor(&chains.store, start.clone(), None);
        let mut behind = chains
            .store
            .watch_with(options(Start::After(after.clone())));
        let refused = behind.next().await.unwrap().unwrap_err();
        let WatchError::Behind { missing } = refused else {
            panic!("{refused}")
        };
        assert_eq!((missing.len(), missing[0].through), (1, ENTRIES));
        let wait = WatchOptions {
            wait: true,
            ..options(Start::After(after))
        };
        let mut watch = chains.store.watch_with(wait);
        let waits = tokio::time::timeout(Duration::from_millis(100), watch.next()).await;
        assert!(
            waits.is_err() || matches!(waits, Ok(Some(Ok(WatchEvent::Progress)))),
            "{waits:?}"
        );
        assert!(!watch.lacks().is_empty());
        let other = Chains::with(COUNT - 2).await;
        other.drop_before(B, C).await;
        let after = watch.cursor();
        let wait = WatchOptions {
            wait: true,
            ..options(Start::After(after))
        };
        let mut watch = other.store.watch_with(wait);
        let mut judge = Judge::new(&other.store, start, None, &other.entries);
        let bring = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            for entry in &other.entries[COUNT - 2..] {
                other.ingest(entry).await;
            }
        };
        tokio::join!(bring, until_caught_up(&mut watch, &mut judge));
        until_put(&mut watch, &mut judge, "/live").await;
        assert_eq!(judge.gaps, gaps, "B{b} C{c}");
        judge.end(&all_entries(&other).await, "ahead").await;
    }
}

/// Watchers that are anywhere in a replay, or lag behind the bus, while entries are removed before, at
/// and after their positions.
#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_removed_under_a_watch_are_a_gap_or_were_read() {
    let mut random = Random::new(20_261_129);
    let (mut with_gap, mut without) = (0, 0);
    for round in 0..60 {
        let first = 2 + 2 * random.below(COUNT / 2 - 1);
        let chains = Chains::with(first).await;
        let upto = |n: usize| (n / 2) as Seq;
        let (b, c) = (
            random.below(first / 2 + 1) as Seq,
            random.below(first / 2 + 1) as Seq,
        );
        let start = chains.tips(b, c);
        let after = cursor(&chains.store, start.clone(), None);
        let mut watch = chains.store.watch_with(options(Start::After(after)));
        let mut judge = Judge::new(&chains.store, start, None, &chains.entries);
        let mut here = first;
        for _step in 0..6 {
            for _read in 0..random.below(12) {
                let waited = tokio::time::timeout(Duration::from_millis(30), watch.next()).await;
                let Ok(event) = waited else { break };
                judge.saw(&event.unwrap().unwrap());
            }
            match random.below(3) {
                0 => {
                    let upto = (here + 1 + random.below(8)).min(COUNT);
                    for entry in &chains.entries[here..upto] {
                        chains.ingest(entry).await;
                    }
                    here = here.max(upto);
                }
                1 => {
                    // More batches than the channel holds.
                    for n in 0..4 {
                        chains.store.put(format!("/own/{n}"), "x").await.unwrap();
                    }
                }
                _prune => {
                    let (b, c) = (upto(here + 1), upto(here));
                    let back = random.below(3) as Seq;
                    let places = (b.saturating_sub(back), c.saturating_sub(back));
                    chains.drop_before(places.0, places.1).await;
                }
            }
        }
        let context = format!("round {round}");
        until_put(&mut watch, &mut judge, "/live").await;
        let mut entries = all_entries(&chains).await;
        let is_here = |entry: &VerifiedEntry| {
            let place = chains.entries.iter().position(|it| it.id == entry.id);
            place.is_none_or(|place| place < here)
        };
        entries.retain(is_here);
        judge.end(&entries, &context).await;
        if judge.gaps == 0 {
            without += 1;
        } else {
            with_gap += 1;
        }
    }
    eprintln!("{with_gap} watches with a gap, {without} without");
    assert!(with_gap > 10 && without > 10, "{with_gap} {without}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_from_the_state_or_from_now_needs_no_removed_entry() {
    let chains = Chains::new().await;
    chains.drop_before(ENTRIES, ENTRIES).await;
    for start in [Start::Initial, Start::Now] {
        let mut watch = chains.store.watch_with(options(start.clone()));
        let mut state = BTreeMap::new();
        loop {
            match next(&mut watch).await {
                WatchEvent::Change(change) => {
                    let value = change.value.clone().unwrap();
                    state.insert(change.key.clone(), value);
                }
                WatchEvent::CaughtUp => break,
                event => panic!("{event:?}"),
            }
        }
        if start == Start::Initial {
            assert_eq!(state, listed(&chains.store).await);
        }
        let after = options(Start::After(watch.cursor()));
        let mut watch = chains.store.watch_with(after);
        assert!(matches!(next(&mut watch).await, WatchEvent::CaughtUp));
    }
}

/// A fork that leaves at the anchor is read as any other.
#[tokio::test(flavor = "multi_thread")]
async fn fork_at_the_anchor_is_delivered() {
    let chains = Chains::new().await;
    chains.drop_before(B, C).await;
    let anchor = chains.at(AUTHOR_B, B).unwrap();
    let ops = vec![Op::Put {
        key: "/fork".into(),
        value: "f".into(),
        expires_ms: None,
    }];
    let stamp = anchor.header.hlc.wall_ms + 1;
    let fork = signed(AUTHOR_B, Some(anchor), BTreeSet::new(), stamp, ops);
    chains.clock.advance(1);
    let done = chains.store.ingest(vec![fork.signed.encode().into()]).await;
    assert_eq!(done.unwrap(), [Ingested::Applied(fork.id)]);
    let mut start = chains.tips(B, C);
    for (gaps, start) in [
        (0, start.clone()),
        (1, {
            start.replace(
                anchor.author(),
                FrontierTip::of(chains.at(AUTHOR_B, B - 1).unwrap()),
            );
            start
        }),
    ] {
        let after = cursor(&chains.store, start.clone(), None);
        let mut watch = chains.store.watch_with(options(Start::After(after)));
        let mut seen: BTreeSet<EntryId> = BTreeSet::new();
        let mut found = 0;
        loop {
            match next(&mut watch).await {
                WatchEvent::Change(change) => drop(seen.insert(change.entry.id)),
                WatchEvent::CaughtUp => break,
                WatchEvent::Gap { .. } => found += 1,
                event => panic!("{event:?}"),
            }
        }
        assert_eq!(found, gaps);
        assert!(seen.contains(&fork.id));
        let rest = chains.entries.iter().filter(|entry| !covers(&start, entry));
        let all_seen = rest.clone().all(|entry| seen.contains(&entry.id));
        assert!(gaps > 0 || all_seen);
        let after = options(Start::After(watch.cursor()));
        let mut watch = chains.store.watch_with(after);
        assert!(matches!(next(&mut watch).await, WatchEvent::CaughtUp));
    }
}

/// An author is removed after the entries that its removal does not reach are gone. Nothing is counted
/// again for that, and a reader at the anchor goes on.
#[tokio::test(flavor = "multi_thread")]
async fn removed_author_counts_through_its_tip() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(STAMPED_MS);
    let (node, store) = open(dir.path(), &clock, 16).await;
    let mut writer = Writer::new(AUTHOR_B, store.id());
    let mut entries = Vec::new();
    for n in 0..10 {
        let ops = vec![put(&format!("/b/{}", n % 3), &n.to_string())];
        let entry = writer.write(STAMPED_MS, ops, BTreeSet::new(), false);
        let done = store.ingest(vec![entry.signed.encode().into()]).await;
        assert_eq!(done.unwrap(), [Ingested::Applied(entry.id)]);
        entries.push(entry);
    }
    let author = writer.author();
    let at = |place: usize| Frontier::from_iter([(author, FrontierTip::of(&entries[place]))]);
    store.drop_before(at(4)).await.unwrap();
    let before = listed(&store).await;
    node.remove(&author).await.unwrap();
    let late = writer.write(STAMPED_MS, vec![put("/late", "l")], BTreeSet::new(), false);
    for (entry, expected) in [(&entries[2], true), (&late, false)] {
        let done = store
            .ingest(vec![entry.signed.encode().into()])
            .await
            .unwrap();
        let is_known = matches!(done[..], [Ingested::Duplicate(_)]);
        assert_eq!(is_known, expected, "{done:?}");
    }
    assert_eq!(listed(&store).await, before);
    assert_eq!(store.status().await.poisoned, None);
    assert_eq!(store.verify().await.unwrap().damage, []);
    for (place, gaps, changes) in [(3, 1, 3), (4, 0, 5), (7, 0, 2), (9, 0, 0)] {
        let after = cursor(&store, at(place), None);
        let mut watch = store.watch_with(options(Start::After(after)));
        let (mut gap, mut seen) = (0, 0);
        loop {
            match next(&mut watch).await {
                WatchEvent::Change(_) => seen += 1,
                WatchEvent::Gap { .. } => gap += 1,
                WatchEvent::CaughtUp => break,
                event => panic!("{event:?}"),
            }
        }
        assert_eq!((gap, seen), (gaps, changes), "after entry {}", place + 1);
    }
    // The root store keeps all its entries: members follow from them.
    let root = node.root();
    let refused = root.drop_before(root.frontier()).await.unwrap_err();
    assert!(matches!(refused, PruneError::Root), "{refused}");
    node.close().await.unwrap();
}
