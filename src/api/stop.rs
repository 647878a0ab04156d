//! How a server stops.

use tokio_util::sync::CancellationToken;

/// The two steps in which a server stops.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    /// Cancelled when a client called `Down`.
    pub(super) asked: CancellationToken,
    /// Cancelled when the server stops: no new calls, and streams without an end have one.
    pub(super) ending: CancellationToken,
}
