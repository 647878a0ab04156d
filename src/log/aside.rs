//! The end of a pruning that found void branches: their files are set aside.
//!
//! ```text
//! list of them durable -> `begins` replaced -> files set aside -> state file built again -> list removed
//!                         commit point         by the next opening, if this one does not get there
//! ```
//! No branch is begun before the list is gone: the name of a file that was set aside is used again.

use std::path::Path;

use crate::{
    disk::Disk,
    log::{Begins, LogError, Logs, PrunePlan, void::Voids},
};

impl Logs {
    /// Sets the files of the void branches of `plan` aside. Durable on return. Whoever reads one of them
    /// goes on.
    ///
    /// # Errors
    /// `Io`, `NoDescriptor`: no branch may be begun before the logs are opened again, which ends this.
    pub fn set_voids_aside(&self, plan: &PrunePlan) -> Result<(), LogError> {
        plan.voids.set_aside(self.disk.as_ref(), &self.dir)
    }

    /// Removes the list of void branches, once no state file has their ends. Durable on return.
    ///
    /// # Errors
    /// `Io`, `NoDescriptor`: no branch may be begun before the logs are opened again, which ends this.
    pub fn forget_voids(&self, plan: &PrunePlan) -> Result<(), LogError> {
        Voids::remove_of_prune(self.disk.as_ref(), &self.dir, &plan.begins.hash())
    }

    /// Ends a pruning that was interrupted after its commit point: sets the void branches aside that were
    /// listed for the beginnings in place. `discard` removes the state file, which has their ends; it is
    /// called before the list is removed. Called before the logs are opened.
    ///
    /// # Errors
    /// `Begins` when a list is damaged; `Io`, `NoDescriptor`; that of `discard`.
    pub fn finish_prune<E: From<LogError>>(
        disk: &dyn Disk,
        dir: &Path,
        discard: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let lists = Voids::lists_of_prunes(disk, dir)?;
        if lists.is_empty() {
            return Ok(());
        }
        let begins = Begins::read(disk, dir)?;
        if Voids::set_aside_of_prune(disk, dir, &begins.hash())? {
            discard()?;
        }
        Ok(Voids::remove_lists(disk, dir, &lists)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        disk::RealDisk,
        id::{Author, Seq},
        log::prune::tests::{after, frontier, open, place, two_logs, write},
        protocol::entry::tests::{AUTHOR_A, entry},
    };

    /// Any member could keep all history with one fork: a branch that left before the anchor made each
    /// pruning refuse.
    #[test]
    fn void_branches_are_set_aside_and_an_interrupted_pruning_is_ended() {
        for is_interrupted in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (mut logs, a, _b) = two_logs(dir.path());
            let author = a[0].author();
            // It ends after the anchor, and has a branch of its own there.
            let mut void = vec![entry(AUTHOR_A, 11, Some(a[9].id), 101, "/void")];
            for seq in 12..=24 {
                let before = void.last().unwrap().id;
                void.push(entry(AUTHOR_A, seq, Some(before), 10 * seq + 1, "/void"));
            }
            let of_void = entry(AUTHOR_A, 22, Some(void[10].id), 222, "/void");
            let on = entry(AUTHOR_A, 21, Some(a[19].id), 202, "/open");
            write(&mut logs, &void);
            write(&mut logs, &[of_void.clone(), on.clone()]);
            let voids = [place(&void[13]), place(&of_void)];
            let anchor = frontier(&[&a[19]]);
            let is_void = |_: &Author, tip| Ok(voids.contains(&tip));
            let plan = logs.plan_prune(&anchor, is_void).unwrap().unwrap();
            let (pruning, removed) = logs.prune(&plan).unwrap();
            removed.unwrap();
            assert_eq!((pruning.voids, pruning.branches), (2, 1));
            if !is_interrupted {
                logs.set_voids_aside(&plan).unwrap();
                logs.forget_voids(&plan).unwrap();
            }
            let all = frontier(&[&a[29], &on]);
            let mut expected: Vec<Seq> = (21..=30).chain([21]).collect();
            expected.sort_unstable();
            let read = |logs: &Logs| {
                let mut read = after(logs, &frontier(&[&a[19]]), &all).unwrap();
                read.sort_unstable();
                read
            };
            assert_eq!(read(&logs), expected);
            drop(logs);
            let mut discarded = 0;
            for _opened in 0..2 {
                let discard = || {
                    discarded += 1;
                    Ok::<_, LogError>(())
                };
                Logs::finish_prune(&RealDisk, dir.path(), discard).unwrap();
                let logs = open(dir.path());
                assert_eq!(logs.reader().of(&author).len(), 2);
                assert_eq!(read(&logs), expected);
            }
            assert_eq!(discarded, usize::from(is_interrupted));
            let names = RealDisk.list(dir.path()).unwrap().into_iter();
            let names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
            let count = |part: &str| names.iter().filter(|name| name.contains(part)).count();
            assert!(count(".aside-") >= 2, "{names:?}");
            assert_eq!(count("left-"), 0, "{names:?}");
        }
    }
}
