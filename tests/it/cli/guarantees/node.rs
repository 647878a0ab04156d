//! A real node in a history: it is started, killed, stopped, paused and cut off.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use lattice::{
    api::{
        client::{Client, connect},
        whole,
    },
    id::Author,
    protocol::frontier::Frontier,
    wire::api::StoreStatus,
};
use rustix::process::Signal;

use super::wire;
use crate::{
    cli::harness::{Home, PATIENCE, Running},
    guarantees::history::{OpId, Work},
};

pub(super) struct Node {
    home: Home,
    running: Option<Running>,
    pub(super) life: Arc<Life>,
}

/// The shared facts about a node: its place, and whether it is killed, paused or cut off.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) socket: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    // Even while it serves; one more before it is ended, and when it serves again.
    turn: u64,
    pauses: u64,
    // The steps of its consumer, in order: a step of one turn never comes after the node's death
    // in it.
    work: Vec<Work>,
}

impl Node {
    pub(super) fn new(home: Home) -> Self {
        let life = Life {
            socket: home.data().join("run/sock"),
            state: Mutex::default(),
        };
        Self {
            home,
            running: None,
            life: Arc::new(life),
        }
    }

    pub(super) fn start(&mut self) {
        self.running = Some(self.home.up());
    }

    /// Lets another node into its mesh, which does not run yet.
    pub(super) fn let_in(&self, other: &Self) {
        let invited = self.home.run(&["invite", "--role", "admin"]);
        let token = invited.raw.trim().to_owned();
        other.home.run(&["join", &token]).ok();
    }

    pub(super) fn kill_and_start(&mut self) {
        self.life.ends(false);
        let running = self.running.take().unwrap();
        running.signal(Signal::KILL);
        drop(running);
        self.start();
        self.life.serves();
    }

    pub(super) fn stop_and_start(&mut self) {
        self.life.ends(true);
        let running = self.running.take().unwrap();
        running.signal(Signal::TERM);
        running.end().ok();
        self.start();
        self.life.serves();
    }

    /// Nothing moves in it for a while; then it goes on, or is killed.
    pub(super) async fn pause(&mut self, time: Duration, goes_on: bool) {
        self.life.lock().pauses += 1;
        let running = self.running.as_ref().unwrap();
        running.signal(Signal::STOP);
        tokio::time::sleep(time).await;
        match goes_on {
            true => running.signal(Signal::CONT),
            false => self.kill_and_start(),
        }
    }
}

impl Life {
    /// Returns which turn it is, where it serves.
    pub(super) fn turn(&self) -> Option<u64> {
        let turn = self.lock().turn;
        turn.is_multiple_of(2).then_some(turn)
    }

    pub(super) fn pauses(&self) -> u64 {
        self.lock().pauses
    }

    /// Records what a taker did. False where the turn in which it did it is over: it is as if it had
    /// not been told.
    pub(super) fn note(&self, turn: u64, work: Work) -> bool {
        let mut state = self.lock();
        let is_now = state.turn == turn;
        if is_now {
            state.work.push(work);
        }
        is_now
    }

    /// Records that the node said of an op, which its taker has left, that it is acknowledged; or
    /// also that this, and what was acknowledged before it was asked for, is on disk.
    pub(super) fn acked(&self, turn: u64, op: OpId, durable: bool) {
        let mut state = self.lock();
        if state.turn != turn {
            state.work.push(Work::AckLost(op));
        } else if durable {
            let left = |work: &Work| matches!(work, Work::Left(left) if *left == op);
            let asked = state.work.iter().rposition(left).unwrap() + 1;
            state.work.insert(asked, Work::Acked(op));
            state.work.insert(asked + 1, Work::Flushed);
        } else {
            state.work.push(Work::Acked(op));
        }
    }

    /// Records that nobody knows whether an acknowledgement came.
    pub(super) fn ack_lost(&self, op: OpId) {
        self.lock().work.push(Work::AckLost(op));
    }

    pub(super) fn take_work(&self) -> Vec<Work> {
        std::mem::take(&mut self.lock().work)
    }

    /// Returns a client, however long the node takes to come back.
    pub(super) async fn client(&self) -> Client {
        let began = Instant::now();
        loop {
            match connect(&self.socket).await {
                Ok(client) => return client,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns who it is, and how its root store is.
    pub(super) async fn data(&self) -> (Author, StoreStatus) {
        let mut client = self.client().await;
        wire::data(whole::status(&mut client).await.unwrap())
    }

    pub(super) async fn frontier(&self) -> Frontier {
        wire::frontier(&self.data().await.1.applied)
    }

    fn ends(&self, clean: bool) {
        let mut state = self.lock();
        state.work.push(Work::Died { clean });
        state.turn += 1;
    }

    fn serves(&self) {
        self.lock().turn += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}
