//! A delivery: one change that was given to one taker, who must answer it.

use std::{sync::Arc, time::Duration};

use crate::{
    id::EntryId,
    protocol::{
        change::{Change, EntryRef, Kind, Origin},
        consumer::{ChangeRef, DeathReason, DeliveryId, Given},
        entry::Entry,
        heads::Heads,
    },
    state::View,
    store::{
        ReadError, Shared,
        consumers::{
            ConsumerError,
            live::{Live, Take},
        },
        taken::taken_at,
        watch::lookup::replayed,
    },
};

/// A change that no other taker has until it is answered or its `ack_wait` has passed.
///
/// Dropping it without an answer gives it back: it is delivered again after the usual pause.
#[derive(Debug)]
pub struct Delivery {
    change: Arc<Change>,
    claim: Claim,
}

/// The duty to answer a change, without the change itself, which may be large.
///
/// Dropping it without an answer gives the change back, as dropping the delivery does.
pub struct Claim {
    live: Arc<Live>,
    id: DeliveryId,
    // True when `drop` has nothing to give back.
    answered: bool,
}

impl Delivery {
    /// Returns the change. Its `heads` and `late` are as of this attempt; a change that was read again
    /// from the log has no `previous`. If its entry was removed from the log, and its value is still a
    /// head of its key or was one then, `prev`, `op_count`, `atomic` and `depth` are not known: it counts
    /// as the last op of an entry that no hook wrote.
    pub fn change(&self) -> &Arc<Change> {
        &self.change
    }

    /// Returns the id of this attempt, which `Consumer::ack` takes. Its `change` part is the same at
    /// every attempt and on every node: a key for idempotent work.
    pub fn id(&self) -> DeliveryId {
        self.claim.id
    }

    /// Returns the number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.claim.id.attempt
    }

    /// Acknowledges the change: it is finished and not delivered again.
    ///
    /// The acknowledgement is durable within `CONSUMERS_COMMIT_EVERY` and an fsync, or when
    /// `Consumer::flush` returns. If the node stops before, the change is delivered again.
    ///
    /// # Errors
    /// `Ack` when `ack_wait` had passed and another taker has the change; the reason if the consumer
    /// has ended.
    pub fn ack(mut self) -> Result<(), ConsumerError> {
        self.claim.answered = true;
        self.claim.live.ack(self.claim.id)
    }

    /// Gives the change back: it is delivered again after `delay`, or after the usual pause.
    ///
    /// # Errors
    /// Like `ack`.
    pub fn nack(mut self, delay: Option<Duration>) -> Result<(), ConsumerError> {
        self.claim.answered = true;
        self.claim.live.nack(self.claim.id, delay)
    }

    /// Makes the change a dead letter, because no taker can process it.
    ///
    /// # Errors
    /// Like `ack`; `Ack` with `DeadLettersFull`, after which the change is delivered again.
    pub fn term(mut self) -> Result<(), ConsumerError> {
        self.claim
            .live
            .term(self.claim.id, DeathReason::Terminated)?;
        self.claim.answered = true;
        Ok(())
    }

    /// Starts the `ack_wait` of this attempt again.
    ///
    /// # Errors
    /// Like `ack`.
    pub fn extend(&self) -> Result<(), ConsumerError> {
        self.claim.live.extend(self.claim.id, false)
    }

    /// Drops the delivery without giving the change back, and returns its id. A caller with the id
    /// may answer until `ack_wait` has passed, even after a restart of this node.
    ///
    /// # Errors
    /// Like `ack`.
    pub fn detach(mut self) -> Result<DeliveryId, ConsumerError> {
        self.claim.answered = true;
        self.claim.live.extend(self.claim.id, true)?;
        Ok(self.claim.id)
    }

    /// Drops the change, and keeps the duty to answer it.
    pub fn into_claim(self) -> Claim {
        self.claim
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.answered {
            // An error means that the delivery has timed out or the store is closed: nothing is
            // left to give back.
            self.live.nack(self.id, None).unwrap_or_default();
        }
    }
}

/// Waits for the next change of `live`.
pub(super) async fn next(live: &Arc<Live>) -> Result<Delivery, ConsumerError> {
    loop {
        let notified = live.takers.notified();
        tokio::pin!(notified);
        // A notification from here on is not missed.
        notified.as_mut().enable();
        match live.take(false)? {
            Take::Given(given, change) => {
                if let Some(delivery) = deliver(live, given, change).await? {
                    return Ok(delivery);
                }
            }
            Take::Wait(None) => notified.await,
            Take::Wait(Some(due_ms)) => {
                // The wall clock may jump, so each wait for it is short.
                let wait = due_ms
                    .saturating_sub(live.shared.now_ms())
                    .clamp(1, LOOK_AGAIN_MS);
                tokio::select! {
                    () = notified => {}
                    () = tokio::time::sleep(Duration::from_millis(wait)) => {}
                }
            }
        }
    }
}

/// Returns the next change of `live` if there is one now.
pub(super) async fn try_next(live: &Arc<Live>) -> Result<Option<Delivery>, ConsumerError> {
    while let Take::Given(given, change) = live.take(false)? {
        if let Some(delivery) = deliver(live, given, change).await? {
            return Ok(Some(delivery));
        }
    }
    Ok(None)
}

/// Removes from `claims` the claims that were answered by id or have timed out, and waits until
/// fewer than `max` are left.
pub(super) async fn fewer_claims(
    live: &Arc<Live>,
    claims: &mut Vec<Claim>,
    max: usize,
) -> Result<(), ConsumerError> {
    loop {
        let notified = live.takers.notified();
        tokio::pin!(notified);
        // A notification from here on is not missed.
        notified.as_mut().enable();
        {
            let now_ms = live.shared.now_ms();
            let mut state = live.lock();
            state.check_over()?;
            state.outstanding.tick(now_ms);
            claims.retain_mut(|claim| {
                claim.answered = !state.outstanding.is_taken(claim.id);
                !claim.answered
            });
        }
        if claims.len() < max {
            return Ok(());
        }
        tokio::select! {
            () = notified => {}
            () = tokio::time::sleep(Duration::from_millis(LOOK_AGAIN_MS)) => {}
        }
    }
}

// Returns the delivery of a change that was taken, read again if need be. `None`: neither the log nor
// the state has the change any more, and it is now a dead letter.
async fn deliver(
    live: &Arc<Live>,
    given: Given,
    change: Option<Arc<Change>>,
) -> Result<Option<Delivery>, ConsumerError> {
    let Given { id, change: at, .. } = given;
    let mut claim = Claim {
        live: Arc::clone(live),
        id,
        answered: false,
    };
    if let Some(change) = change {
        return Ok(Some(Delivery { change, claim }));
    }
    let shared = Arc::clone(&live.shared);
    let reading = live
        .shared
        .runtime
        .spawn_blocking(move || read_again(&shared, &at));
    match reading.await.map_err(|_stopped| ConsumerError::Closed)? {
        Ok(change) => {
            let change = Arc::new(change);
            Ok(Some(Delivery { change, claim }))
        }
        Err(error) => {
            let reason = match &error {
                ReadError::Damaged { .. } => DeathReason::Unreadable,
                ReadError::Pruned(_) => DeathReason::Pruned,
                _other => return Err(error.into()),
            };
            tracing::warn!(consumer = live.name, %error, "a change cannot be read again");
            live.term(id, reason)?;
            claim.answered = true;
            Ok(None)
        }
    }
}

// Reads a change again.
fn read_again(shared: &Shared, at: &ChangeRef) -> Result<Change, ReadError> {
    let view = shared.state.view();
    if let Some(gap) = &at.gap {
        return Ok(Change::of_gap(
            Arc::clone(gap),
            at.gap_number,
            at.entry,
            at.arrived_ms,
        ));
    }
    if matches!(at.kind, Kind::Put | Kind::Delete) {
        return read_op_again(shared, &view, at);
    }
    Ok(Change {
        key: at.key.clone(),
        kind: at.kind,
        value: None,
        expires_ms: at.expires_ms,
        entry: at.entry,
        prev: None,
        op_index: at.op_index,
        op_count: 1,
        atomic: false,
        depth: 0,
        heads: view.heads(&at.key)?,
        previous: None,
        origin: Origin::Replay,
        arrived_ms: at.arrived_ms,
        late: false,
        gap: None,
        gap_number: 0,
    })
}

// Reads a put or a delete again: from the log, or from the rows of its key.
fn read_op_again(shared: &Shared, view: &View, at: &ChangeRef) -> Result<Change, ReadError> {
    let EntryRef {
        author, seq, id, ..
    } = at.entry;
    let entry = shared.log.entry(&author, seq, &id)?;
    let index = |entry: &Entry| match at.is_initial() {
        // A live key does not say which op of its entry it comes from.
        true => entry.ops.iter().position(|op| *op.key() == at.key),
        false => Some(at.op_index as usize).filter(|index| *index < entry.ops.len()),
    };
    let op = entry.and_then(|(entry, record)| {
        let index = u32::try_from(index(&entry)?).ok()?;
        Some((entry, index, record.header.arrived_ms))
    });
    if let Some((entry, index, arrived_ms)) = op {
        let change = replayed(view, &entry, index, arrived_ms)?;
        return Ok(match at.is_initial() {
            true => of_state(change, at),
            false => change,
        });
    }
    let heads = view.heads(&at.key)?;
    let before = match shared.base.newest() {
        Some(base) => base.heads(&at.key)?,
        None => Heads::default(),
    };
    let rows = heads.as_slice().iter().chain(before.as_slice());
    let Some(head) = rows.into_iter().find(|head| head.id == id) else {
        let pruned = shared.log.pruned_at(&author, seq);
        let pruned = pruned.or_else(|| taken_at(view, &author, seq));
        return Err(pruned.map_or_else(|| missing(id), ReadError::Pruned));
    };
    let change = Change {
        key: at.key.clone(),
        kind: at.kind,
        value: shared.value(&at.key, head)?,
        expires_ms: at.expires_ms,
        entry: at.entry,
        prev: None,
        op_index: at.op_index,
        op_count: at.op_index.saturating_add(1),
        atomic: false,
        depth: 0,
        late: heads.winner().is_some_and(|winner| winner.id != id),
        heads,
        previous: None,
        origin: Origin::Replay,
        arrived_ms: at.arrived_ms,
        gap: None,
        gap_number: 0,
    };
    Ok(match at.is_initial() {
        true => of_state(change, at),
        false => change,
    })
}

// Returns a put as a live key of the state after a gap.
fn of_state(put: Change, at: &ChangeRef) -> Change {
    Change {
        prev: None,
        op_index: 0,
        op_count: 1,
        atomic: false,
        depth: 0,
        origin: Origin::Initial,
        arrived_ms: 0,
        gap_number: at.gap_number,
        ..put
    }
}

fn missing(entry: EntryId) -> ReadError {
    ReadError::Damaged {
        what: format!("entry {entry} is no longer in the log"),
    }
}

// The derived text would contain the whole store.
impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim")
            .field("id", &self.id)
            .field("answered", &self.answered)
            .finish_non_exhaustive()
    }
}

// Longest wait for the wall clock before it is read again.
const LOOK_AGAIN_MS: u64 = 200;
