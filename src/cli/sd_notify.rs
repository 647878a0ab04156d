//! What a service manager is told (sd_notify): that the node serves, that it still answers, and
//! that it stops. Without one nobody is told anything.

use std::{
    env, io,
    os::unix::net::{SocketAddr, UnixDatagram},
    process,
    time::Duration,
};

use lattice::{api::client::Client, wire::api};

use crate::cli::output::print::complain;

/// Says that the node serves.
pub(crate) fn ready() {
    tell("READY=1");
}

/// Says that the node stops.
pub(crate) fn stopping() {
    tell("STOPPING=1");
}

/// Says that the node lives for as long as it answers a read within the time that the service
/// manager gives it. Returns where none watches.
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
            tell("WATCHDOG=1");
        }
        tokio::time::sleep(every).await;
    }
}

// The time after which a process that has said nothing is ended.
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

fn tell(state: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return;
    };
    if let Err(error) = send(socket.as_encoded_bytes(), state) {
        complain(&format!(
            "the service manager was not told {state}: {error}"
        ));
    }
}

fn send(socket: &[u8], state: &str) -> io::Result<()> {
    let from = UnixDatagram::unbound()?;
    from.set_nonblocking(true)?;
    from.send_to_addr(state.as_bytes(), &address(socket)?)?;
    Ok(())
}

// A path, or after an `@` a name without a file (Linux).
fn address(socket: &[u8]) -> io::Result<SocketAddr> {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    #[cfg(target_os = "linux")]
    if let [b'@', name @ ..] = socket {
        use std::os::linux::net::SocketAddrExt as _;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(OsStr::from_bytes(socket))
}
