//! A watcher that moves between daemons with its cursor and records each event.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lattice::{
    api::{error::ApiError, whole},
    id::StoreId,
    protocol::{change::Kind, cursor::Cursor, frontier::Frontier},
    wire::api::{WatchReply, WatchRequest, watch_reply::Event, watch_request::Start},
};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::{
    histories::{FLOODED, NODES, World, add},
    node::Life,
    wire,
};
use crate::{
    cli::harness::PATIENCE,
    guarantees::{
        checker::named,
        history::{Lineage, Scope, Step},
    },
    support::random::Random,
};

/// A watcher, and its record.
pub(super) struct Reader {
    pub(super) lineage: Lineage,
    random: Random,
    // While somebody writes much, it is there, and does not read.
    slow: bool,
    at: usize,
}

/// Its watch at a node.
struct Watching {
    events: Streaming<WatchReply>,
    life: Arc<Life>,
    turn: u64,
    pauses: u64,
    // The node missed some of the cursor, and has delivered nothing since.
    waits: bool,
    caught_up: bool,
}

impl Reader {
    pub(super) fn new(store: StoreId, scope: Scope, slow: bool, random: Random) -> Self {
        let begin = Cursor {
            store,
            frontier: Frontier::default(),
            partial: None,
            expired_through_ms: 0,
        };
        let lineage = Lineage {
            scope,
            begin,
            steps: Vec::new(),
        };
        Self {
            lineage,
            random,
            slow,
            at: 0,
        }
    }

    /// Reads here for a while, then there, until writers are done.
    pub(super) async fn wander(mut self, world: Arc<World>) -> Self {
        while !world.is_over() {
            // A slow one stays for all of a flood.
            let (at, changes) = match self.slow && world.floods() {
                true => (FLOODED, usize::MAX),
                false => (self.random.below(NODES), 1 + self.random.below(80)),
            };
            let beats = 1 + self.random.below(3);
            let Some(mut watching) = self.begin(&world, at).await else {
                // It may be down.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let (mut told, mut quiet) = (0, 0);
            while told < changes && quiet < beats {
                while self.slow && watching.caught_up && world.floods() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                match self.next(&world, &mut watching).await {
                    Some(Step::Told(_)) => told += 1,
                    Some(Step::Progress | Step::Waits) => quiet += 1,
                    Some(_other) => {}
                    None => break,
                }
            }
        }
        self
    }

    /// Reads on, at whatever node, until its cursor covers all this.
    pub(super) async fn read_all(&mut self, world: &World, frontier: &Frontier, due_ms: u64) {
        let at = self.random.below(NODES);
        let mut watching = self.begin(world, at).await.unwrap();
        let is_there = |cursor: &Cursor| {
            let missing = frontier.missing_from(&cursor.frontier);
            missing.is_empty() && cursor.expired_through_ms >= due_ms
        };
        let began = Instant::now();
        while !is_there(self.lineage.end()) && began.elapsed() < PATIENCE {
            if self.next(world, &mut watching).await.is_none() {
                return;
            }
        }
    }

    fn note(&mut self, step: Step, cursor: Cursor) {
        self.lineage.steps.push((step, cursor));
    }

    async fn begin(&mut self, world: &World, at: usize) -> Option<Watching> {
        let life = Arc::clone(&world.lives[at]);
        let (turn, pauses) = (life.turn()?, life.pauses());
        let mut client = life.client().await;
        let had = whole::status(&mut client).await.ok()?;
        let had = wire::frontier(&wire::data(had).1.applied);
        let scope = &self.lineage.scope;
        let cursor = self.lineage.end().clone();
        let wait = self.random.once_in(3);
        let request = WatchRequest {
            prefix: scope.prefix.clone(),
            start: Some(Start::After(cursor.to_string())),
            latest: scope.latest,
            keys_only: scope.keys_only,
            heartbeat_ms: HEARTBEAT_MS,
            cursors: true,
            wait,
            ..WatchRequest::default()
        };
        let waits = wait && !named(&cursor).missing_from(&had).is_empty();
        add(&world.counts.moves, u64::from(at != self.at));
        add(&world.counts.inside, u64::from(cursor.partial.is_some()));
        self.at = at;
        self.note(Step::Began { at, had }, cursor);
        match client.watch(request).await {
            Ok(events) => Some(Watching {
                events: events.into_inner(),
                life,
                turn,
                pauses,
                waits,
                caught_up: false,
            }),
            Err(status) => {
                self.over(world, &life, turn, status);
                None
            }
        }
    }

    /// Records the next event and returns it; `None` if the watch ended.
    async fn next(&mut self, world: &World, watching: &mut Watching) -> Option<Step> {
        let began = Instant::now();
        let reply = loop {
            match timeout(SILENCE, watching.events.message()).await {
                Ok(Ok(Some(reply))) => break reply,
                Ok(Ok(None)) => {
                    let end = self.lineage.end().clone();
                    self.note(Step::Broke("it has no end".to_owned()), end);
                    return None;
                }
                Ok(Err(status)) => {
                    self.over(world, &watching.life, watching.turn, status);
                    return None;
                }
                // The heartbeat is missing; how late it may come on a busy machine nobody knows.
                Err(_elapsed) if watching.life.pauses() > watching.pauses => {
                    add(&world.counts.silences, 1);
                    let end = self.lineage.end().clone();
                    self.note(Step::Ended, end);
                    return None;
                }
                Err(_elapsed) if began.elapsed() > PATIENCE => {
                    let end = self.lineage.end().clone();
                    self.note(Step::Silent, end);
                    return None;
                }
                Err(_elapsed) => {}
            }
        };
        let cursor: Cursor = reply.cursor.parse().unwrap();
        let step = match reply.event.unwrap() {
            Event::Change(change) => {
                let overtaken = watching.caught_up && change.origin == "replay";
                add(&world.counts.told, 1);
                add(&world.counts.overtaken, u64::from(overtaken));
                add(&world.counts.conflicts, u64::from(change.conflict));
                let told = wire::told(&change);
                add(&world.counts.expired, u64::from(told.kind == Kind::Expire));
                Step::Told(told)
            }
            Event::CaughtUp(_) => {
                watching.caught_up = true;
                Step::CaughtUp
            }
            Event::Progress(_) if watching.waits => Step::Waits,
            Event::Progress(_) => Step::Progress,
            Event::Gap(_) => Step::Gap,
            Event::Damaged(damaged) => Step::Broke(damaged.what),
        };
        watching.waits &= matches!(step, Step::Waits);
        add(&world.counts.waits, u64::from(watching.waits));
        self.note(step.clone(), cursor);
        Some(step)
    }

    // The watch ended with an error: the node misses entries, or it ended.
    fn over(&mut self, world: &World, life: &Life, turn: u64, status: Status) {
        let error = ApiError::from(status);
        let end = self.lineage.end().clone();
        let step = if error.code == "cursor_ahead" {
            add(&world.counts.refused, 1);
            let missing = wire::missing(&error.message, &end);
            Step::Behind { missing }
        } else if life.turn() != Some(turn) {
            add(&world.counts.broken_off, 1);
            Step::Ended
        } else {
            Step::Broke(error.message)
        };
        self.note(step, end);
    }
}

const HEARTBEAT_MS: u64 = 100;
/// Without a word for so long, it looks whether the node is there.
pub(super) const SILENCE: Duration = Duration::from_millis(5 * HEARTBEAT_MS);
