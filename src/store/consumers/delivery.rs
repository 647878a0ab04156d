//! A delivery: one change, given to one taker, who answers for it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio_stream::Stream;

use crate::{
    id::EntryId,
    protocol::{
        change::{Change, Kind, Origin},
        consumer::{ChangeRef, DeathReason, DeliveryId, Given},
    },
    store::{
        ReadError, Shared,
        consumers::{
            Consumer, ConsumerError,
            live::{Live, Take},
            options::millis,
        },
        watch::lookup::replayed,
    },
};

/// A change that was given to this taker and to nobody else, until it is answered or its time is
/// over.
///
/// Dropping it gives it back: it is given out again after the usual pause.
#[derive(Debug)]
pub struct Delivery {
    change: Arc<Change>,
    claim: Claim,
}

/// The duty to answer for a change, without the change itself, which may be large.
///
/// Dropping it unanswered gives the change back, as dropping the delivery does.
pub struct Claim {
    live: Arc<Live>,
    id: DeliveryId,
    answered: bool,
}

impl Delivery {
    /// Returns the change. `heads` and `late` are as of this attempt; what was read again from the
    /// log has no `previous`.
    pub fn change(&self) -> &Arc<Change> {
        &self.change
    }

    /// Returns the name of this attempt: what `Consumer::ack` takes. Its change part is the same at
    /// every attempt, on every node: a key for idempotent work.
    pub fn id(&self) -> DeliveryId {
        self.claim.id
    }

    /// Returns how often it was given out, this time included.
    pub fn attempt(&self) -> u32 {
        self.claim.id.attempt
    }

    /// The change is done. Durable within `CONSUMERS_COMMIT_EVERY` and an fsync, or when
    /// `Consumer::flush` returns; if the node dies before, it is given out again.
    ///
    /// # Errors
    /// `Ack` when its time was over and another taker has it; why the consumer is over.
    pub fn ack(mut self) -> Result<(), ConsumerError> {
        self.claim.answered = true;
        self.claim.live.ack(self.claim.id)
    }

    /// Gives it back: it is given out again after `delay`, or after the usual pause.
    ///
    /// # Errors
    /// As `ack`.
    pub fn nack(mut self, delay: Option<Duration>) -> Result<(), ConsumerError> {
        self.claim.answered = true;
        self.claim.live.nack(self.claim.id, delay)
    }

    /// It cannot be done, by nobody: it becomes a dead letter.
    ///
    /// # Errors
    /// As `ack`; `Ack` with `DeadLettersFull`, then it is given out again.
    pub fn term(mut self) -> Result<(), ConsumerError> {
        self.claim
            .live
            .term(self.claim.id, DeathReason::Terminated)?;
        self.claim.answered = true;
        Ok(())
    }

    /// Begins the time to acknowledge it anew.
    ///
    /// # Errors
    /// As `ack`.
    pub fn extend(&self) -> Result<(), ConsumerError> {
        self.claim.live.extend(self.claim.id, false)
    }

    /// Lets go of it without giving it back: whoever has the id answers for it, also after a
    /// restart of this node, until its time is over.
    ///
    /// # Errors
    /// As `ack`.
    pub fn detach(mut self) -> Result<DeliveryId, ConsumerError> {
        self.claim.answered = true;
        self.claim.live.extend(self.claim.id, true)?;
        Ok(self.claim.id)
    }

    /// Lets go of the change, and keeps the duty to answer for it.
    pub fn into_claim(self) -> Claim {
        self.claim
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.answered {
            // Its time may be over, or the store closed: then there is nothing to give back.
            self.live.nack(self.id, None).unwrap_or_default();
        }
    }
}

impl Live {
    pub(super) fn ack(&self, id: DeliveryId) -> Result<(), ConsumerError> {
        let now_ms = self.shared.now_ms();
        self.change(|state| {
            state.seen(now_ms);
            Ok(state.outstanding.ack(id)?)
        })
    }

    pub(super) fn nack(
        &self,
        id: DeliveryId,
        delay: Option<Duration>,
    ) -> Result<(), ConsumerError> {
        let now_ms = self.shared.now_ms();
        self.change(|state| {
            state.seen(now_ms);
            Ok(state.outstanding.nack(id, delay.map(millis), now_ms)?)
        })
    }

    pub(super) fn term(&self, id: DeliveryId, reason: DeathReason) -> Result<(), ConsumerError> {
        let now_ms = self.shared.now_ms();
        self.change(|state| {
            state.seen(now_ms);
            Ok(state.outstanding.term(id, reason, now_ms)?)
        })
    }

    pub(super) fn extend(&self, id: DeliveryId, detached: bool) -> Result<(), ConsumerError> {
        let now_ms = self.shared.now_ms();
        self.change(|state| {
            state.seen(now_ms);
            Ok(state.outstanding.extend(id, detached, now_ms)?)
        })
    }
}

/// Waits for the next change of `live`.
pub(super) async fn next(live: &Arc<Live>) -> Result<Delivery, ConsumerError> {
    loop {
        let told = live.takers.notified();
        tokio::pin!(told);
        // From here on nothing is missed.
        told.as_mut().enable();
        match live.take(false)? {
            Take::Given(given, change) => {
                if let Some(delivery) = deliver(live, given, change).await? {
                    return Ok(delivery);
                }
            }
            Take::Wait(None) => told.await,
            Take::Wait(Some(due_ms)) => {
                // Wall clocks jump, so a wait for one is short.
                let wait = due_ms
                    .saturating_sub(live.shared.now_ms())
                    .clamp(1, LOOK_AGAIN_MS);
                tokio::select! {
                    () = told => {}
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

/// Lets go of those of `claims` that were answered by their ids or are out of time, and waits until
/// fewer than `max` are left.
pub(super) async fn fewer_claims(
    live: &Arc<Live>,
    claims: &mut Vec<Claim>,
    max: usize,
) -> Result<(), ConsumerError> {
    loop {
        let told = live.takers.notified();
        tokio::pin!(told);
        // From here on nothing is missed.
        told.as_mut().enable();
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
            () = told => {}
            () = tokio::time::sleep(Duration::from_millis(LOOK_AGAIN_MS)) => {}
        }
    }
}

// `None`: the log does not have it any more, it is a dead letter now.
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
        Err(ReadError::Damaged { what }) => {
            tracing::warn!(consumer = live.name, what, "a change cannot be read again");
            live.term(id, DeathReason::Unreadable)?;
            claim.answered = true;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

// Finds a change in the log that was fed before.
fn read_again(shared: &Shared, at: &ChangeRef) -> Result<Change, ReadError> {
    let view = shared.state.view();
    if matches!(at.kind, Kind::Put | Kind::Delete) {
        let found = shared
            .log
            .entry(&at.entry.author, at.entry.seq, &at.entry.id)?;
        let Some((entry, record)) =
            found.filter(|(entry, _)| entry.ops.len() > at.op_index as usize)
        else {
            return Err(gone(at.entry.id));
        };
        return replayed(&view, &entry, at.op_index, record.header.arrived_ms);
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
    })
}

fn gone(entry: EntryId) -> ReadError {
    ReadError::Damaged {
        what: format!("entry {entry} is not in the log any more"),
    }
}

/// Deliveries as a stream; it ends after the first error.
pub struct Deliveries {
    consumer: Consumer,
    // None after an error.
    next: Option<NextDelivery>,
}

type NextDelivery = Pin<Box<dyn Future<Output = Result<Delivery, ConsumerError>> + Send>>;

impl Deliveries {
    pub(super) fn new(consumer: Consumer) -> Self {
        Self {
            next: Some(one(&consumer)),
            consumer,
        }
    }
}

fn one(consumer: &Consumer) -> NextDelivery {
    let consumer = consumer.clone();
    Box::pin(async move { consumer.next().await })
}

// The consumer behind it has the whole store in reach.
impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim")
            .field("id", &self.id)
            .field("answered", &self.answered)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deliveries")
            .field("consumer", &self.consumer)
            .finish_non_exhaustive()
    }
}

impl Stream for Deliveries {
    type Item = Result<Delivery, ConsumerError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(next) = &mut self.next else {
            return Poll::Ready(None);
        };
        let item = ready!(next.as_mut().poll(cx));
        self.next = item.is_ok().then(|| one(&self.consumer));
        Poll::Ready(Some(item))
    }
}

const LOOK_AGAIN_MS: u64 = 200;
