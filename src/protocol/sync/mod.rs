//! A sync session: one store, two nodes, one stream. After the session each node has the other's
//! entries.
//!
//! ```text
//! opener                                acceptor
//! Hello { hash of my frontier }   ->
//!                                 <-    Same, which ends the session; or Tips
//! Tips                            ->
//! Want                            ->  <-    Want             the ranges I miss below your tips
//! Entries, Sent                   ->  <-    Entries, Sent    in (hlc, author, id) order
//! Done                            ->  <-    Done             I want nothing more
//! ```
//! Each side asks for itself, because only its own log shows which entries it is missing: after a
//! fork, tips alone do not show which of an author's entries two nodes share. The seq to ask from
//! is a guess: just above this node's newest tip. If the received entries do not join this node's
//! log, the next Want asks for the same range from further back. The later entries are sent again
//! with it, so no entry has to be kept waiting. An interrupted session loses nothing: the next
//! session compares again.
//!
//! The session does no IO. Its owner, the shell, calls [`Session::handle`] with each message and
//! does the returned actions in order before the next message. The shell answers two of the
//! actions: `Find` with [`Session::on_missing`], `Read` with [`Session::on_entries_read`] and
//! [`Session::on_read_end`]. The shell keeps the deadlines, see [`Session::waits_for`]. [`Turn`]
//! decides which session is kept when both sides open one at the same time.
//!
//! A log can begin later than with its first entry. A side that is missing the entry at which a log of
//! the other begins, its anchor, takes the other's base instead (`fetching`):
//!
//! ```text
//! WantBase                        ->
//!                                 <-    Manifest             pieces of it
//! WantPart                        ->                         for each part that is not here yet
//!                                 <-    Part                 pieces of it
//! Done                            ->                         then the base is installed
//! ```
//! The entries after the base come with the next session. Meanwhile the other side gets this side's
//! entries as in every session. Each side says in [`Summary::base`] what became of its own need.

use bytes::Bytes;

use crate::{
    id::Author,
    protocol::{
        entry::VerifiedEntry,
        frontier::{FrontierTip, MissingRange},
    },
};

mod asking;
mod base_choice;
mod base_session;
mod error;
mod fetching;
mod message;
mod offer;
mod paging;
mod rate_floor;
mod session;
mod turn;

pub use base_choice::{BaseChoice, BaseRank};
pub use error::SyncError;
pub use fetching::{BaseNeed, BaseWish, PartName, PartWant};
pub use message::{FrameDecoder, Message};
pub use offer::OwnEntries;
pub use rate_floor::{RateFloor, TooSlow};
pub use session::Session;
pub use turn::{Decision, Turn};

/// Newest version of the sync messages and rules: with bases.
pub const VERSION: u32 = 2;
/// Oldest version that this node speaks. A peer that speaks no newer one is served as long as it lacks no
/// entry that was removed here.
pub const VERSION_OLDEST: u32 = 1;

/// One thing the shell must do. Actions are done in the order in which they are returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this message. The shell keeps reading from the stream even while the peer does not
    /// read: answers must not wait behind entries that are still being sent.
    Send(Message),
    /// Look up these entries, and report the missing ones with [`Session::on_missing`].
    Find(Vec<(Author, FrontierTip)>),
    /// Read these ranges from the logs: for each range the entry `tip` and the entries before it by
    /// `prev`. Hand them to [`Session::on_entries_read`] in (hlc, author, id) order across all
    /// ranges, each once, as fast as they can be sent; then call [`Session::on_read_end`]. Entries
    /// that this node does not have are left out.
    Read(Vec<MissingRange>),
    /// Pass these entries to the store's intake. They are authentic, of this store, and in order.
    Ingest(Vec<VerifiedEntry>),
    /// Pin this node's base, and report its parts with [`Session::on_base_opened`]. Then hand the
    /// manifest to [`Session::on_piece_read`] in pieces, none of them if there is no base, and call
    /// [`Session::on_read_end`].
    ReadBase,
    /// Read this part of the pinned base for the peer, without its first chunks. Hand it to
    /// [`Session::on_piece_read`] in pieces, then call [`Session::on_read_end`].
    ReadPart(PartName, u32),
    /// Decide whether the base with this manifest is to be taken. Report with
    /// [`Session::on_part_wanted`] the first part that is not here, or with
    /// [`Session::on_base_refused`] that it is not to be taken.
    CheckBase(Bytes),
    /// Keep this piece of the part that was asked for last. After the last piece, `true`: check that the
    /// part is whole, and report the next one with [`Session::on_part_wanted`].
    Keep(Bytes, bool),
    /// Install the base, all parts of which are here. Then call [`Session::on_installed`]. The peer has got
    /// its Done before, so it does not wait for the disk of this node. Messages of the peer may be handled
    /// meanwhile.
    Install,
    /// The session has ended and is complete. No action follows.
    Finish(Summary),
}

/// Counts of one session, so far or at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// True when the frontiers were equal and nothing was exchanged.
    pub same: bool,
    /// Entries sent.
    pub sent: u64,
    /// Authentic entries received and handed to the shell.
    pub received: u64,
    /// Entries received from a newer version: refused until this node is updated.
    pub newer: u64,
    /// Entries received that are not authentic or not well formed.
    pub refused: u64,
    /// Wants that this side sent.
    pub wants: u32,
    /// Tips of the peer that this node is missing at the end: they were not received, or the store
    /// refused them.
    pub lacking: usize,
    /// Whether this side lacked entries that were removed at the peer, and what became of that.
    pub base: BaseNeed,
}

/// A message that the session expects from the peer. The peer has `SYNC_ANSWER_TIMEOUT` for the
/// first three, which need no disk, `BASE_WANT_TIMEOUT` for the last one, and `SYNC_WORK_TIMEOUT` for the
/// others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    /// The opener's first message.
    Hello,
    /// The answer to the Hello.
    Answer,
    /// The rest of the peer's tips.
    Tips,
    /// The entries that this side asked for.
    Entries,
    /// A Want or a Done.
    Want,
    /// The rest of the manifest, or of the part that was asked for.
    Base,
    /// A WantPart or a Done, from a peer that takes the base of this side. What was sent last may still be
    /// on its way.
    BaseWant,
}

#[cfg(test)]
mod tests;
