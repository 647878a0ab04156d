//! Hooks that post: signed, tried again where that may help, and never for ever.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use lattice::hooks::Hook;
use ring::hmac;

use super::{Bench, span};

/// A request, as it came in.
#[derive(Debug, Clone)]
struct Request {
    head: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

type Requests = Arc<Mutex<Vec<Request>>>;

/// Answers requests in order with these status lines, the last one for all that follow; an empty one
/// is never answered. Ends with the process.
fn serve(answers: &'static [&'static str]) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook?a=b", listener.local_addr().unwrap());
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    thread::spawn(move || {
        let mut hung = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(request) = read(&mut stream) else {
                continue;
            };
            let count = {
                let mut seen = seen.lock().unwrap();
                seen.push(request);
                seen.len()
            };
            match answers.get(count - 1).or(answers.last()).unwrap() {
                &"" => hung.push(stream),
                status => {
                    let answer = format!(
                        "HTTP/1.1 {status}\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n"
                    );
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        }
    });
    (url, requests)
}

fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let (head, rest) = text.split_once("\r\n").unwrap();
            let headers: BTreeMap<String, String> = rest
                .lines()
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let length: usize = headers["content-length"].parse().unwrap();
            let body = &bytes[end + 4..];
            if body.len() >= length {
                return Some(Request {
                    head: head.to_owned(),
                    headers,
                    body: body.to_vec(),
                });
            }
        }
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
    }
}

fn hook(url: String) -> Hook {
    Hook {
        on: "/in/".to_owned(),
        http: Some(url),
        backoff: vec![span(10)],
        timeout: span(10_000),
        ..Hook::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_posted_and_signed() {
    let bench = Bench::new().await;
    let (url, requests) = serve(&["200 OK"]);
    let secret = bench.path("secret");
    std::fs::write(&secret, "whsec_c2VjcmV0\n").unwrap();
    let hook = Hook {
        secret_file: Some(secret),
        ..hook(url)
    };
    bench.add("h", hook).await;
    bench.put("/in/a", "v").await;
    bench.settled("h", 1).await;
    let record = &bench.logs("h").await[0];
    assert_eq!(
        (record.outcome.as_str(), record.stdout.as_str()),
        ("done", "ok\n")
    );

    let request = requests.lock().unwrap()[0].clone();
    assert_eq!(request.head, "POST /hook?a=b HTTP/1.1");
    let line: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(
        (&line["key"], &line["value"]),
        (&"/in/a".into(), &"v".into())
    );
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.headers["webhook-id"], record.run);
    let seconds = &request.headers["webhook-timestamp"];
    assert!(
        seconds
            .parse::<u64>()
            .unwrap()
            .abs_diff(record.at_ms / 1000)
            <= 10
    );
    let signed = [
        record.run.as_bytes(),
        b".",
        seconds.as_bytes(),
        b".",
        &request.body,
    ]
    .concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
    let signature = request.headers["webhook-signature"]
        .strip_prefix("v1,")
        .unwrap();
    let signature = data_encoding::BASE64.decode(signature.as_bytes()).unwrap();
    hmac::verify(&key, &signed, &signature).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_help_is_tried_again_under_the_same_id() {
    let bench = Bench::new().await;
    let (url, requests) = serve(&["500 Oops", "429 Slow down", "", "200 OK"]);
    let hook = Hook {
        timeout: span(300),
        ..hook(url)
    };
    bench.add("h", hook).await;
    bench.put("/in/a", "v").await;
    bench.settled("h", 1).await;
    let what: Vec<String> = bench
        .logs("h")
        .await
        .into_iter()
        .map(|run| run.what)
        .collect();
    assert_eq!(
        what,
        [
            "answered with 500",
            "answered with 429",
            "took longer than 300ms and was ended",
            ""
        ]
    );
    let requests = requests.lock().unwrap();
    let ids: Vec<&String> = requests
        .iter()
        .map(|request| &request.headers["webhook-id"])
        .collect();
    assert!(
        ids.len() == 4 && ids.iter().all(|id| *id == ids[0]),
        "{ids:?}"
    );
    assert!(!requests[0].headers.contains_key("webhook-signature"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_dead_at_once_and_a_redirect_is_not_followed() {
    const REFUSED: &[&str] = &["404 Not Found"];
    const REDIRECTED: &[&str] = &["302 Found", "200 OK"];
    for (answers, outcome) in [(REFUSED, "dead"), (REDIRECTED, "failed")] {
        let bench = Bench::new().await;
        let (url, requests) = serve(answers);
        bench.add("h", hook(url)).await;
        bench.put("/in/a", "v").await;
        bench.settled("h", 1).await;
        assert_eq!(bench.logs("h").await[0].outcome, outcome);
        assert_eq!(requests.lock().unwrap().len(), answers.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_where_nobody_listens_fails_with_its_reason_and_without_its_secret() {
    let bench = Bench::new().await;
    // Free, because it was ours just now.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let refused = Hook {
        attempts: 1,
        ..hook(format!("http://127.0.0.1:{port}/?token=hush"))
    };
    bench.add("refused", refused.clone()).await;
    let secretless = Hook {
        secret_file: Some(bench.path("none")),
        ..refused
    };
    bench.add("secretless", secretless).await;
    bench.put("/in/a", "v").await;
    for (name, why) in [("refused", "refused"), ("secretless", "No such file")] {
        bench.settled(name, 1).await;
        let what = bench.logs(name).await[0].what.clone();
        assert!(
            what.starts_with("not posted: ") && what.contains(why),
            "{what}"
        );
        assert!(!what.contains("hush"), "{what}");
    }
}
