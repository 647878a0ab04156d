//! Commands: requests to the writer, each with the channel for its reply.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    id::Author,
    log::{LogDamage, Pruning, merge::Span},
    protocol::{
        anchor::Anchor,
        entry::VerifiedEntry,
        frontier::{Frontier, FrontierTip},
        intake::Bases,
    },
    state::{self, Base, StateError, View},
    store::{
        IngestError, Ingested, PruneError, RefusedEntry, Repaired, Write, WriteError, Written,
        writer::{
            install::{InstallError, InstallTerms},
            known_acts::Grounds,
            status::WriterStatus,
        },
    },
};

/// Outcome of one write; `None`: there was nothing to delete, and nothing was written.
pub(in crate::store) type Outcome = Result<Option<Written>, WriteError>;

/// A request to the writer, besides writes. If the caller has gone away, its reply is dropped.
#[derive(Debug)]
pub(in crate::store) enum Command {
    /// Take in entries from elsewhere.
    Ingest(
        Vec<Result<VerifiedEntry, RefusedEntry>>,
        oneshot::Sender<Result<Vec<Ingested>, IngestError>>,
    ),
    /// Build the state again: a reader found it damaged at this version. Nothing is done if it was
    /// built again since.
    Rebuild {
        version: u64,
        reply: oneshot::Sender<Result<(), StateError>>,
    },
    /// The members have changed: count again, and offer strangers' entries again.
    Reconsider(oneshot::Sender<()>),
    /// A sync has ended: offer pending entries again without parents that do not count.
    Settle(oneshot::Sender<()>),
    /// Go on with this walk through entries that wait. The reply says whether it is done.
    Bases(Box<Bases>, oneshot::Sender<(Box<Bases>, bool)>),
    /// A reader met this damage of a log.
    Damaged(Vec<LogDamage>),
    /// Return the newest view, and the whole logs at the same moment.
    Moment(oneshot::Sender<(Arc<View>, Vec<Span>, state::Bases)>),
    /// List the last entry of each hole in the logs.
    Missing(oneshot::Sender<Vec<(Author, FrontierTip)>>),
    /// Return the acts that the members follow from.
    Grounds(oneshot::Sender<Grounds>),
    /// Report the status.
    Status(oneshot::Sender<WriterStatus>),
    /// Make this base the newest one.
    TakeBase(Box<Base>, oneshot::Sender<Result<(), PruneError>>),
    /// Make this base the older one, from which the past is read.
    TakeBeginning(Box<Base>, oneshot::Sender<Result<(), PruneError>>),
    /// Return whether the state file has everything at and before these places, and see to it.
    FlushThrough(Frontier, oneshot::Sender<Result<bool, PruneError>>),
    /// Remove entries at and before these places from the logs. The newest base has their rows.
    Prune(Frontier, oneshot::Sender<Result<Pruning, PruneError>>),
    /// Check that a base with these anchors could be installed.
    CheckInstall(
        Vec<(Author, Anchor)>,
        InstallTerms,
        oneshot::Sender<Result<(), InstallError>>,
    ),
    /// Install this base of a peer.
    Install(
        Box<Base>,
        InstallTerms,
        oneshot::Sender<Result<(), InstallError>>,
    ),
    /// Give up lost own entries and close an own fork.
    Repair(oneshot::Sender<Result<Repaired, WriteError>>),
    /// Write everything to the disk and end.
    Close(oneshot::Sender<Result<(), WriteError>>),
}

/// Writes that came together, and where their outcomes go.
#[derive(Debug)]
pub(in crate::store) enum Writes {
    /// One write, which the handle has checked.
    One(Write, oneshot::Sender<Outcome>),
    /// One write under the node's own prefixes.
    Own(Write, oneshot::Sender<Outcome>),
    /// Independent writes.
    Many(Vec<Write>, oneshot::Sender<Vec<Outcome>>),
}

impl Writes {
    /// Returns about how many bytes their ops have.
    pub(in crate::store) fn bytes(&self) -> usize {
        match self {
            Self::One(write, _) | Self::Own(write, _) => write.bytes(),
            Self::Many(writes, _) => writes.iter().map(Write::bytes).sum(),
        }
    }
}
