//! `verify --proof`: checks a proof file. Needs no node and no store.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use lattice::{
    id::{Author, StoreId},
    light::{self, PROOF_BYTES_MAX, Proven},
};

use crate::cli::{
    command::verify::Verify,
    exit::{Exit, Failure},
    global::Global,
    output::{object::hex, print::Output, proven},
};

/// Checks the proof in `file`, or on stdin for `-`; prints what it proves, and who has signed it.
pub(crate) fn verify_proof(verify: &Verify, file: &Path, global: &Global) -> Result<(), Failure> {
    let store = global.store.as_deref().map(str::parse::<StoreId>);
    let store = store.transpose().map_err(|error| {
        Failure::usage("bad_store", error.to_string())
            .hint("--store must be a UUID, because no node is asked; see `lattice store list`")
    })?;
    let proof = read(file).map_err(|error| {
        let name = match file.as_os_str() == "-" {
            true => "stdin".into(),
            false => file.to_string_lossy(),
        };
        Failure::failed("proof_file", format!("cannot read {name}: {error}"))
    })?;
    let proven = light::verify(&proof).map_err(|error| proven::refused(&error))?;
    check(verify, store, &proven)?;
    let mut out = Output::new(global.json);
    proven::print(&mut out, &proven)?;
    out.flush()
}

// Reads one byte more than a proof can have, so that a longer one is found to be too long.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let bytes_max = PROOF_BYTES_MAX as u64 + 1;
    let mut proof = Vec::new();
    if file.as_os_str() == "-" {
        io::stdin().lock().take(bytes_max).read_to_end(&mut proof)?;
    } else {
        File::open(file)?.take(bytes_max).read_to_end(&mut proof)?;
    }
    Ok(proof)
}

// Checks that the proof is the one that the flags ask for.
fn check(verify: &Verify, store: Option<StoreId>, proven: &Proven) -> Result<(), Failure> {
    let wrong = |code, message: String| Failure::new(Exit::Damaged, code, message);
    if let Some(root) = verify.root
        && proven.root.0 != root.0
    {
        let message = format!("the proof is about the root {}, not {root}", proven.root);
        return Err(wrong("other_root", message));
    }
    if let Some(store) = store.filter(|store| proven.store != *store) {
        let message = format!("the proof is about the store {}, not {store}", proven.store);
        return Err(wrong("other_store", message));
    }
    let is_accepted = |node: &Author| verify.authors.is_empty() || verify.authors.contains(node);
    if !proven
        .signers
        .iter()
        .any(|signer| is_accepted(&signer.node))
    {
        let signers = proven.signers.iter().map(|signer| hex(&signer.node.0));
        let signers: Vec<String> = signers.collect();
        let message = format!(
            "none of the accepted authors has signed the root: {} did",
            signers.join(", ")
        );
        return Err(wrong("not_signed", message));
    }
    Ok(())
}
