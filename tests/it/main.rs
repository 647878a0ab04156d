//! Promises across modules, one binary.

#[cfg(feature = "api")]
mod socket;
mod store;
