//! Promises that hold across modules, as one binary.

#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "api")]
mod socket;
mod store;
