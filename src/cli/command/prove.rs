//! `get --prove` and `list --prove`: write a proof file.

use std::{fs, path::PathBuf};

use bytes::BytesMut;
use clap::Args;
use lattice::{light, wire::api};

use crate::cli::{
    command::verify_proof::{print, refused},
    exit::Failure,
    session::{Context, Lifetime},
};

/// The flag of commands that can prove what they print.
#[derive(Debug, Args)]
pub(crate) struct ProveFlag {
    /// Write a proof into FILE [default: stdout]; `lattice verify --proof FILE` checks it anywhere
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub(crate) prove: Option<PathBuf>,
}

/// Writes the proof of `request` into `file`, or to stdout for `-`. Prints what it proves if that does
/// not go to stdout.
pub(crate) async fn prove(
    context: &mut Context,
    request: api::ProveRequest,
    file: PathBuf,
) -> Result<(), Failure> {
    let to_stdout = file.as_os_str() == "-";
    if to_stdout && context.out.terminal {
        let message = "a proof is binary, and stdout is a terminal";
        return Err(Failure::usage("proof_to_terminal", message)
            .hint("name a file after --prove, or send stdout into a file or a pipe"));
    }
    let mut client = context.client(Lifetime::Short).await?;
    let mut parts = client.prove(request).await?.into_inner();
    let mut proof = BytesMut::new();
    while let Some(part) = parts.message().await? {
        proof.extend_from_slice(&part.part);
    }
    // Nobody gets a proof that does not hold.
    let proven = light::verify(&proof).map_err(|error| refused(&error))?;
    if to_stdout {
        return context.out.bytes(&proof);
    }
    fs::write(&file, &proof).map_err(|error| {
        let message = format!("cannot write {}: {error}", file.display());
        Failure::failed("proof_file", message)
    })?;
    print(&mut context.out, &proven)
}
