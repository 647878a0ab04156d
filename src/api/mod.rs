//! The local API: gRPC over the node's Unix socket, server and client.
//!
//! `proto/api.proto` is the contract. A connection comes in through [`socket`], which lets nobody
//! but the node's own user pass; [`server`] speaks HTTP/2 on it and hands each call to the
//! service. [`client`] is the other end, and also reaches a node in the same process without a
//! socket, so that the command line has one path. [`error`] names what went wrong, the same way
//! on both ends.

pub mod client;
mod consumer;
mod convert;
pub mod error;
mod hook;
mod keys;
pub mod link;
pub mod local;
mod maintenance;
mod members;
mod paging;
mod past;
mod put_stream;
pub mod server;
mod service;
mod signed_entry;
pub mod socket;
mod stop;
mod stores;
mod watch;
pub mod watches;
