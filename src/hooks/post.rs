//! One run of a hook that posts: the changes are the body, signed as Standard Webhooks specifies.
//!
//! `webhook-id` is the run id, equal at every attempt; `webhook-timestamp` is in seconds since
//! 1970; `webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over `{id}.{timestamp}.{body}`.
//! The key is the secret.

use std::path::Path;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Certificate, Client, redirect::Policy};
use ring::hmac;

use crate::{
    hooks::{
        HooksError,
        command::{Captured, End, Job, Ran},
        error::causes,
        secret::Secret,
    },
    limits::{HOOK_CA_BYTES_MAX, HOOK_OUTPUT_BYTES_MAX},
    permissions::{self, Trust},
};

/// The URL that changes are posted to, and the client that posts.
#[derive(Debug, Clone)]
pub struct Post {
    client: Client,
    url: String,
    // Read for each post, so the file may be replaced. `None`: posts are not signed.
    secret: Option<Secret>,
}

impl Post {
    /// Returns a client for `url` that trusts the authorities of this machine and the authorities
    /// in `ca_file`.
    pub(super) fn new(
        url: &str,
        secret: Option<Secret>,
        ca_file: Option<&Path>,
    ) -> Result<Self, HooksError> {
        // Fails if a provider is installed already; that provider works, too.
        drop(rustls::crypto::ring::default_provider().install_default());
        let authorities = ca_file.map_or(Ok(Vec::new()), authorities)?;
        let client = Client::builder()
            .tls_certs_merge(authorities)
            // A redirect would send the changes to a host that the hook does not name.
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

    /// Posts the stdin of `job`. The body of the answer becomes the stdout of the run. Dropping the
    /// call drops the request, which the server may still have received.
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
        // One line, or a batch of lines.
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
            // The rest of an endless answer is not read.
            if answer.is_cut() {
                break;
            }
        }
        Ok(response.status().as_u16())
    }
}

// Reads the certificates of a PEM file.
fn authorities(path: &Path) -> Result<Vec<Certificate>, HooksError> {
    let wrong = |what: String| HooksError::Post {
        what: format!("ca_file {}: {what}", path.display()),
    };
    let pem = permissions::read(path, Trust::Obeyed, HOOK_CA_BYTES_MAX).map_err(|error| {
        HooksError::Post {
            what: format!("ca_file: {}", error.with_remedy()),
        }
    })?;
    if pem.len() > HOOK_CA_BYTES_MAX {
        return Err(wrong("the file is too long".to_owned()));
    }
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(causes(&error)))?;
    match found.is_empty() {
        true => Err(wrong("the file contains no certificate".to_owned())),
        false => Ok(found),
    }
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
    fn signature_is_that_of_standard_webhooks() {
        // The example in the specification.
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
}
