//! The local API: gRPC over the node's Unix socket.
//!
//! `proto/api.proto` is the contract. [`socket`] accepts connections of the node's own user, and of
//! a group if [`socket_access`] names one; [`server`] speaks HTTP/2 on each connection and gives every
//! call to the service, which lists the calls and leaves the work to one file for each noun. The other
//! end is in [`crate::client`]; [`client`] has its calls as the command line uses them, and [`local`]
//! makes the same for a node in this process, without a socket, so the command line has only one code
//! path. [`whole`] puts answers of several messages together. [`mod@error`] gives failures the same names on
//! both ends; each conversion of a library error is beside the calls that return the error.

pub mod client;
mod compare;
mod consumer;
mod convert;
pub mod error;
mod get_stream;
mod hook;
mod keys;
pub mod local;
mod maintenance;
mod members;
mod paging;
mod past;
mod put_stream;
mod retention;
mod root;
pub mod server;
mod service;
mod signed_entry;
mod snapshot;
pub mod socket;
pub mod socket_access;
mod stop;
mod stores;
mod watch;
mod watch_root;
pub mod watches;
pub mod whole;

pub use crate::client::link;
