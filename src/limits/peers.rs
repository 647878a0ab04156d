//! Maxima of bases and acks that come from peers.

use std::time::Duration;

use super::{
    KEY_BYTES_MAX, PEER_WINDOW_BYTES, STATUS_BYTES_MAX, SYNC_FRAME_BYTES_MAX, SYNC_FRAMES_AHEAD,
    SYNC_WORK_MS_MAX, VALUE_INLINE_BYTES_MAX,
};

/// Acks in one gossip message or status that a node keeps for one author: its branches. More show
/// nothing.
pub const ACK_BRANCHES_MAX: usize = 256;
/// Tips of one author in one ack that are looked up in the log to find out whether its node has an
/// entry of that author, who has forked. The rest show nothing.
pub const ACK_LEADS_MAX: usize = 64;
/// Bytes of a signed ack that is kept and passed on to other members: some 700 tips. A longer one only
/// comes from its own node.
pub const ACK_KEPT_BYTES_MAX: usize = 64 << 10;
/// Acks of other members that are kept, one for each member and store. Of more, those that come first are
/// kept: what is lost is heard again.
pub const ACKS_KEPT_MAX: usize = 4096;
/// Bytes of all of them. For one that does not fit, longer ones are given up, the longest first.
pub const ACKS_KEPT_BYTES_MAX: usize = 32 << 20;
/// Bytes of acks of other members in a status, which has own ones, too. The rest goes with the next status.
pub const ACKS_RELAYED_BYTES_MAX: usize = 256 << 10;
/// Acks of other members in a status. Those after it are not looked at.
pub const ACKS_RELAYED_MAX: usize = 1024;
/// Time between two writes of acks to disk. A crash loses those of this time, which are heard again.
pub const ACKS_KEEP_EVERY: Duration = Duration::from_secs(5);

/// Bytes of the manifest of a base: one of 10,000 authors and 100 GiB. A longer one is refused, and
/// no node makes one.
pub const BASE_MANIFEST_BYTES_MAX: usize = 16 << 20;
/// Parts of a base of a peer: 100 GiB in parts of some MiB. Each takes a descriptor's entry and its
/// index in memory. A base with more is refused.
pub const BASE_PARTS_MAX: usize = 1 << 16;
/// Authors of whom a base of a peer has entries: as many as a frontier may name in a session. A base
/// with more is refused.
pub const BASE_ANCHORS_MAX: usize = 1 << 16;
/// Bytes of a part of a base of a peer: a node ends a part after 64 MiB; one more chunk and the index
/// follow. A base with a longer part is refused.
pub const BASE_PART_BYTES_MAX: u64 = 128 << 20;
/// Bytes of a chunk of such a part, which is read as a whole: room for the row of a key with heads of
/// 16 Ki branches, each with a value in the row. A part with a longer one is refused.
pub const BASE_CHUNK_BYTES_MAX: u32 = 32 << 20;
/// Bytes of the index of such a part. A part with a longer one is refused.
pub const BASE_INDEX_BYTES_MAX: u32 = 8 << 20;
/// Bytes of the key of a record of a base: a key, the id of an entry, and the kind. A base with a longer
/// one is refused.
pub const BASE_KEY_BYTES_MAX: usize = KEY_BYTES_MAX + 64;
/// Bytes of a piece of a base in one message. A piece that is shorter and not the last one of its part
/// is refused: small pieces could go on for ever.
pub const BASE_PIECE_BYTES: usize = 256 << 10;
/// Milliseconds of waiting for a peer in which `BASE_FLOOR_BYTES` of its base must come.
pub const BASE_FLOOR_MS: u64 = SYNC_WORK_MS_MAX;
/// Bytes of a base that must come in `BASE_FLOOR_MS`: 8.5 KiB/s, less than the slowest links that people
/// use. A slower peer is given up, because a store takes one base at a time; parts that have come are
/// kept.
pub const BASE_FLOOR_BYTES: u64 = 512 << 10;
/// Bytes that a peer may send on a stream before they are read: what a fast link of 100 ms has on its way.
pub const SYNC_WINDOW_BYTES: u32 = 1_250_000;
const _: () = assert!(SYNC_WINDOW_BYTES < PEER_WINDOW_BYTES);
/// Time for which a peer that takes a base may be silent after a part. What is on its way by then comes as
/// slowly as a base may: a window of the stream, and the frames that wait to be written to it.
pub const BASE_WANT_TIMEOUT: Duration = Duration::from_millis(
    SYNC_WORK_MS_MAX
        + (SYNC_WINDOW_BYTES as u64 + (SYNC_FRAMES_AHEAD * BASE_PIECE_BYTES) as u64)
            * BASE_FLOOR_MS
            / BASE_FLOOR_BYTES,
);
/// Milliseconds for which a peer that has failed to give its base is asked last. Doubles with each failure.
pub const BASE_LAST_MIN_MS: u64 = 60_000;
/// Longest time in milliseconds for which such a peer is asked last.
pub const BASE_LAST_MAX_MS: u64 = 600_000;
/// Times that a base is not as its hash says once all of it has come, because the disk gave back other
/// bytes or its content is malformed. After that it is refused until the store is opened again.
pub const BASE_TRIES_MAX: u32 = 3;
/// Bases of which failures are remembered. When full, all are forgotten.
pub const BASES_REMEMBERED_MAX: usize = 64;
/// Milliseconds without a byte of the base that is being taken, after which a base of an older act may
/// take its place.
pub const BASE_IDLE_MS: u64 = 600_000;

const _: () = assert!(ACK_KEPT_BYTES_MAX <= ACKS_RELAYED_BYTES_MAX);
const _: () = assert!(2 * ACKS_RELAYED_BYTES_MAX <= STATUS_BYTES_MAX);
const _: () = assert!(BASE_PIECE_BYTES <= SYNC_FRAME_BYTES_MAX);
const _: () = assert!(BASE_FLOOR_BYTES >= BASE_PIECE_BYTES as u64);
const _: () = assert!(BASE_LAST_MIN_MS <= BASE_LAST_MAX_MS);
const _: () = assert!(BASE_CHUNK_BYTES_MAX as usize >= 16_384 * (VALUE_INLINE_BYTES_MAX + 128));
const _: () = assert!(BASE_PART_BYTES_MAX >= (64 << 20) + BASE_CHUNK_BYTES_MAX as u64);

/// How long tips that a node named in a store when it left are waited for before an admin confirms the
/// leave there without them: as long as a node that is away may take to bring them. They may not exist,
/// and until then somebody with the old key can add entries to that store.
pub const CLAIMS_WAIT_MS_MAX: u64 = 7 * 86_400_000;
/// Time after which an admin looks again whether such tips have come.
pub const CLAIMS_AGAIN: Duration = Duration::from_secs(60);
