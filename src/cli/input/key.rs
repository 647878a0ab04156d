//! Keys and prefixes as arguments.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use clap::Args;

use crate::cli::exit::Failure;

/// The flag of commands that take a key or a prefix.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct KeyFlags {
    /// The key or prefix is given in base64, like `key_base64` of --json
    #[arg(long)]
    key_base64: bool,
}

impl KeyFlags {
    /// Returns the bytes of several keys or prefixes, each as `key` does.
    pub(crate) fn keys(self, arguments: Vec<OsString>) -> Result<Vec<Bytes>, Failure> {
        arguments
            .into_iter()
            .map(|argument| self.key(argument))
            .collect()
    }

    /// Returns the bytes of a key or prefix: those of the argument, which need not be UTF-8, or
    /// those that it encodes.
    pub(crate) fn key(self, argument: OsString) -> Result<Bytes, Failure> {
        let bytes = argument.into_vec();
        if !self.key_base64 {
            return Ok(bytes.into());
        }
        let decoded = BASE64_STANDARD.decode(bytes);
        decoded.map(Bytes::from).map_err(|error| {
            Failure::usage(
                "bad_base64",
                format!(
                    "the key is not base64: {}",
                    error.to_string().trim_end_matches('.')
                ),
            )
        })
    }
}
