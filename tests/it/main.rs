//! Promises across modules, one binary.

mod store;
