//! The own-tip check: before its first write after a start, a node fetches the entries of its own
//! log that its peers have.
//!
//! A data directory that was restored from a backup, or copied, misses the entries that were
//! written with its key since. Its next entry would take a seq that is taken: a fork. If no peer is
//! within reach, nothing is known about such entries, and writes begin.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    id::{Author, StoreId},
    limits::{OWN_TIP_STILL, OWN_TIP_WAIT, OWN_TIP_WAIT_MAX},
    net::{mesh::Mesh, peer::Compared, peer_task, stores::open_listed},
    store::Store,
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

/// Returns when this node writes again after it was restored from a snapshot: once all its stores are in
/// step with a member, and no entry of its own waits for the clock. At once if it was not restored.
pub(super) async fn release_restored(mesh: &Arc<Mesh>) {
    let ids = || -> Vec<StoreId> { mesh.node.shared_stores().iter().map(Store::id).collect() };
    while mesh.node.is_restored() {
        let before = ids();
        let in_step = peer_task::in_step_with_one(mesh, OWN_TIP_WAIT_MAX).await;
        // The root store may list stores that are new here; they are synced next time.
        let is_listed = open_listed(mesh).await.is_ok() && ids() == before;
        let is_open = mesh.node.unopened().failed == 0;
        if !in_step || !is_listed || !is_open || holds_own(mesh).await {
            tokio::time::sleep(RELEASE_EVERY).await;
        } else if let Err(error) = mesh.node.own_log_is_back() {
            tracing::error!(%error, "own writes are still refused");
            tokio::time::sleep(OWN_TIP_WAIT_MAX).await;
        }
    }
}

// Whether an entry of this node waits for its clock, which is behind.
async fn holds_own(mesh: &Mesh) -> bool {
    let own = mesh.node.id();
    for store in mesh.node.shared_stores() {
        if store.status().await.held.iter().any(|it| it.author == own) {
            return true;
        }
    }
    false
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

fn is_waiting(mesh: &Mesh, awaited: &[Author], waited: Duration, progress: &mut Progress) -> bool {
    let open = || awaited.iter().filter(is(mesh, Compared::NotYet));
    let still = if waited < OWN_TIP_WAIT {
        Duration::ZERO
    } else {
        progress.still_for(mesh)
    };
    waits(&Comparison {
        waited,
        still,
        is_any_open: open().next().is_some(),
        is_any_connected: open().any(|node| mesh.peers.is_connected(node)),
        is_any_done: awaited.iter().any(|node| is(mesh, Compared::Done)(&node)),
    })
}

/// How far the comparison with the peers is.
#[derive(Debug, Clone, Copy)]
struct Comparison {
    /// Time since it began.
    waited: Duration,
    /// Time since an entry came.
    still: Duration,
    /// Whether a member that is waited for was not compared yet, and whether one of these is connected.
    is_any_open: bool,
    is_any_connected: bool,
    /// Whether a member was compared.
    is_any_done: bool,
}

// True while own writes wait. For OWN_TIP_WAIT they wait for all peers; after that, up to
// OWN_TIP_WAIT_MAX, only until the first connected peer is done, which may have much to give back,
// and only as long as entries come.
fn waits(at: &Comparison) -> bool {
    if at.waited < OWN_TIP_WAIT {
        return at.is_any_open;
    }
    !at.is_any_done
        && at.waited < OWN_TIP_WAIT_MAX
        && at.is_any_connected
        && at.still < OWN_TIP_STILL
}

/// The time at which the last entry, or something of a base, came. A member that never ends its session, and sends nothing, is
/// not waited for.
struct Progress {
    // Sum of all places in all logs, and of the bytes of bases that came, when `since` was set.
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
            // A base that comes brings entries all at once, at its end.
            let bases = stores.iter().filter_map(Store::base_progress);
            let come = bases.map(|base| base.bytes);
            let places = tips.chain(come).fold(0, u64::wrapping_add);
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
// Time between two syncs of a node that was restored and has met nobody, or has stores to open.
const RELEASE_EVERY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    // Returns for how long own writes wait. `step(waited)` is how the comparison stands then.
    fn waited(step: impl Fn(Duration) -> Comparison) -> Duration {
        let mut waited = Duration::ZERO;
        while waits(&step(waited)) {
            waited += LOOK_EVERY;
            assert!(waited <= 2 * OWN_TIP_WAIT_MAX, "it waits for ever");
        }
        waited
    }

    fn open(waited: Duration, still: Duration) -> Comparison {
        Comparison {
            waited,
            still,
            is_any_open: true,
            is_any_connected: true,
            is_any_done: false,
        }
    }

    // A hostile member sends an entry now and then and never ends its first session. Each start of a
    // node that meets nobody else is put off, by this much and not more.
    #[test]
    fn n7_member_that_sends_without_an_end_holds_own_writes_for_a_minute_at_most() {
        let drips = |waited| open(waited, OWN_TIP_STILL - LOOK_EVERY);
        assert_eq!(waited(drips), OWN_TIP_WAIT_MAX);
        // One honest member that was compared is enough.
        let beside_an_honest_one = |waited| Comparison {
            is_any_done: waited >= Duration::from_millis(200),
            ..drips(waited)
        };
        assert_eq!(waited(beside_an_honest_one), OWN_TIP_WAIT);
        let gone = |waited| Comparison {
            is_any_connected: false,
            ..drips(waited)
        };
        assert_eq!(waited(gone), OWN_TIP_WAIT);
    }

    #[test]
    fn n7_silent_member_holds_own_writes_for_seconds() {
        let silent = |waited: Duration| open(waited, waited.saturating_sub(OWN_TIP_WAIT));
        assert_eq!(waited(silent), OWN_TIP_WAIT + OWN_TIP_STILL);
    }

    #[test]
    fn own_writes_begin_when_all_members_were_compared() {
        let all = |waited| Comparison {
            is_any_open: waited < Duration::from_millis(300),
            is_any_done: true,
            ..open(waited, Duration::ZERO)
        };
        assert_eq!(waited(all), Duration::from_millis(300));
    }
}
