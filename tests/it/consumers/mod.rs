//! Durable consumers: each change is delivered until it is acknowledged, across restarts, kills,
//! damage and time.

mod answers;
mod caused;
mod crash;
mod damage;
mod gaps;
mod histories;
mod manage;
pub mod setup;
