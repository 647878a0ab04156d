//! `peer`, `connect`: show, dial and remove the other members of the mesh.

use std::{cmp::Reverse, fmt::Write as _};

use clap::{Args, Subcommand};
use lattice::{api::whole, clock::about, id::looks_like_id, wire::api};

use crate::cli::{
    exit::{Exit, Failure},
    input::{confirm, time::date_time},
    output::{
        health::NOT_LISTENING_HINT,
        object::{self, hex, short},
        print::harmless,
    },
    session::{Context, Lifetime},
};

/// List the other members, change their role or name, remove them, or mark them dormant
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice peer list
  lattice peers --json | jq -r 'select(.online and (.own | not)) | .node'
  lattice peer role kitchen writer
  lattice peer rename 4f5c kitchen
  lattice peer remove 4f5c
  lattice peer dormant 4f5c")]
pub(crate) struct Peer {
    #[command(subcommand)]
    action: PeerAction,
}

#[derive(Debug, Subcommand)]
enum PeerAction {
    /// List the members: this node, then the others, online ones first
    #[command(visible_alias = "ls", after_help = LIST_HELP)]
    List,
    /// Remove a node from the mesh, for ever
    ///
    /// The entries that it wrote and that this node has remain valid. Later ones do not count. Shows
    /// the id, the name and the role of the node, and asks for confirmation: a member chooses its own
    /// name, and nothing takes a removal back.
    #[command(
        after_help = "Examples:\n  lattice peer remove 4f5c\n  lattice peer remove kitchen --yes"
    )]
    Remove {
        /// Id of the node, the first digits of it, or its name
        node: String,
        /// Do not ask for confirmation; required if stdin is not a terminal
        #[arg(long)]
        yes: bool,
    },
    /// Give a member another role
    ///
    /// A lower role is for ever: no other one gives the rights back. What the node has done with them,
    /// as far as this node has it, goes on counting; later entries or acts of it do not. So this asks
    /// for confirmation, as a removal does.
    #[command(
        after_help = "Examples:\n  lattice peer role kitchen writer\n  lattice peer role kitchen reader --yes"
    )]
    Role {
        /// Id of the node, the first digits of it, or its name
        node: String,
        /// Its new role
        #[arg(value_parser = ["reader", "writer", "admin"])]
        role: String,
        /// Do not ask for confirmation; required for a lower role if stdin is not a terminal
        #[arg(long)]
        yes: bool,
    },
    /// Give a member another name
    ///
    /// Every writer may rename itself, and an admin everybody. A name in config.toml, or a --name,
    /// takes effect again at the next start of that node.
    #[command(
        after_help = "Examples:\n  lattice peer rename 4f5c kitchen\n  lattice peer rename . attic"
    )]
    Rename {
        /// Id of the node, the first digits of it, or its name; `.` is this node
        node: String,
        /// Its new name, up to 64 characters
        name: String,
    },
    /// Mark a member as dormant: nobody waits for it until it is back
    ///
    /// A member that makes no progress becomes dormant by itself (`lattice retention set`), and is waited for
    /// again once it has nearly everything. --over says so at once.
    #[command(
        after_help = "Examples:\n  lattice peer dormant 4f5c\n  lattice peer dormant 4f5c --over"
    )]
    Dormant {
        /// Id of the node, the first digits of it, or its name
        node: String,
        /// Mark it as active again
        #[arg(long)]
        over: bool,
    },
}

impl Peer {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self.action {
            PeerAction::List => Peers {}.run(context).await,
            PeerAction::Remove { node, yes } => {
                let mut client = context.client(Lifetime::Short).await?;
                let hint = "this is this node itself: see `lattice leave`";
                let peer = find_other(context, &node, hint).await?;
                if !yes {
                    confirm_removal(&peer).await?;
                }
                let request = api::RemovePeerRequest {
                    node: peer.node.clone(),
                };
                client.remove_peer(request).await?;
                print_changed(context, "removed", &peer)
            }
            PeerAction::Role { node, role, yes } => {
                let mut client = context.client(Lifetime::Short).await?;
                let hint = "this is this node itself: another admin can change its role";
                let peer = find_other(context, &node, hint).await?;
                if !yes && is_lower(&role, &peer.role) {
                    confirm_lowering(&peer, &role).await?;
                }
                let request = api::SetRoleRequest {
                    node: peer.node.clone(),
                    role: role.clone(),
                };
                client.set_role(request).await?;
                print_changed(context, "role", &peer)
            }
            PeerAction::Rename { node, name } => {
                let mut client = context.client(Lifetime::Short).await?;
                let peer = match node.as_str() {
                    "." => own(context).await?,
                    other => find(context, other).await?,
                };
                let request = api::RenamePeerRequest {
                    node: peer.node.clone(),
                    name,
                };
                client.rename_peer(request).await?;
                print_changed(context, "renamed", &peer)
            }
            PeerAction::Dormant { node, over } => {
                let mut client = context.client(Lifetime::Short).await?;
                let peer = find(context, &node).await?;
                let request = api::SetDormantRequest {
                    node: peer.node.clone(),
                    dormant: !over,
                };
                client.set_dormant(request).await?;
                print_changed(context, if over { "active" } else { "dormant" }, &peer)
            }
        }
    }
}

// Finds a peer. The error has the hint `of_itself` if this node itself is named.
async fn find_other(
    context: &mut Context,
    named: &str,
    of_itself: &str,
) -> Result<api::Peer, Failure> {
    match find(context, named).await {
        Err(error) if is_own(context, named).await? => Err(error.hint(of_itself)),
        found => found,
    }
}

// Returns whether `named` is this node itself: it is not among its peers.
async fn is_own(context: &mut Context, named: &str) -> Result<bool, Failure> {
    let mut client = context.client(Lifetime::Short).await?;
    let reply = whole::peers(&mut client).await?;
    Ok(!matching(reply.own.into_iter().collect(), named).is_empty())
}

// Returns this node as far as a change of it needs.
async fn own(context: &mut Context) -> Result<api::Peer, Failure> {
    let mut client = context.client(Lifetime::Short).await?;
    let status = whole::status(&mut client).await?;
    Ok(api::Peer {
        node: status.node,
        ..api::Peer::default()
    })
}

async fn confirm_removal(peer: &api::Peer) -> Result<(), Failure> {
    let (node, name) = (hex(&peer.node), harmless(&peer.name));
    let shown = format!("node {node} ({name}, {})", peer.role);
    confirm::require_terminal(&format!("peer remove asks before it removes {shown}"))?;
    let question = format!("remove {shown} for ever?");
    confirm::ask(question, "the node was not removed").await
}

fn is_lower(role: &str, has: &str) -> bool {
    matches!(
        (role, has),
        ("reader", "writer" | "admin") | ("writer", "admin")
    )
}

async fn confirm_lowering(peer: &api::Peer, role: &str) -> Result<(), Failure> {
    let (node, name, has) = (hex(&peer.node), harmless(&peer.name), &peer.role);
    let shown = format!("the role of node {node} ({name}) from {has} to {role}");
    confirm::require_terminal(&format!("peer role asks before it lowers {shown}"))?;
    confirm::ask(
        format!("lower {shown} for ever?"),
        "the role was not changed",
    )
    .await
}

fn print_changed(
    context: &mut Context,
    what: &'static str,
    peer: &api::Peer,
) -> Result<(), Failure> {
    let out = &mut context.out;
    let node = hex(&peer.node);
    if out.json {
        return out.object(&object::PeerChanged { r#type: what, node });
    }
    out.line(&format!("{what:<8} {node}"))
}

/// List the members: the same as `peer list`
#[derive(Debug, Args)]
#[command(after_help = LIST_HELP)]
pub(crate) struct Peers {}

impl Peers {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let is_running = context.is_connected();
        let api::ListPeersReply {
            mut peers,
            addresses,
            own,
            not_listening,
        } = whole::peers(&mut client).await?;
        peers.sort_by_key(|peer| (!peer.online, Reverse(peer.seen_ms)));
        let out = &mut context.out;
        if !is_running {
            out.notice(
                "no_node",
                "no node is running here, so nothing is known about connections; start it with \
                 `lattice up`",
            );
        }
        if !not_listening.is_empty() {
            out.notice(
                "not_listening",
                &format!("{not_listening}; it tries again; {NOT_LISTENING_HINT}"),
            );
        }
        if out.json {
            let own = own.iter().map(|own| object::Peer::new(own, true));
            let mut all = own.chain(peers.iter().map(|peer| object::Peer::new(peer, false)));
            return all.try_for_each(|peer| out.object(&peer));
        }
        if peers.is_empty() {
            out.notice(
                "no_peers",
                "this node has no peers; invite one with `lattice invite`",
            );
        }
        if let Some(own) = &own {
            out.line(&own_line(own))?;
        }
        for peer in &peers {
            out.line(&line(peer))?;
            if !peer.error.is_empty() && !peer.online {
                out.line(&format!("         {}", peer.error))?;
            }
        }
        if !addresses.is_empty() {
            out.notice(
                "listening",
                &format!("listening on {}", addresses.join(", ")),
            );
        }
        Ok(())
    }
}

fn own_line(own: &api::Peer) -> String {
    let mut line = beginning(own, "this node");
    add_marks(&mut line, own);
    line
}

fn beginning(peer: &api::Peer, state: &str) -> String {
    format!(
        "{}  {:<16} {:<7} {state}",
        short(&peer.node),
        harmless(&peer.name),
        peer.role
    )
}

fn line(peer: &api::Peer) -> String {
    if matches!(peer.role.as_str(), "removed" | "spent") && !peer.online {
        // It was a member: this node does not look for it, nor compare with it.
        let mut line = beginning(peer, "").trim_end().to_owned();
        add_marks(&mut line, peer);
        return line;
    }
    let state = match (peer.online, peer.seen_ms) {
        (true, _) => "online".to_owned(),
        (false, 0) => "never seen".to_owned(),
        (false, seen_ms) => format!("seen {}", date_time(seen_ms)),
    };
    let mut line = beginning(peer, &state);
    if let Some(rtt_us) = peer.rtt_us {
        let whole = rtt_us / 1000;
        let tenth = rtt_us % 1000 / 100;
        let path = if peer.relayed { "relayed" } else { "direct" };
        append(&mut line, format_args!("  {whole}.{tenth} ms {path}"));
    }
    let entries = |count| format!("{count} {}", if count == 1 { "entry" } else { "entries" });
    match (peer.behind, peer.ahead.unwrap_or(0)) {
        (None, _) => line.push_str("  not compared yet"),
        (Some(0), 0) if !peer.held => line.push_str("  in step"),
        (Some(behind), ahead) => {
            if behind > 0 {
                append(&mut line, format_args!("  {} behind", entries(behind)));
            }
            if ahead > 0 {
                append(&mut line, format_args!("  {} ahead", entries(ahead)));
            }
        }
    }
    if peer.seen_ms > 0 {
        append(&mut line, format_args!("  clock {}", skew(peer.skew_ms)));
    }
    add_marks(&mut line, peer);
    line
}

fn add_marks(line: &mut String, peer: &api::Peer) {
    let marks = [
        (peer.dormant, "dormant"),
        (peer.held, "held here: stamped more than 1 h ahead"),
        (peer.forked, "FORKED"),
        (peer.diverged > 0, "DIVERGED"),
        (peer.strikes > 0, "misbehaved"),
    ];
    for (_, mark) in marks.iter().filter(|(set, _)| *set) {
        line.push_str("  ");
        line.push_str(mark);
    }
}

// By how much a clock is ahead of the clock here, in the unit that a person would use.
fn skew(ms: i64) -> String {
    let direction = if ms < 0 { "behind" } else { "ahead" };
    match ms.unsigned_abs() {
        0..10_000 => format!("{ms:+} ms"),
        more => format!("{} {direction}", about(more)),
    }
}

fn append(line: &mut String, part: std::fmt::Arguments<'_>) {
    line.write_fmt(part).expect("a String takes all");
}

/// Connect to a member now
///
/// The node dials members by itself. This is for an address that it does not know.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice connect 4f5c
  lattice connect kitchen 192.0.2.7:4711")]
pub(crate) struct Connect {
    /// Id of the node, the first digits of it, or its name
    node: String,
    /// Address of the node [default: the last known ones]
    #[arg(value_name = "IP:PORT")]
    address: Option<String>,
}

impl Connect {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let peer = find(context, &self.node).await?;
        let request = api::DialRequest {
            node: peer.node.clone(),
            address: self.address.unwrap_or_default(),
        };
        client.dial(request).await?;
        print_changed(context, "dialled", &peer)
    }
}

/// Finds the only peer with this id, beginning of an id, or name. A member chooses its own name: it
/// must not stand for the id of another member.
pub(crate) async fn find(context: &mut Context, named: &str) -> Result<api::Peer, Failure> {
    let mut client = context.client(Lifetime::Short).await?;
    let reply = whole::peers(&mut client).await?;
    let matching = matching(reply.peers, named);
    match &matching[..] {
        [peer] => Ok(peer.clone()),
        [] => Err(Failure::new(
            Exit::NotFound,
            "unknown_node",
            format!("no peer has the id or the name {named:?}"),
        )
        .hint("`lattice peer list` lists the peers")),
        several => {
            let nodes = several.iter().take(NODES_SHOWN_MAX).map(|peer| {
                let name = harmless(&peer.name);
                format!("{} ({name}, {})", hex(&peer.node), peer.role)
            });
            let nodes: Vec<String> = nodes.collect();
            let message = format!("{named:?} matches {} nodes", several.len());
            Err(Failure::usage("ambiguous_node", message)
                .hint(format!("give the whole id of one: {}", nodes.join(", "))))
        }
    }
}

// Returns the peers that `named` may stand for: the one with exactly this id, or those whose id
// begins so or whose name it is. Removed nodes are only found if no member is.
fn matching(peers: Vec<api::Peer>, named: &str) -> Vec<api::Peer> {
    let digits = named.to_ascii_lowercase();
    let is_meant = |peer: &api::Peer| {
        let id = hex(&peer.node);
        match digits.len() {
            0 => false,
            // A whole id.
            64 => id == digits,
            _fewer => id.starts_with(&digits) || (!looks_like_id(named) && peer.name == named),
        }
    };
    let meant = peers.into_iter().filter(is_meant);
    let (removed, members): (Vec<_>, Vec<_>) = meant.partition(|peer| peer.role == "removed");
    if members.is_empty() { removed } else { members }
}

/// Nodes that an error about an ambiguous name lists.
const NODES_SHOWN_MAX: usize = 5;

const LIST_HELP: &str = "\
A line for each member, this node first: the first digits of its id, its name and its role; online,
or when it was last heard of; the round-trip time, and whether the connection is direct or relayed;
how many entries it is behind this node or ahead of it; how far its clock is ahead of this node's.
Then dormant, held (entries of it wait here for the clock), FORKED, DIVERGED (it signs another state
than this node for the same entries; see `lattice status`) or misbehaved, if it is; below a member that
is offline, the last error. A member that was stopped has none.

With --json: node, name, role, own, online, seen_ms (0: never), behind and ahead (entries; null: not
compared yet), held, rtt_us (null: not connected), relayed, skew_ms, dormant, forked, diverged (number
of stores), strikes, error, addresses.

Examples:
  lattice peer list
  lattice peers --json | jq -r 'select(.behind > 0) | .name'";

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(digit: u8, name: &str, role: &str) -> api::Peer {
        api::Peer {
            node: vec![digit; 32].into(),
            name: name.to_owned(),
            role: role.to_owned(),
            ..api::Peer::default()
        }
    }

    fn online(behind: Option<u64>, ahead: Option<u64>, held: bool) -> String {
        line(&api::Peer {
            online: true,
            seen_ms: 1,
            behind,
            ahead,
            held,
            ..peer(0x11, "kitchen", "writer")
        })
    }

    #[test]
    fn in_step_is_shown_only_if_neither_lacks_entries() {
        let begins = "11111111  kitchen          writer  online";
        let shown = |behind, ahead, held| {
            let line = online(behind, ahead, held);
            let line = line.strip_prefix(begins).unwrap();
            line.strip_suffix("  clock +0 ms")
                .unwrap_or(line)
                .to_owned()
        };
        assert_eq!(shown(None, None, false), "  not compared yet");
        assert_eq!(shown(Some(0), Some(0), false), "  in step");
        assert_eq!(shown(Some(1), Some(0), false), "  1 entry behind");
        assert_eq!(shown(Some(0), Some(2), false), "  2 entries ahead");
        let both = shown(Some(3), Some(1), false);
        assert_eq!(both, "  3 entries behind  1 entry ahead");
        for ahead in [Some(0), Some(1)] {
            let held = shown(Some(0), ahead, true);
            assert!(!held.contains("in step"), "{held}");
            assert!(held.contains("held here"), "{held}");
        }
    }

    #[test]
    fn clock_skew_is_in_words_above_ten_seconds() {
        assert_eq!(skew(-250), "-250 ms");
        assert_eq!(skew(9_999), "+9999 ms");
        assert_eq!(skew(3 * 86_400_000), "3 days ahead");
        assert_eq!(skew(-2 * 3_600_000), "2 h behind");
    }

    fn found(peers: &[api::Peer], named: &str) -> Vec<u8> {
        let matching = matching(peers.to_vec(), named);
        matching.iter().map(|peer| peer.node[0]).collect()
    }

    /// "never seen  not compared yet" was shown of a node that was here a moment ago.
    #[test]
    fn removed_node_is_shown_as_such() {
        let gone = peer(0x33, "cellar", "removed");
        assert_eq!(line(&gone), "33333333  cellar           removed");
    }

    /// A member took the id of another one as its name: neither could be removed by the command line.
    #[test]
    fn id_is_never_ambiguous_with_a_name() {
        let kitchen = "11".repeat(32);
        let peers = [
            peer(0x11, "kitchen", "writer"),
            peer(0x22, &kitchen, "writer"),
            peer(0x33, &kitchen[..8], "removed"),
            peer(0x44, "cafe", "writer"),
            peer(0xca, "attic", "writer"),
        ];
        assert_eq!(found(&peers, &kitchen), [0x11]);
        assert_eq!(found(&peers, &kitchen.to_uppercase()), [0x11]);
        assert_eq!(found(&peers, &kitchen[..8]), [0x11]);
        assert_eq!(found(&peers, "kitchen"), [0x11]);
        assert_eq!(found(&peers, &"22".repeat(32)), [0x22]);
        assert_eq!(found(&peers, "cafe"), [0x44]);
        assert_eq!(found(&peers, "ca"), [0xca]);
        assert!(found(&peers, "").is_empty());
    }

    #[test]
    fn removed_node_does_not_take_a_name() {
        let peers = [
            peer(0x11, "kitchen", "removed"),
            peer(0x22, "kitchen", "writer"),
            peer(0x33, "cellar", "removed"),
        ];
        assert_eq!(found(&peers, "kitchen"), [0x22]);
        assert_eq!(found(&peers, "cellar"), [0x33]);
        assert_eq!(found(&peers, &"11".repeat(32)), [0x11]);
        let twins = [peer(0x11, "a", "writer"), peer(0x12, "a", "reader")];
        assert_eq!(found(&twins, "a"), [0x11, 0x12]);
    }
}
