//! The guarantees to readers, over random histories of two or three replicas: real stores, watches
//! and consumers, and between them a network that loses, doubles and reorders messages.
//!
//! Every delivery is recorded, and one function per guarantee judges the record: see `checker`.

pub mod checker;
mod histories;
pub mod history;
mod network;
mod reader;
pub mod replica;
mod taker;
