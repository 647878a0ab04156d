//! A durable consumer of a node in another process: take changes and answer them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio_stream::Stream;

use crate::{
    calls::ConsumerOptions,
    client::{
        error::ApiError,
        messages,
        replies::{Opening, Polled, Replies},
        rpc::Rpc,
    },
    limits::CLIENT_NEXT_WAIT,
    protocol::{change::Change, consumer::DeliveryId},
    wire::api,
};

/// A handle on a consumer of a store. Cheap to clone; handles with the same name are the same consumer.
///
/// `create` must be called once, first: without it the other calls fail with `NotFound`. Takers call
/// `next`, or the stream of `deliveries`, and answer each [`Delivery`].
#[derive(Debug, Clone)]
pub struct Consumer {
    rpc: Rpc,
    store: String,
    name: String,
}

/// A change that no other taker has until it is answered or its `ack_wait` has passed.
///
/// Dropping it is no answer. One from `next` is delivered again after the consumer's `ack_wait`; one from
/// `deliveries` also when its stream is dropped.
#[derive(Debug, Clone)]
pub struct Delivery {
    consumer: Consumer,
    change: Arc<Change>,
    id: DeliveryId,
}

impl Consumer {
    pub(super) fn new(rpc: Rpc, store: &str, name: &str) -> Self {
        Self {
            rpc,
            store: store.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Returns the name of the consumer.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the consumer, durably. A consumer that exists with the same options is left as it is,
    /// whatever its start. Cancel-safe: a dropped call may still make it.
    ///
    /// # Errors
    /// `Failed` with code `consumer_exists` if it exists with other options; `Usage`, `Unavailable`.
    pub async fn create(&self, options: &ConsumerOptions) -> Result<(), ApiError> {
        let request = messages::consumer(&self.store, &self.name, options);
        self.rpc.clone().create_consumer(request).await?;
        Ok(())
    }

    /// Waits for the next change. Any number of takers, in any processes, share the changes.
    ///
    /// A dropped call may still take a change, which is delivered again after `ack_wait`.
    ///
    /// # Errors
    /// `NotFound`, also when the consumer is deleted meanwhile; `Unavailable`; `Failed` if it has stopped.
    pub async fn next(&self) -> Result<Delivery, ApiError> {
        loop {
            if let Some(delivery) = self.next_within(CLIENT_NEXT_WAIT).await? {
                return Ok(delivery);
            }
        }
    }

    /// Like `next`; returns `None` if there is no change within `wait`. With zero, a change is returned
    /// only if there is one now.
    ///
    /// # Errors
    /// Like `next`.
    pub async fn next_within(&self, wait: Duration) -> Result<Option<Delivery>, ApiError> {
        let request = api::NextRequest {
            store: self.store.clone(),
            consumer: self.name.clone(),
            count: 1,
            timeout_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        };
        let reply = self.rpc.clone().next(request).await?.into_inner();
        let delivery = reply.deliveries.into_iter().next();
        delivery.map(|it| self.delivery(it)).transpose()
    }

    /// Returns the changes as a stream, of which up to `prefetch` are on their way or not answered.
    ///
    /// If the connection breaks, or no node is running, the stream connects again until there is one;
    /// changes that were not answered come again, as another attempt. It ends after any other error. When
    /// it is dropped, changes that were not answered are given back.
    pub fn deliveries(&self, prefetch: u32) -> Deliveries {
        Deliveries {
            consumer: self.clone(),
            prefetch,
            replies: Replies::new(),
            has_ended: false,
        }
    }

    /// Stops delivering changes, even across a restart of the node. Takers may still answer the changes
    /// they have.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn pause(&self) -> Result<(), ApiError> {
        self.rpc.clone().pause_consumer(self.request()).await?;
        Ok(())
    }

    /// Delivers changes again after a pause.
    ///
    /// # Errors
    /// Like `pause`.
    pub async fn resume(&self) -> Result<(), ApiError> {
        self.rpc.clone().resume_consumer(self.request()).await?;
        Ok(())
    }

    /// Removes the consumer with its changes and dead letters.
    ///
    /// # Errors
    /// Like `pause`.
    pub async fn delete(&self) -> Result<(), ApiError> {
        self.rpc.clone().delete_consumer(self.request()).await?;
        Ok(())
    }

    fn request(&self) -> api::ConsumerRequest {
        api::ConsumerRequest {
            store: self.store.clone(),
            consumer: self.name.clone(),
        }
    }

    fn delivery(&self, delivery: api::Delivery) -> Result<Delivery, ApiError> {
        let change = delivery.change.map(messages::change).transpose()?;
        let id = delivery.id.parse().ok();
        let (change, id) = change
            .zip(id)
            .ok_or_else(|| messages::malformed("a delivery"))?;
        Ok(Delivery {
            consumer: self.clone(),
            change: Arc::new(change),
            id,
        })
    }
}

impl Delivery {
    /// Returns the change.
    pub fn change(&self) -> &Arc<Change> {
        &self.change
    }

    /// Returns the id of this attempt. Its `change` part is the same at every attempt and on every node: a
    /// key for idempotent work.
    pub fn id(&self) -> DeliveryId {
        self.id
    }

    /// Returns the number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.id.attempt
    }

    /// Acknowledges the change: it is finished and not delivered again.
    ///
    /// The acknowledgement is durable soon after (`CONSUMERS_COMMIT_EVERY` and an fsync). If the node is
    /// killed before, the change is delivered again.
    ///
    /// # Errors
    /// `NotFound` or `Precondition` when `ack_wait` had passed and another taker has the change;
    /// `Unavailable`: the connection was lost, and the change may be acknowledged.
    pub async fn ack(&self) -> Result<(), ApiError> {
        self.consumer.rpc.clone().ack(self.answer(false)).await?;
        Ok(())
    }

    /// Like `ack`, and waits until the acknowledgement is durable.
    ///
    /// # Errors
    /// Like `ack`.
    pub async fn ack_durably(&self) -> Result<(), ApiError> {
        self.consumer.rpc.clone().ack(self.answer(true)).await?;
        Ok(())
    }

    /// Gives the change back: it is delivered again after `delay`, or after the usual pause.
    ///
    /// # Errors
    /// Like `ack`.
    pub async fn nack(&self, delay: Option<Duration>) -> Result<(), ApiError> {
        let answer = self.answer(false);
        let ms = |delay: Duration| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let request = api::NackRequest {
            store: answer.store,
            consumer: answer.consumer,
            deliveries: answer.deliveries,
            delay_ms: delay.map(ms),
            durable: false,
        };
        self.consumer.rpc.clone().nack(request).await?;
        Ok(())
    }

    /// Makes the change a dead letter, because no taker can process it.
    ///
    /// # Errors
    /// Like `ack`; `Failed` with code `dead_letters_full`, after which the change is delivered again.
    pub async fn term(&self) -> Result<(), ApiError> {
        self.consumer.rpc.clone().term(self.answer(false)).await?;
        Ok(())
    }

    /// Starts the `ack_wait` of this attempt again.
    ///
    /// # Errors
    /// Like `ack`.
    pub async fn extend(&self) -> Result<(), ApiError> {
        self.consumer.rpc.clone().extend(self.answer(false)).await?;
        Ok(())
    }

    fn answer(&self, durable: bool) -> api::AnswerRequest {
        api::AnswerRequest {
            store: self.consumer.store.clone(),
            consumer: self.consumer.name.clone(),
            deliveries: vec![self.id.to_string()],
            durable,
        }
    }
}

/// The deliveries of a consumer as a stream, see [`Consumer::deliveries`].
#[derive(Debug)]
pub struct Deliveries {
    consumer: Consumer,
    prefetch: u32,
    replies: Replies<api::Delivery>,
    // True after an error.
    has_ended: bool,
}

fn open(consumer: &Consumer, prefetch: u32) -> Opening<api::Delivery> {
    let mut rpc = consumer.rpc.clone();
    let request = api::ConsumeRequest {
        store: consumer.store.clone(),
        consumer: consumer.name.clone(),
        prefetch,
    };
    Box::pin(async move { Ok(rpc.consume(request).await?.into_inner()) })
}

impl Stream for Deliveries {
    type Item = Result<Delivery, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while !this.has_ended {
            let (consumer, prefetch) = (&this.consumer, this.prefetch);
            let polled = this.replies.poll(context, || open(consumer, prefetch));
            let item = match ready!(polled) {
                Polled::Reply(delivery) => this.consumer.delivery(delivery),
                Polled::Failed(error) => Err(error),
                Polled::Lost { .. } => continue,
                Polled::Ended => {
                    this.replies.lose();
                    continue;
                }
            };
            this.has_ended = item.is_err();
            return Poll::Ready(Some(item));
        }
        Poll::Ready(None)
    }
}
