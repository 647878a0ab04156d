//! Notifies the service manager (sd_notify) that the node serves, still answers, or stops.
//!
//! Does nothing without a service manager, that is, without `$NOTIFY_SOCKET`.

use std::{
    env, io,
    os::unix::net::{SocketAddr, UnixDatagram},
    process,
    time::Duration,
};

use lattice::{api::client::Client, wire::api};

use crate::cli::output::print::stderr_line;

/// Reports that the node serves.
pub(crate) fn ready() {
    notify("READY=1");
}

/// Reports that the node stops.
pub(crate) fn stopping() {
    notify("STOPPING=1");
}

/// Sends the service manager's watchdog a sign of life after each read that the node answers.
///
/// A read that takes longer than a third of the watchdog's time sends none. Returns at once if no
/// watchdog is set.
pub(crate) async fn watch(mut client: Client) {
    let Some(time) = watchdog() else {
        return;
    };
    let every = time / 3;
    loop {
        let request = api::GetRequest {
            key: "/".into(),
            ..api::GetRequest::default()
        };
        let answered = tokio::time::timeout(every, client.get(request)).await;
        if matches!(answered, Ok(Ok(_answer))) {
            notify("WATCHDOG=1");
        }
        tokio::time::sleep(every).await;
    }
}

// Returns the time without a sign of life after which the service manager ends the process.
fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let pid = number("WATCHDOG_PID");
    if pid.is_some_and(|pid| pid != u64::from(process::id())) {
        return None;
    }
    number("WATCHDOG_USEC")
        .filter(|us| *us > 0)
        .map(Duration::from_micros)
}

fn notify(state: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return;
    };
    if let Err(error) = send(socket.as_encoded_bytes(), state) {
        stderr_line(&format!(
            "cannot notify the service manager of {state}: {error}"
        ));
    }
}

fn send(socket: &[u8], state: &str) -> io::Result<()> {
    let from = UnixDatagram::unbound()?;
    from.set_nonblocking(true)?;
    from.send_to_addr(state.as_bytes(), &address(socket)?)?;
    Ok(())
}

// Returns the address for a path or, on Linux, for an abstract name, which begins with `@`.
fn address(socket: &[u8]) -> io::Result<SocketAddr> {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    #[cfg(target_os = "linux")]
    if let [b'@', name @ ..] = socket {
        use std::os::linux::net::SocketAddrExt as _;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(OsStr::from_bytes(socket))
}
