//! History: which entries of a store are final, and their removal from the logs here.
//!
//! ```text
//! facts        what decisions follow from
//! outlook      what may become final, and who is in the way
//! anchors      the act by which an admin makes entries final
//! dormancy     members that are not waited for
//! branches     authors with several final branches
//! pruning      the removal of final entries, once it changes no answer
//! points       places through which entries can be removed
//! policy       the numbers of each store, as an admin has set them
//! summary      what of it people see at a glance
//! tending      what is due without anybody asking
//! ```
//! The rules are in [`protocol::finality`](crate::protocol::finality).

mod anchors;
mod branches;
mod dormancy;
mod error;
mod facts;
mod outlook;
mod points;
mod policy;
mod pruning;
mod summary;
mod tending;

pub use crate::protocol::finality::HistoryPolicy;
pub use anchors::Final;
pub use error::HistoryError;
pub use outlook::Outlook;
pub use pruning::Pruned;
pub use tending::{Tended, Tending};
