//! Durable consumers: each change is delivered until it is acknowledged, across restarts, kills,
//! damage and time.

mod answers;
mod caused;
mod crash;
mod damage;
mod gap_crash;
mod gap_histories;
mod gaps;
mod held_history;
mod histories;
mod manage;
pub mod setup;
