//! Hostile peers against real nodes: raw iroh clients that can send anything.
//!
//! The name of a script begins with the rows of the threat table that it tries
//! (`tests/it/threats.md`). After each script, the honest nodes are in step within seconds, and
//! neither holds a strike against the other.

mod acks;
mod answers;
pub mod attacker;
mod comparisons;
mod contents;
mod crowds;
mod data_store;
mod forks;
mod gossip;
mod invites;
mod members;
mod proofs;
mod sleep;
mod stores;
mod strangers;
mod sync;
mod table;
mod twins;

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use iroh::endpoint::{Connection, ConnectionError};
use lattice::{
    id::{Author, EntryId, StoreId},
    protocol::{
        entry::{Header, Op, VerifiedEntry, sign},
        frontier::FrontierTip,
        membership::role::Role,
        sync::{FrameDecoder, Message},
    },
};
use tokio::time::timeout;

use super::{Peer, SOON, has, loopback};
use crate::support::model::header;

use attacker::*;
