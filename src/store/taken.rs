//! Heads that acts took from the state, as readers of the past meet them: the past ends there, also where the
//! logs have more.

use crate::{
    id::{Author, Seq},
    log::Pruned,
    protocol::{finality::Ended, frontier::Frontier},
    state::View,
    store::ReadError,
};

/// Returns what acts took from `view`; `None` if they took nothing.
pub(super) fn taken(view: &View) -> Option<Pruned> {
    view.collections().ended().map(pruned)
}

/// Returns what acts took from `view`, if the entry of `author` at `seq` may be part of it.
pub(super) fn taken_at(view: &View, author: &Author, seq: Seq) -> Option<Pruned> {
    let collections = view.collections();
    let is_taken = seq <= collections.through(author);
    collections.ended().filter(|_| is_taken).map(pruned)
}

/// Checks that `view` and the logs have the state at `ms`, in ms since 1970.
///
/// # Errors
/// `Pruned`.
pub(super) fn check_reach(view: &View, ms: u64) -> Result<(), ReadError> {
    match taken(view).filter(|taken| ms < taken.reach_ms) {
        Some(taken) => Err(ReadError::Pruned(taken)),
        None => Ok(()),
    }
}

/// Checks that a watch can go on from the entries of `frontier`, and expiries through a time in ms since 1970,
/// by the logs: nothing that it has not seen was taken.
///
/// # Errors
/// `Pruned`.
pub(super) fn check_seen(
    view: &View,
    frontier: &Frontier,
    expired_through_ms: u64,
) -> Result<(), ReadError> {
    // Where the clock was set back, nobody has seen more than the view.
    let time_ms = match expired_through_ms >= view.expired_through_ms {
        true => u64::MAX,
        false => expired_through_ms,
    };
    let is_seen = view.collections().is_seen(frontier, time_ms);
    match taken(view).filter(|_| !is_seen) {
        Some(taken) => Err(ReadError::Pruned(taken)),
        None => Ok(()),
    }
}

fn pruned(ended: Ended) -> Pruned {
    let Ended {
        author,
        through,
        authors,
        reach_ms,
    } = ended;
    Pruned {
        author,
        through,
        authors,
        reach_ms,
        only_state: true,
    }
}
