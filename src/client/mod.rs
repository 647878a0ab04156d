//! The client of a node in another process.

pub mod error;
pub mod link;
pub mod rpc;
