//! Promises that hold across modules, as one binary.

#[cfg(feature = "api")]
mod socket;

#[cfg(feature = "cli")]
mod cli;
