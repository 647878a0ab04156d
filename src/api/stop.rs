//! The signals that stop a server.

use tokio_util::sync::CancellationToken;

/// The two signals of a stop. All clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    /// Cancelled by the call `Down`. The owner of the server waits for it and then stops the
    /// server.
    pub(super) asked: CancellationToken,
    /// Cancelled by `Server::stop`: connections take no new calls, and endless streams end with the
    /// error `stopping`.
    pub(super) ending: CancellationToken,
}
