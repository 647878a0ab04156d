//! A SIGHUP: `up` goes on and reads its files again, and commands of a terminal end in order.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    harness::{Home, PATIENCE},
    metrics::get,
};

/// `kill -HUP`, by habit or from a terminal that closes, ended the node as a crash does.
#[test]
fn hangup_reads_the_files_again() {
    let home = Home::initialised();
    let mut node = home.start(&["up"]);
    node.line_with("stop ");
    // A port that is free now.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = free.local_addr().unwrap().to_string();
    drop(free);
    let config = home.data().join("config.toml");
    let write = |text: &str| fs::write(&config, text).unwrap();
    let is_served = || std::net::TcpStream::connect(&at).is_ok();
    let until = |served: bool| {
        let deadline = Instant::now() + PATIENCE;
        while is_served() != served {
            assert!(
                Instant::now() < deadline,
                "metrics are not as config.toml says"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    write(&format!("name = \"attic\"\nmetrics = \"{at}\"\n"));
    node.signal(Signal::HUP);
    until(true);
    assert_eq!(get(&at, "/healthz").0, 200);
    // A mistake changes nothing.
    write("metrics = 5\n");
    fs::write(home.data().join("hooks.toml"), "[broken\n").unwrap();
    node.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(500));
    assert!(is_served());
    write("");
    node.signal(Signal::HUP);
    until(false);
    home.run(&["put", "/a", "1"]).ok();
    home.run(&["down"]).ok();
    let ended = node.end();
    assert_eq!(ended.code, 0);
    let reads = ended.stderr.matches("were read again").count();
    assert_eq!(reads, 3, "{ended}");
    for text in [
        "config.toml: name will change at the next start",
        "the settings stay as they were",
        "the hooks run as before",
    ] {
        assert!(ended.stderr.contains(text), "{text:?} is not in {ended}");
    }
}

/// It was ended by the signal itself: the node did not close, and commands that it had started ran on.
#[test]
fn hangup_ends_watch_and_on_in_order() {
    let home = Home::initialised();
    let mut watch = home.start(&["watch", "/nodes/"]);
    watch.line_with("/nodes/");
    watch.signal(Signal::HUP);
    let ended = watch.end();
    assert_eq!(ended.code, 130, "{ended}");

    let pid = home.path("pid");
    let script = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 300",
        pid.display()
    );
    let on = home.start(&["on", "/go", "--", "/bin/sh", "-c", &script]);
    let deadline = Instant::now() + PATIENCE;
    while !pid.exists() {
        home.run(&["put", "/go", "1"]);
        assert!(Instant::now() < deadline, "the command does not run");
    }
    let run = fs::read_to_string(&pid).unwrap();
    on.signal(Signal::HUP);
    let ended = on.end();
    assert_eq!(ended.code, 130, "{ended}");
    while Path::new("/proc").join(run.trim()).exists() {
        assert!(Instant::now() < deadline, "the command runs on");
    }
    // The node was closed: nothing is to be done at the next start.
    let status = home.run(&["status", "--json"]).json();
    let recovered = &status[0]["stores"][0]["recovered"];
    assert_eq!(recovered.as_array().unwrap().len(), 0, "{status:?}");
}

#[test]
fn nohup_keeps_a_watch() {
    let home = Home::initialised();
    home.run(&["put", "/before", "1"]).ok();
    let binary = env!("CARGO_BIN_EXE_lattice");
    let command = home.command(&[]);
    let mut watch = home.spawn({
        let words = format!("trap '' HUP; exec {binary} watch /");
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", &words]).env_clear();
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap());
        }
        shell
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        shell
    });
    watch.line_with("/before");
    watch.signal(Signal::HUP);
    home.run(&["put", "/after", "1"]).ok();
    watch.line_with("/after");
    watch.signal(Signal::TERM);
    assert_eq!(watch.end().code, 130);
}
