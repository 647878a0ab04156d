//! A sync session: one store, two nodes, one stream, after which each has what the other had.
//!
//! ```text
//! opener                                acceptor
//! Hello { hash of my frontier }   ->
//!                                 <-    Same, and it is over; or Tips
//! Tips                            ->
//! Want                            ->  <-    Want             what I lack of your tips
//! Entries, Sent                   ->  <-    Entries, Sent    in (hlc, author, id) order
//! Done                            ->  <-    Done             I lack nothing more
//! ```
//! Each side asks for itself, because only a log can tell what it lacks: after a fork, tips alone
//! do not show which of an author's entries two nodes share. From where to ask is a guess (behind
//! the newest tip here); where what came does not join what is here, the next Want asks for the
//! same from further back. What depends on it comes with it again, so nothing has to be kept
//! waiting. A session that is cut loses nothing: the next one compares anew.
//!
//! The session does no IO. Its owner, the shell, calls [`Session::handle`] with what comes, does
//! the actions in order before the next message, and tells of two things: what is not here
//! ([`Session::on_missing`]) and what was read ([`Session::on_entries_read`], [`Session::on_read_end`]). Deadlines
//! are the shell's, see [`Session::waits_for`].

use crate::{
    id::Author,
    protocol::{
        entry::VerifiedEntry,
        frontier::{FrontierTip, MissingRange},
    },
};

mod asking;
mod error;
mod message;
mod session;
mod turn;

pub use error::SyncError;
pub use message::{FrameDecoder, Message};
pub use session::Session;
pub use turn::{Decision, Turn};

/// The rules that this node speaks.
pub const VERSION: u32 = 1;

/// What the shell must do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this. Answers must not wait for entries that are on the way out: while a peer does not
    /// read, go on reading.
    Send(Message),
    /// Say with [`Session::on_missing`] which of these entries are not here.
    Find(Vec<(Author, FrontierTip)>),
    /// Read these ranges from the logs: of each the entry `tip` and those before it by `prev`. Hand
    /// the entries over with [`Session::on_entries_read`] in (hlc, author, id) order across all ranges, each
    /// once, as fast as they can be sent; then call [`Session::on_read_end`]. What is not here is left
    /// out.
    Read(Vec<MissingRange>),
    /// Take these in. They are authentic, of this store, and in order.
    Ingest(Vec<VerifiedEntry>),
    /// The session is over and complete.
    Finish(Summary),
}

/// What a session did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// The frontiers were equal.
    pub same: bool,
    /// Entries sent.
    pub sent: u64,
    /// Entries received and given to the shell.
    pub received: u64,
    /// Entries received that a newer version wrote: refused until this node is updated.
    pub newer: u64,
    /// Entries received that are not authentic or not well formed.
    pub refused: u64,
    /// Times this side asked.
    pub wants: u32,
    /// Tips of the peer that are not here in the end: they did not come, or could not be taken in.
    pub lacking: usize,
}

/// A message that the peer owes. It has `SYNC_ANSWER_TIMEOUT` for the first three, which it needs
/// no disk for, and `SYNC_WORK_TIMEOUT` for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    /// The opener's first message.
    Hello,
    /// The answer to it.
    Answer,
    /// The rest of the peer's tips.
    Tips,
    /// What this side asked for.
    Entries,
    /// What the peer wants, or that it wants nothing more.
    Want,
}

#[cfg(test)]
mod tests;
