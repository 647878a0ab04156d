//! The limit of file descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::DESCRIPTORS_MAX;

/// Raises the limit of descriptors of this process as far as the system allows, at most to
/// `DESCRIPTORS_MAX`. Call it before a node is configured: its bound of open logs depends on it.
///
/// Where the system refuses, the limit stays as it is, and the node works with that.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX).min(DESCRIPTORS_MAX);
    if limit.current.is_none_or(|current| current >= most) {
        return;
    }
    let raised = Rlimit {
        current: Some(most),
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, most, "the limit of open files cannot be raised");
    }
}
