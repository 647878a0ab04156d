//! `compare`: compares the state of a store with that of another member.

use std::ffi::OsString;

use clap::Args;
use lattice::wire::api;

use crate::cli::{
    command::peer,
    exit::{Exit, Failure},
    input::key::KeyFlags,
    output::{
        compared::{Compared, Difference, Range},
        object::{hex, short},
        print::{Output, escape},
    },
    session::{Context, Lifetime},
};

/// Compare a store here with the same store on another member
///
/// Takes one round trip if both have the same state. Else lists the keys that differ, and the entries
/// that each side has; the cost grows with their number, not with the store. Entries that are on their
/// way make two nodes differ for a moment. Exits with 0 if they are equal and with 1 if they differ.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice compare kitchen
  lattice compare 4f5c --prefix /config/
  lattice compare kitchen --json | jq -r 'select(.type == \"key\").key'")]
pub(crate) struct Compare {
    /// Id of the member, the first digits of it, or its name
    node: String,
    /// Only keys that start with this
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: OsString,
    #[command(flatten)]
    flags: KeyFlags,
    /// List at most this many keys
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

impl Compare {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let prefix = self.flags.key(self.prefix)?;
        let mut client = context.client(Lifetime::Long).await?;
        let peer = peer::find(context, &self.node).await?;
        let request = api::CompareRequest {
            store: context.store.clone(),
            node: peer.node.clone(),
            prefix,
            limit: self.limit,
        };
        let mut parts = client.compare(request).await?.into_inner();
        let out = &mut context.out;
        let (mut is_equal, mut more) = (None, false);
        while let Some(part) = parts.message().await? {
            if is_equal.is_none() {
                is_equal = Some(part.equal);
                print_states(out, &peer, &part)?;
            }
            more |= part.more;
            for range in &part.ranges {
                print_range(out, range)?;
            }
            for key in &part.keys {
                print_key(out, key)?;
            }
        }
        if more {
            out.flush()?;
            out.notice("more", "more keys may differ; raise --limit to list them");
        }
        match is_equal {
            Some(true) => Ok(()),
            // No message: the differences are the answer.
            _differ => Err(Failure::new(Exit::Failed, "different", "")),
        }
    }
}

fn print_states(
    out: &mut Output,
    peer: &api::Peer,
    reply: &api::CompareReply,
) -> Result<(), Failure> {
    if out.json {
        return out.object(&Compared::new(&peer.node, reply));
    }
    let cost = format!(
        "{} {}, {} bytes",
        reply.round_trips,
        if reply.round_trips == 1 {
            "round trip"
        } else {
            "round trips"
        },
        reply.bytes
    );
    if reply.equal {
        return out.line(&format!("equal    {cost}"));
    }
    let state = |state: Option<&api::ComparedState>| {
        let state = state.cloned().unwrap_or_default();
        format!("{} after {} entries", hex(&state.root), state.entries)
    };
    out.line(&format!("differ   {cost}"))?;
    out.line(&format!("here     {}", state(reply.here.as_ref())))?;
    out.line(&format!("there    {}", state(reply.there.as_ref())))?;
    if reply.same_entries {
        out.line(
            "! both have the same entries, so the state of one of them is wrong: `lattice verify` on \
             each shows which",
        )?;
    }
    Ok(())
}

fn print_range(out: &mut Output, range: &api::KeyRange) -> Result<(), Failure> {
    if out.json {
        return out.object(&Range::new(range));
    }
    let to = range.to.as_ref().map_or("the end".into(), |to| escape(to));
    out.line(&format!(
        "! from {} to {to}: too many keys to compare one by one",
        escape(&range.from)
    ))
}

fn print_key(out: &mut Output, key: &api::KeyDifference) -> Result<(), Failure> {
    if out.json {
        return out.object(&Difference::new(key));
    }
    let there = if key.there_is_long {
        "very many heads".to_owned()
    } else {
        heads(&key.there)
    };
    let here = heads(&key.here);
    out.line(&format!("{}\there {here}\tthere {there}", escape(&key.key)))
}

// The heads of one side, the winner first.
fn heads(heads: &[api::Head]) -> String {
    if heads.is_empty() {
        return "nothing".to_owned();
    }
    let head = |head: &api::Head| {
        let entry = head.entry.clone().unwrap_or_default();
        format!("{} {}", head.kind, short(&entry.id))
    };
    heads.iter().map(head).collect::<Vec<_>>().join(", ")
}
