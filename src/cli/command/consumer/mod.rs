//! `consumer`: named, durable positions from which changes are delivered until acknowledged.

mod answer;
mod consumer;
pub(crate) mod create;
pub(crate) mod dead;
mod name;
mod next;
mod object;
mod show;

pub(crate) use consumer::Consumer;
