//! Takers that share a durable consumer: they acknowledge, give back, or vanish with their
//! deliveries.

use std::{sync::Arc, time::Duration};

use lattice::{
    api::client::{Client, connect},
    wire::api::{
        AnswerRequest, ConsumeRequest, ConsumerStart, CreateConsumerRequest, Delivery, NackRequest,
        consumer_start::Start,
    },
};
use tokio::time::timeout;
use tonic::Status;

use super::{
    histories::{World, add},
    node::Life,
    wire,
};
use crate::{
    cli::harness::PATIENCE,
    guarantees::history::{OpId, Work},
    support::random::Random,
};

pub(super) const CONSUMER: &str = "jobs";

/// Makes the consumer, of all that ever is below `prefix`.
pub(super) async fn create(life: &Life, prefix: &'static str, changes_max: u32) {
    let start = Some(Start::Beginning(true));
    let request = CreateConsumerRequest {
        consumer: CONSUMER.to_owned(),
        prefixes: vec![prefix.into()],
        from: Some(ConsumerStart { start }),
        // No taker is slow here: a redelivery means a nack, or that its taker disconnected.
        ack_wait_ms: u64::try_from(PATIENCE.as_millis()).unwrap(),
        max_deliver: Some(0),
        max_in_flight: changes_max,
        backoff_ms: vec![20],
        ..CreateConsumerRequest::default()
    };
    let mut client = life.client().await;
    client.create_consumer(request).await.unwrap();
}

pub(super) struct Taker {
    random: Random,
    /// The node that has the consumer.
    life: Arc<Life>,
}

/// The deliveries that it holds while its connection lasts.
struct Hand {
    client: Client,
    turn: u64,
    held: Vec<(OpId, String)>,
}

impl Taker {
    pub(super) fn new(random: Random, life: Arc<Life>) -> Self {
        Self { random, life }
    }

    /// Works until nothing is left to do.
    pub(super) async fn work(mut self, world: Arc<World>) {
        while !world.is_done() {
            // One connection after the other.
            if self.take(&world).await.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Takes for a while; then its connection ends, with what it has.
    async fn take(&mut self, world: &World) -> Option<()> {
        let turn = self.life.turn()?;
        let mut client = connect(&self.life.socket).await.ok()?;
        let request = ConsumeRequest {
            consumer: CONSUMER.to_owned(),
            prefetch: 1 + u32::try_from(self.random.below(4)).unwrap(),
            ..ConsumeRequest::default()
        };
        let stream = client.consume(request).await;
        // Deliveries of the next turn do not belong to this one.
        self.life.turn().filter(|now| *now == turn)?;
        let mut stream = stream.unwrap().into_inner();
        let held = Vec::new();
        let mut hand = Hand { client, turn, held };
        for _look in 0..1 + self.random.below(40) {
            match timeout(LOOK, stream.message()).await {
                Ok(Ok(Some(delivery))) => self.given(world, &mut hand, delivery)?,
                Ok(Ok(None)) => self.gone(turn, &Status::ok("it has no end"))?,
                Ok(Err(status)) => self.gone(turn, &status)?,
                Err(_nothing) => {}
            }
            if self.random.once_in(2) {
                self.answer(world, &mut hand).await?;
            }
        }
        if world.is_over() || self.random.once_in(2) {
            while !hand.held.is_empty() {
                self.answer(world, &mut hand).await?;
            }
        }
        add(&world.counts.vanished, hand.held.len() as u64);
        for (op, _id) in hand.held {
            self.life.note(turn, Work::Left(op));
        }
        Some(())
    }

    fn given(&self, world: &World, hand: &mut Hand, delivery: Delivery) -> Option<()> {
        let change = wire::told(delivery.change.as_ref().unwrap());
        let (op, attempt) = (change.op_id(), delivery.attempt);
        let key = change.key;
        let given = Work::Given { op, key, attempt };
        self.life.note(hand.turn, given).then_some(())?;
        add(&world.counts.given, 1);
        add(&world.counts.redelivered, u64::from(attempt > 1));
        hand.held.push((op, delivery.id));
        Some(())
    }

    /// Answers for one of those it holds: mostly, it is done.
    async fn answer(&mut self, world: &World, hand: &mut Hand) -> Option<()> {
        if hand.held.is_empty() {
            return Some(());
        }
        let (op, id) = hand.held.swap_remove(self.random.below(hand.held.len()));
        // Once it is asked for, another may have the key before the answer has come back.
        self.life.note(hand.turn, Work::Left(op)).then_some(())?;
        let (consumer, deliveries) = (CONSUMER.to_owned(), vec![id]);
        if !world.is_over() && self.random.once_in(6) {
            add(&world.counts.nacks, 1);
            let request = NackRequest {
                consumer,
                deliveries,
                delay_ms: self.random.once_in(2).then_some(0),
                ..NackRequest::default()
            };
            let answered = hand.client.nack(request).await;
            return answered
                .map(drop)
                .or_else(|status| self.gone(hand.turn, &status).ok_or(()))
                .ok();
        }
        let durable = self.random.once_in(3);
        let request = AnswerRequest {
            consumer,
            deliveries,
            durable,
            ..AnswerRequest::default()
        };
        match hand.client.ack(request).await {
            Ok(_done) => self.life.acked(hand.turn, op, durable),
            Err(status) => {
                add(&world.counts.acks_lost, 1);
                self.life.ack_lost(op);
                self.gone(hand.turn, &status)?;
            }
        }
        Some(())
    }

    // Nothing breaks off but with its node.
    fn gone(&self, turn: u64, status: &Status) -> Option<()> {
        assert_ne!(self.life.turn(), Some(turn), "{status:?}");
        None
    }
}

const LOOK: Duration = Duration::from_millis(30);
