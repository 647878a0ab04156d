//! Promise 4, and the work of a mesh: real nodes on loopback join, gossip, sync and restart, and
//! only members get in.

mod bases;
mod changes;
mod clocks;
mod compare;
mod damage;
mod data_store;
mod display;
mod fallen_admin;
mod history;
mod hostile;
mod join_and_sync;
mod peer;
mod port;
mod proof;
mod relay;
mod restored;
mod revival;
mod roots;
mod tombstones;

use std::time::Duration;

use bytes::Bytes;
use lattice::{
    Store,
    clock::Clock,
    net::{NetConfig, NetError, PeerStatus},
    protocol::membership::role::Role,
    store::{WatchEvent, WatchOptions},
};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::StreamExt as _;

use peer::{Peer, SOON, has, loopback};
