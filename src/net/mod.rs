//! The net: members of one mesh find each other, and each gets the entries that the others write.
//!
//! ```text
//! net           the handle: start, invite, peers, stop
//! join          joins a mesh, step by step
//! bind          binds the iroh endpoint
//! gate          which nodes get a connection
//! hello         shows an invitation or a proof of membership
//! hello_server  admits the bearer or refuses it
//! peer_task     one task for each member: dial, sync, again
//! peer_table    addresses, connections and strikes of all peers
//! peer          those of one peer
//! peer_status   what people read about a peer
//! live          a connection, and when the peer was last heard on it
//! pulse         looks at all peers four times a second: silent, out of step
//! status        clock, addresses and acks of each side of a connection
//! session       a sync of one store over one stream
//! compare       compares the state of one store with that of a peer, as the node that asks
//! compare_server  the same as the node that is asked
//! compare_line  the stream of a comparison
//! compare_turns bounds what comparisons cost the node that is asked
//! turns         whose session goes on when both sides open one
//! gossip        new entries to all members, as a hint
//! topic         the gossip topic of each store
//! stores        opens and carries the stores of the mesh
//! acks          which member has which entries on disk
//! revival       binds the endpoint again when it has ended by itself
//! root_task     computes the root of each store when its state rests
//! roots         those of this node, and those that other members have signed
//! members_clock compares this node's clock with those of the members
//! announced     the latest announcement of each member
//! own_tip       own writes wait until peers have been asked for entries of this node
//! own_tails     own writes wait until a lost log has come back to its end
//! sleep         dials all members when the machine wakes up
//! mesh          the tables that all tasks share; it names no task
//! ```
//! The rules are in `protocol`: `protocol::peer` (dial, strike, sync again), `protocol::sync` (a
//! session, whose turn it is) and `protocol::membership` (who is let in). Files here do what those
//! return.
//!
//! A node without members or open invitations has no endpoint: it neither listens nor announces.

mod acks;
mod address;
mod alpn;
mod announced;
mod base_refusal;
mod bases;
mod bind;
mod chosen_state;
mod compare;
mod compare_line;
mod compare_server;
mod compare_turns;
mod config;
mod error;
mod gate;
mod gossip;
mod hello;
mod hello_server;
mod join;
mod live;
mod members_clock;
mod mesh;
mod net;
mod own_tails;
mod own_tip;
mod peer;
mod peer_status;
mod peer_table;
mod peer_task;
mod proven;
mod pulse;
mod revival;
mod root_task;
mod roots;
mod session;
mod sleep;
mod status;
mod stores;
mod token;
mod topic;
mod turns;

pub use address::Addresses;
pub use base_refusal::BaseRefusal;
pub use compare::{Compared, KeyDifference};
pub use config::{NetConfig, Relay};
pub use error::{CompareError, JoinError, NetError, PeerError, TakeStateError, Tried};
pub use join::{JoinEvent, Joined};
pub use net::Net;
pub use peer_status::PeerStatus;
pub use token::{Invitation, InvitationError};
