//! The guarantees: one function each, over a recorded history. Its error names the breach.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lattice::{
    id::{Author, EntryId, Seq},
    protocol::{
        change::Kind,
        cursor::Cursor,
        frontier::{Frontier, MissingRange},
    },
};

use super::history::{
    History, Lineage, OpId, Past, Record, Step, Told, Truth, Work, content, covers_nothing,
    covers_op, join,
};

type Checked = Result<(), String>;

/// A guarantee: its name, and the check for one watcher or consumer.
type Guarantee<T> = (&'static str, fn(&Truth, &T) -> Checked);

/// The guarantees to each watcher.
pub const OF_WATCHERS: [Guarantee<Lineage>; 8] = [
    ("causal", causal),
    ("per author in sequence", per_author_in_sequence),
    ("unique per cursor lineage", unique_per_cursor_lineage),
    (
        "complete between cursors or one gap",
        complete_between_cursors_or_one_gap,
    ),
    ("atomic batches", atomic_batches),
    ("portable between replicas", portable_between_replicas),
    ("bookmarked", bookmarked),
    ("live", live),
];

/// The guarantees to each durable consumer.
pub const OF_CONSUMERS: [Guarantee<Record>; 2] = [
    ("at least once with ack", at_least_once_with_ack),
    ("exactly once for --writes", exactly_once_for_writes),
];

/// Returns the first guarantee that was broken, and how.
pub fn check(history: &History) -> Checked {
    let truth = &history.truth;
    durable_and_the_same_everywhere(history).map_err(|how| format!("durable: {how}"))?;
    for (number, lineage) in history.lineages.iter().enumerate() {
        for (name, check) in OF_WATCHERS {
            let what = |how| {
                let (scope, lines) = (&lineage.scope, lineage.lines());
                format!("{name}: {how}\nwatcher {number} of {scope:?}:\n{lines}")
            };
            check(truth, lineage).map_err(what)?;
        }
    }
    for record in &history.consumers {
        for (name, check) in OF_CONSUMERS {
            check(truth, record).map_err(|how| {
                let (consumer, lines) = (record.name, record.lines());
                format!("{name}: {how}\nconsumer {consumer}:\n{lines}")
            })?;
        }
    }
    Ok(())
}

/// Acknowledged means durable, and state is a function of the entries.
fn durable_and_the_same_everywhere(history: &History) -> Checked {
    for id in &history.acknowledged {
        if !history.truth.entries.contains_key(id) {
            return Err(format!("{id} was acknowledged, and is lost"));
        }
    }
    let heads = history.truth.heads(&history.truth.frontier());
    let ids = |(key, heads): (&Bytes, &lattice::protocol::heads::Heads)| {
        let ids: BTreeSet<EntryId> = heads.as_slice().iter().map(|head| head.id).collect();
        (key.clone(), ids)
    };
    let heads: BTreeMap<_, _> = heads.iter().map(ids).collect();
    for (number, state) in history.states.iter().enumerate() {
        let state: BTreeMap<_, BTreeSet<EntryId>> = state
            .iter()
            .map(|(key, ids)| (key.clone(), ids.iter().copied().collect()))
            .collect();
        if state != heads {
            let differs = heads.iter().find(|(key, ids)| state.get(*key) != Some(ids));
            return Err(format!("replica {number} has other heads than {differs:?}"));
        }
    }
    Ok(())
}

/// No change is delivered after a change that depends on it.
fn causal(truth: &Truth, lineage: &Lineage) -> Checked {
    let mut causes = Past::new();
    for (place, told) in lineage.ops() {
        let known = truth.entries.get(&told.entry);
        let known = known.ok_or_else(|| format!("in no log: {told:?}"))?;
        if causes.get(&told.author) >= Some(&told.seq) {
            return Err(format!("after what depends on it, at {place}: {told:?}"));
        }
        join(&mut causes, &known.past);
    }
    Ok(())
}

/// Changes of one author come in the order of its log and, within an entry, of its ops, with the
/// content of those ops.
fn per_author_in_sequence(truth: &Truth, lineage: &Lineage) -> Checked {
    let mut newest: BTreeMap<Author, (Seq, u32)> = BTreeMap::new();
    for (place, told) in lineage.ops() {
        let entry = &truth.entries[&told.entry].entry;
        let op = entry.ops.get(told.op as usize);
        let (kind, value, expires_ms) = op.map(content).ok_or("no such op")?;
        let value = value.filter(|_| !lineage.scope.keys_only);
        let is_so = (told.kind, told.value.as_ref(), told.expires_ms) == (kind, value, expires_ms)
            && op.is_some_and(|op| *op.key() == told.key)
            && (entry.author(), entry.header.seq) == (told.author, told.seq)
            && entry.header.atomic == told.atomic
            && lineage.scope.wants(&told.key);
        if !is_so {
            return Err(format!("the log has {op:?} at {place}: {told:?}"));
        }
        let before = newest.insert(told.author, (told.seq, told.op));
        if before >= Some((told.seq, told.op)) {
            return Err(format!("at {place}, after {before:?}: {told:?}"));
        }
    }
    Ok(())
}

/// No change and no expiry is delivered twice in one lineage, over all replicas it visited and
/// whatever their clocks.
fn unique_per_cursor_lineage(_truth: &Truth, lineage: &Lineage) -> Checked {
    let counts: BTreeSet<usize> = lineage.told().into_iter().map(|(place, _)| place).collect();
    let (mut seen, mut expired) = (BTreeSet::new(), BTreeSet::new());
    let mut begin = &lineage.begin;
    for (place, (step, cursor)) in lineage.steps.iter().enumerate() {
        match step {
            Step::Began { .. } => begin = cursor,
            Step::Told(told) if counts.contains(&place) && told.kind == Kind::Expire => {
                let was_told = covers(&begin.frontier, told.author, told.seq)
                    && told.expires_ms <= Some(begin.expired_through_ms);
                if was_told || !expired.insert((told.entry, &told.key)) {
                    return Err(format!("expired again at {place}: {told:?}"));
                }
            }
            Step::Told(told)
                if counts.contains(&place) && told.is_op() && !seen.insert(told.op_id()) =>
            {
                return Err(format!("again at {place}: {told:?}"));
            }
            _other => {}
        }
    }
    Ok(())
}

/// A cursor covers the changes that were delivered, and no others. Where history is missing, one
/// gap comes and then the state, with all that its cursor covers. If the state is incomplete as
/// well, the cursor covers nothing, and a watcher that resumes with it gets everything again. At
/// the end everything was delivered: each op, or for `latest` each op that still counts, and each
/// expiry.
fn complete_between_cursors_or_one_gap(truth: &Truth, lineage: &Lineage) -> Checked {
    let mut missing = Missing::new(lineage);
    let mut gap: Option<BTreeMap<Bytes, EntryId>> = None;
    for (place, (step, cursor)) in lineage.steps.iter().enumerate() {
        match (step, &mut gap) {
            (Step::Gap, None) if truth.damaged => gap = Some(BTreeMap::new()),
            (Step::Gap, None) => return Err(format!("nothing is gone, and a gap at {place}")),
            (Step::Gap, Some(_)) => return Err(format!("a second gap at {place}")),
            (Step::Told(told), Some(state)) => drop(state.insert(told.key.clone(), told.entry)),
            (Step::Told(told), None) => missing.told(told),
            (Step::CaughtUp, Some(state)) if covers_nothing(cursor) => {
                if let Some(told) = state.iter().find(|told| !truth.has_put(told)) {
                    return Err(format!("in no log, and in the state at {place}: {told:?}"));
                }
                gap = None;
            }
            (Step::CaughtUp, Some(state)) => {
                let mut live = truth.live(&lineage.scope, cursor);
                // The state leaves out values superseded meanwhile; the values in their place
                // come.
                let comes = |key: &Bytes| lineage.told_after(place).any(|told| told.key == key);
                live.retain(|key, _| {
                    !(lineage.scope.latest && !state.contains_key(key) && comes(key))
                });
                if *state != live {
                    return Err(format!("the state after a gap is {state:?}, not {live:?}"));
                }
                missing.covered = cursor.frontier.clone();
                missing.gaps += 1;
                gap = None;
            }
            (Step::Began { .. }, _) => {
                gap = None;
                if covers_nothing(cursor) {
                    missing = Missing::default();
                }
            }
            _other => {}
        }
        if gap.is_none() {
            missing
                .moved(truth, lineage, cursor)
                .map_err(|what| format!("{what} at {place}"))?;
        }
    }
    missing.at_the_end(truth, lineage)
}

// The changes delivered to a lineage so far, and the ones that its cursor covers.
#[derive(Debug, Default)]
struct Missing {
    told: BTreeSet<OpId>,
    expired: BTreeSet<(EntryId, Bytes)>,
    covered: Frontier,
    gaps: usize,
}

impl Missing {
    fn new(lineage: &Lineage) -> Self {
        Self {
            covered: lineage.begin.frontier.clone(),
            ..Self::default()
        }
    }

    fn told(&mut self, told: &Told) {
        if told.is_op() {
            self.told.insert(told.op_id());
        } else if told.kind == Kind::Expire {
            self.expired.insert((told.entry, told.key.clone()));
        }
    }

    fn moved(&mut self, truth: &Truth, lineage: &Lineage, cursor: &Cursor) -> Checked {
        let scope = &lineage.scope;
        if !scope.latest {
            for entry in truth.between(&self.covered, &cursor.frontier) {
                if let Some(op) = scope.ops_of(entry).find(|op| !self.told.contains(op)) {
                    let header = &entry.header;
                    return Err(format!("covered and not told: {op:?} of {header:?}"));
                }
            }
            if let Some(partial) = cursor.partial {
                let entry = truth.at(partial.author, partial.tip.seq);
                let mut ops = scope.ops_of(entry).filter(|(_, op)| *op < partial.ops);
                if let Some(op) = ops.find(|op| !self.told.contains(op)) {
                    return Err(format!("covered in part and not told: {op:?}"));
                }
            }
        }
        self.covered = cursor.frontier.clone();
        Ok(())
    }

    fn at_the_end(&self, truth: &Truth, lineage: &Lineage) -> Checked {
        let scope = &lineage.scope;
        for (key, heads) in truth.heads(&truth.frontier()) {
            let winner = heads.winner().ok_or("a key has a head")?;
            if !scope.wants(&key) || self.gaps > 0 {
                continue;
            }
            let entry = &truth.entries[&winner.id].entry;
            let mut ops = scope.ops_of(entry);
            let op = ops.find(|(_, op)| *entry.ops[*op as usize].key() == key);
            if !op.is_some_and(|op| self.told.contains(&op)) {
                return Err(format!("what {key:?} is now was never told: {winner:?}"));
            }
            let due = winner.expires_ms();
            let is_over = due.is_some_and(|ms| ms <= truth.expired_through_ms);
            if is_over && !self.expired.contains(&(winner.id, key.clone())) {
                return Err(format!("that {key:?} expired was never told: {winner:?}"));
            }
        }
        Ok(())
    }
}

/// A batch is delivered in one piece. A watcher that stopped inside one gets it again from the
/// start: no cursor lies inside a batch.
fn atomic_batches(truth: &Truth, lineage: &Lineage) -> Checked {
    // The ops of a batch that must come next, before any other change.
    let mut rest: Vec<OpId> = Vec::new();
    for (place, (step, cursor)) in lineage.steps.iter().enumerate() {
        let inside = cursor.partial.is_some_and(|partial| {
            let entry = truth.at(partial.author, partial.tip.seq);
            entry.header.atomic
        });
        if inside {
            return Err(format!("a cursor inside a batch at {place}: {cursor:?}"));
        }
        match step {
            Step::Told(told) if told.is_op() => {
                let entry = &truth.entries[&told.entry].entry;
                if rest.is_empty() && told.atomic && !lineage.scope.latest {
                    rest = lineage.scope.ops_of(entry).collect();
                    rest.reverse();
                }
                if !rest.is_empty() && rest.pop() != Some(told.op_id()) {
                    return Err(format!(
                        "in a batch that is not whole, at {place}: {told:?}"
                    ));
                }
            }
            Step::Began { .. } | Step::Ended | Step::Broke(_) | Step::Silent => rest.clear(),
            other if !rest.is_empty() => {
                return Err(format!(
                    "in a batch that is not whole, at {place}: {other:?}"
                ));
            }
            _other => {}
        }
        let told = rest.last().map(|(id, _)| &truth.entries[id].entry);
        if told.is_some_and(|entry| covers(&cursor.frontier, entry.author(), entry.header.seq)) {
            return Err(format!("a cursor over half a batch at {place}: {cursor:?}"));
        }
    }
    Ok(())
}

/// A replica that has all entries of a cursor resumes after it; any other one reports the missing
/// entries. The changes delivered by different replicas add up to the state.
fn portable_between_replicas(truth: &Truth, lineage: &Lineage) -> Checked {
    let mut at = None;
    let mut state: BTreeMap<&Bytes, EntryId> = BTreeMap::new();
    let told: BTreeSet<usize> = lineage.told().into_iter().map(|(place, _)| place).collect();
    for (place, (step, cursor)) in lineage.steps.iter().enumerate() {
        match step {
            Step::Began { had, .. } => at = Some(had),
            Step::Behind { missing } => {
                let had = at.ok_or("it is behind, and did not begin")?;
                let lacks = named(cursor).missing_from(had);
                // The replica looks after the watch began, so some entries may have come
                // meanwhile.
                let is_part = |range: &MissingRange| {
                    let of =
                        |had: &&MissingRange| (had.author, had.tip) == (range.author, range.tip);
                    lacks
                        .iter()
                        .find(of)
                        .is_some_and(|had| had.after <= range.after)
                };
                if missing.is_empty() || !missing.iter().all(is_part) {
                    return Err(format!("it lacks {lacks:?} at {place}, not {missing:?}"));
                }
            }
            Step::Waits => {
                let had = at.ok_or("it waits, and did not begin")?;
                if named(cursor).missing_from(had).is_empty() {
                    return Err(format!("it lacks nothing, and waits at {place}"));
                }
            }
            Step::Gap => state.clear(),
            Step::Told(change) if told.contains(&place) => match change.kind {
                Kind::Put if !change.late => drop(state.insert(&change.key, change.entry)),
                Kind::Delete if !change.late => drop(state.remove(&change.key)),
                Kind::Expire => state.retain(|key, id| (*key, *id) != (&change.key, change.entry)),
                _late => {}
            },
            _other => {}
        }
    }
    let live = truth.live(&lineage.scope, lineage.end());
    let live: BTreeMap<&Bytes, EntryId> = live.iter().map(|(key, id)| (key, *id)).collect();
    if state != live {
        return Err(format!(
            "what was told adds up to {state:?}, not to {live:?}"
        ));
    }
    Ok(())
}

/// A cursor never goes back, and no change that it covers comes after it. It moves with each
/// change and, while nothing matches, with each heartbeat: at the end it covers everything. After
/// an incomplete state it covers nothing.
fn bookmarked(truth: &Truth, lineage: &Lineage) -> Checked {
    let mut had = Frontier::default();
    let (mut waits, mut lacks) = (false, false);
    for (place, (step, cursor)) in lineage.steps.iter().enumerate() {
        let before = lineage.before(place);
        if cursor.expired_through_ms < before.expired_through_ms {
            return Err(format!("the cursor at {place} goes back in time"));
        }
        lacks = match step {
            Step::Gap => covers_nothing(cursor),
            Step::Began { .. } => false,
            _other => lacks && covers_nothing(cursor),
        };
        if lacks {
            continue;
        }
        if let Some((author, tip)) = lost(&before.frontier, &cursor.frontier) {
            return Err(format!(
                "the cursor at {place} goes back over {author} {tip}"
            ));
        }
        match step {
            Step::Began { had: has, .. } => (had, waits) = (has.clone(), false),
            Step::Behind { .. } | Step::Waits => waits = true,
            Step::CaughtUp => waits = false,
            Step::Told(told) if told.is_op() => {
                if covers_op(before, told) {
                    return Err(format!("{before:?} has, and {place} tells: {told:?}"));
                }
                if !told.atomic && !told.lapses(cursor) && !covers_op(cursor, told) {
                    return Err(format!(
                        "told at {place}, and not covered after it: {told:?}"
                    ));
                }
            }
            Step::Progress if !waits => {
                if let Some((author, tip)) = lost(&had, &cursor.frontier) {
                    return Err(format!("quiet at {place}, and behind {author} {tip}"));
                }
            }
            _other => {}
        }
    }
    match lost(&truth.frontier(), &lineage.end().frontier) {
        Some((author, tip)) => Err(format!("it never came to {author} {tip}")),
        None => Ok(()),
    }
}

/// Returns all entries that a cursor names, also the one delivered in part.
pub fn named(cursor: &Cursor) -> Frontier {
    let mut named = cursor.frontier.clone();
    if let Some(partial) = cursor.partial {
        named.replace(partial.author, partial.tip);
    }
    named
}

fn lost(from: &Frontier, to: &Frontier) -> Option<(Author, Seq)> {
    let tips = from.iter().map(|(author, tip)| (author, tip.seq));
    tips.into_iter()
        .find(|(author, seq)| !covers(to, *author, *seq))
}

fn covers(frontier: &Frontier, author: Author, seq: Seq) -> bool {
    frontier.seq(&author) >= seq
}

/// Heartbeats never stop. When a node ends, its watches end with an error; no other watch does.
pub fn live(_truth: &Truth, lineage: &Lineage) -> Checked {
    for (place, (step, _)) in lineage.steps.iter().enumerate() {
        match step {
            Step::Silent => return Err(format!("silence at {place}")),
            Step::Broke(error) => return Err(format!("it broke off at {place}: {error}")),
            _other => {}
        }
    }
    Ok(())
}

/// Every change is delivered until it is acknowledged, one change of a key at a time, and not
/// after that, unless the node died before the ack was durable.
fn at_least_once_with_ack(truth: &Truth, record: &Record) -> Checked {
    let (mut acked, mut durable) = (BTreeSet::new(), BTreeSet::new());
    let mut perhaps = BTreeSet::new();
    let mut out: BTreeMap<&Bytes, OpId> = BTreeMap::new();
    let mut attempts: BTreeMap<OpId, u32> = BTreeMap::new();
    let owed = truth.between(&record.since, &truth.frontier());
    let owed: BTreeSet<OpId> = owed.iter().flat_map(|it| record.scope.ops_of(it)).collect();
    for (place, work) in record.work.iter().enumerate() {
        match work {
            Work::Given { op, key, attempt } => {
                if acked.contains(op) || durable.contains(op) {
                    return Err(format!("acknowledged, and given again at {place}: {op:?}"));
                }
                if !owed.contains(op) {
                    return Err(format!("nobody asked for what is given at {place}: {op:?}"));
                }
                if let Some(other) = out.insert(key, *op) {
                    return Err(format!("{other:?} of the same key is out at {place}"));
                }
                let before = attempts.insert(*op, *attempt);
                if before >= Some(*attempt) {
                    return Err(format!("attempt {attempt} after {before:?} at {place}"));
                }
            }
            Work::Left(op) => out.retain(|_, there| there != op),
            Work::Acked(op) => {
                out.retain(|_, there| there != op);
                acked.insert(*op);
            }
            Work::AckLost(op) => {
                out.retain(|_, there| there != op);
                perhaps.insert(*op);
            }
            Work::Flushed | Work::Died { clean: true } => durable.append(&mut acked),
            Work::Died { clean: false } => perhaps.append(&mut acked),
            Work::Wrote { .. } => {}
        }
        if matches!(work, Work::Died { .. }) {
            out.clear();
            attempts.clear();
        }
    }
    let done = acked.into_iter().chain(durable).chain(perhaps).collect();
    match owed.difference(&done).next() {
        Some(op) => Err(format!("never acknowledged: {op:?}")),
        None => Ok(()),
    }
}

/// Each change has caused one entry: none is missing, and none is there twice.
fn exactly_once_for_writes(truth: &Truth, record: &Record) -> Checked {
    let mut written: BTreeMap<OpId, EntryId> = BTreeMap::new();
    for known in truth.entries.values() {
        let entry = &known.entry;
        let Some(cause) = &entry.header.cause else {
            continue;
        };
        if (entry.author(), cause.consumer.as_str()) != (record.author, record.name) {
            continue;
        }
        let op = (cause.trigger, cause.position);
        if let Some(other) = written.insert(op, entry.id) {
            return Err(format!("{op:?} has caused {other} and {}", entry.id));
        }
    }
    if !record.writes {
        return Ok(());
    }
    for work in &record.work {
        match work {
            Work::Wrote { op, entry } if written.get(op) != Some(entry) => {
                return Err(format!("{op:?} has caused {entry}, which is in no log"));
            }
            Work::Acked(op) if !written.contains_key(op) => {
                return Err(format!("{op:?} was acknowledged, and has caused nothing"));
            }
            _other => {}
        }
    }
    Ok(())
}
