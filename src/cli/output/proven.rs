//! The output about roots and proofs: JSON objects by the rules of [`object`](super::object), and lines
//! for people.

use lattice::{
    light::{ProofError, Proven, ProvenRow, Subject},
    protocol::{
        frontier::Frontier,
        heads::{Content, Head, Value},
    },
    wire::api,
};
use serde::Serialize;

use crate::cli::{
    exit::{Exit, Failure},
    input::time::date_time,
    output::{
        object::{self, Key, Prefix, Store, hex},
        print::{Output, escape, sources},
    },
};

/// The root of a store, printed by `root`.
#[derive(Serialize)]
pub(crate) struct Root {
    root: String,
    #[serde(flatten)]
    store: Store,
    /// Absent for the root of all keys.
    #[serde(flatten)]
    prefix: Option<Prefix>,
    /// Number of entries that make the state, and hash of their tips.
    entries: u64,
    frontier: String,
    /// Hash of the acts that count.
    acts: String,
    /// Other members whose last signed state is this one; empty with a prefix.
    signed_by: Vec<String>,
    /// Number of members, this node among them.
    members: u32,
}

impl Root {
    /// Converts an answer of the API.
    pub(crate) fn new(reply: &api::RootReply, prefix: &[u8]) -> Self {
        Self {
            root: hex(&reply.root),
            store: Store::new(reply.info.as_ref()),
            prefix: (!prefix.is_empty()).then(|| Prefix::new(prefix)),
            entries: reply.entries,
            frontier: hex(&reply.frontier),
            acts: hex(&reply.acts),
            signed_by: reply.signed_by.iter().map(|node| hex(node)).collect(),
            members: reply.members,
        }
    }
}

/// A proof that was checked. One object for each row follows it.
#[derive(Serialize)]
struct Checked {
    r#type: &'static str,
    store: String,
    root: String,
    /// The key, or the prefix, that the proof is about.
    #[serde(flatten)]
    key: Option<Key>,
    #[serde(flatten)]
    prefix: Option<Prefix>,
    /// Number of the rows that follow; tombstones have rows, too.
    rows: usize,
    signed_by: Vec<Signer>,
}

/// A node that has signed the root of a proof.
#[derive(Serialize)]
struct Signer {
    node: String,
    /// Number of entries that make the state.
    entries: u64,
}

/// A proven row.
#[derive(Serialize)]
struct Row {
    r#type: &'static str,
    #[serde(flatten)]
    key: Key,
    /// `put` or `delete`.
    kind: &'static str,
    #[serde(flatten)]
    value: object::Value,
    /// BLAKE3 hash of a value that the proof does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    entry: String,
    author: String,
    seq: u64,
    wall_ms: u64,
    counter: u32,
    /// Number of heads; more than 1 is a conflict.
    heads: usize,
}

impl Row {
    fn new(row: &ProvenRow, head: &Head) -> Self {
        let hash = hash_of(row, head);
        Self {
            r#type: "row",
            key: Key::new(&row.key),
            kind: kind(head),
            value: object::Value::new(row.value.as_deref()),
            value_hash: hash.map(|hash| hex(hash)),
            expires_ms: head.expires_ms(),
            entry: hex(&head.id.0),
            author: hex(&head.author.0),
            seq: head.seq,
            wall_ms: head.hlc.wall_ms,
            counter: head.hlc.counter,
            heads: row.heads.as_slice().len(),
        }
    }
}

/// Prints what a proof shows.
pub(crate) fn print(out: &mut Output, proven: &Proven) -> Result<(), Failure> {
    let rows = || {
        let rows = proven.rows.iter();
        rows.filter_map(|row| Some((row, row.heads.winner()?)))
    };
    if out.json {
        out.object(&checked(proven))?;
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
        ProofError::Row(_)
        | ProofError::Ack(_)
        | ProofError::OtherState { .. }
        | ProofError::OtherValue => "proof_wrong",
    };
    Failure::new(Exit::Damaged, code, sources(error))
        .hint("it proves nothing; ask for another one with `lattice get KEY --prove FILE`")
}

fn checked(proven: &Proven) -> Checked {
    let (key, prefix) = match &proven.subject {
        Subject::Key(key) => (Some(Key::new(key)), None),
        Subject::Prefix(prefix) => (None, Some(Prefix::new(prefix))),
    };
    let signers = proven.signers.iter().map(|signer| Signer {
        node: hex(&signer.node.0),
        entries: entries(&signer.frontier),
    });
    Checked {
        r#type: "proved",
        store: proven.store.to_string(),
        root: proven.root.to_string(),
        key,
        prefix,
        rows: proven.rows.len(),
        signed_by: signers.collect(),
    }
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

fn kind(head: &Head) -> &'static str {
    match head.content {
        Content::Value { .. } => "put",
        Content::Tombstone => "delete",
    }
}

// Returns the hash of the winning value if the proof does not have the value.
fn hash_of<'a>(row: &ProvenRow, head: &'a Head) -> Option<&'a [u8; 32]> {
    match &head.content {
        Content::Value {
            value: Value::InLog { hash, .. },
            ..
        } if row.value.is_none() => Some(hash),
        _other => None,
    }
}

fn entries(frontier: &Frontier) -> u64 {
    frontier.entries_beyond(&Frontier::default())
}
