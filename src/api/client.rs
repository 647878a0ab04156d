//! The client's end of the API, see [`client::rpc`](crate::client::rpc).

pub(super) use crate::client::rpc::client;
pub use crate::client::rpc::{ConnectError, Rpc as Client, connect};
