//! A sync of two stores in this process.

use std::collections::VecDeque;

use lattice::{
    Store,
    protocol::sync::{Action, Message, Session, Summary},
};

/// One side of a sync in this process.
struct Side<'a> {
    store: &'a Store,
    session: Session,
    inbox: VecDeque<Message>,
    summary: Option<Summary>,
}

impl Side<'_> {
    /// Does what a session asks for. Returns the messages to send.
    async fn act(&mut self, actions: Vec<Action>) -> Vec<Message> {
        let (mut actions, mut sent) = (VecDeque::from(actions), Vec::new());
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Send(message) => sent.push(message),
                Action::Find(tips) => {
                    let lacking = self.store.lacks(tips).await.unwrap();
                    actions.extend(self.session.on_missing(lacking));
                }
                Action::Read(ranges) => {
                    let mut outgoing = self.store.outgoing(&ranges).unwrap();
                    loop {
                        let frame = outgoing.next_frame(1 << 16).unwrap();
                        if frame.is_empty() {
                            break;
                        }
                        actions.extend(self.session.on_entries_read(frame));
                    }
                    actions.extend(self.session.on_read_end());
                }
                Action::Ingest(entries) => {
                    let _outcomes = self.store.ingest_verified(entries).await.unwrap();
                }
                Action::Finish(summary) => self.summary = Some(summary),
            }
        }
        sent
    }
}

/// Syncs two stores as two nodes do. Returns the counts of each of them.
pub async fn sync(one: &Store, other: &Store) -> [Summary; 2] {
    let missing = one.missing().await.unwrap();
    let (session, hello) = Session::open(one.id(), one.frontier(), missing).unwrap();
    let accepting = Session::accept(one.id(), other.frontier()).unwrap();
    let side = |store, session: Session| Side {
        session: session.offering(Store::spent(store)),
        store,
        inbox: VecDeque::new(),
        summary: None,
    };
    let mut sides = [side(one, session), side(other, accepting)];
    sides[1].inbox.push_back(hello);
    while sides.iter().any(|side| side.summary.is_none()) {
        for at in [0, 1] {
            if let Some(message) = sides[at].inbox.pop_front() {
                let actions = sides[at].session.handle(message).unwrap();
                let sent = sides[at].act(actions).await;
                sides[1 - at].inbox.extend(sent);
            }
        }
    }
    one.settle().await;
    other.settle().await;
    sides.map(|side| side.summary.expect("it has ended"))
}
