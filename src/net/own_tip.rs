//! The own-tip check: before its first write after a start, a node fetches what its peers have of its
//! own log.
//!
//! A directory that was restored from a backup, or copied, does not know what was written with its
//! key since. Its next entry would take a place that is taken: a fork. Nobody within reach: nothing
//! is known of such entries, and writes go on.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    id::Author,
    limits::{OWN_TIP_WAIT, OWN_TIP_WAIT_MAX},
    net::{mesh::Mesh, peer_table::Compared},
};

/// Returns when own writes need not wait any longer for what peers have of this node's own logs.
///
/// An own log that could not be read meanwhile is logged as an error: what a peer has of it may be
/// missing here.
pub(super) async fn compare(mesh: &Mesh) {
    let began = Instant::now();
    let awaited = awaited(mesh).await;
    while is_waiting(mesh, &awaited, began.elapsed()) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let count = |what| awaited.iter().filter(with(mesh, what)).count();
    let (done, unreadable) = (count(Compared::Done), count(Compared::Unreadable));
    let (of, waited) = (awaited.len(), began.elapsed());
    if unreadable > 0 {
        tracing::error!(
            done,
            unreadable,
            of,
            ?waited,
            "own writes begin although an own store could not be read while it was compared with \
             peers: they may fork from what peers have"
        );
    } else {
        tracing::debug!(done, of, ?waited, "own writes begin");
    }
}

// Members that are not known to be away for long. One whose status cannot be read is waited for.
async fn awaited(mesh: &Mesh) -> Vec<Author> {
    let node = &mesh.node;
    let mut awaited = Vec::new();
    for other in node.members().others(node.id()) {
        match node.is_dormant(&other).await {
            Ok(true) => {}
            Ok(false) => awaited.push(other),
            Err(error) => {
                tracing::error!(node = %other, %error, "the status of a member cannot be read");
                awaited.push(other);
            }
        }
    }
    awaited
}

// For a while for everybody; then only for the first of those who are there: it may have much to
// give back. An honest one is not kept waiting by another for longer than that while.
fn is_waiting(mesh: &Mesh, awaited: &[Author], waited: Duration) -> bool {
    let mut open = awaited.iter().filter(with(mesh, Compared::NotYet));
    if waited < OWN_TIP_WAIT {
        return open.next().is_some();
    }
    let done = awaited.iter().any(|node| with(mesh, Compared::Done)(&node));
    !done && waited < OWN_TIP_WAIT_MAX && open.any(|node| mesh.peers.is_connected(node))
}

fn with(mesh: &Mesh, what: Compared) -> impl Fn(&&Author) -> bool {
    move |node| mesh.peers.compared(node) == what
}

const LOOK_EVERY: Duration = Duration::from_millis(10);
