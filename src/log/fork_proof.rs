//! Fork proof: the authors with too many forks above their anchors, and the entries that show it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    id::{Author, Seq},
    limits::FORKS_MAX,
    log::{Branch, LogError, LogReader},
    protocol::{
        finality::{Chains, Fate, Finality},
        frontier::FrontierTip,
        membership::spent::is_spent,
    },
};

impl LogReader {
    /// Returns the authors with more than `FORKS_MAX` forks above the anchors of `finality`. `chains`: these
    /// logs.
    ///
    /// # Errors
    /// That of `chains`.
    pub fn spent<C>(&self, finality: &Finality, chains: &C) -> Result<BTreeSet<Author>, LogError>
    where
        C: Chains<Error = LogError>,
    {
        let mut spent = BTreeSet::new();
        for (author, _lineage) in self.lineages() {
            if self.has_spent(&author, finality, chains)? {
                spent.insert(author);
            }
        }
        Ok(spent)
    }

    /// Returns whether `author` is one of these.
    ///
    /// # Errors
    /// That of `chains`.
    pub fn has_spent<C>(
        &self,
        author: &Author,
        finality: &Finality,
        chains: &C,
    ) -> Result<bool, LogError>
    where
        C: Chains<Error = LogError>,
    {
        let lineage = self.lineage(author);
        let branches = &lineage.branches;
        if !may_be_spent(branches.len()) {
            return Ok(false);
        }
        let tips = branches.iter().filter_map(|branch| branch.tip());
        let tips: Vec<_> = tips.map(FrontierTip::from).collect();
        // Branches without an entry: they have lost their end, and were no void ones as far as is known.
        let lost = branches.len() - tips.len();
        let forks = finality.forks(author, &tips, chains)?;
        Ok(is_spent(forks.saturating_add(lost)))
    }

    /// Returns the tips of the part of an author's log that shows its forks above its anchors: of each
    /// branch its first entry, and the one beside it on the branch that it left; with what vouches for them.
    ///
    /// Reads a few frames of each branch. Branches that are void, or that damage hides, are left out.
    ///
    /// # Errors
    /// That of `chains`; `Io`.
    pub fn fork_proof<C>(
        &self,
        author: &Author,
        finality: &Finality,
        chains: &C,
    ) -> Result<Vec<FrontierTip>, LogError>
    where
        C: Chains<Error = LogError>,
    {
        let lineage = self.lineage(author);
        let parents = lineage.parents()?;
        // The last entry of each branch that is needed, by index.
        let mut needed: BTreeMap<usize, Seq> = BTreeMap::new();
        for (index, branch) in lineage.branches.iter().enumerate() {
            let Some(first) = place_on(branch, branch.first)? else {
                continue;
            };
            // A branch that left the others below an anchor is void, or final up to that anchor.
            let fate = finality.fate(author, first, Some(first), chains)?;
            if fate != Fate::Open {
                continue;
            }
            let left = match parents.of(index) {
                Err(LogError::Damaged(_)) => None,
                parent => parent?,
            };
            for index in [Some(index), left].into_iter().flatten() {
                let seq = needed.entry(index).or_default();
                *seq = branch.first.max(*seq);
            }
        }
        let mut proof = Vec::new();
        for (index, seq) in needed {
            proof.extend(self.voucher_from(&lineage.branches[index], seq)?);
        }
        Ok(proof)
    }

    // Returns the first entry of a branch, at `seq` or after it, that verifies by itself.
    fn voucher_from(
        &self,
        branch: &Arc<Branch>,
        seq: Seq,
    ) -> Result<Option<FrontierTip>, LogError> {
        let through = branch.tip().map_or(0, |tip| tip.seq);
        for seq in seq..=through {
            let Some(place) = place_on(branch, seq)? else {
                continue;
            };
            match self.verifies(&branch.author, place) {
                Ok(Some((true, _prev))) => return Ok(Some(place)),
                Ok(_) | Err(LogError::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// Returns whether an author with this number of branches may have too many forks.
pub(crate) fn may_be_spent(branches: usize) -> bool {
    branches > FORKS_MAX + 1
}

// Returns the entry of a branch at `seq`; `None` when it is not here, or unreadable.
fn place_on(branch: &Arc<Branch>, seq: Seq) -> Result<Option<FrontierTip>, LogError> {
    match branch.header(seq) {
        Ok(record) => Ok(record.map(|record| FrontierTip {
            seq,
            id: record.header.id,
        })),
        Err(LogError::Damaged(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
