//! `verify --proof`: checks a proof file. Needs no node and no store.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use lattice::{
    id::{Author, StoreId},
    light::{self, PROOF_BYTES_MAX, ProofError, Proven, ProvenRow, Subject},
    protocol::heads::Head,
};

use crate::cli::{
    command::verify::Verify,
    exit::{Exit, Failure},
    global::Global,
    input::time::date_time,
    output::{
        object::hex,
        print::{Output, escape, sources},
        proven::{Checked, Row, entries, hash_of},
    },
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
    let proven = light::verify(&proof).map_err(|error| refused(&error))?;
    check(verify, store, &proven)?;
    let mut out = Output::new(global.form(), global.color, global.verbose > 0);
    print(&mut out, &proven)?;
    out.flush()
}

/// Prints what a proof shows.
pub(crate) fn print(out: &mut Output, proven: &Proven) -> Result<(), Failure> {
    let rows = || {
        let rows = proven.rows.iter();
        rows.filter_map(|row| Some((row, row.heads.winner()?)))
    };
    if out.json {
        out.object(&Checked::new(proven))?;
        return rows().try_for_each(|(row, head)| out.object(&Row::new(row, head)));
    }
    match &proven.subject {
        Subject::Key(key) if proven.rows.is_empty() => {
            out.line(&format!("proved   {} was never written", escape(key)))?;
        }
        Subject::Key(_) => {}
        Subject::Prefix(prefix) => out.line(&format!(
            "proved   the keys that start with {}: {} rows, and no other",
            if prefix.is_empty() {
                "anything".into()
            } else {
                escape(prefix)
            },
            proven.rows.len()
        ))?,
    }
    for (row, head) in rows() {
        print_row(out, row, head)?;
    }
    out.line(&format!("store    {}", proven.store))?;
    out.line(&format!("root     {}", proven.root))?;
    for signer in &proven.signers {
        let (node, entries) = (hex(&signer.node.0), entries(&signer.frontier));
        out.line(&format!("signed   by {node} after {entries} entries"))?;
    }
    Ok(())
}

/// Returns the failure for a proof that is refused.
pub(crate) fn refused(error: &ProofError) -> Failure {
    let code = match error {
        ProofError::NotAProof => "not_a_proof",
        ProofError::Version { .. } => "proof_version",
        ProofError::TooLong { .. } => "proof_too_long",
        ProofError::Malformed { .. } => "proof_malformed",
        _wrong => "proof_wrong",
    };
    Failure::new(Exit::Damaged, code, sources(error))
        .hint("it proves nothing; ask for another one with `lattice get KEY --prove FILE`")
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

fn print_row(out: &mut Output, row: &ProvenRow, head: &Head) -> Result<(), Failure> {
    let key = escape(&row.key);
    out.line(&match (&row.value, hash_of(row, head)) {
        (Some(value), _) => format!("proved   {key} = {}", escape(value)),
        (None, Some(hash)) => format!(
            "proved   {key} has the value with BLAKE3 hash {}",
            hex(hash)
        ),
        (None, None) => format!("proved   {key} was deleted"),
    })?;
    if let Some(ms) = head.expires_ms() {
        out.line(&format!("         until {}", date_time(ms)))?;
    }
    out.line(&format!(
        "         entry {}, {} of {}, {}",
        hex(&head.id.0),
        head.seq,
        hex(&head.author.0),
        date_time(head.hlc.wall_ms),
    ))?;
    match row.heads.as_slice().len() {
        0 | 1 => Ok(()),
        heads => out.line(&format!("         !conflict ({heads} heads)")),
    }
}
