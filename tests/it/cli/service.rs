//! Notifications to a service manager, and the units that `service print` makes.

use std::{
    fs,
    io::ErrorKind,
    os::unix::net::UnixDatagram,
    path::Path,
    process::Command,
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
fn manager_is_notified_of_start_life_and_stop() {
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
    ExecReload=/bin/kill -HUP $MAINPID
    WatchdogSec=30
    Restart=on-failure
    RestartSec=2
    # A usage error: a restart would not help.
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

// Returns the complaints of systemd about a unit; `None` if it is not installed.
fn against(home: &Home, unit: &str, extra: &[&str]) -> Option<String> {
    let path = home.path("lattice.service");
    fs::write(&path, unit).unwrap();
    let ran = Command::new("systemd-analyze")
        .arg("verify")
        .args(["--man=no"])
        .args(extra)
        .arg(&path)
        .env("XDG_RUNTIME_DIR", home.path(""))
        .output();
    let ran = match ran {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        ran => ran.unwrap(),
    };
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    let is_ours = |line: &&str| line.contains("lattice");
    let ours: Vec<_> = said.lines().filter(is_ours).collect();
    assert_eq!(ran.status.success(), ours.is_empty(), "{said}");
    Some(ours.join("\n"))
}

// Returns the output of `program` for data in `dir`; `None` if it refuses.
fn printed(program: &Path, dir: &Path, extra: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(["service", "print"]).args(extra);
    let ran = command.env("LATTICE_DATA", dir).output().unwrap();
    let unit = String::from_utf8(ran.stdout).unwrap();
    ran.status.success().then_some(unit)
}

#[test]
fn systemd_accepts_units_with_odd_paths() {
    let home = Home::new();
    let binary = Path::new(env!("CARGO_BIN_EXE_lattice"));
    let accepted = |unit: Option<String>, extra: &[&str]| {
        let unit = unit.expect("it prints a unit");
        match against(&home, &unit, extra) {
            Some(said) => assert_eq!(said, "", "{unit}"),
            None => println!("skipped: there is no systemd-analyze here"),
        }
    };
    // A program may lie anywhere.
    let moved = |name: &str| {
        let dir = home.path(name);
        fs::create_dir_all(&dir).unwrap();
        let program = dir.join("lattice");
        fs::hard_link(binary, &program)
            .or_else(|_other_disk| fs::copy(binary, &program).map(drop))
            .unwrap();
        (dir, program)
    };
    for name in ["data", "100%n $HOME x"] {
        let (dir, program) = moved(name);
        for extra in [&[][..], &["--user"]] {
            accepted(printed(&program, &dir, extra), extra);
        }
        // It does look: without its program a unit is refused.
        let unit = printed(&program, &dir, &[]).unwrap();
        fs::remove_file(&program).unwrap();
        if let Some(said) = against(&home, &unit, &[]) {
            assert!(said.contains("is not executable"), "{said}");
        }
    }
    // Data may lie where no program may.
    let (dir, program) = moved("\"x\" \\");
    accepted(printed(binary, &dir, &[]), &[]);
    assert_eq!(printed(&program, &dir, &[]), None);
}
