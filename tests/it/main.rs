//! Promises across modules, one binary.

mod faults;
mod store;
