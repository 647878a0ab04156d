//! Hooks that post: signed requests, retried where a retry can help, a bounded number of times.

use std::{
    collections::BTreeMap,
    io::{Read, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Mutex},
    thread,
};

use lattice::hooks::Hook;
use ring::hmac;

use super::setup::{Bench, span};

/// A request, as it came in.
#[derive(Debug, Clone)]
pub(super) struct Request {
    head: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

pub(super) type Requests = Arc<Mutex<Vec<Request>>>;

/// Answers requests in order with these status lines, the last one for all that follow; an empty one
/// is never answered. Ends with the process.
pub(super) fn serve(answers: &'static [&'static str]) -> (String, Requests) {
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

fn read(stream: &mut impl Read) -> Option<Request> {
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

pub(super) fn hook(url: String) -> Hook {
    Hook {
        on: "/in/".to_owned(),
        http: Some(url),
        backoff: vec![span(10)],
        timeout: span(10_000),
        ..Hook::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn change_is_posted_and_signed() {
    let bench = Bench::new().await;
    let (url, requests) = serve(&["200 OK"]);
    let secret = bench.path("secret");
    std::fs::write(&secret, "whsec_c2VjcmV0\n").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let hook = Hook {
        secret_file: Some(secret),
        ..hook(url)
    };
    bench.add("h", hook).await;
    bench.put("/in/a", "v").await;
    bench.settled("h", 1).await;
    let record = &bench.logs("h").await[0];
    assert_eq!(
        (record.outcome.name(), record.stdout.as_str()),
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
async fn retry_has_the_same_id() {
    let bench = Bench::new().await;
    let (url, requests) = serve(&["500 Oops", "429 Slow down", "", "200 OK"]);
    let hook = Hook {
        timeout: span(3_000),
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
            "took longer than 3s and was ended",
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
async fn refused_or_redirected_post_is_dead() {
    const REFUSED: &[&str] = &["404 Not Found"];
    const REDIRECTED: &[&str] = &["302 Found", "200 OK"];
    for (answers, outcome) in [(REFUSED, "dead"), (REDIRECTED, "failed")] {
        let bench = Bench::new().await;
        let (url, requests) = serve(answers);
        bench.add("h", hook(url)).await;
        bench.put("/in/a", "v").await;
        bench.settled("h", 1).await;
        assert_eq!(bench.logs("h").await[0].outcome.name(), outcome);
        assert_eq!(requests.lock().unwrap().len(), answers.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l11_failed_post_names_reason_not_secret() {
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

/// Serves `https://localhost` with a certificate that it vouches for itself: answers all with 200.
fn serve_tls() -> (String, String, Requests) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    drop(rustls::crypto::ring::default_provider().install_default());
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "https://localhost:{}/",
        listener.local_addr().unwrap().port()
    );
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(session, stream.unwrap());
            // A client that does not trust the certificate hangs up.
            let Some(request) = read(&mut stream) else {
                continue;
            };
            seen.lock().unwrap().push(request);
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n";
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    (url, made.cert.pem(), requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_certificate_needs_its_ca_file() {
    let bench = Bench::new().await;
    let (url, pem, requests) = serve_tls();
    let ca = bench.path("ca.pem");
    let strange = Hook {
        attempts: 2,
        ..hook(url)
    };
    bench.add("strange", strange.clone()).await;
    std::fs::write(&ca, &pem).unwrap();
    let trusting = Hook {
        ca_file: Some(ca.clone()),
        ..strange.clone()
    };
    bench.add("trusting", trusting).await;
    bench.put("/in/a", "v").await;
    bench.settled("strange", 1).await;
    bench.settled("trusting", 1).await;
    let outcomes: Vec<_> = bench
        .logs("strange")
        .await
        .iter()
        .map(|run| (run.outcome.name(), run.what.contains("certificate")))
        .collect();
    let expected = [("failed", true), ("dead", true)];
    assert_eq!(outcomes, expected, "{:?}", bench.logs("strange").await);
    let record = &bench.logs("trusting").await[0];
    assert_eq!(
        (record.outcome.name(), record.stdout.as_str()),
        ("done", "ok\n")
    );
    let requests = requests.lock().unwrap();
    let ids: Vec<_> = requests
        .iter()
        .map(|request| &request.headers["webhook-id"])
        .collect();
    assert_eq!(ids, [&record.run], "the other one said nothing");
    // A file that is not a certificate fails the hook, with a reason.
    for (text, why) in [
        ("", "no certificate"),
        ("-----BEGIN CERTIFICATE-----\n?", "ca.pem"),
    ] {
        std::fs::write(&ca, text).unwrap();
        let action = lattice::hooks::Action::post("https://localhost/", None, Some(&ca));
        let what = action.unwrap_err().to_string();
        assert!(what.contains(why), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l11_environment_secret_shows_only_its_name() {
    let bench = Bench::new().await;
    let (url, requests) = serve(&["200 OK"]);
    // This process cannot set a variable; that of the path is there, and is a text.
    let there = Hook {
        secret_env: Some("PATH".to_owned()),
        attempts: 1,
        ..hook(url)
    };
    let missing = Hook {
        secret_env: Some("LATTICE_TEST_NO_SUCH_SECRET".to_owned()),
        ..there.clone()
    };
    bench.add("there", there.clone()).await;
    bench.add("missing", missing).await;
    bench.put("/in/a", "v").await;
    bench.settled("there", 1).await;
    bench.settled("missing", 1).await;
    let what = bench.logs("missing").await[0].what.clone();
    assert_eq!(
        what,
        "not posted: the secret in the variable LATTICE_TEST_NO_SUCH_SECRET: it is not set in the \
         environment of the node"
    );
    let request = requests.lock().unwrap()[0].clone();
    let secret = std::env::var("PATH").unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.trim().as_bytes());
    let (id, seconds) = (
        &request.headers["webhook-id"],
        &request.headers["webhook-timestamp"],
    );
    let signed = [format!("{id}.{seconds}.").as_bytes(), &request.body].concat();
    let signature = request.headers["webhook-signature"]
        .strip_prefix("v1,")
        .unwrap();
    let signature = data_encoding::BASE64.decode(signature.as_bytes()).unwrap();
    hmac::verify(&key, &signed, &signature).unwrap();
    let told = format!("{:?}", bench.logs("there").await);
    assert!(!told.contains(&secret), "{told}");
    // Exactly one of the two.
    let both = Hook {
        secret_file: Some(bench.path("secret")),
        ..there
    };
    let error = both.check("both").unwrap_err().to_string();
    assert!(error.contains("not both"), "{error}");
}
