//! The client of a node in another process: the calls of a [`Store`](crate::store::Store), over the
//! node's socket.
//!
//! [`Client`] connects to a node; a [`Store`] of it has the calls about keys, a [`Watch`] is a stream of
//! changes, a [`Consumer`] a durable position. They take and return what the calls of a store in this
//! process do ([`calls`](crate::calls)). The feature `client` has this module and nothing of the node.
//!
//! ```no_run
//! use lattice::{client::Client, WatchEvent};
//! use tokio_stream::StreamExt as _;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect_default().await?;
//! let store = client.data();
//! store.put("/hello", "world").await?; // on return it is on the node's disk
//! let mut watch = store.watch("/hello");
//! while let Some(event) = watch.next().await {
//!     if let WatchEvent::Change(change) = event? {
//!         println!("{:?} is {:?}", change.key, change.value);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Connections
//! All calls share one connection. If it breaks, calls in flight fail with
//! [`ErrorKind::Unavailable`], and the next call connects again. A watch, and the deliveries of a
//! consumer, connect again by themselves and go on where they were, as long as it takes.
//!
//! # Calls in flight together
//! Writes that are in flight together go to the node in one stream of messages, however many tasks call,
//! and so do gets: 256 tasks need no 256 requests. A write or get that is alone is a call of its own. So
//! writes that are in flight together have no order among each other; await one before the next if they
//! need one.

mod client;
mod consumer;
pub mod error;
mod lane;
pub mod link;
mod messages;
mod pipe;
pub mod place;
mod reads;
mod replies;
pub mod rpc;
mod store;
mod watch;
mod writes;

pub use client::Client;
pub use consumer::{Consumer, Deliveries, Delivery};
pub use error::{ApiError, ErrorKind};
pub use rpc::{ConnectError, Rpc};
pub use store::Store;
pub use watch::Watch;
