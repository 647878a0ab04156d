//! A port that another program has: the commands report it until the node gets it.

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    harness::{Home, PATIENCE},
    metrics::get,
};

#[test]
fn port_that_is_taken_is_reported_until_it_is_free() {
    let a = Home::new();
    let _a_node = a.up();
    let token = a.run(&["invite"]).ok();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let port = format!("UDP port {}", taken.local_addr().unwrap().port());
    let b = Home::at(at, Vec::new());

    let refused = b.run(&["join", token.trim(), "--name", "b"]);
    assert_eq!(refused.code, 5, "{refused}");
    assert!(refused.stderr.contains(&port), "{refused}");
    assert!(refused.stderr.contains("--bind"), "{refused}");
    b.run(&["join", token.trim(), "--name", "b", "--bind", "127.0.0.1:0"])
        .ok();
    let mut node = b.start(&["up", "--metrics", "127.0.0.1:0"]);
    let line = node.line_with("metrics ");
    let metrics = line
        .trim_start_matches("metrics http://")
        .trim_end_matches("/metrics")
        .to_owned();
    node.line_with("stop ");
    // It is tried at once, but not before the node answers.
    let deadline = Instant::now() + PATIENCE;
    while !b.run(&["status"]).raw.contains(&port) {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(20));
    }
    let status = b.run(&["status", "--json"]).json().remove(0);
    let reason = status["not_listening"].as_str().unwrap();
    assert!(reason.contains(&port), "{status}");
    assert!(b.run(&["peers"]).stderr.contains(&port));
    let invite = b.run(&["invite"]);
    assert_ne!(invite.code, 0, "{invite}");
    let (code, health) = get(&metrics, "/healthz");
    assert!(code == 503 && health.contains(&port), "{health}");
    b.run(&["put", "/alone", "b"]).ok();

    drop(taken);
    let free = Instant::now();
    while a.run(&["get", "/alone"]).raw != "b" {
        assert!(free.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(20));
    }
    println!("in step {:?} after the port was free", free.elapsed());
    assert_eq!(get(&metrics, "/healthz"), (200, "ok\n".to_owned()));
    assert!(!b.run(&["status"]).raw.contains(&port));
    assert!(!b.run(&["peers"]).stderr.contains(&port));
    node.signal(Signal::TERM);
    node.end();
}
