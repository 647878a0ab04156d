//! Metrics and health over HTTP, in the text format of Prometheus.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::harness::{Home, PATIENCE, Running};

/// Sends `request` and returns the answer's status and body.
fn ask(at: &str, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

pub(super) fn get(at: &str, path: &str) -> (u16, String) {
    ask(at, &format!("GET {path} HTTP/1.1\r\nHost: {at}\r\n\r\n"))
}

pub(super) fn up(home: &Home) -> (Running, String) {
    let mut node = home.start(&["up", "--metrics", "127.0.0.1:0"]);
    let line = node.line_with("metrics ");
    let at = line
        .trim_start_matches("metrics http://")
        .trim_end_matches("/metrics");
    let at = at.to_owned();
    node.line_with("stop ");
    (node, at)
}

/// The value of the only sample that begins with `name` and has all `labels`.
pub(super) fn value(text: &str, name: &str, labels: &[&str]) -> f64 {
    let of = |line: &&str| {
        let named = line.split(['{', ' ']).next() == Some(name);
        named && labels.iter().all(|label| line.contains(label))
    };
    let samples: Vec<_> = text.lines().filter(of).collect();
    assert_eq!(samples.len(), 1, "{name} {labels:?} in:\n{text}");
    samples[0].rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// Every sample belongs to the family named before it, and no family comes twice.
fn is_well_formed(text: &str) {
    let (mut families, mut family) = (BTreeSet::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(families.insert(name), "{name} comes twice");
            family = name.to_owned();
        } else if !line.starts_with("# HELP ") {
            let name = line.split(['{', ' ']).next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter();
            let base = base.fold(name, |name, suffix| {
                name.strip_suffix(suffix).unwrap_or(name)
            });
            assert!(
                name == family || base == family,
                "{line} stands under {family}"
            );
            let number = line.rsplit_once(' ').unwrap().1;
            assert!(number.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(families.len() > 15, "{text}");
}

#[test]
fn prometheus_reads_the_counters() {
    let home = Home::new();
    let (node, at) = up(&home);
    let (_, before) = get(&at, "/metrics");
    is_well_formed(&before);
    let data = ["store=\"data\""];
    let applied = value(&before, "lattice_entries_applied_total", &data);
    for number in 0..5 {
        assert_eq!(home.run(&["put", &format!("/k/{number}"), "v"]).code, 0);
    }
    let create = ["consumer", "create", "billing", "/k/", "--from", "start"];
    assert_eq!(home.run(&create).code, 0);
    assert_eq!(home.run(&["consumer", "next", "billing"]).code, 0);
    let (status, after) = get(&at, "/metrics");
    assert_eq!(status, 200);
    is_well_formed(&after);
    assert_eq!(
        value(&after, "lattice_entries_applied_total", &data),
        applied + 5.0
    );
    let syncs = |text: &str| value(text, "lattice_fsync_seconds_count", &data);
    assert!(syncs(&after) - syncs(&before) >= 5.0, "{after}");
    let all = value(
        &after,
        "lattice_fsync_seconds_bucket",
        &["le=\"+Inf\"", data[0]],
    );
    assert!((all - syncs(&after)).abs() < 0.5, "the last bucket has all");
    assert!(value(&after, "lattice_fsync_seconds_sum", &data) > 0.0);
    let billing = ["consumer=\"billing\"", data[0]];
    assert!(value(&after, "lattice_consumer_outstanding", &billing) >= 1.0);
    assert!((value(&after, "lattice_consumer_running", &billing) - 1.0).abs() < 0.5);
    assert!(value(&after, "lattice_writes_refused", &data) < 0.5);
    assert_eq!(get(&at, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(home.run(&["down"]).code, 0);
    assert_eq!(node.end().code, 0);
    assert!(TcpStream::connect(&at).is_err(), "it listens on");
}

/// Scrapes until the sample is as it should be, and returns the text.
fn until(at: &str, name: &str, labels: &[&str], is: impl Fn(f64) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, text) = get(at, "/metrics");
        if text.contains(labels[0]) && is(value(&text, name, labels)) {
            return text;
        }
        assert!(Instant::now() < deadline, "{name} {labels:?}: {text}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn lag_of_each_watch_is_shown() {
    const LAG: &str = "lattice_watch_lag_entries";
    let home = Home::new();
    let (node, at) = up(&home);
    let stuck = home.start(&["watch", "/big/"]);
    until(&at, LAG, &["prefix=\"/big/\""], |lag| lag == 0.0);
    let mut other = home.start(&["watch", "/small/", "/other/"]);
    let small = until(&at, LAG, &["prefix=\"/small/ /other/\""], |lag| lag == 0.0);
    assert!(small.contains("watch=\"1\",prefix=\"/big/\""), "{small}");
    assert!(small.contains("watch=\"2\",prefix=\"/small/"), "{small}");
    stuck.signal(Signal::STOP);
    let value = "x".repeat(1 << 20);
    for _ in 0..12 {
        assert_eq!(home.feed(&["put", "/big/one", "-"], &value).code, 0);
    }
    let text = until(&at, LAG, &["watch=\"1\""], |lag| lag >= 5.0);
    is_well_formed(&text);
    assert!(self::value(&text, LAG, &["watch=\"2\""]) < 0.5, "{text}");
    let rest = self::value(&text, "lattice_watch_lag_entries_unlisted", &["\"data\""]);
    assert!(rest < 0.5, "{text}");
    stuck.signal(Signal::CONT);
    until(&at, LAG, &["watch=\"1\""], |lag| lag == 0.0);
    // Its series goes with it, and the other's keeps its number.
    drop(stuck);
    let deadline = Instant::now() + PATIENCE;
    while get(&at, "/metrics").1.contains("watch=\"1\"") {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(home.run(&["put", "/small/one", "v"]).code, 0);
    other.line_with("/small/one");
    until(&at, LAG, &["watch=\"2\""], |lag| lag == 0.0);
    drop(node);
}

#[test]
fn only_local_get_requests_are_served() {
    let home = Home::new();
    let (_node, at) = up(&home);
    assert_eq!(get(&at, "/").0, 404);
    assert_eq!(get(&at, "/metrics/..").0, 404);
    let post = format!("POST /metrics HTTP/1.1\r\nHost: {at}\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(ask(&at, &post).0, 405);
    for (host, status) in [
        ("localhost", 200),
        ("localhost:1", 200),
        ("[::1]:9464", 200),
        ("evil.example", 403),
        ("evil.example:9464", 403),
        ("127.0.0.1.evil.example", 403),
        ("10.0.0.1:80", 403),
    ] {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(ask(&at, &request).0, status, "{host}");
    }
    // Neither rubbish, nor a request without an end, nor a crowd that says nothing keeps others out.
    let crowd: Vec<_> = (0..12).map(|_| TcpStream::connect(&at).unwrap()).collect();
    let mut long = TcpStream::connect(&at).unwrap();
    drop(long.write_all("GET /metrics HTTP/1.1\r\nA: ".as_bytes()));
    drop(long.write_all(&vec![b'a'; 1 << 20]));
    let mut rubbish = TcpStream::connect(&at).unwrap();
    rubbish.write_all(&[0xff; 512]).unwrap();
    assert_eq!(get(&at, "/healthz").0, 200);
    drop((crowd, long, rubbish));
}

#[test]
fn metrics_bind_to_loopback_only() {
    let home = Home::new();
    let ran = home.run(&["up", "--metrics", "0.0.0.0:9464"]);
    assert_eq!(ran.code, 2, "{ran}");
    assert!(
        ran.stderr
            .contains("0.0.0.0:9464 is not a loopback address"),
        "{ran}"
    );
    let (_node, at) = up(&home);
    let other = Home::new();
    let ran = other.run(&["up", "--metrics", &at]);
    assert_eq!(ran.code, 1, "{ran}");
    assert!(
        ran.stderr
            .contains(&format!("cannot serve metrics on {at}")),
        "{ran}"
    );
}
