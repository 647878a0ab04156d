//! A SIGHUP: the node goes on, and reads its files again.

use std::{
    fs,
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
