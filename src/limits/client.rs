//! Maxima of a client of a node in another process, and of the streams of its calls.

use std::time::Duration;

use super::{KEY_BYTES_MAX, MESSAGE_BYTES_MAX, VALUE_BYTES_MAX};

/// Chunks of a streamed put that the writer has at a time. When full, the client waits.
pub const PUT_CHUNKS_MAX: usize = 4;
/// Requests and writes of one chunk of a streamed put; the last request may exceed it. Further
/// writes go into the next chunk.
pub const PUT_CHUNK_WRITES_MAX: usize = 1024;
/// Bytes of keys and values after which a chunk of a streamed put is closed.
pub const PUT_CHUNK_BYTES: usize = 1 << 20;
/// Keys in one request of a stream of reads. A request with more is refused.
pub const GETS_IN_REQUEST_MAX: usize = 8192;
/// Writes of one store that a client has in flight on its stream, and reads on theirs. When full, further
/// callers wait.
pub const CLIENT_CALLS_MAX: usize = 8192;
/// Streams that a client tries for a call that was not sent yet: the first one, and another one if the
/// node ended the first. Then the caller gets the error.
pub const CLIENT_STREAMS_MAX: u32 = 2;
/// Wait of a stream of a client before it connects to its node again. It doubles with each attempt.
pub const CLIENT_RETRY_MIN: Duration = Duration::from_millis(50);
/// Longest wait between two attempts to connect.
pub const CLIENT_RETRY_MAX: Duration = Duration::from_secs(5);
/// Time that a node holds one call for the next change of a consumer; then the client calls again.
pub const CLIENT_NEXT_WAIT: Duration = Duration::from_secs(30);
/// Changes inside a group that a watch of a client keeps in mind, so that a new connection does not
/// repeat them. When full, the watch reports a gap instead.
pub const CLIENT_GROUP_MAX: usize = 65_536;

// The node never waits for the callers: twice as many writes as it takes in at a time.
const _: () = assert!(CLIENT_CALLS_MAX >= 2 * PUT_CHUNKS_MAX * PUT_CHUNK_WRITES_MAX);
const _: () = assert!(PUT_CHUNK_BYTES + 2 * (KEY_BYTES_MAX + VALUE_BYTES_MAX) < MESSAGE_BYTES_MAX);
const _: () = assert!(CLIENT_RETRY_MIN.as_millis() < CLIENT_RETRY_MAX.as_millis());
const _: () = assert!(PUT_CHUNK_WRITES_MAX <= GETS_IN_REQUEST_MAX);
