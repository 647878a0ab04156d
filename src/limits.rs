//! Every maximum in one place, each with its unit and its reason.

use std::time::Duration;

/// Bytes of a key. Small enough that a row of the state fits a page with room for its heads.
pub const KEY_BYTES_MAX: usize = 4096;
/// Bytes of a value. Larger things belong in files, with their hash in a value.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Ops of one entry; also where coalescing stops.
pub const OPS_MAX: usize = 1024;
/// Bytes of the encoded ops of one entry: one value of the largest size and then some.
pub const OPS_BYTES_MAX: usize = 2 << 20;
/// Parents of one entry; also where coalescing stops.
pub const PARENTS_MAX: usize = 1024;
/// Bytes of an encoded header: its parents at their largest, and the fixed part.
pub const HEADER_BYTES_MAX: usize = PARENTS_MAX * 112 + 1024;
/// Bytes of a signed entry.
pub const ENTRY_BYTES_MAX: usize = HEADER_BYTES_MAX + OPS_BYTES_MAX + 256;
/// Bytes of a consumer's name inside a cause.
pub const CAUSE_CONSUMER_BYTES_MAX: usize = 255;

/// Tips that a removal names: one a store, more where its author forked. Fits a value.
pub const TIPS_MAX: usize = 4096;
/// Bytes of such a tip: store, seq and entry as text, with what parts them.
pub const TIP_BYTES_MAX: usize = 36 + 20 + 64 + 3;

/// Milliseconds that an entry may be stamped ahead of the local clock before it is held: 1 h.
pub const DRIFT_MS_MAX: u64 = 3_600_000;
/// Wall part of a hybrid clock: 48 bits, the year 10889.
pub const WALL_MS_MAX: u64 = (1 << 48) - 1;

/// Bytes of entries that wait for a prev or a parent, per store. When full the oldest goes.
pub const PENDING_BYTES_MAX: usize = 64 << 20;
/// Parents that do not count, and were not here when what cites them was applied, per store. When
/// full, what cites a removed node's goes on unnoted, and anything else waits. At 32 B each, twice.
pub const ABSENT_PARENTS_MAX: usize = 1 << 16;
/// Bytes of entries that wait for their author to be let in, per store. When full the oldest goes.
pub const STRANGERS_BYTES_MAX: usize = 16 << 20;
/// Bytes of entries that wait for the clock, per store. When full the one due last goes.
pub const HELD_BYTES_MAX: usize = 16 << 20;

/// Ops of entries from elsewhere that are taken in, at the least, before writes that wait here go
/// first; more after a larger group of writes, so that the two share the writer.
pub const INGEST_OPS_MIN: usize = 64;
/// Calls that wait for a store's writer; as many with writes. When full, callers wait.
pub const WRITER_QUEUE_MAX: usize = 1024;
/// Bytes of keys and values that wait for a store's writer, rounded up to a KiB each: a group is
/// written while the next ones wait. When full, callers wait; a larger write waits to be alone.
pub const WRITER_QUEUE_BYTES_MAX: usize = 32 << 20;
/// Writes that one group makes durable with one fsync.
pub const GROUP_WRITES_MAX: usize = 4096;
/// Bytes of ops in one group before it is closed: bounds what a batch on the bus holds.
pub const GROUP_BYTES_MAX: usize = 1 << 20;

/// Bytes of rows that live in memory only (the log has them); when reached, they are flushed.
/// Twice as many while a flush is on its way. Random keys touch a page each, so a larger flush
/// writes fewer pages for each row.
pub const RECENT_BYTES_MAX: usize = 48 << 20;
/// Time after which changed rows go to the state file even when there are few: what a start after
/// a crash reads again from the log.
pub const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Bytes of one file that wait for the disk: then a log's group is made durable so far, and of the
/// state's rows so much is brought to it at a time. Whoever else syncs waits until it has taken them.
pub const UNSYNCED_BYTES_MAX: usize = 512 << 10;
/// Time that long work holds a core on end before it offers it to others.
pub const CORE_HELD_MAX: Duration = Duration::from_micros(150);
/// Bytes of the state file's page cache, per store.
pub const STATE_CACHE_BYTES: usize = 64 << 20;
/// Bytes up to which a value lives in its state row; a longer one is read from the log.
pub const VALUE_INLINE_BYTES_MAX: usize = 1024;

/// Bytes of log between two points of the sparse index.
pub const INDEX_EVERY_BYTES: u64 = 64 << 10;
/// Bytes of a store's logs, as they stand in the files, that are kept for watches that read behind
/// each other. Decoded they take about twice as much.
pub const SHARED_READ_BYTES_MAX: u64 = 4 << 20;
/// Bytes by which a growing log is filled with zeros ahead of its end, so that an fdatasync
/// writes data only and not the file's size. What is longer goes without: writing much twice costs
/// more than the size.
pub const LOG_GROW_BYTES: usize = 64 << 10;

/// Batches a prefix channel holds for its slowest watcher; one that lags more reads the log.
pub const BUS_BATCHES_MAX: usize = 64;
/// Entries (by bytes) that a replay reads ahead of its watcher.
pub const REPLAY_CHUNK_BYTES: usize = 256 << 10;
/// Rows that a scan of the state reads at once.
pub const SCAN_ROWS: usize = 512;
/// A watcher that has nothing to say says so after this long.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Time between two pings of a client to its node, and that one is waited for before it counts as
/// unanswered.
pub const PING_EVERY: Duration = Duration::from_secs(10);
/// Of these on end the node counts as gone: it hangs, or its process was stopped.
pub const PINGS_UNANSWERED_MAX: u32 = 3;
/// Prefixes and patterns of one watch, together: each change is compared with all of them.
pub const WATCH_SELECTORS_MAX: usize = 64;
/// Bytes of a pattern: matching takes time of key times pattern.
pub const PATTERN_BYTES_MAX: usize = 1024;
/// Entries a history walks before it stops.
pub const HISTORY_ENTRIES_MAX: usize = 10_000;

/// Characters of a consumer's name.
pub const CONSUMER_NAME_CHARS_MAX: usize = 64;
/// Consumers of one store: each has a watch and reads the log when it lags.
pub const CONSUMERS_MAX: usize = 1024;
/// Prefixes of one consumer: each change is compared with all of them.
pub const CONSUMER_PREFIXES_MAX: usize = 64;
/// The most that `max_in_flight` of a consumer may be: as many rows live in memory and on disk.
pub const CONSUMER_IN_FLIGHT_MAX: usize = 16_384;
/// Changes of a consumer that are outstanding at a time unless it says otherwise.
pub const CONSUMER_IN_FLIGHT_DEFAULT: usize = 1000;
/// Waits that a consumer may name between attempts.
pub const CONSUMER_BACKOFF_STEPS_MAX: usize = 16;
/// Bytes of keys of a consumer's outstanding changes. When reached, it is fed no more until some
/// are finished.
pub const OUTSTANDING_KEY_BYTES_MAX: usize = 8 << 20;
/// Bytes of changes that were fed to a consumer and wait in memory for a taker. When reached, it is
/// fed no more until some are taken.
pub const CONSUMER_AHEAD_BYTES_MAX: usize = 4 << 20;
/// The position of a consumer moves over what does not match at least this often.
pub const CONSUMER_HEARTBEAT: Duration = Duration::from_secs(1);
/// Dead letters of one consumer. When full, what would be the next one is tried again and again.
pub const DEAD_LETTERS_MAX: usize = 4096;
/// What consumers have acknowledged is durable after this long, and what one fsync takes.
pub const CONSUMERS_COMMIT_EVERY: Duration = Duration::from_millis(20);
/// Bytes of the page cache of a store's consumers file.
pub const CONSUMERS_CACHE_BYTES: usize = 4 << 20;

/// Characters of a hook's name: it is part of a consumer's name and of a cause's.
pub const HOOK_NAME_CHARS_MAX: usize = 48;
/// Hooks of one node: each has a consumer.
pub const HOOKS_MAX: usize = 256;
/// Bytes of `hooks.toml`.
pub const HOOKS_FILE_BYTES_MAX: usize = 1 << 20;
/// Arguments of a hook's command.
pub const HOOK_ARGUMENTS_MAX: usize = 1024;
/// Runs of one hook at a time.
pub const HOOK_PARALLEL_MAX: usize = 64;
/// Changes of one run.
pub const HOOK_BATCH_MAX: usize = 1000;
/// Bytes of keys and values after which a batch takes no more changes.
pub const HOOK_BATCH_BYTES: usize = 4 << 20;
/// Bytes of changes, in KiB, that one hook holds while their keys come to rest. When full, it takes
/// no more.
pub const HOOK_HELD_KIB_MAX: u32 = 16 << 10;
/// Keys that one hook knows to be unquiet. When full, their deadlines begin anew.
pub const HOOK_UNQUIET_KEYS_MAX: usize = 16_384;
/// Runs of one hook in a second, at most.
pub const HOOK_RATE_MAX: u32 = 10_000;
/// Hooks, one because of the other, between a change and what a person wrote. What is deeper is not
/// run: it is a loop.
pub const HOOK_DEPTH_MAX: u32 = 16;
/// Depth up to which hooks run as often as they may.
pub const HOOK_DEPTH_FREE: u32 = 3;
/// Runs of one hook in a second on changes that are deeper: what a loop that branches costs.
pub const HOOK_DEEP_RATE: u32 = 10;
/// Bytes that a hook may print which writes: the ops of an entry with every byte escaped as in JSON.
pub const HOOK_ANSWER_BYTES_MAX: usize = 6 * OPS_BYTES_MAX + OPS_MAX * 128;
/// Bytes of a file with a secret.
pub const HOOK_SECRET_BYTES_MAX: usize = 4096;
/// The longest that a run, or a wait before it, may take: 24 h.
pub const HOOK_TIMEOUT_MAX: Duration = Duration::from_secs(86_400);
/// Time in which a change must be answered, or asked for more: what a hook keeps asking for while
/// it works.
pub const HOOK_ACK_WAIT: Duration = Duration::from_secs(30);
/// Time between the friendly and the other signal to a run that has to end.
pub const HOOK_KILL_GRACE: Duration = Duration::from_secs(2);
/// Time that output may still come after a command has ended, from what it left running. Then that
/// is ended too.
pub const HOOK_LINGER: Duration = Duration::from_millis(200);
/// Bytes of each of stdout and stderr of a run that are kept. The rest is read and forgotten.
pub const HOOK_OUTPUT_BYTES_MAX: usize = 16 << 10;
/// Bytes of the authorities that a hook believes besides those of the machine: all that a browser
/// knows are a quarter of it.
pub const HOOK_CA_BYTES_MAX: usize = 1 << 20;
/// Bytes of a hook's log before it becomes the older one, of which there is one.
pub const HOOK_LOG_BYTES_MAX: u64 = 1 << 20;
/// Runs that one call for a hook's log returns.
pub const HOOK_LOG_RUNS_MAX: usize = 1000;
/// Time between two looks at `hooks.toml`.
pub const HOOKS_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time that runs have to finish when the node stops; then they are ended, and run again later.
pub const HOOKS_STOP_GRACE: Duration = Duration::from_secs(3);

/// Addresses of one node that are kept and told.
pub const ADDRESSES_MAX: usize = 16;
/// A peer says at least this often that it is there.
pub const PEER_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// A path to a peer that is silent for so long is given up.
pub const PEER_PATH_IDLE_MAX: Duration = Duration::from_secs(3);
/// A connection that is silent for so long is over. Gossip stalls behind a dead neighbour until
/// then, so it is short.
pub const PEER_IDLE_MAX: Duration = Duration::from_secs(6);
/// Streams that a peer may have open at a time on one connection.
pub const PEER_STREAMS_MAX: u32 = 16;
/// Bytes that a peer may have sent on a connection and nobody has read yet, over all its streams.
pub const PEER_WINDOW_BYTES: u32 = 8 << 20;
/// Connections of one peer that are served at a time.
pub const PEER_CONNECTIONS_MAX: usize = 4;
/// Connections of one peer on all protocols: as many for gossip, and the old ones of a peer that
/// came back before they were found dead.
pub const PEER_CONNECTIONS_ALL_MAX: usize = 4 * PEER_CONNECTIONS_MAX;
/// Syncs that a peer may have open at a time. An honest one has one, two while it joins.
pub const PEER_SYNCS_MAX: usize = 4;
/// A dial that has not been answered for so long has failed.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(6);
/// Time an endpoint has to say goodbye to its peers when it stops.
pub const ENDPOINT_CLOSE_WAIT: Duration = Duration::from_millis(500);
/// Time that a relay has to answer before an invitation is made without it.
pub const RELAY_WAIT: Duration = Duration::from_secs(5);
/// Milliseconds before a peer is dialled again, at first. The wait doubles with each failure.
pub const DIAL_AGAIN_MIN_MS: u64 = 500;
/// Milliseconds of the longest such wait, before jitter.
pub const DIAL_AGAIN_MAX_MS: u64 = 60_000;
/// Time between two looks at the clocks, to find out that the machine has slept.
pub const CLOCK_LOOK_EVERY: Duration = Duration::from_secs(1);
/// What the wall clock gains or loses between two looks when it was not just corrected: connections
/// are dead after less.
pub const CLOCK_JUMP_MIN: Duration = Duration::from_secs(10);
/// Bytes of a message of the hello protocol: a proof, and what is around it.
pub const HELLO_BYTES_MAX: usize = PROOF_BYTES_MAX + 1024;
/// Grants in a proof of membership: nodes that let each other in, one after the other. Each costs
/// whom it is shown to a signature.
pub const PROOF_GRANTS_MAX: usize = 16;
/// Bytes of the same; a grant has some 500.
pub const PROOF_BYTES_MAX: usize = PROOF_GRANTS_MAX * 1024;
/// Nodes let in by a proof that the root store here does not name yet. When full, the one that came
/// first has to show it again.
pub const PROVEN_MAX: usize = 64;
/// Strangers that are served at a time. When full, the one that came first goes.
pub const HELLOS_MAX: usize = 8;
/// Time a stranger has to say hello, and a node to answer.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Milliseconds after which two peers compare their stores though nothing asked for it, before
/// jitter.
pub const SYNC_EVERY_MS: u64 = 30_000;
/// Milliseconds after a failed sync in which a connection rests: a peer that fails at once must not
/// keep this node busy.
pub const SYNC_RETRY_MS: u64 = 1000;
/// Milliseconds between two looks whether a session that the peer has opened has ended.
pub const SYNC_BUSY_LOOK_MS: u64 = 200;
/// Milliseconds for which a node that has opened a session itself does not answer the peer's: an
/// honest peer answers the first one at once.
pub const SYNC_TIE_MS_MAX: u64 = 1000;
/// Time for which own writes wait after a start for what members have of this node's own log.
pub const OWN_TIP_WAIT: Duration = Duration::from_secs(2);
/// The same while the only members within reach are still giving it back.
pub const OWN_TIP_WAIT_MAX: Duration = Duration::from_secs(60);
/// Frames of entries that wait to be written to a sync stream.
pub const SYNC_FRAMES_AHEAD: usize = 2;
/// Messages that no honest peer sends, after which it is shut out for a while.
pub const STRIKES_MAX: u32 = 8;
/// Milliseconds for which a peer is shut out the first time. Each time is twice as long.
pub const SHUT_OUT_MIN_MS: u64 = 10_000;
/// The same as a duration.
pub const SHUT_OUT_MIN: Duration = Duration::from_millis(SHUT_OUT_MIN_MS);
/// Milliseconds of the longest such time: 1 h.
pub const SHUT_OUT_MAX_MS: u64 = 3_600_000;
/// A peer's new addresses are written to disk at most this often.
pub const ADDRESSES_KEEP_EVERY: Duration = Duration::from_secs(10);
/// Bytes of a peer's status message: its acks, of a hundred authors in a hundred stores.
pub const STATUS_BYTES_MAX: usize = 1 << 20;
/// Milliseconds that an invitation is good for unless it says otherwise: 24 h.
pub const INVITE_MS_DEFAULT: u64 = 24 * 3_600_000;

/// Bytes of one gossip message. Larger entries are announced and fetched.
pub const GOSSIP_BYTES_MAX: usize = 16 << 10;
/// Bytes of header and ops of an entry that is sent as one gossip message; the rest is its frame.
/// A message above the limit would silence a neighbour for good.
pub const GOSSIP_ENTRY_BYTES_MAX: usize = GOSSIP_BYTES_MAX - 512;
/// Entries just applied that wait for whoever carries them to peers. When full the oldest goes,
/// and peers are told to fetch.
pub const FRESH_ENTRIES_MAX: usize = 1024;

/// Gossip messages of a store that wait to be taken in. When full, a sync brings what was lost.
pub const GOSSIP_QUEUE_MAX: usize = 2048;
/// Gossip messages that are taken in together.
pub const GOSSIP_INGEST_MAX: usize = 256;
/// What one message cannot carry is announced at most this often.
pub const ANNOUNCE_EVERY: Duration = Duration::from_millis(20);

/// Bytes of entries after which a message of a sync session is closed; one entry may be larger.
pub const SYNC_FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes of one message of a sync session: an entry of the largest size, and what is around it.
pub const SYNC_MESSAGE_BYTES_MAX: usize = ENTRY_BYTES_MAX + 64;
/// Tips or ranges in one message: a third of a MiB.
pub const SYNC_PAGE_ITEMS_MAX: usize = 4096;
/// Tips of a frontier, or ranges asked for at once, over all pages: a session holds them.
pub const SYNC_ITEMS_MAX: usize = 1 << 16;
/// Times that one side of a session may ask for ranges. A fork takes a few (each looks four times
/// as far back); what is still missing after that is for the next session.
pub const SYNC_WANTS_MAX: u32 = 64;
/// Entries that a side asks back for when an author turns out to have forked, at first.
pub const SYNC_BACK_ENTRIES: u64 = 64;
/// Places of a log that one signature can speak for, from a multiple of this on: what is authentic
/// then depends on the log alone, not on where a message happened to end.
pub const RUN_ENTRIES_MAX: u64 = 32;
/// Entries of a session that wait for a later signature to speak for them: each forger has less
/// than a run of them under way. When full, the next ones are refused.
pub const SYNC_UNPROVEN_MAX: usize = 256;
/// Bytes of the same, a run of the largest entries.
pub const SYNC_UNPROVEN_BYTES_MAX: usize = 32 * ENTRY_BYTES_MAX;
/// Entries of a session that are not authentic or not well formed; then the peer is at fault.
pub const SYNC_REFUSED_MAX: u64 = 16;
/// Silence of a peer that has nothing to prepare: who does not answer a hello is not there.
pub const SYNC_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Milliseconds for which a peer may be silent that reads or writes its disk before it answers.
pub const SYNC_WORK_MS_MAX: u64 = 60_000;
/// The same as a duration.
pub const SYNC_WORK_TIMEOUT: Duration = Duration::from_millis(SYNC_WORK_MS_MAX);

/// Bytes of a file of settings.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;
/// Characters of a store's name.
pub const STORE_NAME_CHARS_MAX: usize = 64;
/// Bytes of a Unix socket's path (`sun_path` on Linux, with its closing NUL).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Connections to the local socket.
pub const CONNECTIONS_MAX: usize = 1024;
/// Bytes of one message on the local socket: an entry of the largest size and its frame.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes of one answer on the local socket: heads and history have many values in one message.
pub const REPLY_BYTES_MAX: usize = 64 << 20;
/// Bytes of keys and values after which a streamed page becomes a message of its own.
pub const PAGE_BYTES: usize = 1 << 20;
/// Entries of a log that are read at once for a stream of them.
pub const LOG_PAGE_ENTRIES: usize = 64;
/// Calls that one connection may have open. More wait at the client.
pub const CALLS_MAX: u32 = 4096;
/// Bytes that a call may have on the way before its reader has taken them: a watch that nobody
/// reads holds this much, a pipelined put keeps the writer busy with it.
pub const CALL_WINDOW_BYTES: u32 = 1 << 20;
/// The same for all calls of a connection together.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Chunks of a streamed put that are with the writer at a time. When full, the client waits.
pub const PUT_CHUNKS_MAX: usize = 4;
/// Requests and writes of one such chunk; the last request may exceed it.
pub const PUT_CHUNK_WRITES_MAX: usize = 1024;
/// Bytes of keys and values after which such a chunk is closed.
pub const PUT_CHUNK_BYTES: usize = 1 << 20;
/// Calls in flight have this long to finish when the node stops; then they are cut off.
pub const STOP_GRACE: Duration = Duration::from_secs(3);

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
const _: () = assert!(VALUE_BYTES_MAX >= "removed".len() + TIPS_MAX * TIP_BYTES_MAX);
const _: () = assert!(WRITER_QUEUE_BYTES_MAX >= 8 * GROUP_BYTES_MAX);
const _: () = assert!(WRITER_QUEUE_BYTES_MAX >= 4 * ENTRY_BYTES_MAX);
const _: () =
    assert!(WRITER_QUEUE_BYTES_MAX >= 2 * PUT_CHUNKS_MAX * (PUT_CHUNK_BYTES + OPS_BYTES_MAX));
const _: () = assert!(WRITER_QUEUE_MAX * 1024 <= WRITER_QUEUE_BYTES_MAX);
const _: () = assert!(RECENT_BYTES_MAX >= 8 * ENTRY_BYTES_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX >= ENTRY_BYTES_MAX);
const _: () = assert!(REPLY_BYTES_MAX >= PAGE_BYTES + ENTRY_BYTES_MAX);
const _: () = assert!(CONNECTION_WINDOW_BYTES >= CALL_WINDOW_BYTES);
const _: () = assert!(PUT_CHUNKS_MAX * PUT_CHUNK_WRITES_MAX <= GROUP_WRITES_MAX);
const _: () = assert!(VALUE_INLINE_BYTES_MAX <= VALUE_BYTES_MAX);
const _: () = assert!(ENTRY_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(SYNC_MESSAGE_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(SYNC_MESSAGE_BYTES_MAX >= SYNC_FRAME_BYTES_MAX + 64);
const _: () = assert!(SYNC_MESSAGE_BYTES_MAX >= SYNC_PAGE_ITEMS_MAX * 100);
const _: () = assert!(SYNC_ITEMS_MAX >= SYNC_PAGE_ITEMS_MAX);
const _: () = assert!(SYNC_UNPROVEN_BYTES_MAX as u64 >= RUN_ENTRIES_MAX * ENTRY_BYTES_MAX as u64);
const _: () = assert!(SYNC_UNPROVEN_MAX as u64 >= 8 * RUN_ENTRIES_MAX);
