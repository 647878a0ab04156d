//! This node's own log: whether it may be written to, and where it goes on.

use crate::{
    id::Seq,
    protocol::{
        chain::Tip, entry::VerifiedEntry, finality::Chains, fork::closing, frontier::FrontierTip,
        membership::Standing,
    },
    store::{
        WriteError,
        writer::{
            health::WriteFailure, repair::LostEntries, transaction::Transaction, writer::Writer,
        },
    },
};

impl Writer {
    /// Checks that this node may write: it is a member that may, its clock is not far ahead, its log
    /// is whole, and not forked.
    ///
    /// # Errors
    /// `NotAdmitted`, `Reader`, `Removed`, `KeySpent`; `FarAhead`; `OwnLogCut`; `OwnLogVoid`; `OwnFork`.
    pub(super) fn check_may_write(&self) -> Result<(), WriteError> {
        self.check_own_standing()?;
        self.check_clock()?;
        self.check_own_log()?;
        self.own_tip().map(drop)
    }

    /// Checks that this node is a member that may write.
    ///
    /// # Errors
    /// `NotAdmitted`, `Reader`, `Removed`, `KeySpent`.
    pub(super) fn check_own_standing(&self) -> Result<(), WriteError> {
        match self.membership.standing(&self.author()) {
            Standing::Counts => Ok(()),
            Standing::Unknown => Err(WriteError::NotAdmitted),
            Standing::Reader => Err(WriteError::Reader),
            Standing::Through(_) if self.membership.is_member(&self.author()) => {
                Err(WriteError::Reader)
            }
            Standing::Through(_) => Err(WriteError::Removed),
            Standing::Spent => Err(WriteError::KeySpent),
        }
    }

    /// Checks that the end of this node's own log is there.
    ///
    /// # Errors
    /// `OwnLogCut`.
    pub(super) fn check_own_log(&self) -> Result<(), WriteError> {
        self.cuts.first().map_or(Ok(()), |cut| {
            Err(WriteError::OwnLogCut {
                first: cut.first(),
                through: cut.through,
            })
        })
    }

    /// Returns the entries that are gone from the end of this node's own log.
    pub(super) fn lost(&self) -> Vec<LostEntries> {
        let cuts = self.cuts.iter();
        cuts.map(|cut| LostEntries {
            file: cut.file.clone(),
            first: cut.first(),
            through: cut.through,
        })
        .collect()
    }

    /// Returns the tip of this node's own log; `None` before the first entry.
    ///
    /// # Errors
    /// `OwnLogBehind` while it ends before an entry that is final, `OwnLogVoid` while one of the tips is
    /// void, `OwnFork` while several are open.
    pub(super) fn own_tip(&self) -> Result<Option<Tip>, WriteError> {
        let author = self.author();
        let tips = self.logs.tips(&author);
        let newest = tips.iter().map(|tip| tip.seq).max().unwrap_or(0);
        let finality = self.membership.finality();
        let awaited = finality.awaited().filter(|(by, _)| *by == author);
        if let Some(seq) = awaited
            .map(|(_, at)| at.seq)
            .max()
            .filter(|seq| newest < *seq)
        {
            return Err(WriteError::OwnLogBehind { seq });
        }
        if tips.len() < 2 {
            return Ok(tips.first().copied());
        }
        let open = self.open_tips(&author)?;
        for tip in &open {
            if let Some(seq) = self.void_since(FrontierTip::from(*tip))? {
                return Err(WriteError::OwnLogVoid { seq });
            }
        }
        if let [tip] = open.as_slice() {
            return Ok(Some(*tip));
        }
        let branches = self.logs.reader().of(&author);
        let forks = branches.iter().filter(|branch| branch.number > 0);
        let seq = forks.map(|branch| branch.first).min().unwrap_or(0);
        Err(WriteError::OwnFork { seq })
    }

    // Returns the first void entry on the own branch that ends in `tip`, if that one is void.
    fn void_since(&self, tip: FrontierTip) -> Result<Option<Seq>, WriteError> {
        let (author, log) = (self.author(), self.logs.reader());
        if !self.membership.is_void(&author, tip, log)? {
            return Ok(None);
        }
        // Everything after the place where it left the last anchors is.
        let mut left = 0;
        for anchor in self.membership.finality().last().tips(&author) {
            let common = log.meet(&author, *anchor, tip)?;
            left = left.max(common.map_or(0, |place| place.seq));
        }
        Ok(Some(left.saturating_add(1)))
    }
}

impl Transaction<'_> {
    /// Closes the fork of this node's own log: stages an entry without ops that cites all open tips
    /// but the one it follows. Returns that entry; `None` when there is no open fork.
    ///
    /// # Errors
    /// This node may not write; the log takes no entry.
    pub(super) fn close_own_fork(&mut self) -> Result<Option<VerifiedEntry>, WriteFailure> {
        let writer = self.writer();
        let author = writer.author();
        let open = writer.open_tips(&author)?;
        let Some((on, parents)) = closing(&author, &open) else {
            return Ok(None);
        };
        writer.check_own_standing()?;
        let entry = writer.sign(Some(on), parents, Vec::new(), false, None)?;
        let receipt = self.stage_own(&entry, Vec::new())?;
        assert_eq!(
            receipt.entry, entry.id,
            "the closing entry is the staged one"
        );
        Ok(Some(entry))
    }
}
