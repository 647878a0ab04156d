//! Verification: every record, every signature, every link, and the state against the log.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    mem,
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    id::{Author, Seq, StoreId},
    limits::{RUN_BYTES_MAX, RUN_ENTRIES_MAX, SCAN_ROWS},
    log::{
        Branch, LogDamage, LogError,
        merge::{Merge, Merged, NotHere, spans},
    },
    protocol::{
        chain::Tip,
        entry::Entry,
        heads::{Before, Heads},
    },
    state::{Base, Fold, Staging as _, StateError, View},
    store::{ReadError, Shared, Store},
};

/// Result of a verification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Number of records that were read.
    pub entries: u64,
    /// Number of signatures that verify.
    pub signatures: u64,
    /// Number of rows of the state that were compared with the log.
    pub rows: u64,
    /// Damage that was found; empty if there is none.
    pub damage: Vec<Damage>,
}

/// One damaged place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Part of the store that is damaged.
    pub place: DamagePlace,
    /// Description in words.
    pub what: String,
    /// Author of the log; `None` for the state.
    pub author: Option<Author>,
    /// Seq of the record; `None` for the state, or if it cannot be read.
    pub seq: Option<Seq>,
    /// Name of the file.
    pub file: String,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Number of damaged bytes.
    pub bytes: u64,
    /// Key of the state's row; `None` for a log.
    pub key: Option<Bytes>,
}

/// Part of a store that is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamagePlace {
    /// A record of a log cannot be read.
    Log,
    /// A record's signature does not verify, and no authentic later entry commits to it.
    Signature,
    /// A record does not follow the one before it.
    Chain,
    /// A row of the state differs from the row computed from the log.
    State,
    /// A file of the base is missing, or not as it was written.
    Base,
}

impl DamagePlace {
    /// Returns its name in text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Signature => "signature",
            Self::Chain => "chain",
            Self::State => "state",
            Self::Base => "base",
        }
    }
}

impl Damage {
    // Returns the damage if it is in a log, because a peer can help to mend it.
    fn in_log(&self) -> Option<LogDamage> {
        Some(LogDamage {
            author: self.author.filter(|_| self.place == DamagePlace::Log)?,
            seq: self.seq,
            file: self.file.clone(),
            offset: self.offset,
            bytes: self.bytes,
            what: "the record cannot be read".to_owned(),
        })
    }
}

impl Store {
    /// Reads every record, checks every signature and link, and compares the state with the heads
    /// computed from the log; where the log begins later, from the base and the log, and the first link
    /// is checked against the anchor.
    ///
    /// It takes memory for the heads of all keys that the log names. Writes are not blocked; entries that arrive after
    /// the start are not compared.
    ///
    /// # Errors
    /// `ReadError` when a file cannot be read at all; damage is in the report.
    pub async fn verify(&self) -> Result<VerifyReport, ReadError> {
        let shared = Arc::clone(&self.shared);
        let work = tokio::task::spawn_blocking(move || verify(&shared));
        let report = work.await.unwrap_or(Err(ReadError::Closed))?;
        let in_logs = report.damage.iter().filter_map(Damage::in_log);
        self.note_damage(in_logs.collect()).await;
        Ok(report)
    }
}

fn verify(shared: &Shared) -> Result<VerifyReport, ReadError> {
    // Before the view, so that it has no entries that the view does not have.
    let base = shared.base.newest();
    let view = shared.state.view();
    let mut report = VerifyReport::default();
    // Each log is read to its end: damaged records there are not in the state.
    for branch in shared.log.all() {
        if let Some(tip) = branch.tip() {
            verify_chain(&branch, tip.seq, &mut report)?;
        }
    }
    let what = match &base {
        // The first one came since this call began.
        None if is_replaced(None, shared) => return verify(shared),
        None if shared.log.pruned().is_some() => Some("it cannot be used".to_owned()),
        None => None,
        Some(base) => match base.check() {
            Ok(_records) => None,
            Err(StateError::Damaged { what }) => Some(what),
            Err(error) => return Err(error.into()),
        },
    };
    if let Some(what) = what {
        report.damage.push(base_damage(what));
        return Ok(report);
    }
    let anchors = base.as_ref().map(|base| base.manifest().frontier());
    let anchors = anchors.unwrap_or_default();
    let spans = match spans(&shared.log, &anchors, &view.frontier)? {
        Ok(spans) => spans,
        Err(NotHere::Ahead(_)) => Vec::new(),
        // Removed since this call began.
        Err(NotHere::Pruned(_)) if is_replaced(base.as_ref(), shared) => return verify(shared),
        Err(NotHere::Pruned(pruned)) => {
            let what = format!("it does not reach as far as the logs begin: {pruned}");
            report.damage.push(base_damage(what));
            return Ok(report);
        }
    };
    let mut expected = Expected::new(shared.id, base);
    let mut merge = Merge::new(spans)?;
    while let Some(next) = merge.next()? {
        // `verify_chain` has reported the damage already.
        let Merged::Entry { entry, .. } = next else {
            continue;
        };
        let is_taken_back = view.is_taken_back(&entry)?;
        let cited = expected.base.cited_ahead(&entry)?;
        let in_place = entry.ops.iter().zip(cited);
        let in_place = in_place.filter(|(op, _cited)| !view.is_void(&entry, op));
        for (op, cited) in in_place {
            let heads = expected.heads(op.key())?;
            let found = Before::new(&entry, vec![heads.clone()], |head| {
                shared.log.is_ancestor(&entry, head)
            });
            let ancestors = match found {
                Ok(found) => found.ancestors,
                // `verify_chain` has reported it.
                Err(LogError::Damaged(_)) => BTreeSet::new(),
                Err(error) => return Err(error.into()),
            };
            *heads = heads.apply(&entry, op, &ancestors);
            if cited {
                *heads = mem::take(heads).without(&entry.id);
            }
            if is_taken_back && let Some(lowered) = heads.take_back(&entry.id) {
                *heads = lowered;
            }
        }
    }
    verify_state(&view, expected, &mut report)?;
    Ok(report)
}

// Whether there is another base than `base` now.
fn is_replaced(base: Option<&Arc<Base>>, shared: &Shared) -> bool {
    let newest = shared.base.newest();
    newest.as_ref().map(Arc::as_ptr) != base.map(Arc::as_ptr)
}

fn verify_chain(
    branch: &Arc<Branch>,
    through: Seq,
    report: &mut VerifyReport,
) -> Result<(), ReadError> {
    let mut walk = branch.walk(branch.first_here());
    // The first record follows the anchor.
    let mut before: Option<Tip> = branch.begin.map(|begin| begin.anchor.into());
    let mut unproven = Unproven::default();
    loop {
        let record = match walk.next_record() {
            Ok(Some(record)) if record.header.seq <= through => record,
            Ok(_end) => break,
            Err(LogError::Damaged(damage)) => {
                unproven.give_up(report);
                report.damage.push(log_damage(DamagePlace::Log, damage));
                before = None;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let found = |place, what| log_damage(place, branch.damage(&record, what));
        let entry = match record.entry() {
            Ok(entry) => entry,
            Err(what) => {
                unproven.give_up(report);
                report.damage.push(found(DamagePlace::Log, what));
                before = None;
                continue;
            }
        };
        report.entries += 1;
        if let Some(before) = before
            && (entry.header.prev != Some(before.id)
                || entry.header.seq != before.seq + 1
                || entry.header.hlc <= before.hlc)
        {
            unproven.give_up(report);
            let what = format!("the record does not follow entry {}", before.seq);
            report.damage.push(found(DamagePlace::Chain, what));
        }
        let bytes = entry.signed_bytes();
        unproven.begin(entry.header.seq, report);
        match Entry::clone(&entry).verify() {
            Ok(_authentic) => {
                report.signatures += 1;
                unproven.vouch(bytes, report);
            }
            Err(error) => {
                let damage = found(DamagePlace::Signature, error.to_string());
                unproven.0.push((bytes, damage));
            }
        }
        before = Some(Tip {
            seq: entry.header.seq,
            id: entry.id,
            hlc: entry.header.hlc,
        });
    }
    unproven.give_up(report);
    Ok(())
}

/// Neighbouring entries of a run whose own signatures do not verify, with their signed bytes. They are
/// no damage if an authentic later entry vouches for them, by the rules of `protocol::run`.
#[derive(Default)]
struct Unproven(Vec<(usize, Damage)>);

impl Unproven {
    // The entry at `seq` follows. If it begins a run, no later entry vouches for those before it.
    fn begin(&mut self, seq: Seq, report: &mut VerifyReport) {
        if seq.is_multiple_of(RUN_ENTRIES_MAX) {
            self.give_up(report);
        }
    }

    fn give_up(&mut self, report: &mut VerifyReport) {
        let damage = self.0.drain(..).map(|(_bytes, damage)| damage);
        report.damage.extend(damage);
    }

    // An authentic entry of `bytes` follows: it vouches as far back as RUN_BYTES_MAX reaches.
    fn vouch(&mut self, bytes: usize, report: &mut VerifyReport) {
        let mut left = RUN_BYTES_MAX.saturating_sub(bytes);
        while let Some((bytes, _damage)) = self.0.last()
            && let Some(rest) = left.checked_sub(*bytes)
        {
            left = rest;
            self.0.pop();
        }
        self.give_up(report);
    }
}

/// The rows that the base and the logs make.
struct Expected {
    // The rows of the base, to which nothing is applied.
    base: Fold,
    keys: u64,
    // The keys that entries of the logs write.
    tail: BTreeMap<Bytes, Heads>,
    // Keys of the base that the state has.
    found: u64,
}

impl Expected {
    fn new(store: StoreId, base: Option<Arc<Base>>) -> Self {
        Self {
            keys: base.as_ref().map_or(0, |base| base.manifest().keys),
            base: Fold::new(store, base),
            tail: BTreeMap::new(),
            found: 0,
        }
    }

    // The heads of `key` so far, to be changed.
    fn heads(&mut self, key: &Bytes) -> Result<&mut Heads, StateError> {
        let heads = match self.tail.entry(key.clone()) {
            btree_map::Entry::Occupied(known) => return Ok(known.into_mut()),
            btree_map::Entry::Vacant(new) => new.insert(self.base.heads(key)?),
        };
        Ok(heads)
    }

    // Takes out the heads of `key`; none if nothing names it.
    fn take(&mut self, key: &Bytes) -> Result<Heads, StateError> {
        let of_base = self.base.heads(key)?;
        self.found += u64::from(!of_base.as_slice().is_empty());
        Ok(self.tail.remove(key).unwrap_or(of_base))
    }
}

fn verify_state(
    view: &View,
    mut expected: Expected,
    report: &mut VerifyReport,
) -> Result<(), StateError> {
    let mut after: Option<Bytes> = None;
    loop {
        let rows = match view.scan(&[], after.as_deref(), SCAN_ROWS) {
            Ok(rows) => rows,
            Err(error) => {
                report.damage.push(state_damage(None, error.to_string()));
                return Ok(());
            }
        };
        for (key, heads) in &rows {
            report.rows += 1;
            let computed = view.collected(expected.take(key)?);
            if computed == view.collected(heads.clone()) {
                continue;
            }
            let what = match computed.as_slice() {
                [] => "no readable entry of the log names the key",
                _some => "its heads differ from those computed from the log",
            };
            let key = Some(key.clone());
            report.damage.push(state_damage(key, what.to_owned()));
        }
        match rows.last() {
            Some((key, _)) if rows.len() == SCAN_ROWS => after = Some(key.clone()),
            _end => break,
        }
    }
    let mut missing = expected.keys.saturating_sub(expected.found);
    if view.has_collected() {
        // Not those that acts took.
        missing = 0;
        expected.base.each_row(|key, heads| {
            let is_there = view.heads(key)?.winner().is_some();
            let is_due = view.collected(heads.clone()).winner().is_some();
            missing += u64::from(is_due && !is_there);
            Ok(())
        })?;
    }
    if missing > 0 {
        let what = format!("{missing} keys of the base are missing");
        report.damage.push(state_damage(None, what));
    }
    for (key, heads) in expected.tail {
        if view.collected(heads).winner().is_none() {
            continue;
        }
        let what = "the log names the key and the state does not".to_owned();
        report.damage.push(state_damage(Some(key), what));
    }
    Ok(())
}

fn log_damage(place: DamagePlace, damage: LogDamage) -> Damage {
    Damage {
        place,
        what: damage.to_string(),
        author: Some(damage.author),
        seq: damage.seq,
        file: damage.file,
        offset: damage.offset,
        bytes: damage.bytes,
        key: None,
    }
}

fn base_damage(what: String) -> Damage {
    Damage {
        place: DamagePlace::Base,
        file: "base".to_owned(),
        what,
        ..state_damage(None, String::new())
    }
}

fn state_damage(key: Option<Bytes>, what: String) -> Damage {
    let what = match &key {
        Some(key) => format!("state row of key {key:?}: {what}"),
        None => what,
    };
    Damage {
        place: DamagePlace::State,
        what,
        author: None,
        seq: None,
        file: "state.db".to_owned(),
        offset: 0,
        bytes: 0,
        key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Checks entries of `bytes` each, from `first` on: `proves` is true for those whose signature
    // verifies. Returns the places of damage.
    fn damaged(first: Seq, bytes: usize, proves: &[bool]) -> Vec<Seq> {
        let (mut unproven, mut report) = (Unproven::default(), VerifyReport::default());
        for (seq, proves) in (first..).zip(proves) {
            unproven.begin(seq, &mut report);
            if *proves {
                unproven.vouch(bytes, &mut report);
            } else {
                let damage = Damage {
                    place: DamagePlace::Signature,
                    seq: Some(seq),
                    ..state_damage(None, String::new())
                };
                unproven.0.push((bytes, damage));
            }
        }
        unproven.give_up(&mut report);
        let seqs = report.damage.iter().filter_map(|damage| damage.seq);
        seqs.collect()
    }

    #[test]
    fn later_signature_proves_nothing_of_an_earlier_run() {
        let (odd, good) = (false, true);
        assert!(damaged(1, 100, &[odd, odd, good]).is_empty());
        assert_eq!(damaged(1, 100, &[odd, good, odd]), [3]);
        // 31 ends a run, and 32 begins one.
        assert_eq!(damaged(30, 100, &[odd, odd, good, good]), [30, 31]);
        assert!(damaged(30, 100, &[odd, good, odd, good]).is_empty());
        assert_eq!(damaged(63, 100, &[odd, odd, odd]), [63, 64, 65]);
    }

    #[test]
    fn signature_proves_as_many_bytes_as_a_run_has() {
        let half = RUN_BYTES_MAX / 2;
        assert!(damaged(1, half, &[false, true]).is_empty());
        assert_eq!(damaged(1, half, &[false, false, true]), [1]);
        assert_eq!(damaged(1, RUN_BYTES_MAX + 1, &[false, true]), [1]);
    }
}
