//! Runs: entries whose own signature is wrong, and the entry that vouches for them. They are staged
//! together, or not at all.
//!
//! The order in which entries come, and where a message ends, must not decide which entries count. An
//! entry that is stored without the one that vouches for it would be refused by the next node that
//! gets it.

use std::convert::Infallible;

use crate::{
    id::Author,
    protocol::{
        chain::{Tip, admit},
        entry::{Entry, Parent, VerifiedEntry},
        frontier::FrontierTip,
        intake::{Intake, Lookup, Refusal, Verdict, intake::settled},
        membership::Standing,
    },
};

impl Intake {
    /// Sets an entry aside of which its own signature is wrong, until one is offered that vouches for it
    /// and can be staged with it. A group never ends with such an entry at the end of a branch: another
    /// node that gets it without that one refuses it.
    pub fn set_aside(&mut self, entry: VerifiedEntry) {
        let author = entry.author();
        let dropped = self.unvouched.insert(entry, author).len();
        self.note_dropped(dropped);
    }

    // Returns the entries set aside that `entry` comes after, oldest first: a run of its author up to
    // an entry in the log.
    pub(super) fn run_before(&self, entry: &Entry) -> Vec<VerifiedEntry> {
        let mut run = Vec::new();
        let mut prev = entry.header.prev;
        while let Some(before) = prev.and_then(|prev| self.unvouched.get(&prev))
            && before.author() == entry.author()
        {
            prev = before.header.prev;
            run.push(before.clone());
        }
        run.reverse();
        run
    }

    // Decides about an entry that vouches for `run`: all of it can be staged in one group, or none.
    pub(super) fn offer_run<L: Lookup>(
        &mut self,
        mut run: Vec<VerifiedEntry>,
        entry: &VerifiedEntry,
        now_ms: u64,
        log: &L,
    ) -> Result<Verdict, L::Error> {
        if !entry.verifies() {
            self.set_aside(entry.clone());
            return Ok(Verdict::AwaitsVoucher);
        }
        let author = entry.author();
        let is_over = self.patience.is_over(&entry.id, now_ms);
        let mut before: Option<&VerifiedEntry> = None;
        if let Some(first) = run.first()
            && let Some(verdict @ Verdict::Refused(_)) = settled(first, log)?
        {
            return Ok(verdict);
        }
        for next in run.iter().chain([entry]) {
            if let Standing::Through(cut) = log.standing(&author)
                && !log.may_be_final(&author, next.header.seq)
            {
                let keeps = |author: &Author, entry, tip| log.keeps(author, entry, tip);
                if !cut.covers(&author, FrontierTip::of(next), keeps)? {
                    return Ok(Verdict::Refused(Refusal::Removed { author }));
                }
            }
            if let Some(due_ms) = self.due_ms(next).filter(|due_ms| *due_ms > now_ms) {
                let dropped = self.held.insert(entry.clone(), due_ms);
                self.note_dropped(dropped);
                return Ok(Verdict::AwaitsClock { due_ms });
            }
            // It would not be staged with the others. They are offered again after a sync.
            if log.is_hole(&author, next.header.seq)? {
                return Ok(self.wait_for(entry, next.id));
            }
            match before {
                None => match self.place(next, None, log)? {
                    Verdict::Append { .. } | Verdict::Begin { .. } => {}
                    // It is here already: what comes after it can stand on it.
                    Verdict::Duplicate => {}
                    Verdict::AwaitsEntry(missing) => return Ok(self.wait_for(entry, missing)),
                    verdict @ (Verdict::Repairs
                    | Verdict::AwaitsClock { .. }
                    | Verdict::AwaitsMember
                    | Verdict::AwaitsVoucher
                    | Verdict::Run(_)
                    | Verdict::Refused(_)) => return Ok(verdict),
                },
                Some(before) => {
                    let tip = Tip {
                        seq: before.header.seq,
                        id: before.id,
                        hlc: before.header.hlc,
                    };
                    let none = |_branch, _seq| Ok::<_, Infallible>(None);
                    let Ok(admission) = admit(&[tip], None, next, none);
                    if let Err(refused) = admission {
                        return Ok(Verdict::Refused(refused.into()));
                    }
                }
            }
            // Exactly as it is looked up once the run is staged: a reference that is false in author or
            // seq waits.
            let of_run = |parent: &Parent| {
                let place = (parent.author, parent.seq, parent.id);
                let mut run = run.iter();
                run.any(|entry| (entry.author(), entry.header.seq, entry.id) == place)
            };
            // In the log, not among the heads: an earlier entry of the run may supersede a head that
            // cannot be read.
            if let Err(missing) = self.absent_parents(next, &[], log, is_over, of_run)? {
                return Ok(self.wait_for_parent(entry, missing, now_ms));
            }
            before = Some(next);
        }
        for entry in &run {
            if is_over {
                // It is offered again in this group, and has waited as long as this entry.
                self.patience.end(entry.id);
            }
            self.unvouched.remove(&entry.id);
        }
        run.push(entry.clone());
        Ok(Verdict::Run(run))
    }
}
