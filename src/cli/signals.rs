//! Ctrl-C and SIGTERM.

use crate::cli::exit::Exit;

/// Ends the process at the second Ctrl-C, whatever the first one is still waiting for.
pub(crate) async fn second_interrupt() {
    interrupted().await;
    interrupted().await;
    std::process::exit(Exit::Interrupted.code());
}

/// Resolves at the next Ctrl-C or SIGTERM.
pub(crate) async fn interrupted() {
    match lattice::daemon::signal() {
        Ok(signal) => drop(signal.await),
        // The signal ends the process as it always did.
        Err(_not_listening) => std::future::pending().await,
    }
}
