//! Waits for Ctrl-C and SIGTERM.

use crate::cli::exit::{Exit, Failure};

/// Listens for Ctrl-C and SIGTERM from now on; the future resolves at the first one.
pub(crate) fn listen() -> Result<impl Future, Failure> {
    lattice::daemon::signal()
        .map_err(|error| Failure::failed("signal", format!("cannot listen for signals: {error}")))
}

/// Listens for SIGHUP, which ends the process no more from now on.
pub(crate) fn hangups() -> Result<tokio::signal::unix::Signal, Failure> {
    lattice::daemon::hangups()
        .map_err(|error| Failure::failed("signal", format!("cannot listen for signals: {error}")))
}

/// Ends the process at the second Ctrl-C, even if the orderly end after the first one hangs.
pub(crate) async fn second_interrupt() {
    interrupted().await;
    interrupted().await;
    std::process::exit(Exit::Interrupted.code());
}

/// Resolves at the next Ctrl-C or SIGTERM.
pub(crate) async fn interrupted() {
    match lattice::daemon::signal() {
        Ok(signal) => drop(signal.await),
        // Without a handler, the signal itself ends the process.
        Err(_not_listening) => std::future::pending().await,
    }
}
