//! Waits for signals: Ctrl-C, SIGTERM, and the SIGHUP of a terminal that closes.

use std::fs;

use tokio::signal::unix::Signal;

use crate::cli::exit::{Exit, Failure};

/// Listens for Ctrl-C and SIGTERM from now on; the future resolves at the first one.
pub(crate) fn listen() -> Result<impl Future, Failure> {
    lattice::daemon::signal().map_err(|error| failed(&error))
}

/// Listens for SIGHUP, which ends the process no more from now on.
pub(crate) fn hangups() -> Result<Signal, Failure> {
    lattice::daemon::hangups().map_err(|error| failed(&error))
}

/// Listens from now on for Ctrl-C, SIGTERM, and SIGHUP unless it is ignored, as `nohup` asks; the
/// future resolves at the first one.
pub(crate) fn listen_for_end() -> Result<impl Future<Output = ()>, Failure> {
    let signal = listen()?;
    let mut hangups = match is_hangup_ignored() {
        true => None,
        false => Some(hangups()?),
    };
    Ok(async move {
        let hung_up = async {
            match &mut hangups {
                Some(hangups) => drop(hangups.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _name = signal => {}
            () = hung_up => {}
        }
    })
}

/// Ends the process at the second Ctrl-C or SIGTERM, even if the orderly end after the first one hangs.
/// A terminal that closes may send several SIGHUPs.
pub(crate) async fn second_interrupt() {
    for _signal in 0..2 {
        match listen() {
            Ok(signal) => drop(signal.await),
            // Without a handler, the signal itself ends the process.
            Err(_not_listening) => std::future::pending().await,
        }
    }
    std::process::exit(Exit::Interrupted.code());
}

/// Resolves at the next Ctrl-C or SIGTERM, or SIGHUP unless it is ignored.
pub(crate) async fn interrupted() {
    match listen_for_end() {
        Ok(signal) => signal.await,
        Err(_not_listening) => std::future::pending().await,
    }
}

// A process inherits ignored signals. False where the system does not show them.
fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGHUP is signal 1, the lowest bit.
    ignored.is_some_and(|mask| mask & 1 == 1)
}

fn failed(error: &std::io::Error) -> Failure {
    Failure::failed("signal", format!("cannot listen for signals: {error}"))
}
