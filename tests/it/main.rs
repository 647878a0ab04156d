//! Promises across modules, one binary.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(feature = "api")]
mod socket;
mod store;
