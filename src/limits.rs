//! Every maximum in one place, each with its unit, its reason, and who loses when it is reached.
//!
//! Relations that other limits rely on are asserted at compile time, at the end.

use std::time::Duration;

mod client;
mod key;
mod peers;

pub use client::*;
pub use key::*;
pub use peers::*;

/// Bytes of a key. Small enough that a row of the state fits a page with room for its heads. A
/// longer key is refused.
pub const KEY_BYTES_MAX: usize = 4096;
/// Bytes of a value. Larger data belongs in files, with its hash in a value. A longer value is
/// refused.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Ops of one entry. A larger batch is refused; coalescing begins the next entry.
pub const OPS_MAX: usize = 1024;
/// Bytes of the encoded ops of one entry: room for a value of the largest size. A larger batch is
/// refused; coalescing begins the next entry.
pub const OPS_BYTES_MAX: usize = 2 << 20;
/// Parents of one entry. A batch that needs more is refused; coalescing begins the next entry; a
/// key with more heads is merged over several writes.
pub const PARENTS_MAX: usize = 1024;
/// Bytes of an encoded header: `PARENTS_MAX` parents at their largest, and the fixed part.
pub const HEADER_BYTES_MAX: usize = PARENTS_MAX * 112 + 1024;
/// Bytes of a signed entry: header, ops, signature and author.
pub const ENTRY_BYTES_MAX: usize = HEADER_BYTES_MAX + OPS_BYTES_MAX + 256;
/// Bytes of a consumer's name inside a cause. An entry with a longer one is malformed.
pub const CAUSE_CONSUMER_BYTES_MAX: usize = 255;

/// Tips that a removal names: one for each store, more where its author forked. More are malformed.
pub const TIPS_MAX: usize = 4096;
/// Bytes of such a tip as text: store, seq, entry and three separators.
pub const TIP_BYTES_MAX: usize = 36 + 20 + 64 + 3;

/// Highest place in a log that a node believes in: nine years of a million entries a second. An ack
/// that names a later place is a lie, and is refused.
pub const SEQ_MAX: u64 = 1 << 48;
/// Milliseconds, 1 h, that an entry may be stamped ahead of the local clock. An entry further ahead
/// is held until it is due.
pub const DRIFT_MS_MAX: u64 = 3_600_000;
/// Wall part of a stamp, ms since 1970: 47 bits, the year 6429. An entry with a later one is
/// malformed. Far below the end of the 64-bit number that carries it, so sums do not overflow.
pub const STAMP_MS_MAX: u64 = (1 << 47) - 1;
/// Held entries that `status` lists, those that wait longest. It counts the others.
pub const HELD_SHOWN_MAX: usize = 16;

/// Bytes of entries that wait for a prev or a parent, per store. When full, the oldest is dropped;
/// a sync brings it again.
pub const PENDING_BYTES_MAX: usize = 64 << 20;
/// Entries that a replay remembers as read: 64 Ki ids of 32 bytes. A replay looks up all other
/// parents in the log, except those that are heads.
pub const REPLAYED_KEPT_MAX: usize = 1 << 16;
/// Bytes of entries whose author is not admitted yet, per store. When full, the oldest is dropped;
/// a sync brings it again.
pub const STRANGERS_BYTES_MAX: usize = 16 << 20;
/// Bytes of held entries, per store. When full, the one that is due last is dropped; a sync brings
/// it again.
pub const HELD_BYTES_MAX: usize = 16 << 20;

/// Bytes of keys whose heads change with the members; each counts `RECOUNT_KEY_BYTES` more for its
/// heads before and after and its change. With more, watches get a gap with the state, not a
/// retraction of each key.
pub const RECOUNT_BYTES_MAX: usize = 64 << 20;
/// Bytes that a key with one head takes in a recount, besides the key itself.
pub const RECOUNT_KEY_BYTES: usize = 512;

/// Entries that wait that the writer looks at for a peer before others get a turn.
pub const BASES_STEPS_MAX: usize = 4096;
/// Ops of entries from peers that are staged before local writes get a turn. It is the size of the
/// last group of local writes if that was larger, so that the two share the writer.
pub const INGEST_OPS_MIN: usize = 64;
/// Heads that the changes of one group of entries from peers keep in memory until they are
/// published. A group ends when it has more: a key with many heads costs them for each change.
pub const INGEST_HEADS_MAX: usize = 1 << 16;
/// Bytes of memory, about, that the entries of one group from peers take. A group ends when it has
/// more.
pub const INGEST_BYTES_MAX: usize = 16 << 20;
/// Calls in each of the two queues of a store's writer, one for writes and one for the rest. When
/// full, callers wait.
pub const WRITER_QUEUE_MAX: usize = 1024;
/// Bytes of keys and values in the writer's queue, each write rounded up to a KiB: the next groups
/// gather while one is written. When full, callers wait; a write larger than the limit waits until
/// the queue is empty.
pub const WRITER_QUEUE_BYTES_MAX: usize = 32 << 20;
/// Writes that one group makes durable with one fsync. Further writes go into the next group.
pub const GROUP_WRITES_MAX: usize = 4096;
/// Bytes of ops after which a group is closed, which bounds a batch on the bus. Further writes go
/// into the next group.
pub const GROUP_BYTES_MAX: usize = 1 << 20;

/// Bytes of changed rows in memory, about, after which they are flushed to the state file; twice as
/// many while a flush is under way, then the writer waits for it. Random keys touch a page each, so
/// a larger flush writes fewer pages per row.
pub const RECENT_BYTES_MAX: usize = 48 << 20;
/// Longest time between two flushes of changed rows. A start after a crash reads the log of this
/// time again.
pub const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Bytes of one file that are written before they are synced to the disk: a large group is synced
/// in pieces of this size, and so is a flush of the state. Another thread that syncs waits for at
/// most one piece.
pub const UNSYNCED_BYTES_MAX: usize = 512 << 10;
/// Time that long work runs before it offers its core to other threads.
pub const CORE_HELD_MAX: Duration = Duration::from_micros(150);
/// Bytes of the page cache of a store's state file. Beyond it pages are read again.
pub const STATE_CACHE_BYTES: usize = 64 << 20;
/// Bytes up to which a value is part of its state row, on every node. A longer one is in the log.
pub const VALUE_INLINE_BYTES_MAX: usize = 1024;

/// Bytes of log between two points of the sparse index: a look-up reads at most about this much.
/// Each point takes 32 bytes of memory.
pub const INDEX_EVERY_BYTES: u64 = 64 << 10;
/// Places of one author for which it is remembered which branch has them: as many as a removal can
/// name, 48 bytes each. As many ids are remembered by their places. When full, all are forgotten and
/// looked up again.
pub const PLACES_KEPT_MAX: usize = TIPS_MAX;
/// Bytes of a store's logs, as they are in the files, that are kept for watches that read behind
/// each other; decoded they take about twice as much. When full, the least recently used part is
/// dropped; the next watch that needs it reads it again.
pub const SHARED_READ_BYTES_MAX: u64 = 4 << 20;
/// Bytes by which a growing log is filled with zeros ahead of its end, so that an fdatasync writes
/// data only and not the file's size. A shorter log grows by its own length. A longer group grows the
/// file by itself only: writing much data twice costs more than writing the size.
pub const LOG_GROW_BYTES: usize = 64 << 10;
/// Bytes of a log's file after which the next one is begun.
pub const SEGMENT_BYTES: u64 = 32 << 20;

/// Files of logs that all stores of a node have open at a time, where the process may have four
/// times as many descriptors. When full, the one that was not used for longest is closed.
pub const LOG_FILES_MAX: usize = 4096;
/// The same where the process may have few descriptors.
pub const LOG_FILES_MIN: usize = 16;
/// Descriptors that a daemon asks for, if the system allows as many: enough for `LOG_FILES_MAX` and
/// all connections. Commands of hooks get the same limit, and some close every descriptor below it.
pub const DESCRIPTORS_MAX: u64 = 1 << 16;

/// Batches that a prefix channel holds for its slowest watcher. When full, the oldest is dropped; a
/// watcher that had not received it reads the log instead.
pub const BUS_BATCHES_MAX: usize = 64;
/// Bytes of entries that are read from a log at a time, and that a replay reads ahead of its
/// watcher.
pub const REPLAY_CHUNK_BYTES: usize = 256 << 10;
/// Bytes that a merge of all branches reads ahead, over all of them: 64 branches read chunks of the
/// usual size, more of them smaller ones.
pub const MERGE_READ_BYTES_MAX: usize = 64 * REPLAY_CHUNK_BYTES;
/// Rows that a scan of the state reads at a time.
pub const SCAN_ROWS: usize = 512;
/// Bytes of encoded entries that a read of the past keeps for their other keys.
pub const PAST_ENTRIES_BYTES: usize = 4 * ENTRY_BYTES_MAX;
/// Time without any event after which a watch delivers a progress event.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Time between two pings of a client to its node. A ping without an answer in this time counts as
/// unanswered.
pub const PING_EVERY: Duration = Duration::from_secs(10);
/// Unanswered pings in a row after which the client gives up its node: the process hangs or was
/// stopped.
pub const PINGS_UNANSWERED_MAX: u32 = 3;
/// Prefixes and patterns of one watch, together: each change is compared with all of them. A watch
/// with more is refused.
pub const WATCH_SELECTORS_MAX: usize = 64;
/// Bytes of a pattern: matching takes time proportional to key times pattern. A longer one is
/// refused.
pub const PATTERN_BYTES_MAX: usize = 1024;
/// Entries that one call for a key's history walks. The answer ends there.
pub const HISTORY_ENTRIES_MAX: usize = 10_000;

/// Characters of a consumer's name. A longer one is refused.
pub const CONSUMER_NAME_CHARS_MAX: usize = 64;
/// Consumers of one store: each has a watch, and reads the log when it lags. Creating one more is
/// refused.
pub const CONSUMERS_MAX: usize = 1024;
/// Prefixes of one consumer: each change is compared with all of them. A consumer with more is
/// refused.
pub const CONSUMER_PREFIXES_MAX: usize = 64;
/// Largest `max_in_flight` of a consumer: it has as many rows in memory and on disk. A larger one
/// is refused.
pub const CONSUMER_IN_FLIGHT_MAX: usize = 16_384;
/// Outstanding changes of a consumer that sets no `max_in_flight`. When full, no further changes
/// are read for the consumer until some are finished.
pub const CONSUMER_IN_FLIGHT_DEFAULT: usize = 1000;
/// Waits between attempts that a consumer may list. A longer list is refused.
pub const CONSUMER_BACKOFF_STEPS_MAX: usize = 16;
/// Bytes of keys of a consumer's outstanding changes. When full, no further changes are read for
/// the consumer until some are finished.
pub const OUTSTANDING_KEY_BYTES_MAX: usize = 8 << 20;
/// Bytes of changes that were read for a consumer and wait in memory for a taker. When full, no
/// further changes are read for the consumer until some are taken.
pub const CONSUMER_AHEAD_BYTES_MAX: usize = 4 << 20;
/// Time after which a consumer's position moves over changes that do not match it.
pub const CONSUMER_HEARTBEAT: Duration = Duration::from_secs(1);
/// Outstanding changes that one call lists. Further ones are counted only.
pub const CONSUMER_SHOWN_MAX: usize = 1000;
/// Dead letters of one consumer. When full, a change that would become one is tried again and
/// again.
pub const DEAD_LETTERS_MAX: usize = 4096;
/// Longest time before acknowledgements of consumers are written to disk together, not counting the
/// fsync. A crash before that delivers their changes again.
pub const CONSUMERS_COMMIT_EVERY: Duration = Duration::from_millis(20);
/// Bytes of the page cache of a store's consumers file. Beyond it pages are read again.
pub const CONSUMERS_CACHE_BYTES: usize = 4 << 20;

/// Characters of a hook's name, which is part of its consumer's name and of the causes of its
/// writes. A longer one is refused.
pub const HOOK_NAME_CHARS_MAX: usize = 48;
/// Hooks of one node: each has a consumer. A file with more is refused.
pub const HOOKS_MAX: usize = 256;
/// Bytes of `hooks.toml`. A larger file is refused.
pub const HOOKS_FILE_BYTES_MAX: usize = 1 << 20;
/// Arguments of a hook's command. A hook with more is refused.
pub const HOOK_ARGUMENTS_MAX: usize = 1024;
/// Largest number of runs that a hook may have at a time. A hook that asks for more is refused.
pub const HOOK_PARALLEL_MAX: usize = 64;
/// Largest number of changes that a hook may get in one run. A hook that asks for more is refused.
pub const HOOK_BATCH_MAX: usize = 1000;
/// Bytes of keys and values after which a batch takes no more changes. Further changes go into the
/// next run.
pub const HOOK_BATCH_BYTES: usize = 4 << 20;
/// KiB of changes that one hook holds until their keys are quiet. When full, it takes no
/// more changes until some have run.
pub const HOOK_HELD_KIB_MAX: u32 = 16 << 10;
/// Keys of one hook whose first change is remembered until the keys are quiet. When full, all are
/// forgotten: their longest wait begins again.
pub const HOOK_UNQUIET_KEYS_MAX: usize = 16_384;
/// Largest number of runs in a second that a hook may ask for. A hook that asks for more is
/// refused.
pub const HOOK_RATE_MAX: u32 = 10_000;
/// Hooks, each caused by the write of the one before, between a person's write and a change. The
/// hook does not run for a deeper change, which is treated as a loop.
pub const HOOK_DEPTH_MAX: u32 = 16;
/// Depth up to which a hook runs at its full rate.
pub const HOOK_DEPTH_FREE: u32 = 3;
/// Runs of one hook per second on changes deeper than `HOOK_DEPTH_FREE`, so that a branching loop
/// stays slow. Further runs wait.
pub const HOOK_DEEP_RATE: u32 = 10;
/// Bytes that a hook that writes may print: the ops of the largest entry, with every byte escaped
/// as in JSON. A run that prints more fails.
pub const HOOK_ANSWER_BYTES_MAX: usize = 6 * OPS_BYTES_MAX + OPS_MAX * 128;
/// Bytes of a file with a secret. A larger file is refused.
pub const HOOK_SECRET_BYTES_MAX: usize = 4096;
/// Longest time, 24 h, that a hook may set for a run or for a wait before a run. A longer one is
/// refused.
pub const HOOK_TIMEOUT_MAX: Duration = Duration::from_secs(86_400);
/// Time in which a hook must acknowledge a change or ask for more time. A hook asks repeatedly
/// until its run has ended. After this time the change is delivered again.
pub const HOOK_ACK_WAIT: Duration = Duration::from_secs(30);
/// Time between SIGTERM and SIGKILL for a run that must end.
pub const HOOK_KILL_GRACE: Duration = Duration::from_secs(2);
/// Time for which output is read after a command has ended, because a process that it left running
/// may still write. After this time that process is ended, too.
pub const HOOK_LINGER: Duration = Duration::from_millis(200);
/// Bytes of each of stdout and stderr of a run that are kept. The rest is read and dropped.
pub const HOOK_OUTPUT_BYTES_MAX: usize = 16 << 10;
/// Bytes of the file with certificate authorities that a hook trusts besides those of the machine:
/// four times as much as all that a browser knows. A larger file is refused.
pub const HOOK_CA_BYTES_MAX: usize = 1 << 20;
/// Bytes of a hook's log file. When full, the file is kept as the older log file, in place of the
/// previous older one.
pub const HOOK_LOG_BYTES_MAX: u64 = 1 << 20;
/// Runs that one call for a hook's log returns. Further runs are not returned.
pub const HOOK_LOG_RUNS_MAX: usize = 1000;
/// Time between two checks of `hooks.toml` for changes.
pub const HOOKS_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time that runs have to finish when the node stops. Unfinished runs are then ended, and run again
/// after the next start of the node.
pub const HOOKS_STOP_GRACE: Duration = Duration::from_secs(3);

/// Addresses of one node that are kept and announced. Further addresses are dropped.
pub const ADDRESSES_MAX: usize = 16;
/// Bytes of an address or of a relay's URL as text. An announcement with a longer one is refused.
pub const ADDRESS_CHARS_MAX: usize = 256;
/// Time without traffic after which a node sends a packet to show a peer that it is there.
pub const PEER_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Silence after which a path to a peer is given up.
pub const PEER_PATH_IDLE_MAX: Duration = Duration::from_secs(3);
/// Silence after which a connection is closed. Gossip stalls behind a dead neighbour until then, so
/// it is short.
pub const PEER_IDLE_MAX: Duration = Duration::from_secs(6);
/// Time after which an endpoint that could not be bound is bound again. Doubles with each failure.
pub const BIND_AGAIN_MIN: Duration = Duration::from_millis(250);
/// Longest time between two attempts to bind the endpoint: a port that another program has given back
/// is in use soon.
pub const BIND_AGAIN_MAX: Duration = Duration::from_secs(2);
/// Interval between looks at all peers: which were heard of, and which are out of step.
pub const PULSE: Duration = Duration::from_millis(250);
/// Silence after which a connected peer is shown as offline: it sends at least once a second.
pub const PEER_SILENT_MAX: Duration = Duration::from_secs(2);
/// Silence after which a connection is closed if the peer is heard on a later one.
pub const PEER_LEFT_OVER: Duration = Duration::from_secs(2);
/// Silence after which one of them is closed before that if the peer has as many connections as it may.
pub const PEER_LEFT_OVER_FULL: Duration = Duration::from_millis(1200);
/// Least milliseconds between two comparisons with a peer because its acks differ.
pub const LAG_WAIT_MIN_MS: u64 = 1000;
/// Streams that a peer may have open at a time on one connection. Further streams wait at the peer.
pub const PEER_STREAMS_MAX: u32 = 16;
/// Bytes that a peer may send on a connection before they are read, over all its streams. When
/// full, the peer waits.
pub const PEER_WINDOW_BYTES: u32 = 8 << 20;
/// Connections of one peer that are served at a time. When full, a new one is closed.
pub const PEER_CONNECTIONS_MAX: usize = 4;
/// Connections of one peer on all protocols: `PEER_CONNECTIONS_MAX` each for sync and gossip, and
/// room for old connections of a returned peer that are not yet found dead. When full, a new one is
/// closed.
pub const PEER_CONNECTIONS_ALL_MAX: usize = 4 * PEER_CONNECTIONS_MAX;
/// Syncs that a peer may have open at a time. An honest peer has one, and two while it joins. A
/// further sync is refused.
pub const PEER_SYNCS_MAX: usize = 4;
/// Time after which a dial without an answer has failed.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(6);
/// Time that an endpoint has to close its connections when it stops. After it, peers notice the
/// stop by silence.
pub const ENDPOINT_CLOSE_WAIT: Duration = Duration::from_millis(500);
/// Time that a relay has to answer before an invitation is made without the relay's address.
pub const RELAY_WAIT: Duration = Duration::from_secs(5);
/// Milliseconds before the first redial of a peer. The wait doubles with each failure.
pub const DIAL_AGAIN_MIN_MS: u64 = 500;
/// Longest wait between two dials of a peer, in milliseconds, before jitter.
pub const DIAL_AGAIN_MAX_MS: u64 = 60_000;
/// Interval between comparisons of the clocks, by which a sleep of the machine is found.
pub const CLOCK_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Difference between wall clock and running time, from one comparison to the next, that counts as
/// sleep. A smaller one may be a correction of the clock; connections die after less.
pub const CLOCK_JUMP_MIN: Duration = Duration::from_secs(10);
/// Values that expire in one millisecond: their expiries are delivered together. Of more than that
/// none is: watches get a gap with the state.
pub const EXPIRIES_MS_MAX: usize = 1 << 16;
/// Bytes of a message of the hello protocol: a proof, and its frame. A longer one is refused.
pub const HELLO_BYTES_MAX: usize = PROOF_BYTES_MAX + 1024;
/// Grants in a proof of membership: nodes that admitted each other, one after the other. Checking
/// each costs a signature. A longer proof is refused.
pub const PROOF_GRANTS_MAX: usize = 16;
/// Bytes of a proof of membership; a grant has some 500. A longer proof is refused.
pub const PROOF_BYTES_MAX: usize = PROOF_GRANTS_MAX * 1024;
/// Nodes that were admitted by a proof and that this node's root store does not name yet. When
/// full, the oldest one is forgotten and has to show its proof again.
pub const PROVEN_MAX: usize = 64;
/// Strangers that are connected and have not said hello. When full, the oldest one of the source
/// with the most of them is disconnected.
pub const HELLOS_MAX: usize = 32;
/// Hellos that are answered at a time: an invitation or a proof is checked. More wait, within
/// `HELLO_TIMEOUT`.
pub const HELLOS_ANSWERED_MAX: usize = 4;
/// Time that a stranger has to say hello, and a node to answer. Then the connection is closed.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Milliseconds after which two peers compare their frontiers even if nothing suggests a difference,
/// before jitter.
pub const SYNC_EVERY_MS: u64 = 30_000;
/// Least milliseconds between two syncs over one connection with a node of which a copy runs, too. They
/// are to know of each other's entries within 2 s.
pub const COPIES_SYNC_EVERY_MS: u64 = 250;
/// Milliseconds after which a connection with such a node is synced even without news: gossip reaches
/// one of both copies only, and this node may not receive what the other one writes.
pub const COPIES_LOOK_MS: u64 = 250;
/// Time for which a repair waits for syncs with the connected members, so that it knows each fork
/// that they know.
pub const REPAIR_SYNC_WAIT: Duration = Duration::from_secs(2);
/// Milliseconds after a failed sync in which a connection rests: a peer that fails at once must not
/// keep this node busy.
pub const SYNC_RETRY_MS: u64 = 1000;
/// Milliseconds between two checks whether a session that the peer opened has ended.
pub const SYNC_BUSY_LOOK_MS: u64 = 200;
/// Milliseconds for which a node that has opened a session does not answer a session of the peer:
/// an honest peer answers the first session at once.
pub const SYNC_TIE_MS_MAX: u64 = 1000;
/// Longest time for which local writes wait after a start until members have reported the tip of
/// this node's log. Then local writes begin anyway.
pub const OWN_TIP_WAIT: Duration = Duration::from_secs(2);
/// Longest time for which local writes wait while the only members within reach still send entries
/// of this node.
pub const OWN_TIP_WAIT_MAX: Duration = Duration::from_secs(60);
/// Branches of held entries of which the newest entry is remembered, per store, so that entries which
/// were dropped to make room are not asked for again in each sync. Above it they are.
pub const HELD_BRANCHES_MAX: usize = 1024;
/// Time for which own writes wait after that until the members within reach have reported their
/// clocks.
pub const CLOCKS_WAIT: Duration = Duration::from_secs(1);
/// Time for which a node whose clock has jumped waits until a member is connected again. All were
/// hung up; a dial takes up to some seconds after a sleep of the machine.
pub const CLOCKS_CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Time without a new entry after which own writes no longer wait for such a member.
pub const OWN_TIP_STILL: Duration = Duration::from_secs(5);
/// Frames of entries that wait to be written to a sync stream. When full, reading the log waits for
/// the peer.
pub const SYNC_FRAMES_AHEAD: usize = 2;
/// Strikes, messages that no honest peer sends, after which a peer is shut out for a while.
pub const STRIKES_MAX: u32 = 8;
/// Milliseconds for which a peer is shut out the first time. Each further time is twice as long.
pub const SHUT_OUT_MIN_MS: u64 = 10_000;
/// `SHUT_OUT_MIN_MS` as a duration.
pub const SHUT_OUT_MIN: Duration = Duration::from_millis(SHUT_OUT_MIN_MS);
/// Longest time, 1 h in milliseconds, for which a peer is shut out.
pub const SHUT_OUT_MAX_MS: u64 = 3_600_000;
/// Milliseconds, 10 min, of peace with a peer that was let in, after which a round of `STRIKES_MAX`
/// strikes is forgotten: the next shut-out is half as long.
pub const STRIKES_FORGET_MS: u64 = 600_000;
/// Rounds of `STRIKES_MAX` strikes that are remembered: as many as make the longest shut-out.
pub const STRIKES_ROUNDS_MAX: u32 = 10;
/// Shortest time between two writes of a peer's addresses to disk while the node runs. When it stops,
/// the newest are written.
pub const ADDRESSES_KEEP_EVERY: Duration = Duration::from_secs(10);
/// Bytes of a peer's status message, which has its acks: room for a hundred authors in each of a
/// hundred stores. A longer one is refused.
pub const STATUS_BYTES_MAX: usize = 1 << 20;
/// Milliseconds, 24 h, for which an invitation that names no expiry can be redeemed.
pub const INVITE_MS_DEFAULT: u64 = 24 * 3_600_000;

/// Bytes of one gossip message. A larger entry is announced, and peers fetch it with a sync.
pub const GOSSIP_BYTES_MAX: usize = 16 << 10;
/// Bytes of header and ops of an entry that is sent as one gossip message; the rest is its frame. A
/// message above the limit would silence a neighbour for good.
pub const GOSSIP_ENTRY_BYTES_MAX: usize = GOSSIP_BYTES_MAX - 512;
/// Entries in the outbox of a store. When full, the oldest is dropped, and peers are asked to fetch
/// by sync.
pub const FRESH_ENTRIES_MAX: usize = 1024;

/// Gossip messages of a store that wait for intake. When full, messages are lost; a sync brings
/// their entries.
pub const GOSSIP_QUEUE_MAX: usize = 2048;
/// Gossip messages whose entries go through intake together.
pub const GOSSIP_INGEST_MAX: usize = 256;
/// Syncs in a second that messages in gossip make a node wish for with one peer. A wish above it is
/// put off.
pub const WISHES_PER_S: u32 = 8;
/// Such syncs that are saved up.
pub const WISHES_RESERVE: u32 = 32;
/// Gossip messages in a second of one neighbour that may be of no use: duplicates, refused, of
/// unknown authors. Each costs a check of a signature. Above it, entries of this neighbour are
/// fetched by a sync instead.
pub const GOSSIP_WASTE_PER_S: u32 = 1000;
/// Such messages that are saved up: a sync and gossip bring the same entries.
pub const GOSSIP_WASTE_RESERVE: u32 = 8192;
/// Such messages that an entry of an unknown author counts as: it takes memory, too.
pub const GOSSIP_STRANGER_WASTE: u32 = 16;
/// Acks and announcements of one node that gossip may bring in a second: twice what an honest node
/// sends of one store. More count as waste of the neighbour that delivers them.
pub const STATEMENTS_PER_S: u32 = 200;
/// Such statements that are saved up.
pub const STATEMENTS_RESERVE: u32 = 1000;
/// Statuses of one peer that are answered in a second. More wait.
pub const STATUSES_PER_S: u32 = 4;
/// Such statuses that are saved up.
pub const STATUSES_RESERVE: u32 = 16;
/// Tips in an ack that is sent as one gossip message. An ack with more is sent in parts, those that
/// have changed first.
pub const ACK_TIPS_MAX: usize = (GOSSIP_ENTRY_BYTES_MAX - 256) / ACK_TIP_BYTES_MAX;
/// Bytes of such a tip: two ids, a place, and their frames.
pub const ACK_TIP_BYTES_MAX: usize = 2 * 34 + 8 + 3;
/// Shortest time between two announcements of entries that do not fit a message.
pub const ANNOUNCE_EVERY: Duration = Duration::from_millis(20);

/// Bytes of entries after which a message of a sync session is closed. A single entry may be
/// larger.
pub const SYNC_FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes of one message of a sync session: an entry of the largest size, and its frame. A peer that
/// sends more ends the session.
pub const SYNC_MESSAGE_BYTES_MAX: usize = ENTRY_BYTES_MAX + 64;
/// Tips or ranges in one message of a sync session: a third of a MiB. A peer that sends more ends
/// the session.
pub const SYNC_PAGE_ITEMS_MAX: usize = 4096;
/// Tips of a frontier, or ranges that are asked for at once, over all pages: a session holds them
/// in memory. A peer that sends more ends the session.
pub const SYNC_ITEMS_MAX: usize = 1 << 16;
/// Times that one side of a session may ask for ranges. A fork takes a few, each reaching four
/// times as far back. Entries that are still missing after that are left to the next session.
pub const SYNC_WANTS_MAX: u32 = 64;
/// Times that one side of a session may ask for the same entries, on average over all entries of the
/// other side, besides `SYNC_ITEMS_MAX`. A fork takes less than four: each step back is four times as
/// long.
pub const SYNC_ASKED_TIMES_MAX: u64 = 4;
/// Ranges in a session that end below a tip, as those for a damaged log do: each costs its sender a
/// read. The rest is left to the next session.
pub const SYNC_INNER_RANGES_MAX: usize = 4096;
/// Tips of one author that are looked up in a session, each for a read. The rest is passed over: an
/// author has a tip for each of its forks, and those are bounded.
pub const SYNC_AUTHOR_TIPS_MAX: usize = 256;
/// Milliseconds that an entry waits for a parent of a member before it is applied without it: some
/// syncs, in which an honest parent comes.
pub const PARENT_WAIT_MS: u64 = 60_000;
/// Forks of one author in one store. With one more its key is spent there. An honest mistake is a
/// machine image with an identity in it, started that often; each fork costs a file and a look-up.
pub const FORKS_MAX: usize = 64;
/// Entries before its own tip that a side asks for first when an author turns out to have forked.
pub const SYNC_BACK_ENTRIES: u64 = 64;
/// Entries in a run; a run begins at each multiple of this seq. One signature vouches for one run
/// only, so which entries are authentic depends on the log alone, and not on where a message ended.
pub const RUN_ENTRIES_MAX: u64 = 32;
/// Bytes of header and ops of the entries of a run, as far as one signature can vouch back, the entry
/// that vouches included. So what must be stored together fits in one group and one message.
pub const RUN_BYTES_MAX: usize = 1 << 20;
/// Bytes of entries that are set aside, per store: their own signature is wrong, and the entry that
/// vouches for them waits. When full, the oldest is dropped; a sync brings it again.
pub const UNVOUCHED_BYTES_MAX: usize = 8 << 20;
/// Entries of a session that wait for a later signature to vouch for them: a forger has less than a
/// run of them under way. When full, the next ones are refused.
pub const SYNC_UNPROVEN_MAX: usize = 256;
/// Bytes of the entries that `SYNC_UNPROVEN_MAX` counts: a run of the largest ones. When full, the
/// next ones are refused.
pub const SYNC_UNPROVEN_BYTES_MAX: usize = 32 * ENTRY_BYTES_MAX;
/// Entries of a session that are malformed or not authentic. A peer that sends more is at fault,
/// and the session ends.
pub const SYNC_REFUSED_MAX: u64 = 16;
/// Silence after which a session ends when the peer has nothing to prepare: a peer that does not
/// answer a hello has stopped or is out of reach.
pub const SYNC_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Milliseconds for which a peer may be silent while it reads or writes its disk before an answer.
pub const SYNC_WORK_MS_MAX: u64 = 60_000;
/// `SYNC_WORK_MS_MAX` as a duration.
pub const SYNC_WORK_TIMEOUT: Duration = Duration::from_millis(SYNC_WORK_MS_MAX);

/// Bytes of a settings file. A larger file is refused.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;
/// Bytes of pages of `meta.db` in memory: the whole file of most nodes.
pub const META_CACHE_BYTES: usize = 1 << 20;
/// Characters of a node's name. A longer one is refused here, and cut where another node wrote it.
pub const NODE_NAME_CHARS_MAX: usize = 64;
/// Characters of a store's name. A longer one is refused.
pub const STORE_NAME_CHARS_MAX: usize = 64;
/// Stores that a node closes at a time when it stops. Each waits for a few fsyncs.
pub const STORES_CLOSED_AT_ONCE: usize = 32;
/// Stores that other nodes list and that this node opens. Each has two threads, and some files and
/// memory. When full, further ones are not opened, and `status` counts them. Those that this node
/// lists itself do not count.
pub const STORES_SHARED_MAX: usize = 128;
/// The same for the stores that one other node lists: no node takes the room of all others.
pub const STORES_OF_LISTER_MAX: usize = 64;
/// Bytes of the path of a Unix socket: `sun_path` on Linux without its closing NUL. A longer path
/// is refused.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Connections to the local socket. When full, new ones wait to be accepted.
pub const CONNECTIONS_MAX: usize = 1024;
/// Bytes of one request on the local socket: an entry of the largest size, and its frame. A larger
/// request is refused.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes of one message of an answer on the local socket: what gRPC clients take by default. Answers
/// that may be longer come in several messages; a message that is larger becomes an error.
pub const REPLY_BYTES_MAX: usize = 4 << 20;
/// Bytes of one answer about the history of a key, over all its messages. A history ends before it.
pub const HISTORY_BYTES_MAX: usize = 64 << 20;
/// Bytes of keys and values after which a message of a paged answer is closed.
pub const PAGE_BYTES: usize = 1 << 20;
/// Entries of a log that are read at a time for a stream of them.
pub const LOG_PAGE_ENTRIES: usize = 64;
/// Calls that one connection may have open. Further calls wait at the client.
pub const CALLS_MAX: u32 = 4096;
/// Bytes of one call that are sent before its reader takes them: a watch that is not read holds
/// this much, a pipelined put keeps the writer busy with it. When full, the sender waits.
pub const CALL_WINDOW_BYTES: u32 = 1 << 20;
/// `CALL_WINDOW_BYTES` for all calls of one connection together.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Time that calls have to finish when the node stops. After it they are cancelled.
pub const STOP_GRACE: Duration = Duration::from_secs(3);

const _: () = assert!(DESCRIPTORS_MAX >= 4 * LOG_FILES_MAX as u64);
const _: () = assert!(ADDRESSES_MAX * (ADDRESS_CHARS_MAX + 4) < GOSSIP_ENTRY_BYTES_MAX / 2);
const _: () = assert!(SHUT_OUT_MIN_MS << (STRIKES_ROUNDS_MAX - 1) >= SHUT_OUT_MAX_MS);
const _: () = assert!(LOG_FILES_MIN <= LOG_FILES_MAX && STORES_OF_LISTER_MAX < STORES_SHARED_MAX);
const _: () = assert!(CLOCK_JUMP_MIN.as_millis() > PEER_IDLE_MAX.as_millis());
const _: () = assert!(DIAL_AGAIN_MIN_MS < DIAL_AGAIN_MAX_MS && SHUT_OUT_MIN_MS < SHUT_OUT_MAX_MS);
const _: () = assert!(PENDING_BYTES_MAX >= 16 * ENTRY_BYTES_MAX);
const _: () = assert!(CONSUMER_NAME_CHARS_MAX <= CAUSE_CONSUMER_BYTES_MAX);
const _: () = assert!(HOOK_NAME_CHARS_MAX + "hook.".len() <= CONSUMER_NAME_CHARS_MAX);
const _: () = assert!(HOOK_DEPTH_FREE < HOOK_DEPTH_MAX && HOOK_DEEP_RATE <= HOOK_RATE_MAX);
const _: () = assert!(HOOK_HELD_KIB_MAX as usize * 1024 >= 4 * OPS_BYTES_MAX);
const _: () = assert!(HOOK_LOG_BYTES_MAX >= 8 * HOOK_OUTPUT_BYTES_MAX as u64);
const _: () = assert!(CONSUMER_IN_FLIGHT_DEFAULT <= CONSUMER_IN_FLIGHT_MAX);
const _: () = assert!(CONSUMER_AHEAD_BYTES_MAX >= ENTRY_BYTES_MAX);
const _: () = assert!(OUTSTANDING_KEY_BYTES_MAX >= OPS_MAX * KEY_BYTES_MAX);
const _: () = assert!(CONSUMERS_COMMIT_EVERY.as_millis() <= 50);
const _: () = assert!(HELD_BYTES_MAX >= 4 * ENTRY_BYTES_MAX);
const _: () = assert!(OPS_BYTES_MAX >= VALUE_BYTES_MAX + KEY_BYTES_MAX + 64);
// All branches of a spent key are looked up in one session, and a removal can name them.
const _: () = assert!(FORKS_MAX + 2 <= SYNC_AUTHOR_TIPS_MAX && FORKS_MAX + 2 <= TIPS_MAX);
const _: () = assert!(VALUE_BYTES_MAX >= "removed".len() + TIPS_MAX * TIP_BYTES_MAX);
const _: () = assert!(WRITER_QUEUE_BYTES_MAX >= 8 * GROUP_BYTES_MAX);
const _: () = assert!(WRITER_QUEUE_BYTES_MAX >= 4 * ENTRY_BYTES_MAX);
const _: () =
    assert!(WRITER_QUEUE_BYTES_MAX >= 2 * PUT_CHUNKS_MAX * (PUT_CHUNK_BYTES + OPS_BYTES_MAX));
const _: () = assert!(WRITER_QUEUE_MAX * 1024 <= WRITER_QUEUE_BYTES_MAX);
const _: () = assert!(RECENT_BYTES_MAX >= 8 * ENTRY_BYTES_MAX);
const _: () = assert!(REPLY_BYTES_MAX >= PAGE_BYTES + ENTRY_BYTES_MAX);
const _: () = assert!(CONNECTION_WINDOW_BYTES >= CALL_WINDOW_BYTES);
const _: () = assert!(PUT_CHUNKS_MAX * PUT_CHUNK_WRITES_MAX <= GROUP_WRITES_MAX);
const _: () = assert!(VALUE_INLINE_BYTES_MAX <= VALUE_BYTES_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX >= ENTRY_BYTES_MAX && ENTRY_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(SYNC_MESSAGE_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(SYNC_MESSAGE_BYTES_MAX >= SYNC_FRAME_BYTES_MAX + 64);
const _: () = assert!(SYNC_MESSAGE_BYTES_MAX >= SYNC_PAGE_ITEMS_MAX * 100);
const _: () = assert!(SYNC_ITEMS_MAX >= SYNC_PAGE_ITEMS_MAX);
const _: () = assert!(SYNC_UNPROVEN_BYTES_MAX as u64 >= RUN_ENTRIES_MAX * ENTRY_BYTES_MAX as u64);
const _: () = assert!(SYNC_UNPROVEN_MAX as u64 >= 8 * RUN_ENTRIES_MAX);
