//! The daemon: a node with its peers, hooks and local API, from start to an ordered stop.

mod daemon;
mod descriptors;
mod metrics;
mod metrics_text;

pub use daemon::{Daemon, DaemonError, hangups, signal};
pub use descriptors::raise_descriptor_limit;
pub use metrics::{Metrics, MetricsError};
