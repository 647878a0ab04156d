//! Lattice: a pub/sub node with watch streams on a replicated key-value store that needs no
//! server.
//!
//! [`Node`] is an open data directory, [`Store`] a handle on one of its stores, [`Watch`] a stream of
//! changes of some keys. [`architecture`] explains how it works and walks one entry from a put on one
//! node to a watcher on another. [`manual`] has the pages of `lattice help`.
//!
//! # Floors
//! A module names only modules of floors below its own; `tests/it/repository` keeps it so.
//!
//! ```text
//! 7  daemon                          wires node, net, hooks and api; signals; ordered shutdown
//! 6  api                             gRPC on the local socket
//! 5  net                             peers: who is let in, sync sessions, gossip
//!    hooks                           commands and posts that run when a key changes
//! 4  node                            identity, data directory and its lock, the stores
//! 3  store                           the handle over its wings: writer, watch, consumers, read
//!    client                          the same calls to a node in another process
//! 2  clock  log  state  bus          wall clock; files of entries; heads in redb, and bases; channels
//!    light                           checks a proof with no node and no store
//!    vault                           where the secret of a node's key is, and how it is fetched
//! 1  protocol  disk  pace            the rules, pure; the file operations, injectable; turns
//!    permissions                     owner and mode of files that the node obeys or keeps secret
//! 0  id  limits  wire                names; maxima; generated messages
//!    manual                          the pages of the manual
//! ```
//! Nothing in `protocol` reads a clock, a file, a socket, or a random source.
//!
//! # What is promised
//! A put that returned survives power loss. State is a pure function of the set of applied
//! entries. A watch is lossless or reports a gap. Nobody who is not a member is let in. Damage is found
//! before its data is served. Memory is bounded.
//!
//! # Units
//! Times are milliseconds since 1970 (UTC), sizes are bytes, places in a log count from 1.
//!
//! # Words
//! One word, one meaning, in names, comments and errors.
//!
//! | word | meaning |
//! |---|---|
//! | entry, op | the signed unit of a log; a put or a delete of one key in it |
//! | author, seq, prev | a node's public key; a place in its log, from 1; the entry before |
//! | branch, tip | a chain of one author's entries; its newest entry |
//! | fork | two entries that one author signed for one place; it makes a second branch |
//! | lineage | the branches of one author, and which branch each of them left |
//! | frontier | all tips: it names a set of entries |
//! | parents | the entries that an entry cites: heads of its keys where it was written |
//! | head, winner | an entry that no known entry supersedes, for one key; the greatest head |
//! | tombstone | a head that deletes |
//! | intake, offer, verdict | what decides about an entry from elsewhere; asking it; its answer |
//! | pending, held | waits for its prev or a parent; waits for the clock: stamped too far ahead |
//! | stranger | an author whom no member has admitted yet |
//! | stage, commit, publish | write to memory; make durable and visible; send to the bus |
//! | outbox | entries just written here, on their way to gossip |
//! | torn tail | bytes after the last durable record: cut when a log is opened |
//! | damage, hole | durable bytes that have changed; entries that cannot be read because of it |
//! | mend, repair | fill a hole from a peer; the command that gives lost entries up and closes a fork |
//! | rebuild, recount | make the state again from the logs; the same because other entries count now |
//! | replay | read the log from a position, for a watch or for the state |
//! | note, mark | a row that the state file keeps for the writer; the note of where a branch ends |
//! | watch, cursor, position | a stream of changes; the printable place of a reader; the same in memory |
//! | anchor, prune | an entry with which all before it is final; remove it and all before it from a log |
//! | anchors act, final | an admin's statement of anchors; certain to count for ever |
//! | watermark, dormant | the entries that all active members have on disk; not waited for |
//! | base, part, fold | the rows as of the anchors, in files that never change; one of these files; make the next base of a base and entries |
//! | snapshot, block, manifest | a backup in one file; a piece of it with a check; its content and signature |
//! | gap | history that a reader cannot get: reported once, then the full state follows |
//! | consumer, delivery | a durable position with a name; one change handed to one taker |
//! | hook | a command or a URL that runs for changes, through a consumer of its own |
//! | member, role, act | a node that belongs; reader, writer or admin; an entry's statement about a node |
//! | proof | a chain of grants that makes a node a member |
//! | root store, data store | members, invites and the list of stores, with all their history; the default, for everything else |
//! | reserved key, void | a key of the root store about members, invites or stores; without effect: its author may not write it |
//! | authority | an entry's right to act on others: its author is the creator, or it cites a grant of admin that counts |
//! | vouch, run, set aside | commit to an entry before by `prev`; as far as that reaches; kept until an entry comes that vouches for it |
//! | far ahead | stamped more than 1 h ahead of a clock |
//! | tree, block, root | hashes over the rows of a store; a node of it that is kept in memory; the hash of all rows (not: root store) |
//! | row proof | shows that under a root a key has a row, or none |
//! | state proof | a file with rows, their row proof, and acks of members that have signed the root |
//! | divergence | two members sign different roots for the same entries and acts |
//! | session, strike | one sync of one store with one peer; a fault of a peer that is counted |

#![expect(
    clippy::module_inception,
    reason = "mod.rs only lists a folder; its main type is in the file of the same name"
)]

#[cfg(feature = "api")]
pub mod api;
#[doc = include_str!("architecture.md")]
pub mod architecture {}
#[cfg(feature = "node")]
pub mod bus;
pub mod calls;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "node")]
pub mod clock;
#[cfg(feature = "api")]
pub mod daemon;
#[cfg(feature = "node")]
pub mod disk;
#[cfg(feature = "hooks")]
pub mod hooks;
pub mod id;
pub mod light;
pub mod limits;
#[cfg(feature = "node")]
pub mod log;
pub mod manual;
#[cfg(feature = "net")]
pub mod net;
#[cfg(feature = "node")]
pub mod node;
#[cfg(feature = "node")]
mod pace;
#[cfg(feature = "node")]
pub mod permissions;
pub mod protocol;
#[cfg(feature = "node")]
pub mod state;
#[cfg(feature = "node")]
pub mod store;
#[cfg(feature = "node")]
pub mod vault;
pub mod wire;

pub use calls::{ConsumerOptions, Item, List, Start, WatchEvent, WatchOptions, Write, Written};
#[cfg(feature = "node")]
pub use node::{Node, NodeConfig};
pub use protocol::change::{Change, Kind};
#[cfg(feature = "node")]
pub use protocol::membership::role::Role;
#[cfg(feature = "node")]
pub use store::{
    EventAs, ReadError, Store, Watch, WatchAs, WatchError, WriteError, consumers::Consumer,
};

// The mutator of the fuzz targets, for decoders that are not public.
#[cfg(test)]
#[allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "it is shared with the integration tests"
)]
#[path = "../tests/it/support"]
mod support {
    pub mod mutator;
    pub mod random;
}
