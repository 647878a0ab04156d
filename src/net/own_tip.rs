//! The own-tip check: before its first write after a start, a node fetches the entries of its own
//! log that its peers have.
//!
//! A data directory that was restored from a backup, or copied, misses the entries that were
//! written with its key since. Its next entry would take a seq that is taken: a fork. If no peer is
//! within reach, nothing is known about such entries, and writes begin.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    id::Author,
    limits::{OWN_TIP_STILL, OWN_TIP_WAIT, OWN_TIP_WAIT_MAX},
    net::{mesh::Mesh, peer::Compared},
};

/// Returns when own writes need not wait any longer for the entries of this node that peers have.
///
/// If a store of this node could not be read during a comparison, that is logged as an error:
/// entries that peers have may be missing here.
pub(super) async fn compare(mesh: &Mesh) {
    let began = Instant::now();
    let awaited = awaited(mesh).await;
    let mut progress = Progress::new(began);
    while is_waiting(mesh, &awaited, began.elapsed(), &mut progress) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let count = |what| awaited.iter().filter(is(mesh, what)).count();
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

/// Returns when stores that were restored from a snapshot take own writes again: once a member has given
/// back what it has of this node's logs. At once if no store was restored.
pub(super) async fn release_restored(mesh: &Mesh) {
    let mut restored = Vec::new();
    for store in mesh.node.shared_stores() {
        if store.status().await.restored {
            restored.push(store);
        }
    }
    if restored.is_empty() {
        return;
    }
    loop {
        let members = mesh.node.members();
        let mut others = members.others(mesh.node.id());
        if others.any(|other| is(mesh, Compared::Done)(&&other)) {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    for store in restored {
        if let Err(error) = store.own_log_is_back().await {
            tracing::error!(store = %store.id(), %error, "own writes are still refused");
        }
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

// True while own writes wait. For OWN_TIP_WAIT they wait for all peers; after that, up to
// OWN_TIP_WAIT_MAX, only until the first connected peer is done, which may have much to give back,
// and only as long as entries come.
fn is_waiting(mesh: &Mesh, awaited: &[Author], waited: Duration, progress: &mut Progress) -> bool {
    let mut open = awaited.iter().filter(is(mesh, Compared::NotYet));
    if waited < OWN_TIP_WAIT {
        return open.next().is_some();
    }
    let done = awaited.iter().any(|node| is(mesh, Compared::Done)(&node));
    !done
        && waited < OWN_TIP_WAIT_MAX
        && open.any(|node| mesh.peers.is_connected(node))
        && progress.still_for(mesh) < OWN_TIP_STILL
}

/// The time at which the last entry came. A member that never ends its session, and sends nothing, is
/// not waited for.
struct Progress {
    // Sum of all places in all logs, when `since` was set.
    places: u64,
    since: Instant,
    looked: Instant,
}

impl Progress {
    fn new(began: Instant) -> Self {
        Self {
            places: 0,
            since: began + OWN_TIP_WAIT,
            looked: began,
        }
    }

    // Returns for how long no entry has come.
    fn still_for(&mut self, mesh: &Mesh) -> Duration {
        if self.looked.elapsed() >= PROGRESS_EVERY {
            self.looked = Instant::now();
            let stores = mesh.node.shared_stores();
            let tips = stores.iter().map(|store| {
                let frontier = store.frontier();
                let seqs = frontier.iter().map(|(_, tip)| tip.seq);
                seqs.fold(0, u64::wrapping_add)
            });
            let places = tips.fold(0, u64::wrapping_add);
            if places != self.places {
                (self.places, self.since) = (places, Instant::now());
            }
        }
        self.since.elapsed()
    }
}

fn is(mesh: &Mesh, what: Compared) -> impl Fn(&&Author) -> bool {
    move |node| mesh.peers.compared(node) == what
}

// Time between two looks whether entries have come.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_millis(10);
