//! The daemon: a node and what serves it, from start to an ordered stop.

mod daemon;
mod metrics;
mod metrics_text;

pub use daemon::*;
pub use metrics::{Metrics, MetricsError};
