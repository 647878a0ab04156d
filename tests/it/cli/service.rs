//! Under a service manager.

use std::{
    io::ErrorKind,
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::harness::Home;

fn told(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    match manager.recv(&mut buffer) {
        Ok(bytes) => String::from_utf8_lossy(&buffer[..bytes]).into(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => "nothing".to_owned(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_manager_is_told_that_it_serves_that_it_lives_and_that_it_stops() {
    let home = Home::initialised();
    let path = home.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut command = home.command(&["up"]);
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "600000");
    let node = home.spawn(command);
    assert_eq!(told(&manager), "READY=1");
    // It serves by now.
    home.run(&["put", "/s", "1"]).ok();
    for _ in 0..3 {
        assert_eq!(told(&manager), "WATCHDOG=1");
    }
    // A node that does not answer does not say that it lives.
    node.signal(Signal::STOP);
    while manager.set_nonblocking(true).is_ok() && told(&manager) != "nothing" {}
    manager.set_nonblocking(false).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_millis(700)))
        .unwrap();
    let stopped = Instant::now();
    assert_eq!(told(&manager), "nothing");
    assert!(stopped.elapsed() >= Duration::from_millis(600));
    node.signal(Signal::CONT);
    node.signal(Signal::TERM);
    manager
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    while told(&manager) == "WATCHDOG=1" {}
    assert_eq!(node.end().code, 0);
}

#[test]
fn units_are_printed() {
    let home = Home::new();
    let unit = |arguments: &[&str]| {
        let unit = home.run(&[&["service", "print"], arguments].concat()).ok();
        unit.replace(env!("CARGO_BIN_EXE_lattice"), "[lattice]")
    };
    assert!(!home.data().exists());
    insta::assert_snapshot!(unit(&[]), @r#"
    [Unit]
    Description=Lattice node
    Wants=network-online.target
    After=network-online.target

    [Service]
    Type=notify
    ExecStart="[lattice]" --data-dir "[home]/data" up
    WatchdogSec=30
    Restart=on-failure
    RestartSec=2
    # What was typed is wrong: starting again would not help.
    RestartPreventExitStatus=2
    User=lattice
    ProtectSystem=strict
    PrivateTmp=yes
    ReadWritePaths="[home]/data"
    NoNewPrivileges=yes

    [Install]
    WantedBy=multi-user.target
    "#);
    let user = unit(&["--user"]);
    assert!(
        user.contains("WantedBy=default.target") && !user.contains("User="),
        "{user}"
    );
}
