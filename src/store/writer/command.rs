//! Commands: what callers ask the writer to do, and where it replies.

use tokio::sync::oneshot;

use crate::{
    id::Author,
    log::LogDamage,
    protocol::{entry::VerifiedEntry, frontier::FrontierTip},
    state::StateError,
    store::{
        IngestError, Ingested, RefusedEntry, Repaired, Write, WriteError, Written,
        writer::{membership::Grounds, status::WriterStatus},
    },
};

/// What became of one write.
pub(in crate::store) type Outcome = Result<Written, WriteError>;

/// What the writer can be asked, besides writes. A reply channel that is closed means that the
/// caller has gone away; the reply is dropped then.
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
    /// Which of these tips are not here?
    Lacks(
        Vec<(Author, FrontierTip)>,
        oneshot::Sender<Result<Vec<(Author, FrontierTip)>, WriteError>>,
    ),
    /// A reader met this damage of a log.
    Damaged(Vec<LogDamage>),
    /// Which entries cannot be read any more? The last of each hole.
    Missing(oneshot::Sender<Vec<(Author, FrontierTip)>>),
    /// What do the members follow from?
    Grounds(oneshot::Sender<Grounds>),
    Status(oneshot::Sender<WriterStatus>),
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
