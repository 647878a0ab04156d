//! Lineage: an author's branches, which of them has an entry, and which one each of them left.
//!
//! A place (seq and id) names an entry and not the branch that has it. All places of one question
//! are looked up together: each branch is read once, at the places asked for. So a question about
//! all tips of an author takes time linear in its branches.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use crate::{
    id::{EntryId, Seq},
    limits::PLACES_KEPT_MAX,
    log::{Begin, Branch, LogDamage, LogError},
    protocol::frontier::FrontierTip,
};

/// The branches of one author, as they were when a branch was last added, removed or cut. The
/// writer makes a new lineage after each of these; tips that move forward change nothing here.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    /// By number.
    pub(super) branches: Vec<Arc<Branch>>,
    // Set once every branch was found that another one left.
    parents: OnceLock<Vec<Option<usize>>>,
    // Indices of branches by places on them, at most `PLACES_KEPT_MAX`: those that were asked for
    // last. Held for a look or an insertion; no file is read under it.
    kept: Mutex<HashMap<FrontierTip, usize>>,
    // Ids by branch and seq, at most `PLACES_KEPT_MAX`: those that were read last. So a place that no
    // branch has is not looked for again in the files. Held as `kept` is.
    ids: Mutex<HashMap<(usize, Seq), EntryId>>,
}

/// The branch that has a place.
#[derive(Debug, Clone, Default)]
pub(super) enum On {
    /// This one, as an index into the branches.
    Branch(usize),
    /// None of them.
    #[default]
    None,
    /// None of them, as far as they can be read. These have an unreadable frame there.
    Unreadable {
        branches: Vec<usize>,
        damage: LogDamage,
    },
}

/// The branches that have some places.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<FrontierTip, On>);

impl Places {
    /// Returns the branch that has `place`, one of those that were looked up.
    ///
    /// # Errors
    /// `Damaged` when no branch has it and one has an unreadable frame there.
    pub(super) fn get(&self, place: FrontierTip) -> Result<Option<usize>, LogError> {
        match self.0.get(&place) {
            Some(On::Branch(index)) => Ok(Some(*index)),
            Some(On::Unreadable { damage, .. }) => Err(LogError::Damaged(damage.clone())),
            Some(On::None) | None => Ok(None),
        }
    }
}

impl Lineage {
    pub(super) fn new(branches: Vec<Arc<Branch>>) -> Self {
        Self {
            branches,
            ..Self::default()
        }
    }

    /// Returns where the author's logs begin, if entries were removed from them: every other branch
    /// left this one at the anchor or later.
    pub(super) fn begin(&self) -> Option<Begin> {
        self.branches.iter().find_map(|branch| branch.begin)
    }

    /// Finds the branches that have `places`. Reads each branch at most once.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn find(
        &self,
        places: impl IntoIterator<Item = FrontierTip>,
    ) -> Result<Places, LogError> {
        let mut found = BTreeMap::new();
        let mut open = BTreeSet::new();
        {
            let kept = self.kept();
            for place in places {
                let on = kept
                    .get(&place)
                    .map_or(On::None, |index| On::Branch(*index));
                if matches!(on, On::None) {
                    open.insert(place);
                }
                found.insert(place, on);
            }
        }
        if open.is_empty() {
            return Ok(Places(found));
        }
        // The newest entry of each branch is in memory.
        let mut unknown = open.clone();
        for (index, branch) in self.branches.iter().enumerate() {
            if let Some(tip) = branch.tip().map(FrontierTip::from)
                && unknown.remove(&tip)
            {
                found.insert(tip, On::Branch(index));
            }
            // So is the entry at which it begins, whose record is gone.
            if let Some(begin) = branch.begin
                && unknown.remove(&begin.anchor.tip())
            {
                found.insert(begin.anchor.tip(), On::Branch(index));
            }
        }
        self.read(&unknown, &mut found)?;
        let mut kept = self.kept();
        for place in open {
            if let Some(On::Branch(index)) = found.get(&place) {
                if kept.len() >= PLACES_KEPT_MAX {
                    kept.clear();
                }
                kept.insert(place, *index);
            }
        }
        drop(kept);
        Ok(Places(found))
    }

    // Reads all branches at `open` places, and adds to `found` what they have there.
    fn read(
        &self,
        open: &BTreeSet<FrontierTip>,
        found: &mut BTreeMap<FrontierTip, On>,
    ) -> Result<(), LogError> {
        if open.is_empty() {
            return Ok(());
        }
        let mut seqs: BTreeMap<Seq, Vec<EntryId>> = BTreeMap::new();
        for place in open {
            seqs.entry(place.seq).or_default().push(place.id);
        }
        let mut unreadable: BTreeMap<Seq, (Vec<usize>, LogDamage)> = BTreeMap::new();
        for (index, branch) in self.branches.iter().enumerate() {
            let Some(tip) = branch.tip().filter(|tip| tip.seq >= branch.first_here()) else {
                continue;
            };
            let asked = seqs.range(branch.first_here()..=tip.seq);
            let (mut here, unread) = self.known(index, asked.map(|(seq, _)| *seq));
            let known = here.len();
            let mut headers = branch.headers();
            for seq in unread {
                match headers.at(seq) {
                    Ok(record) => here.extend(record.map(|record| FrontierTip {
                        seq,
                        id: record.header.id,
                    })),
                    Err(LogError::Damaged(damage)) => {
                        let (branches, _) = unreadable
                            .entry(seq)
                            .or_insert_with(|| (Vec::new(), damage));
                        branches.push(index);
                    }
                    Err(error) => return Err(error),
                }
            }
            self.remember(index, &here[known..]);
            for place in here {
                if let Some(on) = found.get_mut(&place) {
                    *on = On::Branch(index);
                }
            }
        }
        for (seq, (branches, damage)) in unreadable {
            for id in seqs.get(&seq).into_iter().flatten() {
                let on = found.get_mut(&FrontierTip { seq, id: *id });
                if let Some(on) = on.filter(|on| matches!(on, On::None)) {
                    *on = On::Unreadable {
                        branches: branches.clone(),
                        damage: damage.clone(),
                    };
                }
            }
        }
        Ok(())
    }

    /// Returns the branch that each branch left, as an index; `None` for one that left none, or that
    /// left an entry that is not here: its file may have lost its end.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn parents(&self) -> Result<Parents<'_>, LogError> {
        if let Some(parents) = self.parents.get() {
            return Ok(Parents::Known(parents));
        }
        let left = self.branches.iter().map(|branch| branch.left());
        let left: Vec<_> = left.collect();
        let places = self.find(left.iter().flatten().copied())?;
        let on = |left: &Option<FrontierTip>| {
            left.map(|place| places.0.get(&place).cloned().unwrap_or_default())
        };
        let found: Vec<Option<On>> = left.iter().map(on).collect();
        let is_settled = |on: &Option<On>| on.as_ref().is_none_or(|on| matches!(on, On::Branch(_)));
        if !found.iter().all(is_settled) {
            return Ok(Parents::Open(found));
        }
        let parents = found.into_iter().map(|on| match on {
            Some(On::Branch(index)) => Some(index),
            Some(On::None | On::Unreadable { .. }) | None => None,
        });
        Ok(Parents::Known(
            self.parents.get_or_init(|| parents.collect()),
        ))
    }

    /// Returns true only if it is remembered of all `places` that a branch has them. An entry may cite
    /// a thousand places that were asked for before.
    pub(super) fn are_kept(&self, places: &[FrontierTip]) -> bool {
        let kept = self.kept();
        places.iter().all(|place| kept.contains_key(place))
    }

    // Returns what is remembered of a branch at `seqs`, and the seqs of which nothing is.
    fn known(&self, index: usize, seqs: impl Iterator<Item = Seq>) -> (Vec<FrontierTip>, Vec<Seq>) {
        let (mut known, mut unread) = (Vec::new(), Vec::new());
        let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        for seq in seqs {
            match ids.get(&(index, seq)) {
                Some(id) => known.push(FrontierTip { seq, id: *id }),
                None => unread.push(seq),
            }
        }
        (known, unread)
    }

    fn remember(&self, index: usize, places: &[FrontierTip]) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len().saturating_add(places.len()) > PLACES_KEPT_MAX {
            ids.clear();
        }
        let places = places.iter().take(PLACES_KEPT_MAX);
        ids.extend(places.map(|place| ((index, place.seq), place.id)));
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<FrontierTip, usize>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The branch that each branch of an author left.
#[derive(Debug)]
pub(super) enum Parents<'a> {
    /// All of them were found.
    Known(&'a [Option<usize>]),
    /// Some were not. `None` for a branch that left none.
    Open(Vec<Option<On>>),
}

impl Parents<'_> {
    /// Returns the branch that the branch with `index` left.
    ///
    /// If one branch alone could have the entry that was left, and has an unreadable frame there, it
    /// is that branch: the entry was here.
    ///
    /// # Errors
    /// `Damaged` when several could have it.
    pub(super) fn of(&self, index: usize) -> Result<Option<usize>, LogError> {
        let on = match self {
            Self::Known(parents) => return Ok(parents.get(index).copied().flatten()),
            Self::Open(found) => found.get(index).and_then(Option::as_ref),
        };
        match on {
            Some(On::Branch(index)) => Ok(Some(*index)),
            Some(On::Unreadable { branches, damage }) => match branches.as_slice() {
                [only] => Ok(Some(*only)),
                _several => Err(LogError::Damaged(damage.clone())),
            },
            Some(On::None) | None => Ok(None),
        }
    }
}
