//! Verification: every record, every signature, every link, and the state against the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    id::{Author, Seq},
    limits::{RUN_BYTES_MAX, RUN_ENTRIES_MAX, SCAN_ROWS},
    log::{
        Branch, LogDamage, LogError,
        merge::{Merge, Merged, NotHere, spans},
    },
    protocol::{
        chain::Tip,
        entry::{Entry, Parent},
        frontier::Frontier,
        heads::{Before, Head, Heads},
    },
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
    /// Number of heads that no entry can show to be right: those entries were removed from the log.
    pub unproven: u64,
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
}

impl DamagePlace {
    /// Returns its name in text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Signature => "signature",
            Self::Chain => "chain",
            Self::State => "state",
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
    /// computed from the log. Where the log begins later, the first link is checked against the anchor,
    /// and of the state what the rest of the log shows.
    ///
    /// It takes memory for the heads of all keys. Writes are not blocked; entries that arrive after
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
    let view = shared.state.view();
    let mut report = VerifyReport::default();
    let mut expected: BTreeMap<Bytes, Heads> = BTreeMap::new();
    let anchors = shared.log.begins().into_iter();
    let anchors: Frontier = anchors
        .map(|(author, begin)| (author, begin.anchor.tip()))
        .collect();
    let spans = match spans(&shared.log, &anchors, &view.frontier)? {
        Ok(spans) => spans,
        Err(NotHere::Ahead(_)) => Vec::new(),
        // Removed since this call began.
        Err(NotHere::Pruned(pruned)) => return Err(ReadError::Pruned(pruned)),
    };
    let mut gone = Gone::new(&anchors);
    // Each log is read to its end: damaged records there are not in the state.
    for branch in shared.log.all() {
        if let Some(tip) = branch.tip() {
            verify_chain(&branch, tip.seq, &mut report)?;
        }
    }
    let mut merge = Merge::new(spans)?;
    while let Some(next) = merge.next()? {
        // `verify_chain` has reported the damage already.
        let Merged::Entry { entry, .. } = next else {
            continue;
        };
        let is_taken_back = view.is_taken_back(&entry)?;
        let in_place = entry.ops.iter().filter(|op| !view.is_void(&entry, op));
        for op in in_place {
            gone.note(&entry, op.key());
            let heads = expected.entry(op.key().clone()).or_default();
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
            if is_taken_back && let Some(lowered) = heads.take_back(&entry.id) {
                *heads = lowered;
            }
        }
    }
    verify_state(&view, expected, &gone, &mut report);
    Ok(report)
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

/// Entries that were removed from the log, and that later entries show to be superseded.
struct Gone {
    // Seq of the anchor, by author.
    anchors: BTreeMap<Author, Seq>,
    // Entries that one in the log cites at a key, and authors who wrote the key again. A citation that is
    // wrong in any part supersedes nothing.
    cited: BTreeSet<(Bytes, Parent)>,
    written_again: BTreeSet<(Bytes, Author)>,
}

impl Gone {
    fn new(anchors: &Frontier) -> Self {
        Self {
            anchors: anchors
                .iter()
                .map(|(author, tip)| (author, tip.seq))
                .collect(),
            cited: BTreeSet::new(),
            written_again: BTreeSet::new(),
        }
    }

    fn has(&self, author: &Author, seq: Seq) -> bool {
        self.anchors
            .get(author)
            .is_some_and(|anchor| seq <= *anchor)
    }

    // `entry`, which is in the log, writes `key`.
    fn note(&mut self, entry: &Entry, key: &Bytes) {
        let parents = entry.header.parents.iter();
        let gone = parents.filter(|parent| self.has(&parent.author, parent.seq));
        let cited: Vec<_> = gone.map(|parent| (key.clone(), *parent)).collect();
        self.cited.extend(cited);
        if self.anchors.contains_key(&entry.author()) {
            self.written_again.insert((key.clone(), entry.author()));
        }
    }

    // Splits the heads of `key` into those that the log shows, and the number of the others; `None`
    // when one of the others is superseded.
    fn split(&self, key: &Bytes, heads: &Heads) -> Option<(Heads, u64)> {
        let (gone, here): (Vec<&Head>, Vec<&Head>) = heads
            .as_slice()
            .iter()
            .partition(|head| self.has(&head.author, head.seq));
        let is_superseded = |head: &&Head| {
            self.cited.contains(&(key.clone(), head.as_parent()))
                || self.written_again.contains(&(key.clone(), head.author))
        };
        if gone.iter().any(is_superseded) {
            return None;
        }
        let unproven = u64::try_from(gone.len()).unwrap_or(u64::MAX);
        Some((Heads::new(here.into_iter().cloned().collect()), unproven))
    }
}

fn verify_state(
    view: &crate::state::View,
    mut expected: BTreeMap<Bytes, Heads>,
    gone: &Gone,
    report: &mut VerifyReport,
) {
    let mut after: Option<Bytes> = None;
    loop {
        let rows = match view.scan(&[], after.as_deref(), SCAN_ROWS) {
            Ok(rows) => rows,
            Err(error) => {
                report.damage.push(state_damage(None, error.to_string()));
                return;
            }
        };
        for (key, heads) in &rows {
            report.rows += 1;
            let from_log = expected.remove(key);
            let Some((heads, unproven)) = gone.split(key, heads) else {
                let what = "it has a head that an entry of the log supersedes".to_owned();
                report.damage.push(state_damage(Some(key.clone()), what));
                continue;
            };
            report.unproven += unproven;
            match from_log {
                Some(from_log) if from_log == heads => {}
                None if unproven > 0 && heads.as_slice().is_empty() => {}
                Some(_other) => {
                    let what = "its heads differ from those computed from the log".to_owned();
                    report.damage.push(state_damage(Some(key.clone()), what));
                }
                None => {
                    let what = "no readable entry of the log names the key".to_owned();
                    report.damage.push(state_damage(Some(key.clone()), what));
                }
            }
        }
        match rows.last() {
            Some((key, _)) if rows.len() == SCAN_ROWS => after = Some(key.clone()),
            _end => break,
        }
    }
    for key in expected.into_keys() {
        let what = "the log names the key and the state does not".to_owned();
        report.damage.push(state_damage(Some(key), what));
    }
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
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::protocol::{
        entry::{
            Header, sign,
            tests::{AUTHOR_A, AUTHOR_B, entry},
        },
        frontier::FrontierTip,
    };

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

    // Entry 1 of A was removed from the log.
    #[test]
    fn removed_head_that_a_later_entry_supersedes_is_damage() {
        let of = |entry: &Entry| Head::of(entry, &entry.ops[0]);
        let removed = entry(AUTHOR_A, 1, None, 10, "/k");
        let next = entry(AUTHOR_A, 2, Some(removed.id), 20, "/k");
        let other = entry(AUTHOR_A, 2, Some(removed.id), 20, "/other");
        let citing = |parent: Parent| {
            let header = Header {
                parents: vec![parent],
                ..entry(AUTHOR_B, 1, None, 20, "/k").header.clone()
            };
            let key = SigningKey::from_bytes(&AUTHOR_B);
            sign(&key, header, next.ops.clone()).unwrap()
        };
        let mut wrong = removed.as_parent();
        wrong.hlc.wall_ms -= 1;
        let (citing, misciting) = (citing(removed.as_parent()), citing(wrong));
        let anchors = Frontier::from_iter([(removed.author(), FrontierTip::of(&removed))]);
        let split = |noted: &[&Entry], heads: Vec<Head>| {
            let mut gone = Gone::new(&anchors);
            for entry in noted {
                gone.note(entry, entry.ops[0].key());
            }
            gone.split(removed.ops[0].key(), &Heads::new(heads))
        };
        let row = vec![of(&removed)];
        assert_eq!(split(&[], row.clone()), Some((Heads::default(), 1)));
        assert_eq!(split(&[&other], row.clone()), Some((Heads::default(), 1)));
        assert_eq!(split(&[&next], row.clone()), None);
        assert_eq!(
            split(&[&misciting], row.clone()),
            Some((Heads::default(), 1))
        );
        assert_eq!(split(&[&citing], row), None);
        let both = vec![of(&removed), of(&citing)];
        assert_eq!(split(&[], both), Some((Heads::new(vec![of(&citing)]), 1)));
    }
}
