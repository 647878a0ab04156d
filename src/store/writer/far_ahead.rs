//! Own entries of no use: this node goes on before them, and takes them back. They are stamped far ahead,
//! or void.
//!
//! A node whose clock was ahead has signed entries that the other members hold until their clocks come
//! to them. Its next entry must be stamped above its tip, so it would be held, too. Therefore the log
//! is forked on purpose:
//!
//! ```text
//! 1 -- 2 -- 3 ---- 4          stamped now, far ahead, far ahead
//!       \
//!        3' -- 4'             values written again; 3 and 4 taken back
//! ```
//! 1. Each key that one of the far entries (3, 4) has as a head is written again, with the same
//!    value, after the last entry that is not far ahead (2). So its value is everywhere at once.
//! 2. The far entries are taken back ([`fork`](crate::protocol::fork)): an entry without ops (4') names
//!    them without their stamps. A citation would have to be stamped above them. This closes the fork
//!    now, on every node, whether it has the far entries or not, and keeps old values from winning
//!    when the far entries are due: they have the lowest rank among the heads of their keys until a
//!    later write cites them.
//!
//! Acts and invites in the far entries are not written again. They are never held, unless they stand
//! on data that is far ahead.
//!
//! Void entries are those of a node that was restored from an old copy and wrote before it met anybody
//! ([`finality`](crate::protocol::finality)). They have no effect anywhere, so the newest of them at each
//! key is written again; the values of other members that it did not know stay readable beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use bytes::Bytes;

use crate::{
    id::{Author, EntryId, Seq},
    limits::{OPS_BYTES_MAX, OPS_MAX, PARENTS_MAX},
    log::LogError,
    protocol::{
        chain::Tip,
        entry::{Op, Parent, VerifiedEntry},
        fork::taking_back,
        frontier::FrontierTip,
        heads::Heads,
        membership::reserved::{self, Claim},
    },
    store::{
        StampedBy, WriteError,
        writer::{health::WriteFailure, transaction::Transaction, writer::Writer},
    },
};

/// Entries of this node that were stamped far ahead, or void, and are taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenBack {
    /// Number of entries that were taken back.
    pub entries: u64,
    /// Number of keys that were written again.
    pub keys: u64,
    /// Id of the new tip of this node's log. It has no ops.
    pub tip: EntryId,
    /// Place of the new tip.
    pub seq: Seq,
}

/// The entries of open branches that are stamped far ahead or void, and the place before them.
#[derive(Debug, Default)]
struct FarEntries {
    // By stamp.
    places: BTreeSet<Parent>,
    // The own entry that the next one follows; `None` when the next one is the first of the log.
    on: Option<Tip>,
    // Other open tips, which are not far ahead. They are cited.
    tips: Vec<Parent>,
}

/// Ops that become an entry, and what it cites.
#[derive(Debug, Default)]
struct Rewrite {
    ops: Vec<Op>,
    bytes: usize,
    keys: BTreeSet<Bytes>,
    parents: BTreeSet<Parent>,
}

impl Writer {
    /// Goes on before those entries of this node's own log that the members within reach would hold, and
    /// those that are void. Returns `None` if there are none. None would be held while the clocks of the
    /// members are not known.
    ///
    /// If this fails in the middle, the log stays forked, and the next call begins again.
    ///
    /// # Errors
    /// `FarAhead` while the clock is far ahead itself, or if the first entry of a root store is. This
    /// node may not write, or the log takes no entry.
    pub(super) fn go_on_before_far_ahead(&mut self) -> Result<Option<TakenBack>, WriteError> {
        let far = self.far_entries()?;
        if far.places.is_empty() {
            return Ok(None);
        }
        self.check_own_standing()?;
        self.check_clock()?;
        self.check_own_log()?;
        let counting = self.state.staged().counting.as_ref();
        let is_creator = counting.is_some_and(|it| it.creator == self.author());
        if let (None, true, Some(first)) = (far.on, is_creator, far.places.first()) {
            // There is one genesis.
            self.check_not_held(StampedBy::OwnEntry, first.hlc)?;
        }
        let (tip, keys) = self.write_again(&far)?;
        let tip = self.take_back(far.places.iter().copied().collect(), far.tips, tip)?;
        Ok(Some(TakenBack {
            entries: far.places.len() as u64,
            keys,
            tip: tip.id,
            seq: tip.header.seq,
        }))
    }

    fn far_entries(&self) -> Result<FarEntries, WriteError> {
        let author = self.author();
        let open = self.open_tips(&author)?;
        let (mut ahead, mut near) = (Vec::new(), Vec::new());
        for tip in open {
            if self.is_of_no_use(&tip)? {
                ahead.push(tip);
            } else {
                near.push(tip);
            }
        }
        let mut far = FarEntries {
            on: near.iter().copied().max_by_key(|tip| (tip.hlc, tip.id)),
            ..FarEntries::default()
        };
        let mut before = Vec::new();
        for tip in ahead {
            let place = FrontierTip {
                seq: tip.seq,
                id: tip.id,
            };
            before.extend(self.walk_back(place, &mut far.places)?);
        }
        let latest = before.into_iter().max_by_key(|tip| (tip.hlc, tip.id));
        far.on = far.on.or(latest);
        let others = near
            .iter()
            .filter(|tip| Some(tip.id) != far.on.map(|on| on.id));
        far.tips = others.map(|tip| parent_at(author, tip)).collect();
        Ok(far)
    }

    // Whether an own entry would be held by others, or is void.
    fn is_of_no_use(&self, at: &Tip) -> Result<bool, LogError> {
        let log = self.logs.reader();
        Ok(self.members_would_hold(at.hlc)
            || self.membership.is_void(&self.author(), (*at).into(), log)?)
    }

    // Adds the far entries on the branch that ends in `tip`. Returns the last one before them.
    fn walk_back(
        &self,
        tip: FrontierTip,
        far: &mut BTreeSet<Parent>,
    ) -> Result<Option<Tip>, LogError> {
        let author = self.author();
        for stretch in self.logs.reader().descent(&author, tip)? {
            for seq in (stretch.branch.first_here()..=stretch.through).rev() {
                let Some(record) = stretch.branch.header(seq)? else {
                    continue;
                };
                let (id, hlc) = (record.header.id, record.header.hlc);
                let at = Tip { seq, id, hlc };
                if !self.is_of_no_use(&at)? {
                    return Ok(Some(at));
                }
                if !far.insert(parent_at(author, &at)) {
                    // The rest was found on another branch.
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    // Writes the keys of which a far entry is a head again. Returns the new tip, and how many they are.
    fn write_again(&mut self, far: &FarEntries) -> Result<(Option<Tip>, u64), WriteError> {
        let (mut tip, mut keys) = (far.on, 0);
        // Entries of other members that far entries with the key cite.
        let mut cited: BTreeMap<Bytes, BTreeSet<Parent>> = BTreeMap::new();
        let mut rewrite = Rewrite::default();
        let newest_void = self.newest_void(&far.places)?;
        for place in &far.places {
            let found = self
                .logs
                .reader()
                .entry(&place.author, place.seq, &place.id)?;
            let Some((entry, _record)) = found else {
                continue;
            };
            let near = |parent: &&Parent| {
                parent.author != entry.author() && !self.members_would_hold(parent.hlc)
            };
            let near: Vec<Parent> = entry.header.parents.iter().filter(near).copied().collect();
            for op in &entry.ops {
                let cited = cited.entry(op.key().clone()).or_default();
                cited.extend(&near);
                let heads = self.state.heads(op.key())?;
                let is_head = heads.as_slice().iter().any(|head| head.id == entry.id);
                if !is_head && newest_void.get(op.key()) != Some(&entry.id) {
                    continue;
                }
                let Some(authority) = self.authority_to_write_again(op) else {
                    continue;
                };
                let mut parents: BTreeSet<Parent> = authority.into_iter().collect();
                let room = PARENTS_MAX - parents.len();
                parents.extend(cited.iter().rev().take(room));
                if !rewrite.takes(op, &parents) {
                    tip = Some(self.write_own(tip, mem::take(&mut rewrite))?);
                }
                rewrite.add(op, parents);
                keys += 1;
            }
        }
        if !rewrite.ops.is_empty() {
            tip = Some(self.write_own(tip, rewrite)?);
        }
        Ok((tip, keys))
    }

    // Returns the newest of those entries that are void at each key.
    fn newest_void(
        &self,
        places: &BTreeSet<Parent>,
    ) -> Result<BTreeMap<Bytes, EntryId>, WriteError> {
        let (mut newest, log) = (BTreeMap::new(), self.logs.reader());
        for at in places {
            let place = FrontierTip {
                seq: at.seq,
                id: at.id,
            };
            if self.membership.is_void(&at.author, place, log)?
                && let Some((entry, _record)) = log.entry(&at.author, at.seq, &at.id)?
            {
                let keys = entry.ops.iter().map(Op::key);
                newest.extend(keys.map(|key| (key.clone(), at.id)));
            }
        }
        Ok(newest)
    }

    // Returns the grant that an op must cite to be written again, if it needs one. The outer `None`: it
    // is not written again.
    fn authority_to_write_again(&self, op: &Op) -> Option<Option<Parent>> {
        if !self.config.root {
            return Some(None);
        }
        match reserved::claim(op) {
            Some(Claim::Act(_) | Claim::Authority | Claim::Void) => return None,
            Some(Claim::Of(_) | Claim::Genesis(..) | Claim::Founder(_)) | None => {}
        }
        if !self.needs_authority(op) {
            return Some(None);
        }
        let authority = self.membership.authority(&self.author());
        match authority {
            Some(grant) if self.is_far_ahead(grant.hlc) => None,
            grant => Some(grant),
        }
    }

    fn write_own(&mut self, tip: Option<Tip>, rewrite: Rewrite) -> Result<Tip, WriteError> {
        let Rewrite { ops, parents, .. } = rewrite;
        let heads = ops.iter().map(|op| self.state.heads(op.key()));
        let heads = heads.collect::<Result<_, _>>()?;
        let entry = self.sign(tip, parents.into_iter().collect(), ops, false, None)?;
        let mut transaction = Transaction::begin(self)?;
        transaction.stage_again(&entry, heads)?;
        let aftermath = transaction.commit()?;
        self.follow_up(aftermath);
        Ok(tip_of(&entry))
    }

    // Takes the entries at `places` back, and cites `tips`, all in one group. Returns the newest entry.
    fn take_back(
        &mut self,
        places: Vec<Parent>,
        tips: Vec<Parent>,
        mut tip: Option<Tip>,
    ) -> Result<VerifiedEntry, WriteError> {
        let author = self.author();
        let back = places.iter().map(|at| {
            let place = FrontierTip {
                seq: at.seq,
                id: at.id,
            };
            taking_back(&author, place)
        });
        let parents: Vec<Parent> = tips.into_iter().chain(back).collect();
        let mut transaction = Transaction::begin(self)?;
        let mut last = None;
        for parents in parents.chunks(PARENTS_MAX) {
            let signed =
                transaction
                    .writer()
                    .sign(tip, parents.to_vec(), Vec::new(), false, None)?;
            transaction.stage_again(&signed, Vec::new())?;
            tip = Some(tip_of(&signed));
            last = Some(signed);
        }
        let aftermath = transaction.commit()?;
        self.follow_up(aftermath);
        Ok(last.expect("there are far entries, so there is a chunk of them"))
    }
}

impl Transaction<'_> {
    fn stage_again(&mut self, entry: &VerifiedEntry, heads: Vec<Heads>) -> Result<(), WriteError> {
        let staged: Result<_, WriteFailure> = self.stage_own(entry, heads);
        let receipt = staged?;
        assert_eq!(
            receipt.entry, entry.id,
            "the signed entry is the staged one"
        );
        Ok(())
    }
}

impl Rewrite {
    fn takes(&self, op: &Op, parents: &BTreeSet<Parent>) -> bool {
        self.ops.len() < OPS_MAX
            && self.bytes + op.encoded_bytes_max() <= OPS_BYTES_MAX
            && !self.keys.contains(op.key())
            && self.parents.union(parents).count() <= PARENTS_MAX
    }

    fn add(&mut self, op: &Op, parents: BTreeSet<Parent>) {
        self.ops.push(op.clone());
        self.bytes += op.encoded_bytes_max();
        self.keys.insert(op.key().clone());
        self.parents.extend(parents);
    }
}

fn tip_of(entry: &VerifiedEntry) -> Tip {
    Tip {
        seq: entry.header.seq,
        id: entry.id,
        hlc: entry.header.hlc,
    }
}

fn parent_at(author: Author, tip: &Tip) -> Parent {
    Parent {
        hlc: tip.hlc,
        author,
        id: tip.id,
        seq: tip.seq,
    }
}
