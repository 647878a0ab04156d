//! The rules of a session that a peer can break.

use crate::{
    id::{Author, Seq, StoreId},
    protocol::entry::EntryError,
};

/// The rule that ended a sync session early. The peer broke it in every case but `TooManyOwnTips`,
/// `WrongVersion` and `PeerTooOld`; see [`is_fault`](SyncError::is_fault).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// Bytes that do not decode to a message.
    #[error("the peer sent a malformed message: {what}")]
    Malformed {
        /// The first fault, as a clause.
        what: &'static str,
    },
    /// A message longer than `SYNC_MESSAGE_BYTES_MAX`.
    #[error("the peer announced a message of {bytes} bytes; the limit is {bytes_max}")]
    MessageTooLarge {
        /// Bytes that the peer announced.
        bytes: usize,
        /// `SYNC_MESSAGE_BYTES_MAX`.
        bytes_max: usize,
    },
    /// A message that the session does not expect now.
    #[error("the peer sent {message} when {phase}")]
    OutOfTurn {
        /// Name of the message.
        message: &'static str,
        /// The state of the session, as a clause.
        phase: &'static str,
    },
    /// The peer opened a session of another store.
    #[error("the peer wants to sync store {theirs}; this store is {ours}")]
    WrongStore {
        /// The store in its Hello.
        theirs: StoreId,
        /// The store of this session.
        ours: StoreId,
    },
    /// The peer speaks only other versions of sync.
    #[error(
        "the peer speaks version {theirs} of sync, this node versions up to {ours}: update the older one"
    )]
    WrongVersion {
        /// The version in its Hello.
        theirs: u32,
        /// `VERSION` of this node.
        ours: u32,
    },
    /// The peer lacks entries that were removed here, and speaks no version in which it could get the base
    /// instead.
    #[error(
        "the peer lacks entries through {seq} of {}, which were removed here, and its version of Lattice \
         cannot take a base instead: update it",
        author.short()
    )]
    PeerTooOld {
        /// Author of the entries; of several, the first.
        author: Author,
        /// Last entry of the author that was removed, inclusive.
        seq: Seq,
    },
    /// A manifest or a part of a base with more bytes than it may have.
    #[error("the peer sent more than {bytes_max} bytes of {what}")]
    BaseTooLong {
        /// The message or part with too many bytes, with its article.
        what: &'static str,
        /// Bytes that were allowed.
        bytes_max: u64,
    },
    /// The peer asked for the base twice.
    #[error("the peer asked for the base again")]
    BaseAskedAgain,
    /// The peer asked for a part twice, or for one that the base does not have.
    #[error("the peer asked for a part that was not offered, or again for one")]
    PartNotOffered,
    /// A frontier with more tips than a session holds.
    #[error("the peer's frontier has {tips} tips or more; a session holds {tips_max}")]
    TooManyTips {
        /// Tips received before the session ended.
        tips: usize,
        /// `SYNC_ITEMS_MAX`.
        tips_max: usize,
    },
    /// This node's own frontier has more tips than a session holds.
    #[error("this node's frontier has {tips} tips; a session holds {tips_max}")]
    TooManyOwnTips {
        /// Tips of this node's frontier.
        tips: usize,
        /// `SYNC_ITEMS_MAX`.
        tips_max: usize,
    },
    /// More ranges in one Want than a session holds.
    #[error("the peer asked for {ranges} ranges or more; the limit is {ranges_max}")]
    TooManyRanges {
        /// Ranges received before the session ended.
        ranges: usize,
        /// `SYNC_ITEMS_MAX`.
        ranges_max: usize,
    },
    /// The peer sent more Wants than a session serves.
    #[error("the peer asked more than {wants_max} times")]
    TooManyWants {
        /// `SYNC_WANTS_MAX`.
        wants_max: u32,
    },
    /// The peer asked for the same entries again and again.
    #[error("the peer asked for more than {entries_max} entries, most of them more than once")]
    AskedAgain {
        /// `SYNC_ASKED_TIMES_MAX` times the entries here, and `SYNC_ITEMS_MAX`.
        entries_max: u64,
    },
    /// A list that does not ascend strictly.
    #[error("the peer sent {what} that are not in order, or one of them twice")]
    NotInOrder {
        /// The items of the list, in the plural.
        what: &'static str,
    },
    /// A list without items where at least one was due.
    #[error("the peer sent an empty {message}")]
    Empty {
        /// Name of the message.
        message: &'static str,
    },
    /// A range that has no entries.
    #[error("the peer asked for entries after {after} through {through} of {author}")]
    EmptyRange {
        /// Author of the entries.
        author: Author,
        /// Seq before the first entry, exclusive.
        after: Seq,
        /// Seq of the last entry, inclusive.
        through: Seq,
    },
    /// A range past the frontier that this node sent.
    #[error("the peer asked for entry {through} of {author}; this node's last entry is {seq}")]
    RangeTooFar {
        /// Author of the entries.
        author: Author,
        /// Seq of the last entry asked for.
        through: Seq,
        /// Seq of the last entry that this node has.
        seq: Seq,
    },
    /// An entry that this node did not ask for.
    #[error("the peer sent entry {seq} of {author}, which was not asked for")]
    NotAsked {
        /// Author of the entries.
        author: Author,
        /// Seq of the entry.
        seq: Seq,
    },
    /// More entries than this node asked for.
    #[error("the peer sent more than the {entries_max} entries that were asked for")]
    TooManyEntries {
        /// Entries that the open Want covers.
        entries_max: u64,
    },
    /// An entry of another store.
    #[error("the peer sent an entry of store {theirs}; this store is {ours}")]
    EntryOfOtherStore {
        /// The store in its header.
        theirs: StoreId,
        /// The store of this session.
        ours: StoreId,
    },
    /// A piece of a base that is not full was not the last one.
    #[error("the peer sent a {message} after one with less than {bytes_min} bytes")]
    ShortPiece {
        /// Name of the message.
        message: &'static str,
        /// Bytes of a full piece.
        bytes_min: usize,
    },
    /// More entries that are not authentic or malformed than an accident explains.
    #[error("the peer sent more than {refused_max} bad entries, the last because of: {last}")]
    TooManyRefused {
        /// `SYNC_REFUSED_MAX`.
        refused_max: u64,
        /// The error of the last bad entry.
        last: EntryError,
    },
}

impl SyncError {
    /// Returns whether the peer has broken a rule: an honest one of any version does not.
    pub fn is_fault(&self) -> bool {
        !matches!(
            self,
            Self::TooManyOwnTips { .. } | Self::WrongVersion { .. } | Self::PeerTooOld { .. }
        )
    }
}
