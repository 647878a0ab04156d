//! History: which entries of a store are final, and their removal from the logs here.
//!
//! ```text
//! outlook      what may become final, and who is in the way
//! anchors      the act by which an admin makes entries final
//! branches     authors with several final branches
//! pruning      the removal of final entries, once it changes no answer
//! policy       how much is kept, and for how long
//! tending      what is due without anybody asking
//! ```
//! The rules are in [`protocol::finality`](crate::protocol::finality).

mod anchors;
mod branches;
mod error;
mod outlook;
mod policy;
mod pruning;
mod tending;

pub use anchors::Final;
pub use error::HistoryError;
pub use outlook::Outlook;
pub use policy::HistoryPolicy;
pub use pruning::Pruned;
pub use tending::Tended;
