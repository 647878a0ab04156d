//! Why history could not be ended.

use crate::{
    id::Author,
    node::MeshError,
    protocol::{
        anchors_act::AnchorsActError,
        finality::{AckMissing, NotYet},
        membership::role::Role,
    },
    store::{PruneError, ReadError, WriteError, consumers::ConsumerError},
};

/// Why entries were not made final, or not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// Members and stores follow from the acts in the root store.
    #[error("the root store keeps all its entries: members and stores follow from them")]
    Root,
    /// The store is not shared with the mesh, so no act is about it.
    #[error("the store is this node's own and not shared with the mesh")]
    Private,
    /// Only an admin makes entries final.
    #[error(
        "this node is {}; only an admin may make entries final", role.map_or("not a member".to_owned(), |role| format!("a {role}"))
    )]
    NotAdmin {
        /// Role of this node; `None` if it is not a member.
        role: Option<Role>,
    },
    /// No acks are known of members that are waited for.
    #[error(transparent)]
    AckMissing(#[from] AckMissing),
    /// No anchors act that counts names a base, so nothing may be removed.
    #[error("no entries of the store are final yet")]
    NothingFinal,
    /// Some author has several final branches, of which no base can be made yet.
    #[error(
        "node {} has forked its log, and both branches are final: this version cannot remove entries of \
         such a store yet",
        author.short()
    )]
    Branches {
        /// The author.
        author: Author,
    },
    /// The removal would change answers of this node, or might.
    #[error("final entries cannot be removed yet: {}", list(.0))]
    NotYet(Vec<NotYet>),
    /// The act would be too large.
    #[error(transparent)]
    Act(#[from] AnchorsActError),
    /// The logs or the state could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The act could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The base could not be made, or the logs not be cut.
    #[error(transparent)]
    Prune(#[from] PruneError),
    /// It could not be found out which history consumers hold.
    #[error(transparent)]
    Consumer(#[from] ConsumerError),
    /// A member could not be marked as dormant, or as active.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// A task of the node has panicked.
    #[error("a task of the node has panicked")]
    Panicked,
}

fn list(reasons: &[NotYet]) -> String {
    let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    reasons.join("; ")
}
