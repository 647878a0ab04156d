//! A durable consumer and its taker, which acknowledges, gives back or forgets, and writes the
//! entry that a change causes, once.

use std::time::Duration;

use bytes::Bytes;
use lattice::{
    Store,
    id::EntryId,
    protocol::consumer::cause_of,
    store::{
        Write, WriteError,
        consumers::{Consumer, ConsumerOptions, ConsumerStart, Delivery},
    },
};

use super::{
    histories::{Counts, add},
    history::{OpId, Record, Scope, Work},
    replica::{Replica, soon},
};
use crate::support::random::Random;

pub const ACK_WAIT_MS: u64 = 1000;

#[derive(Debug)]
pub struct Taker {
    pub record: Record,
    /// The replica that has the consumer.
    pub at: usize,
    consumer: Consumer,
    held: Vec<(OpId, Delivery)>,
    /// Entries whose writes were acknowledged.
    pub wrote: Vec<EntryId>,
}

impl Taker {
    /// Creates the consumer of `/in/`. Keys there never expire.
    pub async fn new(
        random: &mut Random,
        name: &'static str,
        writes: bool,
        at: usize,
        replica: &Replica,
    ) -> Self {
        let store = &replica.store;
        let from_now = random.once_in(2);
        let (from, since) = match from_now {
            true => (ConsumerStart::Now, store.frontier()),
            false => (
                ConsumerStart::Beginning,
                lattice::protocol::frontier::Frontier::default(),
            ),
        };
        let scope = Scope {
            prefix: "/in/".into(),
            ..Scope::default()
        };
        let options = ConsumerOptions {
            from,
            prefixes: vec![scope.prefix.clone()],
            ack_wait: Duration::from_millis(ACK_WAIT_MS),
            max_deliver: None,
            max_in_flight: [1, 3, 50][random.below(3)],
            backoff: vec![Duration::from_millis(50)],
            ..ConsumerOptions::default()
        };
        let consumer = store.consumer(name);
        soon(consumer.create(options)).await.unwrap();
        let record = Record {
            name,
            author: store.author(),
            scope,
            since,
            writes,
            work: Vec::new(),
        };
        Self {
            record,
            at,
            consumer,
            held: Vec::new(),
            wrote: Vec::new(),
        }
    }

    fn note(&mut self, work: Work) {
        self.record.work.push(work);
    }

    /// Takes a change, if there is one.
    pub async fn take(&mut self, store: &Store, counts: &Counts) -> bool {
        let Some(delivery) = soon(self.consumer.try_next()).await.unwrap() else {
            return false;
        };
        let change = delivery.change();
        let op = (change.entry.id, change.op_index);
        let (key, attempt) = (change.key.clone(), delivery.attempt());
        add(&counts.redelivered, u64::from(attempt > 1));
        self.note(Work::Given { op, key, attempt });
        if self.record.writes {
            self.write(store, op, &delivery, counts).await;
        }
        self.held.push((op, delivery));
        true
    }

    // Like a hook with `--writes`: it writes one entry, whatever it answers later.
    async fn write(&mut self, store: &Store, op: OpId, delivery: &Delivery, counts: &Counts) {
        let change = delivery.change();
        let out: Bytes = [b"/out/", &change.key[..]].concat().into();
        let write = Write::put(out, change.value.clone().unwrap_or_default());
        let cause = cause_of(self.record.name, change);
        let entry = match soon(store.write(write.caused_by(cause))).await {
            Ok(None) => panic!("a put always writes"),
            Ok(Some(written)) => {
                add(&counts.caused, 1);
                self.wrote.push(written.entry);
                written.entry
            }
            Err(WriteError::AlreadyCaused { entry, .. }) => {
                add(&counts.already_caused, 1);
                entry
            }
            Err(error) => panic!("{error}"),
        };
        self.note(Work::Wrote { op, entry });
    }

    /// Answers one of its deliveries, mostly with an ack.
    pub fn answer(&mut self, random: &mut Random, replica: &Replica) {
        if self.held.is_empty() {
            return;
        }
        let (op, delivery) = self.held.swap_remove(random.below(self.held.len()));
        match random.below(8) {
            0 => {
                self.note(Work::Left(op));
                delivery
                    .nack(random.once_in(2).then_some(Duration::ZERO))
                    .unwrap();
            }
            1 => {
                self.note(Work::Left(op));
                drop(delivery);
            }
            // This delivery is forgotten, and with it all others whose time ran out.
            2 => {
                self.held.push((op, delivery));
                for (op, delivery) in std::mem::take(&mut self.held) {
                    self.note(Work::Left(op));
                    delivery.detach().unwrap();
                }
                replica.clock.advance(ACK_WAIT_MS + 1);
            }
            _done => {
                self.note(Work::Acked(op));
                delivery.ack().unwrap();
            }
        }
    }

    pub async fn flush(&mut self) {
        soon(self.consumer.flush()).await.unwrap();
        self.note(Work::Flushed);
    }

    /// The process died, and its deliveries with it.
    pub fn died(&mut self, clean: bool) {
        self.note(Work::Died { clean });
        self.held.clear();
    }

    /// Resumes in a new process that has opened the store.
    pub fn go_on(&mut self, replica: &Replica) {
        self.consumer = replica.store.consumer(self.record.name);
    }

    /// Takes and acknowledges the remaining changes. Returns true if there were none.
    pub async fn drain(&mut self, store: &Store, counts: &Counts) -> bool {
        loop {
            for (op, delivery) in std::mem::take(&mut self.held) {
                self.note(Work::Acked(op));
                delivery.ack().unwrap();
            }
            if !self.take(store, counts).await {
                break;
            }
        }
        let status = soon(self.consumer.show()).await.unwrap();
        status.outstanding == 0 && status.backlog_entries == 0
    }
}
