//! The flags for the action on a change: run a command, or post to a URL.

use std::path::PathBuf;

use clap::Args;

/// A command, or a URL with the secret and the authorities for posts to it.
#[derive(Debug, Args)]
pub(crate) struct ActionArgs {
    /// Post the change to this URL instead of running a command
    #[arg(long, value_name = "URL", conflicts_with = "command")]
    pub(crate) http: Option<String>,
    /// Sign posts with the secret in this file, as Standard Webhooks does
    #[arg(long, value_name = "PATH", requires = "http")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Sign posts with the secret in this environment variable of the process that posts
    #[arg(
        long,
        value_name = "NAME",
        requires = "http",
        conflicts_with = "secret_file"
    )]
    pub(crate) secret_env: Option<String>,
    /// Also trust servers whose certificate is signed by an authority in this PEM file
    #[arg(long, value_name = "PATH", requires = "http")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The command and its arguments; ./x is relative to the current directory
    #[arg(last = true, value_name = "COMMAND", required_unless_present = "http")]
    pub(crate) command: Vec<String>,
}
