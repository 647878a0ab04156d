//! Repair: giving up what is lost of this node's own log, and closing its fork, so that it can write
//! again.

use std::fmt;

use tokio::sync::oneshot;

use crate::{
    bus::StateReset,
    id::{EntryId, Seq},
    protocol::fork::closed_by,
    store::{
        Store, WriteError,
        writer::{
            actor::{Actor, Command},
            group::GroupError,
            mend::Mending,
        },
    },
};

/// Entries of this node's own log that were given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostEntries {
    /// The log's file.
    pub file: String,
    /// The first of them.
    pub first: Seq,
    /// The last of them, inclusive.
    pub through: Seq,
}

impl LostEntries {
    /// Returns how many they are.
    pub fn count(&self) -> u64 {
        self.through - self.first + 1
    }
}

impl fmt::Display for LostEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            first,
            through,
        } = self;
        write!(f, "entries {first} to {through} of {file}")
    }
}

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Repaired {
    /// Entries of this node's own log that were given up.
    pub lost: Vec<LostEntries>,
    /// The fork of this node's own log that was closed.
    pub closed: Option<ClosedFork>,
}

/// The entry by which this node closed a fork of its own log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedFork {
    /// The entry. It has no ops.
    pub entry: EntryId,
    /// Its place.
    pub seq: Seq,
    /// The newest entries of the branches that end.
    pub tips: Vec<EntryId>,
}

impl Store {
    /// Makes this node able to write again after its own log was lost in part, or has forked; a
    /// store whose own log is whole is left as it is.
    ///
    /// Where the end of the log is gone, that is accepted: the log ends with the newest entry that
    /// is in its file, the state is built again from the logs alone, and own writes go on from
    /// there. Watches get a `Gap` and the state. Entries that others have of the lost ones make a
    /// fork together with what is written now: where another node or a copy of the file has them,
    /// take it back instead.
    ///
    /// Where the log has forked, an entry without ops names the newest entries of all its branches,
    /// and own writes go on after it; no value changes by that. When whoever else has the key writes
    /// on, the fork is open again.
    ///
    /// On return it is durable. Not cancel-safe: a dropped call may still repair.
    ///
    /// # Errors
    /// `WriteError` when files cannot be written; the loss is not accepted then, or accepted in
    /// part, and opening the store again says which. `Reader`, `Removed`, `NotAdmitted` when this
    /// node may not write anyway.
    pub async fn repair(&self) -> Result<Repaired, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Command::Repair(reply)).await?;
        answer.await.map_err(|_gone| WriteError::Closed)?
    }
}

impl Actor {
    /// Says that the end of this node's own log is gone, if so.
    pub(super) fn check_own_log(&self) -> Result<(), WriteError> {
        self.cuts.first().map_or(Ok(()), |cut| {
            Err(WriteError::OwnLogCut {
                first: cut.first(),
                through: cut.through,
            })
        })
    }

    /// Returns what is gone of the end of this node's own log.
    pub(super) fn lost(&self) -> Vec<LostEntries> {
        let cuts = self.cuts.iter();
        cuts.map(|cut| LostEntries {
            file: cut.file.clone(),
            first: cut.first(),
            through: cut.through,
        })
        .collect()
    }

    /// Gives up what is gone of this node's own log, then closes its fork.
    pub(super) fn repair(&mut self) -> Result<Repaired, WriteError> {
        self.check_writable()?;
        let lost = self.give_up()?;
        let closed = self.close_own_fork().and_then(|closed| {
            self.commit().map_err(GroupError::Refused)?;
            Ok(closed)
        });
        let closed = closed.map_err(|error| {
            self.roll_back();
            WriteError::from(error)
        })?;
        Ok(Repaired {
            lost,
            closed: closed.map(|entry| ClosedFork {
                entry: entry.id,
                seq: entry.header.seq,
                tips: closed_by(&entry).collect(),
            }),
        })
    }

    fn give_up(&mut self) -> Result<Vec<LostEntries>, WriteError> {
        // The logs first: until the state is a new one, their end is found gone again.
        for cut in &self.cuts {
            if let Err(error) = self.logs.give_up(cut) {
                let error = WriteError::from(error);
                self.poisoned = Some(error.to_string());
                return Err(error);
            }
            self.damage
                .retain(|damage| damage.file != cut.file || damage.offset < cut.end);
        }
        let lost = self.lost();
        if lost.is_empty() {
            return Ok(lost);
        }
        self.cuts.clear();
        // The places that were given up are taken in as any others from now on.
        self.mending = Mending::default();
        self.rebuild();
        if let Some(error) = &self.state_failed {
            return Err(error.clone().into());
        }
        for lost in &lost {
            let line = format!("gave up {lost}");
            tracing::warn!(store = %self.config.id, line);
            let reset = StateReset::Lost(line.as_str().into());
            self.bus.publish_reset(&reset, self.published());
            self.recovered.push(line);
        }
        Ok(lost)
    }
}
