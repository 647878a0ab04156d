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
    net::{Mesh, Net},
    node::Node,
    store::Store,
};

/// What came of the first sync with a peer since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Compared {
    /// It is not over.
    #[default]
    NotYet,
    /// It did not come to a good end.
    Failed,
    /// What the peer has of all stores is here.
    Done,
}

/// Lets own writes wait until the peers that can be reached have said what they have.
pub(super) fn check(net: &Net) {
    let node = net.0.node.clone();
    if others(&node).is_empty() {
        return;
    }
    let stores = node.open_stores();
    let holds: Vec<_> = stores.iter().map(Store::pause_writes).collect();
    let (net, running) = (net.clone(), net.running());
    let stop = running.stop.clone();
    running.tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = compared(&net, &node) => {}
        }
        drop(holds);
    });
}

// Returns when there is nothing more to wait for.
async fn compared(net: &Net, node: &Node) {
    let began = Instant::now();
    // Said by who binds it.
    let Ok(mesh) = net.mesh().await else { return };
    let mut awaited = Vec::new();
    for other in others(node) {
        if !node.is_dormant(&other).await.unwrap_or_default() {
            awaited.push(other);
        }
    }
    while is_waiting(&mesh, &awaited, began.elapsed()) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let done = awaited
        .iter()
        .filter(|it| mesh.peers.compared(it) == Compared::Done);
    let (done, of) = (done.count(), awaited.len());
    tracing::debug!(done, of, waited = ?began.elapsed(), "own writes begin");
}

// For a while for everybody; then only for the first of those who are there: it may have much to
// give back. An honest one is not kept waiting by another for longer than that while.
fn is_waiting(mesh: &Mesh, awaited: &[Author], waited: Duration) -> bool {
    let with = |what| move |node: &&Author| mesh.peers.compared(node) == what;
    let mut open = awaited.iter().filter(with(Compared::NotYet));
    if waited < OWN_TIP_WAIT {
        return open.next().is_some();
    }
    let done = awaited.iter().any(|node| with(Compared::Done)(&node));
    !done && waited < OWN_TIP_WAIT_MAX && open.any(|node| mesh.peers.is_connected(node))
}

fn others(node: &Node) -> Vec<Author> {
    let (own, members) = (node.id(), node.members());
    let current = members.iter().map(|(author, _)| *author);
    current
        .filter(|author| *author != own && members.role(author).is_some())
        .collect()
}

const LOOK_EVERY: Duration = Duration::from_millis(10);
