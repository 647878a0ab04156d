//! `systemd-creds`, which encrypts credentials of services.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use lattice::vault::{CREDENTIAL_NAME, Seed};

use crate::cli::exit::Failure;

/// Writes the secret into a credential, encrypted with a key of this machine, and reads it back.
///
/// # Errors
/// `systemd_creds`.
pub(super) fn encrypt(seed: &Seed, path: &Path, with_key: &str) -> Result<Seed, Failure> {
    if path.symlink_metadata().is_ok() {
        let message = format!("{} exists", path.display());
        return Err(Failure::failed("exists", message).hint("name another file, or remove it"));
    }
    let name = format!("--name={CREDENTIAL_NAME}");
    let mut encrypting = Command::new(PROGRAM);
    encrypting
        .args(["encrypt", &format!("--with-key={with_key}"), &name, "-"])
        .arg(path);
    run(&mut encrypting, seed.to_text().as_bytes())?;
    let mut decrypting = Command::new(PROGRAM);
    decrypting.args(["decrypt", &name]).arg(path).arg("-");
    let read = zeroize::Zeroizing::new(run(&mut decrypting, &[])?);
    let seed = str::from_utf8(&read).ok().and_then(Seed::from_text);
    seed.ok_or_else(|| {
        let message = format!("{} does not give back the key", path.display());
        Failure::failed("systemd_creds", message)
    })
}

fn run(command: &mut Command, input: &[u8]) -> Result<Vec<u8>, Failure> {
    let failed = |what: String| {
        let message = format!("{PROGRAM} cannot be used: {what}");
        let hint =
            "it is part of systemd, from version 250 on, and mostly works for the superuser only";
        Failure::failed("systemd_creds", message).hint(hint)
    };
    let started = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = started.map_err(|error| failed(error.to_string()))?;
    if let Some(mut to) = child.stdin.take() {
        // If it ended early, its exit code says so.
        drop(to.write_all(input));
    }
    let output = child.wait_with_output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
    }
}

const PROGRAM: &str = "systemd-creds";
