//! A group: writes that one fsync makes durable, and the callers that wait for them.

use tokio::sync::oneshot;

use crate::store::{
    Write, WriteError,
    writer::command::{Outcome, Writes},
};

/// Writes in order of arrival, and where their outcomes go.
#[derive(Debug, Default)]
pub(super) struct Group {
    // Checked as far as that needs no state.
    writes: Vec<Result<Write, WriteError>>,
    bytes: usize,
    // Each takes the outcomes of the next one, or the next several, of `writes`.
    replies: Vec<Reply>,
}

#[derive(Debug)]
enum Reply {
    One(oneshot::Sender<Outcome>),
    Many(usize, oneshot::Sender<Vec<Outcome>>),
}

impl Group {
    /// Adds writes. `reserves_keys`: whether clients may not write keys of the node in this store.
    pub(super) fn add(&mut self, writes: Writes, reserves_keys: bool) {
        match writes {
            Writes::One(write, reply) => {
                self.push(write, Ok(()));
                self.replies.push(Reply::One(reply));
            }
            Writes::Own(write, reply) => {
                let checked = write.check(false);
                self.push(write, checked);
                self.replies.push(Reply::One(reply));
            }
            Writes::Many(writes, reply) => {
                self.replies.push(Reply::Many(writes.len(), reply));
                for write in writes {
                    let checked = write.check(reserves_keys);
                    self.push(write, checked);
                }
            }
        }
    }

    /// Sends each outcome to its caller. There is one for each write, in order.
    pub(super) fn reply(self, outcomes: Vec<Outcome>) {
        assert_eq!(outcomes.len(), self.writes.len(), "one outcome a write");
        let mut outcomes = outcomes.into_iter();
        for reply in self.replies {
            // A caller that has gone away has dropped its receiver.
            match reply {
                Reply::One(reply) => {
                    let outcome = outcomes.next().expect("one outcome a write");
                    drop(reply.send(outcome));
                }
                Reply::Many(count, reply) => {
                    drop(reply.send(outcomes.by_ref().take(count).collect()));
                }
            }
        }
    }

    /// Returns the writes; those that were refused without the state are errors.
    pub(super) fn writes(&self) -> &[Result<Write, WriteError>] {
        &self.writes
    }

    /// Returns about how many bytes the ops have.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self, write: Write, checked: Result<(), WriteError>) {
        self.bytes += write.bytes();
        self.writes.push(checked.map(|()| write));
    }
}
