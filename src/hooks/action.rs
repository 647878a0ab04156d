//! The action of a hook: run a command, or post to a URL.

use std::path::Path;

use crate::hooks::{
    HooksError,
    change_line::RunId,
    command::{Command, Job, Ran},
    post::Post,
    secret::Secret,
};

/// The action of a hook.
#[derive(Debug, Clone)]
pub enum Action {
    /// Runs a command.
    Run(Command),
    /// Posts to a URL.
    Post(Post),
}

impl Action {
    /// Returns the action that posts to `url`, signed with `secret` if there is one.
    ///
    /// The server must have a certificate of an authority that this machine trusts, or of an
    /// authority in `ca_file`, a PEM file.
    ///
    /// # Errors
    /// `Post` if `ca_file` cannot be used or TLS cannot be set up.
    pub fn post(
        url: &str,
        secret: Option<Secret>,
        ca_file: Option<&Path>,
    ) -> Result<Self, HooksError> {
        Ok(Self::Post(Post::new(url, secret, ca_file)?))
    }

    /// Performs the action once. A post sends the stdin of the job as its body and ignores the
    /// variables of the job. Dropping the call ends the command or the request.
    pub async fn perform(&self, job: Job, run: RunId, now_ms: u64) -> Ran {
        match self {
            Self::Run(command) => command.run(job).await,
            Self::Post(post) => post.send(job, &run.to_string(), now_ms).await,
        }
    }
}
