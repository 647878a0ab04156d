//! One run of a hook that posts: the changes as the body, signed as Standard Webhooks does it.
//!
//! `webhook-id` is the run id, the same at every attempt; `webhook-timestamp` is in seconds since
//! 1970; `webhook-signature` is `v1,` and base64 of HMAC-SHA256 over `{id}.{timestamp}.{body}`. The
//! key is what is in the secret's file or variable: base64 behind `whsec_`, else its bytes.

use std::{
    env, fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Certificate, Client, redirect::Policy};
use ring::hmac;

use crate::{
    hooks::{
        HooksError,
        command::{Captured, End, Job, Ran},
        error::causes,
    },
    limits::{HOOK_CA_BYTES_MAX, HOOK_OUTPUT_BYTES_MAX, HOOK_SECRET_BYTES_MAX},
};

/// Where changes are posted to.
#[derive(Debug, Clone)]
pub struct Post {
    client: Client,
    url: String,
    // Read at each post: a file may be replaced.
    secret: Option<Secret>,
}

/// Where the secret is that posts are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// In a file.
    File(PathBuf),
    /// In an environment variable of this name.
    Env(String),
}

impl Post {
    /// Posts to `url`, which may also prove itself by the authorities in `ca_file`.
    pub(super) fn new(
        url: &str,
        secret: Option<Secret>,
        ca_file: Option<&Path>,
    ) -> Result<Self, HooksError> {
        // Somebody may have chosen one before.
        drop(rustls::crypto::ring::default_provider().install_default());
        let authorities = ca_file.map_or(Ok(Vec::new()), authorities)?;
        let client = Client::builder()
            .tls_certs_merge(authorities)
            // A redirect to elsewhere would take the changes there.
            .redirect(Policy::none())
            .no_proxy()
            .user_agent(concat!("lattice/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            client: client.map_err(|error| HooksError::Post {
                what: causes(&error),
            })?,
            url: url.to_owned(),
            secret,
        })
    }

    /// Posts what a command would have on stdin. The answer's body is what it printed.
    pub(super) async fn send(&self, job: Job, id: &str, now_ms: u64) -> Ran {
        let mut answer = Captured::default();
        let exchange = self.exchange(job.stdin, id, now_ms, &mut answer);
        let end = match tokio::time::timeout(job.timeout, exchange).await {
            Ok(Ok(status)) => End::Answered { status },
            Ok(Err(what)) => End::NotPosted { what },
            Err(_elapsed) => End::TimedOut { after: job.timeout },
        };
        Ran {
            end,
            stdout: answer,
            stderr: Captured::default(),
        }
    }

    async fn exchange(
        &self,
        body: Vec<u8>,
        id: &str,
        now_ms: u64,
        answer: &mut Captured,
    ) -> Result<u16, String> {
        let seconds = (now_ms / 1000).to_string();
        // One line, or a batch of them.
        let kind = match body.iter().filter(|byte| **byte == b'\n').count() {
            0 | 1 => "application/json",
            _more => "application/x-ndjson",
        };
        let mut request = self
            .client
            .post(&self.url)
            .header("content-type", kind)
            .header("webhook-id", id)
            .header("webhook-timestamp", &seconds);
        if let Some(secret) = &self.secret {
            let secret = secret
                .read()
                .map_err(|error| format!("the secret in {secret}: {error}"))?;
            let signature = sign(&secret, id, &seconds, &body);
            request = request.header("webhook-signature", signature);
        }
        let mut response = request
            .body(body)
            .send()
            .await
            .map_err(|error| causes(&error.without_url()))?;
        while let Ok(Some(chunk)) = response.chunk().await {
            answer.add(&chunk, HOOK_OUTPUT_BYTES_MAX);
            // Nobody reads what an endless answer says next.
            if answer.is_cut() {
                break;
            }
        }
        Ok(response.status().as_u16())
    }
}

impl Secret {
    fn read(&self) -> io::Result<Vec<u8>> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        let text = match self {
            Self::File(path) => bounded(path, HOOK_SECRET_BYTES_MAX)?,
            Self::Env(name) => env::var_os(name)
                .ok_or_else(|| invalid("it is not set where the node runs"))?
                .into_encoded_bytes(),
        };
        if text.len() > HOOK_SECRET_BYTES_MAX {
            return Err(invalid("it is too long"));
        }
        let text = text.trim_ascii();
        let secret = match text.strip_prefix(b"whsec_") {
            Some(base64) => BASE64_STANDARD
                .decode(base64)
                .map_err(|_not_base64| invalid("what follows whsec_ is not base64"))?,
            None => text.to_vec(),
        };
        match secret.is_empty() {
            true => Err(invalid("it is empty")),
            false => Ok(secret),
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Env(name) => write!(f, "the variable {name}"),
        }
    }
}

// The certificates of a PEM file.
fn authorities(path: &Path) -> Result<Vec<Certificate>, HooksError> {
    let wrong = |what: String| HooksError::Post {
        what: format!("ca_file {}: {what}", path.display()),
    };
    let pem = bounded(path, HOOK_CA_BYTES_MAX).map_err(|error| wrong(error.to_string()))?;
    if pem.len() > HOOK_CA_BYTES_MAX {
        return Err(wrong("it is too long".to_owned()));
    }
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(causes(&error)))?;
    match found.is_empty() {
        true => Err(wrong("there is no certificate in it".to_owned())),
        false => Ok(found),
    }
}

// The bytes of a file, or one more than `bytes_max`.
fn bounded(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let bytes_max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    File::open(path)?
        .take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn sign(secret: &[u8], id: &str, seconds: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    for part in [id.as_bytes(), b".", seconds.as_bytes(), b".", body] {
        context.update(part);
    }
    format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_standard_webhooks() {
        // The example of its specification.
        let secret = BASE64_STANDARD
            .decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
            .unwrap();
        let signature = sign(
            &secret,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            b"{\"test\": 2432232314}",
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_text_or_base64_and_never_empty() {
        let dir = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            let path = dir.path().join("secret");
            std::fs::write(&path, text).unwrap();
            Secret::File(path).read()
        };
        assert_eq!(read("open sesame\n").unwrap(), b"open sesame");
        assert_eq!(read("whsec_AAEC\n").unwrap(), [0, 1, 2]);
        assert!(read("whsec_?").is_err());
        assert!(read(" \n").is_err());
        assert!(read(&"x".repeat(5000)).is_err());
        assert!(Secret::File(dir.path().join("none")).read().is_err());
    }
}
