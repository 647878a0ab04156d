//! Why the secret of a key cannot be had.

use std::{io, path::PathBuf, time::Duration};

use crate::id::Author;

/// Why the secret of a node's key cannot be had, or be put somewhere. No other place is tried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text is not the content of an `identity.key` of this version.
    #[error("{what}")]
    Malformed {
        /// The check that failed, as a clause.
        what: String,
    },
    /// The secret is sealed with a passphrase, and nobody was asked for it.
    #[error("the key of node {} is sealed with a passphrase, and there is no terminal to ask for it", node.short())]
    NoPassphrase {
        /// The node.
        node: Author,
    },
    /// The passphrase could not be read.
    #[error("the passphrase of the key cannot be read: {source}")]
    Passphrase {
        /// Error of its source.
        source: io::Error,
    },
    /// The sealed secret does not open.
    #[error("the passphrase is wrong, or the sealed key was changed")]
    WrongPassphrase,
    /// The passphrase has too few or too many bytes.
    #[error("the passphrase has {bytes} bytes; {} to {} are allowed", .allowed.0, .allowed.1)]
    PassphraseLength {
        /// Bytes that it has.
        bytes: usize,
        /// The fewest and the most.
        allowed: (usize, usize),
    },
    /// Argon2 or the cipher refuses to work with these parameters.
    #[error("the key cannot be sealed or opened: {what}")]
    Seal {
        /// The reason.
        what: String,
    },
    /// The system gave this process no credentials.
    #[error(
        "the key is the credential {name} of systemd, and this process was given no credentials"
    )]
    NoCredentials {
        /// Name of the credential.
        name: String,
    },
    /// The credential cannot be read.
    #[error("the credential {} cannot be read: {source}", path.display())]
    Credential {
        /// Path of the credential.
        path: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
    /// The text that a credential, a command or a caller gave is not a key.
    #[error(
        "{place} gave {bytes} bytes that are not a key: expected 64 hex digits, or a copy of identity.key"
    )]
    NotAKey {
        /// The place, as a noun.
        place: String,
        /// Bytes that it gave.
        bytes: usize,
    },
    /// It is the key of another node.
    #[error("{place} has the key of node {}, not of node {}", found.short(), node.short())]
    OtherNode {
        /// The place, as a noun.
        place: String,
        /// The node whose key was wanted.
        node: Author,
        /// The node whose key is there.
        found: Author,
    },
    /// The command that prints the key does not start.
    #[error("the command that prints the key, {command}, cannot be started: {source}")]
    Start {
        /// The program.
        command: String,
        /// Error of the system.
        source: io::Error,
    },
    /// The command failed.
    #[error("the command that prints the key, {command}, {how}{}", said(stderr))]
    Command {
        /// The program.
        command: String,
        /// The way in which it ended.
        how: String,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// The command did not end in time.
    #[error("the command that prints the key, {command}, did not end within {}s and was ended{}", wait.as_secs(), said(stderr))]
    CommandTime {
        /// The program.
        command: String,
        /// Time that it had.
        wait: Duration,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// The command printed too much.
    #[error(
        "the command that prints the key, {command}, printed more than {bytes_max} bytes and was ended"
    )]
    CommandOutput {
        /// The program.
        command: String,
        /// Bytes that it may print.
        bytes_max: usize,
    },
    /// The program that opened the node keeps its key, and this one does not have it.
    #[error("the key of node {} is kept by the program that embeds the node", node.short())]
    NoVault {
        /// The node.
        node: Author,
    },
    /// That program's store of keys failed.
    #[error("{place} cannot give or take the key: {what}")]
    Vault {
        /// The place, as a noun.
        place: String,
        /// The reason, as it was said.
        what: String,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {what}")]
    Random {
        /// The reason.
        what: String,
    },
}

impl KeyError {
    /// Returns the next step, for people.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoPassphrase { .. } => "name a file that has it with --passphrase-file",
            Self::WrongPassphrase | Self::Passphrase { .. } => {
                "try again; without the passphrase, only a backup of the key helps"
            }
            Self::NoCredentials { .. } => {
                "start the service, which systemd gives the credential; or, as its user, name the \
                 directory of the credentials in $CREDENTIALS_DIRECTORY"
            }
            Self::Start { .. } | Self::Command { .. } | Self::CommandTime { .. } => {
                "run the command by hand as the user of the node; it must print the key and end"
            }
            _others => "put the key where it was, or use a backup of it as identity.key",
        }
    }
}

fn said(stderr: &str) -> String {
    match stderr.trim() {
        "" => String::new(),
        text => format!("; it wrote: {text}"),
    }
}
