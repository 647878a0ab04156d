//! What a peer can do wrong.

use crate::{
    id::{Author, Seq, StoreId},
    protocol::entry::EntryError,
};

/// Why a sync session ended before its time: the peer's fault in every case but `TooManyOwnTips`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// Bytes that are no message.
    #[error("the peer sent what is no message: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// A message longer than any may be.
    #[error("a message has at most {bytes_max} bytes; the peer announced {bytes}")]
    MessageTooLarge {
        /// What the peer announced.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// A message that nobody waits for now.
    #[error("the peer sent {message} where {phase}")]
    OutOfTurn {
        /// Which message.
        message: &'static str,
        /// Where the session stands.
        phase: &'static str,
    },
    /// The peer means another store.
    #[error("the peer wants to sync store {theirs}, this is {ours}")]
    WrongStore {
        /// What it said.
        theirs: StoreId,
        /// This store.
        ours: StoreId,
    },
    /// The peer speaks another version of sync.
    #[error("the peer speaks version {theirs} of sync, this node {ours}")]
    WrongVersion {
        /// What it said.
        theirs: u32,
        /// What this node speaks.
        ours: u32,
    },
    /// A frontier with more tips than a session holds.
    #[error("a frontier has at most {tips_max} tips in a session; the peer's has {tips} or more")]
    TooManyTips {
        /// What came until now.
        tips: usize,
        /// What is allowed.
        tips_max: usize,
    },
    /// This node's own frontier has more tips than a session holds.
    #[error("a frontier has at most {tips_max} tips in a session; this node's has {tips}")]
    TooManyOwnTips {
        /// What it has.
        tips: usize,
        /// What is allowed.
        tips_max: usize,
    },
    /// More ranges than one may ask for at once.
    #[error("one asks for at most {ranges_max} ranges; the peer asked for {ranges} or more")]
    TooManyRanges {
        /// What came until now.
        ranges: usize,
        /// What is allowed.
        ranges_max: usize,
    },
    /// The peer asks again and again.
    #[error("the peer asked more than {wants_max} times")]
    TooManyWants {
        /// What is allowed.
        wants_max: u32,
    },
    /// A list that is not in order, or has something twice.
    #[error("the peer sent {what} that are not in order, or one of them twice")]
    NotInOrder {
        /// Of what.
        what: &'static str,
    },
    /// A message that brings nothing where something was due.
    #[error("the peer sent {message} with nothing in it")]
    Empty {
        /// Which message.
        message: &'static str,
    },
    /// A range that no log can have.
    #[error("the peer asked for entries after {after} through {through} of {author}")]
    EmptyRange {
        /// Whose.
        author: Author,
        /// Exclusive.
        after: Seq,
        /// Inclusive.
        through: Seq,
    },
    /// A range past what this node said that it has.
    #[error("the peer asked for entry {through} of {author}, who has {seq} here")]
    RangeTooFar {
        /// Whose.
        author: Author,
        /// The last one asked for.
        through: Seq,
        /// The last one there is.
        seq: Seq,
    },
    /// An entry that this node did not ask for.
    #[error("the peer sent entry {seq} of {author}, which nobody asked for")]
    NotAsked {
        /// Whose.
        author: Author,
        /// Which.
        seq: Seq,
    },
    /// More entries than this node asked for.
    #[error("the peer sent more than the {entries_max} entries asked for")]
    TooManyEntries {
        /// What was asked for.
        entries_max: u64,
    },
    /// An entry of another store.
    #[error("the peer sent an entry of store {theirs}, this is {ours}")]
    EntryOfOtherStore {
        /// What the entry says.
        theirs: StoreId,
        /// This store.
        ours: StoreId,
    },
    /// More entries that are not authentic or not well formed than can be an accident.
    #[error("the peer sent more than {refused_max} bad entries, the last because of: {last}")]
    TooManyRefused {
        /// What is let pass.
        refused_max: u64,
        /// What is wrong with the last one.
        last: EntryError,
    },
}
