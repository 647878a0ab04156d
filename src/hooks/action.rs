//! What a hook does: it runs a command, or posts to a URL.

use std::path::Path;

use crate::hooks::{
    HooksError,
    change_line::RunId,
    command::{Command, Job, Ran},
    post::Post,
    secret::Secret,
};

/// What a hook does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Runs a command.
    Run(Command),
    /// Posts to a URL.
    Post(Post),
}

impl Action {
    /// Makes the action that posts to `url`, signed with `secret`, where there is one. A server is
    /// believed that the authorities of this machine vouch for, or those in `ca_file`, a PEM file.
    ///
    /// # Errors
    /// `Post` when this machine cannot.
    pub fn post(
        url: &str,
        secret: Option<Secret>,
        ca_file: Option<&Path>,
    ) -> Result<Self, HooksError> {
        Ok(Self::Post(Post::new(url, secret, ca_file)?))
    }

    /// Does it. Of a job, what is on stdin is the body of a post; variables are a command's.
    pub async fn perform(&self, job: Job, run: RunId, now_ms: u64) -> Ran {
        match self {
            Self::Run(command) => command.run(job).await,
            Self::Post(post) => post.send(job, &run.to_string(), now_ms).await,
        }
    }
}
